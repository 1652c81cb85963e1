"""Accounts that keep the interpreter busy get processes of their own: the same numbers, whatever becomes of the processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from billing_pipeline import environment
from billing_pipeline.account_process import Processes
from billing_pipeline.refresh import outcome_rows, refresh
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import free_port
from .test_cli import CLEAN

NOW = "2026-06-15T12:00:00Z"
ACCOUNTS = """history_from = "2026-04"

[[account]]
provider = "plivo"
name = "main"
base_url = "{address}/plivo"
auth_id = "MAACMERETAILSANDBOX1"
auth_token = {{ env = "PLIVO_MAIN" }}
rate_limit = {{ requests = 1000, seconds = 1 }}

[[account]]
provider = "ycloud"
name = "main"
base_url = "{address}/ycloud"
api_key = {{ env = "YCLOUD_KEY" }}
"""
SECRETS = {"PLIVO_MAIN": "sandbox-plivo-main-token", "YCLOUD_KEY": "sandbox-ycloud-key"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two accounts of three months, and the variables that go with it."""
    world = World(Clock(datetime.fromisoformat(NOW)))
    world.enforce_limits = False
    with running(port=free_port(), world=world) as address:
        for name in set(os.environ) - set(CLEAN):
            monkeypatch.delenv(name)
        for name, value in {**SECRETS, "BILLING_NOW": NOW}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        (tmp_path / "accounts.toml").write_text(ACCOUNTS.format(address=address))
        yield tmp_path


class Watching(io.StringIO):
    """What a console prints; when a month is told, something is done too."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self.then = then

    def write(self, text: str) -> int:
        if "✓" in text:
            self.then()
        return super().write(text)


@pytest.fixture
def children() -> Callable[[], list[int]]:
    """The processes that the test has started and that live; other tests may have servers of theirs."""
    before = set(living())
    return lambda: [child for child in living() if child not in before]


def living() -> list[int]:
    """The processes that this one has started and that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # gone meanwhile
            continue
        if int(parent) == os.getpid() and state != "Z":
            found.append(int(path.parent.name))
    return found


def told(data: str, processes: Processes | None, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Any]]:
    """What a refresh into a folder of its own says, and the charges that it publishes."""
    monkeypatch.setenv("BILLING_DATA", data)
    line = environment.line()
    outcomes = refresh(line, Console(quiet=True), processes=processes)
    return outcome_rows(outcomes), charges(line.warehouse.path)


def charges(warehouse: Path, columns: str = "*") -> list[Any]:
    """What is published."""
    with duckdb.connect(str(warehouse), read_only=True) as db:
        return db.execute(f"SELECT {columns} FROM charges ORDER BY ALL").fetchall()


WITHOUT_SOURCE = "* EXCLUDE (x_RowSource)"
"""It names the landing, of which there are two where a process was killed after one."""


def test_processes_bring_the_numbers_that_threads_bring(
    folder: Path,
    children: Callable[[], list[int]],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    threads, processes = Processes(2), Processes(2, busy=0, share=0)
    expected = told("threads", threads, monkeypatch)
    assert told("processes", processes, monkeypatch) == expected
    assert (threads.started, processes.started, processes.sound) == (0, 2, 2)
    assert not children()
    assert not capfd.readouterr().err  # of the processes


def test_a_process_that_is_killed_leaves_its_months_to_the_one_that_started_it(
    folder: Path, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []

    def kill() -> None:
        for child in children():
            os.kill(child, signal.SIGKILL)
            killed.append(child)

    line, processes = environment.line(), Processes(2, busy=0, share=0)
    outcomes = refresh(line, Console(file=Watching(kill)), processes=processes)
    assert killed
    assert processes.sound < processes.started
    done = {row["subject"]: row["action"] for row in outcome_rows(outcomes)}
    assert sorted(done) == [f"{provider}/main 2026-0{month}" for provider in ("plivo", "ycloud") for month in (4, 5, 6)]
    assert set(done.values()) <= {"loaded", "kept"}  # kept: it was killed after the month and before it told
    published = charges(line.warehouse.path, WITHOUT_SOURCE)
    told("threads", None, monkeypatch)
    assert published == charges(folder / "threads" / "warehouse.duckdb", WITHOUT_SOURCE)


def test_ctrl_c_ends_the_processes_too_and_the_next_refresh_does_what_is_left(
    folder: Path, children: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    def stop() -> None:
        if children() and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    watching = Watching(stop)
    with pytest.raises(KeyboardInterrupt):
        refresh(environment.line(), Console(file=watching), processes=Processes(1, busy=0, share=0))
    assert "Stopped. Published:" in watching.getvalue()
    assert not children()
    told("data", None, monkeypatch)
    told("threads", None, monkeypatch)
    one, other = (charges(folder / name / "warehouse.duckdb", WITHOUT_SOURCE) for name in ("data", "threads"))
    assert one == other


def test_a_process_ends_with_the_one_that_started_it(folder: Path) -> None:
    listed = (
        "import pickle, sys; from billing_pipeline.account_work import Task; from billing_pipeline import environment; "
    )
    give = "pickle.dump((Task('plivo', 'main', (), tuple(environment.line().open()), False, True), True), sys.stdout.buffer)"
    task = subprocess.run([sys.executable, "-c", listed + give], capture_output=True, check=True).stdout  # noqa: S603  ourselves
    serve = [sys.executable, "-c", "from billing_pipeline.account_process import serve; serve()"]
    ended = subprocess.run(serve, input=task, capture_output=True, check=False)  # noqa: S603  its input ends after the task
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert not list(folder.glob("data/charges/*/*2026-06*"))
