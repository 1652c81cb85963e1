"""Control totals: what the provider states = what we hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext

# Enough for any sum of decimal128 amounts: addition below never rounds.
EXACT = Context(prec=120)

Totals = Mapping[str, Decimal]
"""BilledCost by ISO 4217 currency. Currencies are never added up."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """How many rows, and how much money in each currency, one station of the line holds."""

    rows: int = 0
    totals: Totals = field(default_factory=dict)

    def __add__(self, other: Tally) -> Tally:
        return Tally(rows=self.rows + other.rows, totals=add(self.totals, other.totals))


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What a complete landing says about itself, read independently of the rows that go to the warehouse.

    Attributes:
        counted: rows and money of the month, counted in the bytes by another parser than the one that makes the charges.
        left_out: rows and money that came along but belong to another month (their own month's fetch brings them).
        stated_rows: the number of rows the provider says it sent, `left_out` included; None: it does not say.
        stated_cost: the provider's own total by currency, `left_out` included; None: it does not say.
        tolerance: how far `stated_cost` may be from the rows, absolute. 0 unless the provider's total is itself rounded.
        flag: the provider's own word on finality (see `finality.Calendar.flag`); None: it says nothing.
        doubt: why the numbers cannot be final whatever the calendar says; None: no doubt.
        vanished: True when the answer does not contain the month at all although it should list every month.
        notes: what a person should hear of: unknown values, rows without a category, a widened window.
    """

    counted: Tally
    left_out: Tally = field(default_factory=Tally)
    stated_rows: int | None = None
    stated_cost: Totals | None = None
    tolerance: Decimal = Decimal(0)
    flag: bool | None = None
    doubt: str | None = None
    vanished: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One comparison on the way from the provider to the warehouse."""

    name: str
    expected: str
    got: str
    passed: bool

    def __str__(self) -> str:
        return f"{self.name}: expected {self.expected}, got {self.got}" + ("" if self.passed else " (DOES NOT AGREE)")


class DoesNotReconcile(Exception):
    """A control total does not agree; the partition was not replaced and yesterday's numbers stay."""

    rerun = "once"
    remedy = "If it stays, compare the landing with the provider's console, and trust neither before"

    def __init__(self, gates: list[Gate]) -> None:
        self.gates = gates
        failed = "; ".join(f"{g.name}: expected {g.expected}, got {g.got}" for g in gates if not g.passed)
        super().__init__(
            f"control totals do not agree ({failed}). The month was not replaced: yesterday's numbers stay"
        )


def stated(statement: Statement) -> list[Gate]:
    """What the provider states about the answer, against what was counted in it."""
    came = statement.counted + statement.left_out
    gates = []
    if statement.stated_rows is not None:
        gates.append(
            Gate(
                name="rows stated by the provider",
                expected=str(statement.stated_rows),
                got=str(came.rows),
                passed=statement.stated_rows == came.rows,
            )
        )
    if statement.stated_cost is not None:
        gates.append(
            Gate(
                name="billed cost stated by the provider"
                + (f" (within {plain(statement.tolerance)})" if statement.tolerance else ""),
                expected=money(statement.stated_cost),
                got=money(came.totals),
                passed=all(
                    abs(difference) <= statement.tolerance
                    for difference in add(statement.stated_cost, negative(came.totals)).values()
                ),
            )
        )
    return gates


def agree(name: str, expected: Tally, got: Tally) -> list[Gate]:
    """Rows and money of one station of the line against the station before it: equal to the last digit."""
    return [
        Gate(name=f"rows {name}", expected=str(expected.rows), got=str(got.rows), passed=expected.rows == got.rows),
        Gate(
            name=f"billed cost {name}",
            expected=money(expected.totals),
            got=money(got.totals),
            passed=not any(add(expected.totals, negative(got.totals)).values()),
        ),
    ]


def agrees(expected: Tally, got: Tally) -> bool:
    """Whether rows and money of two stations are equal to the last digit."""
    return all(gate.passed for gate in agree("", expected, got))


def require(gates: list[Gate]) -> None:
    """Raise `DoesNotReconcile` unless every gate passed."""
    if not all(gate.passed for gate in gates):
        raise DoesNotReconcile(gates)


def add(a: Totals, b: Totals) -> dict[str, Decimal]:
    """The sum of two totals, currency by currency, exactly."""
    with localcontext(EXACT):
        return {currency: a.get(currency, Decimal(0)) + b.get(currency, Decimal(0)) for currency in sorted({*a, *b})}


def negative(a: Totals) -> dict[str, Decimal]:
    """The totals with their signs turned."""
    with localcontext(EXACT):
        return {currency: -amount for currency, amount in a.items()}


def plain(amount: Decimal) -> str:
    """An amount as a person writes it: no exponent, no trailing zeros, every digit."""
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def money(totals: Totals) -> str:
    """Totals as one line of text: `12.5 EUR + 3 USD`; `0` when there is none."""
    return " + ".join(f"{plain(amount)} {currency}" for currency, amount in sorted(totals.items())) or "0"
