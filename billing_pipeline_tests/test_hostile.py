"""Names and values that an attacker would choose: the names are refused, the values go through unchanged and do nothing."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from pytest_httpserver import HTTPServer
from rich.console import Console
from werkzeug import Response

from billing_pipeline import accounts, definitions, environment, refresh, replay, restatements, status, verify
from billing_pipeline.accounts import Configuration, WrongConfiguration
from billing_pipeline.landing import Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import RateLimit
from billing_pipeline.providers import providers

from . import plivo_bodies
from .harness import QUICK

MAY = Partition("plivo", "main", BillingPeriod(2026, 5))
HOSTILE = [
    *("=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1:A9)", "\t=1", "%s %n", "${jndi:ldap://x}", "$(id)", "`id`"),
    *("'; DROP TABLE charges; --", '"', "'", "\\", "$1", "?", "a,b;c|d", "\"; COPY charges TO '/tmp/x", "x' OR '1'='1"),
    *("../../etc/passwd", "/etc/passwd", "C:\\con", "a/b", "..", ".", " ", " edge "),
    *("nul\x00in the middle", "bell\x07", "new\nline", "car\rriage", "vt\x0b", "del\x7f", "\u2028", "\ufeffbom"),
    *("\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "\u202egnp.exe", "zero\u200bwidth", "😀", "Ａｄｍｉｎ", "é"),
    *(
        "[red]markup[/red]",
        "[/]",
        "{{7*7}}",
        "{0.__class__}",
        "<script>alert(1)</script>",
        "![i](http://e/x)",
        "| a | b |",
    ),
]
OBEYED = [chr(n) for n in (*range(9), *range(11, 32), *range(127, 160), 0x202E, 0x200B, 0x2028)]

ONE = """history_from = "2026-05"
[[account]]
provider = "plivo"
name = {name}
auth_id = "MA"
auth_token = {{ env = "TOKEN" }}
"""
REFUSED = [
    *("", " ", ".", "..", "../main", "a/b", "a\\b", "/etc", "~", "main.", ".main", "ma in", "main ", " main", "*", "?"),
    *(
        "main'",
        'main"',
        "main;",
        "main`",
        "main$x",
        "main\n",
        "ma\nin",
        "main\x00",
        "main\x1b[31m",
        "main\t",
        "[red]main",
    ),
    *(
        "-main",
        "main-",
        "_main",
        "a--b",
        "a__b",
        "a-_b",
        "a" * 61,
        "mаin",
        "ｍain",
        "maıin",
        "main\u200b",
        "naïve",
        "<b>",
        "%2e",
    ),
]


def read(*names: str) -> Configuration:
    blocks = [ONE.format(name=json.dumps(name).replace("\\u007f", "\x7f")) for name in names]
    text = blocks[0] + "".join(block.split("\n", 1)[1] for block in blocks[1:])
    return accounts.read(text, "accounts.toml", {"TOKEN": "x"}, providers())


@pytest.mark.parametrize("name", REFUSED, ids=range(len(REFUSED)))
def test_a_name_that_is_no_plain_word_is_refused_with_its_line_and_nothing_of_it_is_obeyed(name: str) -> None:
    with pytest.raises(WrongConfiguration) as caught:
        read(name)
    text = str(caught.value)
    assert text.startswith("accounts.toml:4: name: ")
    assert not [c for c in OBEYED if c in text]


@pytest.mark.parametrize(("first", "second"), [("Main", "main"), ("a-b", "a_b"), ("EMEA-2", "emea_2")])
def test_two_names_that_a_file_system_or_dagster_takes_for_one_are_refused(first: str, second: str) -> None:
    with pytest.raises(WrongConfiguration, match="has the same name as the account in line 2"):
        read(first, second)


def line(folder: Path, server: HTTPServer) -> Line:
    settings = plivo_bodies.settings(server.url_for("")).model_copy(
        update={"rate_limit": RateLimit(requests=1000, seconds=1)}
    )
    configuration = Configuration(BillingPeriod(2026, 5), (settings,), "accounts.toml")
    now = [datetime(2026, 6, 10, 6, tzinfo=UTC)]
    made = Line(folder, configuration, providers(), lambda: now[0], "test", QUICK)
    made.clock = now  # type: ignore[attr-defined]
    return made


def bodies(amount: str) -> str:
    """A month in which every text is hostile."""
    rows = [
        plivo_bodies.usage(
            day, amount, product=text, type=text, country=text, direction=text, error_reason=text, **{text or "x": text}
        )
        for day, text in ((number % 31 + 1, text) for number, text in enumerate(HOSTILE) if text.strip())
    ]
    others = [plivo_bodies.other("1", description=text) for text in HOSTILE]
    total = plivo_bodies.total(*[amount] * len(rows), *["1"] * len(others))
    return plivo_bodies.body(*rows, others=others, total=total)


@pytest.mark.parametrize("name", ["data", 'it\'s a "d;ta" $1 é %s {0} & #'])
def test_hostile_values_go_through_the_whole_line_unchanged_and_come_out_of_sql_as_they_were(
    tmp_path: Path, httpserver: HTTPServer, name: str
) -> None:
    amounts = ["0.5"]
    plivo_bodies.serve(httpserver, lambda token: bodies(amounts[-1]))
    work = line(tmp_path / name, httpserver)
    said = io.StringIO()
    console = Console(file=said, width=200, force_terminal=True, color_system=None)
    (outcome,) = refresh.refresh(work, console)[:1]
    assert outcome.failure is None, outcome.failure
    amounts.append("0.75")  # a restatement: matched, compared, dismissed; then another, approved
    refresh.refresh(work, console, periods=[MAY.period])
    restatements.show(work.restatements(), console)
    work.dismiss(MAY, "nobody", "[red]'; DROP TABLE charges; --")
    amounts.append("0.25")
    work.clock[0] = datetime(2026, 6, 11, 6, tzinfo=UTC)  # type: ignore[attr-defined]
    refresh.refresh(work, console, periods=[MAY.period])
    restatements.approve(work, "plivo/main", "2026-05", "nobody\x1b[2J", "[bold]=1+1")
    restatements.show(work.restatements(), console)
    replay.show(replay.replay(work), console)
    found = verify.verify(work)
    verify.show(found, console)
    assert found.findings == []
    status.show(work, console)
    texts = [text for text in HOSTILE if text.strip()]
    with duckdb.connect(str(work.warehouse.path), read_only=True) as db:
        own = "FROM charges WHERE x_BillingPeriod = '2026-05' AND ChargeClass IS NULL"
        for column in ("ServiceName", "x_Type", "x_DestinationCountry", "x_Direction"):
            rows = db.execute(f"SELECT {column} {own} AND ServiceName <> 'other'").fetchall()
            assert sorted(value for (value,) in rows) == sorted(texts), column
        (others,) = zip(
            *db.execute(f"SELECT ChargeDescription {own} AND ServiceName = 'other'").fetchall(), strict=True
        )
        assert sorted(others) == sorted(HOSTILE)
        dimensions = [
            json.loads(d) for (d,) in db.execute(f"SELECT x_Dimensions {own} AND ServiceName <> 'other'").fetchall()
        ]
        assert sorted(d["error_reason"] for d in dimensions) == sorted(texts)
        assert all(d.get(d["error_reason"]) == d["error_reason"] for d in dimensions), (
            "unknown fields with hostile names"
        )
        for text in texts:  # by parameter, as a person's program would ask
            assert db.execute("SELECT count(*) FROM monthly_cost WHERE ServiceName = ?", [text]).fetchall() != [(0,)], (
                text
            )
        assert db.execute("SELECT count(*) FROM drift").fetchall() == [(1,)]
        assert db.execute("SELECT count(*) FROM focus.cost_and_usage").fetchall()[0][0] > len(texts)
    assert {path.name for path in tmp_path.iterdir()} == {name}, "nothing was written elsewhere"
    shown = said.getvalue()
    assert "plivo/main" in shown
    without = (
        shown.replace("\x1b[?25l", "")
        .replace("\x1b[?25h", "")
        .replace("\x1b[2K", "")
        .replace("\x1b[1A", "")
        .replace("\r", "")
    )
    assert not [c for c in OBEYED if c in without]


def test_the_dagster_ui_gets_hostile_values_as_words(tmp_path: Path, httpserver: HTTPServer) -> None:
    plivo_bodies.serve(httpserver, lambda token: bodies("0.5"))
    with dg.DagsterInstance.ephemeral() as instance:
        result = (
            definitions.build(line(tmp_path / "data", httpserver))
            .resolve_job_def("account_month")
            .execute_in_process(
                partition_key="2026-05",
                asset_selection=[dg.AssetKey(["plivo", "main", step]) for step in ("raw", "charges")],
                instance=instance,
            )
        )
    told = result.asset_materializations_for_node("plivo__main__charges")  # final_months has one of its own
    (event,) = [event for event in told if event.asset_key.path[-1] == "charges"]
    notes = str(event.metadata["notes"].value)
    assert "unknown product" in notes
    for bare in ("<script>", "![i]", "](http", "| a |", "`id`"):
        assert bare not in notes, bare
    assert r"\<script\>" in notes
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "nothing_undocumented"]
    for text in (notes, str(check.description)):
        assert not [c for c in OBEYED if c in text]


def test_an_error_with_hostile_words_is_told_and_not_obeyed(tmp_path: Path, httpserver: HTTPServer) -> None:
    text = "\x1b]0;owned\x07[red]\x9b2J\u202e<!channel>\n✓ plivo/main 2026-05: loaded"
    plivo_bodies.serve(httpserver, lambda token: Response(text, 400))
    work = line(tmp_path / "data", httpserver)
    said = io.StringIO()
    console = Console(file=said, width=1000)
    outcomes = refresh.refresh(work, console, periods=[MAY.period])
    status.show(work, console)
    console.print(refresh.summary(work, outcomes), markup=False)
    assert outcomes[0].failure
    assert r"[red]\x9b2J\u202e<!channel>" in said.getvalue()
    assert not [row for row in said.getvalue().splitlines() if row.strip().startswith("✓")], "no line of its own"
    assert not [c for c in OBEYED if c in said.getvalue()]
    assert not [c for c in OBEYED if c in json.dumps(status.months(work))]


@pytest.mark.parametrize("name", ["what?", "a*", "[a]", "\x1b[2J"])
def test_a_data_folder_that_duckdb_would_take_for_a_pattern_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BILLING_DATA", str(tmp_path / name))
    with pytest.raises(WrongConfiguration, match="BILLING_DATA"):
        environment.line()
    assert list(tmp_path.iterdir()) == []
