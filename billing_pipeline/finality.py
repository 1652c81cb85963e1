"""THE FINALIZATION RULE: when a month of a provider is final, and which months are still open.

Pure: the clock that counts is the fetch's own, and it is passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

from .period import BillingPeriod, aware, stamp

PROVISIONAL: Literal["provisional"] = "provisional"
FINAL: Literal["final"] = "final"
Status = Literal["provisional", "final"]
WATCHED_MONTHS = 12  # before the running one, where a provider does not say how long it serves a month

EXPIRES_SOON = 21
"""Days: a month that is not final is told to a person when it is served for no longer than this."""
EXPIRES_NOW = 7
"""Days: and it is an alarm when it is served for no longer than this."""

LATE_AFTER = timedelta(days=1)
"""A month is late when it could have been final for this long and is not: the daily refresh has had its turn. For a month that
settles on the 5th, 00:00 UTC, that is when the 5th is over."""


@dataclass(frozen=True, kw_only=True)
class Calendar:
    """How a provider's months pass: whose midnight, how long they settle, whether it says so itself.

    Attributes:
        timezone: the clock of its months.
        settles_after: how long after the month's end its numbers still move. A fetch that started earlier is never final.
        flag: the provider's own word for "final", or None where it has none. A flag that exists must be true.
        serves_months: how many months before the current one it still serves; None: no limit is documented.
        daily: its rows carry the day of the usage; False: only the month.
    """

    timezone: tzinfo = UTC
    settles_after: timedelta
    flag: str | None = None
    serves_months: int | None = None
    daily: bool = True

    def settles_at(self, period: BillingPeriod) -> datetime:
        """The first instant at which a fetch can make `period` final; UTC."""
        return period.end(self.timezone) + self.settles_after

    def available_until(self, period: BillingPeriod) -> datetime | None:
        """The instant from which the provider no longer serves `period`; None where nothing is documented."""
        return None if self.serves_months is None else period.plus(self.serves_months).end(self.timezone)

    def current(self, now: datetime) -> BillingPeriod:
        """The month that is running at `now` on the provider's clock."""
        return BillingPeriod.of(now, self.timezone)


@dataclass(frozen=True)
class Finality:
    """The decision about one fetch of one month, with what it rests on."""

    status: Status
    rule: str
    evidence: Mapping[str, Any]

    @property
    def final(self) -> bool:
        """True when the month is closed by this fetch."""
        return self.status == FINAL


def finality(
    calendar: Calendar, period: BillingPeriod, *, fetched_at: datetime, flag: bool | None, doubt: str | None = None
) -> Finality:
    """Whether a complete fetch of `period` that started at `fetched_at` makes it final.

    Args:
        calendar: the provider's.
        period: the month.
        fetched_at: when the fetch started (for Infobip: when the query was submitted), never when it is evaluated.
        flag: what the provider's own flag says in this fetch; None when it says nothing. Missing means not final.
        doubt: why these numbers cannot be taken as the last word whatever the calendar says; None: no doubt.
    """
    settles_at = calendar.settles_at(period)
    rule = f"fetched at or after {stamp(settles_at)}"
    evidence: dict[str, Any] = {"fetched_at": stamp(fetched_at), "settles_at": stamp(settles_at)}
    reasons = []
    if aware(fetched_at) < settles_at:
        reasons.append("fetched before the month settles")
    if calendar.flag is not None:
        rule += f" and {calendar.flag}"
        evidence[calendar.flag] = flag
        if flag is not True:
            reasons.append(f"{calendar.flag} is {'not stated' if flag is None else 'not yet true'}")
    if doubt:
        reasons.append(doubt)
    evidence["reason"] = "; ".join(reasons) or "settled" + (f", and {calendar.flag}" if calendar.flag else "")
    return Finality(PROVISIONAL if reasons else FINAL, rule, evidence)


def open_periods(
    calendar: Calendar, *, history_from: BillingPeriod, held: Mapping[BillingPeriod, Status], now: datetime
) -> list[BillingPeriod]:
    """The months that a daily refresh asks for: from `history_from` to the running one, neither final nor out of reach.

    Months that the provider no longer serves are left out here; `out_of_reach` names them.
    """
    return [
        period
        for period in periods(history_from, calendar.current(now))
        if held.get(period) != FINAL and served(calendar, period, now)
    ]


def out_of_reach(
    calendar: Calendar, *, history_from: BillingPeriod, held: Mapping[BillingPeriod, Status], now: datetime
) -> list[BillingPeriod]:
    """The months that never became final and that the provider no longer serves: lost, unless it restores them."""
    return [
        period
        for period in periods(history_from, calendar.current(now))
        if held.get(period) != FINAL and not served(calendar, period, now)
    ]


def late_periods(
    calendar: Calendar, *, history_from: BillingPeriod, held: Mapping[BillingPeriod, Status], now: datetime
) -> list[BillingPeriod]:
    """The open months that are not final although they could have been for `LATE_AFTER`."""
    return [
        period
        for period in open_periods(calendar, history_from=history_from, held=held, now=now)
        if aware(now) >= calendar.settles_at(period) + LATE_AFTER
    ]


def watched_periods(
    calendar: Calendar, *, history_from: BillingPeriod, held: Mapping[BillingPeriod, Status], now: datetime
) -> list[BillingPeriod]:
    """The final months that a weekly watch asks for again, to compare them: as long as the provider serves them.

    Where it does not document for how long, the twelve months before the running one: invoices older than a year are not
    corrected as a rule, and a month costs as many requests as when it was open.
    """
    first = calendar.current(now).plus(-(calendar.serves_months or WATCHED_MONTHS))
    final = [period for period in sorted(held) if held[period] == FINAL and period >= max(first, history_from)]
    return [period for period in final if served(calendar, period, now)]


def served(calendar: Calendar, period: BillingPeriod, now: datetime) -> bool:
    """Whether the provider still serves `period` at `now`."""
    until = calendar.available_until(period)
    return until is None or aware(now) < until


def days_left(calendar: Calendar, period: BillingPeriod, now: datetime) -> int | None:
    """Whole days for which the provider still serves `period`: 0 on the last one, -1 once it no longer does; None: no limit."""
    until = calendar.available_until(period)
    if until is None:
        return None
    return (until - now) // timedelta(days=1) if aware(now) < until else -1


def periods(first: BillingPeriod, last: BillingPeriod) -> list[BillingPeriod]:
    """Every month from `first` to `last`, both included; empty when `last` is earlier."""
    months = (last.year - first.year) * 12 + last.month - first.month
    return [first.plus(n) for n in range(months + 1)]
