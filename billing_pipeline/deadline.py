"""Connections that end at an instant: a time-out for each read does not bound an answer that trickles in byte by byte."""

from __future__ import annotations

import time
from collections.abc import Iterable
from math import inf
from ssl import SSLContext
from typing import Any

import httpcore

# Bytes at once; httpcore asks for 64 kB, and each piece goes through five layers: 0.25 ms for a page of Plivo's. Over TLS they
# come 16 kB at a time all the same.
MORE = 1 << 18
KEPT = 5.0  # seconds that a connection waits for the next request, as httpx's own transport has it


class Deadline(httpcore.NetworkBackend):
    """Where httpcore's connections come from; nothing waits on them beyond the deadline, whichever bytes still come.

    Args:
        seconds: from `start` to the deadline.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = inf
        self._inner = httpcore.SyncBackend()

    def start(self) -> None:
        """A request begins."""
        self._at = time.monotonic() + self._seconds

    def left(self, timeout: float | None) -> float:
        """How long one step may still wait.

        Raises:
            httpcore.ReadTimeout: the deadline has passed.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"the answer was not complete after {self._seconds:g} s")
        return left if timeout is None else min(timeout, left)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection."""
        return _Stream(self._inner.connect_tcp(host, port, self.left(timeout), local_address, socket_options), self)

    def sleep(self, seconds: float) -> None:
        """As every backend has it."""
        self._inner.sleep(seconds)


class Connections:
    """HTTP/1.1 connections, one for each site, for one thread at a time.

    httpx's own transport has a pool of them for many threads, which takes 0.15 ms of CPU a request, and hands no backend through.

    Args:
        deadline: where they come from.
        trusted: whom to trust.
    """

    def __init__(self, deadline: Deadline, trusted: SSLContext) -> None:
        self._deadline, self._trusted = deadline, trusted
        self._open: dict[tuple[bytes, bytes, int], httpcore.HTTPConnection] = {}

    def answered(self, request: httpcore.Request) -> httpcore.Response:
        """An answer whose body is still to be read. It must be closed before the next is asked for.

        Raises:
            httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError: there is none.
        """
        origin = request.url.origin
        site = origin.scheme, origin.host, origin.port
        connection = self._open.get(site)
        # One that was left in the middle of an answer is not available; one that the other side has closed has expired.
        if connection is None or not connection.is_available() or connection.has_expired():
            if connection:
                connection.close()
            connection = self._open[site] = httpcore.HTTPConnection(
                origin, ssl_context=self._trusted, keepalive_expiry=KEPT, network_backend=self._deadline
            )
        return connection.handle_request(request)

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._open.popitem()[1].close()


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max(max_bytes, MORE), self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._deadline.left(timeout)), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
