"""A final month that was asked for again: does the provider still state what is held of it?

What is held is the closed month's own rows plus the corrections that were approved since; after an approval the same numbers
are no news, and another restatement differs from what was approved, not from what was closed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from . import history, matching, reconcile, scratch
from .charges import totals_json
from .lake import Held, Lake, Replacement
from .landing import Landing, Partition
from .ledger import Entry, Ledger
from .period import BillingPeriod


@dataclass(frozen=True)
class Verdict:
    """What a comparison found.

    Attributes:
        decision: unchanged or restated.
        evidence: both landings and both totals of a restatement; the dismissal that an unchanged one repeats.
        change: rows, totals and causes against what is held.
        same_as: the landing whose rows came again, all of them and no other; None: not exactly so.
    """

    decision: Literal["unchanged", "restated"]
    evidence: Mapping[str, Any]
    change: Mapping[str, Any]
    same_as: str | None = None


def compare(
    ledger: Ledger,
    lake: Lake,
    held: Held,
    new: Replacement,
    landing: Landing,
    volatile: Collection[str],
    believed: Callable[[Entry, Path], Path],
) -> Verdict:
    """Compare a complete fetch of a final month with what is held.

    Args:
        ledger: what was decided.
        lake: what is held; the files of corrections are there.
        held: the month.
        new: what the fetch brought, finished and not published.
        landing: the fetch.
        volatile: fields that change from fetch to fetch without meaning another charge.
        believed: makes the charges of another decision's landing again, below a folder.
    """
    partition = held.partition
    approved = ledger.approvals(partition)
    same = new.same_charges(held.path)
    if same and not approved:
        return Verdict("unchanged", {}, {"rows": 0, "totals": {}, "causes": {}}, held.footer["landing"])
    stated = matching.parquet(new.temporary)
    with scratch.folder() as folder:
        before = held.path
        if approved:
            before = folder / "standing.parquet"
            matching.write(matching.standing(held.path, corrections(lake, approved), partition.path), before)
        tally = approved[-1].tally if approved else held.tally
        difference = reconcile.add(new.tally.totals, reconcile.negative(tally.totals))
        change = {
            "rows": new.tally.rows - tally.rows,
            "totals": totals_json({currency: amount for currency, amount in difference.items() if amount}),
        }
        same_as = _again(ledger, partition, new, believed, folder)
        if not matching.differ(matching.parquet(before), stated, volatile):
            return Verdict("unchanged", {}, {**change, "causes": {}}, same_as)
        change["causes"] = history.causes(before, new.temporary, volatile)
        for dismissal in _dismissals(ledger, partition):
            if reconcile.agrees(dismissal.tally, new.tally):  # else it cannot be the same, and need not be read again
                again = matching.parquet(believed(dismissal, folder))
                if not matching.differ(again, stated, volatile):
                    return Verdict("unchanged", {"dismissed_landing": dismissal.landing}, change, same_as)
    evidence = {
        "held_landing": approved[-1].landing if approved else held.footer["landing"],
        "held_rows": tally.rows,
        "held_totals": totals_json(tally.totals),
        "stated_landing": landing.id,
        "stated_rows": new.tally.rows,
        "stated_totals": totals_json(new.tally.totals),
    }
    return Verdict("restated", evidence, change, same_as)


def corrections(lake: Lake, approved: Collection[Entry]) -> list[Path]:
    """The files in which the corrections of a month's approvals are booked."""
    booked = {Partition(e.partition.provider, e.partition.account, booked_in(e)) for e in approved}
    return [lake.corrections_path(month) for month in sorted(booked, key=str)]


def booked_in(entry: Entry) -> BillingPeriod:
    """The month that an approval's corrections are booked in."""
    return BillingPeriod.parse(entry.evidence["booked_in"])


def _again(
    ledger: Ledger, partition: Partition, new: Replacement, believed: Callable[[Entry, Path], Path], folder: Path
) -> str | None:
    """The landing of the last comparison that brought something, when this fetch brings just the same; its bytes may go then."""
    before = [e for e in ledger.of(partition) if e.decision in ("restated", "unchanged") and e.same_as is None][-1:]
    if not before or not reconcile.agrees(before[0].tally, new.tally):
        return None
    return before[0].landing if new.same_charges(believed(before[0], folder)) else None


def _dismissals(ledger: Ledger, partition: Partition) -> list[Entry]:
    """What was dismissed since the last approval, newest first: it was dismissed in favour of what is held now."""
    decided = [entry for entry in ledger.of(partition) if entry.decision in ("approved", "dismissed")]
    while decided and any(entry.decision == "approved" for entry in decided):
        decided = decided[1:]
    return decided[::-1]
