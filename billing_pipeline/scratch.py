"""A DuckDB in memory for one comparison: little memory, and what does not fit goes to a folder that is gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import duckdb

THREADS = 1
MEMORY = "400MB"


@contextmanager
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database; its clock is UTC. Left to itself DuckDB would spill into `.tmp` of the current folder."""
    with (
        TemporaryDirectory(prefix="billing-pipeline-") as spill,
        duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY, "temp_directory": spill}) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        yield db
