"""How the pages of a landing lie on disk: bodies.zst and pages.jsonl, written as pages come, and checked when they are read.

bodies.zst       every body as it came, one after another, in one zstd stream (`zstd -dc bodies.zst`)
pages.jsonl      one line per page: what was asked, where its body stands, its sha256, facts about it

One stream for all bodies: pages resemble each other, so together they take a fraction of the room.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import pyarrow as pa

from .beside import Beside
from .period import stamp
from .provider import Page, Restarted

BODIES = "bodies.zst"
INDEX = "pages.jsonl"
CHUNK = 1 << 20
LARGE = 4 << 20  # larger bodies (a callback with a whole month) are handed out as streams, not as bytes


class DamagedLanding(Exception):
    """The bytes of a landing are not those that were landed."""

    rerun = "once"
    remedy = "Restore data/raw from a backup; a month that is not final may be fetched again instead"

    def __init__(self, landing: str, how: str) -> None:
        super().__init__(f"landing {landing} {how}")


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        pages, bytes, restarts: how much.
        submitted_at: when the query was submitted whose answer came by callback; None: nothing says so.
    """

    pages: int
    bytes: int
    restarts: int
    submitted_at: datetime | None


def write(
    answers: Iterable[Page | Restarted], folder: Path, grown: Callable[[int], object] = lambda size: None
) -> Written:
    """Write pages as they come into two new files of `folder`; `grown` is called with their bytes so far, at each page.

    Raises:
        ValueError: no page came.
        Exception: whatever `answers` raises; the files are half then.
    """
    pages = size = restarts = 0
    submitted: datetime | None = None
    with (
        create(folder / BODIES) as raw,
        create(folder / INDEX) as index,
        pa.CompressedOutputStream(raw, "zstd") as bodies,
        Beside("landing") as beside,
    ):

        def keep(piece: bytes, digest: Any) -> None:
            bodies.write(piece)
            digest.update(piece)

        def end(piece: bytes, digest: Any, entry: dict[str, Any]) -> None:
            keep(piece, digest)
            index.write(_line({**entry, "sha256": digest.hexdigest()}))
            raw.flush()  # what zstd has let go of it
            index.flush()  # for whoever follows the landing

        for answer in answers:
            if isinstance(answer, Restarted):
                restarts += 1
                beside.do(index.write, _line({"restarted": answer.traversal, "reason": answer.reason}))
                continue
            pages += 1
            digest, length = hashlib.sha256(), 0
            with answer.open() as stream:
                piece = stream.read(CHUNK)
                while further := stream.read(CHUNK):
                    beside.do(keep, piece, digest)
                    length += len(piece)
                    piece = further
            length += len(piece)
            size += length
            if "submitted_at" in answer.facts:
                submitted = datetime.fromisoformat(answer.facts["submitted_at"])
            entry = {
                "number": pages,
                "request": answer.request,
                "traversal": answer.traversal,
                "scope": answer.scope,
                "received_at": stamp(answer.received_at),
                "bytes": length,
                "facts": dict(answer.facts),
            }
            beside.do(end, piece, digest, entry)
            grown(size)
    if not pages:
        raise ValueError("a fetch must bring at least one page: an empty month is an answer, no answer is not")
    return Written(pages, size, restarts, submitted)


def read(folder: Path, name: str, index_sha256: str) -> Iterator[Page]:
    """Pages one at a time, restarted walks left out, each checked against its sha256 before it is handed out.

    Args:
        folder: where the two files are.
        name: of the landing, for messages.
        index_sha256: what pages.jsonl must have.

    Raises:
        DamagedLanding: a byte is not the one that was landed.
    """
    index = (folder / INDEX).read_bytes()
    if hashlib.sha256(index).hexdigest() != index_sha256:
        raise DamagedLanding(name, f"has changed since it was landed: the sha256 of its {INDEX} differs")
    lines = index.splitlines()
    told = [(n, json.loads(line)) for n, line in enumerate(lines) if b'"restarted"' in line]
    restarts = {entry["restarted"]: n for n, entry in told if "restarted" in entry}
    offset = 0
    with pa.input_stream(str(folder / BODIES), compression="zstd") as bodies:
        for n, line in enumerate(lines):
            entry = json.loads(line)
            if "restarted" in entry:
                continue
            stored = Stored(folder / BODIES, offset, entry, f"{name}/{entry['number']}")
            offset += entry["bytes"]
            checked = stored.checked(bodies)
            if n > restarts.get(entry["traversal"], -1):
                yield page(entry, checked)


def page(entry: dict[str, Any], body: bytes | Stored) -> Page:
    """A page as its line in pages.jsonl has it."""
    return Page(
        body=body,
        request=entry["request"],
        traversal=entry["traversal"],
        scope=entry["scope"],
        received_at=datetime.fromisoformat(entry["received_at"]),
        number=entry["number"],
        facts=entry["facts"],
    )


@dataclass(frozen=True)
class Stored:
    """One body inside the zstd stream."""

    file: Path
    offset: int
    entry: dict[str, Any]
    name: str

    def checked(self, bodies: pa.NativeFile) -> bytes | Stored:
        """The body out of the stream that stands at its beginning: as bytes, or when it is large as something to open."""
        digest, kept, left = hashlib.sha256(), [], self.entry["bytes"]
        while left:
            piece = self.piece(bodies, min(left, CHUNK))
            left -= len(piece)
            digest.update(piece)
            if self.entry["bytes"] <= LARGE:
                kept.append(piece)
        if digest.hexdigest() != self.entry["sha256"]:
            self._damaged("has changed since it was landed: its sha256 differs")
        return b"".join(kept) if self.entry["bytes"] <= LARGE else self

    def open(self) -> BinaryIO:
        """The body as a stream of its own, from its beginning."""
        stream = pa.input_stream(str(self.file), compression="zstd")
        left = self.offset
        while left:
            left -= len(self.piece(stream, min(left, CHUNK)))
        return io.BufferedReader(_Bounded(stream, self), CHUNK)

    def piece(self, stream: pa.NativeFile, size: int) -> bytes:
        """Up to `size` bytes of a stream that must still have some."""
        try:
            piece = bytes(stream.read(size))
        except OSError as error:
            self._damaged(f"cannot be decompressed ({error})")
        return piece or self._damaged("ends too early")

    def _damaged(self, how: str) -> NoReturn:
        raise DamagedLanding(self.name, how)


class _Bounded(io.RawIOBase):
    """The bytes of one body and no further."""

    def __init__(self, stream: pa.NativeFile, stored: Stored) -> None:
        self._stream = stream
        self._stored = stored
        self._left: int = stored.entry["bytes"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stored.piece(self._stream, min(len(buffer), self._left)) if self._left else b""
        self._left -= len(piece)
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()


def create(path: Path) -> IO[bytes]:
    """A new file that only its owner reads."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
