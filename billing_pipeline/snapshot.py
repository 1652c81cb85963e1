"""The lake and the ledger as they stood at one instant, while other processes go on working.

A month's file takes its place a moment before its line in the ledger does. Who reads both in between, one after the other, would
publish new charges beside an old history, or the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .comparing import booked_in
from .lake import Held, Lake
from .landing import Partition
from .ledger import Entry, Ledger

TRIES = 20


@dataclass(frozen=True)
class Snapshot:
    """What is published together.

    Attributes:
        months, corrections: files under names of their own, so that they stay as they are whoever replaces the month.
        entries: every decision.
    """

    months: list[Held]
    corrections: list[Held]
    entries: list[Entry]

    def torn(self) -> set[Partition]:
        """The months of which file and ledger tell of different fetches or approvals."""
        told: dict[Partition, str] = {}
        approved: dict[Partition, list[str]] = {}
        for entry in self.entries:
            if entry.parquet:
                told[entry.partition] = entry.landing
            if entry.decision == "approved":
                approved.setdefault(replace(entry.partition, period=booked_in(entry)), []).append(entry.landing)
        booked = {held.partition: held.footer["approved"] for held in self.corrections}
        torn = {held.partition for held in self.months if held.footer["landing"] != told.get(held.partition)}
        return torn | {month for month in {*approved, *booked} if approved.get(month) != booked.get(month)}


def taken(lake: Lake, ledger: Ledger, folder: Path, wait: Callable[[Partition], None]) -> Snapshot:
    """A snapshot whose files and decisions agree, or the last try where they never do.

    Args:
        lake: the files.
        ledger: the decisions.
        folder: empty, on the lake's file system; second names of the files are put there.
        wait: called with a month of which somebody is between its file and its line: returns a moment later.
    """
    for attempt in range(TRIES):
        # The files first: what the ledger tells beyond them is found, and they are taken again.
        months, corrections = (
            [file.pinned(folder / f"{attempt}-{file.path.parent.name}-{file.path.name}") for file in files]
            for files in (lake.all(), lake.all_corrections())
        )
        found = Snapshot(months, corrections, list(ledger.all()))
        torn = found.torn()
        if not torn:
            break
        for partition in sorted(torn, key=str):
            wait(partition)
    return found
