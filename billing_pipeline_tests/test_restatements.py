"""A final month that the provider states anew: held, listed, approved or dismissed; nothing closed is ever touched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_pipeline import restatements
from billing_pipeline.corrections import NothingToDecide
from billing_pipeline.landing import Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.reconcile import add
from billing_pipeline.verify import verify

from .conftest import Company
from .toy import Charge, Toy

ACCOUNTS = [("infobip", "main"), ("plivo", "main"), ("talkdesk", "main"), ("ycloud", "main")]
KEYED = "SELECT coalesce(x_CorrectionOf, x_RowSource) AS root, sum(BilledCost) AS cost FROM charges {} GROUP BY ALL"


def restate(company: Company, month: Partition, seed: str) -> str:
    """Every number is another one from now on; what asking for the month again comes to."""
    company.world.seed = seed
    return company.do(month, explicit=True).action


def as_stated_now(company: Company, month: Partition) -> None:
    """Closed rows and corrections together are what the provider states, and each charge for itself too."""
    company.line.publish()
    assert company.incurred(month) == company.stated(month)[1]
    landing = company.line.ledger.approvals(month)[-1].landing
    stated = company.line.loading.believed(company.line.ledger.approvals(month)[-1], company.line.data / "again")
    held = company.ask(
        "SELECT cost FROM (" + KEYED.format("WHERE split_part(x_RowSource, '/', 3) = ? AND x_Provider = ?") + ") "
        "WHERE cost <> 0 ORDER BY ALL",
        str(month.period),
        month.provider,
    )
    now = company.ask("SELECT BilledCost FROM read_parquet(?) WHERE BilledCost <> 0 ORDER BY ALL", str(stated))
    assert held == now, landing


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS, ids=[provider for provider, _ in ACCOUNTS])
def test_an_approved_restatement_gives_what_the_provider_states_now_and_leaves_the_closed_rows_alone(
    company: Company, provider: str, account: str
) -> None:
    may = company.month(provider, account, "2026-05")
    company.do(may)
    closed = company.line.lake.path(may).read_bytes()
    for number, seed in enumerate(("second", "third"), 1):
        assert restate(company, may, seed) == "restated"
        company.line.publish()
        assert company.ask("SELECT x_Restated FROM billing_periods WHERE x_BillingPeriod = '2026-05'") == [(True,)]
        company.line.approve(may, "tester", "the provider confirmed it")
        as_stated_now(company, may)
        assert company.ask("SELECT x_Restated FROM billing_periods WHERE x_BillingPeriod = '2026-05'") == [(False,)]
        assert company.do(may, explicit=True).action == "unchanged"
        assert len(company.line.ledger.approvals(may)) == number
    assert company.line.lake.path(may).read_bytes() == closed
    assert company.ask("SELECT count(*) - count(DISTINCT x_RowSource) FROM charges") == [(0,)]
    assert restate(company, may, "") == "restated"  # also what it stated when it was closed is another number now


def test_a_correction_says_what_it_corrects_where_it_is_booked_and_when_it_was_incurred(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    restate(company, may, "second")
    company.line.approve(may, "tester")
    company.line.publish()
    assert company.ask(
        "SELECT x_BillingPeriod, ChargeClass, x_Finality, epoch(BillingPeriodStart - TIMESTAMPTZ '2026-06-01 00:00:00+00'), "
        "min(ChargePeriodStart) >= TIMESTAMPTZ '2026-05-01 00:00:00+00' "
        "AND max(ChargePeriodEnd) <= TIMESTAMPTZ '2026-06-01 00:00:00+00' "
        "FROM charges WHERE x_BillingPeriod <> '2026-05' GROUP BY ALL"
    ) == [("2026-06", "Correction", "provisional", 0, True)]
    orphans = (
        "SELECT count(*) FROM charges c ANTI JOIN charges o ON o.x_RowSource = c.x_CorrectionOf AND o.ChargeClass IS NULL "
        "WHERE c.x_CorrectionOf IS NOT NULL"
    )
    assert company.ask(orphans) == [(0,)]
    assert company.ask(
        "SELECT count(*) > 0 FROM charges WHERE x_CorrectionOf IS NOT NULL AND x_RowSource[1] = '-'"
    ) == [(True,)]
    decided = company.line.ledger.of(may)[-1]
    assert decided.evidence["by"] == "tester"
    assert decided.evidence["booked_in"] == "2026-06"
    booked = company.ask(
        "SELECT BillingCurrency, sum(BilledCost) FROM charges WHERE ChargeClass = 'Correction' GROUP BY 1"
    )
    assert dict(booked) == {c: Decimal(amount) for c, amount in decided.evidence["difference"].items()}


def test_fetching_and_closing_the_month_they_are_booked_in_keeps_the_corrections_and_closes_them_too(
    company: Company,
) -> None:
    may, june = (company.month("ycloud", "main", f"2026-0{n}") for n in (5, 6))
    company.do(may)
    company.do(june)
    restate(company, may, "second")
    company.line.approve(may, "tester")
    for moment, finality in (("2026-06-20T06:00", "provisional"), ("2026-07-05T06:00", "final")):
        company.at(moment)
        company.do(june)
        company.line.publish()
        of_may = company.stated(may)[1]
        assert company.incurred(may) == of_may
        rows, totals = company.stated(june)
        assert company.incurred(june) == totals
        assert company.ask("SELECT DISTINCT x_Finality FROM charges WHERE x_BillingPeriod = '2026-06'") == [(finality,)]
        assert company.shown(june)[0] > rows
        found = company.ask(
            "SELECT x_Rows, x_Corrections->>'USD' FROM billing_periods WHERE x_BillingPeriod = '2026-06'"
        )
        assert found[0][0] == rows
        corrected = company.ask("SELECT sum(BilledCost) FROM charges WHERE ChargeClass = 'Correction'")
        assert Decimal(found[0][1]) == corrected[0][0]


def test_verify_finds_nothing_when_the_month_they_are_booked_in_was_fetched_again(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.do(company.month("plivo", "main", "2026-06"))
    restate(company, may, "another company")
    company.line.approve(may, "ada")
    for moment in ("2026-06-16T06:00", "2026-06-17T06:00"):
        company.at(moment)
        company.do(company.month("plivo", "main", "2026-06"))
        company.line.publish()
        assert verify(company.line).findings == []


def test_a_month_booked_late_is_booked_in_the_month_that_is_open_then(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    for period in ("2026-05", "2026-06"):
        company.at("2026-07-10T06:00")
        company.do(company.month("plivo", "emea", period))
    for seed, moment, booked in (("b", "2026-07-11T06:00", "2026-07"), ("c", "2026-08-03T06:00", "2026-07")):
        company.at(moment)
        restate(company, may, seed)
        assert company.line.approve(may, "tester").evidence["booked_in"] == booked
        as_stated_now(company, may)
    company.do(company.month("plivo", "emea", "2026-07"))
    company.at("2026-08-06T06:00")
    company.do(company.month("plivo", "emea", "2026-07"))
    restate(company, may, "d")
    assert company.line.approve(may, "tester").evidence["booked_in"] == "2026-08"
    as_stated_now(company, may)


def test_approving_twice_books_nothing_the_second_time(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    with pytest.raises(NothingToDecide):
        company.line.approve(may, "tester")
    restate(company, may, "second")
    company.line.approve(may, "tester")
    company.line.publish()
    before = company.ask("FROM charges ORDER BY x_RowSource")
    with pytest.raises(NothingToDecide, match="decided already"):
        company.line.approve(may, "tester")
    company.line.publish()
    assert company.ask("FROM charges ORDER BY x_RowSource") == before


def test_what_was_dismissed_is_no_news_when_it_is_stated_again_and_anything_else_is(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    company.line.publish()
    before = company.shown(may)
    restate(company, may, "second")
    with pytest.raises(ValueError, match="say why"):
        company.line.dismiss(may, "tester", " ")
    company.line.dismiss(may, "tester", "a display error, says the provider")
    company.line.publish()
    assert company.shown(may) == before
    assert company.ask("SELECT x_Restated FROM billing_periods") == [(False,)]
    assert company.do(may, explicit=True).action == "unchanged"
    assert "dismissed_landing" in company.line.ledger.of(may)[-1].evidence
    assert restate(company, may, "third") == "restated"
    with pytest.raises(NothingToDecide):
        company.line.dismiss(company.month("plivo", "main", "2026-05"), "tester", "not fetched")
    assert [each.outcome for each in company.line.restatements()] == ["dismissed", "undecided"]
    company.line.approve(may, "tester")
    assert (
        restate(company, may, "second") == "restated"
    )  # it was dismissed in favour of numbers that were corrected since


def test_a_restatement_that_is_withdrawn_before_a_decision_is_closed_as_unchanged(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    seed = company.world.seed
    restate(company, may, "second")
    assert restate(company, may, seed) == "unchanged"
    with pytest.raises(NothingToDecide):
        company.line.approve(may, "tester")
    (row,) = restatements.rows(company.line.restatements())
    assert row["x_Outcome"] == "withdrawn"
    assert add({}, {c: Decimal(a) for c, a in row["x_HeldTotals"].items()}) == company.stated(may)[1]


def test_a_lost_file_of_corrections_and_a_lost_line_of_the_ledger_are_made_good_by_publishing(company: Company) -> None:
    may = company.month("talkdesk", "main", "2026-05")
    company.do(may)
    ledger = company.line.landings.root / "talkdesk" / "main" / "ledger.jsonl"
    for seed in ("second", "third"):
        restate(company, may, seed)
        undecided = ledger.read_bytes()
        company.line.approve(may, "tester")
        as_stated_now(company, may)
    file = company.line.lake.corrections_path(company.month("talkdesk", "main", "2026-06"))
    before = company.ask("SELECT * FROM charges ORDER BY x_RowSource")
    content = file.read_bytes()
    file.unlink()
    company.line.lake.path(may).unlink()
    company.line.publish()
    assert company.ask("SELECT * FROM charges ORDER BY x_RowSource") == before
    assert file.read_bytes() == content
    ledger.write_bytes(undecided)  # the file is there, its line is not: nobody approved it
    company.line.publish()
    booked = [entry.evidence["difference"]["USD"] for entry in company.line.ledger.approvals(may)]
    corrected = "SELECT sum(BilledCost) FROM charges WHERE ChargeClass = 'Correction' AND BillingCurrency = 'USD'"
    assert company.ask(corrected) == [(Decimal(booked[0]),)]
    company.line.approve(may, "tester")
    company.line.publish()
    assert company.ask("SELECT * FROM charges ORDER BY x_RowSource") == before


def test_the_weekly_watch_asks_for_every_final_month_that_is_still_served(company: Company) -> None:
    for period in ("2026-04", "2026-05", "2026-06"):
        company.do(company.month("plivo", "main", period))
    company.do(company.month("infobip", "main", "2026-05"))
    watched = [str(month) for month in company.line.watched()]
    assert watched == ["infobip/main 2026-05", "plivo/main 2026-04", "plivo/main 2026-05"]
    company.at("2027-05-15T12:00")
    assert [str(month) for month in company.line.watched()] == ["plivo/main 2026-05"]


ROW = st.builds(
    Charge,
    st.integers(1, 3),
    st.sampled_from("ab"),
    st.integers(0, 2),
    st.decimals(-2, 2, places=18, allow_nan=False, allow_infinity=False)
    | st.sampled_from([Decimal(0), Decimal("0.1")]),
)
STEP = st.tuples(st.lists(ROW, max_size=5), st.sampled_from(["approve", "dismiss", "wait"]), st.integers(0, 20))


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(ROW, max_size=5), steps=st.lists(STEP, min_size=1, max_size=3))
def test_after_any_history_of_statements_and_decisions_the_rows_held_add_up_to_what_was_accepted_last(
    tmp_path_factory: pytest.TempPathFactory, first: list[Charge], steps: list[tuple[list[Charge], str, int]]
) -> None:
    toy = Toy(datetime(2026, 6, 10, tzinfo=UTC))
    may = Partition("toy", "main", BillingPeriod(2026, 5))
    line = toy.line(tmp_path_factory.mktemp("toy"))
    toy.bills[may.period] = accepted = first
    line.fetch(may)
    line.load(may)
    closed = line.lake.path(may).read_bytes()
    for stated, decision, days in steps:
        toy.now += timedelta(days=days, hours=1)
        toy.bills[may.period] = stated
        line.fetch(may, explicit=True)
        action = line.load(may).action
        if action == "unchanged":
            continue
        for month in line.open():  # the month that was booked in may be closed by now, or is fetched again
            line.fetch(month)
            line.load(month)
        if decision == "approve":
            line.approve(may, "tester")
            accepted = stated
        elif decision == "dismiss":
            line.dismiss(may, "tester", "because")
        line.publish()
        with duckdb.connect(str(line.warehouse.path), read_only=True) as db:
            held = db.execute(
                "SELECT day(x_UsageDate), ServiceName, sum(PricingQuantity), sum(BilledCost) FROM charges "
                "WHERE ChargePeriodStart < TIMESTAMPTZ '2026-06-01 00:00:00+00' GROUP BY ALL"
            ).fetchall()
            assert {row[:2]: row[2:] for row in held if any(row[2:])} == measured(accepted)
            assert db.execute("SELECT count(*) - count(DISTINCT x_RowSource) FROM charges").fetchall() == [(0,)]
            wrong = (
                "SELECT count(*) FROM charges JOIN billing_periods USING (x_Provider, x_Account, x_BillingPeriod) "
                "WHERE charges.x_Finality <> billing_periods.x_Finality"
            )
            assert db.execute(wrong).fetchall() == [(0,)]
    assert line.lake.path(may).read_bytes() == closed


def measured(bill: list[Charge]) -> dict[tuple[int, str], tuple[Decimal, Decimal]]:
    """Quantity and money by what identifies a charge of the toy; what measures nothing is left out."""
    found: dict[tuple[int, str], tuple[Decimal, Decimal]] = {}
    for charge in bill:
        quantity, amount = found.get((charge.day, charge.service), (Decimal(0), Decimal(0)))
        found[charge.day, charge.service] = quantity + charge.quantity, amount + charge.amount
    return {key: sums for key, sums in found.items() if any(sums)}


@pytest.mark.parametrize("decision", ["undecided", "dismissed", "approved"])
def test_the_same_statement_week_after_week_costs_no_more_than_a_line(company: Company, decision: str) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    restate(company, may, "second")
    if decision == "dismissed":
        company.line.dismiss(may, "tester", "a display error")
    elif decision == "approved":
        company.line.approve(may, "tester")
    for _ in range(4):
        company.do(may, explicit=True)
    held = company.line.landings.all(may)
    assert len(held) == 3  # the one it was closed with, the restatement, and the freshest evidence
    company.line.publish()
    assert verify(company.line).findings == []
    assert [each.outcome for each in company.line.restatements()] == [decision]
    if decision == "undecided":
        company.line.approve(may, "tester")
        as_stated_now(company, may)
        company.do(may, explicit=True)
        assert company.line.ledger.of(may)[-1].decision == "unchanged"
