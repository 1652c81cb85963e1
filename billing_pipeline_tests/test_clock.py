"""A clock that is put back: what came last is what is shown, all the same, and nobody waits for the clock to catch up."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from billing_pipeline.ledger import SHOWN
from billing_pipeline.transport import Http
from billing_pipeline.verify import verify

from .conftest import Company
from .test_line import ACCOUNTS


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS, ids=["-".join(account) for account in ACCOUNTS])
def test_what_came_last_is_shown_also_when_the_clock_was_put_back_in_between(
    company: Company, provider: str, account: str
) -> None:
    june = company.month(provider, account, "2026-06")
    seen = []
    for moment, seed in (("2026-06-15T12:00", "acme"), ("2026-06-14T12:00", "other"), ("2026-06-14T11:00", "third")):
        company.at(moment)
        company.world.seed = seed
        loaded = company.do(june)
        company.line.publish()
        seen.append(company.shown(june))
        assert loaded.action == "written"
        assert seen[-1] == company.stated(june)
        # Provenance: the clock's own words in every place that tells when.
        (fetched_at,) = company.ask("SELECT DISTINCT strftime(x_FetchedAt, '%Y-%m-%dT%H:%M') FROM charges")
        assert fetched_at == (moment,)
    assert len({str(each) for each in seen}) == 3
    totals = company.ask("SELECT sum(BilledCost) FROM totals_as_of(TIMESTAMPTZ '2026-06-15 12:00:01+00')")
    assert totals == [(sum(seen[-1][1].values()),)]
    assert [entry.decision in SHOWN for entry in company.line.ledger.of(june)] == [True] * 3
    # FOCUS lets no delivery be older than the one before it, nor than the month's first.
    assert len({instance["last_updated"] for instance in company.history()}) == 1
    assert company.ask("SELECT BillingPeriodLastUpdated >= BillingPeriodCreated FROM focus.billing_period") == [(True,)]
    (updated,) = company.ask("SELECT strftime(BillingPeriodLastUpdated, '%Y-%m-%dT%H:%M') FROM focus.billing_period")
    assert updated == ("2026-06-15T12:00",)
    assert verify(company.line).findings == []


def test_talkdesks_one_walk_is_shared_with_months_whose_last_landing_is_of_a_later_clock(company: Company) -> None:
    months = [company.month("talkdesk", "main", period) for period in ("2026-05", "2026-06")]
    for moment, seed in (("2026-06-03T12:00", "acme"), ("2026-06-02T12:00", "other")):
        company.at(moment)
        company.world.seed = seed
        for month in months:
            company.do(month)
        company.line.publish()
        for month in months:
            assert company.shown(month) == company.stated(month)


def test_a_final_month_stays_final_when_the_clock_is_put_back_before_its_end(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    assert company.do(may).held.final
    company.line.publish()
    before = company.shown(may)
    company.at("2026-05-20T12:00")
    company.line.publish()
    assert company.do(may, explicit=True).action == "restated"  # half a month, says the provider of that day
    company.line.publish()
    assert company.shown(may) == before
    assert verify(company.line).findings == []


def test_requests_that_were_counted_before_the_clock_was_put_back_do_not_stop_the_next_ones(
    tmp_path: Path, httpserver: HTTPServer
) -> None:
    bucket = tmp_path / "limits" / "plivo--main.sqlite"
    httpserver.expect_request("/bill").respond_with_json({"total": 1})

    def ask(times: int) -> None:
        with Http(httpserver.url_for(""), limits=[(3, 0.2)], now=lambda: None, bucket=bucket) as http:
            for _ in range(times):
                http.get("/bill")

    ask(3)
    with sqlite3.connect(bucket) as db:
        a_year = 365 * 24 * 3600 * 1000
        assert db.execute("UPDATE rate_bucket SET item_timestamp = item_timestamp + ?", [a_year]).rowcount == 3
    db.close()
    ask(4)  # without the correction this waits for a year
    assert len(httpserver.log) == 7
