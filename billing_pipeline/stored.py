"""How the charges of months lie in the warehouse: what differs from charge to charge, and what they have in common, once.

Most columns of a month hold one value or a few (its account, its currency, the provider's names). DuckDB hashes and compresses
each of them row by row, which takes longer than all the rest of a publication: a million rows take 4.6 s in one table of 46
columns, and 2.2 s in `x_rows` with the values that they share in `x_common`. What follows from other columns of the same
charge is compared when it comes in, and not stored: a tenth of the time, and two fifths of the file. The view `charges` is
all of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

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


def insert(db: duckdb.DuckDBPyConnection, path: Path, partition: Partition) -> None:
    """Put a month's Parquet file behind what is there, its rows in their order.

    Raises:
        DoesNotReconcile: a row has something else than follows from its other columns.
    """
    file = pq.read_metadata(path)
    parquet = "read_parquet($file, hive_partitioning = false)"
    follow = " AND ".join(f'"{name}" IS NOT DISTINCT FROM {rule}' for name, rule in FOLLOWING.items())
    ((regular,),) = db.execute(f"SELECT count(*) FROM {parquet} WHERE {follow}", {"file": str(path)}).fetchall()  # noqa: S608
    name = f"rows of {partition} whose {', '.join(FOLLOWING)} follow from their other columns"
    require([Gate(name=name, expected=str(file.num_rows), got=str(regular), passed=regular == file.num_rows)])
    there = set(file.schema.names) - {*FOLLOWING}  # a file of an older version lacks columns that only corrections fill
    varying = [name for name in _varying(file) if name in there - OWN]
    alike = [field.name for field in SCHEMA if field.name in there - OWN - {*varying}]
    own = ", ".join(f'p."{field.name}"' for field in SCHEMA if field.name in there & OWN)
    ((last,),) = db.execute("SELECT coalesce(max(x_Common), 0) FROM x_common").fetchall()
    names, others = (", ".join(f'"{name}"' for name in some) for some in (varying, alike))
    number = f"row_number() OVER (ORDER BY {names})" if varying else "1"
    combinations = [f"(SELECT DISTINCT {names} FROM {parquet})"] * bool(varying)  # noqa: S608
    combinations += [f"(SELECT {others} FROM {parquet} LIMIT 1)"] * bool(alike)  # noqa: S608
    db.execute(
        f"INSERT INTO x_common BY NAME SELECT $last + {number} AS x_Common, *, $period AS x_BillingPeriod "  # noqa: S608
        f"FROM {', '.join(combinations)}",
        {"last": last, "period": str(partition.period), "file": str(path)},
    )
    number, numbers = "$last + 1", ""
    if varying:
        same = " AND ".join(f'n."{name}" IS NOT DISTINCT FROM c."{name}"' for name in varying)
        # Beside the file, row by row, and not joined with it: a join would not keep the order of the rows.
        number, numbers = (
            "x_Common",
            (
                f"POSITIONAL JOIN (SELECT x_Common FROM (SELECT {names}, file_row_number FROM "  # noqa: S608
                "read_parquet($file, hive_partitioning = false, file_row_number = true)) AS n "
                f"LEFT JOIN (SELECT * FROM x_common WHERE x_Common > $last) AS c ON {same} ORDER BY file_row_number) AS c"
            ),
        )
    db.execute(
        f"INSERT INTO x_rows BY NAME SELECT {number} AS x_Common, {own} FROM {parquet} AS p {numbers}",  # noqa: S608
        {"last": last, "file": str(path)},
    )


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


def _column(field: pa.Field) -> str:
    return f'"{field.name}" {_sql_type(field.type)}{"" if field.nullable else " NOT NULL"}'


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    names = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.date32(): "DATE"}
    return "TIMESTAMP WITH TIME ZONE" if pa.types.is_timestamp(kind) else names[kind]
