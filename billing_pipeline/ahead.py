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
from select import select
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

# Bytes of a landing. What is left of a smaller one is read before a process has started: begun at 12 MB, 25 MB of Plivo's took
# 4.9 s in all, and 3.9 without.
WORTH = 32 << 20
SHARE = 0.5  # of the fetch's time that it computes; under a rate limit it is a hundredth
READY = True
PATIENCE = 10  # seconds for a process to end that has nothing left to do


class _Finished(NamedTuple):
    """A file that is finished and waits to be taken."""

    made: Made
    tally: Tally
    path: Path


class Ahead:
    """One month's. As a context manager it leaves neither process nor file behind.

    Args:
        data: the data folder.
        worth, share: bytes of the landing, and part of the fetch's time spent computing, that are worth a process.
    """

    def __init__(self, data: Path, *, worth: int = WORTH, share: float = SHARE) -> None:
        self._data = data
        self._worth, self._share = worth, share
        self._computed, self._passed = thread_time(), perf_counter()
        self._process: subprocess.Popen[bytes] | None = None
        self._arriving: Arriving | None = None
        self.started = self.taken = False

    def __enter__(self) -> Ahead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._arriving is None:
            return
        self._process.kill()
        with suppress(OSError), self._process:  # what it never read cannot be flushed
            self._process.wait(PATIENCE)
        path = Lake(self._data).path(self._arriving.partition)
        Replacement.unfinished(path, self._process.pid).unlink(missing_ok=True)

    def grown(self, arriving: Arriving, size: int) -> None:
        """See `Landings.land`; called by the thread that made this object."""
        if self.started or size < self._worth:
            return
        if thread_time() - self._computed < self._share * (perf_counter() - self._passed):
            return
        self.started = True
        self._arriving, self._process = arriving, child.started(__name__)
        if self._process and self._process.stdin:
            with suppress(OSError):  # it has died, which is noticed when it is asked
                child.told(self._process, (self._data, arriving))

    def ready(self, seconds: float = 0) -> bool:
        """Whether the process has begun to read, or died, within so many seconds."""
        stdout = self._process and self._process.stdout
        return bool(stdout and select([stdout], [], [], seconds)[0])

    def made(self, landing: Landing, new: Replacement) -> Made | None:
        """The month's file in `new`; None when it has to be made."""
        process, arriving = self._process, self._arriving
        if process is None or arriving is None or landing.folder != arriving.target:
            return None
        if not self.ready() or child.answered(process) is not READY:
            return None  # it is still starting, and would have to read everything
        finished = child.answered(process, READY)
        if not isinstance(finished, _Finished):
            return None
        try:
            new.adopt(finished.path, finished.tally)
        except OSError:  # swept away
            return None
        self.taken = True
        return finished.made


def serve() -> None:
    """What the process does: one month's file, when the landing that it reads is complete."""
    (data, arriving), tell = child.served()
    complete = Event()
    Thread(target=child.outlived, args=(complete.set,), daemon=True).start()
    with suppress(Exception):  # what is wrong is told by whoever makes the month as ever
        made(data, Followed(arriving, complete), tell)


def made(data: Path, landing: Landing, tell: Callable[[object], None]) -> None:
    """Make a month's file, tell of its beginning and its end, and leave it there."""
    from .providers import providers

    partition = landing.partition
    provider, period = providers()[partition.provider], partition.period
    calendar, fetched_at = provider.calendar, landing.fetched_at

    def decide(statement: Statement) -> Finality:
        if statement.vanished:
            raise LookupError("whether that is wrong depends on what is held")
        return finality(calendar, period, fetched_at=fetched_at, flag=statement.flag, doubt=statement.doubt)

    likely = finality(calendar, period, fetched_at=fetched_at, flag=True).status
    with Lake(data).replacement(partition) as new:
        tell(READY)
        done = make(new, provider, landing, likely, decide)
        tell(_Finished(done, new.tally, new.temporary))
        Event().wait()  # until `child.outlived` ends it, or it is killed
