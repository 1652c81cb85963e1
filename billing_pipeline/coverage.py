"""Which days ought to be held of every account, and which complete fetch covers them. Pure.

A day is covered when a complete fetch of its month started after the day had ended on the provider's clock: only then is a
day without rows an empty one, and only then is a day with rows known to be whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any

from .finality import Calendar, periods
from .landing import Partition
from .ledger import SHOWN, Entry
from .period import BillingPeriod, aware, day_start

OVERDUE = timedelta(days=1)
"""Every account is fetched once a day, so a fetch that starts after a day's end has started a day later."""


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """What ought to be held at an instant.

    Attributes:
        at: the instant; aware.
        history_from: the first month that is asked for.
        accounts: provider and name of each.
    """

    at: datetime
    history_from: BillingPeriod
    accounts: Sequence[tuple[str, str]] = ()

    def rows(self, calendars: Mapping[str, Calendar], entries: Iterable[Entry]) -> Iterator[list[Any]]:
        """The rows of the table x_expected, in the order of its columns.

        Every day of every month from `history_from` to the running one, on each provider's own clock, and one row without a
        day for what is charged by the month: of providers that know months only, it is all there is.
        """
        covered = _covered(entries)
        for provider, account in self.accounts:
            calendar = calendars[provider]
            zone = calendar.timezone
            for period in periods(self.history_from, calendar.current(self.at)):
                fetched_at = covered.get(Partition(provider, account, period))
                whole: list[tuple[date | None, datetime]] = [(None, period.end(zone))]
                days = ((day, day_start(day + timedelta(days=1), zone)) for day in period.days())
                for day, end in chain(whole, days if calendar.daily else ()):
                    yield [
                        provider, account, str(period), day, end, fetched_at,
                        fetched_at is not None and fetched_at >= end,
                        aware(self.at) >= end + OVERDUE,
                        calendar.daily,
                        self.at,
                    ]  # fmt: skip


def _covered(entries: Iterable[Entry]) -> dict[Partition, datetime]:
    """When the newest complete fetch started of which a month shows the rows, or which brought the same ones."""
    found: dict[Partition, datetime] = {}
    for entry in entries:
        if entry.decision in (*SHOWN, "unchanged"):
            fetched_at = datetime.fromisoformat(entry.fetch["fetched_at"])
            found[entry.partition] = max(fetched_at, found.get(entry.partition, fetched_at))
    return found
