"""`billing-pipeline sql`: answers to the last digit, in every form, and nothing it does changes the file."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import select
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import pytest

from .test_questions import MAY, bill, hold, publish

TINY = Decimal("-0.000000000000000001")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with two charges."""
    hold(tmp_path, MAY, [bill("1.10", x_DestinationCountry="DE"), bill(str(TINY), "EUR")])
    publish(tmp_path)
    return tmp_path


def sql(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603
        [sys.executable, "-m", "billing_pipeline", "sql", *arguments],
        env=os.environ | {"BILLING_DATA": str(folder), "COLUMNS": "80"},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )


COSTS = "SELECT BillingCurrency, x_DestinationCountry, BilledCost FROM charges ORDER BY ALL"


def test_csv_json_and_tables_show_the_same_digits(folder: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(sql(folder, "--csv", COSTS).stdout)))
    assert rows == [
        {"BillingCurrency": "EUR", "x_DestinationCountry": "", "BilledCost": "-0.000000000000000001"},
        {"BillingCurrency": "USD", "x_DestinationCountry": "DE", "BilledCost": "1.1"},
    ]
    assert json.loads(sql(folder, "--json", COSTS).stdout) == [
        {"BillingCurrency": "EUR", "x_DestinationCountry": None, "BilledCost": "-0.000000000000000001"},
        {"BillingCurrency": "USD", "x_DestinationCountry": "DE", "BilledCost": "1.1"},
    ]
    table = sql(folder, typed=COSTS).stdout  # piped in
    assert [line.split() for line in table.splitlines()[1:]] == [["EUR", "-0.000000000000000001"], ["USD", "DE", "1.1"]]


def test_a_row_that_does_not_fit_stands_one_column_below_the_other_and_nothing_is_cut(folder: Path) -> None:
    told = sql(folder, "SELECT * FROM charges WHERE BillingCurrency = 'EUR'").stdout
    assert ["BilledCost", "-0.000000000000000001"] in [line.split() for line in told.splitlines()]
    assert max(map(len, told.splitlines())) <= 80


def test_rows_that_are_not_shown_are_counted(folder: Path) -> None:
    many = "SELECT * FROM range(7)"
    assert "... and 5 more rows" in sql(folder, "--rows", "2", many).stdout
    assert len(sql(folder, "--rows", "0", many).stdout.splitlines()) == 8
    assert len(sql(folder, "--rows", "2", "--csv", many).stdout.splitlines()) == 8


def test_every_view_is_listed_with_what_a_row_of_it_is(folder: Path) -> None:
    listed = {row["name"]: row["comment"] for row in json.loads(sql(folder, "--tables", "--json").stdout)}
    assert listed.keys() >= {"charges", "movers", "totals_as_of(instant)", "focus.cost_and_usage"}
    assert all(listed.values())


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("DELETE FROM billing_periods", "read-only"),
        ("CREATE TABLE mine (x INT)", "read-only"),
        ("SELECT * FROM nothing", "nothing"),
        ("SELEC 1", "SELEC"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_line_and_the_file_stays(folder: Path, question: str, why: str) -> None:
    before = (folder / "warehouse.duckdb").read_bytes()
    done = sql(folder, question)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "warehouse.duckdb").read_bytes() == before


def test_before_the_first_refresh_it_says_what_to_type(tmp_path: Path) -> None:
    done = sql(tmp_path, "SELECT 1")
    assert done.returncode == 1
    assert "billing-pipeline refresh" in done.stderr


def test_an_object_cannot_lose_a_column_of_the_same_name(folder: Path) -> None:
    done = sql(folder, "--json", "SELECT 1 AS a, 2 AS a")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["what"].startswith("two columns are called a")
    assert sql(folder, "--csv", "SELECT 1; SELECT 2").returncode == 2


def test_a_person_at_a_terminal_gets_the_views_and_a_prompt(folder: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "billing_pipeline", "sql"],
        env=os.environ | {"BILLING_DATA": str(folder), "COLUMNS": "80", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        close_fds=True,
    )
    os.close(theirs)
    told = b""

    def until(text: bytes) -> None:
        nonlocal told
        deadline = time.monotonic() + 120
        while text not in told:
            assert select.select([ours], [], [], max(0, deadline - time.monotonic()))[0], told
            told += os.read(ours, 65536)

    until(b"billing> ")
    assert b"month_over_month" in told
    for typed, answer in (
        (b"SELECT 40 +\n", b"...> "),
        (b"2 AS answer;\n", b"42"),
        (b"SELECT nothing;\n", b"not found"),  # an error ends nothing
        (b".columns provisional_part\n", b"The part that may still change."),
    ):
        told = b""
        os.write(ours, typed)
        until(answer)
    os.write(ours, b".quit\n")
    assert process.wait(120) == 0
    os.close(ours)
