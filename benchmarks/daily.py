"""The daily refresh of four accounts with two open months each, on the sandbox: mostly start-up.

.venv/bin/python -m benchmarks.daily        half a minute; prints a table, medians of five

`published` is the time from the command to the published warehouse, `whole` includes the reports that are drawn behind it. The
last line is one month of one account as a Dagster run of its own, beside the same month by `refresh`.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import measure
from .contestants import Start

PORT = 48123
SANDBOX = f"http://127.0.0.1:{PORT}"
FIRST = datetime(2026, 6, 2, 6, tzinfo=UTC)  # May is open until the 5th, June has begun
RUNS = 5
ONE = ("--provider", "plivo", "--period", "2026-05")


def main() -> None:
    """Fill a data folder, then refresh it every few hours."""
    accounts = (measure.ROOT / "billing_pipeline/sandbox/accounts.toml").read_text()
    # One account for each provider; the sandbox's fifth is Plivo's second.
    blocks = [block for block in re.split(r"(?m)^(?=\[\[account\]\])", accounts) if 'name = "emea"' not in block]
    text = "".join(blocks).replace("@HISTORY@", "2026-05").replace("@SANDBOX@", SANDBOX)
    text = text.replace("@CALLBACKS@", f"127.0.0.1:{PORT + 1}")
    secrets = {name: name.lower().replace("_", "-") for name in re.findall(r'env = "(\w+)"', text)}
    command = [sys.executable, "-m", "billing_pipeline"]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        (folder / "accounts.toml").write_text(text)
        for file in ("dagster.yaml", "workspace.yaml"):
            (folder / file).write_text((measure.ROOT / file).read_text())
        environment = {**secrets, "BILLING_ACCOUNTS": str(folder / "accounts.toml"), "DAGSTER_HOME": name}
        environment |= {"DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(measure.ROOT), "PYTHONWARNINGS": "ignore"}
        pretended = f"{FIRST:%Y-%m-%dT%H:%M:%SZ}"
        sandbox = subprocess.Popen(
            [*command, "sandbox", "--port", str(PORT), "--now", pretended], stdout=subprocess.DEVNULL
        )
        try:
            _until_it_answers()

            def took(what: str, hours: int, arguments: Sequence[str]) -> tuple[float, float]:
                now = FIRST + timedelta(hours=hours)
                _clock(now)
                said = {**environment, "BILLING_NOW": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
                seconds, cpu, _ = measure.timed(what, Start([*command, *arguments], said), folder)
                return seconds, cpu

            took("the first", 0, ("refresh",))
            columns: dict[str, list[tuple[float, float]]] = {
                "published": [],
                "whole": [],
                "one month": [],
                "by Dagster": [],
            }
            dagster = ["asset", "materialize", "-m", "billing_pipeline.definitions", "--partition", "2026-05"]
            for run in range(1, RUNS + 1):
                columns["published"].append(took("published", run * 8, ("refresh", "--no-reports")))
                columns["whole"].append(took("whole", run * 8 + 2, ("refresh",)))
                columns["one month"].append(took("one month", run * 8 + 4, ("refresh", "--no-reports", *ONE)))
                now = FIRST + timedelta(hours=run * 8 + 6)
                _clock(now)
                said = {**environment, "BILLING_NOW": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
                keys = 'key:"plivo/main/raw" or key:"plivo/main/charges"'
                start = Start([sys.executable, "-m", "dagster", *dagster, "--select", keys], said)
                columns["by Dagster"].append(measure.timed("by Dagster", start, folder)[:2])
            print(f"medians of {RUNS}")
            for what, runs in columns.items():
                seconds, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
                print(f"{what:<12}{seconds:6.2f} s {cpu:6.2f} s CPU")
        finally:
            sandbox.terminate()
            sandbox.wait()


def _until_it_answers() -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{SANDBOX}/_sandbox/clock").read()  # noqa: S310  loopback
            return
        except OSError:
            time.sleep(0.1)
    raise measure.Failed("the sandbox did not start")


def _clock(now: datetime) -> None:
    body = json.dumps({"now": f"{now:%Y-%m-%dT%H:%M:%SZ}"}).encode()
    request = urllib.request.Request(f"{SANDBOX}/_sandbox/clock", body, method="PUT")  # noqa: S310  loopback
    urllib.request.urlopen(request).read()  # noqa: S310


if __name__ == "__main__":
    main()
