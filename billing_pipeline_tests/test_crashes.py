"""A run that dies at any moment, a full disk, a folder that cannot be written: numbers are old or new, and the next run heals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest
from rich.console import Console

from billing_pipeline.definitions import build
from billing_pipeline.refresh import refresh
from billing_pipeline.sandbox.app import running
from billing_pipeline.verify import verify

from .conftest import Company
from .served import PATIENCE, PROJECT, until
from .soak.books import shown
from .soak.rounds import soak


def test_kills_at_random_moments_are_survived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whats = {"refresh": 2, "refresh --watch": 1, "approve": 1}
    kills, _ = soak(5, 20261122, tmp_path, whats, print, ["talkdesk"])
    assert sum(kills.values()) >= 5


def test_a_dagster_run_typed_by_hand_and_killed_holds_up_nobody_without_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(PROJECT / name, tmp_path)
    (tmp_path / "data" / "dagster").mkdir(parents=True)
    with running(now=datetime(2026, 6, 3, 6, tzinfo=UTC), scale=0.02) as sandbox:
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "TMPDIR") if name in os.environ}
        told = {"BILLING_SANDBOX": sandbox, "BILLING_NOW": "2026-06-03T06:00:00Z", "DAGSTER_HOME": str(tmp_path)}

        def typed() -> subprocess.Popen[bytes]:
            with (tmp_path / "log").open("ab") as log:
                return subprocess.Popen(
                    [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "billing_pipeline.definitions",
                     "--select", 'key:"talkdesk/main/raw" or key:"talkdesk/main/charges"', "--partition", "2026-05"],
                    cwd=tmp_path, env=kept | told, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip

        httpx.put(f"{sandbox}/_sandbox/faults", json={"provider": "talkdesk", "statuses": [503] * 1000})
        first = typed()
        until(
            lambda: httpx.get(f"{sandbox}/_sandbox/requests?provider=talkdesk").json()["requests"] or None, "a request"
        )
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        httpx.put(f"{sandbox}/_sandbox/faults", json={"provider": "talkdesk", "statuses": []}).raise_for_status()
        assert typed().wait(PATIENCE) == 0, (tmp_path / "log").read_text()[-3000:]
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        newest, oldest = instance.get_runs()
        assert (oldest.status, newest.status) == (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS)
    assert not list((tmp_path / "data" / "dagster" / "under_way").iterdir())


def test_what_a_killed_watch_fetched_of_a_final_month_is_compared_by_the_next_run(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.world.seed = "another company"
    company.line.fetch(may, explicit=True)  # and here the run dies
    assert company.line.unloaded() == [may]
    outcomes = refresh(company.line, Console(quiet=True), providers=["plivo"], accounts=["main"])
    assert [outcome.failure for outcome in outcomes if outcome.failure] == []
    assert [e.decision for e in company.line.ledger.of(may)] == ["final", "restated"]
    assert verify(company.line).findings == []
    assert company.line.unloaded() == []


def test_what_a_killed_run_fetched_on_the_last_day_on_which_it_was_served_is_not_lost(company: Company) -> None:
    april = company.month("infobip", "main", "2026-04")
    company.at("2026-06-30T23:30")
    company.line.fetch(april)
    stated = company.stated(april)
    company.at("2026-07-01T06:00")
    assert april not in company.line.open()
    refresh(company.line, Console(quiet=True), providers=["infobip"])
    assert company.shown(april) == stated


def test_the_schedule_too_lets_a_run_load_what_a_killed_one_fetched(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.fetch(may, explicit=True)
    definitions = build(company.line)
    schedule = definitions.resolve_schedule_def("daily_open_months")
    with dg.build_schedule_context(
        repository_def=definitions.get_repository_def(), scheduled_execution_time=company.world.now()
    ) as context:
        requests = schedule.evaluate_tick(context).run_requests
    (found,) = [r for r in requests or [] if r.tags["billing/reason"] == "fetched and never loaded"]
    assert found.partition_key == "2026-05"
    assert found.asset_selection == [dg.AssetKey(["plivo", "main", "charges"])]


def test_a_month_whose_landing_cannot_be_loaded_is_told_again_and_holds_up_nobody(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.line.publish()
    before = company.shown(may)
    company.line.fetch(may, explicit=True)
    newest = company.line.landings.newest(may)
    assert newest is not None
    (newest.folder / "pages.jsonl").write_bytes(b"")
    for _ in range(2):
        outcomes = refresh(company.line, Console(quiet=True), providers=["plivo"], accounts=["main"])
        assert [str(o.partition) for o in outcomes if o.failure] == ["plivo/main 2026-05"]
        assert company.shown(may) == before


AS_ROOT = ["unshare", "--map-root-user", "--mount", "sh", "-euc"]


def in_a_mount_of_its_own(script: str, company: Company, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may mount what it likes, with the company's accounts, `refresh` and `verify`."""
    folder = company.line.data.parent
    address = company.address
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "BILLING_SANDBOX": address,
        "BILLING_NOW": f"{company.world.now():%Y-%m-%dT%H:%M:%SZ}",
        "BILLING_DATA": str(company.line.data),
        "DATA": str(company.line.data),
        "PIPELINE": f"{sys.executable} -m billing_pipeline",
        "COLUMNS": "300",
        **variables,
    }
    if subprocess.run([*AS_ROOT, "true"], capture_output=True).returncode:  # noqa: S603
        pytest.skip("NOT TESTED: this machine lets nobody mount (unshare --map-root-user --mount is refused)")
    return subprocess.run(  # noqa: S603
        [*AS_ROOT, script], cwd=folder, env=environ, capture_output=True, text=True, timeout=300
    )


def test_a_full_disk_leaves_the_old_numbers_and_the_run_after_it_heals(company: Company) -> None:
    company.world.scale = 0.05
    june = company.month("ycloud", "main", "2026-06")
    told = in_a_mount_of_its_own(
        """
        mkdir -p $DATA && mount -t tmpfs -o size=12m tmpfs $DATA
        one() { $PIPELINE refresh --provider ycloud --period 2026-06; }
        one > first.log 2>&1
        cp $DATA/warehouse.duckdb before.duckdb
        for left in 0 40 600 1200; do
            curl -s -X PUT -d "{\\"now\\": \\"2026-06-16T06:00:00Z\\"}" $BILLING_SANDBOX/_sandbox/clock > clock
            free=$(df -k --output=avail $DATA | tail -1)
            head -c $(( (free - left) * 1024 )) /dev/zero > $DATA/filler || true
            BILLING_NOW=2026-06-16T06:00:00Z one > full-$left.log 2>&1 && echo "$left: 0" >> status || echo "$left: $?" >> status
            cp $DATA/warehouse.duckdb full-$left.duckdb
            rm $DATA/filler
        done
        BILLING_NOW=2026-06-16T06:00:00Z one > last.log 2>&1
        BILLING_NOW=2026-06-16T06:00:00Z $PIPELINE verify > verify.log 2>&1
        cp $DATA/warehouse.duckdb after.duckdb
        find $DATA -name '.*' > left
        """,
        company,
    )
    folder = company.line.data.parent
    logs = "\n".join(f"{path.name}:\n{path.read_text()}" for path in sorted(folder.glob("*.log")))
    assert told.returncode == 0, told.stderr + logs
    company.at("2026-06-16T06:00")
    new = company.stated(june)
    company.at("2026-06-15T12:00")
    old = company.stated(june)
    assert shown(folder / "before.duckdb").own == {june.path: old}
    refused = 0
    told_of = [path for path in folder.glob("full-*.log") if "MB free" in path.read_text()]
    for path in folder.glob("full-*.duckdb"):
        assert shown(path).own[june.path] in (old, new)
        refused += "No space left" in path.with_suffix(".log").read_text()
        assert "This program did not expect it" not in path.with_suffix(".log").read_text()
    assert refused >= 2, logs
    assert len(told_of) >= refused, logs
    assert shown(folder / "after.duckdb").own == {june.path: new}
    assert [line for line in (folder / "left").read_text().split() if "/mailbox/" not in line] == []


def test_a_folder_that_cannot_be_written_is_told_and_the_old_numbers_stay(company: Company) -> None:
    company.world.scale = 0.05
    june = company.month("ycloud", "main", "2026-06")
    company.do(june)
    company.line.publish()
    before = company.shown(june)
    told = in_a_mount_of_its_own(
        """
        mount --bind $DATA $DATA && mount -o remount,bind,ro $DATA
        $PIPELINE refresh --provider ycloud --period 2026-06 > readonly.log 2>&1 && exit 1 || echo $? > status
        """,
        company,
    )
    folder = company.line.data.parent
    log = (folder / "readonly.log").read_text()
    assert told.returncode == 0, told.stderr + log
    assert (folder / "status").read_text() == "1\n", log
    assert "Read-only file system" in log
    assert str(company.line.data) in log
    assert "Traceback" not in log
    assert company.shown(june) == before
    company.do(june)
    company.line.publish()
    assert verify(company.line).findings == []


def test_what_a_killed_run_wrote_into_the_history_is_gone_once_the_next_fetch_is_decided_about(
    company: Company,
) -> None:
    june = company.month("plivo", "main", "2026-06")
    company.do(june)
    history = company.line.loading.history
    (first,) = [history.path(entry) for entry in company.line.ledger.of(june)]
    fetched = company.line.fetch(june).landing
    assert fetched is not None
    died = first.with_name(f"{fetched.folder.name}.parquet")  # written before the month's file takes its place
    shutil.copyfile(first, died)
    company.world.seed = "another company"
    company.do(june)
    company.line.publish()
    assert not died.exists()
    assert verify(company.line).findings == []
