"""A changed byte anywhere is found and named; and nothing is found where nothing was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from billing_pipeline.ledger import link
from billing_pipeline.line import Line
from billing_pipeline.verify import Finding, Head, show, verify

from .year import example, line, offline, partition

__all__ = ["example", "line"]


def flip(path: Path, place: float = 0.5) -> None:
    """Turn one bit, at a place between the first byte (0) and the last (1)."""
    content = bytearray(path.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 1
    path.write_bytes(content)


def shown(line: Line, month: str) -> Path:
    """The folder of the landing that a month shows."""
    entry = line.ledger.shown(partition(month))
    assert entry is not None
    return line.landings.root / entry.landing


def ledger(line: Line, account: str = "plivo/main") -> Path:
    """An account's ledger."""
    return line.ledger.root / account / "ledger.jsonl"


def sql(line: Line, statement: str) -> None:
    """Somebody writes to the published warehouse."""
    with duckdb.connect(str(line.warehouse.path)) as db:
        db.execute(statement)


def cut(line: Line, number: int) -> None:
    """Take one line out of plivo/main's ledger."""
    lines = ledger(line).read_bytes().splitlines(keepends=True)
    del lines[number]
    ledger(line).write_bytes(b"".join(lines))


def test_after_weeks_of_refreshes_everything_agrees(line: Line) -> None:
    before = {path: path.read_bytes() for path in line.data.rglob("*") if path.is_file() and "locks" not in path.parts}
    found = verify(line)
    assert found.findings == []
    assert (found.months, found.final, found.dropped) == (10, 5, 1)
    assert found.landings == sum(1 for _ in line.landings.root.rglob("manifest.json"))
    assert [str(head).rpartition(":")[0] for head in found.heads] == [
        f"{account}:{len(line.ledger.lines(*account.split('/')))}"
        for account in ("infobip/main", "plivo/emea", "plivo/main", "talkdesk/main", "ycloud/main")
    ]
    after = {path: path.read_bytes() for path in line.data.rglob("*") if path.is_file() and "locks" not in path.parts}
    assert after == before


MAY = "x_BillingPeriod=2026-05"
TOUCHED: dict[str, tuple[Callable[[Line], object], str, str]] = {
    "a bit of a page": (
        lambda line: flip(shown(line, "plivo/main/2026-05") / "bodies.zst"),
        "raw/plivo/main/2026-05/20260609T060000.000000Z/bodies.zst", "sha256",
    ),
    "a bit of the index of pages": (
        lambda line: flip(shown(line, "ycloud/main/2026-05") / "pages.jsonl"),
        "raw/ycloud/main/2026-05/20260609T060000.000000Z/pages.jsonl", "sha256",
    ),
    "a bit of a manifest": (
        lambda line: flip(shown(line, "infobip/main/2026-06") / "manifest.json", 0.1),
        "raw/infobip/main/2026-06/20260608T060000.000000Z/manifest.json", "is not the one in the ledger",
    ),
    "a landing that a month no longer shows": (
        lambda line: flip(line.landings.root / "plivo/main/2026-05/20260530T060000.000000Z/bodies.zst"),
        "raw/plivo/main/2026-05/20260530T060000.000000Z/bodies.zst", "sha256",
    ),
    "a landing that is gone": (
        lambda line: shutil.rmtree(shown(line, "talkdesk/main/2026-06")),
        "raw/talkdesk/main/2026-06/20260608T060000.000000Z", "is gone",
    ),
    "a file of a landing that is gone": (
        lambda line: (shown(line, "talkdesk/main/2026-06") / "pages.jsonl").unlink(),
        "raw/talkdesk/main/2026-06/20260608T060000.000000Z/pages.jsonl", "is gone",
    ),
    "the Parquet file of a closed month": (
        lambda line: flip(line.lake.path(partition("ycloud/main/2026-05"))),
        "charges/x_BillingPeriod=2026-05/ycloud--main.parquet", "the closed month's file was changed",
    ),
    "the Parquet file of an open month": (
        lambda line: flip(line.lake.path(partition("plivo/emea/2026-06")), 0.99),
        "charges/x_BillingPeriod=2026-06/plivo--emea.parquet", "the month's file was changed",
    ),
    "a Parquet file that is gone": (
        lambda line: line.lake.path(partition("plivo/emea/2026-06")).unlink(),
        "charges/x_BillingPeriod=2026-06/plivo--emea.parquet", "is gone",
    ),
    "the corrections of a closed month": (
        lambda line: flip(line.lake.corrections_path(partition("talkdesk/main/2026-06"))),
        "charges/x_BillingPeriod=2026-06/talkdesk--main.corrections.parquet", "were changed",
    ),
    "a Parquet file of nobody": (
        lambda line: shutil.copy(
            line.lake.path(partition("plivo/emea/2026-06")),
            line.lake.path(partition("plivo/emea/2026-06")).with_name("plivo--asia.parquet"),
        ),
        "charges/x_BillingPeriod=2026-06/plivo--asia.parquet", "the ledger knows nothing",
    ),
    "the last bytes of the seal": (
        lambda line: flip(ledger(line).with_name("ledger.seal"), 0.8),
        "raw/plivo/main/ledger.jsonl", "one of the two was changed",
    ),
    "a line in the middle of the ledger": (
        lambda line: cut(line, 1), "raw/plivo/main/ledger.jsonl line 2", "lines between them were taken out",
    ),
    "the first line of the ledger": (
        lambda line: cut(line, 0), "raw/plivo/main/ledger.jsonl line 1", "does not continue line 0",
    ),
    "the last line of the ledger": (
        lambda line: cut(line, -1), "raw/plivo/main/ledger.jsonl", "the last ones were cut off",
    ),
    "half of the last line of the ledger": (
        lambda line: ledger(line).write_bytes(ledger(line).read_bytes()[:-30]),
        "raw/plivo/main/ledger.jsonl", "half a line",
    ),
    "the whole ledger": (
        lambda line: ledger(line).unlink(), "raw/plivo/main/ledger.jsonl", "and 5 when it was last written to",
    ),
    "a strange file among landings": (
        lambda line: (line.landings.root / "plivo" / "main" / "notes.txt").write_text("hello"),
        "raw/plivo/main/notes.txt", "is not ours",
    ),
    "a strange file in a landing": (
        lambda line: (shown(line, "plivo/main/2026-05") / "bodies.txt").write_text("hello"),
        "raw/plivo/main/2026-05/20260609T060000.000000Z/bodies.txt", "is not ours",
    ),
    "an amount in the warehouse": (
        lambda line: sql(line, "UPDATE x_rows SET BilledCost = BilledCost + '1e-18'::DECIMAL(38,18) WHERE x_RowSource = "
                               "(SELECT max(x_RowSource) FROM charges WHERE x_Provider = 'plivo' AND x_Account = 'main')"),
        "warehouse.duckdb view charges", "plivo/main/2026-06: ",
    ),
    "a bit of what a fetch changed": (
        lambda line: flip(line.data / f"history/{MAY}/plivo--main/20260530T060000.000000Z.parquet"),
        f"history/{MAY}/plivo--main/20260530T060000.000000Z.parquet", "is not the one in the ledger",
    ),
    "what a fetch changed, gone": (
        lambda line: (line.data / f"history/{MAY}/plivo--main/20260609T060000.000000Z.parquet").unlink(),
        f"history/{MAY}/plivo--main/20260609T060000.000000Z.parquet", "is gone",
    ),
    "a strange file in history": (
        lambda line: (line.data / f"history/{MAY}/plivo--main/20260601T060000.000000Z.parquet").write_text("hello"),
        f"history/{MAY}/plivo--main/20260601T060000.000000Z.parquet", "is not ours",
    ),
    "a row less in the warehouse": (
        lambda line: sql(line, "DELETE FROM x_rows WHERE x_RowSource = (SELECT min(x_RowSource) FROM charges)"),
        "warehouse.duckdb view charges", "infobip/main/2026-05: ",
    ),
    "the order of the warehouse": (
        lambda line: sql(line, "CREATE TABLE t AS FROM x_rows ORDER BY BilledCost; DELETE FROM x_rows; "
                               "INSERT INTO x_rows FROM t; DROP TABLE t"),
        "warehouse.duckdb view charges", "in another order",
    ),
    "a finality in the warehouse": (
        lambda line: sql(line, "UPDATE billing_periods SET x_Finality = 'final'"),
        "warehouse.duckdb table billing_periods", "2026-06",
    ),
    "a view of the warehouse": (
        lambda line: sql(line, "CREATE OR REPLACE VIEW consumption AS SELECT * FROM charges"),
        "warehouse.duckdb view consumption", "is defined otherwise",
    ),
    "a warehouse that is no database": (
        lambda line: line.warehouse.path.write_bytes(b"no database"), "warehouse.duckdb", "cannot be read",
    ),
    "a warehouse that is gone": (lambda line: line.warehouse.path.unlink(), "warehouse.duckdb", "is gone"),
}  # fmt: skip


@pytest.mark.parametrize("case", TOUCHED)
def test_what_was_touched_is_found_and_named(line: Line, case: str) -> None:
    touch, where, what = TOUCHED[case]
    touch(line)
    findings = verify(line).findings
    assert [finding for finding in findings if finding.where == where and what in finding.what], findings
    assert all(finding.do for finding in findings)


@pytest.fixture(scope="module")
def standing(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A line to a copy that is put in order again after each try."""
    data = tmp_path_factory.mktemp("standing") / "data"
    shutil.copytree(example, data)
    (data / "warehouse.duckdb").unlink()  # compared in other tests; here it would only take time
    return offline(data)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 10_000), place=st.floats(0, 1), bit=st.integers(0, 7))
def test_any_bit_of_any_file_that_numbers_rest_on_is_found_in_its_file(
    standing: Line, number: int, place: float, bit: int
) -> None:
    names = sorted(
        path
        for folder in ("raw", "charges", "history")
        for path in (standing.data / folder).rglob("*")
        if path.is_file()
    )
    path = names[number % len(names)]
    before = path.read_bytes()
    content = bytearray(before)
    content[min(int(place * len(content)), len(content) - 1)] ^= 1 << bit
    path.write_bytes(content)
    try:
        findings = verify(standing).findings
    finally:
        path.write_bytes(before)
    name = str(path.relative_to(standing.data)).replace("ledger.seal", "ledger.jsonl")
    assert [finding for finding in findings if finding.where.startswith(name)], findings


def test_a_chain_that_is_written_anew_from_its_beginning_is_found_by_what_was_noted_elsewhere(line: Line) -> None:
    noted = [Head.parse(str(head)) for head in verify(line).heads]
    path = ledger(line)
    prev, lines = "", []
    for text in path.read_bytes().splitlines():
        entry = json.loads(text) | {"x_Rule": "another rule", "prev": prev}
        lines.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode())
        prev = link(lines[-1])
    path.write_bytes(b"\n".join(lines) + b"\n")
    path.with_name("ledger.seal").write_text(f"{len(lines)} {prev}\n")
    without = [finding for finding in verify(line).findings if "warehouse" not in finding.where]
    assert without == []  # a perfect forgery of what is on this machine
    (found,) = [finding for finding in verify(line, noted).findings if "warehouse" not in finding.where]
    assert (found.where, "was written anew" in found.what) == ("raw/plivo/main/ledger.jsonl", True)


def test_a_noted_end_of_a_chain_stays_good_when_the_chain_goes_on(line: Line) -> None:
    first = ledger(line).read_bytes().splitlines()[0]
    assert verify(line, [Head("plivo", "main", 1, link(first))]).findings == []
    with pytest.raises(ValueError, match="is not the end of a chain"):
        Head.parse("plivo/main")


def test_lines_that_were_cut_off_stay_found_after_the_next_run_has_written_its_own(line: Line) -> None:
    cut(line, -1)
    june = partition("plivo/main/2026-06")
    entry = line.ledger.shown(june)
    assert entry is not None
    line.ledger.append(entry)
    found = [finding for finding in verify(line).findings if "plivo/main/ledger" in finding.where]
    assert found == [
        Finding(
            "raw/plivo/main/ledger.jsonl line 5",
            "does not continue line 4: one of them was changed, or lines between them were taken out",
            "restore it from a backup of data/raw",
        )
    ]


def test_a_run_that_died_between_its_line_and_its_seal_is_no_finding(line: Line) -> None:
    lines = ledger(line).read_bytes().splitlines()
    ledger(line).with_name("ledger.seal").write_text(f"{len(lines) - 1} {link(lines[-2])}\n")
    assert verify(line).findings == []


def test_what_a_killed_run_left_is_no_finding(line: Line) -> None:
    (line.landings.root / "plivo" / "main" / "2026-06" / ".123.tmp").mkdir()
    line.lake.path(partition("plivo/emea/2026-06")).with_name(".plivo--emea.parquet.123.tmp").write_bytes(b"half")
    assert verify(line).findings == []


def test_a_data_folder_without_anything_agrees(tmp_path: Path) -> None:
    found = verify(offline(tmp_path / "nothing"))
    assert (found.findings, found.months) == ([], 0)


def test_findings_and_agreement_are_told_in_lines(line: Line) -> None:
    console = Console(record=True, width=80)
    show(verify(line), console)
    flip(line.lake.path(partition("ycloud/main/2026-05")))
    show(verify(line), console)
    told = console.export_text()
    assert "Everything agrees: 10 months (5 closed)" in told
    assert "billing-pipeline replay --period 2026-05" in told.replace("\n", " ")
