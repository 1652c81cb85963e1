"""The ledger is a legal sequence of FOCUS billing periods: Open, then Closed, and never back. `.ci/judge` asks somebody else."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from .conftest import Company, histories

KEYS = {
    "instance_id", "dataset", "subject_id", "order", "created", "last_updated", "complete", "period_start", "period_end",
    "status", "previous_instance_id",
}  # fmt: skip
"""The fields of focus-data-toolkit's DatasetInstance."""


@pytest.mark.parametrize(
    ("provider", "account"), [("plivo", "main"), ("ycloud", "main"), ("talkdesk", "main"), ("infobip", "main")]
)
def test_a_month_is_open_until_it_is_closed_and_stays_closed_whatever_the_provider_states_later(
    company: Company, provider: str, account: str
) -> None:
    may = company.month(provider, account, "2026-05")
    for moment in ("2026-05-20T12:00", "2026-06-01T12:00", "2026-06-05T12:00"):
        company.at(moment)
        company.do(may)
    for seed in (company.world.seed, "another company"):
        company.at("2026-06-06T12:00")
        company.world.seed = seed
        company.do(may, explicit=True)
    found = company.history()
    assert [instance["status"] for instance in found] == ["Open", "Open", "Closed", "Closed", "Closed"]
    assert [instance["last_updated"][:10] for instance in found] == ["2026-05-20", "2026-06-01", *["2026-06-05"] * 3]
    assert {instance["subject_id"] for instance in found} == {f"{provider}/{account} 2026-05"}
    for before, after in pairwise(found):
        assert (after["previous_instance_id"], after["order"]) == (before["instance_id"], before["order"] + 1)
        assert after["created"] == before["created"] <= before["last_updated"] <= after["last_updated"]
    assert all(set(instance) == KEYS for instance in found)


def test_months_of_one_account_are_subjects_of_their_own(company: Company) -> None:
    for period in ("2026-04", "2026-05", "2026-06"):
        company.do(company.month("plivo", "emea", period))
    assert [(i["subject_id"][-7:], i["status"]) for i in company.history()] == [
        ("2026-04", "Closed"), ("2026-05", "Closed"), ("2026-06", "Open"),
    ]  # fmt: skip


def test_a_fetch_that_brings_nothing_new_delivers_the_month_as_it_was(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    for moment in ("2026-06-04T13:00", "2026-06-04T14:00"):
        company.at(moment)
        company.do(may)
    first, second = company.history()
    assert (first["status"], second["status"]) == ("Open", "Open")
    assert first["last_updated"] == second["last_updated"]


def test_the_period_is_the_month_on_the_providers_own_clock(company: Company) -> None:
    company.do(company.month("ycloud", "main", "2026-05"))
    (instance,) = company.history()
    assert (instance["period_start"], instance["period_end"]) == ("2026-04-30T16:00:00Z", "2026-05-31T16:00:00Z")


def test_the_rows_of_focus_billing_period_as_they_were_published_are_a_legal_sequence_too(company: Company) -> None:
    delivered = []
    for moment in ("2026-05-20T12:00", "2026-06-03T12:00", "2026-06-05T12:00", "2026-06-09T12:00"):
        company.at(moment)
        for account in ("main", "emea"):
            company.do(company.month("plivo", account, "2026-05"), explicit=True)
        company.line.publish()
        delivered += company.ask(
            "SELECT BillingPeriodStatus, BillingPeriodCreated::VARCHAR, BillingPeriodLastUpdated::VARCHAR, "
            "BillingPeriodStart::VARCHAR, BillingPeriodEnd::VARCHAR FROM focus.billing_period"
        )
    assert [row[0] for row in delivered] == ["Open", "Open", "Closed", "Closed"]
    company.histories["published"] = [
        {
            "instance_id": f"Plivo 2026-05 as published #{order}",
            "dataset": "Billing Period",
            "subject_id": "Plivo 2026-05",
            "order": order,
            "created": created,
            "last_updated": updated,
            "complete": status == "Closed",
            "period_start": start,
            "period_end": end,
            "status": status,
            "previous_instance_id": f"Plivo 2026-05 as published #{order - 1}" if order > 1 else None,
        }
        for order, (status, created, updated, start, end) in enumerate(delivered, 1)
    ]


def test_histories_are_written_where_the_judge_looks(company: Company, tmp_path: Path) -> None:
    company.do(company.month("plivo", "emea", "2026-05"))
    histories(company, tmp_path / "histories", "a test of a month[1/2]")
    (file,) = (tmp_path / "histories").glob("*.json")
    assert json.loads(file.read_text()) == company.history()
