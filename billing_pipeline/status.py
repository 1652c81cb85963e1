"""`billing-pipeline status`: the months held, those that were lost and those that wait, as rows and as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .failures import Failure, printable
from .finality import EXPIRES_SOON, days_left
from .invoiced import said
from .landing import Partition
from .ledger import REPLAYED
from .line import Line
from .period import stamp
from .terminal import say


def months(line: Line) -> list[dict[str, Any]]:
    """Every month held, and those that were lost, as the table `billing_periods` has them."""
    told = (entry for entry in line.ledger.all() if entry.decision != REPLAYED)
    restated = {entry.partition: entry.decision == "restated" for entry in told}
    found: dict[Partition, dict[str, Any]] = {
        lost: {
            "x_Finality": "never fetched",
            "x_FinalityReason": "the provider no longer serves this month",
            "x_Rows": None,
            "x_Totals": {},
            "x_FetchedAt": None,
            "x_Notes": [],
        }
        for lost in line.lost()
    }
    failing = {failure.subject: failure for failure in line.failing()}
    waiting = {p: "the last try failed" for p in failing if isinstance(p, Partition)}
    waiting |= {p: "the provider will soon stop serving this month" for p, _ in line.expiring()}
    for partition, reason in waiting.items():
        found[partition] = {
            "x_Finality": "not fetched yet",
            "x_FinalityReason": reason,
            "x_Rows": None,
            "x_Totals": {},
            "x_FetchedAt": None,
            "x_Notes": [],
        }
    for held in line.lake.all():
        found[held.partition] = {
            "x_Finality": held.status,
            "x_FinalityReason": held.footer["evidence"]["reason"],
            "x_Rows": held.footer["rows"],
            "x_Totals": held.footer["totals"],
            "x_FetchedAt": held.footer["fetched_at"],
            "x_Notes": held.footer["notes"],
        }
    return [
        {
            "x_Provider": partition.provider,
            "x_Account": partition.account,
            "x_BillingPeriod": str(partition.period),
            "x_Restated": restated.get(partition, False),
            "x_Failure": failure_row(failing.get(partition)),
            **row,
            **_served(line, partition, row["x_Finality"]),
        }
        for partition, row in sorted(found.items(), key=lambda item: item[0].path)
    ]


def failure_row(failure: Failure | None) -> dict[str, Any] | None:
    """How the last try of a month failed, as JSON has it; `since` when it fails, null for one that was just met."""
    if failure is None:
        return None
    since = stamp(failure.since) if failure.since else None
    return {"kind": failure.kind, "what": failure.what, "advice": failure.advice, "since": since}


def _served(line: Line, partition: Partition, finality: str) -> dict[str, Any]:
    """Until when the provider serves the month, and the days left of one that is not final."""
    calendar = line.providers[partition.provider].calendar
    until = calendar.available_until(partition.period)
    left = None if finality == "final" else days_left(calendar, partition.period, line.now())
    return {"x_AvailableUntil": stamp(until) if until else None, "x_DaysLeft": left}


def show(line: Line, console: Console) -> None:
    """The months as a table of 80 columns."""
    table = Table(box=None, pad_edge=False)
    table.add_column("account", overflow="fold")  # a long name gives way to the numbers, which stay whole
    table.add_column("month", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("total", justify="right", no_wrap=True)
    table.add_column("finality", overflow="fold")
    for row in months(line):
        totals = "\n".join(f"{amount} {currency}" for currency, amount in row["x_Totals"].items())
        finality = row["x_Finality"] + (" RESTATED" if row["x_Restated"] else "")
        left = row["x_DaysLeft"]
        if left is not None and left <= EXPIRES_SOON and finality != "never fetched":
            finality += f", {left} days left" if left >= 0 else ", no longer served"
        if row["x_Failure"]:
            finality += f", FAILED ({row['x_Failure']['kind']})"
        style = {"final": "green", "provisional": "yellow"}.get(row["x_Finality"], "red")
        rows = "" if row["x_Rows"] is None else str(row["x_Rows"])
        account = f"{row['x_Provider']}/{row['x_Account']}"
        shown = totals or ("0" if rows else "")  # a month that was never fetched has no total, not one of 0
        table.add_row(account, row["x_BillingPeriod"], rows, shown, Text(finality, style=style))
    if table.row_count:
        console.print(table)
    invoices = said(line.warehouse.path)
    for judged in invoices.disagreements:
        say(console, printable(f"✗ {judged.text}"), "red")
    for text in invoices.unavailable:
        say(console, printable(f"– {text}"), "dim")
