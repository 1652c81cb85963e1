"""What the second look at a large month costs: a changed fetch, a restatement, its approval; each against the first fetch.

.venv/bin/python -m benchmarks.restated 1000000        prints a table; about five minutes. Ratios are of CPU time
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import measure, month
from .contestants import Start, Task, ours

WHO = "plivo/main"


def main(rows: int) -> None:
    """The month while it is open, as it moved, closed, stated anew, and approved: five commands on one data folder."""
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        measure.served("plivo", rows) as before,
        measure.served("plivo", rows, "later") as after,
    ):
        steps: list[tuple[str, measure.Served, str, Sequence[str]]] = [
            ("first fetch", before, "2026-06-02T06:00:00Z", ()),
            ("the same again", before, "2026-06-03T06:00:00Z", ()),
            ("a changed fetch", after, "2026-06-04T06:00:00Z", ()),
            ("the closing one", before, "2026-06-05T06:00:00Z", ()),
            ("a restatement", after, "2026-06-14T06:00:00Z", ()),
            ("its approval", after, "2026-06-14T07:00:00Z", ("approve", WHO, month.PERIOD)),
            ("verify", after, "2026-06-14T08:00:00Z", ("verify",)),
        ]
        first = 0.0
        print(f"Plivo, {rows:,} rows; 1 in 100 goes, 1 in 10 moves")
        for name, server, now, arguments in steps:
            start = ours(Task("plivo", server.url, server.items, Path(folder)))
            command = [*start.command[:3], *arguments] if arguments else start.command
            environment = {**start.environment, "BILLING_NOW": now}
            seconds, cpu, peak = measure.timed(name, Start(command, environment), Path(folder))
            first = first or cpu
            print(f"{name:<18}{seconds:8.2f} s {cpu:8.2f} s CPU {cpu / first:6.2f} {peak:6.0f} MB", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
