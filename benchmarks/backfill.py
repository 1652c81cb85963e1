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
        for count in (1, 2, 4, 4):  # four twice: the first time warms the servers of the last two
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
                command = [sys.executable, "-m", "benchmarks.backfill", "child", str(folder / "told.json")]
                seconds, cpu, peak = measure.timed(f"{count} accounts", Start(command, variables), folder)
                told = json.loads((folder / "told.json").read_text())
                _require(told, count, rows, servers)
                months = count * MONTHS
                print(
                    f"{count} accounts, {months} months of {rows:,} rows: {seconds:6.1f} s, {cpu:6.1f} s CPU "
                    f"({cpu / seconds:.2f} cores), {peak:.0f} MB; a month {seconds / months:.2f} s",
                    flush=True,
                )
                whole = sum(told["stages"].values())
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


def child(target: Path) -> None:
    """The refresh, with a watch on each of its stages: seconds that all accounts together spent in it."""
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
    outcomes = refresh(line, Console(quiet=True))
    failed = [outcome.failure for outcome in outcomes if outcome.failure]
    if failed:
        raise SystemExit("\n".join(map(str, failed)))
    months: dict[str, list[Any]] = {}
    for held in line.lake.all():
        account = f"{held.partition.provider}/{held.partition.account}"
        months.setdefault(account, []).append([held.tally.rows, held.footer["totals"]["USD"]])
    target.write_text(json.dumps({"stages": spent, "months": months}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else 100_000)
