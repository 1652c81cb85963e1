"""What is wrong now, in sentences for a person: out of the ledger, the lake, the finalization rule and the last failures.

Nothing is sent here; `delivery` does that, and remembers what was sent. `reports` shows the same sentences in the UI.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

from .failures import Failure, printable
from .finality import Calendar
from .landing import Partition
from .ledger import NO_FETCH, Entry
from .line import Line
from .period import stamp
from .reconcile import add, negative, plain

Cause = Literal["failed", "late", "restated", "expiring", "drift"]

TITLES: dict[Cause, str] = {
    "failed": "could not be brought up to date",
    "late": "is still not final",
    "restated": "is final, and the provider now states other numbers",
    "expiring": "will soon be out of reach and is not final",
    "drift": "moved more than the threshold",
}
RECENT = timedelta(days=1)  # a month that moved is news on the day it moved, and no longer


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One thing that is wrong.

    Attributes:
        cause: which kind of trouble.
        key: what it is told once a day for: the cause and the month; of failures the account and the kind of error, so that a
            wrong key is one message and not one for each month.
        subject: whose, for the headline.
        text: what is wrong and what to do; never a secret.
    """

    cause: Cause
    key: str
    subject: str
    text: str


def wrong(line: Line, more: Iterable[Failure] = ()) -> list[Alert]:
    """Everything that a person should know of now; `more` are failures that are no month's (the warehouse)."""
    alerts = [*failed([*line.failing(), *more])]
    alerts += [_about("late", partition, late(line, partition)) for partition in line.late()]
    for restated in line.restatements():
        if restated.outcome == "undecided":
            entry = restated.restated
            alerts.append(_about("restated", entry.partition, stated_anew(entry)))
    alerts += [_about("expiring", partition, expiring(line, partition, left)) for partition, left in line.expiring()]
    threshold = line.configuration.alerts.drift_percent if line.configuration.alerts else None
    if threshold is not None:
        for partition, entries in _by_month(line.ledger.all()).items():
            if partition.provider in line.providers:
                text = drift(entries, line.providers[partition.provider].calendar, line.now(), threshold)
                if text:
                    alerts.append(_about("drift", partition, text))
    return alerts


def failed(failures: Iterable[Failure]) -> Iterator[Alert]:
    """One alert for the months of an account that failed for the same kind of reason."""
    kinds: dict[tuple[str, str], list[Failure]] = {}
    for failure in failures:
        subject = failure.subject
        account = f"{subject.provider}/{subject.account}" if isinstance(subject, Partition) else subject
        kinds.setdefault((account, failure.kind), []).append(failure)
    for (account, kind), same in kinds.items():
        months = ", ".join(str(f.subject.period) for f in same if isinstance(f.subject, Partition))
        since = min((f.since for f in same if f.since), default=None)
        text = f"{same[-1].what}. {'Since ' + stamp(since) + '. ' if since else ''}{same[-1].advice}"
        yield Alert(cause="failed", key=f"failed {account} {kind}", subject=f"{account} {months}".strip(), text=text)


def late(line: Line, partition: Partition) -> str:
    """Since when a month could be final, and why it is not."""
    held, calendar = line.lake.held(partition), line.providers[partition.provider].calendar
    why = held.footer["evidence"]["reason"] if held else "it was never fetched"
    return (
        f"{partition} could be final since {stamp(calendar.settles_at(partition.period))}: {why}. Type: "
        f"{_refresh(partition)}. If it stays so, ask the provider's support"
    )


def stated_anew(entry: Entry) -> str:
    """What is held of a closed month, what the provider states now, and how to decide."""
    partition = entry.partition
    return (
        f"{partition} is closed with {_totals(entry.evidence['held_totals'])} in {entry.evidence['held_rows']} rows; asked "
        f"again, the provider states {_totals(entry.fetch['totals'])} in {entry.fetch['rows']} rows. The month stays as "
        "it is; both are in finality_ledger. Ask the provider why. If it is right, type: billing-pipeline approve "
        f"{partition}, which books the difference as corrections in the oldest open month. If it is not: "
        f"billing-pipeline dismiss {partition} --why TEXT"
    )


def expiring(line: Line, partition: Partition, left: int) -> str:
    """For how long a month is still served, why it is not final, and what to do."""
    provider, held = line.providers[partition.provider], line.lake.held(partition)
    why = f"it is provisional ({held.footer['evidence']['reason']})" if held else "it was never fetched"
    until = provider.calendar.available_until(partition.period)
    return (
        f"{partition}: {left} days left; {why}, and {provider.title} serves it until {stamp(until) if until else ''}. "
        f"Type: {_refresh(partition)}. If it fails or stays provisional, ask {provider.title}'s support now"
    )


def drift(entries: list[Entry], calendar: Calendar, now: datetime, percent: Decimal) -> str | None:
    """How far a month has moved since the first fetch after its end, when its newest fetch moved it beyond the threshold.

    While a month runs it grows, and that is no news. None: it did not move, not so far, or longer ago than `RECENT`.

    Args:
        entries: every decision about one month, oldest first.
        calendar: its provider's.
        now: aware.
        percent: of the first total, in each currency for itself.
    """
    fetches = [entry for entry in entries if entry.decision not in NO_FETCH]
    over = [e for e in fetches if _started(e) >= e.partition.period.end(calendar.timezone)]
    if len(over) < 2 or not over[-1].change.get("totals") or now - over[-1].decided_at > RECENT:
        return None
    first, newest = over[0], over[-1]
    moved = []
    for currency, difference in add(newest.tally.totals, negative(first.tally.totals)).items():
        base = abs(first.tally.totals.get(currency, Decimal(0)))
        if abs(difference) * 100 > percent * base:
            share = f"{difference / base * 100:+.1f} %" if base else "from nothing"
            moved.append(
                f"{'+' if difference > 0 else ''}{plain(difference)} {currency} ({share}), from "
                f"{plain(first.tally.totals.get(currency, Decimal(0)))} to "
                f"{plain(newest.tally.totals.get(currency, Decimal(0)))}"
            )
    if not moved:
        return None
    return (
        f"{newest.partition} moved by more than {plain(percent)} % since {stamp(_started(first))}, the first fetch after its "
        f"end: {'; '.join(moved)}. The view drift says why; compare with the provider's console if it surprises you"
    )


def _started(entry: Entry) -> datetime:
    return datetime.fromisoformat(entry.fetch["fetched_at"])


def _by_month(entries: Iterable[Entry]) -> dict[Partition, list[Entry]]:
    months: dict[Partition, list[Entry]] = {}
    for entry in entries:
        months.setdefault(entry.partition, []).append(entry)
    return months


def _about(cause: Cause, partition: Partition, text: str) -> Alert:
    return Alert(cause=cause, key=f"{cause} {partition}", subject=str(partition), text=printable(text))


def _refresh(partition: Partition) -> str:
    return (
        f"billing-pipeline refresh --provider {partition.provider} --account {partition.account} "
        f"--period {partition.period}"
    )


def _totals(totals: Mapping[str, str]) -> str:
    return " + ".join(f"{amount} {currency}" for currency, amount in totals.items()) or "0"
