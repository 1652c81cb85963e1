"""What a run that died, or a person with a mouse, left behind is mended or told; a month that was closed stays as it was."""

from __future__ import annotations

import json
import shutil

import pytest
from filelock import FileLock

from billing_pipeline.landing import DamagedLanding
from billing_pipeline.line import NothingLanded
from billing_pipeline.reconcile import DoesNotReconcile
from billing_pipeline.verify import verify

from .conftest import Company


def test_a_month_that_was_closed_by_a_run_that_died_before_it_wrote_so_is_in_the_ledger_after_the_next_publication(
    company: Company,
) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    (company.line.ledger.root / "plivo" / "emea" / "ledger.jsonl").unlink()
    company.line.publish()  # the schedule never asks for a final month, so nothing else would ever notice
    assert [entry.decision for entry in company.line.ledger.of(may)] == ["final"]
    assert company.ask("SELECT x_Decision FROM finality_ledger") == [("final",)]
    assert company.ask("SELECT x_Finality FROM billing_periods WHERE x_FinalizedAt IS NOT NULL") == [("final",)]


def test_half_a_line_at_the_end_of_the_ledger_is_no_line(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    ledger = company.line.ledger.root / "plivo" / "emea" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-20])
    company.line.publish()
    assert [entry.decision for entry in company.line.ledger.of(may)] == ["final"]
    assert all(json.loads(line) for line in ledger.read_bytes().splitlines())


def test_a_publication_does_not_wait_for_somebody_who_is_still_fetching(company: Company) -> None:
    may = company.month("plivo", "emea", "2026-05")
    company.do(may)
    (company.line.ledger.root / "plivo" / "emea" / "ledger.jsonl").unlink()
    with FileLock(company.line.data / "locks" / "plivo--emea.lock"):
        company.line.publish()
    assert company.shown(may) == company.stated(may)


def test_a_closed_month_whose_file_is_lost_is_made_again_only_with_the_numbers_it_was_closed_with(
    company: Company,
) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    ledger = company.line.ledger.root / "plivo" / "main" / "ledger.jsonl"
    entry = json.loads(ledger.read_bytes())
    entry["fetch"]["rows"] += 1  # as if an older version of this program had read one row more out of the same bytes
    ledger.write_text(json.dumps(entry) + "\n")
    company.line.lake.path(may).unlink()
    with pytest.raises(DoesNotReconcile, match="rows of plivo/main 2026-05 from the ledger to Arrow"):
        company.line.publish()
    assert company.line.lake.held(may) is None


def test_a_month_that_is_made_again_keeps_the_decision_that_was_made_about_it(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    ledger = company.line.ledger.root / "plivo" / "main" / "ledger.jsonl"
    entry = json.loads(ledger.read_bytes()) | {"x_Rule": "the rule of an older version"}
    ledger.write_text(json.dumps(entry) + "\n")
    company.line.lake.path(may).unlink()
    company.line.publish()
    held = company.line.lake.held(may)
    assert held is not None
    assert (held.status, held.footer["rule"]) == ("final", "the rule of an older version")


def test_a_landing_that_was_exchanged_is_not_taken_for_the_one_in_the_ledger(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    landing = company.line.landings.newest(may)
    assert landing is not None
    manifest = landing.folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace("test", "other"))
    company.line.lake.path(may).unlink()
    with pytest.raises(DamagedLanding, match="is not the one in the ledger"):
        company.line.publish()


def test_a_month_whose_file_and_landing_are_both_gone_is_told_by_name(company: Company) -> None:
    import shutil

    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    landing = company.line.landings.newest(may)
    assert landing is not None
    shutil.rmtree(landing.folder)
    company.line.publish()  # the file is there: nothing is missing yet
    company.line.lake.path(may).unlink()
    with pytest.raises(NothingLanded, match=r"plivo/main 2026-05: its Parquet file is gone, and so is the landing"):
        company.line.publish()
    assert company.shown(may) == company.stated(may)  # what was published stays


def test_what_a_run_wrote_into_history_before_it_died_goes_when_a_later_fetch_was_decided_about(
    company: Company,
) -> None:
    june = company.month("plivo", "emea", "2026-06")
    company.at("2026-06-15T06:00:00")
    company.do(june)
    folder = company.line.data / "history/x_BillingPeriod=2026-06/plivo--emea"
    left = folder / "20260616T060000.000000Z.parquet"
    shutil.copy(next(folder.iterdir()), left)
    company.line.publish()
    assert verify(company.line).findings == []  # a run may be about to decide about it
    company.at("2026-06-17T06:00:00")
    company.do(june)
    company.at("2026-06-18T06:00:00")
    company.do(june)
    assert not left.exists()
    company.line.publish()
    assert verify(company.line).findings == []


def test_a_damaged_file_of_history_is_made_again_before_the_month_is_replaced(company: Company) -> None:
    june = company.month("plivo", "emea", "2026-06")
    company.at("2026-06-15T06:00:00")
    company.do(june)
    (path,) = (company.line.data / "history").rglob("*.parquet")
    whole = path.read_bytes()
    path.write_bytes(b"nothing that can be read")
    company.at("2026-06-16T06:00:00")
    company.do(june)
    assert path.read_bytes() == whole
    company.line.publish()
    assert verify(company.line).findings == []
