"""What is needed for a moment only: a folder, and a DuckDB in memory that puts into it what does not fit.

Both are gone when the process is; after a kill they lie in the system's folder for such things until the next run sweeps them up.
A lock beside a folder says whether the process lives that it belongs to.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from filelock import FileLock, Timeout

# Imported where it is used: 0.06 s, in which Infobip could be computing its answer already.
if TYPE_CHECKING:
    import duckdb

T = TypeVar("T")

THREADS = 1
MEMORY = "400MB"
LIMITS = ("128MB", MEMORY, "80%")
"""What a question may take, tried in turn; 80 % of the machine is what DuckDB takes by itself.

A million rows need no more than the first, and hardly longer with it; not everything that DuckDB does fits by spilling.
"""
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
def database(memory: str = MEMORY) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database, to attach files to. Left to itself DuckDB would spill into `.tmp` of the current folder."""
    import duckdb

    with (
        folder() as spill,
        duckdb.connect(config={"threads": THREADS, "memory_limit": memory, "temp_directory": str(spill)}) as db,
    ):
        db.execute("SET TimeZone = 'UTC'")
        yield db


def asked(work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
    """What `work` answers in an empty database's temporary part, its clock UTC; begun again where memory does not suffice.

    What is made there has to be TEMP, and goes with the connection. All questions of a process that may take the same memory
    share one database and its limit: starting one takes 10 ms, and loading a month asks eight.
    """

    def ask(memory: str) -> T:
        with _starting:
            db = _shared(os.getpid(), memory).cursor()
        with db:
            db.execute("SET TimeZone = 'UTC'")
            return work(db)

    return within(LIMITS, ask)


def within(limits: Sequence[str], work: Callable[[str], T]) -> T:
    """What `work` brings with the first memory of `limits` that suffices; it has to begin from nothing each time."""
    import duckdb

    for limit in limits[:-1]:
        try:
            return work(limit)
        except duckdb.OutOfMemoryException:
            pass
        # What a commit and a checkpoint make of it.
        except (duckdb.TransactionException, duckdb.FatalException) as error:
            if not _TOO_LITTLE.search(str(error)):
                raise
    return work(limits[-1])


_TOO_LITTLE = re.compile("failed to (allocate|pin|offload)|could not allocate")


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
def _shared(_process: int, memory: str) -> duckdb.DuckDBPyConnection:
    until_exit = ExitStack()
    atexit.register(until_exit.close)
    return until_exit.enter_context(database(memory))


def sweep() -> None:
    """Remove the folders of killed processes, charges and all."""
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.lock"):
        with suppress(Timeout, OSError), FileLock(lock, timeout=0):  # in use, or somebody else's
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
