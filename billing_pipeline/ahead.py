"""A month's Parquet file made ahead, in a process of its own, while the rest of the month is still being fetched.

Only where one account is refreshed and a core is free for it, and where the fetch computes most of its time: under a provider's
rate limit it waits, and no process is started. It follows the landing as it is written. What it has made is taken when the
landing came out as expected and every control total agreed; else the month is made as ever, and says itself what is wrong.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from select import POLLIN, poll
from threading import Event, Thread
from time import perf_counter, thread_time
from types import TracebackType
from typing import NamedTuple

from . import child
from .finality import Finality, finality
from .following import Followed
from .lake import Lake, Replacement
from .landing import Arriving, Landing
from .making import Made, make
from .reconcile import Statement, Tally

READY, COMPLETE = "it is being read", "it is complete"  # what the process tells, and is told, of the landing
LOOK = 1.0  # seconds in which somebody is told that it is still waited for


class Worth(NamedTuple):
    """What a process is worth.

    Attributes:
        size: bytes of the landing. What is left of a smaller one is read before a process has started: 50,000 rows take as
            long begun at 3 MB as at 6. Begun at 6, 12 or 20 MB, 200,000 rows of YCloud take 2.4, 3.0 and 3.0 s.
        share: of the fetch's time that it computes; under a rate limit it is a hundredth.
        meanwhile: bytes of the largest landing that is worth doing something else while the process is waited for. That saves
            0.25 s, and takes 50 MB beside what the process has: of ten million rows 388 MB together instead of 354.
    """

    size: int = 6 << 20
    share: float = 0.5
    meanwhile: int = 1 << 30


class _Finished(NamedTuple):
    """A file that is finished and waits to be taken."""

    made: Made
    tally: Tally
    inode: int


class Ahead:
    """One month's. As a context manager it leaves neither process nor file behind.

    Args:
        data: the data folder.
        worth: of a process; None: there is no core for one.
        waiting: called every second while the process is waited for; may raise.
        meanwhile: done first while the process is waited for.
    """

    def __init__(
        self,
        data: Path,
        worth: Worth | None,
        waiting: Callable[[], object] = lambda: None,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> None:
        self._data, self._worth, self._waiting, self._meanwhile = data, worth, waiting, meanwhile
        self._computed, self._passed = thread_time(), perf_counter()
        self._process: subprocess.Popen[bytes] | None = None
        self._arriving: Arriving | None = None
        self.started = self.taken = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def grown(self, arriving: Arriving, size: int) -> None:
        """See `Landings.land`; called by the thread that made this object. Never raises: the fetch is worth more."""
        if self.started or self._worth is None or size < self._worth.size:
            return
        if thread_time() - self._computed < self._worth.share * (perf_counter() - self._passed):
            return
        self.started = True
        with suppress(Exception):
            self._arriving, self._process = arriving, child.started(__name__)
            if self._process:
                child.told(self._process, (self._data, arriving))

    def reads(self) -> bool:
        """Whether the process runs and is needed; see `Access.beside`. When it dies, the month is made as ever."""
        return self._process is not None and self._process.poll() is None

    def ready(self, seconds: float = 0) -> bool:
        """Whether the process tells something within so many seconds, or has died."""
        if self._process is None or self._process.stdout is None:
            return False
        told = poll()
        told.register(self._process.stdout, POLLIN)
        return bool(told.poll(seconds * 1000))

    def made(self, landing: Landing, new: Replacement) -> Made | None:
        """The month's file in `new`; None when it has to be made. The process ends with it."""
        try:
            return self._made(landing, new)
        finally:
            self.end()

    def _made(self, landing: Landing, new: Replacement) -> Made | None:
        process, arriving, worth = self._process, self._arriving, self._worth
        if process is None or arriving is None or worth is None or landing.folder != arriving.target:
            return None
        if not self.ready() or child.answered(process) != READY:
            return None  # it is still starting, and would have to read everything
        with suppress(OSError):
            child.told(process, COMPLETE)
        if landing.manifest["bytes"] <= worth.meanwhile:
            with suppress(Exception):  # who needs it meets the same, and tells it
                self._meanwhile()
        while not self.ready(LOOK):
            self._waiting()
        finished = child.answered(process)
        if not isinstance(finished, _Finished):
            return None
        path = Replacement.unfinished(new.path, process.pid)
        try:
            if path.stat().st_ino != finished.inode:
                return None
            new.adopt(path, finished.tally)
        except FileNotFoundError:  # swept away by somebody who found the account's lock free
            return None
        self.taken = True
        return finished.made

    def end(self) -> None:
        """Leave neither process nor file; none is started any more."""
        self._worth = None
        process, self._process = self._process, None
        if process is None or self._arriving is None:
            return
        process.kill()
        with suppress(OSError), process:  # what it never read cannot be flushed
            pass
        Replacement.unfinished(Lake(self._data).path(self._arriving.partition), process.pid).unlink(missing_ok=True)


def serve() -> None:
    """What the process does: one month's file, when the landing that it reads is complete."""
    (data, arriving), tell = child.served()
    complete = Event()
    Thread(target=child.outlived, args=(complete.set,), daemon=True).start()
    with suppress(Exception):  # what is wrong is told by whoever makes the month as ever
        _make(data, Followed(arriving, complete), tell)


def _make(data: Path, landing: Followed, tell: Callable[[object], None]) -> None:
    """Make a month's file, tell of its beginning and its end, and leave it there."""
    from . import providers

    partition = landing.partition
    provider, period = providers.provider(partition.provider), partition.period
    calendar, fetched_at = provider.calendar, landing.fetched_at

    def decide(statement: Statement) -> Finality:
        if statement.vanished:
            raise LookupError("whether that is wrong depends on what is held")
        return finality(calendar, period, fetched_at=fetched_at, flag=statement.flag, doubt=statement.doubt)

    likely = finality(calendar, period, fetched_at=fetched_at, flag=True).status
    with Lake(data).replacement(partition) as new:
        tell(READY)
        done = make(new, provider, landing, likely, decide)
        if landing.exhausted:
            tell(_Finished(done, new.tally, new.temporary.stat().st_ino))
            Event().wait()  # until `child.outlived` ends it, or it is killed
