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
        for schema, table in sorted(here & there):
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


def _rows(db: duckdb.DuckDBPyConnection, schema: str, table: str, named: str) -> Iterator[tuple[str, str]]:
    a, b = (f'{database}."{schema}"."{table}"' for database in ("published", "fresh"))
    counts = [_one(db, f"SELECT count(*) FROM {side}") for side in (a, b)]  # noqa: S608
    query = f"SELECT count(*) FROM {a} AS l POSITIONAL JOIN {b} AS r WHERE l IS DISTINCT FROM r"  # noqa: S608
    if counts[0] == counts[1] and not _one(db, query):
        return
    columns = [name for name, *_ in db.execute(f"DESCRIBE {a}").fetchall()]
    key = ", ".join(MONTH) if set(MONTH) <= set(columns) else "1"
    here, there = (
        {
            tuple(month): (rows, total, parity)
            for *month, rows, total, parity in db.execute(
                f"SELECT {key}, count(*), sum(hash(t)::HUGEINT), bit_xor(hash(t)) FROM {side} AS t GROUP BY ALL"  # noqa: S608
            ).fetchall()
        }
        for side in (a, b)
    )
    different = sorted(month for month in {*here, *there} if here.get(month) != there.get(month))
    for month in different:
        name = "/".join(map(str, month)) if key != "1" else "its rows"
        yield (
            f"table {named}",
            f"{name}: {here.get(month, (0,))[0]} rows, not the {there.get(month, (0,))[0]} that belong there",
        )
    if not different and table == "charges":  # the others are small, and are kept up to date row by row
        yield f"table {named}", "its rows stand in another order"


def _one(db: duckdb.DuckDBPyConnection, query: str) -> Any:
    return db.execute(query).fetchall()[0][0]
