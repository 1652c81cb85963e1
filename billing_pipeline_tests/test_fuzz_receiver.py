"""Whatever bytes are sent to the receiver, it lives on, keeps nothing of a stranger, and answers what it is said to answer.

Longer, with new examples every time:

    env -u CI FUZZ_EXAMPLES=100000 python -m pytest billing_pipeline_tests/test_fuzz_receiver.py
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from billing_pipeline.callbacks import Limits, listening
from billing_pipeline.mailbox import LANDED, Mailbox, Ticket

from .infobip_letters import deliver, reserved_port

LONG = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "150")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
WRONG = {400: "Bad Request", 413: "Request Entity Too Large"}
MOST = 2000  # bytes of a letter

Place = tuple[Mailbox, tuple[str, int], Ticket]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A receiver with an open ticket and a used one."""
    mailbox = Mailbox(tmp_path_factory.mktemp("fuzz") / "mailbox", now=lambda: datetime.now(UTC))
    waiting = mailbox.issue("infobip", "main", "2026-05", {})
    mailbox.close(mailbox.issue("infobip", "main", "2026-04", {}), LANDED)
    with reserved_port() as keeper:
        where = keeper.getsockname()
        with listening(mailbox, f"127.0.0.1:{where[1]}", Limits(letter=MOST, idle=5)):
            deliver(f"http://127.0.0.1:{where[1]}/{waiting.token}", b"0")
            yield mailbox, where, waiting


def sent(where: tuple[str, int], pieces: list[bytes]) -> bytes:
    """What comes back until the connection ends; b"" also when it was cut."""
    came = b""
    with socket.create_connection(where, timeout=30) as connection, suppress(ConnectionError):
        for piece in pieces:
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        while more := connection.recv(65536):
            came += more
    return came


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cut(whole: bytes, places: list[int]) -> list[bytes]:
    """Bytes in several pieces."""
    ends = sorted({min(place, len(whole)) for place in places} | {len(whole)})
    return [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]


WORD = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=30).map(
    lambda t: t.encode("latin-1")
)
METHOD = st.sampled_from([b"POST", b"GET", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"TRACE", b"post", b"PRI"]) | WORD
NAME = st.sampled_from([
    b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Connection", b"Upgrade", b"Content-Type", b"Trailer",
]) | WORD  # fmt: skip
VALUE = (
    st.sampled_from([b"x", b"0", b"5", b"-1", b"1e9", b"18446744073709551616", b"chunked", b"gzip, chunked", b"identity",
                     b"100-continue", b"close", b"keep-alive", b"websocket", b"5, 5", b"+5", b"0x5"])
    | WORD
)  # fmt: skip
TARGET = (
    st.sampled_from([b"/", b"*", b"/callbacks/", b"//", b"/../../etc/passwd", b"/%2e%2e/ticket.json", b"http://x/y", b"/\x00",
                     b"/" + b"A" * 43, b"/" + b"A" * 20000])
    | WORD
)  # fmt: skip
END = st.sampled_from([b"\r\n", b"\n", b"\r", b"", b"\r\n\r\n"])
LINE = st.tuples(METHOD, TARGET, st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""]) | WORD)
HEADER = st.tuples(NAME, st.sampled_from([b": ", b":", b" :", b"\t"]), VALUE)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Something like a request."""
    end = draw(END)
    lines = [b" ".join(draw(LINE)), *(b"".join(header) for header in draw(st.lists(HEADER, max_size=8)))]
    return end.join(lines) + end + draw(END) + draw(st.binary(max_size=300))


@LONG
@given(data=st.data())
def test_a_stranger_gets_one_answer_or_none_and_leaves_nothing(place: Place, data: st.DataObject) -> None:
    mailbox, where, waiting = place
    before = everything(mailbox.folder)
    raw = data.draw(st.binary(max_size=600) | requests() | st.lists(requests(), max_size=3).map(b"".join))
    answer = sent(where, cut(raw, data.draw(st.lists(st.integers(0, len(raw)), max_size=4))))
    event("answered" if answer else "hung up")
    assert answer in (NOTHING, b"")
    assert everything(mailbox.folder) == before
    letter = b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n0" % str(waiting.token).encode()
    assert sent(where, [letter]).startswith(b"HTTP/1.1 200 ")  # it lives, and takes what it should


@LONG
@given(data=st.data())
def test_who_knows_an_address_has_kept_what_was_answered_200_and_nothing_else(
    place: Place, data: st.DataObject
) -> None:
    mailbox, where, _ = place
    ticket = mailbox.issue("infobip", "main", "2026-06", {})
    body = data.draw(st.binary(max_size=100) | st.binary(min_size=MOST - 2, max_size=MOST + 2))
    framing = data.draw(st.sampled_from(["length", "short", "long", "chunked", "chunks", "both", "twice", "none"]))
    chunks = cut(body, data.draw(st.lists(st.integers(0, len(body)), max_size=3)))
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n\r\n"
    length, rest, whole = {
        "length": (b"Content-Length: %d\r\n" % len(body), body, body),
        "short": (b"Content-Length: %d\r\n" % (len(body) // 2), body, body[: len(body) // 2]),
        "long": (b"Content-Length: %d\r\n" % (len(body) + 3), body, None),
        "chunked": (b"Transfer-Encoding: chunked\r\n", chunked, body),
        "chunks": (b"Transfer-Encoding: chunked\r\n", data.draw(st.binary(max_size=60)), None),
        "both": (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", chunked, body),
        "twice": (b"Content-Length: 4\r\nContent-Length: 5\r\n", body, None),
        "none": (b"", body, b""),
    }[framing]  # fmt: skip
    more = b"".join(
        b"X-%b: %b\r\n" % (name.hex().encode(), value.hex().encode())
        for name, value in data.draw(st.lists(st.tuples(WORD, WORD), max_size=4))
    )
    expect = data.draw(st.sampled_from([b"", b"Expect: 100-continue\r\n"]))
    raw = (
        b"POST /callbacks/%b HTTP/1.1\r\nHost: x\r\n" % str(ticket.token).encode()
        + length
        + expect
        + more
        + b"\r\n"
        + rest
    )
    answer = sent(where, cut(raw, data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))).removeprefix(CONTINUE)
    kept = [letter.path.read_bytes() for letter in mailbox.letters(ticket)]
    event(f"{framing}: {answer[9:12].decode() or 'none'}")
    if framing == "chunks":  # may be right by chance
        assert bool(kept) == answer.startswith(b"HTTP/1.1 200 OK\r\n")
    elif whole and len(whole) <= MOST:
        assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        assert kept == [whole]
    else:
        told = [b"HTTP/1.1 %d %b" % (status, words.encode()) for status, words in WRONG.items()]
        assert answer == b"" or answer == NOTHING or answer.partition(b"\r\n")[0] in told
        assert kept == []
    for letter in mailbox.letters(ticket):
        assert hashlib.sha256(letter.path.read_bytes()).hexdigest() == letter.sha256
    assert list(mailbox.folder.rglob(".*.tmp")) == []
    shutil.rmtree(mailbox.folder / ticket.key)
