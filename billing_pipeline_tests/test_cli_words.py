"""What the command line promises in words: the examples of `--help`, JSON, exit statuses, and what TAB offers."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from billing_pipeline.__main__ import PANELS, app
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import free_port
from .test_cli import CLEAN, NOW, PLIVO

PAGE = (Path(__file__).parents[1] / "docs" / "command-line.md").read_text()
ROOT: Any = typer.main.get_command(app)


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that does something, by what one types."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())
SERVERS = {"ui", "callbacks", "sandbox"}


def examples(command: Any) -> list[list[str]]:
    """The examples of a command's help, as a shell would split them."""
    text = re.sub(r"\n {4,}--", " --", str(command.help))  # one that goes on in the next line
    return [shlex.split(line)[1:] for line in re.findall(r"^ {2,}(billing-pipeline .*)$", text, re.MULTILINE)]


@dataclass
class Room:
    """A folder in which commands are typed, in this process.

    Attributes:
        folder: the current folder.
        world: the sandbox's.
    """

    folder: Path
    world: World

    def type(self, *arguments: str, status: int = 0) -> Result:
        """A command that ends with `status`."""
        came = CliRunner().invoke(app, arguments, prog_name="billing-pipeline")
        assert came.exit_code == status, f"{arguments}: {came.output}"
        return came

    def told(self, *arguments: str) -> Any:
        """Its JSON document."""
        return json.loads(self.type(*arguments, "--json").stdout)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """Plivo's May and June, May final; nothing is restated."""
    folder = tmp_path_factory.mktemp("room")
    world = World(Clock(datetime.fromisoformat(NOW).astimezone(UTC)))
    world.enforce_limits = False
    with running(port=free_port(), world=world) as address, pytest.MonkeyPatch.context() as patch:
        for name in set(os.environ) - set(CLEAN):
            patch.delenv(name)
        patch.setenv("PLIVO_TOKEN", "sandbox-plivo-main-token")
        patch.setenv("BILLING_NOW", NOW)
        patch.chdir(folder)
        (folder / "accounts.toml").write_text(PLIVO.format(address=address))
        found = Room(folder, world)
        found.type("refresh")
        yield found


@pytest.fixture
def restated(room: Room) -> Iterator[Room]:
    """May is restated, and nothing is decided about it."""
    room.world.seed = f"{room.world.seed}, again"
    room.type("refresh", "--watch")
    yield room
    waiting = [row for row in room.told("restatements") if row["x_Outcome"] == "undecided"]
    for row in waiting:
        room.type("dismiss", "plivo/main", row["x_BillingPeriod"], "--why", "the test is over")


def test_every_command_stands_in_a_panel_and_has_an_example_its_exit_statuses_and_lines_that_fit() -> None:
    shown = [ROOT.commands[name].rich_help_panel for name in ROOT.list_commands(None)]
    assert shown == sorted(shown, key=PANELS.index)
    assert set(shown) == set(PANELS)
    for name, command in COMMANDS.items():
        assert examples(command), name
        assert "Exit status:" in command.help, name
        first, *others = command.help.split("\n\n")
        assert first.strip().endswith("."), name
        for line in "\n".join(others).splitlines():
            assert len(line) <= 76, f"{name}: {line}"
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_are_understood(name: str) -> None:
    for example in examples(COMMANDS[name]):
        words = name.split()
        assert example[: len(words)] == words
        COMMANDS[name].make_context(name, example[len(words) :])


def test_the_examples_of_the_help_work(restated: Room) -> None:
    for name, command in COMMANDS.items():
        if name in SERVERS:
            continue
        for example in examples(command):
            if example[0] in ("approve", "dismiss"):
                restated.world.seed += "."
                restated.type("refresh", "--watch")
            assert restated.type(*example).stdout, example


def documented() -> dict[str, set[str]]:
    """The keys of each document, as the page says."""
    rows = re.findall(r"^\| ([^|]*`[^|]*) \| [^|]* \| (`[^|]*) \|$", PAGE.partition("## JSON")[2], re.MULTILINE)
    return {what: set(re.findall(r"`(\w+)`", keys)) for what, keys in rows}


def test_json_has_the_keys_that_the_page_names_and_amounts_are_text(restated: Room) -> None:
    keys = documented()

    def compare(what: str, document: Any) -> None:
        (named,) = [names for said, names in keys.items() if f"`{what}" in said]
        for each in document if isinstance(document, list) else [document]:
            assert set(each) == named, what
            for name, value in each.items():
                if name.endswith("Totals") or name in ("x_Difference", "x_Invoice", "x_Ours", "x_Unexplained"):
                    amounts = value.values() if isinstance(value, dict) else [value]
                    assert all(amount is None or re.fullmatch(r"-?\d+(\.\d+)?", amount) for amount in amounts)

    compare("status --json", restated.told("status"))
    done = restated.told("refresh")
    compare("refresh --json", done)
    compare("outcomes", done["outcomes"])
    assert done["good"] is True
    compare("as-of --json", restated.told("as-of", NOW, "--period", "2026-05", "--out", "believed"))
    compare("verify --json", restated.told("verify"))
    done = restated.told("replay")
    compare("replay --json", done)
    compare("months", done["months"])
    compare("export focus --json", restated.told("export", "focus", "--out", "exported"))
    compare("report --json", restated.told("report"))
    compare("restatements --json", restated.told("restatements"))
    decided = restated.told("approve", "plivo/main", "2026-05")
    compare("restatements --json", decided)
    assert (decided["x_Outcome"], decided["x_BookedIn"]) == ("approved", "2026-06")
    invoice = ["--amount", "1", "--currency", "USD", "--number", "17"]
    compare("invoice add --json", restated.told("invoice", "add", "plivo/main", "2026-05", *invoice))
    (month,) = restated.told("sql", "SELECT sum(BilledCost) AS cost FROM charges WHERE x_BillingPeriod = '2026-05'")
    assert isinstance(month["cost"], str)
    takes = {name for name, command in COMMANDS.items() if any("--json" in each.opts for each in command.params)}
    assert takes == set(COMMANDS) - SERVERS
    assert all(any(f"`{name} --json`" in said for said in (*keys, PAGE)) for name in takes)


def test_a_failure_is_json_too_and_notices_go_elsewhere(room: Room) -> None:
    def typed(*arguments: str) -> tuple[int, Any, str]:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "billing_pipeline", *arguments], capture_output=True, text=True, check=False
        )
        return done.returncode, json.loads(done.stdout), done.stderr

    status, document, errors = typed("as-of", "2020-01-01T00:00:00Z", "--period", "2026-05", "--out", "x", "--json")
    assert (status, document["error"]["kind"]) == (1, "NothingBelieved")
    assert set(document["error"]) == {"subject", "kind", "what", "advice"}
    assert document["error"]["what"] in errors
    status, document, errors = typed("refresh", "--period", "May", "--json")
    assert (status, document["error"]["kind"]) == (2, "BadParameter")
    assert "'May' is not a month" in document["error"]["what"]
    status, document, errors = typed("refresh", "--account", "nobody", "--json")
    assert (status, document["good"]) == (1, False)
    assert "accounts.toml has plivo/main" in document["outcomes"][0]["x_Failure"]["what"]
    accounts = Path("accounts.toml")
    accounts.rename("away.toml")
    accounts.write_text("= broken")
    try:
        status, document, errors = typed("status", "--json")
    finally:
        Path("away.toml").rename("accounts.toml")
    assert (status, document["error"]["kind"]) == (2, "WrongConfiguration")
    assert "accounts.toml:1" in errors


FAILING = [
    (0, "status"),
    (0, "restatements"),
    (0, "verify"),
    (1, "refresh --account nobody"),
    (1, "sql 'SELECT nonsense'"),
    (1, "as-of 2020-01-01T00:00:00Z --period 2026-05 --out x"),
    (1, "approve plivo/main 2026-06"),
    (1, "dismiss plivo/main 2026-06 --why no"),
    (1, "export focus --period 2020-01 --out x"),
    (2, "status --nonsense"),
    (2, "sql --csv --json 'SELECT 1'"),
    (2, "as-of yesterday --period 2026-05 --out x"),
    (2, "refresh --period May"),
    (2, "restatements nonsense"),
    (2, "approve plivo/nobody 2026-05"),
    (2, "dismiss plivo/main 2026-05"),
    (2, "invoice add plivo/main 2026-05 --amount much --currency USD --number 1"),
    (2, "verify --noted nonsense"),
    (2, "replay --period May"),
    (2, "export focus --out ."),
    (1, "report --period 2020-01"),
    (2, "report --out x"),
    (2, "callbacks --listen nowhere"),
    (2, "sandbox --now yesterday"),
    (2, "sandbox --host 192.0.2.1"),
]
"""130 is in test_cli_terminal; 1 of `verify` and `replay`, and 2 for a wrong configuration, in test_cli."""


@pytest.mark.parametrize(("status", "typed"), FAILING)
def test_a_command_ends_with_the_status_that_its_help_and_the_page_promise(room: Room, status: int, typed: str) -> None:
    room.type(*shlex.split(typed), status=status)
    (name,) = [name for name in COMMANDS if typed.startswith(f"{name} ") or typed == name]
    promised = COMMANDS["approve" if name == "dismiss" else name].help.partition("Exit status:")[2]
    assert re.search(rf"\b{status} ", promised.replace(",", " ")), f"{name} does not promise {status}"
    assert re.search(rf"^\| {status} \| ", PAGE, re.MULTILINE)


def offered(folder: Path, typed: str, shell: str = "bash", **variables: str) -> list[str]:
    """What TAB offers behind `typed`; nothing is said on stderr."""
    words = typed.split(" ")
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1)}
    if shell != "bash":
        asked = {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-m", "billing_pipeline"],
        cwd=folder,
        env=CLEAN | {"_BILLING_PIPELINE_COMPLETE": f"complete_{shell}", **asked, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.split()


TWO = PLIVO + PLIVO.split("\n", 1)[1].replace('"plivo"', '"ycloud"').replace('"main"', '"shop"')


def test_tab_offers_commands_accounts_and_months(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text(TWO.format(address="http://127.0.0.1:1"))
    for month in ("plivo/main/2026-04", "ycloud/shop/2026-05", "talkdesk/left/2020-01"):
        (tmp_path / "data" / "raw" / month).mkdir(parents=True)
    now = {"BILLING_NOW": "2026-06-15T12:00:00Z"}
    assert offered(tmp_path, "billing-pipeline re") == ["refresh", "restatements", "replay", "report"]
    assert offered(tmp_path, "billing-pipeline refresh --provider ") == ["plivo", "talkdesk", "ycloud"]
    assert offered(tmp_path, "billing-pipeline refresh --provider y", "fish") == ["ycloud"]
    assert '"ycloud"' in "".join(offered(tmp_path, "billing-pipeline refresh --provider y", "zsh"))
    assert offered(tmp_path, "billing-pipeline refresh --account ") == ["left", "main", "shop"]
    assert offered(tmp_path, "billing-pipeline refresh --provider ycloud --account ") == ["shop"]
    assert offered(tmp_path, "billing-pipeline approve ") == ["plivo/main", "talkdesk/left", "ycloud/shop"]
    assert offered(tmp_path, "billing-pipeline approve plivo/main ", **now) == ["2026-06", "2026-05", "2026-04"]
    both = offered(tmp_path, "billing-pipeline refresh --provider talkdesk --period ", **now)
    assert both == ["2026-06", "2026-05", "2020-01"]
    assert offered(tmp_path, "billing-pipeline invoice add pl") == ["plivo/main"]


@pytest.mark.parametrize("broken", ["= broken", "account = 3", "", "[[account]]\nprovider = 1", None])
def test_tab_says_nothing_of_a_configuration_that_is_broken_and_offers_what_the_folder_has(
    tmp_path: Path, broken: str | None
) -> None:
    (tmp_path / "data" / "raw" / "plivo" / "main" / "2026-05").mkdir(parents=True)
    variables = {"BILLING_NOW": "never"}
    if broken is None:
        variables["BILLING_ACCOUNTS"] = "not-there.toml"
    else:
        (tmp_path / "accounts.toml").write_text(broken)
    assert "plivo/main" in offered(tmp_path, "billing-pipeline approve ", **variables)
    assert offered(tmp_path, "billing-pipeline approve plivo/main ", **variables) == ["2026-05"]


HEAVY = {"pyarrow", "duckdb", "numpy", "httpx", "pandas", "dagster", "billing_pipeline.line"}


@pytest.mark.parametrize("how", ["--help", "refresh --help", "TAB"])
def test_help_and_tab_import_nothing_that_only_work_needs(tmp_path: Path, how: str) -> None:
    environment = CLEAN | {"COMP_WORDS": "billing-pipeline refresh --account ", "COMP_CWORD": "3"}
    if how == "TAB":
        environment |= {"_BILLING_PIPELINE_COMPLETE": "complete_bash"}
    arguments = [] if how == "TAB" else how.split()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-X", "importtime", "-m", "billing_pipeline", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert imported & HEAVY == set()
    assert "main" in done.stdout if how == "TAB" else "Exit status" in done.stdout
