"""`python -m benchmarks`: measure, print the tables, and after a whole run write RESULTS.md, which the README quotes.

A whole run goes on with the daily refresh, a year's backfill and the growth of the warehouse, and takes 20 to 40 minutes;
`--chapter backfill` measures one of those alone, and puts it into RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from . import contestants, measure, results
from .contestants import DLT, FLOOR, FLOOR_HTTPX, LIBRARIES, OURS, PANDAS, Contestant, Task
from .measure import Run
from .results import Measured

PROVIDERS = ("ycloud", "plivo")
SIZES = (10_000, 100_000, 1_000_000)
RUNS = 3
CHAPTERS = (
    (
        "The daily refresh of small accounts",
        "daily",
        "Four accounts with two open months each, on the sandbox: to the published warehouse, and with the reports; one month of "
        "one account by `refresh`, and as a Dagster run of its own (`dagster asset materialize`).",
    ),
    (
        "A year of four accounts",
        "backfill",
        "Two accounts of YCloud and two of Plivo, 12 months of 100,000 rows each, rate limits lifted; one, two and four of them "
        "at once (four twice), in threads, and in processes where they were started. Shares are of the seconds that all accounts "
        "in threads together spent in a stage, waiting for a core included.",
    ),
    (
        "The warehouse as it grows",
        "growth",
        "Making it anew from Parquet, replacing one month of a million rows in it, and finding nothing to do; then queries of "
        "docs/queries.md, the second time they are asked.",
    ),
)


def main() -> int:
    """Exit status: 0 measured; 1 a contestant failed or brought something else than the month."""
    asked = _arguments()
    providers, sizes = asked.provider or PROVIDERS, asked.size or SIZES
    try:
        if asked.profile:
            for provider in providers:
                for rows in sizes:
                    _profile(provider, rows, long_averages=asked.long_averages)
            return 0
        if asked.chapter:
            for title, module, about in CHAPTERS:
                if module in asked.chapter:
                    results.replace_chapter(contestants.HERE, title, _chapter(title, module, about))
            return 0
        remarks = [asked.without_dlt and "dlt was left out.", None if asked.without_dlt else contestants.set_up_dlt()]
        found = [FLOOR, FLOOR_HTTPX, LIBRARIES, OURS, PANDAS, *([] if any(remarks) else [DLT])]
        if asked.only:
            found = [contestant for contestant in found if contestant.name in asked.only]
        measured = [
            _month(provider, rows, found, asked.runs) for provider in providers for rows in (0, *sorted(set(sizes)))
        ]
    except measure.Failed as failed:
        print(failed, file=sys.stderr)
        return 1
    print()
    print(results.table(measured, found))
    whole = (
        set(sizes) >= set(SIZES) and set(providers) == set(PROVIDERS) and asked.runs >= RUNS and not asked.without_dlt
    )
    folder = asked.out or (contestants.HERE if whole else None)
    if folder:
        more = [text for title, module, about in CHAPTERS for text in _chapter(title, module, about)] if whole else []
        results.write(folder, measured, found, asked.runs, [remark for remark in remarks if remark], more)
        print(f"Written: {folder / 'RESULTS.md'}")
    else:
        print("Not the whole run, so RESULTS.md stays as it is (--out FOLDER writes it elsewhere).")
    return 0


def _chapter(title: str, module: str, about: str) -> list[str]:
    """What another benchmark prints, as a chapter."""
    said = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}"], cwd=measure.ROOT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    print(said, flush=True)
    return [
        "",
        f"### {title}",
        "",
        f"{about} Measured on {datetime.now(UTC):%Y-%m-%d}.",
        "",
        "```",
        said.strip(),
        "```",
        "",
    ]


def _month(provider: str, rows: int, found: Sequence[Contestant], runs: int) -> Measured:
    done: dict[str, list[Run]] = {contestant.name: [] for contestant in found}
    with measure.served(provider, rows) as server:
        # Untimed: it warms the server, the file cache and, once, Python's compiled modules. dlt's big months are spared: the
        # small ones have warmed its modules, and its pages take the server next to nothing to render.
        for contestant in found:
            if contestant is not DLT or rows <= min(SIZES):
                measure.refreshed(contestant, provider, server)
        for number in range(1, runs + 1):
            for contestant in found:
                run = measure.refreshed(contestant, provider, server)
                done[contestant.name].append(run)
                print(
                    f"{provider} {rows:>9,} rows, run {number}, {contestant.name:<6}"
                    f"{run.seconds:8.2f} s {run.cpu:8.2f} s CPU {run.peak:6.0f} MB {run.requests:6} requests",
                    flush=True,
                )
    return Measured(provider, rows, done)


def _profile(provider: str, rows: int, *, long_averages: bool) -> None:
    options = ["long-averages"] if long_averages and provider == "ycloud" else []
    with measure.served(provider, rows, *options) as server, tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        environment = contestants.ours(Task(provider, server.url, server.items, Path(folder))).environment
        file = Path(folder, "stages.json")
        subprocess.run(
            [sys.executable, "-m", "benchmarks.stages", provider, str(file)],
            cwd=measure.ROOT,
            env=os.environ | environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        stages = json.loads(file.read_text())
    whole = sum(stages[name] for name in ("fetch and land", "load", "publish"))
    parts = {
        "fetch and land": stages["fetch and land"],
        "statement": stages["statement"],
        "parse": stages["parse"],
        "complete, Parquet, gates": stages["load"] - stages["statement"] - stages["parse"],
        "publish": stages["publish"],
    }
    print(f"{provider}, {rows:,} rows: {whole:.2f} s without the start of the process")
    for name, seconds in parts.items():
        print(f"  {name:<26}{seconds:8.2f} s {seconds / whole:6.0%}")
    print(f"  (reading the landing, in statement and in parse: {stages['read']:.2f} s each)")


def _size(text: str) -> int:
    units = {"k": 1000, "m": 1_000_000}
    unit = units.get(text[-1:].lower())
    return int(text[:-1]) * unit if unit else int(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", type=_size, action="append", help="10k, 100k, 1M (default: all three); repeatable")
    parser.add_argument("--provider", choices=PROVIDERS, action="append", help="default: both; repeatable")
    parser.add_argument("--runs", type=int, default=RUNS, help="measured runs of each; the median counts")
    parser.add_argument("--only", action="append", help="a contestant, such as ours; repeatable")
    parser.add_argument("--without-dlt", action="store_true", help="leave dlt out: it needs the most time and an index")
    parser.add_argument("--profile", action="store_true", help="only ours, stage by stage")
    parser.add_argument(
        "--chapter",
        choices=[module for _, module, _ in CHAPTERS],
        action="append",
        help="measure only that chapter of RESULTS.md, and put it in; repeatable",
    )
    parser.add_argument(
        "--long-averages", action="store_true", help="with --profile: unit prices with a double's digits"
    )
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md and results.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
