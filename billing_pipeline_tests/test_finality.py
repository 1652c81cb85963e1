"""THE FINALIZATION RULE, to the second, and what follows from it for what is asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_pipeline.finality import FINAL, PROVISIONAL, Calendar, finality, open_periods, out_of_reach, periods
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers import providers

MAY = BillingPeriod(2026, 5)
CALENDARS = {name: provider.calendar for name, provider in providers().items()}
SECOND = timedelta(seconds=1)
FLAGS = st.sampled_from([True, False, None])
MONTHS = st.builds(BillingPeriod, st.integers(2020, 2030), st.integers(1, 12))
INSTANTS = st.datetimes(datetime(2019, 1, 1), datetime(2032, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  bounds

SETTLED = {
    "infobip": datetime(2026, 6, 5, tzinfo=UTC),
    "plivo": datetime(2026, 6, 5, tzinfo=UTC),
    "talkdesk": datetime(2026, 6, 5, tzinfo=UTC),
    "ycloud": datetime(2026, 6, 2, 16, tzinfo=UTC),  # two full days after midnight of 1 June in UTC+8
}
FLAGGED = {"infobip", "ycloud"}


@pytest.mark.parametrize("name", SETTLED)
def test_a_month_is_final_from_the_very_second_it_settles_and_not_before(name: str) -> None:
    calendar = CALENDARS[name]
    flag = True if name in FLAGGED else None
    before, at = (finality(calendar, MAY, fetched_at=SETTLED[name] + d, flag=flag) for d in (-SECOND, timedelta()))
    assert (before.status, at.status) == (PROVISIONAL, FINAL)
    assert before.evidence["reason"] == "fetched before the month settles"
    assert at.evidence["reason"].startswith("settled")


@pytest.mark.parametrize("name", SETTLED)
def test_only_providers_with_a_flag_wait_for_it_and_a_missing_flag_is_not_final(name: str) -> None:
    calendar, late = CALENDARS[name], SETTLED[name] + timedelta(days=300)
    assert (calendar.flag is not None) == (name in FLAGGED)
    for flag, said in ((None, "not stated"), (False, "not yet true")):
        decided = finality(calendar, MAY, fetched_at=late, flag=flag)
        assert decided.final == (name not in FLAGGED)
        if name in FLAGGED:
            assert decided.evidence["reason"] == f"{calendar.flag} is {said}"
            assert decided.evidence[calendar.flag] is flag


@given(st.sampled_from(sorted(CALENDARS)), MONTHS, INSTANTS, st.timedeltas(timedelta(), timedelta(days=400)), FLAGS)
def test_finality_never_goes_back_as_the_fetch_is_later(
    name: str, period: BillingPeriod, fetched_at: datetime, later: timedelta, flag: bool | None
) -> None:
    first = finality(CALENDARS[name], period, fetched_at=fetched_at, flag=flag)
    second = finality(CALENDARS[name], period, fetched_at=fetched_at + later, flag=flag)
    assert second.final or not first.final


@given(st.sampled_from(sorted(CALENDARS)), MONTHS, INSTANTS, FLAGS)
def test_a_doubt_keeps_any_month_provisional_and_is_written_down(
    name: str, period: BillingPeriod, fetched_at: datetime, flag: bool | None
) -> None:
    decided = finality(CALENDARS[name], period, fetched_at=fetched_at, flag=flag, doubt="rows moved")
    assert decided.status == PROVISIONAL
    assert "rows moved" in decided.evidence["reason"]


@given(st.sampled_from(sorted(CALENDARS)), MONTHS, INSTANTS)
def test_a_month_that_is_not_over_is_never_final(name: str, period: BillingPeriod, fetched_at: datetime) -> None:
    calendar = CALENDARS[name]
    if fetched_at < period.end(calendar.timezone):
        assert not finality(calendar, period, fetched_at=fetched_at, flag=True).final


def test_a_fetch_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        finality(CALENDARS["plivo"], MAY, fetched_at=datetime(2026, 6, 5), flag=None)  # noqa: DTZ001  that is the point


@given(
    st.sampled_from(sorted(CALENDARS)),
    MONTHS,
    INSTANTS,
    st.dictionaries(MONTHS, st.sampled_from([FINAL, PROVISIONAL])),
)
def test_every_month_of_the_history_is_final_or_asked_for_or_lost_and_only_one_of_them(
    name: str, history_from: BillingPeriod, now: datetime, held: dict[BillingPeriod, str]
) -> None:
    calendar = CALENDARS[name]
    arguments = {"history_from": history_from, "held": held, "now": now}
    asked, lost = open_periods(calendar, **arguments), out_of_reach(calendar, **arguments)  # type: ignore[arg-type]
    history = periods(history_from, calendar.current(now))
    final = [period for period in history if held.get(period) == FINAL]
    assert sorted([*asked, *lost, *final]) == history
    assert asked == sorted(asked)
    if history:
        assert history[-1] in [*asked, *final]  # the running month is always served
    for period in lost:
        until = calendar.available_until(period)
        assert until is not None
        assert until <= now


def test_the_running_month_is_the_one_on_the_providers_own_clock() -> None:
    evening = datetime(2026, 5, 31, 16, tzinfo=UTC)
    asked = {
        name: open_periods(calendar, history_from=MAY, held={}, now=evening)[-1] for name, calendar in CALENDARS.items()
    }
    assert {"infobip": MAY, "plivo": MAY, "talkdesk": MAY, "ycloud": MAY.plus(1)}.items() <= asked.items()


def test_a_history_that_has_not_begun_has_no_months() -> None:
    assert (
        open_periods(CALENDARS["plivo"], history_from=MAY.plus(1), held={}, now=datetime(2026, 5, 1, tzinfo=UTC)) == []
    )


def test_a_provider_without_a_limit_serves_every_month() -> None:
    calendar = Calendar(settles_after=timedelta(days=4))
    assert calendar.available_until(MAY) is None
    assert (
        out_of_reach(calendar, history_from=BillingPeriod(1990, 1), held={}, now=datetime(2026, 6, 1, tzinfo=UTC)) == []
    )
