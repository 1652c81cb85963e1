"""Rate limits: no more requests than a provider allows, over all processes of an account, and how many are left just now."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import RLock
from types import TracebackType
from typing import Any, cast

from pyrate_limiter import AbstractBucket, InMemoryBucket, Limiter, Rate, RateItem, SQLiteBucket

from .progress import Window

Waiting = Callable[[float, str], None]
"""Called with the seconds and the reason, before a wait."""

WORTH_TELLING = 1.0  # seconds: a shorter wait is over before it is read
_MORE = 1010  # milliseconds to the second: one per cent more than documented, so that two clocks need not agree


class Pace:
    """Lets a request through when every window has room for it.

    Args:
        limits: (requests, seconds) windows, all of which hold at once.
        file: SQLite file that remembers recent requests for all processes; None: this object's memory alone.
        waiting: called before a wait that is worth telling.
    """

    def __init__(self, limits: Iterable[tuple[int, float]], file: Path | None, waiting: Waiting) -> None:
        rates = _rates(limits)
        if file is None:
            self._recent: AbstractBucket = InMemoryBucket(rates)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._recent = _bucket(rates, file)
        self._limiter = Limiter(self._recent)
        self._lock = cast("AbstractContextManager[Any]", self._recent.limiter_lock() or RLock())
        self._waiting = waiting

    def take(self) -> None:
        """Return when a request may be sent, and count it."""
        # Without the limiter, which is for waiting: it costs 0.03 ms a request. The instant is that of when the lock was had.
        with self._lock:
            if self._recent.put(RateItem("requests", self._recent.now())):  # type: ignore[no-untyped-call]
                return
        window = self.window()
        if window.wait >= WORTH_TELLING:
            self._waiting(window.wait, window.limit)
        self._limiter.try_acquire("requests")

    def window(self) -> Window:
        """The tightest of the windows as it stands: the longest to wait for, else the one with the smallest part left."""
        now: int = self._recent.now()  # type: ignore[no-untyped-call]
        windows = [self._window(rate, now) for rate in self._recent.rates]
        return min(windows, key=lambda each: (-each.wait, each.left / each.requests))

    def _window(self, rate: Rate, now: int) -> Window:
        start, wait = now - rate.interval, 0.0
        used = min(self._sent(start), rate.limit)
        if used == rate.limit and isinstance(oldest := self._recent.peek(rate.limit - 1), RateItem):
            wait = max(0, oldest.timestamp - start) / 1000
        return Window(requests=rate.limit, seconds=rate.interval / _MORE, left=rate.limit - used, wait=wait)

    def _sent(self, since: int) -> int:
        """How many requests were sent since an instant."""
        if isinstance(self._recent, InMemoryBucket):
            return sum(item.timestamp >= since for item in self._recent.items)
        assert isinstance(self._recent, SQLiteBucket)  # noqa: S101
        query = "SELECT count(*) FROM rate_bucket WHERE item_timestamp >= $1"
        return self._recent.conn.execute(query, [since]).fetchone()[0]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Close the memory of recent requests."""
        self._limiter.close()
        if isinstance(self._recent, SQLiteBucket):
            self._recent.lock.close()  # type: ignore[attr-defined]


def _rates(limits: Iterable[tuple[int, float]]) -> list[Rate]:
    """Ascending windows without those that a longer one already implies (Plivo: 300 in 5 s beside 20 in 60 s)."""
    kept: list[tuple[int, float]] = []
    for requests, seconds in sorted(limits, key=lambda window: -window[1]):
        if not kept or requests < kept[-1][0]:
            kept.append((requests, seconds))
    return [Rate(requests, int(seconds * _MORE)) for requests, seconds in reversed(kept)]


def _bucket(rates: list[Rate], path: Path) -> SQLiteBucket:
    """Recent requests on disk. Those of a clock that was put back since count as of now, not of a time to come."""
    bucket = SQLiteBucket.init_from_file(rates, db_path=str(path), use_file_lock=True)
    bucket.lock = _Alone(path.with_suffix(".alone"))  # type: ignore[assignment]
    now = bucket.now()  # type: ignore[no-untyped-call]
    with bucket.lock, bucket.conn as db:
        db.execute("UPDATE rate_bucket SET item_timestamp = $1 WHERE item_timestamp > $1", [now])
    return bucket


class _Alone:
    """One thread of one process at a time; who holds it may take it again.

    In place of the limiter's own lock file, which is opened anew each time: 0.14 ms, four times a request.
    """

    def __init__(self, path: Path) -> None:
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._thread = RLock()
        self._times = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As locks have it."""
        if not self._thread.acquire(blocking, timeout):
            return False
        if not self._times and self._handle is not None:
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | (0 if blocking else fcntl.LOCK_NB))
            except BlockingIOError:
                self._thread.release()
                return False
        self._times += 1
        return True

    def release(self) -> None:
        """As locks have it."""
        self._times -= 1
        if not self._times and self._handle is not None:
            fcntl.flock(self._handle, fcntl.LOCK_UN)
        self._thread.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def close(self) -> None:
        """Give the file back. The limiter's sweeping thread may come once more, and finds nothing to lock."""
        with self._thread:
            if self._handle is not None:
                os.close(self._handle)
            self._handle = None
