"""A run that dies at any moment, a full disk, a folder that cannot be written: numbers are old or new, and the next run heals."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from billing_pipeline.definitions import build
from billing_pipeline.refresh import refresh
from billing_pipeline.verify import verify

from .conftest import Company
from .soak.rounds import soak


def test_kills_at_random_moments_are_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whats = {"refresh": 3, "refresh --watch": 2, "approve": 2, "replay": 1, "verify": 1}
    kills, _ = soak(8, 20261122, tmp_path, whats, print)
    assert sum(kills.values()) >= 8


def test_what_a_killed_watch_fetched_of_a_final_month_is_compared_by_the_next_run(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.world.seed = "another company"
    company.line.fetch(may, explicit=True)  # and here the run dies
    assert company.line.unloaded() == [may]
    outcomes = refresh(company.line, Console(quiet=True), providers=["plivo"], accounts=["main"])
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []
    assert [e.decision for e in company.line.ledger.of(may)] == ["final", "restated"]
    assert verify(company.line).findings == []
    assert company.line.unloaded() == []


def test_what_a_killed_run_fetched_on_the_last_day_on_which_it_was_served_is_not_lost(company: Company) -> None:
    april = company.month("infobip", "main", "2026-04")
    company.at("2026-06-30T23:30")
    company.line.fetch(april)
    stated = company.stated(april)
    company.at("2026-07-01T06:00")
    assert april not in company.line.open()
    refresh(company.line, Console(quiet=True), providers=["infobip"])
    assert company.shown(april) == stated


def test_the_schedule_too_lets_a_run_load_what_a_killed_one_fetched(company: Company) -> None:
    import dagster as dg

    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.fetch(may, explicit=True)
    definitions = build(company.line, rehearsal=True)
    schedule = definitions.resolve_schedule_def("daily_open_months")
    with dg.build_schedule_context(
        repository_def=definitions.get_repository_def(), scheduled_execution_time=company.world.now()
    ) as context:
        requests = schedule.evaluate_tick(context).run_requests
    (found,) = [r for r in requests or [] if r.tags["billing/reason"] == "fetched and never loaded"]
    assert found.partition_key == "2026-05"
    assert found.asset_selection == [dg.AssetKey(["plivo", "main", "charges"])]


def test_a_month_whose_landing_cannot_be_loaded_is_told_again_and_holds_up_nobody(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.publish()
    before = company.shown(may)
    company.line.fetch(may, explicit=True)
    newest = company.line.landings.newest(may)
    assert newest is not None
    (newest.folder / "pages.jsonl").write_bytes(b"")
    for _ in range(2):
        outcomes = refresh(company.line, Console(quiet=True), providers=["plivo"], accounts=["main"])
        assert [str(o.partition) for o in outcomes if o.failure] == ["plivo/main 2026-05"]
        assert company.shown(may) == before
