"""From the sandbox through real sockets to the view, to the last digit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from billing_pipeline.answers import Unavailable
from billing_pipeline.finality import FINAL, PROVISIONAL
from billing_pipeline.landing import Partition
from billing_pipeline.line import OutOfReach
from billing_pipeline.period import BillingPeriod

from .conftest import Company
from .toy import Charge, Toy

ACCOUNTS = [("infobip", "main"), ("plivo", "main"), ("plivo", "emea"), ("talkdesk", "main"), ("ycloud", "main")]
MOMENTS = ["2026-05-17T09:30", "2026-06-03T12:00", "2026-06-04T23:50", "2026-06-05T00:10", "2026-06-20T06:00"]


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS, ids=["-".join(account) for account in ACCOUNTS])
def test_the_view_shows_what_the_provider_bills_to_the_last_digit_at_every_position_of_the_clock(
    company: Company, provider: str, account: str
) -> None:
    may = company.month(provider, account, "2026-05")
    for moment in MOMENTS:
        company.at(moment)
        loaded = company.do(may)
        company.line.publish()
        rows, totals = company.stated(may)
        assert company.shown(may) == (rows, totals), moment
        assert rows
        settled = may.period.end(company.line.providers[provider].calendar.timezone)
        settled += company.line.providers[provider].calendar.settles_after
        assert loaded.held.status == (FINAL if company.world.now() >= settled else PROVISIONAL), moment


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS, ids=["-".join(account) for account in ACCOUNTS])
def test_the_sandbox_changes_a_month_after_its_end_so_that_provisional_numbers_are_not_the_final_ones(
    company: Company, provider: str, account: str
) -> None:
    may = company.month(provider, account, "2026-05")
    seen = []
    for moment in ("2026-05-31T15:00", "2026-06-20T06:00"):
        company.at(moment)
        company.do(may)
        company.line.publish()
        seen.append(company.shown(may))
    assert seen[0] != seen[1]


def test_a_final_month_is_not_asked_for_again_and_says_so(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    asked = len(company.world.requests("plivo"))
    fetched = company.line.fetch(may)
    loaded = company.line.load(may)
    assert (fetched.action, loaded.action) == ("kept", "kept")
    assert len(company.world.requests("plivo")) == asked
    assert may not in company.line.open()


def test_a_final_month_that_is_named_is_asked_for_and_compared_but_never_overwritten(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.publish()
    before = company.shown(may)
    assert company.do(may, explicit=True).action == "unchanged"
    company.world.seed = "another company"  # so every number differs
    loaded = company.do(may, explicit=True)
    company.line.publish()
    assert loaded.action == "restated"
    assert company.shown(may) == before
    assert company.ask("SELECT x_Restated FROM billing_periods WHERE x_BillingPeriod = '2026-05'") == [(True,)]
    decisions = company.ask("SELECT x_Decision FROM finality_ledger ORDER BY x_DecidedAt, x_Landing")
    assert decisions == [("final",), ("restated",)]
    assert company.ask("SELECT count(*) FROM fetches") == [(3,)]


def test_an_outage_leaves_yesterdays_numbers_alone(company: Company) -> None:
    june = company.month("ycloud", "main", "2026-06")
    company.do(june)
    company.line.publish()
    before = company.shown(june)
    company.at("2026-06-16T12:00")
    company.world.fail("ycloud", [503] * 50)
    with pytest.raises(Unavailable):
        company.do(june)
    company.line.publish()
    assert company.shown(june) == before
    assert company.ask("SELECT count(*) FROM fetches") == [(1,)]


def test_a_month_that_infobip_no_longer_serves_is_refused_before_a_request_and_listed_as_lost(company: Company) -> None:
    march = company.month("infobip", "main", "2026-03")
    with pytest.raises(OutOfReach, match="since 2026-06-01"):
        company.line.fetch(march)
    assert company.world.requests("infobip") == []
    assert march in company.line.lost()
    assert march not in company.line.open()


def test_one_walk_of_talkdesk_answers_for_every_month(company: Company) -> None:
    for period in ("2026-04", "2026-05", "2026-06"):
        company.do(company.month("talkdesk", "main", period))
    company.line.publish()
    pages = [r for r in company.world.requests("talkdesk") if "usage" in str(r)]
    assert len(pages) == 2 * company.ask("SELECT max(x_Requests) FROM fetches")[0][0]  # walked twice, kept once
    for period in ("2026-04", "2026-05", "2026-06"):
        month = company.month("talkdesk", "main", period)
        assert company.shown(month) == company.stated(month)


def test_every_charge_can_be_traced_to_its_bytes(company: Company) -> None:
    import json

    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.publish()
    sources = company.ask("SELECT x_RowSource, BilledCost FROM charges")
    landing = company.line.landings.get(sources[0][0].split("#")[0].rpartition("/")[0])
    bodies = {page.number: json.loads(page.read(), parse_float=Decimal) for page in landing}
    for source, cost in sources:
        place, _, pointer = source.partition("#/")
        row = bodies[int(place.rpartition("/")[2])]
        for step in pointer.split("/"):
            row = row[int(step)] if isinstance(row, list) else row[step]
        assert Decimal(row["total_amount"]) == cost


def test_a_lost_parquet_file_is_made_again_from_its_landing(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.publish()
    before, file = company.shown(may), company.line.lake.path(may)
    content = file.read_bytes()
    file.unlink()
    company.line.publish()
    assert company.shown(may) == before
    assert file.read_bytes() == content


def test_the_warehouse_can_be_deleted_at_any_time(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.publish()
    before = company.ask("SELECT * EXCLUDE (x_FetchedAt) FROM charges ORDER BY x_RowSource")
    company.line.warehouse.path.unlink()
    company.line.publish()
    assert company.ask("SELECT * EXCLUDE (x_FetchedAt) FROM charges ORDER BY x_RowSource") == before


def test_doing_it_twice_changes_nothing(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    company.line.publish()
    before = (company.shown(may), company.ask("SELECT count(*) FROM finality_ledger"))
    company.line.load(may)
    company.line.publish()
    assert (company.shown(may), company.ask("SELECT count(*) FROM finality_ledger")) == before


def test_a_run_that_died_after_the_file_and_before_the_ledger_is_made_good_by_the_next(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    ledger = company.line.landings.root / "plivo" / "emea" / "ledger.jsonl"
    ledger.unlink()
    assert company.line.load(may).action == "kept"
    assert [entry.decision for entry in company.line.ledger.of(may)] == ["final"]


def test_what_a_killed_run_left_behind_is_swept_away(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    raw = company.line.landings.root / may.path
    (raw / ".123.tmp").mkdir()
    (raw / ".123.tmp" / "bodies.zst").write_bytes(b"half")
    stale = company.line.lake.path(may).with_name(".plivo--emea.parquet.123.tmp")
    stale.write_bytes(b"half")
    shutil.copy(company.line.lake.path(may), company.line.data / ".warehouse.duckdb.99.tmp")
    company.do(may, explicit=True)
    company.line.publish()
    assert not list(company.line.data.rglob("*.tmp*"))


def test_prepaid_money_is_billed_but_is_no_consumption(company: Company) -> None:
    may = company.month("talkdesk", "main", "2026-05")
    company.do(may)
    company.line.publish()
    paid_in = company.ask("SELECT DISTINCT x_Type FROM charges WHERE x_IsPrepayment ORDER BY ALL")
    assert paid_in == [("CREDIT_COMMIT",), ("RECHARGE",)]
    assert company.ask("SELECT count(*) FROM consumption WHERE x_Type IN ('CREDIT_COMMIT', 'RECHARGE')") == [(0,)]
    assert company.ask("SELECT sum(EffectiveCost) FROM charges WHERE x_IsPrepayment") == [(0,)]


def test_rows_carry_what_was_decided_also_when_it_was_not_to_be_expected(tmp_path: Path) -> None:
    """Rows are made beside the statement, with the finality that it will probably have; here it has another one."""
    may = BillingPeriod(2026, 5)
    toy = Toy(now=datetime(2026, 6, 20, 6, tzinfo=UTC), bills={may: [Charge(1, "a", 1, Decimal("1.5"))]})
    line, month = toy.line(tmp_path), Partition("toy", "main", may)
    provider = line.providers["toy"]
    doubting = replace(provider, statement=lambda *told: replace(provider.statement(*told), doubt="somebody doubts it"))
    line.providers = line.loading.providers = {"toy": doubting}
    line.fetch(month)
    assert line.load(month).held.status == "provisional"
    line.publish()
    with duckdb.connect(str(line.warehouse.path), read_only=True) as db:
        found = db.execute("SELECT x_Finality, count(*), sum(BilledCost) FROM charges GROUP BY ALL").fetchall()
    assert found == [("provisional", 1, Decimal("1.5"))]
