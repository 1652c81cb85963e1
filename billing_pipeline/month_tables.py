"""The tables of a month's report: which columns of which rows, currency by currency, and what stands where nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby

from .month_facts import LISTED, Facts, Row
from .reconcile import plain


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: of the rows.
        head: what stands above it.
        absent: what stands where there is no value.
        signed: amounts above 0 have a plus.
    """

    key: str
    head: str
    absent: str = "–"
    signed: bool = False


@dataclass(frozen=True)
class Table:
    """A table: its caption says what it is of, so that it can be read alone.

    Attributes:
        strong: rows that are sums, by number.
        inner: rows that are parts of a strong one above, by number.
    """

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    strong: frozenset[int] = field(default_factory=frozenset)
    inner: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        # Places behind the point that each column of numbers needs, so that the points stand below each other.
        self.__dict__["places"] = {
            column.key: max(len(amount(value).partition(".")[2]) for value in numbers)
            for column in self.columns
            if (numbers := [row[column.key] for row in self.rows if isinstance(row[column.key], Decimal)])
        }

    @property
    def numeric(self) -> set[str]:
        """The columns of numbers, which stand to the right."""
        return {c.key for c in self.columns if any(type(row[c.key]) in (Decimal, int) for row in self.rows)}


def amount(value: Decimal) -> str:
    """Every digit, thousands apart: 1,234.50789."""
    whole, point, rest = plain(value).partition(".")
    return f"{'-' if whole.startswith('-') else ''}{int(whole.lstrip('-')):,}{point}{rest}"


def signed(value: Decimal) -> str:
    """The amount, with a plus when it is above 0."""
    return f"{'+' if value > 0 else ''}{amount(value)}"


def by_currency(rows: Iterable[Row]) -> Iterator[tuple[str, list[Row]]]:
    """The rows currency by currency: no table and no plot has two."""
    ordered = sorted(rows, key=lambda row: row["BillingCurrency"])
    for currency, same in groupby(ordered, lambda row: row["BillingCurrency"]):
        yield currency, list(same)


def account(row: Row) -> str:
    """How an account is called everywhere: plivo/main."""
    return f"{row['x_Provider']}/{row['x_Account']}"


def cost(month: str, currency: str, rows: Sequence[Row], titles: Mapping[str, str]) -> Table:
    """Providers and their services in one currency, and their sum."""

    def name(row: Row) -> str:
        told = row["ServiceName"] or titles.get(row["x_Provider"], "All providers")
        if row["x_PaidIn"] and not row["EffectiveCost"]:
            told += " (paid in, to cover later usage)"
        elif row["x_PaidIn"]:
            told += f" (of it {amount(row['x_PaidIn'])} paid in, to cover later usage)"
        return told + (
            f" (of it {signed(row['x_Corrections'])} corrects earlier months)" if row["x_Corrections"] else ""
        )

    columns = [Column("name", "Provider and service")]
    if len({row["x_Finality"] for row in rows}) > 1:
        columns.append(Column("x_Finality", "Status"))
    if any(row["x_Finality"] == "part provisional" for row in rows):
        columns.append(Column("x_Provisional", "Provisional part"))
    return Table(
        f"Billed in {month}, {currency}",
        [*columns, Column("BilledCost", f"Billed, {currency}")],
        [{**row, "name": name(row)} for row in rows],
        strong=frozenset(number for number, row in enumerate(rows) if row["ServiceName"] is None),
        inner=frozenset(number for number, row in enumerate(rows) if row["ServiceName"] is not None),
    )


def days(name: str, currency: str, rows: Sequence[Row]) -> Table:
    """The days of an account."""
    columns = [Column("x_Day", "Day"), Column("EffectiveCost", "Used", "not there as a whole")]
    return Table(f"{name} by day, {currency}", columns, rows)


def spent(facts: Facts) -> list[Table]:
    """Which part of the month the daily curves hold."""

    def columns(rows: list[Row]) -> list[Column]:
        parts = (("x_ByMonth", "Charged by the month"), ("x_NotWhole", "On days not known to be whole"))
        return [
            Column("account", "Account"),
            Column("x_InCurve", "By day, as drawn"),
            *(Column(key, head) for key, head in parts if any(row[key] for row in rows)),
            Column("EffectiveCost", "Used or bought"),
        ]

    return _each(facts["spent"], "What is drawn, and what has no day", columns)


def anomalies(facts: Facts) -> list[Table]:
    """Days on which a service cost much more or less than usual."""
    return _each(
        facts["anomalies"],
        "Unusual days",
        lambda _: [
            Column("x_UsageDate", "Day"),
            Column("account", "Account"),
            Column("ServiceName", "Service"),
            Column("EffectiveCost", "Cost"),
            Column("x_Usual", "Usual"),
            Column("x_Deviation", "Difference", signed=True),
        ],
    )


def changes(now: str, before: str, currency: str, rows: Sequence[Row]) -> Table:
    """Accounts against the month before, and all that can be compared."""
    columns = [
        Column("account", "Account"),
        Column("x_CostBefore", before, "never fetched"),
        Column("EffectiveCost", now),
        Column("x_Change", "Change", "not known", signed=True),
        Column("x_ChangePercent", "%", signed=True),
    ]
    named = [
        {**row, "account": account(row) if row["x_Provider"] else "All that can be compared"}
        for row in rows
        if row["x_Provider"] or row["x_Change"] is not None
    ]
    strong = frozenset(number for number, row in enumerate(named) if row["x_Provider"] is None)
    return Table(f"{now} against {before}, {currency}", columns, named, strong)


def movers(now: str, before: str, currency: str, rows: Sequence[Row]) -> Table:
    """The slices that changed most, and why."""
    columns = [
        Column("slice", "What"),
        Column("x_Why", "Mostly because of"),
        Column("x_CostBefore", before),
        Column("EffectiveCost", now),
        Column("x_Change", "Change", signed=True),
    ]
    caption = f"The {LISTED} largest changes, {currency}" if len(rows) == LISTED else f"Every change, {currency}"
    return Table(caption, columns, [{**row, "slice": f"{moved(row)} ({account(row)})"} for row in rows])


def moved(row: Row) -> str:
    """What a mover is of, without saying a word twice."""
    told = row["ChargeDescription"] or row["ServiceName"]
    for key in ("ServiceName", "x_Type", "x_Direction", "x_DestinationCountry"):
        if row[key] and row[key].lower() not in told.lower():
            told += f" · {row[key]}"
    return str(told)


def drift(facts: Facts) -> list[Table]:
    """How the month moved from its first fetch to its newest."""
    parts = {
        "x_Came": "new charges",
        "x_Vanished": "charges that went",
        "x_QuantityMoved": "quantity",
        "x_PriceMoved": "unit price",
        "x_AmountMoved": "other",
        "x_Unsplit": "not split",
    }
    rows = [
        {**row, "why": "; ".join(f"{head} {signed(row[key])}" for key, head in parts.items() if row[key]) or None}
        for row in facts["drift"]
    ]
    return _each(
        rows,
        "From the first fetch to the newest",
        lambda _: [
            Column("account", "Account"),
            Column("x_FirstProvisional", "First fetch", "final at once"),
            Column("x_LastProvisional", "Last provisional", "final at once"),
            Column("x_Final", "As closed", "open"),
            Column("x_AfterClose", "After the close", "not asked"),
            Column("x_Drift", "Drift", signed=True),
            Column("why", "Through", "did not move"),
        ],
    )


def estimates(facts: Facts) -> list[Table]:
    """What the accounts that are open may still bring."""
    return _each(
        facts["estimates"],
        "ESTIMATE of what is still to come",
        lambda _: [
            Column("account", "Account"),
            Column("BilledCost", "Held so far"),
            Column("x_EstimatedToCome", "Estimated to come", "no past month to go by"),
            Column("x_EstimatedFinal", "Estimated final", "no past month to go by"),
            Column("x_MonthsBehindIt", "Past months behind it"),
        ],
    )


def restated(facts: Facts) -> list[Table]:
    """What providers stated anew of a closed month; what they stated later still counts instead."""

    def said(row: Row) -> str | None:
        parts = [row["x_By"], f"“{row['x_Why']}”" if row["x_Why"] else None]
        parts.append(f"booked in {row['x_BookedIn']}" if row["x_BookedIn"] else None)
        return ", ".join(filter(None, parts)) or None

    rows = [
        {**row, "outcome": row["x_Decision"] or "OPEN: waits for a person", "said": said(row)}
        for row in facts["restatements"]
        if row["x_Decision"] != "restated"
    ]
    return _each(
        rows,
        "Stated anew",
        lambda _: [
            Column("account", "Account"),
            Column("x_DecidedAt", "Noticed"),
            Column("x_Held", "As closed"),
            Column("x_Stated", "Stated now"),
            Column("x_Difference", "Difference", signed=True),
            Column("outcome", "Outcome"),
            Column("said", "By whom, why, where"),
        ],
    )


def corrections(facts: Facts) -> list[Table]:
    """Corrections of earlier months that are booked in this one."""
    return _each(
        facts["corrections"],
        "Corrections of earlier months, booked in this one",
        lambda _: [
            Column("account", "Account"),
            Column("x_IncurredPeriod", "Corrects"),
            Column("BilledCost", "Amount", signed=True),
        ],
    )


def invoices(facts: Facts) -> list[Table]:
    """The invoices that are known, beside what the month holds."""
    return _each(
        [row for row in facts["invoices"] if row["x_Verdict"] != "no invoice"],
        "Invoices",
        lambda _: [
            Column("account", "Account"),
            Column("x_Invoices", "Invoice"),
            Column("x_Invoice", "Its total"),
            Column("x_Ours", "Ours", "never fetched"),
            Column("x_Difference", "Difference", "not known", signed=True),
            Column("x_ExplainedParts", "Explained", "nothing"),
            Column("x_Unexplained", "Unexplained", "not known", signed=True),
            Column("x_Verdict", "Verdict"),
        ],
    )


def _each(rows: Iterable[Row], caption: str, columns: Callable[[list[Row]], list[Column]]) -> list[Table]:
    """A table for each currency."""
    named = [{**row, "account": account(row)} for row in rows]
    return [Table(f"{caption}, {currency}", columns(same), same) for currency, same in by_currency(named)]
