"""What is needed for a moment only: a folder, and a DuckDB in memory that puts into it what does not fit.

Both are gone when the process is; after a kill they lie in the system's folder for such things until the next run sweeps them up.
A lock beside a folder says whether the process lives that it belongs to.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
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
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database, to attach files to. Left to itself DuckDB would spill into `.tmp` of the current folder."""
    with (
        folder() as spill,
        duckdb.connect(config={"threads": THREADS, "memory_limit": MEMORY, "temp_directory": str(spill)}) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        yield db


@contextmanager
def scratch() -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database's temporary part, its clock UTC. What is made here has to be TEMP, and goes with the connection.

    All of a process's share one database and its limit of memory: starting one takes 10 ms, and loading a month needs eight.
    """
    with _starting:
        db = _shared(os.getpid()).cursor()
    with db:
        db.execute("SET TimeZone = 'UTC'")
        yield db


def interrupted(error: BaseException) -> bool:
    """Whether it is Ctrl-C: DuckDB 2.0 makes a plain RuntimeError of it while a query runs, which looks like a failure."""
    return isinstance(error, RuntimeError) and str(error) == "Query interrupted"


@contextmanager
def stoppable() -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt, also while DuckDB works."""
    try:
        yield
    except RuntimeError as error:
        if interrupted(error):
            raise KeyboardInterrupt from error
        raise


_starting = Lock()


@cache  # never dropped: closing it in a child that was forked could hang
def _shared(_process: int) -> duckdb.DuckDBPyConnection:
    until_exit = ExitStack()
    atexit.register(until_exit.close)
    return until_exit.enter_context(database())


def sweep() -> None:
    """Remove the folders of killed processes, charges and all."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):  # in use, or somebody else's
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
