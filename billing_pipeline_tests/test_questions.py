"""The views for the questions that people ask: exact, never across currencies, and what they say of odd months."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from billing_pipeline import charges
from billing_pipeline.coverage import Expectation
from billing_pipeline.finality import Finality, Status
from billing_pipeline.lake import Lake
from billing_pipeline.landing import Landings, Partition
from billing_pipeline.ledger import Entry, fetch_facts
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page
from billing_pipeline.schema import SCHEMA
from billing_pipeline.warehouse import Warehouse

from .charges_rows import ISSUERS, columns, origin
from .toy import Charge, Toy
from .year import example, line

__all__ = ["example", "line"]  # fixtures

APRIL, MAY, JUNE = (Partition("plivo", "main", BillingPeriod(2026, month)) for month in (4, 5, 6))
NOW = datetime(2026, 6, 20, 6, tzinfo=UTC)
Row = Mapping[str, Any]


def bill(cost: str, currency: str = "USD", **others: Any) -> Row:
    """A charge; what is not named is as in `charges_rows`."""
    return {"BilledCost": Decimal(cost), "BillingCurrency": currency, **others}


def hold(folder: Path, partition: Partition, rows: Sequence[Row], status: Status = "final") -> None:
    """Put a month into the lake."""
    kinds = {column.name: column.type for column in SCHEMA}
    names = {name for row in rows for name in row} - {"BilledCost", "BillingCurrency"}
    others = {name: pa.array([row.get(name) for row in rows], kinds[name]) for name in names}
    if "x_RowSource" not in others:
        others["x_RowSource"] = pa.array([f"{partition.path}/x/1#/{n}" for n in range(len(rows))])
    for name, default in (("ServiceName", "message"), ("x_IsPrepayment", False)):
        if name in others:
            others[name] = others[name].fill_null(default)
    made = columns([(row["BillingCurrency"], row["BilledCost"]) for row in rows], **others)
    page = Page(body=b"{}", request="GET /made-up", received_at=NOW)
    landing = Landings(folder).land(partition, [page], fetched_at=NOW, version="test")
    with Lake(folder).replacement(partition) as new:
        new.write(charges.complete(made, origin(partition, status))[0])
        new.seal(landing, Finality(status, "made up", {"reason": "made up"}), left_out={}, notes=[])
        new.publish()


def publish(folder: Path, since: BillingPeriod = APRIL.period) -> None:
    expectation = Expectation(at=NOW, history_from=since, accounts=[("plivo", "main")])
    Warehouse(folder).publish(Lake(folder).all(), [], ISSUERS, expectation=expectation)


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        return db.execute(sql).fetchall()


def numbers(*texts: str) -> list[Decimal]:
    return [Decimal(text) for text in texts]


@pytest.mark.parametrize("view", ["cost_by_service", "cost_by_country", "cost_by_account", "provisional_part"])
def test_whatever_it_is_split_by_a_month_adds_up_to_its_charges(line: Line, view: str) -> None:
    """On months with money paid in, corrections, several currencies, several accounts."""
    key = "x_BillingPeriod, BillingCurrency"
    expected = ask(line.data, f"SELECT {key}, sum(BilledCost) FROM charges GROUP BY ALL ORDER BY ALL")
    assert len(expected) >= 4
    assert ask(line.data, f"SELECT {key}, sum(BilledCost) FROM {view} GROUP BY ALL ORDER BY ALL") == expected
    if view == "provisional_part":
        assert ask(line.data, f"SELECT count(*) FROM {view} WHERE BilledCost <> x_Final + x_Provisional") == [(0,)]
        return
    parts = "sum(EffectiveCost + x_PaidIn), sum(x_Corrections), sum(x_Provisional), sum(x_PaidIn)"
    whole = (
        "sum(BilledCost), coalesce(sum(BilledCost) FILTER (ChargeClass = 'Correction'), 0), "
        "coalesce(sum(BilledCost) FILTER (x_Finality = 'provisional'), 0), "
        "coalesce(sum(BilledCost) FILTER (x_IsPrepayment), 0)"
    )
    split = ask(line.data, f"SELECT {key}, {parts} FROM {view} GROUP BY ALL ORDER BY ALL")
    assert split == ask(line.data, f"SELECT {key}, {whole} FROM charges GROUP BY ALL ORDER BY ALL")
    assert any(row[3] for row in split)  # corrections
    assert any(row[5] for row in split)  # money paid in


@pytest.mark.parametrize(
    ("view", "cost"),
    [("month_over_month", "EffectiveCost"), ("unit_cost", "coalesce(x_PricedCost, 0) + x_UnpricedCost")],
)
def test_what_was_incurred_in_a_month_adds_up_to_its_charges_and_later_corrections(
    line: Line, view: str, cost: str
) -> None:
    key = "x_IncurredPeriod, x_Provider, x_Account, BillingCurrency"
    found = dict(_keyed(ask(line.data, f"SELECT {key}, sum({cost}) FROM {view} GROUP BY ALL")))
    expected = dict(_keyed(ask(line.data, f"SELECT {key}, sum(EffectiveCost) FROM spend GROUP BY ALL")))
    assert len(expected) >= 8
    assert {k: v for k, v in found.items() if v} == {k: v for k, v in expected.items() if v}


def _keyed(rows: Iterable[tuple[Any, ...]]) -> Iterable[tuple[tuple[Any, ...], Any]]:
    return ((row[:-1], row[-1]) for row in rows)


def test_a_change_is_the_sum_of_its_reasons_to_the_last_digit_and_all_changes_are_that_of_the_total(line: Line) -> None:
    wrong = ask(
        line.data,
        "SELECT * FROM movers WHERE x_Change <> EffectiveCost - x_CostBefore "
        "OR x_Change <> x_Came + x_Went + x_ThroughQuantity + x_ThroughPrice + x_ThroughOther",
    )
    assert wrong == []
    key = "x_Provider, x_Account, BillingCurrency"
    total = f"SELECT {key}, sum(x_Change) AS moved FROM {{}} GROUP BY ALL HAVING moved <> 0 ORDER BY ALL"
    assert ask(line.data, total.format("movers")) == ask(line.data, total.format("month_over_month"))
    reasons = {row[0] for row in ask(line.data, "SELECT DISTINCT x_Why FROM movers")}
    assert reasons == {"came", "went", "quantity"}


def test_a_slice_moves_because_it_came_went_or_its_quantity_or_unit_price_moved(tmp_path: Path) -> None:
    def slices(**costs: tuple[str, int | None]) -> list[Row]:
        return [
            bill(cost, x_DestinationCountry=None if country == "XX" else country,
                 PricingQuantity=None if units is None else Decimal(units), PricingUnit="Units")
            for country, (cost, units) in costs.items()
        ]  # fmt: skip

    hold(tmp_path, MAY, slices(DE=("10", 100), FR=("10", 100), GB=("5", 50), XX=("3", None), IT=("1", 1), ES=("-1", 0)))
    hold(
        tmp_path, JUNE, slices(DE=("21", 200), FR=("12", 100), US=("7", 70), XX=("4.5", None), IT=("1", 1), ES=("2", 3))
    )
    publish(tmp_path)
    found = ask(
        tmp_path,
        "SELECT x_DestinationCountry, x_Why, x_Change, x_Came, x_Went, x_ThroughQuantity, x_ThroughPrice, x_ThroughOther "
        "FROM movers ORDER BY x_Rank",
    )
    assert found == [
        ("DE", "quantity", *numbers("11", "0", "0", "10", "1", "0")),
        ("US", "came", *numbers("7", "7", "0", "0", "0", "0")),
        ("GB", "went", *numbers("-5", "0", "-5", "0", "0", "0")),
        ("ES", "other", *numbers("3", "0", "0", "0", "0", "3")),
        ("FR", "unit price", *numbers("2", "0", "0", "0", "2", "0")),
        (None, "other", *numbers("1.5", "0", "0", "0", "0", "1.5")),
    ]


def test_the_quantity_effect_of_a_large_bill_neither_overflows_nor_loses_a_digit_of_the_sum(tmp_path: Path) -> None:
    big, more = Decimal("987654321.123456789012345678"), Decimal("1987654321.987654321098765432")
    units = {"PricingUnit": "Units"}
    hold(tmp_path, MAY, [bill(str(big), PricingQuantity=Decimal("333333333333"), **units)])
    hold(tmp_path, JUNE, [bill(str(more), PricingQuantity=Decimal("777777777777.000001"), **units)])
    publish(tmp_path)
    ((change, through, price),) = ask(tmp_path, "SELECT x_Change, x_ThroughQuantity, x_ThroughPrice FROM movers")
    assert change == more - big == through + price
    assert abs(through - big * (Decimal("777777777777.000001") / 333333333333 - 1)) < Decimal("0.00001")


def test_a_month_is_compared_with_nothing_when_the_month_before_was_never_fetched_and_with_0_when_it_was_empty(
    tmp_path: Path,
) -> None:
    hold(tmp_path, APRIL, [])
    hold(tmp_path, MAY, [bill("4"), bill("-1"), bill("2.50", "EUR")])
    publish(tmp_path)
    columns = "x_IncurredPeriod, BillingCurrency, EffectiveCost, x_CostBefore, x_Change, x_ChangePercent"
    question = f"SELECT {columns} FROM month_over_month"
    assert ask(tmp_path, question) == [
        ("2026-05", "EUR", *numbers("2.5", "0", "2.5"), None),
        ("2026-05", "USD", *numbers("3", "0", "3"), None),
    ]
    hold(tmp_path, JUNE, [bill("1.5")])
    Lake(tmp_path).path(APRIL).unlink()
    publish(tmp_path)
    assert ask(tmp_path, question) == [
        ("2026-05", "EUR", Decimal("2.5"), None, None, None),
        ("2026-05", "USD", Decimal(3), None, None, None),
        ("2026-06", "EUR", *numbers("0", "2.5", "-2.5", "-100.0")),
        ("2026-06", "USD", *numbers("1.5", "3", "-1.5", "-50.0")),
    ]
    assert ask(tmp_path, "SELECT DISTINCT x_IncurredPeriod FROM movers") == [("2026-06",)]


def test_money_paid_in_is_no_consumption_and_a_correction_belongs_to_the_month_it_corrects(tmp_path: Path) -> None:
    late = {"ChargeClass": "Correction", "x_RowSource": f"-{MAY.path}/x/1#/0"}
    hold(tmp_path, MAY, [bill("10"), bill("500", ServiceName="RECHARGE", x_IsPrepayment=True)])
    hold(tmp_path, JUNE, [bill("7", x_RowSource=f"{JUNE.path}/x/1#/0"), bill("-2", **late)], "provisional")
    publish(tmp_path)
    booked = "SELECT x_BillingPeriod, sum(BilledCost), sum(EffectiveCost), sum(x_PaidIn), sum(x_Corrections), sum(x_Provisional)"
    assert ask(tmp_path, f"{booked} FROM cost_by_service GROUP BY ALL ORDER BY ALL") == [
        ("2026-05", *numbers("510", "10", "500", "0", "0")),
        ("2026-06", *numbers("5", "5", "0", "-2", "5")),
    ]
    incurred = "SELECT x_IncurredPeriod, ServiceName, EffectiveCost FROM month_over_month"
    assert ask(tmp_path, incurred) == [("2026-05", "message", Decimal(8)), ("2026-06", "message", Decimal(7))]


def test_an_approved_correction_moves_the_month_it_corrects_in_every_comparison(tmp_path: Path) -> None:
    toy = Toy()
    line = toy.line(tmp_path)
    may, june = (Partition("toy", "main", BillingPeriod(2026, month)) for month in (5, 6))

    def at(day: int, partition: Partition, *rows: Charge) -> None:
        toy.now = datetime(2026, 6, day, 6, tzinfo=UTC)
        toy.bills[partition.period] = list(rows)
        line.fetch(partition, explicit=True)
        line.load(partition)

    at(10, may, Charge(3, "sms", 10, Decimal("1.00")))
    at(11, june, Charge(4, "sms", 10, Decimal("2.00")))
    at(12, may, Charge(3, "sms", 12, Decimal("1.20")))
    line.approve(may, "a person", "agreed")
    line.publish()
    assert ask(tmp_path, "SELECT x_BillingPeriod, BilledCost, x_Corrections FROM cost_by_service") == [
        ("2026-05", *numbers("1", "0")),
        ("2026-06", *numbers("2.2", "0.2")),
    ]
    assert ask(tmp_path, "SELECT x_IncurredPeriod, EffectiveCost FROM month_over_month") == [
        ("2026-05", Decimal("1.2")),
        ("2026-06", Decimal(2)),
    ]
    assert ask(tmp_path, "SELECT x_UnitCost FROM unit_cost WHERE x_IncurredPeriod = '2026-05'") == [(Decimal("0.1"),)]
    assert ask(tmp_path, "SELECT EffectiveCost FROM daily_cost WHERE x_UsageDate = '2026-05-03'") == [(Decimal("1.2"),)]


def test_a_unit_cost_has_twelve_decimals_and_is_nobodys_where_there_is_no_quantity(tmp_path: Path) -> None:
    rows = [
        bill("1", PricingQuantity=Decimal(3), PricingUnit="Units", ServiceName="a"),
        bill("-1", PricingQuantity=Decimal(3), PricingUnit="Units", ServiceName="b"),
        bill("1", PricingQuantity=Decimal(0), PricingUnit="Units", ServiceName="c"),
        bill("1", ServiceName="d"),
    ]
    hold(tmp_path, MAY, rows)
    publish(tmp_path)
    assert ask(tmp_path, "SELECT ServiceName, x_UnitCost, x_UnpricedCost FROM unit_cost ORDER BY ALL") == [
        ("a", Decimal("0.333333333333"), Decimal(0)),
        ("b", Decimal("-0.333333333333"), Decimal(0)),
        ("c", None, Decimal(0)),
        ("d", None, Decimal(1)),
    ]


def test_surcharges_stand_inside_the_cost_and_operator_fees_are_rows_of_their_own(tmp_path: Path) -> None:
    rows = [
        bill("10", x_Surcharge=Decimal("0.4"), x_DestinationCountry="US"),
        bill("3", ServiceName="SMS_OPERATOR_FEE", x_DestinationCountry="US"),
        bill("9", ServiceName="voice", x_Surcharge=Decimal(0)),
        bill("8", ServiceName="email"),
    ]
    hold(tmp_path, MAY, rows)
    publish(tmp_path)
    assert ask(tmp_path, "SELECT ServiceName, BilledCost, x_Surcharge, x_OperatorFees FROM surcharges") == [
        ("SMS_OPERATOR_FEE", *numbers("3", "0", "3")),
        ("message", *numbers("10", "0.4", "0")),
    ]


def test_the_provisional_part_names_who_may_still_change_and_who_is_not_in_it(tmp_path: Path) -> None:
    hold(tmp_path, MAY, [bill("10"), bill("1", "EUR")])
    hold(tmp_path, JUNE, [bill("5")], "provisional")
    publish(tmp_path)
    columns = "x_BillingPeriod, BillingCurrency, x_Final, x_Provisional, x_ProvisionalAccounts, x_NeverFetched"
    assert ask(tmp_path, f"SELECT {columns} FROM provisional_part") == [
        ("2026-05", "EUR", *numbers("1", "0"), None, None),
        ("2026-05", "USD", *numbers("10", "0"), None, None),
        ("2026-06", "USD", *numbers("0", "5"), "plivo/main", None),
    ]
    Lake(tmp_path).path(JUNE).unlink()
    hold(tmp_path, Partition("plivo", "other", JUNE.period), [bill("5")], "provisional")
    publish(tmp_path)
    who = "SELECT x_ProvisionalAccounts, x_NeverFetched FROM provisional_part WHERE x_BillingPeriod = '2026-06'"
    assert ask(tmp_path, who) == [("plivo/other", "plivo/main")]


def test_complete_through_is_the_end_of_the_newest_unbroken_row_of_days(line: Line) -> None:
    found = {
        (row[0], row[1]): row[2:]
        for row in ask(
            line.data,
            "SELECT x_Provider, x_Account, x_CompleteThrough, x_CompleteSince, x_Missing, x_NewestFinal FROM complete_through",
        )
    }
    # June was fetched on the 10th, 06:00 UTC, last; nothing earlier than May. history_from is January.
    missing = (date(2026, 5, 1) - date(2026, 1, 1)).days
    assert found["plivo", "main"][:2] == (date(2026, 6, 9), date(2026, 5, 1))
    assert found["plivo", "main"][3] == "2026-05"
    assert found["plivo", "main"][2] >= missing
    assert found["talkdesk", "main"][:2] == (date(2026, 5, 31), date(2026, 5, 1))


ORDINARY = [100, 101, 99, 100, 102, 98, 100, 101, 99, 100, 100]


@pytest.fixture
def weeks(tmp_path: Path) -> Path:
    """Eleven weeks with the same cost on every weekday but one, and two days that are not like the others."""
    first, months = date(2026, 4, 1), {4: [], 5: [], 6: []}  # type: ignore[var-annotated]
    for number in range(80):
        day = first + timedelta(days=number)
        usual = ORDINARY[number // 7 % len(ORDINARY)] if day.weekday() < 5 else 10
        cost = {date(2026, 6, 10): 1000, date(2026, 6, 11): 140}.get(day, usual)
        if day == date(2026, 6, 12):
            continue  # a day without a charge, which is known
        months[day.month].append(bill(str(cost), x_UsageDate=day))
        if day == date(2026, 6, 10):
            months[6].append(bill("2", x_UsageDate=day))
    for month, rows in months.items():
        hold(tmp_path, Partition("plivo", "main", BillingPeriod(2026, month)), rows)
    publish_with_fetches(tmp_path)
    return tmp_path


def publish_with_fetches(folder: Path) -> None:
    """With a decision for each month, so that its days count as covered."""
    entries = []
    for held in Lake(folder).all():
        landing = Landings(folder).newest(held.partition)
        assert landing
        facts = fetch_facts(landing, rows=held.tally.rows, totals=charges.totals_json(held.tally.totals))
        entries.append(
            Entry(
                decided_at=NOW, partition=held.partition, decision=held.status, rule="made up", evidence={},
                landing=landing.id, fetch=facts,
            )
        )  # fmt: skip
    expectation = Expectation(at=NOW, history_from=APRIL.period, accounts=[("plivo", "main")])
    Warehouse(folder).publish(Lake(folder).all(), entries, ISSUERS, expectation=expectation)


def test_a_day_far_from_its_weekdays_median_is_an_anomaly_with_its_charges_behind_it(weeks: Path) -> None:
    columns = "x_UsageDate, EffectiveCost, x_Usual, x_Spread, x_DaysBehindIt, x_Deviation"
    assert ask(weeks, f"SELECT {columns} FROM anomalies") == [
        (date(2026, 6, 12), *numbers("0", "100", "1"), 10, Decimal(-100)),
        (date(2026, 6, 10), *numbers("1002", "100", "1"), 10, Decimal(902)),
    ]
    behind = ask(weeks, "SELECT x_UsageDate, EffectiveCost, x_RowSource FROM anomaly_charges")
    assert [row[:2] for row in behind] == [(date(2026, 6, 10), Decimal(1000)), (date(2026, 6, 10), Decimal(2))]
    assert all(row[2].startswith("plivo/main/2026-06/") for row in behind)


def test_weekends_small_moves_and_young_series_are_no_anomalies(weeks: Path) -> None:
    days = dict(_keyed(ask(weeks, "SELECT x_UsageDate, x_IsAnomaly FROM daily_cost")))
    assert not days[(date(2026, 6, 11),)]  # 40 MADs away, but by less than half
    assert not any(flagged for (day,), flagged in days.items() if day.weekday() >= 5)
    assert date(2026, 6, 20) not in {day for (day,) in days}  # today is not over


def test_a_series_that_always_swings_has_no_anomaly_where_a_steady_one_has(tmp_path: Path) -> None:
    months: dict[int, list[Row]] = {4: [], 5: [], 6: []}
    for number in range(11):
        day = date(2026, 4, 1) + timedelta(days=7 * number)
        for service, usual in (("swings", (20, 60, 100, 140)[number % 4]), ("steady", 100)):
            cost = 180 if day == date(2026, 6, 10) else usual
            months[day.month].append(bill(str(cost), x_UsageDate=day, ServiceName=service))
    for month, rows in months.items():
        hold(tmp_path, Partition("plivo", "main", BillingPeriod(2026, month)), rows)
    publish_with_fetches(tmp_path)
    assert ask(tmp_path, "SELECT x_UsageDate, ServiceName FROM anomalies") == [
        (date(2026, 6, 17), "steady"),  # nothing came any more
        (date(2026, 6, 10), "steady"),
    ]


def test_medians_stay_exact_decimals(tmp_path: Path) -> None:
    tiny = "0.000000000000000001"
    days = [date(2026, 4, 1) + timedelta(days=7 * n) for n in range(4)]
    hold(tmp_path, APRIL, [bill(f"12345678901234567890{tiny[1:]}", x_UsageDate=day) for day in days])
    publish_with_fetches(tmp_path)
    found = ask(tmp_path, "SELECT x_Usual, x_Spread FROM daily_cost WHERE x_UsageDate = '2026-04-22'")
    assert found == [(Decimal("12345678901234567890.000000000000000001"), Decimal(0))]
