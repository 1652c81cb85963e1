"""Months tile time on every provider's clock, half-open, without a gap and without an overlap."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_pipeline.period import BillingPeriod, aware, day_of, day_start, stamp

UTC8 = timezone(timedelta(hours=8))
ZONES = st.sampled_from([UTC, UTC8, ZoneInfo("America/New_York")])
MONTHS = st.builds(BillingPeriod, st.integers(1990, 2200), st.integers(1, 12))
INSTANTS = st.datetimes(datetime(1990, 1, 2), datetime(2199, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001  bounds


@given(MONTHS, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_months_can_be_counted_on_and_back(period: BillingPeriod, n: int, m: int) -> None:
    assert period.plus(n).plus(-n) == period
    assert period.plus(n).plus(m) == period.plus(n + m)
    assert (period.plus(n) > period) == (n > 0)
    assert (period.plus(12).year, period.plus(12).month) == (period.year + 1, period.month)


@given(MONTHS)
def test_a_month_is_written_and_read_the_same_way(period: BillingPeriod) -> None:
    assert BillingPeriod.parse(str(period)) == period
    assert len(str(period)) == 7


@given(MONTHS)
def test_the_days_of_a_month_are_all_its_days_once(period: BillingPeriod) -> None:
    days = list(period.days())
    assert days == sorted(set(days))
    assert (days[0], days[-1]) == (period.first_day, period.last_day)
    assert all(day in period for day in days)
    assert days[-1] + timedelta(days=1) == period.plus(1).first_day
    assert days[-1] + timedelta(days=1) not in period


@given(MONTHS, ZONES)
def test_a_month_ends_where_the_next_begins(period: BillingPeriod, zone: tzinfo) -> None:
    assert period.end(zone) == period.plus(1).start(zone)
    assert period.start(zone).utcoffset() == timedelta()
    assert period.start(zone).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") == f"{period}-01 00:00:00"


@given(INSTANTS, ZONES)
def test_every_instant_is_in_exactly_one_month_and_on_one_day_of_it(instant: datetime, zone: tzinfo) -> None:
    period = BillingPeriod.of(instant, zone)
    assert period.start(zone) <= instant < period.end(zone)
    assert day_of(instant, zone) in period
    around = [period.plus(n) for n in (-1, 0, 1)]
    assert [month.start(zone) <= instant < month.end(zone) for month in around] == [False, True, False]


@given(MONTHS, st.sampled_from([UTC, UTC8]))
def test_days_tile_the_month_too(period: BillingPeriod, zone: tzinfo) -> None:
    starts = [day_start(day, zone) for day in period.days()] + [period.end(zone)]
    assert starts[0] == period.start(zone)
    assert {later - earlier for earlier, later in pairwise(starts)} == {timedelta(days=1)}


def test_a_month_in_utc_plus_8_begins_at_16_hours_of_the_day_before() -> None:
    october = BillingPeriod(2026, 10)
    assert stamp(october.start(UTC8)) == "2026-09-30T16:00:00Z"
    assert stamp(october.end(UTC8)) == "2026-10-31T16:00:00Z"
    assert BillingPeriod.of(datetime(2026, 9, 30, 16, tzinfo=UTC), UTC8) == october
    assert BillingPeriod.of(datetime(2026, 9, 30, 15, 59, 59, tzinfo=UTC), UTC8) == october.plus(-1)


def test_leap_days_are_counted() -> None:
    assert BillingPeriod(2028, 2).last_day == date(2028, 2, 29)
    assert len(list(BillingPeriod(2026, 2).days())) == 28


@pytest.mark.parametrize(
    "text",
    ["", "2026", "2026-5", "2026-00", "2026-13", "26-05", "2026-05-01", " 2026-05", "2026-05\n", "2026/05", "٢٠٢٦-٠٥"],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="month"):
        BillingPeriod.parse(text)


def test_a_time_without_a_zone_is_refused() -> None:
    naive = datetime(2026, 5, 1)  # noqa: DTZ001  that is the point
    for call in (aware, stamp, lambda instant: day_of(instant, UTC), lambda instant: BillingPeriod.of(instant, UTC)):
        with pytest.raises(ValueError, match="has no time zone"):
            call(naive)
