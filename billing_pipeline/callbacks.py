"""The receiver of answers that arrive by callback: POST <any prefix>/<token> puts a letter into the mailbox.

A provider may deliver a letter once and never again, so nothing is understood here: a letter for a token that we issued is
streamed to disk, synced and renamed, and only then answered 200. Every other answer means that nothing was kept:
404 no such token, 413 too large, 400 broken off or empty, 408 too slow, 409 enough letters came for this token, 405 not a POST.
It stands behind the proxy that ends TLS, and it logs no address: the last segment of one is a secret.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from .mailbox import Mailbox, TooManyLetters

MAX_LETTER = 1 << 30  # no limit is documented; a million rows are some 250 MB, and a full disk helps nobody
MAX_SECONDS = 900.0  # for one letter: 1 GB at 10 Mbit/s
GRACE = 60  # seconds that a letter on its way may still take when the receiver stops
SILENCE = 2  # seconds in which a sender that was let in must begin to speak when the receiver stops


class _TooLarge(Exception):
    """More bytes than a letter may have."""


def app(mailbox: Mailbox, max_letter: int = MAX_LETTER, max_seconds: float = MAX_SECONDS) -> Starlette:
    """The receiver as an ASGI application.

    Args:
        mailbox: where letters go; it knows which tokens were issued.
        max_letter: bytes that one letter may have.
        max_seconds: how long one letter may take to arrive.
    """

    async def receive(request: Request) -> Response:
        token = request.url.path.rpartition("/")[2]
        key = await run_in_threadpool(mailbox.expected, token)
        if key is None:
            return Response(status_code=404)
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > max_letter:
            return Response(status_code=413)
        file = mailbox.draft(key)
        draft = Path(file.name)
        try:
            with file:
                digest = hashlib.sha256()
                size = 0
                async with asyncio.timeout(max_seconds):
                    async for piece in request.stream():
                        size += len(piece)
                        if size > max_letter:
                            raise _TooLarge
                        digest.update(piece)
                        file.write(piece)
                file.flush()
                await run_in_threadpool(os.fsync, file.fileno())
            if not size:
                return Response(status_code=400)
            await run_in_threadpool(mailbox.keep, key, draft, digest.hexdigest())
        except _TooLarge:
            return Response(status_code=413)
        except TimeoutError:
            return Response(status_code=408)
        except TooManyLetters:
            return Response(status_code=409)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            draft.unlink(missing_ok=True)
        return Response(status_code=200)

    return Starlette(routes=[Route("/{path:path}", receive, methods=["POST"])])


def bound(address: str) -> socket.socket:
    """A socket that listens on `host:port`, which other receivers of the same user may share (SO_REUSEPORT).

    So `billing-pipeline callbacks` and any number of runs receive at once, and whoever stops leaves the others listening.

    Raises:
        ValueError: not `host:port`.
        OSError: the address cannot be had; EADDRINUSE when a program that does not share it is there.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal():
        raise ValueError(f"callback_listen is {address!r}; it must be host:port, such as 127.0.0.1:8765")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(where)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot receive callbacks on {address}: {error.strerror}") from error
    return listener


def serve(mailbox: Mailbox, host: str, port: int) -> None:
    """Receive until interrupted: what `billing-pipeline callbacks` does."""
    with closing(bound(f"{host}:{port}")) as listener:
        _server(app(mailbox)).run(sockets=[listener])


@contextmanager
def listening(
    mailbox: Mailbox, address: str, *, max_letter: int = MAX_LETTER, max_seconds: float = MAX_SECONDS
) -> Iterator[bool]:
    """Receive in a thread of this process while the block runs.

    Args:
        mailbox: where letters go.
        address: `host:port`.
        max_letter: see `app`.
        max_seconds: see `app`.

    Yields:
        True; False when another program holds the port and does not share it: presumably the receiver of another user,
        who then brings the letters to this mailbox or to none.
    """
    try:
        listener = bound(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        yield False
        return
    server = _server(app(mailbox, max_letter, max_seconds))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="callbacks", daemon=True)
    thread.start()  # the socket listens already: whoever calls before the server is up waits in its queue
    try:
        yield True
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class _Server(uvicorn.Server):
    """Stops by letting everyone finish who has been let in: uvicorn alone would close connections that have not spoken yet."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.sleep(0)  # whoever knocked already is let in
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENCE):
                while self.server_state.connections:
                    await asyncio.sleep(0.02)
        await super().shutdown(sockets)


def _server(receiver: Starlette) -> _Server:
    return _Server(
        uvicorn.Config(
            receiver,
            access_log=False,
            log_config=None,
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=64,
            headers=[("Connection", "close")],  # one letter, one connection: none lingers when the receiver stops
            timeout_graceful_shutdown=GRACE,
        )
    )
