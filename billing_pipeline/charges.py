"""The one place where rows are made to fit the common schema. Pure.

One row is one charge: one billed row of a provider. Money and quantities are decimal128(38, 18): 20 digits before the
point and 18 behind it, taken from the digits in the response. What does not fit is refused, never rounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from .finality import Status
from .reconcile import Tally, Totals, plain
from .schema import DECIMAL, INSTANT, SCHEMA, UNKNOWN

__all__ = [
    "COSTS", "DECIMAL", "INSTANT", "SCHEMA", "SUM", "UNKNOWN", "DoesNotFit", "Origin",
    "complete", "dimensions", "flat", "mapped", "merged", "row_source", "tally", "totals_json", "unit",
]  # fmt: skip


# Rows of a column of one value that batches share; a batch of four megabytes of JSON has 16,000 to 40,000.
SHARED = 1 << 16
SUM = pa.decimal256(
    76, 18
)  # sums of decimal128 wrap around silently in Arrow; of decimal256 they cannot with < 2**120 rows

COSTS = ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost")
"""The columns that a provider's amount goes into; see `complete` for when EffectiveCost is 0."""

# No FOCUS 1.4 category is "communications"; `Messaging` is a subcategory of Integration and means queues, not SMS.
SERVICE_CATEGORY = "Business Applications"
SERVICE_SUBCATEGORY = "Other (Business Applications)"


_ISO = re.compile("[A-Z]{3}")
_UNITS = {
    "message part": "Message Parts", "message": "Messages", "session": "Sessions", "minute": "Minutes",
    "monthly active user": "Monthly Active Users", "GB": "GB",
}  # fmt: skip


class DoesNotFit(Exception):
    """A provider's row cannot be written in the common schema without losing or inventing something."""

    rerun = "once"
    remedy = "If it stays, look at the place it names in the landing and in the provider's page"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What all rows of one partition share.

    Attributes:
        provider, title: `plivo` and `Plivo`.
        account: its name in accounts.toml.
        period_start, period_end: the month on the provider's clock, UTC instants, half-open.
        fetched_at: when the fetch started.
        status: provisional or final.
    """

    provider: str
    title: str
    account: str
    period_start: datetime
    period_end: datetime
    fetched_at: datetime
    status: Status


def complete(rows: Mapping[str, pa.Array], origin: Origin) -> tuple[pa.RecordBatch, int]:
    """A provider's columns as a batch of SCHEMA.

    Args:
        rows: columns by name, equally long; at least BilledCost, BillingAccountId, BillingCurrency, ChargeCategory,
            ChargeFrequency, ChargePeriodStart, ChargePeriodEnd, ServiceName and x_RowSource. A column of SCHEMA that is
            missing is null, or what `origin` and the rules of the schema say. `x_Unknown` is merged into x_Dimensions.
        origin: what all rows share.

    Returns:
        The batch, and how many of its rows had undocumented fields.

    Raises:
        DoesNotFit: a column that SCHEMA does not have, a null where none may be, a currency that is no ISO 4217 code, a
            value that the column's type cannot hold exactly.
    """
    strange = set(rows) - set(SCHEMA.names) - {UNKNOWN}
    if strange:
        raise DoesNotFit(f"columns {sorted(strange)} are not in the schema")
    length = len(rows["BilledCost"])
    columns: dict[str, pa.Array] = {name: flat(values) for name, values in rows.items()}
    unknown = columns.pop(UNKNOWN, None)

    def constant(value: object, kind: pa.DataType) -> pa.Array:
        if length > SHARED:
            return pa.repeat(pa.scalar(value, kind), length)
        return _repeated(pa.scalar(value, kind)).slice(0, length)

    columns.setdefault("x_IsPrepayment", constant(False, pa.bool_()))
    columns.setdefault("x_Dimensions", constant("{}", pa.string()))
    if unknown is not None and unknown.null_count < length:
        columns["x_Dimensions"] = merged(columns["x_Dimensions"], unknown)
    # What is not the provider's follows from what is; stored.FOLLOWING says the same to DuckDB, which stores none of it.
    cost = columns["BilledCost"]
    columns["ListCost"] = columns["ContractedCost"] = cost
    columns["EffectiveCost"] = _where(pc.invert(columns["x_IsPrepayment"]), cost, pa.scalar(0, DECIMAL))
    used = pc.equal(columns["ChargeCategory"], "Usage")
    for ours, theirs in (("ConsumedQuantity", "PricingQuantity"), ("ConsumedUnit", "PricingUnit")):
        if theirs in columns:
            columns[ours] = _where(used, columns[theirs], pa.scalar(None, columns[theirs].type))
    for name, value in {
        "BillingPeriodStart": origin.period_start,
        "BillingPeriodEnd": origin.period_end,
        "HostProviderName": origin.title,
        "InvoiceIssuerName": origin.title,
        "ServiceProviderName": origin.title,
        "ServiceCategory": SERVICE_CATEGORY,
        "ServiceSubcategory": SERVICE_SUBCATEGORY,
        "x_Account": origin.account,
        "x_FetchedAt": origin.fetched_at,
        "x_Finality": origin.status,
        "x_Provider": origin.provider,
    }.items():
        columns[name] = constant(value, SCHEMA.field(name).type)
    arrays = []
    for column in SCHEMA:
        values = columns.get(column.name)
        if values is None:
            values = pa.nulls(length, column.type)
        if values.type != column.type:
            try:
                values = values.cast(column.type)
            except pa.ArrowInvalid as error:
                raise DoesNotFit(f"{column.name} cannot be held exactly as {column.type}: {error}") from error
        if not column.nullable and values.null_count:
            where = pc.index(values.is_null(), True).as_py()
            raise DoesNotFit(
                f"{column.name} is missing in {columns['x_RowSource'][where]} and {values.null_count - 1} more rows"
            )
        arrays.append(values)
    batch = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    for currency in batch["BillingCurrency"].unique():
        if not _ISO.fullmatch(currency.as_py()):
            where = pc.index(batch["BillingCurrency"], currency).as_py()
            raise DoesNotFit(
                f"BillingCurrency {currency.as_py()!r} in {batch['x_RowSource'][where]} is no ISO 4217 code"
            )
    return batch, 0 if unknown is None else length - unknown.null_count


def _where(true: pa.Array, values: pa.Array, otherwise: pa.Scalar) -> pa.Array:
    """As `pc.if_else`, which copies also where all is true, as it mostly is."""
    return values if pc.min(true).as_py() and not true.null_count else pc.if_else(true, values, otherwise)


@lru_cache(maxsize=32)
def _repeated(value: pa.Scalar) -> pa.Array:
    """A column of one value, as long as a batch usually is at most: all batches share it."""
    return pa.repeat(value, SHARED)


def dimensions(fields: Mapping[str, pa.Array]) -> pa.Array:
    """The columns `fields` as one JSON object per row; a null leaves its key out.

    Strings and booleans are written as such, everything else as text with all its digits.
    """
    # Each combination of values that there is put together once, where rows share them: joining columns takes three times as
    # long. Where each row is one of its own, putting it together takes twice as long as joining.
    length = len(next(iter(fields.values())))
    objects, number = [""], pa.repeat(pa.scalar(0, pa.int64()), length)
    for name, values in fields.items():
        encoded = flat(values).dictionary_encode(null_encoding="encode")
        both = pc.add(
            pc.multiply(number, len(encoded.dictionary)), encoded.indices.cast(pa.int64())
        ).dictionary_encode()
        if len(both.dictionary) * 4 > length:
            return _object([_fragments(name, flat(values)) for name, values in fields.items()])
        shown = [_fragment(name, value) for value in encoded.dictionary.to_pylist()]
        pairs = (divmod(code, len(shown)) for code in both.dictionary.to_pylist())
        objects = [",".join(filter(None, (objects[one], shown[two]))) for one, two in pairs]
        number = both.indices.cast(pa.int64())
    return pa.array([f"{{{inner}}}" for inner in objects], pa.string()).take(number)


def merged(a: pa.Array, b: pa.Array) -> pa.Array:
    """Two columns of JSON objects as one; null counts as empty."""
    return _object([_inside(flat(a)), _inside(flat(b))])


def unit(raw: pa.Array) -> pa.Array:
    """Units in FOCUS spelling: `message part` → `Message Parts`, `SECONDS` → `Seconds`; null stays null."""
    return mapped(
        raw, lambda text: _UNITS.get(text, text.capitalize() if text.isupper() else text[:1].upper() + text[1:])
    )


def mapped(values: pa.Array, change) -> pa.Array:  # type: ignore[no-untyped-def]
    """`change` (str → str or None) applied to every distinct value once; null stays null."""
    encoded = flat(values).dictionary_encode()
    return pa.array([change(value) for value in encoded.dictionary.to_pylist()], pa.string()).take(encoded.indices)


def row_source(landing: str, pages: pa.Array, *path: str | pa.Array) -> pa.Array:
    """x_RowSource: `<landing>/<page>#/usage/12`, the pointer made of `path` (names and index columns)."""
    parts: list[pa.Array | str] = []
    text = "#"
    for step in path:
        if isinstance(step, str):
            text += f"/{step}"
        else:
            parts += [f"{text}/", flat(step).cast(pa.string())]
            text = ""
    numbers = flat(pages).dictionary_encode()  # what all rows of a page begin with is put together once
    begin = [f"{landing}/{number}{parts[0] if parts else text}" for number in numbers.dictionary.to_pylist()]
    first = pa.array(begin, pa.string()).take(numbers.indices)
    return pc.binary_join_element_wise(first, *parts[1:], *([text] if parts and text else []), "")


def tally(rows: pa.RecordBatch | pa.Table) -> Tally:
    """Rows and money by currency, exactly; `rows` needs BilledCost and BillingCurrency."""
    currencies, cost = rows["BillingCurrency"], pc.cast(rows["BilledCost"], SUM)
    kinds = pc.unique(currencies)
    totals = {
        kind.as_py(): pc.sum(cost if len(kinds) == 1 else cost.filter(pc.equal(currencies, kind))).as_py()
        for kind in kinds
    }
    return Tally(rows=rows.num_rows, totals=totals)


def totals_json(totals: Totals) -> dict[str, str]:
    """Totals for JSON: every digit, as text."""
    return {currency: plain(amount) for currency, amount in sorted(totals.items())}


def flat(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _fragment(name: str, value: object) -> str | None:
    """`"name":value`; None when there is none."""
    if value is None:
        return None
    return (
        f"{json.dumps(name)}:{json.dumps(value if isinstance(value, str | bool) else str(value), ensure_ascii=False)}"
    )


def _fragments(name: str, values: pa.Array) -> pa.Array:
    encoded = values.dictionary_encode()
    return pa.array([_fragment(name, value) for value in encoded.dictionary.to_pylist()], pa.string()).take(
        encoded.indices
    )


def _inside(objects: pa.Array) -> pa.Array:
    inner = pc.utf8_slice_codeunits(objects, 1, -1)
    return pc.if_else(pc.equal(inner, ""), pa.scalar(None, pa.string()), inner)


def _object(fragments: list[pa.Array]) -> pa.Array:
    # The leading "" and its comma: pyarrow 26 drops a row from the result when all of its values are null and skipped.
    # It goes again, and no fragment begins with one.
    joined = pc.utf8_ltrim(pc.binary_join_element_wise(pa.scalar(""), *fragments, ",", null_handling="skip"), ",")
    return pc.binary_join_element_wise(pa.scalar("{"), joined, pa.scalar("}"), "")
