"""`billing-pipeline restatements`, `approve` and `dismiss`: what a provider stated anew, and a person's decision about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from .charges import totals_json
from .corrections import NothingToDecide, Restatement
from .landing import DamagedLanding, Partition
from .line import Line, NothingLanded
from .period import BillingPeriod
from .reconcile import DoesNotReconcile
from .terminal import say

REFUSED = (NothingToDecide, NothingLanded, DamagedLanding, DoesNotReconcile)
"""Why an approval books nothing."""


def approve(line: Line, account: str, period: str, by: str, why: str) -> str:
    """Book a restatement as corrections and publish; what was done, in a sentence."""
    partition = _partition(line, account, period)
    entry = line.approve(partition, by, why)
    line.publish()
    return (
        f"{partition}: {_text(entry.evidence['difference'])} booked as corrections in {entry.evidence['booked_in']}; with them "
        f"the month comes to {_text(entry.evidence['stated_totals'])}. Its closed rows are as they were."
    )


def dismiss(line: Line, account: str, period: str, by: str, why: str) -> str:
    """Close a restatement without booking it and publish; what was done, in a sentence."""
    partition = _partition(line, account, period)
    entry = line.dismiss(partition, by, why)
    line.publish()
    return (
        f"{partition}: dismissed; it stays at {_text(entry.evidence['held_totals'])}. "
        f"{_text(entry.evidence['stated_totals'])} in the same rows will be no news."
    )


def rows(found: Sequence[Restatement]) -> list[dict[str, Any]]:
    """Restatements as JSON has them: totals are text by currency, with every digit."""
    return [
        {
            "x_Provider": each.restated.partition.provider,
            "x_Account": each.restated.partition.account,
            "x_BillingPeriod": str(each.restated.partition.period),
            "x_Outcome": each.outcome,
            "x_StatedAt": each.restated.fetch["fetched_at"],
            "x_HeldTotals": each.restated.evidence["held_totals"],
            "x_StatedTotals": each.restated.evidence["stated_totals"],
            "x_Difference": totals_json(each.difference),
            "x_HeldLanding": each.restated.evidence["held_landing"],
            "x_StatedLanding": each.restated.landing,
            "x_BookedIn": each.decision.evidence.get("booked_in") if each.decision else None,
            "x_By": each.decision.evidence["by"] if each.decision else None,
            "x_Why": each.decision.evidence["why"] if each.decision else None,
        }
        for each in found
    ]


def show(found: Sequence[Restatement], console: Console) -> None:
    """Restatements, the amounts of each below each other, and what to type about those that wait."""
    if not found:
        say(console, "No provider has stated anything else for a final month.")
    for each, row in zip(found, rows(found), strict=True):
        partition = each.restated.partition
        booked = f", booked in {row['x_BookedIn']}" if row["x_BookedIn"] else ""
        say(console, f"{partition}: {row['x_Outcome']}{booked}; stated {row['x_StatedAt']}")
        for name in ("x_HeldTotals", "x_StatedTotals", "x_Difference"):
            say(console, f"    {_NAMES[name]:12}{_text(row[name])}")
        if each.outcome == "undecided":
            say(
                console,
                f"    Ask the provider, then type\n    billing-pipeline approve {partition}\n    or\n"
                f"    billing-pipeline dismiss {partition} --why TEXT",
            )


_NAMES = {"x_HeldTotals": "held", "x_StatedTotals": "stated", "x_Difference": "difference"}


def _partition(line: Line, account: str, period: str) -> Partition:
    provider, _, name = account.partition("/")
    known = [f"{settings.provider}/{settings.name}" for settings in line.configuration.accounts]
    if account not in known:
        raise ValueError(f"{account!r} is none of the accounts {', '.join(known)}")
    return Partition(provider, name, BillingPeriod.parse(period))


def _text(totals: Mapping[str, str]) -> str:
    return " + ".join(f"{amount} {currency}" for currency, amount in totals.items()) or "0"
