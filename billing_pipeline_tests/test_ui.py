"""`billing-pipeline ui` as real processes: a folder with workspace.yaml and dagster.yaml, and nothing typed."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import httpx
import pytest

from billing_pipeline import ui

from .conftest import free_port
from .served import PROJECT, Ui, start, until

QUARTER = ["2026-03", "2026-04", "2026-05"]
ACCOUNTS = [("plivo", "emea"), ("talkdesk", "main")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The UI, ended as a person does it, with Ctrl-C."""
    started = start(tmp_path_factory.mktemp("project"))
    try:
        yield started
    finally:
        started.stop(signal.SIGINT)


def test_the_ui_runs_with_the_schedule_on_and_the_sandbox_beside_it_and_nothing_typed(running: Ui) -> None:
    repository = {"repositoryName": "__repository__", "repositoryLocationName": "billing"}
    told = running.ask(
        "query ($s: RepositorySelector!) { repositoryOrError(repositorySelector: $s) { ... on Repository {"
        " schedules { name scheduleState { status } } sensors { name sensorState { status } } } }"
        " instance { info } }",
        s=repository,
    )
    found = told["repositoryOrError"]
    states = {each["name"]: each["scheduleState"]["status"] for each in found["schedules"]}
    states |= {each["name"]: each["sensorState"]["status"] for each in found["sensors"]}
    assert states == dict.fromkeys(
        ("daily_open_months", "weekly_watch", "late_letters", "told_by_refresh", "publish_when_loaded"), "RUNNING"
    )
    assert "telemetry:\n  enabled: false" in told["instance"]["info"]
    assert {path.name for path in running.folder.iterdir()} == {"workspace.yaml", "dagster.yaml", "data", "log"}
    assert (running.folder / "data" / "dagster").is_dir()
    assert httpx.get(f"{running.sandbox}/_sandbox/clock").json() == {"now": "2026-06-15T12:00:00+00:00"}
    # Otherwise it would prove nothing that none is left in the end.
    assert len(running.processes()) > 4 or not Path("/proc").is_dir()


def test_a_backfill_over_a_quarter_ends_in_the_view_to_the_last_digit(running: Ui) -> None:
    keys = [{"path": [*account, step]} for account in ACCOUNTS for step in ("raw", "charges")]
    launched = running.ask(
        "mutation ($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {"
        " ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
        p={"assetSelection": keys, "partitionNames": QUARTER},
    )["launchPartitionBackfill"]

    def ended() -> str | None:
        backfill = running.ask(
            "query ($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }",
            id=launched["backfillId"],
        )["partitionBackfillOrError"]
        return backfill["status"] if backfill["status"].startswith(("COMPLETED", "FAILED", "CANCELED")) else None

    assert until(ended, "the backfill ends") == "COMPLETED_SUCCESS"
    expected = {
        (*account, month, currency): Decimal(amount)
        for account in ACCOUNTS
        for month in QUARTER
        for currency, amount in stated(running, *account, month).items()
    }

    def published() -> dict[tuple[str, ...], Decimal] | None:
        with duckdb.connect(str(running.folder / "data" / "warehouse.duckdb"), read_only=True) as db:
            rows = db.execute(
                "SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, sum(BilledCost) FROM charges GROUP BY ALL"
            ).fetchall()
        shown = {tuple(row[:4]): row[4] for row in rows}
        return shown if len(shown) == len(expected) else None

    assert until(published, "the warehouse is published by itself") == expected


def stated(running: Ui, provider: str, account: str, month: str) -> dict[str, str]:
    """What the provider would bill, by the sandbox's own account."""
    asked = {"provider": provider, "account": account, "period": month}
    return dict(json.loads(httpx.get(f"{running.sandbox}/_sandbox/totals", params=asked, timeout=60).text)["totals"])


def test_a_wrong_accounts_toml_is_shown_as_an_error_of_the_code_location_and_mending_it_is_enough(running: Ui) -> None:
    def reload() -> dict[str, Any]:
        entry = running.ask(
            'mutation { reloadRepositoryLocation(repositoryLocationName: "billing") { ... on WorkspaceLocationEntry {'
            " locationOrLoadError { __typename ... on PythonError { message cause { message } } } } } }"
        )["reloadRepositoryLocation"]
        return dict(entry["locationOrLoadError"])

    accounts = running.folder / "accounts.toml"
    accounts.write_text('history_from = "2026-01"\n\n[[account]]\nprovider = "plivvo"\nname = "main"\n')
    try:
        told = reload()
    finally:
        accounts.unlink()
    assert told["__typename"] == "PythonError"
    assert "accounts.toml" in told["cause"]["message"]
    assert "plivvo" in told["cause"]["message"]
    assert reload()["__typename"] == "RepositoryLocation"


def test_sigterm_ends_everything_and_a_run_that_was_under_way_does_not_hold_up_its_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = start(tmp_path, in_background=True)
    httpx.put(f"{started.sandbox}/_sandbox/faults", json={"provider": "plivo", "statuses": [503] * 1000})
    job = {"repositoryName": "__repository__", "repositoryLocationName": "billing", "pipelineName": "account_month"}
    launched = started.ask(
        "mutation ($e: ExecutionParams!) { launchRun(executionParams: $e) {"
        " ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }",
        e={
            "selector": {**job, "assetSelection": [{"path": ["plivo", "main", step]} for step in ("raw", "charges")]},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "2026-06"}]},
        },
    )["launchRun"]["run"]["runId"]

    def asks() -> bool | None:
        return bool(httpx.get(f"{started.sandbox}/_sandbox/requests?provider=plivo").json()["requests"]) or None

    until(asks, "the run asks Plivo")
    started.stop(signal.SIGTERM)
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        ui.close_interrupted_runs()  # the first thing that the next start does
        assert instance.get_run_by_id(launched).status == dg.DagsterRunStatus.FAILURE
        slots = instance.event_log_storage.get_concurrency_info("plivo_main")
        assert (slots.active_slot_count, slots.pending_step_count) == (0, 0)
    assert ui.close_interrupted_runs() == 0


def test_two_uis_of_one_folder_are_refused(running: Ui, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(running.folder)
    assert ui.run(free_port()) == 2


def test_a_port_that_is_taken_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert ui.run(port) == 2
    assert f"billing-pipeline ui --port {port + 1}" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_in_another_folder_the_ui_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ui.run(free_port()) == 2
    assert "cd to the project's folder" in capsys.readouterr().err
