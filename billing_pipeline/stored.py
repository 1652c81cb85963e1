"""How the charges of months lie in the warehouse: what differs from charge to charge, and what they have in common, once.

Most columns of a month hold one value or a few (its account, its currency, the provider's names). DuckDB hashes and compresses
each of them row by row, which takes longer than all the rest of a publication: a million rows take 4.6 s in one table of 46
columns, and 2.2 s in `x_rows` with the values that they share in `x_common`. What follows from other columns of the same
charge is compared when it comes in, and not stored: a tenth of the time, and two fifths of the file. The view `charges` is
all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .charges import SCHEMA
from .landing import Partition
from .reconcile import Gate, Tally, require

if TYPE_CHECKING:
    import duckdb

# What differs from charge to charge. A column that is not named here is right wherever it stands; it only takes longer.
OWN = frozenset({
    "BilledCost", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "PricingQuantity", "x_CorrectionOf",
    "x_DestinationCountry", "x_Dimensions", "x_DurationSeconds", "x_RowSource", "x_Surcharge", "x_UnitPrice", "x_UsageDate",
})  # fmt: skip
FOLLOWING = {
    "ConsumedQuantity": "CASE WHEN ChargeCategory = 'Usage' THEN PricingQuantity END",
    "ContractedCost": "BilledCost",
    "EffectiveCost": "CASE WHEN x_IsPrepayment THEN 0 ELSE BilledCost END",
    "ListCost": "BilledCost",
}
"""What follows from other columns of a charge, as SQL: the rules of the schema, by which `charges.complete` makes them."""
# No value comes twice, so DuckDB need not try whether a dictionary is smaller: 1.2 instead of 1.4 s for a million rows.
_ALL_DIFFERENT = {"x_RowSource": " USING COMPRESSION fsst"}
GROUP = 122_880
"""Rows of one of DuckDB's row groups. Were less of one stored in a transaction, the checkpoint would fill it up and write what
stands behind it anew: 0.3 s, and a file larger by a third, for 800,000 rows in pieces of 500,000 and 300,000.
"""
# Row groups in one transaction, and less than one behind them; with 1, 2 and 3 a million rows take 0.87, 0.78, 0.82 s, not 0.74.
MOST = 4
AT_ONCE = 2  # a million rows take 0.74 s instead of 1.26, ten million 7.8 instead of 13.8, and 15 MB more
MONTH = "x_Provider = $1 AND x_Account = $2 AND x_BillingPeriod = $3"

Key = tuple[str, str, str]
"""Provider, account, billing period."""


def create(db: duckdb.DuckDBPyConnection) -> None:
    """`x_rows`, `x_common` and the view `charges`, empty, with their comments."""
    own = ", ".join(_column(field) + _ALL_DIFFERENT.get(field.name, "") for field in SCHEMA if field.name in OWN)
    common = ", ".join(_column(field) for field in SCHEMA if field.name not in {*OWN, *FOLLOWING})
    db.execute(f"CREATE TABLE x_rows (x_Common INTEGER NOT NULL, {own})")
    db.execute(f"CREATE TABLE x_common (x_Common INTEGER NOT NULL, {common}, x_BillingPeriod VARCHAR NOT NULL)")
    columns = ", ".join(
        f'CAST({FOLLOWING[field.name]} AS {_sql_type(field.type)}) AS "{field.name}"'
        if field.name in FOLLOWING
        else f'"{field.name}"'
        for field in SCHEMA
    )
    db.execute(f"CREATE VIEW charges AS SELECT {columns}, x_BillingPeriod FROM x_rows JOIN x_common USING (x_Common)")  # noqa: S608
    for kind, name, text in (
        ("VIEW", "charges", "One row: one billed row of a provider, as it stands now."),
        ("TABLE", "x_rows", "One row: what is a charge''s own. Ask the view charges."),
        ("TABLE", "x_common", "One row: what charges of one month have in common. Ask the view charges."),
        ("COLUMN", "x_rows.x_Common", "The row of x_common that belongs to it."),
        ("COLUMN", "x_common.x_Common", "Numbers the rows."),
        ("COLUMN", "charges.x_BillingPeriod", "The calendar month on the provider''s clock, YYYY-MM."),
    ):
        db.execute(f"COMMENT ON {kind} {name} IS '{text}'")
    for field in SCHEMA:
        meaning = field.metadata[b"description"].decode().replace("'", "''")
        db.execute(f"COMMENT ON COLUMN charges.\"{field.name}\" IS '{meaning}'")


@dataclass(frozen=True)
class Shared:
    """A month's Parquet file of which `x_common` has what its charges have in common, and `x_rows` has nothing yet.

    Attributes:
        path, partition, rows: the file, whose month it is, and how many rows it has.
        own: its columns that `x_rows` has.
        varying: its columns in which its rows of `x_common` differ.
        after, last: its rows of `x_common` are those behind `after` up to `last`.
    """

    path: Path
    partition: Partition
    rows: int
    own: Sequence[str]
    varying: Sequence[str]
    after: int
    last: int


class Stretch(NamedTuple):
    """Rows of a file, from number `first` up to `end`."""

    file: Shared
    first: int
    end: int

    def check(self, db: duckdb.DuckDBPyConnection) -> None:
        """Raise DoesNotReconcile when a row has something else than follows from its other columns."""
        follow = " AND ".join(f'"{name}" IS NOT DISTINCT FROM {rule}' for name, rule in FOLLOWING.items())
        ((regular,),) = db.execute(f"SELECT count(*) {_STRETCH} AND {follow}", self._named()).fetchall()
        which = f"rows {self.first} to {self.end - 1} of {self.file.partition}"
        name = f"{which} whose {', '.join(FOLLOWING)} follow from their other columns"
        count = self.end - self.first
        require([Gate(name=name, expected=str(count), got=str(regular), passed=regular == count)])

    def insert(self, db: duckdb.DuckDBPyConnection) -> None:
        """Put the rows behind what is there, in their order."""
        own, varying = (_listed(columns) for columns in (self.file.own, self.file.varying))
        number, numbers, parameters = "$last", "", self._named() | {"last": self.file.last}
        if varying:
            parameters["after"] = self.file.after
            same = " AND ".join(f'n."{name}" IS NOT DISTINCT FROM c."{name}"' for name in self.file.varying)
            # Beside the file, row by row, and not joined with it: a join would not keep the order of the rows.
            number, numbers = (
                "x_Common",
                (
                    f"POSITIONAL JOIN (SELECT x_Common FROM (SELECT {varying}, file_row_number {_STRETCH}) AS n "  # noqa: S608
                    f"LEFT JOIN (SELECT * FROM x_common WHERE x_Common > $after AND x_Common <= $last) AS c ON {same} "
                    "ORDER BY file_row_number)"
                ),
            )
        db.execute(
            f"INSERT INTO x_rows BY NAME SELECT {number} AS x_Common, {own} FROM (SELECT {own} {_STRETCH}) {numbers}",  # noqa: S608
            parameters,
        )

    def _named(self) -> dict[str, object]:
        return {"file": str(self.file.path), "first": self.first, "end": self.end}


_STRETCH = (
    "FROM read_parquet($file, hive_partitioning = false, file_row_number = true) "
    "WHERE file_row_number >= $first AND file_row_number < $end"
)


def share(db: duckdb.DuckDBPyConnection, path: Path, partition: Partition) -> Shared:
    """Put what the charges of a month's Parquet file have in common into `x_common`."""
    file = pq.read_metadata(path)
    there = set(file.schema.names) - {*FOLLOWING}  # a file of an older version lacks columns that only corrections fill
    varying = [name for name in _varying(file) if name in there - OWN]
    alike = [field.name for field in SCHEMA if field.name in there - OWN - {*varying}]
    after = _last(db)
    parquet = "read_parquet($file, hive_partitioning = false)"
    number = f"row_number() OVER (ORDER BY {_listed(varying)})" if varying else "1"
    combinations = [f"(SELECT DISTINCT {_listed(varying)} FROM {parquet})"] * bool(varying)  # noqa: S608
    combinations += [f"(SELECT {_listed(alike)} FROM {parquet} LIMIT 1)"] * bool(alike)  # noqa: S608
    db.execute(
        f"INSERT INTO x_common BY NAME SELECT $after + {number} AS x_Common, *, $period AS x_BillingPeriod "  # noqa: S608
        f"FROM {', '.join(combinations)}",
        {"after": after, "period": str(partition.period), "file": str(path)},
    )
    own = [field.name for field in SCHEMA if field.name in there & OWN]
    return Shared(path, partition, file.num_rows, own, varying, after, _last(db))


def _last(db: duckdb.DuckDBPyConnection) -> int:
    ((last,),) = db.execute("SELECT coalesce(max(x_Common), 0) FROM x_common").fetchall()
    return int(last)


def insert(db: duckdb.DuckDBPyConnection, files: Sequence[Shared]) -> None:
    """Put the rows of files behind what is there, in their order. What was done over `db` before has to be committed.

    Some rows at a time in a transaction of their own, two at once, committed in order.

    Raises:
        DoesNotReconcile: a row has something else than follows from its other columns. Rows before it may be there then.
    """
    under_way: deque[tuple[duckdb.DuckDBPyConnection, Future[None]]] = deque()
    given_up = Event()

    def store(cursor: duckdb.DuckDBPyConnection, piece: list[Stretch]) -> None:
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.begin()
        for stretch in piece:
            for step in (stretch.check, stretch.insert):
                if given_up.is_set():
                    return  # nobody commits it
                step(cursor)

    def commit() -> None:
        cursor, stored = under_way[0]
        stored.result()
        cursor.commit()
        cursor.close()
        under_way.popleft()

    with ExitStack() as cursors, ThreadPoolExecutor(AT_ONCE, "stored") as threads:
        try:
            for piece in pieces(files):
                if len(under_way) == AT_ONCE:
                    commit()
                cursor = cursors.enter_context(db.cursor())
                under_way.append((cursor, threads.submit(store, cursor, piece)))
            while under_way:
                commit()
        except BaseException:
            given_up.set()
            for cursor, _ in under_way:
                cursor.interrupt()  # does nothing to one that is between two steps
            raise


def pieces(files: Sequence[Shared]) -> Iterator[list[Stretch]]:
    """All rows, as many at a time as one transaction stores.

    Less than a row group is not left for a transaction of its own, but goes with what stands before it: a transaction's last
    group is compressed by its commit, for which others wait, and that one is small then. A million rows take 0.67 s instead of
    0.75, and the checkpoint behind them 0.01 instead of 0.03.
    """
    left = sum(file.rows for file in files)
    size = GROUP * max(1, min(MOST, round(left / AT_ONCE / GROUP)))
    piece: list[Stretch] = []
    room = size if left >= size + GROUP else left
    for file in files:
        first = 0
        while first < file.rows:
            piece.append(Stretch(file, first, min(first + room, file.rows)))
            stored = piece[-1].end - first
            first, room, left = first + stored, room - stored, left - stored
            if not room:
                yield piece
                piece, room = [], size if left >= size + GROUP else left


def tidy(db: duckdb.DuckDBPyConnection) -> None:
    """Take out what belongs to no month: somebody else wrote it."""
    db.execute("DELETE FROM x_rows WHERE x_Common NOT IN (SELECT x_Common FROM x_common)")


def delete(db: duckdb.DuckDBPyConnection, key: Key) -> None:
    """Take a month out."""
    db.execute(f"DELETE FROM x_rows WHERE x_Common IN (SELECT x_Common FROM x_common WHERE {MONTH})", list(key))  # noqa: S608
    db.execute(f"DELETE FROM x_common WHERE {MONTH}", list(key))  # noqa: S608


def tallies(db: duckdb.DuckDBPyConnection) -> dict[Key, Tally]:
    """Rows and money of every month in `charges`."""
    sums = db.execute(
        # By number first: it takes a third of the time that it takes by name.
        "SELECT x_Provider, x_Account, x_BillingPeriod, BillingCurrency, sum(n)::BIGINT, sum(cost) "
        "FROM (SELECT x_Common, count(*) AS n, sum(BilledCost) AS cost FROM x_rows GROUP BY x_Common) "
        "JOIN x_common USING (x_Common) GROUP BY ALL"
    ).fetchall()
    found: dict[Key, Tally] = {}
    for provider, account, period, currency, rows, total in sums:
        month = (provider, account, period)
        found[month] = found.get(month, Tally()) + Tally(rows=rows, totals={currency: total})
    return found


def _varying(file: pq.FileMetaData) -> Iterable[str]:
    """The columns that hold more than one value, by the file's own statistics; one without statistics counts as such."""
    groups = [group for group in map(file.row_group, range(file.num_row_groups)) if group.num_rows]
    for number, name in enumerate(file.schema.names):
        found: set[object] = set()
        for group in groups:
            stated = group.column(number).statistics
            if stated is not None and stated.null_count == group.num_rows:
                found.add(None)
            elif stated is not None and stated.null_count == 0 and stated.has_min_max and stated.min == stated.max:
                found.add(stated.min)
            else:
                found |= {None, True}
        if len(found) > 1:
            yield name


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _column(field: pa.Field) -> str:
    return f'"{field.name}" {_sql_type(field.type)}{"" if field.nullable else " NOT NULL"}'


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    names = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.date32(): "DATE"}
    return "TIMESTAMP WITH TIME ZONE" if pa.types.is_timestamp(kind) else names[kind]
