"""Whether two warehouses hold the same: tables, views, columns, comments, and every row in its place."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from .scratch import database

DEFINITIONS = {
    "table": "SELECT schema_name, table_name, sql, comment FROM duckdb_tables()",
    "view": "SELECT schema_name, view_name, sql, comment FROM duckdb_views()",
    "column": "SELECT schema_name, table_name || '.' || column_name, data_type, comment FROM duckdb_columns()",
    "macro": "SELECT schema_name, function_name, macro_definition, comment FROM duckdb_functions()",
}
MONTH = ("x_Provider", "x_Account", "x_BillingPeriod")


def published_at(warehouse: Path) -> datetime | None:
    """The instant as of which a warehouse was published; None where it does not say, or cannot be read."""
    try:
        with duckdb.connect(str(warehouse), read_only=True) as db:
            found = _one(db, "SELECT epoch_us(max(x_PublishedAt)) FROM x_expected")
    except duckdb.Error:
        return None
    return None if found is None else datetime.fromtimestamp(0, UTC) + timedelta(microseconds=found)


def differences(published: Path, fresh: Path) -> Iterator[tuple[str, str]]:
    """What differs in `published` from `fresh`: pairs of a table (or view, ...) and how it differs; none: they are equal.

    A file that cannot be read differs as a whole: the table is then empty text.
    """
    try:
        yield from _differences(published, fresh)
    except duckdb.Error as error:
        yield "", f"cannot be read: {str(error).splitlines()[0]}"


def _differences(published: Path, fresh: Path) -> Iterator[tuple[str, str]]:
    with database() as db:
        for name, path in (("published", published), ("fresh", fresh)):
            # As text: ATTACH takes no parameters.
            db.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS {name} (READ_ONLY)")
        different = list(_definitions(db))
        yield from different
        here, there = (_tables(db, name) for name in ("published", "fresh"))
        if not any(where.startswith(("table x_rows", "table x_common", "view charges")) for where, _ in different):
            yield from _charges(db)
        for schema, table in sorted((here & there) - {("main", "x_rows"), ("main", "x_common")}):
            named = f"{schema}.{table}" if schema != "main" else table
            if not any(where.startswith(f"column {named}.") for where, _ in different):
                yield from _rows(db, schema, table, named)


def _definitions(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    for kind, query in DEFINITIONS.items():
        here, there = (
            {
                (f"{schema}.{name}" if schema != "main" else name): rest
                for schema, name, *rest in db.execute(
                    f"{query} WHERE database_name = $1 AND NOT internal", [database]
                ).fetchall()
            }
            for database in ("published", "fresh")
        )
        for name in sorted({*here, *there}):
            if here.get(name) != there.get(name):
                how = (
                    "is not ours" if name not in there else "is missing" if name not in here else "is defined otherwise"
                )
                yield f"{kind} {name}", how


def _tables(db: duckdb.DuckDBPyConnection, database: str) -> set[tuple[str, str]]:
    query = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = $1 AND NOT internal"
    return set(db.execute(query, [database]).fetchall())


def _charges(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """The view, and the order of the rows below it."""
    if all(_same(db, _sides("main", table)) for table in ("x_rows", "x_common")):
        return
    different = list(_months(db, _sides("main", "charges"), "charges"))
    yield from different
    if not different:
        yield "view charges", "its rows stand in another order"


def _rows(db: duckdb.DuckDBPyConnection, schema: str, table: str, named: str) -> Iterator[tuple[str, str]]:
    sides = _sides(schema, table)
    if not _same(db, sides):
        yield from _months(db, sides, named)  # small, and kept up to date row by row: another order is none of ours


def _sides(schema: str, table: str) -> list[str]:
    return [f'{database}."{schema}"."{table}"' for database in ("published", "fresh")]


def _same(db: duckdb.DuckDBPyConnection, sides: list[str]) -> bool:
    """Whether two tables hold the same rows in the same order."""
    a, b = sides
    query = f"SELECT count(*) FROM {a} AS l POSITIONAL JOIN {b} AS r WHERE l IS DISTINCT FROM r"  # noqa: S608
    counts = [_one(db, f"SELECT count(*) FROM {side}") for side in sides]  # noqa: S608
    return bool(counts[0] == counts[1] and not _one(db, query))


def _months(db: duckdb.DuckDBPyConnection, sides: list[str], named: str) -> Iterator[tuple[str, str]]:
    """The months whose rows differ, whatever their order; where there are no months, the whole."""
    columns = [name for name, *_ in db.execute(f"DESCRIBE {sides[0]}").fetchall()]
    key = ", ".join(MONTH) if set(MONTH) <= set(columns) else "1"
    here, there = (
        {
            tuple(month): (rows, total, parity)
            for *month, rows, total, parity in db.execute(
                f"SELECT {key}, count(*), sum(hash(t)::HUGEINT), bit_xor(hash(t)) FROM {side} AS t GROUP BY ALL"  # noqa: S608
            ).fetchall()
        }
        for side in sides
    )
    for month in sorted(month for month in {*here, *there} if here.get(month) != there.get(month)):
        name = "/".join(map(str, month)) if key != "1" else "its rows"
        kind = "view" if named == "charges" else "table"
        yield (
            f"{kind} {named}",
            f"{name}: {here.get(month, (0,))[0]} rows, not the {there.get(month, (0,))[0]} that belong there",
        )


def _one(db: duckdb.DuckDBPyConnection, query: str) -> Any:
    return db.execute(query).fetchall()[0][0]
