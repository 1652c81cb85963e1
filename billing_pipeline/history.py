"""data/history/: what each fetch changed in its month, and why; so that what was believed on any past day can be told.

    data/history/x_BillingPeriod=<YYYY-MM>/<provider>--<account>/<landing's name>.parquet

A file is there for every decision by which a month shows a fetch. It holds only the slices (service, day, currency) whose rows
or money differ from what the month showed before; one that vanished has 0 rows. It can be made again from the landings; the
ledger has its sha256.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import scratch
from .lake import sha256
from .landing import Partition, sync
from .ledger import REPLAYED, SHOWN, Entry
from .matching import CONTENT, identity
from .reconcile import plain
from .schema import DECIMAL

if TYPE_CHECKING:
    import duckdb

FORMAT = 1
FOOTER = b"billing_pipeline"
CAUSES = ("came", "vanished", "quantity", "price", "amount")
SLICES = pa.schema(
    [
        pa.field("x_Provider", pa.string(), nullable=False),
        pa.field("x_Account", pa.string(), nullable=False),
        pa.field("x_BillingPeriod", pa.string(), nullable=False),
        pa.field("x_Landing", pa.string(), nullable=False),
        pa.field("ServiceName", pa.string(), nullable=False),
        pa.field("x_UsageDate", pa.date32()),
        pa.field("BillingCurrency", pa.string(), nullable=False),
        pa.field("x_Rows", pa.int64(), nullable=False),
        pa.field("BilledCost", DECIMAL, nullable=False),
    ]
)
"""Columns of a file: the slice as the month showed it from then on."""


class History:
    """The folder data/history/.

    Args:
        root: the data folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "history"

    def name(self, entry: Entry) -> str:
        """The file of a decision, as the ledger calls it."""
        return str(self.path(entry).relative_to(self.root))

    def path(self, entry: Entry) -> Path:
        """Where the file of a decision stands, or will."""
        name = entry.landing.rpartition("/")[2]
        again = f"~{entry.decided_at:%Y%m%dT%H%M%S.%f}" if entry.decision == REPLAYED else ""
        return self._folder(entry.partition) / f"{name}{again}.parquet"

    def _folder(self, partition: Partition) -> Path:
        return self.root / f"x_BillingPeriod={partition.period}" / f"{partition.provider}--{partition.account}"

    def write(self, entry: Entry, before: Iterable[Entry], new: Path) -> dict[str, str]:
        """Put down what a decision changes, durably. The caller holds the account's lock.

        Args:
            entry: the decision; of its `change` the footer keeps a copy, for a run that dies before its line in the ledger.
            before: all decisions that moved the month earlier, oldest first; their files are there.
            new: the month's Parquet file from now on.

        Returns:
            `Entry.history` of the decision.
        """
        path = self.path(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        footer = json.dumps({"format": FORMAT, "change": dict(entry.change)}, ensure_ascii=False)
        changed = _changed(entry, [self.path(earlier) for earlier in before], new)
        work = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        handle = os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            pq.write_table(changed.replace_schema_metadata({FOOTER: footer}), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        seal = {"file": self.name(entry), "sha256": sha256(work)}
        work.replace(path)
        sync(path.parent)
        return seal

    def change(self, entry: Entry) -> dict[str, Any]:
        """What the file of a decision says about the change as a whole; empty when there is no file."""
        path = self.path(entry)
        if not path.exists():
            return {}
        return json.loads(pq.read_metadata(path).metadata[FOOTER])["change"]  # type: ignore[no-any-return]

    def missing(self, entries: Iterable[Entry]) -> set[Partition]:
        """The months of which a file is not there that should be."""
        return {entry.partition for entry in moving(entries) if not self.path(entry).exists()}

    def wanting(self, entries: Collection[Entry]) -> list[Entry]:
        """The decisions whose file is not there, or not as the ledger says; all files are read."""
        seals = sealed(entries)
        return [
            entry
            for entry in moving(entries)
            if not (path := self.path(entry)).exists() or seals.get(self.name(entry), "") not in ("", sha256(path))
        ]

    def known(self, entries: Iterable[Entry]) -> Iterator[Path]:
        """What may stand in the folder: the files of decisions, and of fetches that are yet to be decided about."""
        newest: dict[Partition, str] = {}
        for entry in entries:
            yield self.path(entry)
            newest[entry.partition] = max(newest.get(entry.partition, ""), entry.landing.rpartition("/")[2])
        for partition, landing in newest.items():
            yield from (path for path in self._folder(partition).glob("*.parquet") if path.stem > landing)

    def sweep(self, entries: Collection[Entry]) -> None:
        """Remove what runs left that died before their line in the ledger, once a later fetch has been decided about.

        Args:
            entries: all decisions about one month.
        """
        decided = moving(entries)
        known = set(self.known(decided))
        for path in {path for file in known for path in file.parent.glob("*.parquet")} - known:
            path.unlink()

    def load(self, db: duckdb.DuckDBPyConnection, entries: Iterable[Entry]) -> None:
        """Bring the warehouse's table `history` up to date with the folder, inside the caller's transaction.

        Only files that the table does not hold yet are read; what somebody changed in the table is read again.
        """
        decisions = list(entries)
        db.execute("DELETE FROM history WHERE x_IsCorrection")
        self._load(db, decisions)
        approved = [(line, entry) for line, entry in numbered(decisions) if entry.decision == "approved"]
        if approved:
            facts = pa.table(
                {
                    "x_DecidedAt": [entry.decided_at for _, entry in approved],
                    "x_LedgerLine": [line for line, _ in approved],
                    "landing": [entry.landing for _, entry in approved],
                    "month": [f"{entry.partition.path}/" for _, entry in approved],
                    "fetched_at": [datetime.fromisoformat(entry.fetch["fetched_at"]) for _, entry in approved],
                }
            )
            db.register("x_approved", facts)
            # A correction names neither its approval nor its fetch, but the month it corrects and when that was stated.
            db.execute(
                "INSERT INTO history SELECT x_DecidedAt, x_LedgerLine, x_Provider, x_Account, x_BillingPeriod, landing, "
                "ServiceName, x_UsageDate, BillingCurrency, count(*), sum(BilledCost), true FROM charges JOIN x_approved "
                "ON x_FetchedAt = fetched_at AND starts_with(ltrim(x_RowSource, '-'), month) "
                "WHERE ChargeClass = 'Correction' GROUP BY ALL ORDER BY ALL"
            )
            db.unregister("x_approved")

    def _load(self, db: duckdb.DuckDBPyConnection, entries: Iterable[Entry]) -> None:
        files = {
            (entry.partition.provider, entry.partition.account, line): (
                str(self.path(entry)),
                entry.decided_at,
                entry.landing,
            )
            for line, entry in numbered(entries)
            if moving([entry]) and self.path(entry).exists()
        }
        found = {tuple(key): seal for *key, seal in db.execute(_SEALS).fetchall()}
        told = {tuple(key): seal for *key, seal in db.execute("SELECT * FROM x_history").fetchall()}
        due = [key for key in files if key not in told or found.get(key, "") != told[key]]
        for key in (*due, *({*found, *told} - {*files})):
            for table in ("history", "x_history"):
                where = "x_Provider = $1 AND x_Account = $2 AND x_LedgerLine = $3"
                db.execute(f"DELETE FROM {table} WHERE {where}", list(key))  # noqa: S608
        if not due:
            return
        names = ("x_Provider", "x_Account", "x_LedgerLine", "filename", "x_DecidedAt", "x_Landing")
        columns = zip(*([*key, *files[key]] for key in due), strict=True)
        db.register("x_due", pa.table(dict(zip(names, map(list, columns), strict=True))))
        db.execute(
            "INSERT INTO history SELECT x_DecidedAt, x_LedgerLine, x_Provider, x_Account, x_BillingPeriod, x_Landing, "
            "ServiceName, x_UsageDate, BillingCurrency, x_Rows, BilledCost, false "
            "FROM read_parquet($1, hive_partitioning = false, filename = true) AS files "
            "JOIN x_due USING (filename, x_Provider, x_Account, x_Landing)",
            [[files[key][0] for key in due]],
        )
        db.execute(
            f"INSERT INTO x_history SELECT x_Provider, x_Account, x_LedgerLine, coalesce(x_Seal, '') "  # noqa: S608
            f"FROM x_due LEFT JOIN ({_SEALS}) USING (x_Provider, x_Account, x_LedgerLine)"
        )
        db.unregister("x_due")


_SEALS = (
    "SELECT x_Provider, x_Account, x_LedgerLine, count(*) || ' ' || bit_xor(hash(x_DecidedAt, x_BillingPeriod, x_Landing, "
    "ServiceName, x_UsageDate, BillingCurrency, x_Rows, BilledCost)) AS x_Seal "
    "FROM history GROUP BY x_Provider, x_Account, x_LedgerLine"
)


def moving(entries: Iterable[Entry]) -> list[Entry]:
    """The decisions by which a month came to have other numbers, or may have: `shown`, and what was read again."""
    return [entry for entry in entries if shown([entry]) or (entry.decision == REPLAYED and entry.parquet)]


def sealed(entries: Iterable[Entry]) -> dict[str, str]:
    """The sha256 of every file of data/history, as the ledger last told it."""
    return {entry.history["file"]: entry.history["sha256"] for entry in entries if entry.history}


def shown(entries: Iterable[Entry]) -> list[Entry]:
    """The decisions by which a month came to show another fetch."""
    return [entry for entry in entries if entry.decision in SHOWN and entry.same_as is None]


def numbered(entries: Iterable[Entry]) -> Iterator[tuple[int, Entry]]:
    """Decisions with the number of their line in the account's ledger, from 1."""
    lines: Counter[tuple[str, str]] = Counter()
    for entry in entries:
        account = (entry.partition.provider, entry.partition.account)
        lines[account] += 1
        yield lines[account], entry


def causes(old: Path, new: Path, volatile: Collection[str] = ()) -> dict[str, dict[str, str]]:
    """Why the money of a month changed, currency by currency, exactly; a currency of which no row changed is left out.

    Rows are matched by `matching.identity`; where several are alike, the cheapest with the cheapest, and so on.

    Args:
        old: the month's Parquet file before.
        new: the one after.
        volatile: keys of x_Dimensions that may change although the charge is the same.

    Returns:
        came, vanished: whole rows. quantity: the quantity moved and the unit price did not. price: the other way round.
        amount: anything else. The five add up to the change of the total.
    """
    sides = [
        f"SELECT {side} AS side, hash({CONTENT}) AS content, * FROM read_parquet(${n}, hive_partitioning = false)"  # noqa: S608
        for n, side in ((1, -1), (2, 1))
    ]
    query = _CAUSES.format(both=" UNION ALL ".join(sides), identity=identity(volatile))
    found = scratch.asked(lambda db: db.execute(query, [str(old), str(new)]).fetchall())
    named = {currency: dict(zip(CAUSES, map(plain, amounts), strict=True)) for currency, *amounts in found}
    return {currency: amounts for currency, amounts in named.items() if any(map(Decimal, amounts.values()))}


# Rows that are on both sides cancel each other out first, by one hash per row, so that only what moved is matched. `amount` is
# the total's change without the other four: what a hash that two rows share could do, ends up there and not in the sum.
_CAUSES = """
WITH sides AS NOT MATERIALIZED ({both}),
excess AS (SELECT content, CAST(sum(side) AS BIGINT) AS n FROM sides GROUP BY content HAVING sum(side) <> 0),
moved AS (
    SELECT side, {identity} AS charge, BillingCurrency, BilledCost, PricingQuantity AS quantity,
        x_DurationSeconds AS duration, x_UnitPrice AS price, n,
        row_number() OVER (PARTITION BY content) AS copy
    FROM sides JOIN excess USING (content) WHERE sign(n) = side
),
numbered AS (
    SELECT *, row_number() OVER (PARTITION BY side, charge ORDER BY BilledCost, quantity, duration, price) AS place
    FROM moved WHERE copy <= abs(n)
),
matched AS (
    SELECT
        coalesce(new.BillingCurrency, old.BillingCurrency) AS currency,
        coalesce(new.BilledCost, 0) - coalesce(old.BilledCost, 0) AS moved,
        new.quantity IS DISTINCT FROM old.quantity OR new.duration IS DISTINCT FROM old.duration AS more,
        new.price IS DISTINCT FROM old.price AS dearer,
        CASE WHEN old.charge IS NULL THEN 'came' WHEN new.charge IS NULL THEN 'vanished'
             WHEN more AND NOT dearer THEN 'quantity' WHEN dearer AND NOT more THEN 'price' ELSE 'amount' END AS cause
    FROM (SELECT * FROM numbered WHERE side = 1) AS new
    FULL JOIN (SELECT * FROM numbered WHERE side = -1) AS old ON new.charge = old.charge AND new.place = old.place
),
split AS (
    SELECT currency,
        coalesce(sum(moved) FILTER (cause = 'came'), 0) AS came,
        coalesce(sum(moved) FILTER (cause = 'vanished'), 0) AS vanished,
        coalesce(sum(moved) FILTER (cause = 'quantity'), 0) AS quantity,
        coalesce(sum(moved) FILTER (cause = 'price'), 0) AS price
    FROM matched GROUP BY currency
),
total AS (
    SELECT BillingCurrency AS currency,
        coalesce(sum(BilledCost) FILTER (side = 1), 0) - coalesce(sum(BilledCost) FILTER (side = -1), 0) AS change
    FROM sides GROUP BY ALL
)
SELECT currency, came, vanished, quantity, price, change - came - vanished - quantity - price
FROM split JOIN total USING (currency) ORDER BY currency
"""


def _changed(entry: Entry, before: list[Path], new: Path) -> pa.Table:
    """The slices of `new` that differ from what the files `before` add up to."""
    last = "row_number() OVER (PARTITION BY ServiceName, x_UsageDate, BillingCurrency ORDER BY list_position($2, filename) DESC)"
    held = (
        "UNION ALL SELECT ServiceName, x_UsageDate, BillingCurrency, 0, 0, x_Rows, BilledCost FROM ("  # noqa: S608
        f"SELECT *, {last} AS age FROM read_parquet($2, hive_partitioning = false, filename = true)) WHERE age = 1"
    )
    query = (
        "SELECT ServiceName, x_UsageDate, BillingCurrency, CAST(sum(n) AS BIGINT) AS x_Rows, sum(c) AS BilledCost FROM ("  # noqa: S608
        "SELECT ServiceName, x_UsageDate, BillingCurrency, count(*) AS n, sum(BilledCost) AS c, 0 AS held_n, 0 AS held_c "
        f"FROM read_parquet($1, hive_partitioning = false) GROUP BY ALL {held if before else ''}) "
        "GROUP BY ALL HAVING sum(n) <> sum(held_n) OR sum(c) <> sum(held_c) ORDER BY ALL"
    )
    files = [str(new), *([list(map(str, before))] if before else [])]
    found = scratch.asked(lambda db: db.sql(query, params=files).to_arrow_table())
    partition = entry.partition
    whose = (partition.provider, partition.account, str(partition.period), entry.landing)
    columns = [pa.repeat(pa.scalar(value), found.num_rows) for value in whose]
    columns += [found[name].combine_chunks().cast(SLICES.field(name).type) for name in SLICES.names[len(whose) :]]
    return pa.Table.from_arrays(columns, schema=SLICES)
