"""data/warehouse.duckdb: load what changed in the lake into a copy, and publish it by one rename.

The file is a projection of the lake and the ledger and can be deleted at any time. It is never written in place: a copy is
brought up to date and takes the old one's place, so that readers keep the file they opened and new ones see the new, and
nobody waits for anybody.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

from . import layout, scratch, stored
from .coverage import Expectation
from .finality import Calendar, days_left
from .history import History, numbered
from .lake import Held
from .landing import Partition, sync
from .ledger import NO_FETCH, REPLAYED, SHOWN, Entry
from .leftovers import sweep_warehouse
from .reconcile import Tally, agree, agrees, require

if TYPE_CHECKING:  # see scratch
    import duckdb

# Oldest storage version that holds all we write: DuckDB 0.10.3 and everything since can open the file and ask every view and
# macro (.ci/readers: 0.10.3, 1.0.0, 1.1.3, 1.2.2, 1.3.2, 1.4.4; 0.10.2 cannot). Files of v1.2.0 and later shut older ones out.
STORAGE = "v1.0.0"
# `stored.insert` brings its own threads; with more of DuckDB's a million rows take no less time, and 100 MB more.
CONFIG: dict[str, str | bool | int | float | list[str]] = {"storage_compatibility_version": STORAGE, "threads": 1}
# Storing a million rows of YCloud and Plivo takes 0.79 and 0.73 s with 80 MB, 0.70 and 0.71 with 100, 0.71 and 0.71 with 128.
LIMITS = ("100MB", *scratch.LIMITS[1:])
"""What DuckDB may keep, tried in turn. Long texts of which each is another do not fit the first: of 600 characters in a month of
120,000 charges, of 200 in one of 400,000.
"""
ABOUT_INVOICES = ("invoices", "invoice_lines", "invoice_parts", "invoice_lists")


@dataclass(frozen=True)
class Published:
    """What a publication did.

    Attributes:
        path: the file.
        loaded: months that were replaced in it.
        removed: months that are no longer in the lake.
        rows: charges in it now.
        rebuilt: True when it was made anew rather than brought up to date.
    """

    path: Path
    loaded: Sequence[Partition]
    removed: Sequence[str]
    rows: int
    rebuilt: bool


@dataclass(frozen=True)
class Issuer:
    """What the warehouse has to know of a provider: its name on invoices and how its months pass."""

    title: str
    calendar: Calendar


class Warehouse:
    """The DuckDB file.

    Args:
        root: the data folder.
        name: of the file in it.
    """

    def __init__(self, root: Path, name: str = "warehouse.duckdb") -> None:
        self.path = root / name

    def publish(
        self,
        months: Iterable[Held],
        entries: Iterable[Entry],
        issuers: Mapping[str, Issuer],
        *,
        corrections: Iterable[Held] = (),
        anew: bool = False,
        expectation: Expectation | None = None,
        invoices: Mapping[str, list[list[Any]]] | None = None,
    ) -> Published:
        """Make the file hold exactly `months`, in their order, and the tables about them what `entries` say.

        `corrections`: of earlier months, booked in a month; they are loaded behind its own charges.

        Only one process may do so at a time; the caller holds the lock. `anew`: from nothing, not from the published file.
        `expectation`: what ought to be held now, for `coverage` and `x_DaysLeft`; None: nobody said.
        `invoices`: rows of the tables about invoices, by table.

        Raises:
            DoesNotReconcile: rows or money of a month differ between its Parquet file and the table, or its file has costs that
                do not follow from its other columns; the old file stays.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        pa.default_memory_pool().release_unused()  # of months that were loaded before: DuckDB has its own
        sweep_warehouse(self.path)
        work = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        wal = self.path.with_name(f"{self.path.name}.wal")
        held, booked, decisions = list(months), list(corrections), list(entries)

        def attempt(memory: str) -> Published:
            _unlink(work)
            copied = None if anew else self._copy(work, wal, memory)
            if copied is None:
                work.write_bytes(_empty(self.path))
            with copied or _opened(work, memory) as db:
                db.execute("SET TimeZone = 'UTC'")
                db.execute("BEGIN")
                own, loaded, removed = _load(db, held, booked)
                _describe(db, own, booked, decisions, issuers, expectation, invoices or {})
                History(self.path.parent).load(db, decisions)
                rows = db.execute("SELECT count(*) FROM charges").fetchall()[0][0]
                db.execute("COMMIT")
                db.execute("CHECKPOINT")
            return Published(self.path, loaded, removed, rows, rebuilt=copied is None)

        try:
            published = scratch.within(LIMITS, attempt)
            sync(work)
            # A writer's leftover .wal belongs to the old file; beside the new one it would keep everybody from opening it.
            wal.unlink(missing_ok=True)
            # For its owner alone, or as a person has opened it to others since: chmod once, and it stays.
            work.chmod(self.path.stat().st_mode & 0o777 if self.path.exists() else 0o600)
            work.replace(self.path)
            sync(self.path.parent)
        finally:
            _unlink(work)
        return published

    def prepare(self) -> None:
        """Do what a publication will need, and can be done before there is anything to publish."""
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _empty(self.path)

    def _copy(self, work: Path, wal: Path, memory: str) -> duckdb.DuckDBPyConnection | None:
        """A copy of the published file, opened to be worked on; None when a new one is due."""
        import duckdb

        # A .wal: somebody else wrote to the file, so it is not ours any more.
        if not self.path.exists() or wal.exists():
            return None
        _copied(self.path, work)
        try:
            db = _opened(work, memory)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            db = None  # not a DuckDB file: the lake has everything
        if db:
            try:
                if _usable(db):
                    return db
            except duckdb.OutOfMemoryException:
                db.close()
                raise
            except duckdb.Error:
                pass  # not one of ours
            db.close()
        _unlink(work)
        return None


def _opened(path: Path, memory: str) -> duckdb.DuckDBPyConnection:
    import duckdb

    return duckdb.connect(str(path), config={**CONFIG, "memory_limit": memory})


_made: list[bytes] = []


def _empty(beside: Path) -> bytes:
    """A file with all tables and views, and no row. Its six hundred comments take 0.2 s, so it is made once a process.

    `beside`: the published file; what is needed for a moment stands in the same folder.
    """
    if not _made:
        path = beside.with_name(f".{beside.name}.{os.getpid()}.{uuid4().hex}")
        try:
            with _opened(path, LIMITS[0]) as db:
                db.execute("BEGIN")
                layout.create(db)
                db.execute("COMMIT")
                db.execute("CHECKPOINT")  # closing would do so too, but tell nobody when the disk is full
            _made.append(path.read_bytes())
        finally:
            _unlink(path)
    return _made[0]


def _copied(file: Path, target: Path) -> None:
    """A copy; where the file system lets files share what they have in common (XFS, Btrfs), at once and without further room."""
    # Not there on every system, and not to be believed on every network's.
    with suppress(OSError, AttributeError), file.open("rb") as whole, target.open("wb") as copy:
        while os.copy_file_range(whole.fileno(), copy.fileno(), 1 << 30):
            pass
        if os.fstat(copy.fileno()).st_size == os.fstat(whole.fileno()).st_size:
            return
    shutil.copyfile(file, target)


def _unlink(database: Path) -> None:
    for path in (database, database.with_name(f"{database.name}.wal")):
        path.unlink(missing_ok=True)


def _usable(db: duckdb.DuckDBPyConnection) -> bool:
    """Whether the tables are this version's, and the file is not mostly holes."""
    known = db.execute("SELECT fingerprint FROM x_layout").fetchall()
    (_, _, _, used, free, *_) = db.execute("PRAGMA database_size").fetchall()[0]
    return known == [(layout.fingerprint(),)] and free <= max(used, 64)


def _load(
    db: duckdb.DuckDBPyConnection, months: list[Held], corrections: list[Held]
) -> tuple[list[Held], list[Partition], list[str]]:
    """Replace what is not as the lake has it.

    From the first month that is replaced or removed on, all are loaded again: so rows stand in the order of the months
    whatever was fetched first, and a warehouse that is made anew equals one that was kept up to date, order included. Usually
    the months behind a replaced one are open and were replaced too.

    What was begun over `db` is committed before the rows are stored, and begun anew behind them: the file is nobody's yet.

    Returns:
        The months as they were loaded; those that were replaced; the keys that were removed.
    """
    stored.tidy(db)
    known = {tuple(row[:3]): row[3] for row in db.execute("SELECT * FROM x_loaded").fetchall()}
    shown = stored.tallies(db)
    wanted: dict[stored.Key, list[Held]] = {}
    for listed in sorted([*months, *corrections], key=lambda file: _place(_key(file.partition))):
        wanted.setdefault(_key(listed.partition), []).append(listed)  # a month's own file first: the sort is stable
    removed = sorted((set(known) | set(shown)) - set(wanted))
    # The sums too: somebody may have written to the published file, which is nobody's but ours.
    tallies = {key: sum((file.tally for file in files), Tally()) for key, files in wanted.items()}
    replaced = [
        key
        for key, files in wanted.items()
        if known.get(key) != _stamp(files) or not agrees(tallies[key], shown.get(key, Tally()))
    ]
    first = min((_place(key) for key in [*removed, *replaced]), default=None)
    behind = {key for key in {*known, *shown, *wanted} if first is not None and _place(key) >= first}
    for key in behind:
        _delete(db, key)
    new = []
    for key, files in wanted.items():
        if key not in behind:
            continue
        new += [stored.share(db, file.path, file.partition) for file in files]
        db.execute("INSERT INTO x_loaded VALUES ($1, $2, $3, $4)", [*key, _stamp(files)])
    db.execute("COMMIT")
    stored.insert(db, new)
    db.execute("BEGIN")
    found = stored.tallies(db) if behind else shown
    for key, files in wanted.items():
        require(agree(f"of {files[0].partition} from Parquet to DuckDB", tallies[key], found.get(key, Tally())))
    held = [file for files in wanted.values() for file in files]
    loaded = [wanted[key][0].partition for key in replaced]
    own = [file for file in held if "approved" not in file.footer]
    return own, loaded, ["/".join(key) for key in removed]


def _place(key: stored.Key) -> tuple[str, stored.Key]:
    """By month, and in it by account."""
    return key[2], key


def _stamp(files: Iterable[Held]) -> str:
    """Of all files of a month."""
    return "; ".join(file.stamp for file in files)


def _delete(db: duckdb.DuckDBPyConnection, key: stored.Key) -> None:
    stored.delete(db, key)
    db.execute(f"DELETE FROM x_loaded WHERE {stored.MONTH}", list(key))  # noqa: S608


def _describe(
    db: duckdb.DuckDBPyConnection,
    held: list[Held],
    corrections: list[Held],
    entries: list[Entry],
    issuers: Mapping[str, Issuer],
    expectation: Expectation | None,
    invoices: Mapping[str, list[list[Any]]],
) -> None:
    booked = {file.partition: file.footer["totals"] for file in corrections}
    closed: dict[Partition, datetime] = {}
    restated: dict[Partition, bool] = {}
    for entry in entries:
        if entry.decision == "final":
            closed.setdefault(entry.partition, entry.decided_at)
        if entry.decision != REPLAYED:
            restated[entry.partition] = entry.decision == "restated"
    latest = {entry.partition: entry for entry in entries if entry.decision in SHOWN}
    periods = []
    for month in held:
        issuer, partition, footer = issuers[month.partition.provider], month.partition, month.footer
        calendar = issuer.calendar
        periods.append(
            [
                *_key(partition),
                month.status,
                footer["rule"],
                footer["evidence"],
                footer["rows"],
                footer["totals"],
                datetime.fromisoformat(latest[partition].fetch["fetched_at"])
                if partition in latest
                else month.fetched_at,
                closed.get(partition) if month.final else None,
                calendar.available_until(partition.period),
                restated.get(partition, False),
                footer["left_out"],
                footer["notes"],
                footer["landing"],
                partition.period.start(calendar.timezone),
                partition.period.end(calendar.timezone),
                issuer.title,
                booked.get(partition, {}),
                days_left(calendar, partition.period, expectation.at) if expectation and not month.final else None,
            ]
        )
    decisions = [
        [e.decided_at, *_key(e.partition), e.decision, e.rule, e.evidence, e.landing, line]
        for line, e in numbered(entries)
        if e.decision != "unchanged"
    ]
    fetches = [
        [
            datetime.fromisoformat(e.fetch["fetched_at"]),
            *_key(e.partition),
            e.landing,
            *(e.fetch[name] for name in ("pages", "restarts", "bytes", "sha256", "rows", "totals")),
            e.gates,
            e.change,
            e.decided_at,
            e.decision,
            e.same_as,
            line,
        ]
        for line, e in numbered(entries)
        if e.decision not in NO_FETCH
    ]
    calendars = {name: issuer.calendar for name, issuer in issuers.items()}
    expected = list(expectation.rows(calendars, entries)) if expectation else []
    for table, rows in (
        ("billing_periods", periods),
        ("finality_ledger", decisions),
        ("fetches", fetches),
        ("x_expected", expected),
        *((table, invoices.get(table, [])) for table in ABOUT_INVOICES),
    ):
        db.execute(f"DELETE FROM {table}")  # noqa: S608
        if rows:  # as columns: a statement per row would take a second per thousand
            columns = [pa.array([_value(value) for value in column]) for column in zip(*rows, strict=True)]
            db.register("x_rows", pa.table(columns, [f"c{n}" for n in range(len(columns))]))
            db.execute(f"INSERT INTO {table} SELECT * FROM x_rows")  # noqa: S608
            db.unregister("x_rows")


def _value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list | tuple) else value


def _key(partition: Partition) -> stored.Key:
    return partition.provider, partition.account, str(partition.period)
