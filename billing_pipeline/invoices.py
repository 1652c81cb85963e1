"""The real invoices: what invoices.toml says of them, and what a provider lists, as rows of the warehouse. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from .accounts import WrongConfiguration
from .period import BillingPeriod
from .provider import InvoiceLine
from .reconcile import plain

CENT = Decimal("0.01")
_KEYS = {
    "provider", "account", "month", "currency", "amount", "number", "tolerance", "billing_account", "explained"
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Invoice:
    """One invoice.

    Attributes:
        provider, account: as in accounts.toml.
        period: the month that it is for.
        currency, amount: its total.
        number: unique within the account.
        tolerance: how far from it the month may be without anybody being told.
        billing_account: the one paying account that it is about; None: all charges of the account.
        explained: label and amount of each part that no charge can be for.
        source: where it was read.
        stated: the total that the provider's list has for the number; None: it lists none.
        lines: of the provider's list, with x_RowSource of each.
    """

    provider: str
    account: str
    period: BillingPeriod
    currency: str
    amount: Decimal
    number: str
    tolerance: Decimal = CENT
    billing_account: str | None = None
    explained: tuple[tuple[str, Decimal], ...] = ()
    source: str = ""
    stated: Decimal | None = None
    lines: tuple[tuple[InvoiceLine, str], ...] = field(default=(), repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it this invoice."""
        return self.provider, self.account, self.number


def read(text: str, source: str, accounts: Collection[tuple[str, str]]) -> list[Invoice]:
    """The invoices in the text of an invoices.toml.

    Args:
        text: of the file.
        source: its name, for messages.
        accounts: provider and name of every account that there is, or ever was.

    Raises:
        WrongConfiguration: naming every line to mend: a syntax error, an unknown key or account, an amount that is not decimal
            text, a number given twice.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WrongConfiguration(f"{source}: this is no TOML: {error}") from error
    headers = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*invoice\s*\]\]", line)]
    problems = [
        f"{source}: unknown key {key!r}; known are invoice, tolerance" for key in {*document} - {"invoice", "tolerance"}
    ]
    blocks = document.get("invoice", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise WrongConfiguration(f"{source}: invoices are written as [[invoice]] tables")
    found: dict[tuple[str, str, str], Invoice] = {}
    for number, block in enumerate(blocks):
        where = f"{source}:{headers[number] if number < len(headers) else 1}"
        try:
            invoice = _invoice({"tolerance": document.get("tolerance", "0.01"), **block}, where, accounts)
            if invoice.key in found:
                raise ValueError(f"number {invoice.number} stands at {found[invoice.key].source} too")
            found[invoice.key] = invoice
        except ValueError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise WrongConfiguration("\n".join(problems))
    return list(found.values())


def _invoice(block: Mapping[str, Any], where: str, accounts: Collection[tuple[str, str]]) -> Invoice:
    unknown, missing = {*block} - _KEYS, _KEYS - {*block} - {"billing_account", "explained"}
    if unknown or missing:
        told = [f"unknown key {key!r}; known are {', '.join(sorted(_KEYS))}" for key in sorted(unknown)]
        raise ValueError("; ".join([*told, *(f"{key} is missing" for key in sorted(missing))]))
    for key, value in block.items():
        if key != "explained" and not isinstance(value, str):
            raise ValueError(f"{key}: must be text, such as {_EXAMPLES.get(key, '...')!r}: a number would lose digits")
    if (block["provider"], block["account"]) not in accounts:
        known = ", ".join(sorted("/".join(account) for account in accounts))
        raise ValueError(f"there is no account {block['provider']}/{block['account']}; there are {known}")
    if not re.fullmatch(r"[A-Z]{3}", block["currency"]):
        raise ValueError(f"currency: {block['currency']!r} is not three capital letters, such as USD")
    tolerance = _amount("tolerance", block["tolerance"])
    if tolerance < 0:
        raise ValueError("tolerance: must not be below 0")
    parts = block.get("explained", [])
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.keys() == {"label", "amount"} and all(isinstance(v, str) for v in part.values())
        for part in parts
    ):
        raise ValueError('explained: must be a list such as [{ label = "tax", amount = "12.00" }]')
    return Invoice(
        provider=block["provider"],
        account=block["account"],
        period=BillingPeriod.parse(block["month"]),
        currency=block["currency"],
        amount=_amount("amount", block["amount"]),
        number=block["number"],
        tolerance=tolerance,
        billing_account=block.get("billing_account"),
        explained=tuple((part["label"], _amount(f"explained: {part['label']}", part["amount"])) for part in parts),
        source=where,
    )


_EXAMPLES = {"amount": "8058.13", "tolerance": "0.05", "month": "2026-05", "number": "2026-0517", "currency": "USD"}


def _amount(name: str, text: str) -> Decimal:
    """Decimal text that DECIMAL(38,18) holds without losing a digit."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    digits = re.fullmatch(r"[+-]?(\d{1,20})(\.\d{1,18})?", text)
    if not digits or not amount.is_finite():
        raise ValueError(f"{name}: {text!r} is not an amount such as 8058.13, without thousands separators")
    return amount


def said(
    account: str,
    period: str,
    amount: str,
    currency: str,
    number: str,
    explained: Iterable[str],
    tolerance: str,
    billing_account: str | None,
) -> Invoice:
    """An invoice as a person types it; ValueError says what is wrong."""
    provider, slash, name = account.partition("/")
    if not slash:
        raise ValueError(f"{account!r} is not PROVIDER/ACCOUNT, such as plivo/main")
    parts = []
    for part in explained:
        label, sign, value = part.rpartition("=")
        if not sign or not label:
            raise ValueError(f"explained: {part!r} is not LABEL=AMOUNT, such as tax=12.00")
        parts.append({"label": label, "amount": value})
    typed = {
        "provider": provider, "account": name, "month": period, "currency": currency, "amount": amount, "number": number,
        "tolerance": tolerance, "explained": parts,
    }  # fmt: skip
    return _invoice(typed | ({"billing_account": billing_account} if billing_account else {}), "", [(provider, name)])


def block(invoice: Invoice) -> str:
    """An invoice as it is written in invoices.toml."""
    lines = [
        "[[invoice]]",
        *(
            f"{key} = {_quoted(value)}"
            for key, value in (
                ("provider", invoice.provider),
                ("account", invoice.account),
                ("month", str(invoice.period)),
                ("number", invoice.number),
                ("currency", invoice.currency),
                ("amount", plain(invoice.amount)),
                ("tolerance", plain(invoice.tolerance)),
                ("billing_account", invoice.billing_account),
            )
            if value is not None
        ),
    ]
    if invoice.explained:
        parts = (
            f"{{ label = {_quoted(label)}, amount = {_quoted(plain(amount))} }}" for label, amount in invoice.explained
        )
        lines.append("explained = [\n" + "".join(f"    {part},\n" for part in parts) + "]")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """As a basic string of TOML."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def merged(written: Sequence[Invoice], listed: Sequence[Invoice]) -> list[Invoice]:
    """Every invoice once: what a person wrote counts, and keeps what the provider's list says of the same number beside it."""
    lists = {invoice.key: invoice for invoice in listed}
    known = {invoice.key for invoice in written}
    both = [
        replace(
            invoice,
            stated=lists[invoice.key].amount,
            lines=lists[invoice.key].lines,
            billing_account=invoice.billing_account or lists[invoice.key].billing_account,
        )
        if invoice.key in lists
        else invoice
        for invoice in written
    ]
    return sorted(
        [*both, *(invoice for invoice in listed if invoice.key not in known)], key=lambda i: (*i.key, i.source)
    )


def tables(invoices: Iterable[Invoice]) -> dict[str, list[list[Any]]]:
    """Rows of the tables invoices, invoice_lines and invoice_parts, in the order of their columns."""
    found: dict[str, list[list[Any]]] = {"invoices": [], "invoice_lines": [], "invoice_parts": []}
    for i in invoices:
        own = [i.provider, i.account, str(i.period), i.billing_account, i.number, i.currency]
        found["invoices"].append([*own, i.amount, i.stated, i.tolerance, i.source])
        found["invoice_parts"] += [[*i.key, label, amount] for label, amount in i.explained]
        found["invoice_lines"] += [
            [*i.key, i.currency, line.product, line.description, line.amount, where] for line, where in i.lines
        ]
    return found
