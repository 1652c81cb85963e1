"""Infobip's rows as columns: what each value may be, and where it goes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ... import charges
from ...period import day_start
from ...rows import UnexpectedShape, held, kind, text

ABSENT = "N/A"
"""What Infobip writes where a row has no value for a column; null means the same."""

COST = {"UNIT_TYPE", "UNIT_PRICE", "QUANTITY", "TOTAL_PER_UNIT", "CURRENCY"}
_OWN_COLUMN = COST | {
    "DAY", "ACCOUNT_KEY", "ACCOUNT_NAME", "CATEGORY_CODE", "COUNTRY_CODE", "DIRECTION", "TRAFFIC_TYPE",
}  # fmt: skip
_NAN = Decimal("NaN")
_DAY = re.compile(r"(\d{4}-\d{2}-\d{2})(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|\+00:?00)?)?", re.ASCII)


def columns(
    rows: list[list[Any]], names: Sequence[str], first: int, page_number: int, landing: str
) -> dict[str, pa.Array]:
    """Rows as columns of the common schema.

    Args:
        rows: each a value per column.
        names: the columns' names, in the letter's own order.
        first: how many rows of the letter came before.
        page_number: the letter's place in the landing.
        landing: prefix of x_RowSource.

    Raises:
        UnexpectedShape: a row is not as wide as `names`, or has no amount or no day. The text names the row.
    """
    width = len(names)
    for number, row in enumerate(rows, first):
        if len(row) != width:
            raise UnexpectedShape(not_as_wide(number, width))
    raw = dict(zip(names, zip(*rows, strict=True) if rows else [()] * width, strict=True))
    nothing = pa.nulls(len(rows), pa.string())
    known = {
        name: _text(values) for name, values in raw.items() if name not in ("TOTAL_PER_UNIT", "UNIT_PRICE", "QUANTITY")
    }
    dimensions = {name: values for name, values in known.items() if name not in _OWN_COLUMN}
    exact = {}
    for name in ("UNIT_PRICE", "QUANTITY"):
        exact[name], lost = _decimals(raw.get(name, (None,) * len(rows)))
        if lost.null_count < len(lost):
            dimensions[name] = lost
    service = pc.coalesce(known.get("CATEGORY_CODE", nothing), known.get("CATEGORY_NAME", nothing), ABSENT)
    unit = pc.if_else(
        exact["QUANTITY"].is_valid(), charges.unit(known.get("UNIT_TYPE", nothing)), pa.scalar(None, pa.string())
    )
    country = known.get("COUNTRY_CODE", nothing)
    days = [day(value, number) for number, value in enumerate(raw["DAY"], first)]
    starts = pa.array([_midnight(each) for each in days], charges.INSTANT)
    index = pa.array(range(first, first + len(rows)), pa.int64())
    page = pa.repeat(pa.scalar(page_number), len(rows))
    return {
        "BilledCost": _amounts(raw["TOTAL_PER_UNIT"], first),
        "BillingAccountId": pc.coalesce(known.get("ACCOUNT_KEY", nothing), known.get("ACCOUNT_NAME", nothing), ABSENT),
        "BillingAccountName": known.get("ACCOUNT_NAME", nothing),
        "BillingCurrency": known["CURRENCY"],
        "ChargeCategory": pa.repeat(pa.scalar("Usage"), len(rows)),
        "ChargeDescription": pc.binary_join_element_wise(service, country, " ", null_handling="skip"),
        "ChargeFrequency": pa.repeat(pa.scalar("Usage-Based"), len(rows)),
        "ChargePeriodStart": starts,
        "ChargePeriodEnd": pc.add(starts, pa.scalar(timedelta(days=1))),
        "PricingQuantity": exact["QUANTITY"],
        "PricingUnit": unit,
        "ServiceName": service,
        "x_DestinationCountry": country,
        "x_Dimensions": charges.dimensions(dimensions) if dimensions else pa.repeat(pa.scalar("{}"), len(rows)),
        "x_Direction": known.get("DIRECTION", nothing),
        "x_RowSource": charges.row_source(landing, page, "response", "rows", index),
        "x_Type": known.get("TRAFFIC_TYPE", nothing),
        "x_UnitPrice": exact["UNIT_PRICE"],
        "x_UnitRaw": known.get("UNIT_TYPE", nothing),
        "x_UsageDate": pa.array(days, pa.date32()),
    }


def _amounts(values: Sequence[Any], first: int) -> pa.Array:
    with suppress(pa.ArrowTypeError, pa.ArrowInvalid):  # Arrow refuses what it would have to round
        amounts = pa.array(values, charges.DECIMAL)
        if not amounts.null_count:
            return amounts
    return pa.array([money(amount, number) for number, amount in enumerate(values, first)], charges.DECIMAL)


def _text(values: Sequence[Any]) -> pa.Array:
    """Values as text, numbers with their digits; absent ones null."""
    try:
        array = pa.array(values, pa.string())
    except pa.ArrowTypeError:
        array = pa.array([v if v is None or isinstance(v, str) else text(_number(v)) for v in values], pa.string())
    return pc.if_else(pc.equal(array, ABSENT), pa.scalar(None, pa.string()), array)


def _number(value: Any) -> Any:
    return Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _decimals(values: Sequence[Any]) -> tuple[pa.Array, pa.Array]:
    """Numbers, and as text what is no number that the schema can hold exactly."""
    values = [None if value == ABSENT else value for value in values]
    try:
        return pa.array(values, charges.DECIMAL), pa.nulls(len(values), pa.string())
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        held = [_held(value) for value in values]
        lost = [value if number is None else None for value, number in zip(values, held, strict=True)]
        return pa.array(held, charges.DECIMAL), _text(lost)


def _held(value: Any) -> Decimal | None:
    """The number, when decimal128(38, 18) holds it to the last digit."""
    try:
        number = Decimal(value) if isinstance(value, str | int | Decimal) and not isinstance(value, bool) else _NAN
    except InvalidOperation:
        return None
    return held(number, charges.DECIMAL)


def money(value: Any, number: int) -> Decimal:
    """An amount that the schema holds exactly; anything else stops the month."""
    amount = _held(value)
    if amount is not None:
        return amount
    what = "is missing" if value in (None, ABSENT) else f"is {_told(value)}"
    raise UnexpectedShape(
        f"row {number}: TOTAL_PER_UNIT {what}, and a number of at most 20 digits before and 18 behind the point is needed. A "
        "missing amount is not zero and none is rounded: the month was not replaced. Fetch it again, then ask Infobip"
    )


def _told(value: Any) -> str:
    """A value for a message: numbers alike, in quotes or not."""
    try:
        number = Decimal(value) if isinstance(value, str | Decimal) else None
    except InvalidOperation:
        number = None
    return f"{str(value)[:60]!r} ({kind(value)})" if number is None else str(number)[:60]


def day(value: Any, number: int | None = None) -> date:
    """A UTC day as Infobip writes it: of row `number`, or of the letter's envelope."""
    found = _read_day(value) if isinstance(value, str) else None
    if found is None:
        where = "a period's end" if number is None else f"DAY of row {number}"
        raise UnexpectedShape(
            f"{where} is {str(value)[:40]!r}, which is no UTC day: yyyy-MM-dd, or a date-time without zone, with Z or +0000"
        )
    return found


@lru_cache(maxsize=1024)
def _read_day(value: str) -> date | None:
    match = _DAY.fullmatch(value)
    try:
        return date.fromisoformat(match[1]) if match else None
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _midnight(day: date) -> datetime:
    return day_start(day, UTC)


def not_as_wide(number: int, width: int) -> str:
    """What to say of a row whose values cannot be told apart."""
    return f"row {number} does not have a value for each of the {width} columns, so no value of it can be trusted"
