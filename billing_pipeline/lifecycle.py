"""The ledger as a sequence of FOCUS 1.4 Billing Period dataset instances, for a judge who is not us. Pure.

FOCUS 1.4 has a billing period go from Open to Closed and never back; what is found out later is a correction in a period that
is still open. A ledger that cannot be written as such a sequence has changed a closed month.

Source: https://focus.finops.org/focus-specification/ , version 1.4, dataset Billing Period (read 2026-11)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Any

from .finality import FINAL, Calendar
from .landing import Partition
from .ledger import SHOWN, Entry
from .period import BillingPeriod, stamp

DATASET = "Billing Period"


def instances(entries: Iterable[Entry], calendars: Mapping[str, Calendar]) -> list[dict[str, Any]]:
    """One instance per decision about a month, oldest first.

    The subject is a month of an account: that is what a provider invoices, and what is replaced and closed as a whole. A
    decision that changes nothing (the same rows again, a restatement that is held) delivers the month as it stood.

    Args:
        entries: of any accounts; those of one account in the order of its ledger.
        calendars: by provider.

    Returns:
        instance_id, dataset, subject_id, order, created, last_updated, complete, period_start, period_end, status,
        previous_instance_id; instants as text in UTC. complete: the month is final.
    """
    found: list[dict[str, Any]] = []
    latest: dict[Partition, dict[str, Any]] = {}
    for entry in entries:
        changed = entry.decision in SHOWN and entry.same_as is None
        delivered = [(entry.partition, changed)]
        if entry.decision == "approved":  # its corrections are rows of an open month, which they update
            delivered.append((replace(entry.partition, period=BillingPeriod.parse(entry.evidence["booked_in"])), True))
        for partition, updated in delivered:
            before = latest.get(partition)
            if before or changed:  # else nothing of the month was ever shown
                latest[partition] = _instance(entry, partition, before, updated, calendars[partition.provider].timezone)
                found.append(latest[partition])
    return found


def _instance(
    entry: Entry, partition: Partition, before: Mapping[str, Any] | None, updated: bool, zone: tzinfo
) -> dict[str, Any]:
    order = before["order"] + 1 if before else 1
    # What was decided about a month without showing another fetch leaves it as open or closed as it was.
    closed = entry.decision == FINAL if entry.decision in SHOWN else bool(before and before["complete"])
    # A delivery is not older than the one before it, whatever clocks were put back in between; the ledger keeps their words.
    known = [before["last_updated"]] if before else []
    decided = [stamp(entry.decided_at)] if updated or not before else []
    return {
        "instance_id": f"{partition} #{order}",
        "dataset": DATASET,
        "subject_id": str(partition),
        "order": order,
        "created": before["created"] if before else stamp(datetime.fromisoformat(entry.fetch["fetched_at"])),
        "last_updated": max(known + decided, key=datetime.fromisoformat),
        "complete": closed,
        "period_start": stamp(partition.period.start(zone)),
        "period_end": stamp(partition.period.end(zone)),
        "status": "Closed" if closed else "Open",
        "previous_instance_id": before["instance_id"] if before else None,
    }
