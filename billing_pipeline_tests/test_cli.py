"""The command line as a person and a cron job use it: processes of their own, in folders of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import free_port

NOW = "2026-06-15T12:00:00Z"
CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("BILLING_", "SANDBOX_", "DAGSTER_", "COLUMNS"))}

PLIVO = """history_from = "2026-05"

[[account]]
provider = "plivo"
name = "main"
base_url = "{address}/plivo"
auth_id = "MAACMERETAILSANDBOX1"
auth_token = {{ env = "PLIVO_TOKEN" }}
rate_limit = {{ requests = 1000, seconds = 1 }}
"""


@dataclass
class Desk:
    """A folder in which somebody types commands, and the sandbox that the commands find.

    Attributes:
        folder: the current folder of every command.
        world: the sandbox's.
        address: where it listens.
        variables: exported to every command.
    """

    folder: Path
    world: World
    address: str
    variables: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """A command that runs; a refresh draws no reports unless it is told to, for that takes it as long again."""
        if arguments[0] == "refresh" and "--reports" not in arguments:
            arguments = (*arguments, "--no-reports")
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "billing_pipeline", *arguments],
            cwd=self.folder,
            env=CLEAN | self.variables | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit status and everything that was said, line breaks of the terminal undone."""
        with self.start(*arguments, **variables) as process:
            said = " ".join("".join(process.communicate(timeout=120)).split())
        assert "Traceback" not in said, said
        return process.returncode, said

    def months(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """What `status --json` says, by provider, account and month."""
        with self.start("status", "--json") as process:
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return {(m["x_Provider"], m["x_Account"], m["x_BillingPeriod"]): m for m in json.loads(output)}

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """What a person with the DuckDB file gets."""
        with duckdb.connect(str(self.folder / "data" / "warehouse.duckdb"), read_only=True) as db:
            return db.execute(sql).fetchall()

    def configure(self, text: str = PLIVO) -> None:
        """Write accounts.toml."""
        (self.folder / "accounts.toml").write_text(text.format(address=self.address))
        self.variables |= {"PLIVO_TOKEN": "sandbox-plivo-main-token"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty folder, and a sandbox on a free port, on 15 June 2026."""
    world = World(Clock(datetime.fromisoformat(NOW).astimezone(UTC)))
    world.enforce_limits = False
    with running(port=free_port(), world=world) as address:
        yield Desk(tmp_path, world, address, {"BILLING_SANDBOX": address, "BILLING_NOW": NOW})


def test_a_command_of_which_nobody_reads_anything_ends_well(desk: Desk) -> None:
    command = f"exec {sys.executable} -m billing_pipeline status"
    for closed in (">&-", ">&- 2>&-"):
        ended = subprocess.run(  # noqa: S602
            f"{command} {closed}",
            shell=True,
            cwd=desk.folder,
            env=CLEAN | desk.variables,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_command_that_ends_at_once_has_told_everything_and_leaves_nothing_in_the_systems_folder(
    desk: Desk, tmp_path: Path
) -> None:
    """The interpreter's own end is spared, what was to be done at it is not: the folder of a DuckDB in memory is one of it."""
    for_a_moment = tmp_path / "for a moment"
    for_a_moment.mkdir()
    status, said = desk.type("refresh", "--provider", "plivo", TMPDIR=str(for_a_moment))
    assert (status, said.endswith("Dagster UI: make ui")) == (0, True)
    assert list(for_a_moment.iterdir()) == []


def test_a_refresh_on_the_sandbox_does_every_open_month_and_a_second_one_changes_nothing_final(desk: Desk) -> None:
    status, said = desk.type("refresh", "--reports")
    assert status == 0, said
    months = desk.months()
    accounts = {key[:2] for key in months}
    assert accounts == {
        ("infobip", "main"),
        ("plivo", "main"),
        ("plivo", "emea"),
        ("talkdesk", "main"),
        ("ycloud", "main"),
    }
    assert "Reports: data/reports/index.html (made: 2026-01, " in said
    assert months["plivo", "main", "2026-05"]["x_Finality"] == "final"
    assert months["plivo", "main", "2026-06"]["x_Finality"] == "provisional"
    assert months["infobip", "main", "2026-01"]["x_Finality"] == "never fetched"
    shown = "SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, count(*), sum(BilledCost) FROM charges "
    final = f"{shown} WHERE x_Finality = 'final' GROUP BY ALL ORDER BY ALL"
    before, files = desk.ask(final), sorted(desk.folder.glob("data/charges/*/*"))
    stamps = {file: file.stat().st_mtime_ns for file in files if "2026-06" not in str(file)}
    assert before
    for (provider, account, period), month in months.items():
        rows = "SELECT count(*) FROM charges WHERE x_Provider = '{}' AND x_Account = '{}' AND x_BillingPeriod = '{}'"
        assert desk.ask(rows.format(provider, account, period)) == [(month["x_Rows"] or 0,)]
    asked = len(desk.world.requests("plivo"))
    assert desk.type("refresh", "--provider", "plivo")[0] == 0
    assert desk.ask(final) == before
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    assert all("2026-06-01" in request.path for request in desk.world.requests("plivo")[asked:])


def test_a_provider_that_is_down_fails_alone_and_the_exit_status_says_so(desk: Desk) -> None:
    both = PLIVO + PLIVO.split("\n", 1)[1].replace('"main"', '"other"')
    desk.configure(both.replace("MAACMERETAILSANDBOX1", "MAACMEEMEASANDBOX002", 1))  # main has another's credentials
    status, said = desk.type("refresh")
    assert status == 1
    assert "2 of 4 failed:" in said
    assert "plivo/main 2026-05: 40" in said
    assert "sandbox-plivo" not in said
    months = desk.months()
    assert {key[1] for key, month in months.items() if not month["x_Failure"]} == {"other"}
    assert desk.ask("SELECT DISTINCT x_Account FROM charges") == [("other",)]


def test_an_outage_in_the_middle_leaves_the_published_numbers_alone(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh")[0] == 0
    before = desk.ask("SELECT * FROM charges ORDER BY x_RowSource")
    desk.world.fail("plivo", [401] * 20)
    status, said = desk.type("refresh")
    assert (status, "401" in said) == (1, True)
    assert desk.ask("SELECT * FROM charges ORDER BY x_RowSource") == before


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (PLIVO.replace("auth_id", "auth_key"), "accounts.toml:7: unknown key 'auth_key'"),
        (PLIVO.replace('{{ env = "PLIVO_TOKEN" }}', '"hunter2"'), "accounts.toml:8: auth_token: a secret is named"),
        (PLIVO + "= broken", "accounts.toml:10: "),
        (
            PLIVO.replace("PLIVO_TOKEN", "NO_SUCH"),
            "accounts.toml:8: auth_token: the environment variable NO_SUCH is not",
        ),
        (PLIVO.replace("2026-05", "2062-05"), "accounts.toml: history_from is 2062-05: not yet begun"),
    ],
)
@pytest.mark.parametrize("command", ["refresh", "status"])
def test_a_mistake_in_accounts_toml_is_told_with_its_line_before_anything_is_asked(
    desk: Desk, text: str, line: str, command: str
) -> None:
    desk.configure(text)
    status, said = desk.type(command)
    assert status == 2
    assert line in said
    assert "hunter2" not in said
    assert desk.world.requests("plivo") == []
    assert not (desk.folder / "data" / "raw").exists()


def test_a_final_month_that_is_named_is_compared_and_one_that_is_not_open_says_why(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh")[0] == 0
    status, said = desk.type("refresh", "--period", "2026-05")
    assert (status, "compared, unchanged" in said) == (0, True)
    before = desk.ask("SELECT count(*), sum(BilledCost) FROM charges WHERE x_BillingPeriod = '2026-05'")
    desk.world.seed = "another company"
    status, said = desk.type("refresh", "--period", "2026-05")
    assert status == 0
    assert "THE PROVIDER NOW STATES OTHER NUMBERS" in said
    assert desk.ask("SELECT count(*), sum(BilledCost) FROM charges WHERE x_BillingPeriod = '2026-05'") == before
    assert desk.months()["plivo", "main", "2026-05"]["x_Restated"] is True
    assert desk.type("refresh", "--period", "2026-08")[0] == 1


def test_a_restatement_is_listed_and_then_approved_or_dismissed_once(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh")[0] == 0
    status, said = desk.type("refresh", "--watch")
    assert (status, "compared, unchanged" in said) == (0, True), said
    assert "No provider has stated anything else" in desk.type("restatements")[1]
    for seed, decision, outcome in (
        ("second", ("dismiss", "plivo/main", "2026-05", "--why", "a mistake, says Plivo"), "dismissed"),
        ("third", ("approve", "plivo/main", "2026-05"), "approved, booked in 2026-06"),
    ):
        desk.world.seed = seed
        assert "THE PROVIDER NOW STATES OTHER NUMBERS" in desk.type("refresh", "--watch")[1]
        said = desk.type("restatements", COLUMNS="200")[1]
        assert "undecided" in said
        assert "billing-pipeline approve plivo/main 2026-05" in said
        status, said = desk.type(*decision)
        assert status == 0, said
        assert outcome in desk.type("restatements", COLUMNS="200")[1]
        status, said = desk.type(*decision)
        assert (status, "no restatement that waits" in said) == (1, True)
        assert desk.months()["plivo", "main", "2026-05"]["x_Restated"] is False
    assert desk.ask("SELECT DISTINCT x_BillingPeriod FROM charges WHERE ChargeClass = 'Correction'") == [("2026-06",)]
    assert desk.type("approve", "plivo/nobody", "2026-05")[0] == 2
    assert desk.type("dismiss", "plivo/main", "2026-05")[0] == 2
    assert desk.type("refresh", "--watch", "--period", "2026-05")[0] == 2


@pytest.mark.parametrize("arguments", [["--period", "May"], ["--period", "2026-13"]])
def test_what_is_no_month_is_told_in_a_sentence(desk: Desk, arguments: list[str]) -> None:
    desk.configure()
    status, said = desk.type("refresh", *arguments)
    assert status == 2
    assert arguments[1] in said


def test_a_name_that_is_not_configured_is_told_with_those_that_are(desk: Desk) -> None:
    desk.configure()
    status, said = desk.type("refresh", "--provider", "pilvo")
    assert status == 1
    assert "accounts.toml has plivo/main" in said


def test_a_made_up_clock_is_refused_while_there_are_real_providers(desk: Desk) -> None:
    desk.configure(PLIVO.replace("{address}/plivo", "https://api.plivo.com"))
    status, said = desk.type("refresh")
    assert status == 2
    assert "BILLING_NOW is set, but there are accounts of real providers" in said
    for wrong in ("yesterday", "2026-06-15T12:00:00"):
        assert desk.type("refresh", BILLING_NOW=wrong)[0] == 2


def test_made_up_charges_are_never_taken_for_real_ones(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh")[0] == 0
    desk.configure(PLIVO.replace("{address}/plivo", "https://api.plivo.example"))
    status, said = desk.type("refresh", BILLING_NOW="")
    assert status == 2
    assert "holds made-up charges of plivo/main" in said


def test_a_job_that_starts_in_the_wrong_folder_does_not_write_the_sandbox_over_real_months(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh")[0] == 0
    for manifest in desk.folder.glob("data/raw/*/*/*/*/manifest.json"):  # as if it had been fetched from the real one
        manifest.write_text(manifest.read_text().replace(f"{desk.address}/plivo", "https://api.plivo.com"))
    (desk.folder / "accounts.toml").unlink()
    status, said = desk.type("refresh")
    assert status == 2
    assert "holds real charges of plivo/main" in said


def test_two_refreshes_at_once_both_end_well_with_the_right_numbers(desk: Desk) -> None:
    desk.configure(PLIVO.replace("2026-05", "2026-03"))
    both = [desk.start("refresh") for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, output + errors
    shown = desk.ask("SELECT x_BillingPeriod, count(*) FROM charges GROUP BY ALL ORDER BY ALL")
    assert shown == [(period, month["x_Rows"]) for (*_, period), month in sorted(desk.months().items())]
    assert len(shown) == 4
    # Once closed, once: the second either found it final or asked and compared nothing.
    final = "SELECT x_BillingPeriod, count(*) FROM finality_ledger WHERE x_Decision = 'final' GROUP BY ALL ORDER BY ALL"
    assert desk.ask(final) == [("2026-03", 1), ("2026-04", 1), ("2026-05", 1)]


def test_two_refreshes_at_once_do_not_take_the_built_in_sandbox_from_each_other(desk: Desk) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    arguments = ("refresh", "--provider", "plivo", "--account", "emea", "--period", "2026-05")
    both = [desk.start(*arguments, BILLING_SANDBOX=nobody) for _ in range(2)]
    for process in both:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, output + errors


def test_status_before_the_first_refresh_says_what_to_type(desk: Desk) -> None:
    desk.configure()
    status, said = desk.type("status")
    assert status == 0
    assert "Nothing has been fetched yet. Type: billing-pipeline refresh" in said
    assert desk.months() == {}


def test_a_refresh_that_is_killed_is_made_good_by_the_next(desk: Desk) -> None:
    desk.configure()
    with desk.start("refresh") as process:
        while not desk.world.requests("plivo"):
            assert process.poll() is None
        process.kill()
    assert desk.type("refresh")[0] == 0
    assert {key[2]: month["x_Finality"] for key, month in desk.months().items()} == {
        "2026-05": "final",
        "2026-06": "provisional",
    }
    assert not list((desk.folder / "data").rglob("*.tmp*"))


def lived(desk: Desk) -> None:
    """May and June of plivo/main, June fetched twice."""
    desk.configure()
    assert desk.type("refresh")[0] == 0
    later = "2026-06-20T12:00:00Z"
    desk.world.clock.set(datetime.fromisoformat(later).astimezone(UTC))
    desk.variables |= {"BILLING_NOW": later}
    assert desk.type("refresh")[0] == 0


def test_as_of_brings_back_the_rows_of_a_past_day_and_says_so_when_nothing_was_known(desk: Desk) -> None:
    lived(desk)
    status, said = desk.type("as-of", "2026-06-16T00:00:00Z", "--period", "2026-06", "--out", "believed")
    assert (status, "byte for byte" in said) == (0, True), said
    (path,) = (desk.folder / "believed").rglob("*.parquet")
    assert str(path.relative_to(desk.folder)) in said
    with duckdb.connect() as db:
        found = db.execute("SELECT count(*), sum(BilledCost) FROM read_parquet($1)", [str(path)]).fetchall()
    june = "WHERE x_BillingPeriod = '2026-06'"
    past = "totals_as_of(TIMESTAMPTZ '2026-06-16 00:00:00+00')"
    assert found == desk.ask(f"SELECT sum(x_Rows), sum(BilledCost) FROM {past} {june}")
    assert found != desk.ask(f"SELECT count(*), sum(BilledCost) FROM charges {june}")
    status, said = desk.type("as-of", "2026-06-01T00:00:00Z", "--period", "2026-06", "--out", "nothing")
    assert (status, "nothing was known of 2026-06" in said, (desk.folder / "nothing").exists()) == (1, True, False)
    for wrong in ("yesterday", "2026-06-16T00:00:00"):
        status, said = desk.type("as-of", wrong, "--period", "2026-06", "--out", "nothing", COLUMNS="200")
        assert (status, "write it with its zone" in said) == (2, True)


def test_replay_gives_everything_back_and_verify_says_whether_it_agrees(desk: Desk) -> None:
    lived(desk)
    status, said = desk.type("verify")
    assert (status, "Everything agrees: 2 months (1 closed)" in said) == (0, True), said
    noted = said.rpartition("Chains end with: ")[2]
    data = desk.folder / "data"
    before = {path: path.read_bytes() for path in data.rglob("*.parquet")}
    charges = desk.ask("SELECT * FROM charges")
    for path in data.iterdir():
        if path.name != "raw":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with desk.start("verify", "--json") as process:
        told = json.loads(process.communicate(timeout=60)[0])
    assert (process.returncode, told["agrees"]) == (1, False)
    assert {finding["what"] for finding in told["findings"]} == {
        "the closed month's file is gone",
        "the month's file is gone",
        "is gone",
    }
    status, said = desk.type("replay", "--period", "2026-05")
    assert (status, "1 files were restored" in said) == (1, True), said  # June is still without its file
    status, said = desk.type("replay", BILLING_SANDBOX="http://127.0.0.1:1")
    assert (status, "2 of 2 months come out byte for byte" in said) == (0, True), said
    assert {path: path.read_bytes() for path in data.rglob("*.parquet")} == before
    assert desk.ask("SELECT * FROM charges") == charges
    assert desk.type("verify", "--noted", noted)[0] == 0
    status, said = desk.type("verify", "--noted", noted[:-4] + "0000")
    assert (status, "was written anew" in said) == (1, True)
    assert desk.type("verify", "--noted", "plivo/main")[0] == 2


def test_months_are_exported_for_focus_tools_and_what_cannot_be_says_why(desk: Desk) -> None:
    desk.configure()
    assert desk.type("export", "focus", "--out", "out")[0] == 1  # nothing was published yet
    assert desk.type("refresh")[0] == 0
    status, said = desk.type("export", "focus", "--period", "2026-05", "--period", "2026-06", "--out", "out")
    assert (status, "2026-05: Plivo Closed 2026-06: Plivo Open" in said) == (0, True), said
    shown = desk.ask("SELECT count(*), sum(BilledCost) FROM charges")
    assert desk.ask(f"SELECT count(*), sum(BilledCost) FROM '{desk.folder}/out/cost_and_usage.parquet'") == shown
    status, said = desk.type("export", "focus", "--period", "2026-09", "--out", "out")
    assert (status, "nothing is held of 2026-09; the warehouse has 2026-05, 2026-06" in said) == (1, True), said
    assert desk.type("export", "focus", "--period", "2026-9", "--out", "out")[0] == 2
    status, said = desk.type("export", "focus", "--out", "data")
    assert (status, "holds something that is no FOCUS export" in said) == (2, True), said


QUERY = """
import os, signal, threading
from billing_pipeline.scratch import database, stoppable

with database() as db:
    def stop():
        while db.query_progress() <= 0:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    db.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false; SET progress_bar_time = 0")
    try:
        with stoppable():
            threading.Thread(target=stop).start()
            db.execute("SELECT count(*) FROM range(1_000_000_000_000) AS n WHERE n.range % 7 = 3").fetchall()
    except KeyboardInterrupt as stopped:
        print("stopped", repr(stopped.__cause__))
"""


def test_ctrl_c_while_duckdb_works_is_no_failure() -> None:
    """DuckDB makes a RuntimeError of it: `refresh` took it for a publication that failed, and went on."""
    done = subprocess.run([sys.executable, "-c", QUERY], capture_output=True, text=True, check=True, timeout=120)  # noqa: S603
    assert done.stdout.startswith("stopped")
