"""A year of four accounts, 100,000 rows a month each: how long, where the time goes, and whether accounts run side by side.

.venv/bin/python -m benchmarks.backfill [ROWS]        some minutes; prints a table

Two accounts of YCloud and two of Plivo, every one with a server of its own; their rate limits are lifted. With them a year of
these months takes as long as the limits say: 29,000 requests at YCloud's 1,000 an hour are a day.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from billing_pipeline import environment
from billing_pipeline.account_process import Processes
from billing_pipeline.refresh import refresh

from . import measure
from .contestants import ACCOUNTS, Start

SIDES = (("ycloud", "a"), ("plivo", "a"), ("ycloud", "b"), ("plivo", "b"))
MONTHS = 12
FIRST = "2025-06"


def main(rows: int) -> None:
    """One account, two, four; each in a new process on an empty folder."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(measure.served(provider, rows, "any-month", *(["other"] if name == "b" else [])))
            for provider, name in SIDES
        ]
        # Four more than once: the first time warms the servers of the last two.
        for count, cores in ((1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 1), (4, 2)):
            with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
                folder = Path(name)
                blocks = [
                    "[[account]]\n" + ACCOUNTS[provider].format(url=server.url).replace('"main"', f'"{side}"')
                    + "rate_limit = { requests = 1000000, seconds = 1 }\n"
                    # Both Plivo accounts have the same number rentals, which a person would have to say are two.
                    + ('disjoint_from = ["a"]\n' if side == "b" else "")
                    for (provider, side), server in zip(SIDES[:count], servers, strict=False)
                ]  # fmt: skip
                (folder / "accounts.toml").write_text(f'history_from = "{FIRST}"\n\n' + "\n".join(blocks))
                variables = {
                    "BILLING_ACCOUNTS": str(folder / "accounts.toml"),
                    "BILLING_DATA": str(folder / "data"),
                    "BILLING_NOW": "2026-05-31T12:00:00Z",
                    "BENCHMARK_SECRET": "nobody's",
                    "PYTHONPATH": str(measure.ROOT),
                }
                command = [sys.executable, "-m", "benchmarks.backfill", "child", str(folder / "told.json"), str(cores)]
                seconds, cpu, peak = measure.timed(f"{count} accounts", Start(command, variables), folder)
                told = json.loads((folder / "told.json").read_text())
                _require(told, count, rows, servers)
                months = count * MONTHS
                print(
                    f"{count} accounts, {months} months of {rows:,} rows, {told['processes']} processes: {seconds:6.1f} s, "
                    f"{cpu:6.1f} s CPU ({cpu / seconds:.2f} cores), {peak:.0f} MB together; a month {seconds / months:.2f} s",
                    flush=True,
                )
                whole = sum(told["stages"].values())
                if not told["processes"]:  # what they do is not seen from here
                    print(
                        "     " + ", ".join(f"{stage} {took / whole:.0%}" for stage, took in told["stages"].items()),
                        flush=True,
                    )


def _require(told: dict[str, Any], count: int, rows: int, servers: list[measure.Served]) -> None:
    """Every total of every month is what its server has, to the last digit."""
    expected = {
        f"{provider}/{side}": [server.rows, format(server.total.normalize(), "f")]
        for (provider, side), server in zip(SIDES[:count], servers, strict=False)
    }
    if told["months"] != {account: [facts] * MONTHS for account, facts in expected.items()}:
        raise measure.Failed(f"brought {told['months']}; expected {MONTHS} times each of {expected}")


def child(target: Path, cores: int) -> None:
    """The refresh, with more than one of `cores` in processes where it finds them worth it.

    There is a watch on each of its stages: seconds that all accounts in threads together spent in it.
    """
    line = environment.line()
    spent: Counter[str] = Counter()
    only = threading.Lock()

    def watched(stage: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return step(*arguments, **named)
            finally:
                with only:
                    spent[stage] += time.perf_counter() - began

        return run

    for stage in ("fetch", "load", "publish"):
        setattr(line, stage, watched(stage, getattr(line, stage)))
    processes = Processes(cores if cores > 1 else 0)
    outcomes = refresh(line, Console(quiet=True), processes=processes)
    failed = [outcome.failure for outcome in outcomes if outcome.failure]
    if failed:
        raise SystemExit("\n".join(map(str, failed)))
    months: dict[str, list[Any]] = {}
    for held in line.lake.all():
        account = f"{held.partition.provider}/{held.partition.account}"
        months.setdefault(account, []).append([held.tally.rows, held.footer["totals"]["USD"]])
    target.write_text(json.dumps({"stages": spent, "months": months, "processes": processes.started}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 100_000)
