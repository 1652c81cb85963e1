"""Everything but data/raw can be deleted and comes back, byte for byte; and a newer version says what it would move."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from billing_pipeline.line import Line
from billing_pipeline.provider import Provider
from billing_pipeline.providers import providers
from billing_pipeline.reconcile import Tally
from billing_pipeline.replay import replay, show
from billing_pipeline.verify import verify

from .year import content, example, files, line, offline, partition

__all__ = ["example", "line"]

DERIVED = ("charges", "history", "warehouse.duckdb", "dagster", "limits", "locks", "mailbox")


def forget(line: Line) -> None:
    """Delete everything but data/raw."""
    for path in line.data.iterdir():
        if path.name != "raw":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def changed(factor: Decimal, only: str = "plivo") -> dict[str, Provider]:
    """The providers of a version that reads other amounts in the same bytes, and counts them otherwise too."""
    known = dict(providers())
    old = known[only]

    def parse(*arguments: Any) -> Iterator[Mapping[str, pa.Array]]:
        for columns in old.parse(*arguments):
            amounts = [amount * factor for amount in columns["BilledCost"].to_pylist()]
            yield {**columns, "BilledCost": pa.array(amounts, pa.decimal128(38, 18))}

    def statement(*arguments: Any) -> Any:
        said = old.statement(*arguments)
        totals = {currency: amount * factor for currency, amount in said.counted.totals.items()}
        return replace(said, counted=Tally(rows=said.counted.rows, totals=totals), stated_cost=None)

    return known | {only: replace(old, parse=parse, statement=statement)}


def described(factor: str, only: str = "plivo") -> dict[str, Provider]:
    """The providers of a version that writes other columns, and the same money."""
    known = dict(providers())
    old = known[only]

    def parse(*arguments: Any) -> Iterator[Mapping[str, pa.Array]]:
        for columns in old.parse(*arguments):
            yield {**columns, "ChargeDescription": pa.repeat(pa.scalar(factor), len(columns["BilledCost"]))}

    return known | {only: replace(old, parse=parse)}


def test_everything_but_the_landings_can_be_deleted_and_comes_back_byte_for_byte_and_row_for_row(line: Line) -> None:
    parquet, rows = files(line), content(line)
    raw = {path: path.read_bytes() for path in line.landings.root.rglob("*") if path.is_file()}
    forget(line)
    done = replay(line)
    assert done.good
    assert {month.action for month in done.months} == {"restored"}
    assert files(line) == parquet
    assert content(line) == rows
    assert {path: path.read_bytes() for path in line.landings.root.rglob("*") if path.is_file()} == raw
    assert verify(line).findings == []


def test_a_warehouse_that_was_kept_up_to_date_is_in_the_same_order_as_one_made_anew(line: Line) -> None:
    rows = content(line)  # months were loaded out of order: June before May, and single ones again later
    assert replay(line).good
    assert content(line) == rows


def test_a_replay_without_anything_lost_touches_no_file(line: Line) -> None:
    before = {path: path.stat().st_mtime_ns for path in line.data.rglob("*.parquet")}
    done = replay(line)
    assert {(month.file, month.made, month.action) for month in done.months} == {("intact", "same", "kept")}
    assert {path: path.stat().st_mtime_ns for path in line.data.rglob("*.parquet")} == before


def test_a_replay_of_one_month_restores_that_one(line: Line) -> None:
    may, june = (line.lake.path(partition(f"ycloud/main/{period}")) for period in ("2026-05", "2026-06"))
    content_of_may = may.read_bytes()
    may.write_bytes(content_of_may[:-1] + b"x")
    done = replay(line, periods=[partition("ycloud/main/2026-05").period])
    assert {str(month.partition.period) for month in done.months} == {"2026-05"}
    assert may.read_bytes() == content_of_may
    assert june.exists()
    assert verify(line).findings == []


def test_a_version_that_reads_other_money_says_which_months_would_move_and_moves_nothing(line: Line) -> None:
    before, rows = files(line), content(line)
    newer = offline(line.data, changed(Decimal(2)))
    done = replay(newer)
    moves = {str(month.partition): month.difference for month in done.months if month.made == "moves"}
    assert set(moves) == {
        f"plivo/{account} {period}" for account in ("main", "emea") for period in ("2026-05", "2026-06")
    }
    for month in done.months:
        assert month.made == "same" or month.difference == month.held.totals  # twice the money: the difference is once
    assert (done.good, done.published) == (False, None)
    assert (files(line), content(line)) == (before, rows)
    console = Console(record=True, width=200)
    show(done, console)
    told = console.export_text()
    assert "plivo/main 2026-06: this version reads other rows or money" in told
    assert "plivo/main 2026-05: it is closed" in told


def test_accepting_moves_open_months_with_a_line_in_the_ledger_and_closed_ones_never(line: Line) -> None:
    june, may = partition("plivo/main/2026-06"), partition("plivo/main/2026-05")
    held = {month: line.lake.path(month).read_bytes() for month in (june, may)}
    newer = offline(line.data, changed(Decimal(2)))
    done = replay(newer, accept=True)
    actions = {str(month.partition): month.action for month in done.months if month.partition.provider == "plivo"}
    assert actions == {
        "plivo/emea 2026-05": "kept", "plivo/emea 2026-06": "replaced",
        "plivo/main 2026-05": "kept", "plivo/main 2026-06": "replaced",
    }  # fmt: skip
    assert not done.good
    assert line.lake.path(may).read_bytes() == held[may]
    assert line.lake.path(june).read_bytes() != held[june]
    written, shown = line.ledger.written(june), line.ledger.shown(june)
    assert written is not None
    assert shown is not None
    assert (written.decision, written.landing) == ("replayed", shown.landing)
    assert written.change["totals"] == shown.fetch["totals"]
    assert verify(newer).findings == []


def test_a_closed_month_that_is_lost_is_not_restored_with_other_money(line: Line) -> None:
    may = partition("plivo/main/2026-05")
    line.lake.path(may).unlink()
    rows = content(line)
    done = replay(offline(line.data, changed(Decimal(2))), accept=True)
    (month,) = [month for month in done.months if month.partition == may]
    assert "Replay with the version that closed it" in month.why
    assert not line.lake.path(may).exists()
    assert (done.published, content(line)) == (None, rows)


def test_a_version_that_writes_other_bytes_and_the_same_money_restores_what_is_lost_and_leaves_what_is_there(
    line: Line,
) -> None:
    lost, there = partition("plivo/main/2026-05"), partition("plivo/emea/2026-05")
    held = line.lake.path(there).read_bytes()
    line.lake.path(lost).unlink()
    newer = offline(line.data, described("another version's words"))
    done = replay(newer)
    made = {month.partition: (month.made, month.action) for month in done.months}
    assert (made[lost], made[there]) == (("bytes", "replaced"), ("bytes", "kept"))
    assert line.lake.path(there).read_bytes() == held
    assert done.good
    assert verify(newer).findings == []
    assert replay(newer, accept=True).good
    assert line.lake.path(there).read_bytes() != held
    assert verify(newer).findings == []
    again = replay(newer)
    assert {month.made for month in again.months} == {"same"}


def test_a_damaged_landing_fails_its_month_alone_and_is_named(line: Line) -> None:
    may = partition("ycloud/main/2026-05")
    shown = line.ledger.shown(may)
    assert shown is not None
    bodies = line.landings.root / shown.landing / "bodies.zst"
    bodies.write_bytes(bodies.read_bytes()[:-9])
    line.lake.path(partition("infobip/main/2026-05")).unlink()
    done = replay(line)
    assert [month.partition for month in done.months if month.why] == [may]
    assert line.lake.path(partition("infobip/main/2026-05")).exists()
    assert not done.good


def test_a_run_that_died_before_its_line_in_the_ledger_is_made_good_before_anything_is_compared(line: Line) -> None:
    ledger = line.ledger.root / "infobip" / "main" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    seal = ledger.with_name("ledger.seal")
    before = files(line)
    ledger.write_bytes(b"".join(lines[:-1]))
    seal.unlink()
    assert replay(line).good
    assert files(line) == before
    assert len(line.ledger.lines("infobip", "main")) == len(lines)


@pytest.mark.parametrize("wanted", ["2026-07"])
def test_a_month_that_was_never_loaded_is_no_error(line: Line, wanted: str) -> None:
    done = replay(line, periods=[partition(f"plivo/main/{wanted}").period])
    assert (done.months, done.good) == ([], True)


def test_a_damaged_file_of_history_is_made_again_byte_for_byte_with_no_line_in_the_ledger(line: Line) -> None:
    path = line.data / "history/x_BillingPeriod=2026-05/plivo--main/20260609T060000.000000Z.parquet"
    parquet, told = files(line), list(line.ledger.all())
    path.write_bytes(b"nothing that can be read")
    assert replay(line).good
    assert files(line) == parquet
    assert list(line.ledger.all()) == told
    assert verify(line).findings == []


def test_a_version_that_writes_history_with_other_bytes_says_so_in_the_ledger(line: Line) -> None:
    may = partition("plivo/main/2026-05")
    first = line.ledger.of(may)[0]
    other = {**first.history, "sha256": "0" * 64}  # as an older version would have written it
    line.ledger.append(replace(first, decision="replayed", evidence={}, change={}, parquet="", history=other))
    assert [finding.where for finding in verify(line).findings if "history" in finding.where]
    assert replay(line).good
    last = line.ledger.of(may)[-1]
    assert (last.decision, last.history, last.evidence["history_before"]) == ("replayed", first.history, "0" * 64)
    assert verify(line).findings == []
    told = list(line.ledger.all())
    assert replay(line).good
    assert list(line.ledger.all()) == told
