"""Rate limits: no more requests than a provider allows, over all processes of an account, and how many are left just now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pyrate_limiter import AbstractBucket, InMemoryBucket, Limiter, Rate, SQLiteBucket

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
        self._waiting = waiting

    def take(self) -> None:
        """Return when a request may be sent, and count it."""
        window = self.window()
        if window.wait >= WORTH_TELLING:
            self._waiting(window.wait, window.limit)
        self._limiter.try_acquire("requests")

    def window(self) -> Window:
        """The tightest of the windows as it stands: the longest to wait for, else the one with the smallest part left."""
        now: int = self._recent.now()  # type: ignore[no-untyped-call]
        sent = self._sent(now - self._recent.rates[-1].interval, self._recent.rates[-1].limit)
        windows = [_window(rate, now, sent) for rate in self._recent.rates]
        return min(windows, key=lambda each: (-each.wait, each.left / each.requests))

    def _sent(self, since: int, most: int) -> list[int]:
        """When requests were sent, newest first. One look: asking the bucket for each would take a file lock each."""
        if isinstance(self._recent, InMemoryBucket):
            return [item.timestamp for item in self._recent.items[: -most - 1 : -1] if item.timestamp >= since]
        assert isinstance(self._recent, SQLiteBucket)  # noqa: S101
        query = (
            "SELECT item_timestamp FROM rate_bucket WHERE item_timestamp >= $1 ORDER BY item_timestamp DESC LIMIT $2"
        )
        with self._recent.lock:
            return [row[0] for row in self._recent.conn.execute(query, [since, most]).fetchall()]

    def close(self) -> None:
        """Close the memory of recent requests."""
        self._limiter.close()


def _window(rate: Rate, now: int, sent: Sequence[int]) -> Window:
    start = now - rate.interval
    used = [instant for instant in sent[: rate.limit] if instant >= start]
    wait = (used[-1] - start) / 1000 if len(used) == rate.limit else 0
    return Window(requests=rate.limit, seconds=rate.interval / _MORE, left=rate.limit - len(used), wait=wait)


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
    now = bucket.now()  # type: ignore[no-untyped-call]
    with bucket.lock, bucket.conn as db:
        db.execute("UPDATE rate_bucket SET item_timestamp = $1 WHERE item_timestamp > $1", [now])
    return bucket
