"""Nothing is missing unnoticed: no day of an account, and no month that its provider is about to forget."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from io import StringIO

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from billing_pipeline import definitions, status
from billing_pipeline.answers import Unavailable
from billing_pipeline.finality import EXPIRES_NOW, EXPIRES_SOON, days_left, served
from billing_pipeline.landing import Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers import providers

from .conftest import Company

CALENDARS = {name: provider.calendar for name, provider in providers().items()}
APRIL, MAY = BillingPeriod(2026, 4), BillingPeriod(2026, 5)
INSTANTS = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  bounds


def days(company: Company, partition: Partition) -> dict[date | None, str]:
    """What coverage says of each day of a month."""
    company.line.publish()
    return dict(
        company.ask(
            "SELECT x_Day, x_Coverage FROM coverage WHERE x_Provider = ? AND x_Account = ? AND x_BillingPeriod = ?",
            partition.provider,
            partition.account,
            str(partition.period),
        )
    )


def test_every_day_of_every_account_is_in_the_view_from_the_first_month_on(company: Company) -> None:
    company.do(company.month("plivo", "main", "2026-06"))
    company.line.publish()
    found = company.ask("SELECT x_Provider, x_Account, count(*) FROM coverage WHERE x_Day IS NOT NULL GROUP BY ALL")
    until_june = 31 + 28 + 31 + 30 + 31 + 30
    daily = [("infobip", "main"), ("plivo", "main"), ("plivo", "emea"), ("ycloud", "main")]
    assert set(found) == {(*account, until_june) for account in daily}
    assert company.ask("SELECT count(*) FROM coverage WHERE x_Provider = 'talkdesk' AND x_Day IS NULL") == [(6,)]
    never = "SELECT DISTINCT x_Coverage FROM coverage WHERE x_Provider = 'ycloud' AND x_BillingPeriod = '2026-05'"
    assert company.ask(never) == [("missing",)]


def test_a_day_is_seen_when_it_has_charges_and_expected_while_it_may_still_get_some(company: Company) -> None:
    june = company.month("plivo", "main", "2026-06")
    company.do(june)  # on the 15th at noon
    found = days(company, june)
    assert {found[date(2026, 6, n)] for n in range(1, 16)} == {"seen"}
    assert {found[date(2026, 6, n)] for n in range(16, 31)} == {"expected"}


def test_a_day_that_no_complete_fetch_covers_is_missing_once_the_next_daily_fetch_is_due(company: Company) -> None:
    june = company.month("plivo", "main", "2026-06")
    company.do(june)  # half of the 15th
    company.at("2026-06-16T23:59")
    assert days(company, june)[date(2026, 6, 15)] == "seen"
    company.at("2026-06-17T00:00")
    company.world.fail("plivo", [503] * 50)
    with pytest.raises(Unavailable):
        company.do(june)
    found = days(company, june)
    assert [found[date(2026, 6, n)] for n in (14, 15, 16, 17)] == ["seen", "missing", "expected", "expected"]
    half = company.ask("SELECT x_Rows > 0 FROM coverage WHERE x_Coverage = 'missing' AND x_BillingPeriod = '2026-06' "
                       "AND x_Account = 'main' AND x_Provider = 'plivo'")  # fmt: skip
    assert half == [(True,)], "the rows of half a day are there, and do not make it whole"
    company.world.fail("plivo", [])
    company.do(june)
    assert days(company, june)[date(2026, 6, 15)] == "seen"


def test_an_empty_day_is_confirmed_by_a_fetch_that_began_after_it_and_by_no_other(company: Company) -> None:
    # The sandbox has no traffic before 2024-01: a month of its own before that is empty, and fetched.
    company.at("2023-06-15T12:00")
    company.line.configuration = type(company.line.configuration)(
        BillingPeriod(2023, 6), company.line.configuration.accounts, "test"
    )
    june = company.month("ycloud", "main", "2023-06")
    company.do(june)
    found = days(company, june)
    assert Counter(found.values()) == {"empty": 14, "expected": 16}
    # On YCloud's clock (UTC+8) the 15th ends at 16:00 UTC.
    company.at("2023-06-15T16:00")
    company.do(june)
    assert days(company, june)[date(2023, 6, 15)] == "empty"


def test_a_fetch_that_brings_the_same_rows_again_covers_too(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.at("2026-06-01T00:00")
    company.do(may)
    company.at("2026-06-04T13:00")
    company.do(may)
    company.at("2026-06-04T14:00")
    assert company.do(may).action == "kept"
    company.line.publish()
    at = "SELECT DISTINCT x_CoveredAt FROM coverage WHERE x_Account = 'emea' AND x_BillingPeriod = '2026-05'"
    assert company.ask(at) == [(datetime(2026, 6, 4, 14, tzinfo=UTC),)]


def test_a_provider_that_knows_months_only_has_one_row_a_month(company: Company) -> None:
    may, june = (company.month("talkdesk", "main", period) for period in ("2026-05", "2026-06"))
    for month in (may, june):
        company.do(month)
    assert (days(company, may), days(company, june)) == ({None: "seen"}, {None: "seen"})
    company.at("2026-07-02T00:00")  # and June was not fetched since it ended
    assert days(company, june) == {None: "missing"}


def test_charges_of_a_whole_month_stand_beside_the_days(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    assert days(company, may)[None] == "seen"
    rows = company.ask(
        "SELECT sum(x_Rows) FROM coverage WHERE x_Provider = 'plivo' AND x_Account = 'main' AND x_BillingPeriod = '2026-05'"
    )
    assert rows == [(company.shown(may)[0],)]


# -- the retention horizon ---------------------------------------------------------------------------------------------


def test_days_are_counted_to_the_instant_at_which_the_provider_forgets_the_month() -> None:
    infobip, gone = CALENDARS["infobip"], datetime(2026, 7, 1, tzinfo=UTC)  # April is served until the end of June
    for before, left in ((timedelta(days=21), 21), (timedelta(days=1), 1), (timedelta(hours=23), 0), (timedelta(), -1)):
        assert days_left(infobip, APRIL, gone - before) == left, before
    assert days_left(CALENDARS["plivo"], APRIL, gone) is None, "no limit is documented"


@given(st.builds(BillingPeriod, st.just(2026), st.integers(1, 12)), INSTANTS, st.timedeltas(timedelta()))
def test_days_left_never_grow_and_end_when_the_month_is_no_longer_served(
    period: BillingPeriod, now: datetime, later: timedelta
) -> None:
    infobip = CALENDARS["infobip"]
    left = days_left(infobip, period, now)
    assert left is not None
    assert (left < 0) == (not served(infobip, period, now))
    if later < timedelta(days=10_000):
        assert (days_left(infobip, period, now + later) or 0) <= left


def test_a_month_that_becomes_final_in_time_is_never_near_its_end() -> None:
    for name, calendar in CALENDARS.items():
        left = days_left(calendar, MAY, calendar.settles_at(MAY))
        assert left is None or left > EXPIRES_SOON, f"{name}: the alarm would sound every month"


def test_a_month_that_is_not_final_and_soon_gone_is_in_the_tables_and_on_screen(company: Company) -> None:
    company.at("2026-04-20T12:00")
    april = company.month("infobip", "main", "2026-04")
    company.do(april)
    company.at("2026-06-15T12:00")
    company.line.publish()
    left = "SELECT x_DaysLeft FROM billing_periods WHERE x_BillingPeriod = '2026-04'"
    assert company.ask(left) == [(15,)]
    assert (april, 15) in company.line.expiring()
    shown = StringIO()
    status.show(company.line, Console(file=shown, width=100))
    assert "provisional, 15 days left" in shown.getvalue()
    rows = {row["x_BillingPeriod"]: row for row in status.months(company.line) if row["x_Provider"] == "infobip"}
    assert (rows["2026-04"]["x_DaysLeft"], rows["2026-04"]["x_AvailableUntil"]) == (15, "2026-07-01T00:00:00Z")
    assert rows["2026-03"]["x_DaysLeft"] == -1
    company.do(april)
    company.line.publish()
    assert company.ask(left) == [(None,)], "it is final"
    assert company.line.expiring() == []


def test_a_month_that_nobody_ever_fetched_is_on_screen_before_it_is_gone(company: Company) -> None:
    company.at("2026-06-20T12:00")
    (row,) = [row for row in status.months(company.line) if row["x_BillingPeriod"] == "2026-04"]
    assert (row["x_Provider"], row["x_Finality"], row["x_DaysLeft"]) == ("infobip", "not fetched yet", 10)


@pytest.mark.parametrize(
    ("now", "passed", "severity"),
    [("2026-06-08T12:00", True, None), ("2026-06-15T12:00", False, "WARN"), ("2026-06-24T12:00", False, "ERROR")],
)
def test_the_check_of_the_warehouse_sounds_even_if_no_month_of_the_account_could_be_loaded(
    company: Company, now: str, passed: bool, severity: str | None
) -> None:
    company.at(now)
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.build(company.line).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(asset_selection=[dg.AssetKey(["warehouse", "charges"])], instance=instance)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "nothing_about_to_expire"]
    assert check.passed == passed
    if severity:
        assert check.severity.value == severity
        for said in ("infobip/main 2026-04", "days left", "billing-pipeline refresh", "2026-07-01T00:00:00Z"):
            assert said in str(check.description)
    assert EXPIRES_NOW < EXPIRES_SOON


def test_the_check_of_an_account_tells_of_its_other_months_too(company: Company) -> None:
    company.at("2026-06-24T12:00")
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.build(company.line).resolve_job_def("account_month")
        for account, passed in (("infobip", False), ("plivo", True)):
            keys = [dg.AssetKey([account, "main", step]) for step in ("raw", "charges")]
            result = job.execute_in_process(partition_key="2026-06", asset_selection=keys, instance=instance)
            found = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
            assert found["nothing_about_to_expire"] is passed
            assert found["control_totals_agree"], "an alarm about April holds up nothing of June"
