"""How the warehouse is laid out: the charges out of the schema (stored.py), everything else out of the *.sql beside this."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

from . import stored
from .charges import SCHEMA

if TYPE_CHECKING:
    import duckdb


def _layout() -> str:
    package = files("billing_pipeline")
    return "\n".join(
        package.joinpath(name).read_text()
        for name in ("warehouse.sql", "history.sql", "questions.sql", "invoices.sql", "focus.sql")
    )


def fingerprint() -> str:
    """Of everything that decides how tables and views look: a file with another one is made anew."""
    columns = f"{sorted(stored.OWN)}{sorted(stored.FOLLOWING.items())}{SCHEMA.to_string(show_schema_metadata=True)}"
    return hashlib.sha256((_layout() + columns).encode()).hexdigest()


def create(db: duckdb.DuckDBPyConnection) -> None:
    """All tables and views, empty, with their comments, in an empty database."""
    stored.create(db)
    db.execute(_layout())
    db.execute("CREATE TABLE x_layout (fingerprint VARCHAR NOT NULL)")
    db.execute("COMMENT ON TABLE x_layout IS 'Which layout of tables and views this file has; another one is rebuilt.'")
    db.execute("INSERT INTO x_layout VALUES ($1)", [fingerprint()])
    db.execute(
        "CREATE TABLE x_loaded (x_Provider VARCHAR, x_Account VARCHAR, x_BillingPeriod VARCHAR, x_Stamp VARCHAR)"
    )
    db.execute("COMMENT ON TABLE x_loaded IS 'Which Parquet file each month was loaded from.'")
    db.execute("COMMENT ON COLUMN x_layout.fingerprint IS 'SHA-256 of the SQL and the columns it was made with.'")
    db.execute("COMMENT ON COLUMN x_loaded.x_Stamp IS 'Landing, finality, format and size of the Parquet file.'")
    _comment_the_rest(db)


def _comment_the_rest(db: duckdb.DuckDBPyConnection) -> None:
    """A column that is passed on means what it means where it comes from, and a comment may not be asked for twice."""
    meanings = dict(
        db.execute(
            "SELECT column_name, min_by(comment, table_name <> 'charges') FROM duckdb_columns() "
            "WHERE NOT internal AND comment IS NOT NULL GROUP BY ALL"
        ).fetchall()
    )
    silent = db.execute(
        "SELECT schema_name, table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL"
    ).fetchall()
    for schema, table, column in silent:
        meaning = meanings.get(column)
        if meaning is None and schema == "focus":
            meaning = "A column of FOCUS 1.4 that none of the providers states: always null."
        if meaning is None:
            raise ValueError(f"{schema}.{table}.{column} has no comment: say in the *.sql what it means")
        text = meaning.replace("'", "''")
        db.execute(f'COMMENT ON COLUMN "{schema}"."{table}"."{column}" IS \'{text}\'')
