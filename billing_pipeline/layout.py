"""How the warehouse is laid out: the table of charges out of the schema, everything else out of the *.sql beside this."""

from __future__ import annotations

import hashlib
from importlib.resources import files

import duckdb
import pyarrow as pa

from .charges import SCHEMA


def _layout() -> str:
    package = files("billing_pipeline")
    return "\n".join(
        package.joinpath(name).read_text()
        for name in ("warehouse.sql", "history.sql", "questions.sql", "invoices.sql", "focus.sql")
    )


def fingerprint() -> str:
    """Of everything that decides how tables and views look: a file with another one is made anew."""
    return hashlib.sha256((_layout() + str(SCHEMA.to_string(show_schema_metadata=True))).encode()).hexdigest()


def create(db: duckdb.DuckDBPyConnection) -> None:
    """All tables and views, empty, with their comments, in an empty database."""
    columns = ", ".join(f'"{c.name}" {_sql_type(c.type)}{"" if c.nullable else " NOT NULL"}' for c in SCHEMA)
    db.execute(f"CREATE TABLE charges ({columns}, x_BillingPeriod VARCHAR NOT NULL)")
    db.execute("COMMENT ON TABLE charges IS 'One row: one billed row of a provider, as it stands now.'")
    db.execute("COMMENT ON COLUMN charges.x_BillingPeriod IS 'The calendar month on the provider''s clock, YYYY-MM.'")
    for column in SCHEMA:
        meaning = column.metadata[b"description"].decode().replace("'", "''")
        db.execute(f"COMMENT ON COLUMN charges.\"{column.name}\" IS '{meaning}'")
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


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    names = {pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.date32(): "DATE"}
    return "TIMESTAMP WITH TIME ZONE" if pa.types.is_timestamp(kind) else names[kind]
