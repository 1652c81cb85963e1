"""One calendar month on a provider's clock."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo


@dataclass(frozen=True, order=True)
class BillingPeriod:
    """A calendar month. Whose month it is, the time zone says that each method is given.

    Months start at midnight on the provider's clock: UTC for Infobip, Plivo and Talkdesk, UTC+8 for YCloud.
    """

    year: int
    month: int

    def __post_init__(self) -> None:
        if not (1 <= self.month <= 12 and 1 <= self.year <= 9998):
            raise ValueError(f"{self.year:04d}-{self.month:02d} is not a calendar month")

    @classmethod
    def parse(cls, text: str) -> BillingPeriod:
        """The month written `YYYY-MM`; anything else is a ValueError that says so."""
        if not re.fullmatch(r"\d{4}-\d{2}", text, re.ASCII):
            raise ValueError(f"{text!r} is not a month written YYYY-MM")
        return cls(int(text[:4]), int(text[5:]))

    @classmethod
    def of(cls, instant: datetime, zone: tzinfo) -> BillingPeriod:
        """The month that `instant` falls into on the clock of `zone`."""
        local = aware(instant).astimezone(zone)
        return cls(local.year, local.month)

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    def plus(self, months: int) -> BillingPeriod:
        """The month so many months later, or earlier when negative."""
        ordinal = self.year * 12 + self.month - 1 + months
        return BillingPeriod(ordinal // 12, ordinal % 12 + 1)

    @property
    def first_day(self) -> date:
        """The 1st, on the provider's own calendar."""
        return date(self.year, self.month, 1)

    @property
    def last_day(self) -> date:
        """The last day of the month, inclusive."""
        return date(self.year, self.month, calendar.monthrange(self.year, self.month)[1])

    def days(self) -> Iterator[date]:
        """Every day of the month, in order."""
        return (self.first_day + timedelta(days=n) for n in range(self.last_day.day))

    def start(self, zone: tzinfo) -> datetime:
        """The month's first instant, in UTC; inclusive."""
        return day_start(self.first_day, zone)

    def end(self, zone: tzinfo) -> datetime:
        """The next month's first instant, in UTC; exclusive."""
        return self.plus(1).start(zone)

    def __contains__(self, day: date) -> bool:
        return (day.year, day.month) == (self.year, self.month)


def day_start(day: date, zone: tzinfo) -> datetime:
    """Midnight at the start of `day` on the clock of `zone`, in UTC."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def day_of(instant: datetime, zone: tzinfo) -> date:
    """The calendar day that `instant` falls into on the clock of `zone`."""
    return aware(instant).astimezone(zone).date()


def aware(instant: datetime) -> datetime:
    """`instant` itself; a time without a zone is a ValueError."""
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no time zone")
    return instant


def stamp(instant: datetime) -> str:
    """`instant` as it is written in JSON and on screen: UTC, ISO 8601, ending in Z."""
    return aware(instant).astimezone(UTC).isoformat().replace("+00:00", "Z")
