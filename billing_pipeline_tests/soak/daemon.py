"""`billing-pipeline ui` killed: a run's process while the daemon lives, then everything with the daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import httpx

from ..test_ui import Ui, start, stated, until
from .books import require, shown

LAUNCH = (
    "mutation ($e: ExecutionParams!) { launchRun(executionParams: $e) {"
    " ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"
)
RUNS = "{ runsOrError { ... on Runs { results { runId status } } } }"
MONTH = "2026-06"


def daemon(folder: Path, say: Callable[[str], None]) -> int:
    """Two kills, each healed by Dagster alone; how many there were."""
    ui = start(folder)
    _launch(ui)
    for pid, command in _processes(ui):
        if "spawn_main" in command:  # what the code server runs a run in
            os.kill(pid, signal.SIGKILL)
    say("  killed the process of a Dagster run")
    _healed(ui)
    _launch(ui)
    for pid, _ in _processes(ui):
        os.kill(pid, signal.SIGKILL)
    ui.process.wait()
    say("  killed the UI, the daemon, the code server and the run")
    again = start(folder)
    try:
        _healed(again)
        warehouse = folder / "data" / "warehouse.duckdb"
        found = until(lambda: shown(warehouse).own.get(f"plivo/main/{MONTH}"), "the warehouse is published by itself")
        totals = {currency: Decimal(amount) for currency, amount in stated(again, "plivo", "main", MONTH).items()}
        require(found[1] == totals, f"after the daemon was killed: {found}, not {totals}")
    finally:
        again.stop(signal.SIGINT)
    environ = {**os.environ, "BILLING_NOW": "2026-06-15T12:00:00Z"}  # as `start` has it
    command = [sys.executable, "-m", "billing_pipeline", "verify"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)  # noqa: S603
    require(done.returncode == 0, f"verify found something: {done.stdout}{done.stderr}")
    return 2


def _launch(ui: Ui) -> None:
    """A run that hangs in its fetch, because Plivo answers 503, until it is killed."""
    before = len(_asked(ui))
    httpx.put(f"{ui.sandbox}/_sandbox/faults", json={"provider": "plivo", "statuses": [503] * 1000})
    job = {"repositoryName": "__repository__", "repositoryLocationName": "billing", "pipelineName": "account_month"}
    selection = [{"path": ["plivo", "main", step]} for step in ("raw", "charges")]
    ui.ask(
        LAUNCH,
        e={
            "selector": {**job, "assetSelection": selection},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": MONTH}]},
        },
    )
    until(lambda: len(_asked(ui)) > before or None, "the run asks Plivo")
    httpx.put(f"{ui.sandbox}/_sandbox/faults", json={"provider": "plivo", "statuses": []})


def _asked(ui: Ui) -> list[object]:
    return list(httpx.get(f"{ui.sandbox}/_sandbox/requests?provider=plivo").json()["requests"])


def _processes(ui: Ui) -> list[tuple[int, str]]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == ui.folder:
                found.append((int(process.name), (process / "cmdline").read_bytes().decode()))
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
    return found


def _healed(ui: Ui) -> None:
    """The newest run, which Dagster started by itself, succeeds."""

    def done() -> bool | None:
        runs = ui.ask(RUNS)["runsOrError"]["results"]
        states = [run["status"] for run in runs]
        return ("FAILURE" in states and states[0] == "SUCCESS" and "STARTED" not in states) or None

    until(done, "Dagster repeats the run by itself")
