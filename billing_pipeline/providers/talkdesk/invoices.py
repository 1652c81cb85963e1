"""Talkdesk's list of invoices, for those whose client has the scope: one row is one line of an invoice.

Source: https://docs.talkdesk.com/reference/billing-insights-get-invoices and
https://support.talkdesk.com/hc/en-us/articles/20409803117467-Billing-FAQ (read 2026-11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from ...answers import Refused
from ...period import BillingPeriod
from ...provider import Access, InvoiceLine, InvoiceList, NotOffered, Page, Pages, Restarted
from ...rows import UnexpectedShape, held
from ...schema import DECIMAL
from .client import ClientCredentials
from .pages import Answer, decoded
from .walk import walk

SCOPE = "express-accounts-invoices:read"
ACCOUNT = ("account ID", "account_id", "accountId")  # as in the usage list


class _Embedded(msgspec.Struct):
    invoices: msgspec.Raw


class _Answer(Answer, kw_only=True):
    embedded: _Embedded = msgspec.field(name="_embedded")


def fetch(access: Access) -> Iterator[Page | Restarted]:
    """Every page of the list.

    Raises:
        NotOffered: the client lacks the scope, which is asked for apart from that of the usage list.
        Refused, Unavailable, UnexpectedAnswer: see `walk`.
    """
    try:
        yield from walk(access, f"{access.settings.base_url}/express/invoices", SCOPE, _read)
    except Refused as error:
        if error.status != 403 and "invalid_scope" not in str(error):
            raise
        raise NotOffered(f"the client lacks the scope {SCOPE}") from error


def _read(page: Page) -> tuple[Answer, msgspec.Raw]:
    answer = decoded(page, page.read(), _Answer, strict=False)
    return answer, answer.embedded.invoices


def parse(pages: Pages) -> Iterator[InvoiceLine]:
    """The lines of all invoices; a row that an earlier one repeats, same id and same content, counts once.

    Raises:
        UnexpectedShape: a row without account, number, date, currency, total_invoice_amount or amount; two rows with one id
            that differ.
    """
    seen: dict[str, Any] = {}
    for page in pages:
        for index, row in enumerate(json.loads(bytes(_read(page)[1]), parse_float=Decimal, parse_int=Decimal)):
            where = f"{page.number}#/_embedded/invoices/{index}"
            identity = row.get("id")
            if identity is not None and seen.setdefault(identity, row) is not row:
                if seen[identity] != row:
                    raise UnexpectedShape(f"{where}: id {identity} came before with another content; fetch again")
                continue
            yield _line(row, where)


def _line(row: dict[str, Any], where: str) -> InvoiceLine:
    account = next((str(row[name]) for name in ACCOUNT if row.get(name)), None)
    told = {name: row.get(name) for name in ("number", "date", "currency", "total_invoice_amount", "amount")}
    missing = [name for name, value in told.items() if value in (None, "")] + ([] if account else [ACCOUNT[0]])
    if missing:
        raise UnexpectedShape(f"{where}: {', '.join(missing)} is missing or null; no line is left out for that")
    if not re.fullmatch(r"[A-Z]{3}", str(told["currency"])):
        raise UnexpectedShape(f"{where}: currency is {told['currency']!r}")
    try:
        issued = date.fromisoformat(str(told["date"])[:10])
        total, amount = (held(Decimal(str(told[name])), DECIMAL) for name in ("total_invoice_amount", "amount"))
    except (ValueError, InvalidOperation) as error:
        raise UnexpectedShape(f"{where}: {error}; a date is YYYY-MM-DD, an amount a number") from error
    if total is None or amount is None:
        raise UnexpectedShape(
            f"{where}: total_invoice_amount {told['total_invoice_amount']} or amount {told['amount']} cannot be held in 20 "
            "digits before and 18 behind the point; it is refused, not rounded"
        )
    return InvoiceLine(
        number=str(told["number"]),
        # "billed monthly on the first day of the following month"; an invoice states no month of its own.
        period=BillingPeriod(issued.year, issued.month).plus(-1),
        billing_account=str(account),
        currency=str(told["currency"]),
        total=total,
        amount=amount,
        product=row.get("product_id") or None,
        description=row.get("description") or None,
        where=where,
    )


INVOICES = InvoiceList(fetch=fetch, parse=parse, auth=lambda settings: ClientCredentials(settings, scope=SCOPE))
