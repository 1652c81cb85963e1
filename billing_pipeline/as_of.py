"""The full rows of a month as they were believed at a past instant: `billing-pipeline as-of`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from . import history
from .charges import totals_json
from .lake import sha256
from .landing import Partition
from .ledger import Entry
from .line import Line
from .period import BillingPeriod, stamp
from .progress import Tell
from .reconcile import money
from .schema import SCHEMA
from .terminal import say


class NothingBelieved(Exception):
    """At the instant that was asked about, nothing was known of the month."""

    rerun = "no"
    remedy = "Ask about a later instant"


@dataclass(frozen=True)
class Believed:
    """A month of an account as it was believed.

    Attributes:
        entry: the decision it rested on.
        path: its rows, in the columns of the lake.
        identical: True when the file is byte for byte the one of that time.
    """

    entry: Entry
    path: Path
    identical: bool


def bring_back(
    line: Line,
    instant: datetime,
    period: BillingPeriod,
    folder: Path,
    providers: Sequence[str] = (),
    accounts: Sequence[str] = (),
    progress: Tell = lambda done, of, text: None,
) -> list[Believed]:
    """Write the month's rows as believed at `instant`, one Parquet file per account, made again from the landings.

    Args:
        line: the line; nothing below its data folder is changed.
        instant: aware. What was decided at this very instant counts.
        period: the month.
        folder: where `x_BillingPeriod=<YYYY-MM>/<provider>--<account>.parquet` is written, and `<...>.corrections.parquet` where
            corrections of earlier months had been booked in this one; a file that is there is replaced.
        providers: only these; none: all.
        accounts: only accounts of these names; none: all.
        progress: called with each account.

    Raises:
        NothingBelieved: no account that was asked for had a complete fetch of the month by then.
        NothingLanded: a landing that a month was made from is gone.
        DoesNotReconcile: this version reads other rows or money in a landing than were believed then.
    """
    known: dict[Partition, list[Entry]] = {}
    for entry in line.ledger.all():
        whose = entry.partition
        asked = (not providers or whose.provider in providers) and (not accounts or whose.account in accounts)
        if asked and whose.period == period and whose.provider in line.providers:
            known.setdefault(whose, []).append(entry)
    found = []
    for number, (partition, entries) in enumerate(sorted(known.items(), key=str)):
        progress(number, len(known), str(partition))
        until = [entry for entry in entries if entry.decided_at <= instant]
        moving = history.moving(until)
        if moving:
            found.append(_made(line, history.shown(until)[-1], moving[-1], instant, folder))
    if not found:
        firsts = {partition: entries[0].decided_at for partition, entries in known.items()}
        first = min(firsts, key=firsts.__getitem__, default=None)
        raise NothingBelieved(
            f"nothing was known of {period} at {stamp(instant)}: "
            + (
                f"the first complete fetch was of {first}, decided at {stamp(firsts[first])}"
                if first
                else "no account that was asked for has ever been fetched for it. See billing-pipeline status"
            )
        )
    return found


def rows(found: Sequence[Believed]) -> list[dict[str, Any]]:
    """What was believed as JSON has it: totals are text by currency, with every digit."""
    return [
        {
            "x_Provider": one.entry.partition.provider,
            "x_Account": one.entry.partition.account,
            "x_BillingPeriod": str(one.entry.partition.period),
            "x_Rows": one.entry.tally.rows,
            "x_Totals": totals_json(one.entry.tally.totals),
            "since": stamp(one.entry.decided_at),
            "path": str(one.path),
            "identical": one.identical,
        }
        for one in found
    ]


def show(found: Sequence[Believed], console: Console) -> None:
    """One line per account: what was believed, since when, and where its rows are now."""
    for one in found:
        entry = one.entry
        how = (
            "as the file of that time, byte for byte"
            if one.identical
            else "as many rows and the same totals, other bytes"
        )
        say(
            console,
            f"✓ {entry.partition}: {entry.tally.rows} rows, {money(entry.tally.totals)}, since {stamp(entry.decided_at)}; "
            f"{one.path} ({how})",
        )


def _made(line: Line, shown: Entry, written: Entry, instant: datetime, folder: Path) -> Believed:
    """One account's file, and beside it the corrections of earlier months that had been booked in this one.

    `shown` says which landing and how final, `written` (later after a replay) which numbers.
    """
    partition = shown.partition
    target = folder / f"x_BillingPeriod={partition.period}" / f"{partition.provider}--{partition.account}.parquet"
    target.parent.mkdir(parents=True, exist_ok=True)
    work = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    try:
        line.loading.believed(replace(shown, fetch=written.fetch), work / "own").replace(target)
        booked = [pq.read_table(path) for path in line.corrections.believed(partition, instant, work / "booked")]
        beside = target.with_suffix(".corrections.parquet")
        beside.unlink(missing_ok=True)
        if booked:
            rows = pa.concat_tables(table.select(SCHEMA.names).cast(SCHEMA) for table in booked)
            finality = pa.repeat(pa.scalar(shown.decision), rows.num_rows)
            place = SCHEMA.get_field_index("x_Finality")
            pq.write_table(rows.set_column(place, SCHEMA.field(place), finality), beside, compression="zstd")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Believed(written, target, sha256(target) == written.parquet)
