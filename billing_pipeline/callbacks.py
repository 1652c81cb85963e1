"""The receiver of answers that arrive by callback: POST <any prefix>/<token> puts a letter into the mailbox.

A provider may deliver a letter once and never again, so nothing is understood here: a letter for a token that we issued is
streamed to disk, synced and renamed, and only then answered 200. Every other answer means that nothing was kept:

    404  everything a stranger may do: no such token, one whose letter was landed, not a POST, not HTTP. Always the same bytes
    400  broken off or empty        408  too slow          409  enough letters came for this token
    413  too large                  503  too many at once  507  the mailbox or its disk is full

One connection brings one letter. Who has not named an open token yet is a stranger: he has some seconds to do so, and when there
are too many strangers the one who waits longest makes room. So nobody can keep the provider out by holding connections open,
and memory stays flat whatever is sent. It stands behind the proxy that ends TLS (SECURITY.md), and it logs no address: the last
segment of one is a secret.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import h11

from .drafts import NoRoom
from .mailbox import MAX_LETTERS, Closed, Mailbox, Ticket, TooManyLetters

GRACE = 60.0  # seconds that a letter on its way may still take when the receiver stops
SILENCE = 2.0  # seconds in which a sender that was let in must begin to speak when the receiver stops
LINGER = 1.0  # seconds for which what a sender still sends is thrown away, so that it can read the answer

_HEAD = 16 << 10  # bytes that a request may have before its body; also read at once until then
_PIECE = 256 << 10
_UNREAD = 4 << 20  # bytes that are thrown away for the same reason
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one sender, and all of them together, may take.

    Attributes:
        letter: bytes of one letter. None is documented; a million rows are some 250 MB.
        seconds: for one letter: 1 GB at 10 Mbit/s.
        idle: seconds without a byte of it.
        head: seconds until a sender has said where it sends to.
        strangers: connections that have not named an open token yet.
        letters: letters at once; how much may lie in the mailbox is the mailbox's own (`drafts.Room`).
        per_ticket: letters at once for one token, so that who knows one address does not keep out the others.
    """

    letter: int = 1 << 30
    seconds: float = 900
    idle: float = 60
    head: float = 10
    strangers: int = 256
    letters: int = 32
    per_ticket: int = 3


class _TooLarge(Exception):
    """More bytes than a letter may have."""


def _answer(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_TROUBLE: dict[type[Exception], tuple[int, str]] = {
    h11.RemoteProtocolError: (400, "it broke off"),
    TimeoutError: (408, "it took too long"),
    TooManyLetters: (409, f"{MAX_LETTERS} different ones came already"),
    _TooLarge: (413, "it is too large"),
}


class _Receiver:
    """Everybody who is connected just now, and what becomes of them."""

    def __init__(self, mailbox: Mailbox, limits: Limits) -> None:
        self._mailbox = mailbox
        self._limits = limits
        self._strangers: dict[asyncio.Task[None], None] = {}  # the one who waits longest comes first
        self._letters: dict[asyncio.Task[None], str] = {}  # and for which ticket

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Let people in until `stop`, then let those who are in finish, and close the listener."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        try:
            await asyncio.to_thread(self._mailbox.tidy)
        except OSError as error:
            _LOG.warning("the mailbox could not be tidied: %s", error)
        # Not `sock_accept`: when that is cancelled, somebody whom it has just let in is forgotten.
        loop.add_reader(listener, self._knock, listener, 16)
        await stop.wait()
        loop.remove_reader(listener)
        while self._knock(listener, 16):  # who has knocked is let in; closing would cut them off
            pass
        listener.close()
        for them, seconds in ((self._strangers, SILENCE), (self._letters, GRACE)):
            if them:
                await asyncio.wait(list(them), timeout=seconds)
        left = [*self._strangers, *self._letters]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _knock(self, listener: socket.socket, most: int) -> bool:
        """Let in who waits, a few at a time, so that those who are in have their turn; whether there may be more."""
        for _ in range(most):
            try:
                self._let_in(listener.accept()[0])
            except BlockingIOError:
                return False
            except OSError as error:  # the caller is gone again, or there is no file handle left: somebody makes room
                _LOG.warning("a connection could not be accepted: %s", error.strerror)
                if self._strangers:
                    self._send_away(next(iter(self._strangers)))
                return False
        return True

    def _let_in(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        if len(self._strangers) >= self._limits.strangers:
            self._send_away(next(iter(self._strangers)))
        task = asyncio.create_task(self._meet(connection))
        self._strangers[task] = None
        task.add_done_callback(self._gone)
        # A task that is cancelled before its first step never gets to its `finally`.
        task.add_done_callback(lambda _: connection.close())

    def _send_away(self, task: asyncio.Task[None]) -> None:
        del self._strangers[task]
        task.cancel()

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._strangers.pop(task, None)
        self._letters.pop(task, None)

    async def _meet(self, connection: socket.socket) -> None:
        """One connection, from its first byte to its end. Whatever happens in it ends here."""
        loop = asyncio.get_running_loop()
        try:
            status = await self._converse(_Sender(connection))
            if self._letters.pop(_me(), None):
                self._strangers[_me()] = None  # has had its answer; makes room like any other
            async with asyncio.timeout(LINGER):
                await loop.sock_sendall(connection, _answer(status))
                connection.shutdown(socket.SHUT_WR)
                left = _UNREAD
                while left > 0 and (rest := await loop.sock_recv(connection, _PIECE)):
                    left -= len(rest)
        except (OSError, TimeoutError, _Silent):
            pass
        except Exception as error:  # noqa: BLE001  one sender must not end the receiver
            _LOG.error("a connection ended with %s", type(error).__name__)  # the text could hold what was sent

    async def _converse(self, sender: _Sender) -> int:
        """The status to answer."""
        try:
            async with asyncio.timeout(self._limits.head):
                asked = await sender.head()
        except TimeoutError as error:
            raise _Silent from error
        except h11.RemoteProtocolError:
            return 404
        token = asked.target.partition(b"?")[0].rpartition(b"/")[2].decode("latin-1")
        ticket = await asyncio.to_thread(self._mailbox.addressee, token)
        if ticket is None or asked.method != b"POST":
            return 404
        if ticket.closed_at and not await asyncio.to_thread(self._mailbox.wants_strays, ticket):
            return 404
        same = list(self._letters.values()).count(ticket.key)
        if len(self._letters) >= self._limits.letters or same >= self._limits.per_ticket:
            return 404 if ticket.closed_at else 503
        self._strangers.pop(_me(), None)
        self._letters[_me()] = ticket.key
        return await (self._stray if ticket.closed_at else self._letter)(sender, ticket)

    async def _letter(self, sender: _Sender, ticket: Ticket) -> int:
        """Take a letter for a ticket that waits for it."""
        try:
            if sender.stated > self._limits.letter:
                raise _TooLarge
            with await asyncio.to_thread(self._mailbox.draft, ticket, sender.stated) as draft:
                async with asyncio.timeout(self._limits.seconds):
                    async for piece in self._pieces(sender):
                        await asyncio.to_thread(draft.write, piece)
                if not draft.size:
                    _tell(ticket, "an empty letter was answered 400")
                    return 400
                await asyncio.to_thread(self._mailbox.keep, ticket, draft)
        except Closed as closed:
            _tell(ticket, f"another letter came while it was closed ({closed})")
            return 404
        except tuple(_TROUBLE) as trouble:
            # In words of our own: the library's may repeat what was sent.
            status, why = next(told for kind, told in _TROUBLE.items() if isinstance(trouble, kind))
            _tell(ticket, f"a letter was answered {status} and not kept: {why}")
            return status
        except ConnectionError:
            _tell(ticket, "a letter broke off")
            raise
        except (NoRoom, OSError) as error:
            _tell(ticket, f"a letter was answered 507 and not kept: {error}")
            return 507
        return 200

    async def _stray(self, sender: _Sender, ticket: Ticket) -> int:
        """Read a letter to a ticket whose letter was landed, to know whether it is another one. Nothing of it is kept."""
        digest, size = hashlib.sha256(), 0
        with suppress(h11.RemoteProtocolError, TimeoutError, _TooLarge):
            async with asyncio.timeout(self._limits.seconds):
                async for piece in self._pieces(sender):
                    await asyncio.to_thread(digest.update, piece)
                    size += len(piece)
            if size and await asyncio.to_thread(self._mailbox.stray, ticket, digest.hexdigest(), size):
                _tell(
                    ticket, "another letter came after its letter had been landed; the next fetch of the month says so"
                )
        return 404

    async def _pieces(self, sender: _Sender) -> AsyncIterator[bytes]:
        size = 0
        async for piece in sender.body(self._limits.idle):
            size += len(piece)
            if size > self._limits.letter:
                raise _TooLarge
            yield piece


class _Silent(Exception):
    """Gone, or too slow, before it said where it sends to: it gets no answer."""


class _Sender:
    """One connection, read as HTTP."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)
        self.stated = 0
        """Bytes of the body, as it says itself; 0: it does not."""

    async def head(self) -> h11.Request:
        """The request up to its body.

        Raises:
            h11.RemoteProtocolError: not HTTP.
            _Silent: nothing came.
        """
        event = await self._event(_HEAD)
        if not isinstance(event, h11.Request):
            raise _Silent
        self.stated = next((int(value) for name, value in event.headers if name == b"content-length"), 0)
        return event

    async def body(self, idle: float) -> AsyncIterator[bytes]:
        """The body, piece by piece; each must come within `idle` seconds."""
        if self._http.they_are_waiting_for_100_continue:
            await asyncio.get_running_loop().sock_sendall(self._connection, _CONTINUE)
        while True:
            async with asyncio.timeout(idle):
                event = await self._event(_PIECE)
            if not isinstance(event, h11.Data):
                return
            yield bytes(event.data)

    async def _event(self, size: int) -> object:
        loop = asyncio.get_running_loop()
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await loop.sock_recv(self._connection, size))


def _me() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task  # noqa: S101  nothing here runs outside of one
    return task


def _tell(ticket: Ticket, what: str) -> None:
    request = f"request {ticket.request_id}" if ticket.request_id else "a request that was not accepted yet"
    _LOG.warning("%s/%s %s, %s: %s", ticket.provider, ticket.account, ticket.period, request, what)


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
    """Receive until interrupted or terminated: what `billing-pipeline callbacks` does."""
    listener, stop, loop = bound(f"{host}:{port}"), asyncio.Event(), asyncio.new_event_loop()
    for interruption in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(interruption, stop.set)
    _run(loop, listener, _Receiver(mailbox, Limits()), stop)


@contextmanager
def listening(mailbox: Mailbox, address: str, limits: Limits = Limits()) -> Iterator[bool]:
    """Receive in a thread of this process while the block runs.

    Args:
        mailbox: where letters go.
        address: `host:port`.
        limits: what senders may take.

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
    stop, loop = asyncio.Event(), asyncio.new_event_loop()
    receiver = _Receiver(mailbox, limits)
    thread = threading.Thread(target=_run, args=(loop, listener, receiver, stop), name="callbacks", daemon=True)
    thread.start()  # the socket listens already: whoever calls before the receiver is up waits in its queue
    try:
        yield True
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _run(loop: asyncio.AbstractEventLoop, listener: socket.socket, receiver: _Receiver, stop: asyncio.Event) -> None:
    try:
        loop.run_until_complete(receiver.serve(listener, stop))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        listener.close()
        loop.close()
