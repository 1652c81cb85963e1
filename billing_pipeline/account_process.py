"""A process of its own for an account that keeps the interpreter busy, so that accounts run on as many cores as there are.

Accounts are threads, which wait for their providers side by side; what they do between two answers they do in turn, for all
share one interpreter. Where a rate limit sets the pace that is nothing. Where it does not, an account whose last month took much
computing for its time does the rest of its months in a process. It starts in half a second, which small months are not worth.

The process walks the same line over the same data folder, under the same locks, and tells what became of each month. If it dies,
the months that it did not tell of are done here. It ends with the process that started it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock, Thread
from time import perf_counter, thread_time
from types import TracebackType
from typing import Any

from . import child, environment
from .account_work import Outcome, Say, Task, worked
from .ahead import Worth
from .invoice_lists import Asked
from .line import Line

BUSY = 0.5  # seconds; a process takes as long to start
SHARE = 0.05  # of a month's time; of ten accounts in turn each gets a tenth, under a rate limit a hundredth
END = True  # after the last outcome


class Processes:
    """Those of one refresh. As a context manager it leaves none behind.

    Args:
        most: of them at once.
        busy, share: seconds of computing in one month, and their part of its time, that are worth a process for those that
            are left.
        ahead: what a process is worth that makes a month's file of an account that is alone.

    Attributes:
        started: how many there were.
        sound: how many of them did all they were asked to, and ended well.
    """

    def __init__(self, most: int, busy: float = BUSY, share: float = SHARE, ahead: Worth = Worth()) -> None:  # noqa: B008
        self.ahead = ahead
        self.started = self.sound = 0
        self._most = most
        self._busy, self._share = busy, share
        self._lock = Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Kill all, and start no more: whatever a month dies in, the next run finds what was finished."""
        with self._lock:
            self._ended = True
            for process in self._running:
                process.kill()

    def worked(self, line: Line, task: Task, say: Say, *, watched: bool) -> Iterator[Outcome | Asked]:
        """See `account_work.worked`; what is left after a month that kept the interpreter busy comes from a process.

        `watched`: somebody reads what `say` is told.
        """
        here = worked(line, task, say)
        computed, passed = thread_time(), perf_counter()
        for event in here:
            computed, passed = thread_time() - computed, perf_counter() - passed
            task = task.without(event)
            yield event
            if task.months and computed >= max(self._busy, self._share * passed):
                process = self._start()
                if process:
                    yield from self._elsewhere(process, line, task, say, watched=watched)
                    return
            computed, passed = thread_time(), perf_counter()

    def _elsewhere(
        self, process: subprocess.Popen[bytes], line: Line, task: Task, say: Say, *, watched: bool
    ) -> Iterator[Outcome | Asked]:
        told: Any = child.GONE
        try:
            told = child.answered(process, (task, watched))
            while not isinstance(told, bool):
                if isinstance(told, str):
                    say(lambda text=told: text)  # type: ignore[misc]
                else:
                    task = task.without(told)
                    yield told
                told = child.answered(process)
        finally:
            self._let_go(process, sound=told is END)
        if told is child.GONE:
            yield from worked(line, task, say)

    def _start(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._ended or len(self._running) >= self._most:
                return None
            process = child.started(__name__)
            if process is None:
                return None
            self._running.add(process)
            self.started += 1
            return process

    def _let_go(self, process: subprocess.Popen[bytes], *, sound: bool) -> None:
        """It has told everything and ends by itself; or nobody listens any more, and it is killed."""
        with suppress(subprocess.TimeoutExpired):
            if sound:
                process.wait(10)
        process.kill()
        with suppress(OSError), process:  # what it never read cannot be flushed
            pass
        with self._lock:
            self._running.discard(process)
            self.sound += process.returncode == 0


def serve() -> None:
    """What the process does: one task, told as it goes."""
    (task, watched), tell = child.served()
    Thread(target=child.outlived, daemon=True).start()
    for event in worked(environment.line(), task, lambda text: tell(text()) if watched else None):
        tell(event)
    tell(END)
