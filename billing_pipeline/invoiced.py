"""`billing-pipeline invoice`, and what is said of invoices: months that disagree with theirs, lists that are not available."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from .asking import NothingPublished, Unanswerable, ask
from .failures import printable
from .invoices import Invoice, block, read
from .reconcile import plain

PAGE = "docs/invoices.md"
MEMORY = "128MB"  # every refresh asks; left to itself DuckDB keeps what it has read: 300 MB of a warehouse with ten million rows


@dataclass(frozen=True)
class Judged:
    """A final month and its invoices, which do not agree.

    Attributes:
        month: the account and month, with the paying account where the invoice names one.
        text: what was expected, what came, what to do.
    """

    month: str
    text: str


@dataclass(frozen=True)
class Said:
    """What a warehouse says of invoices.

    Attributes:
        disagreements: every final month that disagrees with its invoices beyond the stated tolerance.
        unavailable: a sentence for each account whose provider has a list of invoices that its credentials do not reach.
    """

    disagreements: list[Judged]
    unavailable: list[str]


_DISAGREE = (
    "SELECT x_Provider, x_Account, x_BillingPeriod, BillingAccountId, BillingCurrency, x_Ours, x_Invoice, x_Explained, "
    "x_Unexplained, x_Tolerance, x_Verdict, x_Invoices, x_ExplainedParts FROM reconciliation "
    "WHERE x_Verdict IN ('disagrees', 'the provider states another invoice')"
)
_ANY = "SELECT EXISTS (FROM invoices)"
_UNAVAILABLE = "SELECT x_Provider, x_Account, x_Why FROM invoice_lists WHERE x_Outcome = 'not available'"


def said(warehouse: Path) -> Said:
    """What it says; nothing where nothing was published yet."""
    try:
        ((any_,),), lists = _asked(warehouse, _ANY, _UNAVAILABLE)
        # Comparing reads every charge there is: 0.2 s of a million, which no refresh without an invoice has to wait for.
        (judged,) = _asked(warehouse, _DISAGREE) if any_ else ([],)
    except (
        NothingPublished,
        Unanswerable,
    ):  # of a version that knew no invoices, both views: the next publication mends it
        return Said([], [])
    texts = [f"{provider}/{account}: the list of invoices is not available: {why}" for provider, account, why in lists]
    return Said([_judged(*row) for row in judged], texts)


def _asked(warehouse: Path, *queries: str) -> list[Sequence[Sequence[Any]]]:
    """The rows of each; opening the file takes longer than asking."""
    text = ";\n".join(queries)
    try:
        return [rows for _, rows in ask(warehouse, text, MEMORY)]
    except Unanswerable:  # perhaps it was too little: a month that disagrees must not go unsaid for that
        return [rows for _, rows in ask(warehouse, text)]


def _judged(
    provider: str,
    account: str,
    period: str,
    payer: str | None,
    currency: str,
    ours: Decimal,
    invoice: Decimal,
    explained: Decimal,
    unexplained: Decimal,
    tolerance: Decimal,
    verdict: str,
    numbers: str,
    parts: str | None,
) -> Judged:
    month = f"{provider}/{account} {period}" + (f" ({payer})" if payer else "")
    if verdict != "disagrees":
        return Judged(
            month,
            f"{month}: the provider's list has another total for {numbers} than invoices.toml. Look at the invoice, and mend "
            "invoices.toml or ask the provider; the view invoices has both.",
        )
    part = f", of which {plain(explained)} is explained ({parts})" if parts else ""
    return Judged(
        month,
        f"{month}: invoice {numbers} is {plain(invoice)} {currency}, the closed month {plain(ours)}{part}: {plain(unexplained)} "
        f"{currency} is unexplained, more than the tolerance of {plain(tolerance)}. A rerun cannot help: explain the part in "
        f"invoices.toml, or ask the provider. See {PAGE}.",
    )


def written(path: Path, invoice: Invoice, accounts: Collection[tuple[str, str]]) -> None:
    """Add an invoice to invoices.toml, which may not be there yet; what stands in it stays as it is, comments too.

    Raises:
        WrongConfiguration: the file, or the file with this invoice, would not be good; it was not changed.
    """
    before = path.read_text("utf-8-sig") if path.exists() else ""
    text = before + ("" if before.endswith("\n") or not before else "\n") + ("\n" if before else "") + block(invoice)
    read(text, path.name, accounts)
    work = path.with_name(f".{path.name}.tmp")
    work.write_text(text, "utf-8")
    work.replace(path)


def compared(warehouse: Path, invoice: Invoice) -> dict[str, str | None]:
    """What the published warehouse says of an invoice's month, as JSON has it: amounts are text.

    `x_Verdict` is null where the warehouse does not have the invoice.
    """
    found: dict[str, str | None] = {
        "x_Provider": invoice.provider,
        "x_Account": invoice.account,
        "x_BillingPeriod": str(invoice.period),
        "x_Invoices": invoice.number,
        "BillingCurrency": invoice.currency,
        "x_Invoice": None,
        "x_Ours": None,
        "x_Unexplained": None,
        "x_Verdict": None,
    }
    columns = "x_Provider, x_Account, x_BillingPeriod, x_Invoices, x_Invoice, x_Ours, x_Unexplained, x_Verdict"
    query = f"SELECT {columns} FROM reconciliation"  # noqa: S608  ours
    (rows,) = _asked(warehouse, query)
    for provider, account, period, numbers, *amounts, verdict in rows:
        named = invoice.number in (numbers or "").split(", ")
        if named and (provider, account, period) == (invoice.provider, invoice.account, str(invoice.period)):
            texts = [None if amount is None else plain(amount) for amount in amounts]
            told = dict(zip(("x_Invoice", "x_Ours", "x_Unexplained"), texts, strict=True))
            return found | {"x_Invoices": numbers, **told, "x_Verdict": verdict}
    return found


def told(found: dict[str, str | None]) -> str:
    """The same in a sentence."""
    month = printable(f"{found['x_Provider']}/{found['x_Account']} {found['x_BillingPeriod']}")
    if found["x_Verdict"] is None:
        return printable(f"{month}: the warehouse does not have invoice {found['x_Invoices']}")
    currency = found["BillingCurrency"]
    parts = [f"invoice {found['x_Invoice']} {currency}"]
    parts += [f"ours {found['x_Ours']} {currency}" if found["x_Ours"] is not None else "never fetched"]
    parts += [f"unexplained {found['x_Unexplained']} {currency}"] if found["x_Unexplained"] is not None else []
    return printable(f"{month}: {', '.join(parts)}: {found['x_Verdict']}")
