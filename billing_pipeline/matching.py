"""Which charge of one fetch is which charge of another: by all that identifies a charge, whatever it costs.

Two fetches of a month rarely have a key in common: providers send grouped rows without an id. A charge is recognised by every
column but those that measure it, name it, or say where it came from. Where several charges look alike, those that are equal
in every measure are paired first and the rest by size, so that the pairs differ as little as they can.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from . import scratch
from .charges import SCHEMA
from .schema import LINEAGE

if TYPE_CHECKING:
    import duckdb

MEASURES = (
    "BilledCost", "ConsumedQuantity", "ContractedCost", "EffectiveCost", "ListCost", "PricingQuantity",
    "x_DurationSeconds", "x_Surcharge",
)  # fmt: skip
"""Columns that may be added up, and so may be corrected by a difference."""

CONTENT = ", ".join(f'"{name}"' for name in SCHEMA.names if name not in LINEAGE)
"""Every column but those that say where a row came from, for SQL."""
_NOT_IDENTITY = {
    *MEASURES,
    "x_UnitPrice",  # follows from the measures, and for some providers is an average
    *("BillingAccountName", "SubAccountName"),  # a customer that gives an account another name was billed nothing new
    *LINEAGE,
    *("BillingPeriodEnd", "BillingPeriodStart", "ChargeClass"),  # of a correction: where it is booked
    "x_Dimensions",  # but for what is volatile in it, see `identity`
}
GONE = "-"
"""What x_RowSource begins with in a correction of a charge that the provider no longer states."""


def match(db: duckdb.DuckDBPyConnection, before: str, after: str, volatile: Collection[str] = ()) -> None:
    """Pair the charges of two relations, in the new table `pairs`: every charge of either side is in at most one row.

    Charges that are equal in every column are left out: of a million, most are, and naming what identifies one takes long.

    Args:
        db: where to work.
        before: a relation in SQL, with the columns of SCHEMA; x_RowSource is unique in it.
        after: the other one.
        volatile: fields of x_Dimensions that change from fetch to fetch without meaning another charge.

    The columns of `pairs`: `before` and `after`, the x_RowSource on either side, null where that side has none; `same`, true
    when every measure is equal (null counts as 0; a charge that measures 0 throughout and stands on one side alone is no
    difference either).
    """
    measured = ", ".join(f'CAST(coalesce("{name}", 0) AS VARCHAR)' for name in MEASURES)
    zero = " AND ".join(f'coalesce("{name}", 0) = 0' for name in MEASURES)
    both = " UNION ALL ".join(
        f"SELECT {sign} AS sign, hash({CONTENT}) AS content, x_RowSource AS source FROM {relation}"  # noqa: S608
        for sign, relation in ((-1, before), (1, after))
    )
    # Which are not on both sides, by one hash per row; both are read twice, for a million rows with their names are 160 MB.
    db.execute(
        "CREATE OR REPLACE TEMP TABLE x_excess AS "  # noqa: S608
        f"SELECT content, sum(sign) AS n FROM ({both}) GROUP BY content HAVING sum(sign) <> 0"
    )
    db.execute(
        "CREATE OR REPLACE TEMP TABLE x_moved AS SELECT sign, source FROM ("  # noqa: S608
        "SELECT sign, source, n, row_number() OVER (PARTITION BY content ORDER BY source) AS copy "
        f"FROM ({both}) JOIN x_excess USING (content) WHERE sign(n) = sign) WHERE copy <= abs(n)"
    )
    for side, sign, relation in (("b", -1, before), ("a", 1, after)):
        db.execute(
            f"CREATE OR REPLACE TEMP TABLE x_{side} AS "  # noqa: S608
            "SELECT *, row_number() OVER (PARTITION BY key, measured ORDER BY source) AS n FROM ("
            f"SELECT x_RowSource AS source, BilledCost AS cost, {zero} AS zero, {identity(volatile)} AS key, "
            f"md5(to_json([{measured}])::VARCHAR) AS measured FROM {relation} "
            f"WHERE x_RowSource IN (SELECT source FROM x_moved WHERE sign = {sign}))"
        )
    rest = (
        "SELECT key, source, zero, row_number() OVER (PARTITION BY key ORDER BY cost, source) AS n FROM x_{0} "
        "ANTI JOIN x_{1} USING (key, measured, n)"
    )
    db.execute(
        "CREATE OR REPLACE TEMP TABLE pairs AS "  # noqa: S608
        "SELECT b.source AS before, a.source AS after, true AS same FROM x_b b JOIN x_a a USING (key, measured, n) "
        "UNION ALL SELECT b.source, a.source, b.source IS NULL AND a.zero OR a.source IS NULL AND b.zero "
        f"FROM ({rest.format('b', 'a')}) b FULL JOIN ({rest.format('a', 'b')}) a USING (key, n)"
    )
    db.execute("DROP TABLE x_a; DROP TABLE x_b; DROP TABLE x_excess; DROP TABLE x_moved")


def standing(original: Path, corrections: Sequence[Path], month: str) -> str:
    """A relation: the charges of a closed month with its corrections added to them, each under the original's x_RowSource.

    Args:
        original: the month's own Parquet file.
        corrections: files of corrections, whatever months they are of.
        month: `Partition.path` of the corrected month, with which the x_RowSource of its corrections begins.
    """
    names = ", ".join(f'"{name}"' for name in SCHEMA.names if name != "x_CorrectionOf")
    own = f"SELECT {names}, NULL::VARCHAR AS x_CorrectionOf FROM {parquet(original)}"  # noqa: S608
    if not corrections:
        return f"({own})"
    moved = ", ".join(f'sum("{name}") AS "{name}"' for name in MEASURES)
    now = ", ".join(
        f'CASE WHEN moved."{m}" IS NULL THEN roots."{m}" ELSE coalesce(roots."{m}", 0) + moved."{m}" END AS "{m}"'
        for m in MEASURES
    )
    prefix = text(f"{month}/")
    return f"""(
        WITH booked AS (
            SELECT {names}, x_CorrectionOf FROM {parquet(*corrections)} WHERE starts_with(ltrim(x_RowSource, '{GONE}'), {prefix})
        ),
        roots AS ({own} UNION ALL SELECT * FROM booked WHERE x_CorrectionOf IS NULL),
        moved AS (
            SELECT x_CorrectionOf AS root, bool_or(starts_with(x_RowSource, '{GONE}')) AS gone, {moved}
            FROM booked WHERE x_CorrectionOf IS NOT NULL GROUP BY ALL
        )
        SELECT roots.* REPLACE ({now})
        FROM roots LEFT JOIN moved ON moved.root = roots.x_RowSource
        WHERE moved.gone IS NOT true
    )"""  # noqa: S608


def differ(before: str, after: str, volatile: Collection[str] = ()) -> bool:
    """Whether any charge of two relations, as `match` takes them, is measured differently."""

    def found(db: duckdb.DuckDBPyConnection) -> bool:
        match(db, before, after, volatile)
        return bool(db.execute("SELECT count(*) FROM pairs WHERE NOT same").fetchall()[0][0])

    return scratch.asked(found)


def write(relation: str, target: Path) -> None:
    """Charges as a Parquet file, with the columns of SCHEMA in their order."""
    names = ", ".join(f'"{name}"' for name in SCHEMA.names)
    query = f"COPY (SELECT {names} FROM {relation}) TO {text(str(target))} (FORMAT parquet)"  # noqa: S608
    scratch.asked(lambda db: db.execute(query))


def parquet(*files: Path) -> str:
    """Parquet files as a relation."""
    return f"read_parquet([{', '.join(text(str(file)) for file in files)}], hive_partitioning = false)"


def text(value: str) -> str:
    """A text as SQL writes it."""
    return "'" + value.replace("'", "''") + "'"


def identity(volatile: Collection[str]) -> str:
    """What a charge is recognised by, as SQL."""
    columns = [
        f'epoch_us("{c.name}")::VARCHAR' if pa.types.is_timestamp(c.type) else f'"{c.name}"::VARCHAR'
        for c in SCHEMA
        if c.name not in _NOT_IDENTITY
    ]
    without = text("{" + ", ".join(f'"{name}": null' for name in sorted(volatile)) + "}")
    dimensions = f"json_merge_patch(x_Dimensions, {without})::VARCHAR" if volatile else "x_Dimensions"
    return f"md5(to_json([{', '.join(columns)}, {dimensions}])::VARCHAR)"
