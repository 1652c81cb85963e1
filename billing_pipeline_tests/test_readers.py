"""Readers, refreshes and backfills at once, all of them real processes: nobody waits for, breaks or half-sees another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import Company
from .soak.books import shown
from .soak.processes import PATIENCE, Kill
from .soak.rounds import Soak

READER = Path(__file__).parent / "reading.py"


@contextmanager
def readers(warehouse: Path, many: int, python: str = sys.executable) -> Iterator[list[dict[str, Any]]]:
    """Processes that hold the file open and read in transactions; what each of them saw is in the list afterwards."""
    found: list[dict[str, Any]] = []
    command = [python, str(READER), str(warehouse), "loop"]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(many)
    ]
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n", process.stderr and process.stderr.read()
        yield found
    finally:
        for process in started:
            told, wrong = process.communicate("", timeout=PATIENCE)
            assert process.returncode == 0, wrong
            found.append(json.loads(told.splitlines()[-1]))


def test_readers_see_whole_publications_while_two_refreshes_and_a_backfill_run_at_once(tmp_path: Path) -> None:
    work = Soak(tmp_path, 1, print)
    with work.company():
        work.healed()
        with readers(work.line.warehouse.path, 3) as seen:
            for seed in ("second",):
                work.move()
                work.world.seed = seed
                month = f"{work.world.now():%Y-%m}"
                both = [work.processes.start(["refresh"], Kill()) for _ in range(2)]
                backfill = work.processes.dagster("plivo/main", month)
                for process, _ in both:
                    process.join(PATIENCE)
                assert [process.exitcode for process, _ in both] == [0, 0], work.processes.log()
                assert backfill.wait(PATIENCE) == 0, work.processes.log()
                new, found = work.now(), shown(work.line.warehouse.path)
                # The last to publish saw what all others had loaded, but for what the backfill fetched again after that.
                assert {p.path: found.own[p.path] for p in work.line.open()} == {
                    p.path: new[p.path] for p in work.line.open()
                }
                work.healed()
        for reader in seen:
            assert reader["publications"] > 1
            assert reader["queries"] >= reader["transactions"] * 3


def test_who_publishes_while_another_is_between_a_months_file_and_its_line_waits_for_the_line(company: Company) -> None:
    june = company.month("plivo", "main", "2026-06")
    company.do(june)
    company.line.publish()
    company.world.seed = "another company"
    company.do(june)
    path = company.line.ledger.root / "plivo" / "main" / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))  # as it is a moment before the line is written
    with ThreadPoolExecutor(1) as other:
        with company.line.only("plivo--main"):
            published = other.submit(company.line.publish)
            with pytest.raises(TimeoutError):
                published.result(
                    1
                )  # on the code before this it was done by now, with charges that the history knew not
            path.write_bytes(whole)
        published.result(PATIENCE)
    assert shown(company.line.warehouse.path).own[june.path] == company.stated(june)


def test_an_older_duckdb_reads_everything_while_new_files_take_the_old_ones_place(company: Company) -> None:
    older = os.environ.get("OLDER_DUCKDB")
    if not older:
        pytest.skip("NOT TESTED here: .ci/readers installs older DuckDBs and names their Python in OLDER_DUCKDB")
    months = [company.month("plivo", "main", period) for period in ("2026-05", "2026-06")]
    for month in months:
        company.do(month)
    company.line.publish()
    path = company.line.warehouse.path
    with readers(path, 1, older) as seen:
        for seed in ("second", "third", "fourth"):
            company.world.seed = seed
            company.do(months[1])
            company.line.publish()
    assert seen[0]["transactions"] >= 1
    told = subprocess.run([older, str(READER), str(path), "ask"], capture_output=True, text=True, check=True)  # noqa: S603
    answers = json.loads(told.stdout)["answers"]
    assert all(isinstance(rows, int) for rows in answers.values()), answers
    assert answers["charges"] == answers["focus.cost_and_usage"] == company.ask("SELECT count(*) FROM charges")[0][0]
