"""What is needed for a moment only: a folder, and a DuckDB in memory that puts into it what does not fit.

Both are gone afterwards; after a kill they lie in the system's folder for such things until the next run sweeps them up. A lock
beside a folder says whether the process lives that it belongs to.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import duckdb
from filelock import FileLock, Timeout

THREADS = 1
MEMORY = "400MB"
PREFIX = "billing-pipeline-"


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder that nobody else reads."""
    path = Path(tempfile.gettempdir()) / f"{PREFIX}{uuid4().hex}"
    lock = path.with_suffix(".lock")
    with FileLock(lock, mode=0o600):
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
            lock.unlink(missing_ok=True)


@contextmanager
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database; its clock is UTC. Left to itself DuckDB would spill into `.tmp` of the current folder."""
    with (
        folder() as spill,
        duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY, "temp_directory": str(spill)}) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        yield db


def sweep() -> None:
    """Remove the folders of killed processes, charges and all."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):  # in use, or somebody else's
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
