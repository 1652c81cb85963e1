"""How the warehouse grows: 1, 10 and 100 million rows; its size, making it anew, replacing one month in it, asking it.

.venv/bin/python -m benchmarks.growth [1 10 100]        prints a table; 1 and 10 unless told; 100 takes an hour and 15 GB of disk

A million rows are one month of one account, made once through the whole line and then written under other names: ten accounts,
and as many months as it takes. What is replaced is the newest month of one account, as on most days.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from billing_pipeline.environment import line as found_line
from billing_pipeline.finality import Finality
from billing_pipeline.lake import Lake
from billing_pipeline.landing import Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.warehouse import Issuer, Warehouse

from . import contestants, measure
from .contestants import Start, Task

ROWS = 1_000_000
ACCOUNTS = 10
FIRST = BillingPeriod(2016, 1)
ASKED = {
    "one month's charges by service": "SELECT ServiceName, BillingCurrency, sum(BilledCost) FROM charges "
    "WHERE x_BillingPeriod = (SELECT max(x_BillingPeriod) FROM charges) GROUP BY ALL",
    "monthly_cost": "FROM monthly_cost",
    "cost_by_service": "FROM cost_by_service",
    "month_over_month": "FROM month_over_month",
    "movers": "FROM movers",
    "anomalies": "FROM anomalies",
    "one charge by x_RowSource": "FROM charges WHERE x_RowSource = (SELECT max(x_RowSource) FROM charges)",
}


def main(sizes: list[int]) -> None:
    """Grow one lake from size to size."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, measure.served("plivo", ROWS) as server:
        folder = Path(name)
        start = contestants.ours(Task("plivo", server.url, server.items, folder))
        seconds, _, peak = measure.timed("one month", start, folder)
        print(f"one month, from the provider to the warehouse: {seconds:.1f} s, {peak:.0f} MB", flush=True)
        (template,) = (folder / "data/charges").rglob("*.parquet")
        grown = folder / "grown"
        grown.mkdir()
        held = 0

        def step(what: str, *arguments: object) -> tuple[float, float]:
            """One step in a process of its own; this one stays small, for what it starts inherits its peak."""
            command = [sys.executable, "-m", "benchmarks.growth", *map(str, arguments)]
            seconds, _, peak = measure.timed(what, Start(command, environment), folder)
            return seconds, peak

        environment = {**start.environment, "PYTHONPATH": str(measure.ROOT)}
        for size in sizes:
            step("grown", "write", template, grown, held, size, "first")
            held = size
            (grown / "warehouse.duckdb").unlink(missing_ok=True)
            told = [f"{size:>4} million rows"]
            for what in ("anew", "replaced", "the same"):
                if what == "replaced":
                    step("replaced", "write", template, grown, held - 1, held, f"again {time.time()}")
                seconds, peak = step(what, "publish", grown)
                told.append(f"{what} {seconds:.1f} s {peak:.0f} MB")
            file = (grown / "warehouse.duckdb").stat().st_size / 1e6
            parquet = sum(path.stat().st_size for path in grown.rglob("*.parquet")) / 1e6
            print(", ".join([*told, f"file {file:,.0f} MB, Parquet {parquet:,.0f} MB"]), flush=True)
            command = [sys.executable, "-m", "benchmarks.growth", "ask", str(grown / "warehouse.duckdb")]
            subprocess.run(command, cwd=measure.ROOT, check=True)


def publish(folder: Path) -> None:
    """Bring the warehouse of a folder up to date with its lake."""
    line = found_line()
    issuers = {name: Issuer(provider.title, provider.calendar) for name, provider in line.providers.items()}
    Warehouse(folder).publish(Lake(folder).all(), [], issuers)


def _write(template: Path, lake: Lake, number: int, landing: str) -> None:
    account = f"a{number % ACCOUNTS}"
    partition = Partition("plivo", account, FIRST.plus(number // ACCOUNTS))
    with lake.replacement(partition) as new, pq.ParquetFile(template) as file:
        for batch in file.iter_batches(1 << 14):
            place = batch.schema.get_field_index("x_Account")
            renamed = batch.set_column(place, batch.schema.field(place), pa.repeat(pa.scalar(account), len(batch)))
            new.write(renamed)
        landed = SimpleNamespace(id=landing, sha256="", manifest={"fetched_at": "2026-06-05T06:00:00Z"})
        new.seal(landed, Finality("final", "", {}), left_out={}, notes=[])  # type: ignore[arg-type]
        new.publish()


def ask(file: Path) -> None:
    """Print what each query takes."""
    with duckdb.connect(str(file), read_only=True) as db:
        for what, query in ASKED.items():
            took = []
            for _ in range(2):  # the second time, as somebody at work
                began = time.perf_counter()
                db.execute(query).fetchall()
                took.append(time.perf_counter() - began)
            print(f"     {took[-1]:8.2f} s  {what}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["publish"]:
        publish(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["ask"]:
        ask(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["write"]:
        file, folder, begin, end, landing = sys.argv[2:]
        for number in range(int(begin), int(end)):
            _write(Path(file), Lake(Path(folder)), number, landing)
    else:
        main([int(size) for size in sys.argv[1:]] or [1, 10])
