"""How Infobip's letters are delivered: once, as its documents say, or as a fault commands.

`PUT /_sandbox/infobip {"fault": "twice"}` turns one of `FAULTS` on for every query from then on, `{"fault": null}` off. Letters
that a fault holds back are delivered by `POST /_sandbox/infobip/letters`; GET shows what is held and what was delivered.
"""

from __future__ import annotations

import io
import logging
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, BinaryIO
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import msgspec

PATIENCE = 60.0
BLOCK = 1 << 20
HUGE = 300 << 20
BEYOND = 2 << 30

_LOG = logging.getLogger(__name__)
_JSON = msgspec.json.Encoder(decimal_format="number")
_DECODE = msgspec.json.Decoder(float_hook=Decimal).decode

Send = Callable[[str, Iterable[bytes], int], int | None]
"""POST a body of so many bytes to an address; the status, None when there was none."""


@dataclass
class Post:
    """What is on its way, and what became of the rest.

    Attributes:
        held: letters that wait for `deliver`: the request's id, and how each is sent.
        newest_first: whether the held ones go out in the wrong order.
        delivered: per delivery the request's id and the receiver's status; None: it gave none.
    """

    held: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    newest_first: bool = False
    delivered: list[dict[str, Any]] = field(default_factory=list)

    def deliver(self) -> int:
        """Send what is held; how many letters that was."""
        waiting, self.held = self.held, []
        for _, send in reversed(waiting) if self.newest_first else waiting:
            send()
        return len(waiting)

    def hold(self, identifier: str, send: Callable[[], None]) -> None:
        """Keep a letter back."""
        self.held.append((identifier, send))

    def sender(self, identifier: str) -> Send:
        """What sends the letters to one query, and remembers how they were taken."""

        def send(url: str, body: Iterable[bytes], size: int) -> int | None:
            headers = {"Content-Type": "application/json", "Content-Length": str(size)}
            status = None
            try:
                with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
                    status = client.post(url, content=body, headers=headers).status_code
            except httpx.HTTPError as lost:
                # The address may hold the receiver's secret: it stays out of the log.
                _LOG.warning("infobip %s: the callback was not taken (%s)", identifier, type(lost).__name__)
            self.delivered.append({"requestId": identifier, "status": status})
            return status

        return send


def deliver(post: Post, fault: str | None, identifier: str, url: str, written: Callable[[], BinaryIO]) -> None:
    """Send the letter to one query, once; or do what the fault says.

    Args:
        post: where it is remembered.
        fault: one of `FAULTS`; None: none.
        identifier: the query's id.
        url: where its letter goes.
        written: writes the letter; the caller of it closes it.
    """

    def well() -> None:
        with written() as letter:
            size = letter.seek(0, io.SEEK_END)
            letter.seek(0)
            post.sender(identifier)(url, iter(lambda: letter.read(BLOCK), b""), size)

    if fault is None:
        well()
    elif fault in HELD:
        post.newest_first = fault == "out of order"
        post.hold(identifier, well)
    else:
        with written() as letter:
            body = letter.read()
        FAULTS[fault][1](_Case(post, identifier, url, body))


@dataclass(frozen=True)
class _Case:
    """A letter that is to be spoilt."""

    post: Post
    identifier: str
    url: str
    body: bytes

    def send(self, body: bytes, url: str | None = None) -> None:
        self.post.sender(self.identifier)(url or self.url, [body], len(body))

    def said(self) -> dict[str, Any]:
        """The letter, to be changed."""
        said: dict[str, Any] = _DECODE(self.body)
        return said

    def say(self, said: object) -> None:
        self.send(_JSON.encode(said))

    def other(self) -> bytes:
        """The same letter with another amount in its first row."""
        said = self.said()
        place = [column["columnName"] for column in said["response"]["columns"]].index("TOTAL_PER_UNIT")
        said["response"]["rows"][0][place] += Decimal("0.01")
        return _JSON.encode(said)


def _failed(case: _Case) -> None:
    case.say({"requestId": case.identifier, "status": "FAILED", "failureMessage": "Could not load data"})


def _twice(case: _Case) -> None:
    case.send(case.body)
    case.send(case.body)


def _forged(case: _Case) -> None:
    base, _, token = case.url.rpartition("/")
    made_up = case.other()
    for address in (
        base,
        f"{base}/",
        f"{base}/{token[::-1]}",
        f"{base}/{token}x",
        f"{base}/..%2f{token}",
        f"{base}/letter",
    ):
        case.send(made_up, address)
    case.send(made_up.replace(case.identifier.encode(), uuid4().hex.upper().encode()))
    case.send(case.body)


def _wrong_id(case: _Case) -> None:
    case.send(case.body.replace(case.identifier.encode(), uuid4().hex.upper().encode()))


def _not_json(case: _Case) -> None:
    case.send(b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>")


def _huge(case: _Case) -> None:
    before, after = b'{"padding":"', b'",' + case.body[1:]

    def parts() -> Iterator[bytes]:
        yield before
        for _ in range(HUGE // BLOCK):
            yield b"x" * BLOCK
        yield after

    case.post.sender(case.identifier)(case.url, parts(), len(before) + HUGE + len(after))


def _too_large(case: _Case) -> None:
    case.post.sender(case.identifier)(case.url, iter(lambda: b" " * BLOCK, b""), BEYOND)


def _truncated(case: _Case) -> None:
    case.send(case.body[: len(case.body) * 2 // 3])


def _broken_off(case: _Case) -> None:
    parts = urlsplit(case.url)
    head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(case.body)}\r\n\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PATIENCE) as connection:
        connection.sendall(head.encode() + case.body[: len(case.body) // 2])
    case.post.delivered.append({"requestId": case.identifier, "status": None})


def _short_row(case: _Case) -> None:
    said = case.said()
    said["response"]["rows"][-1].pop()
    case.say(said)


def _wrong_total_rows(case: _Case) -> None:
    said = case.said()
    said["response"]["rows"].pop()
    case.say(said)


def _shuffled_columns(case: _Case) -> None:
    said = case.said()
    response = said["response"]
    response["columns"].reverse()
    for row in response["rows"]:
        row.reverse()
    said["response"] = dict(reversed(response.items()))
    case.say(dict(reversed(said.items())))


def _two_results(case: _Case) -> None:
    case.send(case.body)
    case.send(case.other())


def _second_later(case: _Case) -> None:
    case.send(case.body)
    other = case.other()
    case.post.hold(case.identifier, lambda: case.send(other))


def _held(case: _Case) -> None:
    raise AssertionError("held letters are sent as they are")


HELD = {"late", "out of order"}
FAULTS: dict[str, tuple[str, Callable[[_Case], None]]] = {
    "late": ("The letter is held until it is commanded to be delivered.", _held),
    "never": ("No letter comes.", lambda case: None),
    "FAILED": ("The letter says that the query failed.", _failed),
    "twice": ("The same letter is delivered twice.", _twice),
    "out of order": ("Letters are held, and the newest query's is delivered first.", _held),
    "forged ids": (
        "A stranger sends letters with other amounts to addresses near the right one, and one with an invented id to it; "
        "then the right letter comes.",
        _forged,
    ),
    "wrong id": ("The letter names another query.", _wrong_id),
    "not JSON": ("The letter is a proxy's error page.", _not_json),
    "hundreds of megabytes": ("300 MB of a field that nobody knows come before the rest of the letter.", _huge),
    "too large": ("A body of 2 GB is announced.", _too_large),
    "truncated": ("The last third of the letter is missing, and its length is said to be that.", _truncated),
    "broken off": ("The connection closes after half of the letter.", _broken_off),
    "short row": ("A row lacks its last value.", _short_row),
    "wrong totalRows": ("A row is missing, and totalRows counts it.", _wrong_total_rows),
    "shuffled columns": ("Columns, values and keys come in another order.", _shuffled_columns),
    "two results": ("A second letter with another amount follows at once.", _two_results),
    "second result later": ("A second letter with another amount is held until it is commanded.", _second_later),
}
"""What each does, by the name that `PUT /_sandbox/infobip {"fault": name}` takes."""
