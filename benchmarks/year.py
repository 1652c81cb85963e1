"""A year of daily refreshes on the sandbox: how much room the history takes, and what each day adds.

.venv/bin/python -m benchmarks.year        about five minutes; prints the table that docs/history.md quotes
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from billing_pipeline import environment
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import RateLimit
from billing_pipeline.providers import providers
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

FIRST = datetime(2025, 6, 1, 6, tzinfo=UTC)
DAYS = 365
ACCOUNTS = {("plivo", "main"), ("talkdesk", "main")}


def size(folder: Path) -> int:
    """Bytes of all files, a file with several names once."""
    files = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(files.values())


def main() -> None:
    """Refresh every day of a year at 06:00 UTC, once a week a second time, and count."""
    world = World(Clock(FIRST))
    world.enforce_limits = False
    with running(world=world) as address, tempfile.TemporaryDirectory() as folder:
        found = environment.sandbox_configuration(address, world.now())
        accounts = tuple(
            settings.model_copy(update={"rate_limit": RateLimit(requests=1000, seconds=1)})
            for settings in found.accounts
            if (settings.provider, settings.name) in ACCOUNTS
        )
        configuration = replace(found, accounts=accounts, history_from=BillingPeriod(2025, 5))
        line = Line(Path(folder), configuration, providers(), world.now, "year")
        did: Counter[str] = Counter()
        for day in range(DAYS):
            # The second refresh of a day, as after a restart, mostly finds nothing new.
            for hour in (0, 1) if day % 7 == 0 else (0,):
                world.clock.set(FIRST + timedelta(days=day, minutes=20 * hour))
                for partition in line.open():
                    line.fetch(partition)
                    did[line.load(partition).action] += 1
            if day % 30 == 0:
                line.publish()
        line.publish()
        entries = list(line.ledger.all())
        fetched = sum(entry.fetch["bytes"] for entry in entries)
        print(
            f"{DAYS} days, {len(entries)} fetches: {did['written']} changed the month, {did['kept']} brought nothing new"
        )
        print(f"bytes answered by the providers: {fetched:,}")
        for name in ("raw", "charges", "history"):
            print(f"data/{name}: {size(line.data / name):,} bytes")
        ledger = sum(path.stat().st_size for path in line.data.glob("raw/*/*/ledger.jsonl"))
        print(f"of data/raw, ledgers: {ledger:,} bytes, {ledger // len(entries):,} a fetch")
        print(f"data/warehouse.duckdb: {line.warehouse.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
