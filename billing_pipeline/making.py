"""A month's next Parquet file: the rows of a landing, counted against what the same landing states about itself.

The two readers of a landing never share a parser, so they run side by side: `statement` in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from . import charges, reconcile
from .finality import Finality, Status
from .lake import Replacement
from .landing import Landing
from .provider import Pages, Provider
from .reconcile import Gate, Statement
from .together import Together


@dataclass(frozen=True)
class Made:
    """A file that is finished, every control total compared.

    Attributes:
        finality: what was decided about the month.
        gates: the control totals.
        left_out: rows and totals of the landing that belong to other months.
        notes: for a person.
    """

    finality: Finality
    gates: list[Gate]
    left_out: Mapping[str, Any]
    notes: list[str]


def make(
    new: Replacement,
    provider: Provider,
    landing: Landing,
    likely: Status,
    decide: Callable[[Statement], Finality],
    progress: Callable[[int], None] = lambda rows: None,
) -> Made:
    """Fill a new file and finish it.

    Args:
        new: the file.
        provider: whose month it is.
        landing: what it is made from.
        likely: what `decide` will probably say. The rows carry it: when it says something else, they are made twice.
        decide: whether the month is final, from what the landing states about itself.
        progress: called with the number of rows made, as they are made.

    Raises:
        DoesNotReconcile: a control total does not agree.
        Exception: what `decide` and the provider's `statement` and `parse` raise; of several, in this order.
    """
    period, pages = landing.partition.period, Together(landing)
    with ThreadPoolExecutor(1, "statement") as beside:
        saying = beside.submit(provider.statement, pages, period)
        try:
            undocumented = _fill(new, provider, landing, pages, likely, progress)
        except Exception:
            _decided(saying.result(), decide)  # what contradicts itself is told before what cannot be read
            raise
        statement = saying.result()
    gates, finality = _decided(statement, decide)
    if finality.status != likely:
        new.again()
        undocumented = _fill(new, provider, landing, landing, finality.status, progress)
    notes = [*statement.notes]
    if undocumented:
        notes.append(
            f"{undocumented} rows have fields that {provider.title}'s page does not document; they are in x_Dimensions"
        )
    gates += reconcile.agree("from landing to Arrow", statement.counted, new.tally)
    reconcile.require(gates)
    left_out = {"rows": statement.left_out.rows, "totals": charges.totals_json(statement.left_out.totals)}
    on_disk = new.seal(landing, finality, left_out=left_out, notes=notes)
    gates += reconcile.agree("from Arrow to Parquet", new.tally, on_disk)
    reconcile.require(gates)
    return Made(finality, gates, left_out, notes)


def _decided(statement: Statement, decide: Callable[[Statement], Finality]) -> tuple[list[Gate], Finality]:
    gates = reconcile.stated(statement)
    reconcile.require(gates)
    return gates, decide(statement)


def _fill(
    new: Replacement,
    provider: Provider,
    landing: Landing,
    pages: Pages,
    status: Status,
    progress: Callable[[int], None],
) -> int:
    """All rows; how many of them have fields that nobody documented."""
    zone, period = provider.calendar.timezone, landing.partition.period
    origin = charges.Origin(
        provider=provider.name,
        title=provider.title,
        account=landing.partition.account,
        period_start=period.start(zone),
        period_end=period.end(zone),
        fetched_at=landing.fetched_at,
        status=status,
    )
    undocumented = rows = 0
    for columns in provider.parse(pages, period, landing.id):
        batch, extra = charges.complete(columns, origin)
        undocumented += extra
        rows += len(batch)
        new.write(batch)
        progress(rows)
    return undocumented
