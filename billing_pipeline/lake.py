"""data/charges/: one Parquet file per account and month, replaced whole by one rename.

    data/charges/x_BillingPeriod=<YYYY-MM>/<provider>--<account>.parquet
    data/charges/x_BillingPeriod=<YYYY-MM>/<provider>--<account>.corrections.parquet

The second holds corrections of earlier months that are booked in this one; what is fetched of the month never touches it.
A file says in its own footer which landing it was made from and why it is provisional or final, so it is its own state.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from . import scratch
from .beside import Beside
from .charges import SCHEMA, tally, totals_json
from .finality import FINAL, Finality, Status
from .landing import Landing, Partition, sync
from .period import BillingPeriod
from .reconcile import Tally
from .schema import LINEAGE

FORMAT = 1
ROW_GROUP = 1 << 16
FOOTER = b"billing_pipeline"
# Amounts hardly repeat and sources never do: dictionaries of them cost half of the writing, and make files larger.
_ENCODING: dict[str, Any] = {
    "compression": "zstd",
    "use_dictionary": [
        column.name for column in SCHEMA if pa.types.is_string(column.type) and column.name != "x_RowSource"
    ],
    "column_encoding": {"x_RowSource": "DELTA_BYTE_ARRAY"},
}
CORRECTIONS = ".corrections"  # account names hold no dots


@dataclass(frozen=True)
class Held:
    """What the lake holds of one month: the footer of its file.

    Attributes:
        partition: the month of an account.
        path: its file.
        footer: landing, fetched_at, status, rule, evidence, rows, totals, left_out, notes, format.
    """

    partition: Partition
    path: Path
    footer: Mapping[str, Any]

    @property
    def status(self) -> Status:
        """Provisional or final."""
        return self.footer["status"]  # type: ignore[no-any-return]

    @property
    def final(self) -> bool:
        """True when the month is closed."""
        return self.status == FINAL

    @property
    def fetched_at(self) -> datetime:
        """When the fetch started that the rows came from."""
        return datetime.fromisoformat(self.footer["fetched_at"])

    @property
    def tally(self) -> Tally:
        """Rows and money, as counted when the file was written."""
        totals = {currency: Decimal(amount) for currency, amount in self.footer["totals"].items()}
        return Tally(rows=self.footer["rows"], totals=totals)

    @property
    def stamp(self) -> str:
        """Equal for two files exactly when they hold the same rows for the same reason."""
        return f"{self.footer['landing']} {self.status} {self.footer['format']} {self.path.stat().st_size}"

    def pinned(self, path: Path) -> Held:
        """The month's present file under a second name, `path`: it stays as it is while it is read, whoever replaces it."""
        path.unlink(missing_ok=True)
        try:
            os.link(self.path, path)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.path, path)
        return Held(self.partition, path, _footer(path))


class Lake:
    """The folder data/charges/."""

    def __init__(self, root: Path) -> None:
        self.root = root / "charges"

    def path(self, partition: Partition) -> Path:
        """Where a month's file stands, or will."""
        return self.root / f"x_BillingPeriod={partition.period}" / f"{partition.provider}--{partition.account}.parquet"

    def corrections_path(self, partition: Partition) -> Path:
        """Where the corrections stand that are booked in a month, or would."""
        path = self.path(partition)
        return path.with_name(f"{path.stem}{CORRECTIONS}{path.suffix}")

    def corrections(self, partition: Partition) -> Held | None:
        """The corrections booked in a month; None: there are none."""
        path = self.corrections_path(partition)
        return Held(partition, path, _footer(path)) if path.exists() else None

    def all_corrections(self) -> Iterator[Held]:
        """The corrections of every month in which some are booked, in a fixed order."""
        for path in sorted(self.root.glob(f"x_BillingPeriod=*/*--*{CORRECTIONS}.parquet")):
            yield Held(_partition(path), path, _footer(path))

    def sha256(self, partition: Partition) -> str:
        """Of the month's file as it stands."""
        return sha256(self.path(partition))

    def held(self, partition: Partition) -> Held | None:
        """What is held of a month; None: it was never loaded."""
        path = self.path(partition)
        return Held(partition, path, _footer(path)) if path.exists() else None

    def all(self) -> Iterator[Held]:
        """Every month held, in a fixed order."""
        for path in sorted(self.root.glob("x_BillingPeriod=*/*--*.parquet")):
            if not path.stem.endswith(CORRECTIONS):
                yield Held(_partition(path), path, _footer(path))

    def partitions(self) -> set[Partition]:
        """Every month that has a file, whatever is in it."""
        paths = self.root.glob("x_BillingPeriod=????-??/*--*.parquet")
        return {_partition(path) for path in paths if not path.stem.endswith(CORRECTIONS)}

    def corrected(self) -> set[Partition]:
        """Every month in which a file books corrections, whatever is in it."""
        return {_partition(path) for path in self.root.glob(f"x_BillingPeriod=????-??/*--*{CORRECTIONS}.parquet")}

    def beside(self, partition: Partition) -> list[Held]:
        """The same month of the provider's other accounts."""
        month = self.path(partition).parent.glob(f"{partition.provider}--*.parquet")
        names = sorted(path.stem.partition("--")[2] for path in month if not path.stem.endswith(CORRECTIONS))
        names = [name for name in names if name != partition.account and "." not in name]  # a dot: corrections
        others = [Partition(partition.provider, name, partition.period) for name in names]
        return [held for held in map(self.held, others) if held]

    @contextmanager
    def alone(self, provider: str) -> Iterator[None]:
        """One process at a time compares and replaces months of a provider: two accounts must not miss each other."""
        locks = self.root.parent / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{provider}.lock"):
            yield

    def statuses(self, provider: str, account: str) -> dict[BillingPeriod, Status]:
        """Provisional or final, for every month held of an account."""
        return {
            held.partition.period: held.status
            for held in self.all()
            if (held.partition.provider, held.partition.account) == (provider, account)
        }

    def replacement(self, partition: Partition) -> Replacement:
        """A new file for a month, beside the old one until it is published."""
        return self._replacement(self.path(partition))

    def corrections_replacement(self, partition: Partition) -> Replacement:
        """The same for the corrections that are booked in a month."""
        return self._replacement(self.corrections_path(partition))

    @staticmethod
    def _replacement(path: Path) -> Replacement:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Replacement(path)


class Replacement:
    """A month's next file. As a context manager it leaves nothing behind unless `publish` was called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.temporary = self.unfinished(path, os.getpid())
        self._begin()

    @staticmethod
    def unfinished(path: Path, process: int) -> Path:
        """Where a process writes what will be `path`."""
        return path.with_name(f".{path.name}.{process}.tmp")

    def adopt(self, path: Path, tally: Tally) -> None:
        """Be a file that another process has sealed; it counted `tally`. OSError when it is not there."""
        path.replace(self.temporary)
        self._end()
        self._tally = tally

    def _begin(self) -> None:
        self._tally = Tally()
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        handle = os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._file = os.fdopen(handle, "wb")
        self._writer = pq.ParquetWriter(self._file, SCHEMA, store_schema=True, **_ENCODING)
        self._beside = Beside("parquet")

    def again(self) -> None:
        """Forget everything that was written."""
        self._end()
        self._begin()

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
        finally:
            self.temporary.unlink(missing_ok=True)
        if not error:
            self._beside.wait()  # a row that could not be written fails the block also when nobody finished the file

    def _end(self) -> None:
        self._beside.close()
        if not self._file.closed:
            self._writer.close()
            self._file.close()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows; they are counted, and written in row groups of 65,536 or a batch more, in a thread beside."""
        self._beside.do(self._write, batch)

    @property
    def tally(self) -> Tally:
        """Rows and money of everything that was added."""
        self._beside.wait()
        return self._tally

    def _write(self, batch: pa.RecordBatch) -> None:
        self._tally += tally(batch)
        self._waiting.append(batch)
        self._rows += batch.num_rows
        if self._rows >= ROW_GROUP:
            self._flush()

    def seal(self, landing: Landing, finality: Finality, **facts: Any) -> Tally:
        """Finish the file with its footer, and count rows and money again in what stands on disk."""
        self._beside.wait()
        self._flush()
        footer = {
            "format": FORMAT,
            "landing": landing.id,
            "landing_sha256": landing.sha256,
            "fetched_at": landing.manifest["fetched_at"],
            "status": finality.status,
            "rule": finality.rule,
            "evidence": dict(finality.evidence),
            "rows": self.tally.rows,
            "totals": totals_json(self.tally.totals),
            **facts,
        }
        self._writer.add_key_value_metadata({FOOTER: json.dumps(footer, ensure_ascii=False)})
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        counted = Tally()
        with pq.ParquetFile(self.temporary) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=["BilledCost", "BillingCurrency"]):
                counted += tally(batch)
        return counted

    @property
    def sha256(self) -> str:
        """Of the finished file, before it is published."""
        return sha256(self.temporary)

    def same_charges(self, other: Path) -> bool:
        """Whether another file holds the same rows, in any order, whatever landing they came from."""
        return _content(self.temporary) == _content(other)

    def publish(self) -> None:
        """Take the old file's place, durably."""
        self.temporary.replace(self.path)
        sync(self.path.parent)

    def _flush(self) -> None:
        if self._rows:
            # One row group: cut at 65,536 exactly, every other one would hold the few rows that a batch had more.
            self._writer.write_table(pa.Table.from_batches(self._waiting, SCHEMA), row_group_size=self._rows)
            self._waiting, self._rows = [], 0


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _partition(path: Path) -> Partition:
    provider, _, account = path.stem.removesuffix(CORRECTIONS).partition("--")
    return Partition(provider, account, BillingPeriod.parse(path.parent.name.removeprefix("x_BillingPeriod=")))


def _footer(path: Path) -> Mapping[str, Any]:
    stat = path.stat()
    return _footer_of(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1024)  # a refresh asks ten times for each
def _footer_of(path: Path, *_: int) -> Mapping[str, Any]:
    metadata = pq.read_metadata(path).metadata
    return json.loads(metadata[FOOTER])  # type: ignore[no-any-return]


def _content(path: Path) -> tuple[Any, ...]:
    columns = ", ".join(f'"{name}"' for name in SCHEMA.names if name not in LINEAGE)
    # Two 64-bit sums over one hash per row: the same multiset of rows gives the same pair, another one practically never.
    query = f"SELECT count(*), sum(h::HUGEINT), bit_xor(h) FROM (SELECT hash({columns}) h FROM read_parquet($1))"  # noqa: S608
    return scratch.asked(lambda db: db.execute(query, [str(path)]).fetchall()[0])
