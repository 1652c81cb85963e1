"""A landing that is still being written, read while it grows.

What was handed out cannot be taken back: a walk that begins anew behind it ends the reading, as does a body too large for memory.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import pyarrow as pa

from . import bodies
from .bodies import BODIES, INDEX, LARGE, DamagedLanding, Stored
from .landing import Arriving, Landing
from .provider import Page

HELD = 4 << 20  # bytes of a walk that are handed out when the next one begins, not before: it may begin anew
SOON, LATE = (
    0.004,
    1.0,
)  # seconds until a file is looked at again: at first, and in the end where a rate limit sets the pace


class Followed(Landing):
    """The landing as it will be. Iterating over it gives the pages as they come; it may be iterated over more than once.

    Args:
        arriving: the landing.
        complete: set when it stands at its target.
    """

    def __init__(self, arriving: Arriving, complete: Event) -> None:  # its manifest is there when it is complete
        self.partition = arriving.partition
        self.folder = arriving.target
        self._arriving = arriving
        self._complete = complete
        self._begun: list[Event] = []

    @property
    def exhausted(self) -> bool:
        """Whether every iteration came to its end, where the whole is checked."""
        return bool(self._begun) and all(each.is_set() for each in self._begun)

    @property
    def fetched_at(self) -> datetime:
        """When the fetch started; UTC."""
        return self._arriving.fetched_at

    def __iter__(self) -> Iterator[Page]:
        """Pages, each checked against its sha256 before it is handed out, and their index when all were.

        Raises:
            DamagedLanding: a byte is not the one that was landed; or it can only be read when it is complete.
        """
        ended = Event()
        self._begun.append(ended)
        with ExitStack() as stack:
            index: BinaryIO = stack.enter_context(io.BufferedReader(self._growing(INDEX)))
            raw = stack.enter_context(self._growing(BODIES))
            stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
            yield from self._pages(index, stream)
        ended.set()

    def _pages(self, index: BinaryIO, stream: pa.NativeFile) -> Iterator[Page]:
        digest, offset = hashlib.sha256(), 0
        held: list[Page] = []
        size = 0
        told: set[str] = set()
        for line in index:
            digest.update(line)
            entry: dict[str, Any] = json.loads(line)
            if "restarted" in entry:
                if entry["restarted"] in told:
                    raise DamagedLanding(self.id, "began a walk anew of which pages were read already")
                held = [page for page in held if page.traversal != entry["restarted"]]
                size = sum(len(page.body) for page in held if isinstance(page.body, bytes))
                continue
            if entry["bytes"] > LARGE:
                raise DamagedLanding(self.id, "has a body too large to be read before it is complete")
            stored = Stored(self.folder / BODIES, offset, entry, f"{self.id}/{entry['number']}")
            offset += entry["bytes"]
            page = bodies.page(entry, stored.checked(stream))
            if held and (page.traversal != held[-1].traversal or size > HELD):
                told.update(each.traversal for each in held)
                yield from held
                held, size = [], 0
            held.append(page)
            size += entry["bytes"]
        yield from held
        if digest.hexdigest() != self.manifest["files"][INDEX]:
            raise DamagedLanding(self.id, f"is not what was read: the sha256 of its {INDEX} differs")

    def _growing(self, name: str) -> _Growing:
        for folder in (self._arriving.folder, self._arriving.target):  # it moves from one to the other
            try:
                return _Growing(folder / name, self._complete)
            except FileNotFoundError:
                continue
        raise DamagedLanding(self.id, f"has no {name}")


class _Growing(io.RawIOBase):
    """A file to whose end somebody writes: reading waits for more, until it is complete."""

    def __init__(self, path: Path, complete: Event) -> None:
        self._file = path.open("rb", buffering=0)
        self._complete = complete

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wait = SOON
        while True:
            complete = self._complete.is_set()  # asked before: what is written in between is read
            count = self._file.readinto(buffer)
            if count or complete:
                return count
            self._complete.wait(wait)
            wait = min(2 * wait, LATE)

    def close(self) -> None:
        self._file.close()
        super().close()
