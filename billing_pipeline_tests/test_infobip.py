"""Infobip: what its letters become, what they say about themselves, and every way to lose or count money twice."""

from __future__ import annotations

import csv
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pydantic import ValidationError

from billing_pipeline.finality import finality
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers.infobip import PROVIDER, InfobipSettings, statement
from billing_pipeline.reconcile import plain

from . import harness
from .infobip_letters import (
    COLUMNS,
    MARCH,
    ROW,
    Recorded,
    charged,
    letter,
    page,
    reconciled,
    refused,
    row,
)

RECORDINGS = Path(__file__).parent / "recordings" / "infobip"
SHOWN = (
    "x_UsageDate", "BillingAccountId", "BillingAccountName", "ServiceName", "x_Type", "x_Direction", "x_DestinationCountry",
    "PricingQuantity", "PricingUnit", "x_UnitRaw", "x_UnitPrice", "BilledCost", "BillingCurrency", "ChargePeriodStart",
    "ChargePeriodEnd", "ChargeDescription", "x_Dimensions", "x_RowSource",
)  # fmt: skip


def shown(table: pa.Table) -> list[dict[str, str]]:
    written = {Decimal: plain, type(None): lambda _: ""}
    return [
        {name: written.get(type(value), str)(value) for name, value in one.items()}
        for one in table.select(SHOWN).to_pylist()
    ]


@pytest.mark.parametrize("folder", sorted(RECORDINGS.iterdir()), ids=lambda folder: folder.name)
def test_a_recorded_month_gives_the_expected_charges(folder: Path) -> None:
    answers = msgspec.json.decode((folder / "recording.json").read_bytes(), type=list[Recorded])
    pages = [harness.page(bytes(a.body), n, request=a.request, facts=a.facts) for n, a in enumerate(answers, 1)]
    table, _ = reconciled(pages, BillingPeriod.parse(folder.name[:7]))
    with (folder / "expected.csv").open(newline="") as file:
        assert shown(table) == list(csv.DictReader(file))


# What is charged


def test_trap_1_the_last_day_of_the_month_is_charged() -> None:
    rows, says = charged(letter([row(DAY="2026-03-01"), row(DAY="2026-03-31")]))
    assert [one["x_UsageDate"] for one in rows] == [date(2026, 3, 1), date(2026, 3, 31)]
    assert says.notes == ()
    assert rows[-1]["ChargePeriodStart"] == datetime(2026, 3, 31, tzinfo=UTC)
    assert rows[-1]["ChargePeriodEnd"] == datetime(2026, 4, 1, tzinfo=UTC)


def test_trap_1_a_last_day_without_charges_is_noticed_and_doubted_when_the_answer_may_have_left_it_out() -> None:
    _, told = charged(letter([row(DAY="2026-03-30")]))
    assert told.notes == ("no charge on 2026-03-31, though there are some on the day before",)
    assert told.doubt is None
    _, doubted = charged(letter([row(DAY="2026-03-30")], granted=("2026-03-01", "2026-03-31")))
    assert doubted.doubt is not None
    decided = finality(
        PROVIDER.calendar, MARCH, fetched_at=datetime(2026, 4, 6, tzinfo=UTC), flag=True, doubt=doubted.doubt
    )
    assert decided.status == "provisional"
    _, quiet = charged(letter([row(DAY="2026-03-12")]))
    assert (quiet.notes, quiet.doubt) == ((), None)


def test_trap_2_columns_are_found_by_name_also_when_infobip_puts_some_in_front() -> None:
    columns = ("ACCOUNT_NAME", *COLUMNS[::-1])
    rows, _ = charged(letter([("Account A", *ROW[::-1])], columns=columns))
    assert rows[0]["BilledCost"] == Decimal("11.25")
    assert (rows[0]["BillingAccountName"], rows[0]["ServiceName"]) == ("Account A", "SMS")


def test_trap_3_operator_fees_and_categories_that_nobody_knew_are_charged_and_the_unknown_are_reported() -> None:
    rows, says = charged(
        letter([row(CATEGORY_CODE=c) for c in ("SMS_OPERATOR_FEE", "MMS_OPERATOR_FEE", "APPLE_MB", "AI", "PIGEON")])
    )
    assert [one["ServiceName"] for one in rows] == ["SMS_OPERATOR_FEE", "MMS_OPERATOR_FEE", "APPLE_MB", "AI", "PIGEON"]
    assert says.notes == ("categories that were unknown in 2026-11, charged like any other: PIGEON",)


def test_trap_4_the_total_is_taken_as_it_stands_and_never_multiplied() -> None:
    rows, _ = charged(
        letter([row(UNIT_PRICE=Decimal("0.0089"), QUANTITY=Decimal("450.5"), TOTAL_PER_UNIT=Decimal("4.01"))])
    )
    assert rows[0]["BilledCost"] == Decimal("4.01")
    assert (rows[0]["x_UnitPrice"], rows[0]["PricingQuantity"]) == (Decimal("0.0089"), Decimal("450.5"))


def test_trap_5_currencies_are_added_up_apart() -> None:
    _, says = charged(letter([row(), row(CURRENCY="EUR"), row(TOTAL_PER_UNIT=Decimal("-0.25"))]))
    assert says.counted.totals == {"USD": Decimal("11.00"), "EUR": Decimal("11.25")}


@pytest.mark.parametrize("absent", ["N/A", None])
def test_trap_6_a_value_that_is_not_available_is_absent_in_any_column(absent: str | None) -> None:
    columns = (*COLUMNS, "NETWORK_NAME", "CAMPAIGN_ID", "COUNTRY_CODE", "TRAFFIC_TYPE")
    values = row(UNIT_TYPE=absent, UNIT_PRICE=absent, QUANTITY=absent)
    rows, _ = charged(
        letter([[*values, absent, absent, absent, absent], [*row(), "Net", 12, "US", "A2P"]], columns=columns)
    )
    for name in ("PricingQuantity", "PricingUnit", "x_UnitPrice", "x_UnitRaw", "x_DestinationCountry", "x_Type"):
        assert rows[0][name] is None
    assert rows[0]["x_Dimensions"] == "{}"
    assert rows[0]["ChargeDescription"] == "SMS"
    assert json.loads(rows[1]["x_Dimensions"]) == {"NETWORK_NAME": "Net", "CAMPAIGN_ID": "12"}
    assert (rows[1]["ChargeDescription"], rows[1]["PricingUnit"]) == ("SMS US", "Message Parts")


@pytest.mark.parametrize("absent", ["N/A", None])
def test_a_row_without_category_or_account_keeps_its_money_and_is_reported(absent: str | None) -> None:
    rows, says = charged(letter([row(CATEGORY_CODE=absent, ACCOUNT_KEY=absent)]))
    assert (rows[0]["ServiceName"], rows[0]["BillingAccountId"]) == ("N/A", "N/A")
    assert says.notes == ("some rows have no category; their ServiceName is N/A",)


@pytest.mark.parametrize(
    "amount", ["N/A", None, "", True, "11,25", "NaN", Decimal("1E-19"), Decimal("1E+20"), {"a": 1}]
)
def test_trap_6_a_missing_or_inexact_amount_stops_the_month_and_names_the_row(amount: object) -> None:
    assert "row 1: TOTAL_PER_UNIT" in refused(letter([row(), row(TOTAL_PER_UNIT=amount)]))


@pytest.mark.parametrize(
    "amount", ["0", "-0.01", "1E-18", "99999999999999999999.999999999999999999", "1.50000000000000000000"]
)
def test_an_amount_is_held_to_its_last_digit(amount: str) -> None:
    rows, _ = charged(letter([row(TOTAL_PER_UNIT=Decimal(amount))]))
    assert rows[0]["BilledCost"] == Decimal(amount)


def test_a_price_with_more_digits_than_the_schema_holds_is_kept_as_text() -> None:
    rows, _ = charged(letter([row(UNIT_PRICE=Decimal("0.1234567890123456789"), QUANTITY=3)]))
    assert rows[0]["x_UnitPrice"] is None
    assert json.loads(rows[0]["x_Dimensions"]) == {"UNIT_PRICE": "0.1234567890123456789"}
    assert rows[0]["PricingQuantity"] == Decimal(3)


def test_trap_7_a_trimmed_period_is_not_a_month_without_cost() -> None:
    for granted in (("2026-03-01", "2026-03-30"), ("2026-03-02", "2026-04-01"), ("2026-02-01", "2026-03-01")):
        assert f"trimmed to {granted[0]} to {granted[1]}" in refused(
            letter([], granted=granted, asked=("2026-03-01", "2026-04-01"))
        )


@pytest.mark.parametrize(
    "until", ["2026-03-31", "2026-03-31T23:59:59.999+0000", "2026-04-01T00:00:00Z", "2026-04-01T00:00:00"]
)
def test_both_readings_of_the_periods_end_are_a_whole_month(until: str) -> None:
    _, says = charged(letter(granted=("2026-03-01T00:00:00.000+0000", until)))
    assert says.counted.rows == 1


def test_a_running_month_is_whole_when_it_reaches_the_day_of_the_question() -> None:
    rows, _ = charged(
        letter([row(DAY="2026-03-11")], granted=("2026-03-01", "2026-03-12")), submitted_at="2026-03-12T06:00:00Z"
    )
    assert len(rows) == 1
    assert "trimmed" in refused(letter([], granted=("2026-03-01", "2026-03-11")), submitted_at="2026-03-12T06:00:00Z")


def test_trap_8_the_days_of_other_months_in_a_widened_period_are_left_out_and_counted_apart() -> None:
    days = ("2026-02-28", "2026-03-01", "2026-03-31", "2026-04-01")
    rows, says = charged(letter([row(DAY=day) for day in days], granted=("2026-02-01", "2026-04-30")))
    assert [one["x_UsageDate"] for one in rows] == [date(2026, 3, 1), date(2026, 3, 31)]
    assert (says.counted.rows, says.left_out.rows, says.stated_rows) == (2, 2, 4)
    assert says.left_out.totals == {"USD": Decimal("22.50")}
    assert says.notes == ("the answer was widened to 2026-02-01 to 2026-04-30; days of other months are left out",)


def test_trap_9_march_is_out_of_reach_from_the_first_of_june() -> None:
    assert PROVIDER.calendar.available_until(MARCH) == datetime(2026, 6, 1, tzinfo=UTC)


def test_trap_10_a_month_is_final_by_calendar_and_flag_together_and_the_submission_is_the_clock() -> None:
    def decided(submitted_at: str, *, finalized: bool | None) -> str:
        says = statement([page(letter(finalized=finalized), submitted_at=submitted_at)], MARCH)
        instant = datetime.fromisoformat(submitted_at)
        return finality(PROVIDER.calendar, MARCH, fetched_at=instant, flag=says.flag, doubt=says.doubt).status

    assert decided("2026-04-04T23:59:59Z", finalized=True) == "provisional"
    assert decided("2026-04-05T00:00:00Z", finalized=False) == "provisional"
    assert decided("2026-04-05T00:00:00Z", finalized=None) == "provisional"
    assert decided("2026-04-05T00:00:00Z", finalized=True) == "final"


def test_trap_12_an_account_has_no_default_address_because_another_data_centre_holds_other_data() -> None:
    with pytest.raises(ValidationError, match="base_url"):
        InfobipSettings.model_validate(
            {
                "provider": "infobip",
                "name": "main",
                "api_key": "INFOBIP_API_KEY",
                "callback_url": "https://b.example.com",
            }
        )


def test_trap_13_rows_hang_on_the_accounts_key_and_two_accounts_of_one_name_stay_two() -> None:
    columns = (*COLUMNS, "ACCOUNT_NAME")
    rows, _ = charged(letter([[*row(), "Shop"], [*row(ACCOUNT_KEY="KEY_B"), "Shop"]], columns=columns))
    assert [(one["BillingAccountId"], one["BillingAccountName"]) for one in rows] == [
        ("KEY_A", "Shop"),
        ("KEY_B", "Shop"),
    ]


def test_without_keys_and_codes_names_serve() -> None:
    columns = ("DAY", "ACCOUNT_NAME", "CATEGORY_NAME", *COLUMNS[3:])
    rows, _ = charged(letter([("2026-03-31", "Account A", "Text messages", *ROW[3:])], columns=columns))
    assert (rows[0]["BillingAccountId"], rows[0]["ServiceName"]) == ("Account A", "Text messages")


def test_several_rows_with_the_same_dimensions_are_all_charged() -> None:
    rows, says = charged(letter([ROW, ROW, ROW]))
    assert says.counted.totals == {"USD": Decimal("33.75")}
    assert [one["x_RowSource"].partition("#")[2] for one in rows] == [f"/response/rows/{n}" for n in range(3)]


def test_an_empty_month_is_a_result() -> None:
    rows, says = charged(letter([]))
    assert (rows, says.counted.rows, says.stated_rows, says.flag) == ([], 0, 0, True)


@pytest.mark.parametrize(
    "day",
    [
        "2026-03-31",
        "2026-03-31T00:00:00",
        "2026-03-31T00:00:00Z",
        "2026-03-31T00:00:00.000+0000",
        "2026-03-31T00:00:00+00:00",
    ],
)
def test_a_day_may_be_written_in_every_way_that_infobip_documents(day: str) -> None:
    rows, _ = charged(letter([row(DAY=day)]))
    assert rows[0]["x_UsageDate"] == date(2026, 3, 31)


@pytest.mark.parametrize(
    "day", ["2026-03", "2026-02-30", "31.03.2026", "2026-03-31T00:00:00+02:00", "20260331", "N/A", None, 20260331]
)
def test_a_day_that_is_none_stops_the_month_and_names_the_row(day: object) -> None:
    assert "DAY of row 0" in refused(letter([row(DAY=day)]))


def test_a_row_without_a_currency_stops_the_month() -> None:
    assert "row 0 has no CURRENCY" in refused(letter([row(CURRENCY="N/A")]))


def test_the_calendar_is_utc_and_settles_on_the_fifth() -> None:
    assert PROVIDER.calendar.settles_at(MARCH) == datetime(2026, 4, 5, tzinfo=UTC)
    assert PROVIDER.calendar.settles_after == timedelta(days=4)
