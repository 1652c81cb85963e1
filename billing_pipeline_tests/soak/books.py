"""What the published warehouse holds, read as a person would read it, and required to agree with itself."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import duckdb

Amounts = dict[str, Decimal]
Books = dict[str, tuple[int, Amounts]]


class Mixed(AssertionError):
    """Something that must never be."""


def require(true: bool, what: str) -> None:
    """Raise `Mixed` unless it is so."""
    if not true:
        raise Mixed(what)


@dataclass
class Shown:
    """What the published warehouse holds, read in one transaction.

    Attributes:
        own: rows and totals of each month, without corrections, by `provider/account/month`.
        corrections: totals of the corrections of each month, wherever they are booked.
        final: the months that are closed.
    """

    own: Books = field(default_factory=dict)
    corrections: dict[str, Amounts] = field(default_factory=dict)
    final: set[str] = field(default_factory=set)


def shown(warehouse: Path) -> Shown:
    """Read the warehouse, and require that its tables agree with each other."""
    found = Shown()
    with duckdb.connect(str(warehouse), read_only=True) as db:
        db.execute("BEGIN")
        month = "concat_ws('/', x_Provider, x_Account, x_BillingPeriod)"
        everything: dict[tuple[str, str], Decimal] = {}
        for key, origin, class_, currency, rows, total in db.execute(
            f"SELECT {month}, array_to_string(split(ltrim(x_RowSource, '-'), '/')[1:3], '/'), ChargeClass, BillingCurrency, "
            "count(*), sum(BilledCost) FROM charges GROUP BY ALL"
        ).fetchall():
            everything[key, currency] = everything.get((key, currency), Decimal(0)) + total
            if class_ == "Correction":
                amounts = found.corrections.setdefault(origin, {})
                amounts[currency] = amounts.get(currency, Decimal(0)) + total
            else:
                held = found.own.setdefault(key, (0, {}))
                found.own[key] = held[0] + rows, {**held[1], currency: total}
        periods = db.execute(f"SELECT {month}, x_Rows, x_Totals, x_Finality FROM billing_periods").fetchall()
        for key, rows, totals, finality in periods:
            if finality == "final":
                found.final.add(key)
            amounts = {currency: Decimal(amount) for currency, amount in json.loads(totals).items()}
            require(found.own.setdefault(key, (0, {})) == (rows, amounts), f"{key}: billing_periods is not charges")
        require({key for key, *_ in periods} >= {*found.own}, "charges has months that billing_periods has not")
        as_of = db.execute(
            f"SELECT {month}, BillingCurrency, sum(BilledCost) FROM totals_as_of(TIMESTAMPTZ '9999-01-01') GROUP BY ALL"
        ).fetchall()
        believed = {(key, currency): total for key, currency, total in as_of if total}
        differ = {*believed.items()} ^ {(key, total) for key, total in everything.items() if total}
        require(not differ, f"totals_as_of is not charges: {differ}")
    return found
