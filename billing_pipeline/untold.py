"""data/untold/: what was done in the foreground, and Dagster does not know of yet.

Telling Dagster itself costs a refresh of five accounts four seconds of CPU, half of its time; `billing-pipeline refresh` leaves
a note instead. The sensor `told_by_refresh` passes it on within seconds while Dagster runs, and else when it is started next.
One file for a month, so that they do not pile up where nobody ever starts Dagster: what was not told in time is told as it
stands then.

A file that is being passed on is called *.told until it is done; what a killed process left half told is told again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .invoice_lists import Asked
from .landing import Partition
from .ledger import gate_json
from .line import Fetched, Line, Loaded
from .period import BillingPeriod, stamp
from .reconcile import Gate
from .warehouse import Published

FOLDER = "untold"


@dataclass(frozen=True)
class Month:
    """A month that was worked on: fetched or not, loaded or (None) not."""

    partition: Partition
    fetched: Fetched | None
    loaded: Loaded | None


@dataclass(frozen=True)
class Pages:
    """Reports that were made: where their index is, and what was done, in words."""

    index: str
    told: dict[str, str]


Done = Month | Asked | Published | Pages
"""What somebody did in the foreground."""


def note(data: Path, done: Iterable[Done]) -> None:
    """Leave a note of each. OSError: the folder cannot be written."""
    for each in done:
        name, written = _written(each)
        folder = data / FOLDER
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = folder / f".{name}.{os.getpid()}.tmp"
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(written, file)
        draft.replace(folder / f"{name}.json")


def passing_on(line: Line) -> Iterator[Done]:
    """What was noted, months first; each note is gone when the next one is asked for. One process at a time."""
    folder = line.data / FOLDER
    for path in folder.glob("*.json"):
        path.replace(path.with_suffix(".told"))
    for path in sorted(folder.glob("*.told"), key=lambda path: ("--" not in path.name, path.name)):
        done = None
        # Half written by a machine that died, or about what is gone since: it decides nothing.
        with suppress(OSError, ValueError, KeyError, TypeError):
            done = _read(line, path.stem, json.loads(path.read_bytes()))
        if done:
            yield done
        path.unlink(missing_ok=True)


def _written(done: Done) -> tuple[str, dict[str, Any]]:
    if isinstance(done, Month):
        fetched, loaded, partition = done.fetched, done.loaded, done.partition
        return f"{partition.provider}--{partition.account}--{partition.period}", {
            "fetched": fetched and {"action": fetched.action, "landing": fetched.landing and fetched.landing.id},
            "loaded": loaded
            and {"action": loaded.action, "gates": gate_json(loaded.gates), "change": dict(loaded.change)},
        }
    if isinstance(done, Asked):
        return f"{done.provider}--{done.account}", {"at": stamp(done.at), "outcome": done.outcome, "why": done.why}
    if isinstance(done, Published):
        loaded_months = [[p.provider, p.account, str(p.period)] for p in done.loaded]
        return "warehouse", {
            "loaded": loaded_months,
            "removed": list(done.removed),
            "rows": done.rows,
            "rebuilt": done.rebuilt,
        }
    return "warehouse-report", asdict(done)


def _read(line: Line, name: str, written: dict[str, Any]) -> Done | None:
    if name == "warehouse":
        if not line.warehouse.path.exists():
            return None
        loaded = [Partition(p, a, BillingPeriod.parse(period)) for p, a, period in written["loaded"]]
        return Published(line.warehouse.path, loaded, written["removed"], written["rows"], written["rebuilt"])
    if name == "warehouse-report":
        return Pages(**written)
    provider, account, *period = name.split("--")
    if not period:
        return Asked(provider, account, datetime.fromisoformat(written["at"]), written["outcome"], written["why"])
    partition = Partition(provider, account, BillingPeriod.parse(period[0]))
    held = line.lake.held(partition)
    fetched = loaded_ = None
    if written["fetched"]:
        landing = written["fetched"]["landing"]
        fetched = Fetched(written["fetched"]["action"], line.landings.get(landing) if landing else None)
    if written["loaded"] and held:
        was = written["loaded"]
        loaded_ = Loaded(was["action"], held, [Gate(**gate) for gate in was["gates"]], was["change"])
    return Month(partition, fetched, loaded_)
