"""JSON rows → Arrow columns, whole columns at a time and exactly: decimals from the digits in the response. Pure.

Two readers that must agree (a test says so): pyarrow.json with an explicit schema reads what the provider's page
documents, fast; when a batch holds anything else, such as a new field, a careful reader goes through it row by row, keeps
what is new as JSON text, and says exactly where it found what it cannot take.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from .charges import UNKNOWN

# A number in quotes, as pyarrow takes it. Python would also take 1_000, Arabic digits and blanks.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Of JSON a batch: with 1 MB threads hand the interpreter over so often that loading takes a fifth longer.
BATCH_BYTES = 4 << 20
# Threads that read batches: with one, the second process is what is waited for, and a refresh takes 0.1 to 0.2 s longer.
READERS = 2


class UnexpectedShape(Exception):
    """The answer is not built as the provider's page says, so no row of it can be trusted."""

    rerun = "once"
    remedy = "If it stays, look at the place it names in the landing and in the provider's page"


@dataclass(frozen=True)
class Rows:
    """Rows of one or more pages.

    Attributes:
        columns: one struct per row, in the row type asked for plus `x_Unknown` (at each level of nesting): JSON object text
            of the fields that the type does not name, null when there are none.
        page: the number of the page that each row came from.
        index: the row's position in that page's list, from 0.
    """

    columns: pa.StructArray
    page: pa.Array
    index: pa.Array

    def __getitem__(self, name: str) -> pa.Array:
        return self.columns.field(name)

    def __len__(self) -> int:
        return len(self.columns)


def read(
    lists: Iterable[tuple[int, bytes]], row: pa.StructType, *, inexact: frozenset[str] = frozenset()
) -> Iterator[Rows]:
    """The rows of JSON lists as Arrow, a batch of about four megabytes at a time.

    Args:
        lists: (page number, JSON text of a list of objects) in order.
        row: the fields of one object; strings, booleans, decimals, and lists of such structs. A field that is missing or
            null is null: callers check what may not be.
        inexact: decimal fields that are not money to be summed (averages): a value with more digits than the type holds
            becomes null, and its digits stay in `x_Unknown` under the field's own name.

    Raises:
        UnexpectedShape: not a list of objects; a field of another kind than documented; a number that the type cannot hold
            exactly; a key given twice. The text names page and row.
    """
    # Batches are read while the caller makes charges of those before.
    with ThreadPoolExecutor(READERS, "rows") as beside:
        coming: deque[Future[Rows]] = deque()
        for batch in _batches(lists):
            coming.append(beside.submit(_rows, batch, row, inexact))
            if len(coming) > READERS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _batches(lists: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch: list[tuple[int, bytes]] = []
    size = 0
    for page, raw in lists:
        batch.append((page, bytes(raw)))
        size += len(batch[-1][1])
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _rows(batch: list[tuple[int, bytes]], row: pa.StructType, inexact: frozenset[str]) -> Rows:
    lists = _fast(batch, row)
    if lists is None:
        lists = _careful(batch, row, inexact)
    parents = pc.list_parent_indices(lists)
    pages = pa.array([page for page, _ in batch], pa.int32()).take(parents)
    starts = lists.offsets.take(parents)
    values = lists.flatten()
    if values.null_count:
        where = pc.index(values.is_null(), True).as_py()
        raise UnexpectedShape(f"page {pages[where]}: a row is null")
    index = pc.subtract(numbered(len(values)), pc.subtract(starts, lists.offsets[0]))
    return Rows(values, pages, index)


def numbered(count: int) -> pa.Array:
    """0, 1, 2 and so on, int32."""
    return pa.arange(0, count).cast(pa.int32())


_DEEP = r"""[:\[,"\s][-+.0-9]+[eE]-[0-9][0-9]+[",\s\]}]|\\u00(?:2[bBdDeE]|3[0-9]|[46]5)"""
"""A number with two digits in its negative exponent, or one that may hide behind escapes.

pyarrow 26 looks for the power of ten outside its table when a number has more than 94 decimals: it dies of 1e-2147483630, and
reads 3 times 10**40 e-114 as 3e-16. Without an exponent it refuses more than 76 digits behind the point, so these are all.
"""


def _deep(text: bytes) -> bool:
    # Not pa.scalar(text), which would copy it.
    ends = pa.array([0, len(text)], pa.int64()).buffers()[1]
    json_text = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(text)])
    # Asked first, at a third of the cost: is there any "e-" or "\u00"? RE2 needs 1.6 ms per megabyte, Python's `re` 30.
    exponent = pc.match_substring(json_text, pattern="e-", ignore_case=True)[0].as_py()
    if not exponent and (b"\\" not in text or b"\\u00" not in text):
        return False
    return bool(pc.match_substring_regex(json_text, pattern=_DEEP)[0].as_py())


def _fast(batch: list[tuple[int, bytes]], row: pa.StructType) -> pa.ListArray | None:
    # A raw line break inside JSON can only be white space, so it may be replaced; each page is then one line.
    whole = (raw.replace(b"\n", b" ").replace(b"\r", b" ") for _, raw in batch)
    lines = b"".join(piece for raw in whole for piece in (b'{"rows":', raw, b"}\n"))
    if _deep(lines):
        return None
    options = pj.ParseOptions(
        explicit_schema=pa.schema([("rows", pa.list_(_wide(row)))]), unexpected_field_behavior="error"
    )
    try:
        table = pj.read_json(
            pa.BufferReader(lines),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=options,
        )
        lists = table["rows"].combine_chunks().cast(pa.list_(_with_unknown(row)))
        lists.validate(full=True)  # text that is no UTF-8 is read without an error
    except pa.ArrowInvalid:
        return None  # the careful reader either takes it or says what is wrong
    return None if len(lists) != len(batch) or _has_null_rows(lists) else lists


def _wide(row: pa.StructType) -> pa.StructType:
    """The type to read with. pyarrow 26 reads 340282366930000000000 into decimal128(38, 18) as 9061536536.6, silently."""
    wide = {column.name: column.type for column in row}
    for name, kind in wide.items():
        if pa.types.is_decimal(kind):
            wide[name] = pa.decimal256(76, kind.scale)
        elif pa.types.is_list(kind):
            wide[name] = pa.list_(_wide(kind.value_type))
    return pa.struct(wide)


def _has_null_rows(lists: pa.ListArray) -> bool:
    """A page without a list, or a null where an object should be, at any depth. A nested list itself may be null."""
    rows = lists.flatten()
    nested = (rows.field(column.name) for column in rows.type if pa.types.is_list(column.type))
    return bool(rows.null_count or lists.null_count) or any(_has_null_rows(inner.drop_null()) for inner in nested)


def _careful(batch: list[tuple[int, bytes]], row: pa.StructType, inexact: frozenset[str]) -> pa.ListArray:
    lists = []
    for page, raw in batch:
        try:
            parsed = json.loads(
                raw, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse, object_pairs_hook=_unique
            )
        except (ValueError, InvalidOperation, RecursionError) as error:
            raise UnexpectedShape(f"page {page} is not the JSON it should be: {error}") from error
        if not isinstance(parsed, list):
            raise UnexpectedShape(f"page {page}: expected a list of rows, got {kind(parsed)}")
        lists.append([_take(item, row, inexact, f"page {page}, row {number}") for number, item in enumerate(parsed)])
    return pa.array(lists, pa.list_(_with_unknown(row)))


def _take(item: Any, row: pa.StructType, inexact: frozenset[str], where: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise UnexpectedShape(f"{where}: expected an object, got {kind(item)}")
    known = {column.name: column.type for column in row}
    unknown = {name: value for name, value in item.items() if name not in known}
    taken: dict[str, Any] = {}
    for name, wanted in known.items():
        value = item.get(name)
        if value is None:
            taken[name] = None
        elif pa.types.is_decimal(wanted):
            taken[name] = _decimal(value, wanted, f"{where}: {name}", lossy=name in inexact)
            if taken[name] is None:
                unknown[name] = value
        elif pa.types.is_boolean(wanted):
            if not isinstance(value, bool):
                raise UnexpectedShape(f"{where}: {name} should be true or false, got {kind(value)}")
            taken[name] = value
        elif pa.types.is_list(wanted):
            if not isinstance(value, list):
                raise UnexpectedShape(f"{where}: {name} should be a list, got {kind(value)}")
            taken[name] = [_take(v, wanted.value_type, inexact, f"{where}, {name} {n}") for n, v in enumerate(value)]
        elif isinstance(value, dict | list):
            raise UnexpectedShape(f"{where}: {name} should be text, got {kind(value)}")
        else:
            taken[name] = value if isinstance(value, str) else text(value)
            if not _utf8(taken[name]):
                raise UnexpectedShape(
                    f"{where}: {name} holds half a character (a lone surrogate), which no file can hold"
                )
    taken[UNKNOWN] = text(unknown) if unknown else None
    return taken


def _decimal(value: Any, wanted: pa.Decimal128Type, where: str, *, lossy: bool) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, Decimal | str):
        raise UnexpectedShape(f"{where} should be a number, got {kind(value)}")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise UnexpectedShape(f"{where} should be a number, got {value[:40]!r}")
    try:
        number = Decimal(value)
    except InvalidOperation as error:
        raise UnexpectedShape(f"{where} should be a number, got {str(value)[:40]!r}") from error
    found = held(number, wanted)
    if found is not None or (lossy and number.is_finite()):
        return found
    raise UnexpectedShape(
        f"{where} is {str(value)[:60]}, which cannot be held exactly in {wanted.precision - wanted.scale} digits before and "
        f"{wanted.scale} behind the point; it is refused, not rounded. "
        "Nothing is lost, the landing keeps every digit: ask the provider for amounts without float noise"
    )


def held(number: Decimal, wanted: pa.Decimal128Type) -> Decimal | None:
    """The number with the scale of `wanted` when that holds it to the last digit, else None.

    Arrow is not asked: of Decimals with far exponents `pa.array` makes zeros (of 1e-57), or ends the process (of 0e-5000000).
    """
    if not number.is_finite():
        return None
    try:
        return number.quantize(Decimal(1).scaleb(-wanted.scale), context=_exactly(wanted.precision))
    except (InvalidOperation, Inexact):
        return None


@cache
def _exactly(digits: int) -> Context:
    return Context(prec=digits, traps=[InvalidOperation, Inexact])


def text(value: Any) -> str:
    """JSON text of a parsed value, numbers with the digits they had."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{text(k)}:{text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(text(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=not _utf8(value))
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


def _utf8(value: str) -> bool:
    """False for half a character (a lone surrogate), which JSON can write and UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def kind(value: object) -> str:
    """What JSON calls a parsed value."""
    if value is None:
        return "null"
    names = ((bool, "true or false"), (dict, "an object"), (list, "a list"), (str, "text"))
    return next((name for python, name in names if isinstance(value, python)), "a number")


def _with_unknown(row: pa.StructType) -> pa.StructType:
    columns = [
        pa.field(c.name, pa.list_(_with_unknown(c.type.value_type)) if pa.types.is_list(c.type) else c.type)
        for c in row
    ]
    return pa.struct([*columns, pa.field(UNKNOWN, pa.string())])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError(f"a key stands twice in {sorted(keys)}")
    return keys


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")
