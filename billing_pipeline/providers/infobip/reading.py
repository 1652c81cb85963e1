"""How Infobip's letter is read as a stream: its envelope without its rows, and its rows a few thousand at a time.

A whole month is one JSON document, `{"response": {"rows": [[...], ...]}}`, in any key order, and may be larger than memory.
The rows are cut out of the bytes with a pattern for "flat JSON list" and decoded by msgspec, numbers as their digits; what
remains is a small document, and reading it proves that nothing was cut off. `infobip.statement` counts with ijson instead,
so that a mistake here does not agree with itself. Source: the callback in
https://www.infobip.com/docs/billing-usage-api/query-billing-data and the OpenAPI's webhook (read 2026-11).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from ... import shapes
from ...rows import UnexpectedShape

BLOCK = 2 << 20
MAX_ROW = 16 << 20  # a row has two dozen short values; what is longer is no flat list
MAX_ENVELOPE = 16 << 20

# Possessive, so that matching a block costs one pass and no memory: a cell that is text may hold brackets.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_ROW = rb"\[(?:[^\"\[\]]++|" + _TEXT + rb")*+\]"
_ROWS = re.compile(rb"(?>\s*+" + _ROW + rb"\s*+,)*+", re.DOTALL)
_LAST = re.compile(rb"\s*+(" + _ROW + rb")?+\s*+\]", re.DOTALL)
_TOKEN = re.compile(rb"\s*+(" + _TEXT + rb"|[{}\[\],:]|[^\s\"{}\[\],:]++)", re.DOTALL)


def _number(digits: str) -> Decimal | str:
    """A number; one with a negative exponent stays text, because Arrow makes zeros of far ones (see rows.held)."""
    return digits if "-" in digits[1:] else Decimal(digits)


_decode_rows = msgspec.json.Decoder(list[list[Any]], float_hook=_number).decode


class Span(msgspec.Struct):
    """Two ends of a period as Infobip writes them."""

    sentSince: str
    sentUntil: str


class Column(msgspec.Struct):
    """What the values at one position of every row are."""

    columnName: str


class Month(msgspec.Struct):
    """Whether a month's volumes may still change."""

    month: str
    volumeFinalized: bool | None = None


class Response(msgspec.Struct):
    """The answer, its rows left out."""

    requestedPeriod: Span
    totalRows: int
    columns: list[Column]


class Metadata(msgspec.Struct):
    """What was asked, and how final the months are."""

    clientRequestedPeriod: Span | None = None
    billingPeriods: list[Month] = []


class Envelope(msgspec.Struct):
    """The letter without its rows. Fields that are not here are ignored: Infobip may add some at any time."""

    requestId: str
    status: str
    response: Response | None = None
    failureMessage: str | None = None
    metadata: Metadata | None = None


def envelope(stream: BinaryIO) -> Envelope:
    """The letter without its rows.

    Raises:
        UnexpectedShape: not JSON, cut off, or without the fields that Infobip's page promises.
    """
    raw = b"".join(_walk(stream, lambda chunk: None))
    try:
        return shapes.read(raw, Envelope)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnexpectedShape(f"the letter is not the JSON that Infobip's page promises: {error}") from error


def rows(stream: BinaryIO) -> Iterator[list[list[Any]]]:
    """The rows, some thousand at a time: text, numbers as int or Decimal, true, false and null.

    Raises:
        UnexpectedShape: a row is no flat list, or the letter is cut off.
    """
    chunks: list[bytes] = []
    for _ in _walk(stream, chunks.append):
        yield from _decoded(chunks)
        chunks.clear()
    yield from _decoded(chunks)


def content(letter: Path) -> object:
    """What a letter says, to be compared with another one: the order of keys, columns and rows says nothing.

    Raises:
        UnexpectedShape: as `envelope` and `rows`.
    """
    with letter.open("rb") as stream:
        told = envelope(stream)
    names = [column.columnName for column in told.response.columns] if told.response else []
    both = 0  # of all rows: a sum, which does not know their order
    with letter.open("rb") as stream:
        for chunk in rows(stream):
            for row in chunk:
                cells = sorted((name, repr(value)) for name, value in zip(names, row, strict=False))
                both += int.from_bytes(hashlib.sha256(repr((len(row), cells)).encode()).digest())
    if told.response:
        told.response.columns.sort(key=lambda column: column.columnName)
    return told, both % (1 << 256)


def _decoded(chunks: list[bytes]) -> Iterator[list[list[Any]]]:
    for chunk in chunks:
        try:
            yield _decode_rows(b"[" + chunk + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnexpectedShape(f"rows of the letter are not JSON lists: {error}") from error


def _walk(stream: BinaryIO, rows_found: Callable[[bytes], None]) -> Iterator[bytes]:
    """Cut `stream` in two: rows, separated by commas, go to `rows_found`; the rest is yielded (b"" after each block of rows)."""
    buffer = _Buffer(stream)
    path: list[bytes | None] = []  # the key under which each open object or list stands; None inside a list
    key: bytes | None = None
    seen, size = False, 0
    while True:
        match = buffer.match(_TOKEN, MAX_ENVELOPE)
        if match is None:
            yield buffer.rest()
            return
        token = match[1]
        size += len(match[0])
        if size > MAX_ENVELOPE:
            raise UnexpectedShape(f"the letter has more than {MAX_ENVELOPE >> 20} MB beside its rows")
        yield match[0]
        if token == b"[" and [*path[1:], key] == [b'"response"', b'"rows"']:
            if seen:
                raise UnexpectedShape("the letter has its rows twice")
            seen = True
            yield from _cut(buffer, rows_found)
            yield b"]"
            key = None
        elif token in (b"{", b"["):
            path.append(key)
            key = None
        elif token in (b"}", b"]"):
            key = path.pop() if path else None
        elif token == b",":
            key = None
        elif token.startswith(b'"') and key is None:
            key = token


def _cut(buffer: _Buffer, rows_found: Callable[[bytes], None]) -> Iterator[bytes]:
    while True:
        whole = buffer.match(_ROWS, MAX_ROW)
        if whole is not None and whole[0]:
            rows_found(whole[0].rstrip()[:-1])
            yield b""
        last = buffer.match(_LAST, MAX_ROW)
        if last is not None:
            if last[1]:
                rows_found(last[1])
                yield b""
            return
        if not buffer.more(MAX_ROW):
            raise UnexpectedShape(
                "the letter breaks off within its rows, or a row is no flat list; nothing of it can be trusted"
            )


class _Buffer:
    """The part of a stream that is looked at, read on in blocks."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._bytes = b""
        self._at = 0
        self._ended = False

    def match(self, pattern: re.Pattern[bytes], most: int) -> re.Match[bytes] | None:
        """What `pattern` finds here, which is then behind us. A match that could go on in the next block is not taken yet."""
        while True:
            match = pattern.match(self._bytes, self._at)
            if pattern is not _TOKEN or self._ended or (match is not None and match.end() < len(self._bytes)):
                if match is not None:
                    self._at = match.end()
                return match
            self.more(most)

    def more(self, most: int) -> bool:
        """Read another block; False when there is none, or when `most` bytes were looked at in vain."""
        left = len(self._bytes) - self._at
        if left > most:
            raise UnexpectedShape(f"{most >> 20} MB of the letter hold neither a whole value nor a whole row")
        block = self._stream.read(BLOCK)
        self._bytes = self._bytes[self._at :] + block
        self._at = 0
        self._ended = not block
        return bool(block)

    def rest(self) -> bytes:
        """What is left and is no token."""
        return self._bytes[self._at :]
