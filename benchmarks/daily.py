"""The daily refresh of four accounts with two open months each, on the sandbox: mostly start-up.

.venv/bin/python -m benchmarks.daily        half a minute; prints a table, medians of five

`published` is the time from the command until the warehouse's file is replaced, `done` until the command comes back, `reports`
the same with the reports that are drawn behind it. The last line is one month of one account as a Dagster run of its own, beside
the same month by `refresh`. In the end all eight months have to be open still, so they were in every run.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from . import measure
from .contestants import Start

PORT = 48123
SANDBOX = f"http://127.0.0.1:{PORT}"
FIRST = datetime(
    2026, 6, 1, 2, tzinfo=UTC
)  # June has begun, also in UTC+8, and May is open for a day in which all is measured
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

            began = [0.0]

            def took(what: str, hours: int, arguments: Sequence[str]) -> tuple[float, float]:
                now = FIRST + timedelta(hours=hours)
                _clock(now)
                said = {**environment, "BILLING_NOW": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
                began[0] = time.time()
                seconds, cpu, _ = measure.timed(what, Start(arguments, said), folder)
                return seconds, cpu

            refresh = [*command, "refresh", "--no-reports"]
            dagster = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "billing_pipeline.definitions"]
            dagster += ["--partition", "2026-05", "--select", 'key:"plivo/main/raw" or key:"plivo/main/charges"']
            took("the first", 0, refresh)
            runs: dict[str, list[tuple[float, float]]] = defaultdict(list)
            published = []
            for run in range(1, RUNS + 1):
                runs["done"].append(took("done", run * 4 - 3, refresh))
                # Renaming a file is a change of it.
                published.append((folder / "data/warehouse.duckdb").stat().st_ctime - began[0])
                runs["reports"].append(took("reports", run * 4 - 2, [*command, "refresh"]))
                runs["one month"].append(took("one month", run * 4 - 1, [*refresh, *ONE]))
                runs["by Dagster"].append(took("by Dagster", run * 4, dagster))
            said = {
                **os.environ,
                **environment,
                "BILLING_NOW": f"{FIRST + timedelta(hours=RUNS * 4):%Y-%m-%dT%H:%M:%SZ}",
            }
            status = subprocess.run(
                [*command, "status", "--json"], env=said, cwd=folder, capture_output=True, check=True
            )
            finality = [month["x_Finality"] for month in json.loads(status.stdout)]
            if finality != ["provisional"] * 8:
                raise measure.Failed(f"eight months should have been open in every run; they are {finality}")
            print(f"medians of {RUNS}")
            print(f"{'published':<12}{statistics.median(published):6.2f} s")
            for what, each in runs.items():
                seconds, cpu = (statistics.median(column) for column in zip(*each, strict=True))
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
