"""Pages that two readers read at the same time, found on disk, decompressed and checked once for both.

Who is ahead leaves pages for the other, so many and no more; then he waits until some were taken. Where none is for a second,
the other reads for himself, so neither stands still when the other gives up. When who was ahead did not wait, the other soon read
for himself: 0.3 s of CPU of a million rows of Plivo's, for which `statement` has little to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from threading import Event, Lock

from .provider import Page

LEFT = 4 << 20  # bytes of pages that are left for the other
PATIENCE = 1.0  # seconds; a batch of rows takes a tenth of one


class _Seat:
    """One reader's place.

    Attributes:
        left: pages that the other has read, in order.
        put, taken: bytes that were ever left, and those of them that were taken; each is written by one thread alone.
        alone: nothing is left here any more.
        moved: some was taken, or nothing will be.
    """

    def __init__(self) -> None:
        self.left: deque[Page] = deque()
        self.put = self.taken = 0
        self.alone = False
        self.moved = Event()

    def room(self, most: int, patience: float) -> None:
        """Wait until fewer bytes are left than that."""
        while True:
            self.moved.clear()
            if self.alone or self.put - self.taken < most:
                return
            if not self.moved.wait(patience):
                self.abandon()

    def leave(self, page: Page) -> None:
        if not self.alone:
            self.left.append(page)
            self.put += _size(page)

    def take(self) -> Page:
        page = self.left.popleft()
        self.taken += _size(page)
        self.moved.set()
        return page

    def abandon(self) -> None:
        self.alone = True
        self.left.clear()
        self.moved.set()


class Together:
    """Pages for two iterations at the same time, each in a thread of its own. Further ones read for themselves.

    Args:
        pages: may be iterated over more than once.
        most: bytes of pages that are left for the other, and one page more.
        patience: seconds without any taken, after which none is left any more.
    """

    def __init__(self, pages: Iterable[Page], most: int = LEFT, patience: float = PATIENCE) -> None:
        self._pages, self._most, self._patience = pages, most, patience
        self._free = [_Seat(), _Seat()]
        self._seats = tuple(self._free)
        self._reading = Lock()
        self._source = iter(pages)
        self._failed: BaseException | None = None

    def __iter__(self) -> Iterator[Page]:
        """Pages in order; raises what iterating over them raises, for both."""
        with self._reading:
            seat = self._free.pop(0) if self._free else None
        if seat is None:
            yield from self._pages
            return
        came = 0
        try:
            while (page := self._next(seat)) is not None:
                came += 1
                yield page
            if seat.alone:
                yield from islice(self._pages, came, None)
        finally:
            seat.abandon()

    def _next(self, seat: _Seat) -> Page | None:
        """The next page; None: there is none, or none is left for this reader."""
        while True:
            try:
                return seat.take()
            except IndexError:
                for other in self._seats:
                    if other is not seat:
                        other.room(
                            self._most, self._patience
                        )  # not with the lock, which that reader may be waiting for
                with self._reading:
                    if seat.left:
                        continue  # the other read it meanwhile
                    return None if seat.alone else self._read(seat)

    def _read(self, seat: _Seat) -> Page | None:
        if self._failed:
            raise self._failed
        try:
            page = next(self._source, None)
        except BaseException as error:
            self._failed = error
            raise
        if page is not None:
            for other in self._seats:
                if other is not seat:
                    other.leave(page)
        return page


def _size(page: Page) -> int:
    """What it holds in memory; a large body stays on disk."""
    return len(page.body) if isinstance(page.body, bytes) else 0
