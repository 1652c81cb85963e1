"""`billing-pipeline replay`: Parquet files and warehouse out of the landings and the ledger alone, without a network.

First every month is made again beside the file that is held, and compared with what the ledger says of it. Only then, and
only when no month's money would move, files take their places: what is missing or damaged is restored byte for byte. A
closed month is never given other money, whatever a newer version of this program reads in its bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from rich.console import Console

from .charges import totals_json
from .failures import printable
from .lake import sha256
from .landing import Partition
from .ledger import Entry
from .line import Line
from .loading import Remade
from .period import BillingPeriod
from .progress import Tell
from .reconcile import Tally, Totals, add, agrees, money, negative, plain
from .terminal import say
from .warehouse import Published

Made = Literal["same", "bytes", "moves", "failed"]


@dataclass(frozen=True, kw_only=True)
class Month:
    """One month, made again.

    Attributes:
        partition: the month of an account.
        final: whether it is closed.
        file: its Parquet file as it was found: intact (as the ledger says), damaged or missing.
        made: what this version makes of the landing: same (byte for byte), bytes (the same rows and money, other bytes), moves
            (other rows or money), failed.
        held: rows and money that the ledger says the month has.
        replayed: rows and money that this version reads; None where it failed.
        action: what was done about the file.
        why: of a failure or a refusal, with what to do.
    """

    partition: Partition
    final: bool
    file: Literal["intact", "damaged", "missing"]
    made: Made
    held: Tally
    replayed: Tally | None = None
    action: Literal["kept", "restored", "replaced"] = "kept"
    why: str = ""

    @property
    def difference(self) -> Totals:
        """What would move, by currency; empty when nothing would."""
        moved = add(self.replayed.totals, negative(self.held.totals)) if self.replayed else {}
        return {currency: amount for currency, amount in moved.items() if amount != Decimal(0)}

    def as_json(self) -> dict[str, Any]:
        """See `Replayed.as_json`."""
        replayed = self.replayed
        return {
            "x_Provider": self.partition.provider,
            "x_Account": self.partition.account,
            "x_BillingPeriod": str(self.partition.period),
            "x_Finality": "final" if self.final else "provisional",
            "x_Rows": self.held.rows,
            "x_Totals": totals_json(self.held.totals),
            "x_ReplayedRows": replayed.rows if replayed else None,
            "x_ReplayedTotals": totals_json(replayed.totals) if replayed else None,
            "x_Difference": totals_json(self.difference),
            "made": self.made,
            "file": self.file,
            "action": self.action,
            "why": self.why or None,
        }


@dataclass(frozen=True)
class Replayed:
    """What a replay found and did.

    Attributes:
        months: every month of the ledger, or those that were named.
        published: the warehouse, made anew; None: it was left as it is, because a month needs a person first.
    """

    months: list[Month] = field(default_factory=list)
    published: Published | None = None

    @property
    def good(self) -> bool:
        """True when every month is as its landing says, and the warehouse with them."""
        return self.published is not None and not any(month.why for month in self.months)

    def as_json(self) -> dict[str, Any]:
        """For a program; totals are text by currency, with every digit."""
        warehouse = str(self.published.path) if self.published else None
        return {"good": self.good, "months": [month.as_json() for month in self.months], "warehouse": warehouse}


def replay(
    line: Line,
    *,
    periods: Collection[BillingPeriod] = (),
    accept: bool = False,
    progress: Tell = lambda done, of, text: None,
) -> Replayed:
    """Make every month again, compare, and only then restore what is missing or damaged; the warehouse is made anew.

    Args:
        line: the line; no provider is asked.
        periods: only these months; none: all.
        accept: a person has seen the report: open months take what this version reads, and intact files with the same rows
            and money are written as this version writes them. Closed months never take other money.
        progress: called with each month.
    """
    found = {entry.partition for entry in line.ledger.all()} | line.lake.partitions() | line.corrections.months()
    wanted = sorted((p for p in found if not periods or p.period in periods), key=str)
    with ExitStack() as stack:
        for _, one in sorted({(p.provider, p.account): p for p in wanted}.items()):
            stack.enter_context(line.alone(one))
        made = []
        for number, partition in enumerate(wanted):
            progress(number, len(wanted) + 1, str(partition))
            pair = _made(line, partition, stack)
            made += [pair] if pair else []
        progress(len(wanted), len(wanted) + 1, "files and warehouse")
        blocked = not accept and any(month.made == "moves" for month, _ in made)
        months = [_settled(line, month, remade, accept=accept, blocked=blocked) for month, remade in made]
        if not blocked:
            _correct(line, wanted)
            for partition in wanted:
                line.loading.remember(partition)
    whole = all(line.lake.path(entry.partition).exists() for entry in line.ledger.all() if entry.parquet)
    return Replayed(months, line.publish(anew=True) if whole and not blocked else None)


def _made(line: Line, partition: Partition, stack: ExitStack) -> tuple[Month, Remade | None] | None:
    """A month made again beside its file, until `stack` is closed; None: it was never loaded."""
    _heal(line, partition)
    shown, written = line.ledger.shown(partition), line.ledger.written(partition)
    if shown is None or written is None:
        return None
    month = Month(
        partition=partition,
        final=shown.decided == "final",
        file=_file(line, written),
        made="failed",
        held=written.tally,
    )
    try:
        remade = stack.enter_context(line.loading.remade(shown))
    except Exception as error:  # noqa: BLE001  told below; the month stays as it is, the others are made all the same
        return replace(month, why=str(error) or type(error).__name__), None
    tally = remade.new.tally
    same: Made = (
        "same" if remade.new.sha256 == written.parquet else "bytes" if agrees(written.tally, tally) else "moves"
    )
    return replace(month, made=same, replayed=tally), remade


def _heal(line: Line, partition: Partition) -> None:
    """A run that died between a file and its line in the ledger: the line is written first, or the file would seem damaged."""
    try:
        held = line.lake.held(partition)
        if held:
            line.loading.heal(held)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
    ):  # damaged, or of a landing that is gone: it is made again, or told
        return


def _file(line: Line, written: Entry) -> Literal["intact", "damaged", "missing"]:
    path = line.lake.path(written.partition)
    if not path.exists():
        return "missing"
    return "intact" if sha256(path) == written.parquet else "damaged"


def _settled(line: Line, month: Month, remade: Remade | None, *, accept: bool, blocked: bool) -> Month:
    """The month after its file was taken, or with the reason why it was not."""
    if remade is None:
        return month
    if month.made == "moves" and month.final:
        stays = (
            "it stays as it was closed" if month.file == "intact" else f"its file is {month.file} and was not replaced"
        )
        why = (
            f"it is closed, and this version reads other money in its bytes; {stays}. Replay with the version that closed it "
            f"(its landing was written by {remade.landing.manifest['version']}), and report the difference as a mistake of one "
            "of the two versions"
        )
        return replace(month, why=why)
    if month.made == "moves" and not accept:
        return replace(
            month, why="this version reads other rows or money in the same bytes: replay --accept takes them"
        )
    if blocked or (month.file == "intact" and (month.made == "same" or not accept)):
        return month
    line.loading.take(remade)
    return replace(month, action="restored" if month.made == "same" else "replaced")


def _correct(line: Line, wanted: Collection[Partition]) -> None:
    """Corrections that are lost or damaged, made again; their money is what was approved, or this raises."""
    for booked in sorted(line.corrections.months() & set(wanted), key=str):
        path = line.lake.corrections_path(booked)
        with line.corrections.remade(booked) as new:
            if new is None:
                path.unlink()  # nobody approved them
            elif not path.exists() or sha256(path) != new.sha256:
                new.publish()


def show(replayed: Replayed, console: Console) -> None:
    """The months that are not as they were, each with its amounts below each other, and what became of the warehouse."""
    for month in replayed.months:
        if month.made != "same" or month.file != "intact":
            say(console, "\n".join(_lines(month)))
    for month in replayed.months:
        if month.why:
            say(console, f"✗ {month.partition}: {printable(month.why)}")
    say(console, "\n".join(_summary(replayed)))


def _lines(month: Month) -> Iterator[str]:
    yield f"{month.partition}: {'final' if month.final else 'provisional'}, its file {month.file}, {month.action}"
    yield f"    held        {month.held.rows} rows, {money(month.held.totals)}"
    replayed = f"{month.replayed.rows} rows, {money(month.replayed.totals)}" if month.replayed else "failed"
    yield f"    replayed    {replayed}"
    rows = month.replayed.rows - month.held.rows if month.replayed else 0
    moved = [f"{rows:+d} rows"] if rows else []
    moved += [f"{'+' if amount > 0 else ''}{plain(amount)} {currency}" for currency, amount in month.difference.items()]
    none = {"bytes": "other bytes only", "failed": "?"}.get(month.made, "none")
    yield f"    difference  {', '.join(moved) or none}"


def _summary(replayed: Replayed) -> Iterator[str]:
    months = replayed.months
    same = sum(month.made == "same" for month in months)
    moves = sum(month.made == "moves" for month in months)
    yield f"{same} of {len(months)} months come out byte for byte; {moves} would move."
    done = {action: sum(month.action == action for month in months) for action in ("restored", "replaced")}
    if any(done.values()):
        yield f"{done['restored']} files were restored, {done['replaced']} replaced."
    if replayed.published:
        yield f"Warehouse: made anew, {replayed.published.rows} charges, {replayed.published.path}"
    else:
        yield "Nothing was published: the warehouse is as it was."
