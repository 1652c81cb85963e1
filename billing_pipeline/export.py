"""`billing-pipeline export focus`: months of the published warehouse as a FOCUS 1.4 delivery, for whoever reads files.

Reads the warehouse and nothing else. The folder is complete or it is not there; the same numbers give the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from . import focus, terminal
from .charges import totals_json
from .focus import BILLING_PERIOD, COST_AND_USAGE, Dataset, Sector
from .lake import sha256
from .matching import text
from .period import BillingPeriod, day_start
from .progress import Tell
from .provider import Provider
from .reconcile import Tally, agree, money, require
from .scratch import MEMORY, THREADS

ARTIFACTS = Path("metadata") / "artifacts.json"
ROW_GROUP = 100_000
FORMULA = "^[=+@\t\r-]"
"""How a text begins that a spreadsheet would take for a formula."""


class NothingToExport(Exception):
    """The warehouse holds nothing of a month that was asked for."""

    rerun = "no"
    remedy = "See `billing-pipeline status`, and refresh the month"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: where.
        tally: rows and BilledCost of Cost and Usage, corrections included.
        periods: the months, in their order, each with Open or Closed by invoice issuer.
        missing: months of accounts that ought to be in it and were never fetched.
        formulas: how many texts of each column of the CSV a spreadsheet would take for formulas.
    """

    folder: Path
    tally: Tally
    periods: Mapping[str, Mapping[str, str]]
    missing: Sequence[str] = ()
    formulas: Mapping[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a program; totals are text by currency, with every digit."""
        tally = {"x_Rows": self.tally.rows, "x_Totals": totals_json(self.tally.totals)}
        return {**vars(self), "folder": str(self.folder), "tally": tally}


def focus_1_4(
    warehouse: Path,
    providers: Mapping[str, Provider],
    periods: Sequence[BillingPeriod],
    folder: Path,
    version: str,
    progress: Tell = lambda done, of, text: None,
) -> Exported:
    """Write Cost and Usage and Billing Period as Parquet and CSV, with the metadata of FOCUS 1.4 in `metadata/`.

    Args:
        warehouse: the published file; opened read-only.
        providers: by name: their clocks, and how they map their fields.
        periods: the months; none: all that are held. Corrections that are booked in them are charges of theirs.
        folder: new, empty, or an earlier export, which is replaced.
        version: of this program.
        progress: called with each file.

    Raises:
        NothingToExport: there is no warehouse, or nothing in it of a month that was asked for.
        ValueError: `folder` holds something else.
        DoesNotReconcile: a file does not hold what the warehouse holds; the folder stays as it was.
    """
    _ours(folder)
    if not warehouse.is_file():
        raise NothingToExport(f"there is no {warehouse}: nothing was published yet")
    config: dict[str, Any] = {"threads": THREADS, "memory_limit": MEMORY}
    with duckdb.connect(str(warehouse), read_only=True, config=config) as db, _replaced(folder) as work:
        db.execute("SET TimeZone = 'UTC'")
        months = _months(db, periods)
        db.execute("SET VARIABLE months = $1", [months])
        return _write(db, providers, months, work, folder, version, progress)


def show(done: Exported, console: Console) -> None:
    """What was written, which months may still change, what is missing, and what a spreadsheet would do to the CSV."""

    def say(words: str) -> None:
        terminal.say(console, words)

    say(f"✓ {done.folder}: {done.tally.rows} charges, {money(done.tally.totals)}")
    for month, issuers in done.periods.items():
        say(f"  {month}: " + ", ".join(f"{issuer} {status}" for issuer, status in issuers.items()))
    for month in done.missing:
        say(f"! {month} was never fetched and is not in it")
    if done.formulas:
        found = ", ".join(f"{name} {count}" for name, count in done.formulas.items())
        say(
            f"! a spreadsheet would take texts of the CSV for formulas ({found}): import its columns as text, or use the Parquet"
        )


def _write(
    db: duckdb.DuckDBPyConnection,
    providers: Mapping[str, Provider],
    months: list[str],
    work: Path,
    folder: Path,
    version: str,
    progress: Tell,
) -> Exported:
    held = _tally(db, "charges WHERE x_BillingPeriod IN (SELECT unnest(getvariable('months')))")
    wide = _meanings(db, "cost_and_usage")
    names = _exported(db)
    periods = db.execute(
        "SELECT x_BillingPeriod, InvoiceIssuerName, BillingPeriodStatus, BillingPeriodLastUpdated FROM focus.billing_period "
        "WHERE x_BillingPeriod IN (SELECT unnest(getvariable('months'))) ORDER BY ALL"
    ).fetchall()
    updated = max(row[3] for row in periods)
    sectors, missing = _sectors(db, providers)
    updated = max([updated, *(sector.updated for sector in sectors)])
    orders = {COST_AND_USAGE: "", BILLING_PERIOD: "ORDER BY BillingPeriodStart, InvoiceIssuerName"}
    columns = {COST_AND_USAGE: names, BILLING_PERIOD: sorted(_meanings(db, "billing_period"), key=_focus_first)}
    artifacts: list[dict[str, Any]] = []
    formulas: dict[str, int] = {}
    of = 2 * len(focus.DATASETS) + 1
    for number, dataset in enumerate(focus.DATASETS):
        selection = f"FROM focus.{dataset.name} WHERE x_BillingPeriod IN (SELECT unnest(getvariable('months'))) {orders[dataset]}"
        meanings = _meanings(db, dataset.name)
        progress(2 * number, of, f"{dataset.name}.parquet")
        found = _parquet(db, columns[dataset], selection, work, dataset, meanings, version)
        progress(2 * number + 1, of, f"{dataset.name}.csv")
        found_formulas = _csv(db, columns[dataset], selection, work, dataset)
        _json(work / "metadata" / "schemas" / f"{found['SchemaId']}.json", found)
        for kind in ("parquet", "csv"):
            file = work / f"{dataset.name}.{kind}"
            artifacts.append(
                {
                    "File": file.name,
                    "DatasetInstanceId": dataset.name,
                    "SchemaId": found["SchemaId"],
                    "Bytes": file.stat().st_size,
                    "Sha256": sha256(file),
                }
            )
        if dataset is COST_AND_USAGE:
            formulas = found_formulas
            _agree(db, held, work)
    progress(of - 1, of, "metadata")
    metadata = work / "metadata"
    _json(metadata / "data_generator.json", {"DataGenerator": focus.GENERATOR})
    _json(metadata / "dataset_instances.json", focus.instances())
    _json(metadata / "recency" / f"{COST_AND_USAGE.name}.json", focus.recency(sectors, updated))
    closed = all(row[2] == "Closed" for row in periods)
    _json(metadata / "recency" / f"{BILLING_PERIOD.name}.json", focus.recency_of_periods(updated, closed))
    absent = {name: meaning for name, meaning in wide.items() if name not in names}
    shown = [providers[name] for name in sorted(providers)]
    _json(metadata / "mapping.json", focus.mapping(shown, names, wide, absent))
    _json(
        work / ARTIFACTS,
        {
            "FocusVersion": focus.VERSION,
            "BillingPeriods": months,
            "Rows": held.rows,
            "BilledCost": totals_json(held.totals),
            "NeverFetched": missing,
            "Formulas": formulas,
            "Delivery": focus.DELIVERY,
            "Artifacts": artifacts,
        },
    )
    statuses: dict[str, dict[str, str]] = {month: {} for month in months}
    for month, issuer, status, _ in periods:
        statuses[month][issuer] = status
    return Exported(folder, held, statuses, missing, formulas)


def _months(db: duckdb.DuckDBPyConnection, asked: Sequence[BillingPeriod]) -> list[str]:
    held = [
        row[0] for row in db.execute("SELECT DISTINCT x_BillingPeriod FROM focus.billing_period ORDER BY 1").fetchall()
    ]
    wanted = sorted({str(period) for period in asked}) or held
    strange = [month for month in wanted if month not in held]
    if strange or not wanted:
        raise NothingToExport(
            f"nothing is held of {', '.join(strange) or 'any month'}; the warehouse has {', '.join(held) or 'no month'}"
        )
    return wanted


def _exported(db: duckdb.DuckDBPyConnection) -> list[str]:
    """The columns of Cost and Usage that a provider may fill: those of the charges, in FOCUS's order."""
    rows = db.execute(
        "SELECT column_name FROM (DESCRIBE focus.cost_and_usage) WHERE column_name = 'x_ChargeKey' "
        "OR column_name IN (SELECT column_name FROM (DESCRIBE charges))"
    ).fetchall()
    return sorted((row[0] for row in rows), key=_focus_first)


def _focus_first(name: str) -> tuple[bool, str]:
    return name.startswith("x_"), name


def _meanings(db: duckdb.DuckDBPyConnection, view: str) -> dict[str, str]:
    rows = db.execute(
        "SELECT column_name, comment FROM duckdb_columns() WHERE schema_name = 'focus' AND table_name = $1 ORDER BY column_index",
        [view],
    ).fetchall()
    return dict(rows)


def _parquet(
    db: duckdb.DuckDBPyConnection,
    names: Sequence[str],
    selection: str,
    work: Path,
    dataset: Dataset,
    meanings: Mapping[str, str],
    version: str,
) -> dict[str, Any]:
    """Write the dataset; its metadata says which schema it has."""
    listed = ", ".join(f'"{name}"' for name in names)
    rows = db.sql(f"SELECT {listed} {selection}").to_arrow_reader(ROW_GROUP)
    found = focus.schema(dataset, rows.schema, meanings, version)
    facts = {"FocusVersion": focus.VERSION, "SchemaId": found["SchemaId"], "DatasetInstanceId": dataset.name}
    described = pa.schema(
        [column.with_metadata({"description": meanings[column.name]}) for column in rows.schema], metadata=facts
    )
    with pq.ParquetWriter(work / f"{dataset.name}.parquet", described, compression="zstd") as writer:
        for batch in rows:
            writer.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=described))
    return found


def _csv(
    db: duckdb.DuckDBPyConnection, names: Sequence[str], selection: str, work: Path, dataset: Dataset
) -> dict[str, int]:
    """Write the dataset as text, every value as it is, and count the texts that a spreadsheet would run."""
    types = dict(db.execute(f"SELECT column_name, column_type FROM (DESCRIBE focus.{dataset.name})").fetchall())  # noqa: S608
    listed = ", ".join(f'{_as_text(name, types[name])} AS "{name}"' for name in names)
    target = text(str(work / f"{dataset.name}.csv"))
    db.execute(
        f"COPY (SELECT {listed} {selection}) TO {target} (FORMAT csv, HEADER, DELIMITER ',', QUOTE '\"', ESCAPE '\"')"
    )
    texts = [name for name in names if types[name] == "VARCHAR"]
    counts = ", ".join(f'count(*) FILTER (regexp_matches("{name}", \'{FORMULA}\')) AS "{name}"' for name in texts)
    unsorted = selection.partition(" ORDER BY ")[0]
    found = db.execute(f"SELECT {counts} {unsorted}").fetchall()[0]
    return {name: count for name, count in zip(texts, found, strict=True) if count}


def _as_text(name: str, kind: str) -> str:
    if kind == "TIMESTAMP WITH TIME ZONE":
        # FOCUS: ISO 8601 in UTC. A fraction is written when there is one.
        seconds = f"strftime(\"{name}\" AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S"
        return f"CASE WHEN microsecond(\"{name}\") % 1000000 = 0 THEN {seconds}Z') ELSE {seconds}.%fZ') END"
    return f'"{name}"::VARCHAR'


def _agree(db: duckdb.DuckDBPyConnection, held: Tally, work: Path) -> None:
    """Both files, read back by nothing that wrote them, hold what the warehouse holds."""
    parquet, csv = (text(str(work / f"{COST_AND_USAGE.name}.{kind}")) for kind in ("parquet", "csv"))
    gates = agree("from the warehouse to the exported Parquet", held, _tally(db, f"read_parquet({parquet})"))
    came = _tally(db, f"read_csv({csv}, header = true, all_varchar = true, delim = ',', quote = '\"', escape = '\"')")
    require(gates + agree("from the warehouse to the exported CSV", held, came))


def _tally(db: duckdb.DuckDBPyConnection, relation: str) -> Tally:
    rows = db.execute(
        f"SELECT BillingCurrency, count(*), sum(BilledCost::DECIMAL(38,18)) FROM {relation} GROUP BY ALL"  # noqa: S608
    ).fetchall()
    return Tally(rows=sum(row[1] for row in rows), totals={row[0]: row[2] for row in rows})


def _sectors(db: duckdb.DuckDBPyConnection, providers: Mapping[str, Provider]) -> tuple[list[Sector], list[str]]:
    """What is known of every day of every account, and the months that were never fetched."""
    rows = db.execute(
        "SELECT x_Provider, coverage.x_BillingPeriod, x_Day, x_DayEnd, x_CoveredAt, x_PublishedAt, "
        "x_CoveredAt >= x_DayEnd AND coalesce(x_Finality = 'final', false), x_Account "
        "FROM coverage LEFT JOIN billing_periods USING (x_Provider, x_Account, x_BillingPeriod) "
        "WHERE x_BillingPeriod IN (SELECT unnest(getvariable('months'))) ORDER BY ALL"
    ).fetchall()
    sectors, missing = [], []
    for provider, month, day, end, covered_at, published_at, complete, account in rows:
        start = _start(providers[provider], BillingPeriod.parse(month), day)
        sectors.append(Sector(start, end, covered_at or published_at, bool(complete)))
        if covered_at is None:
            missing.append(f"{provider}/{account} {month}")
    return sectors, sorted(set(missing))


def _start(provider: Provider, month: BillingPeriod, day: date | None) -> datetime:
    zone = provider.calendar.timezone
    return day_start(day, zone) if day else month.start(zone)


def _json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _ours(folder: Path) -> None:
    """Refuse to replace what is no export."""
    if folder.exists() and not (folder.is_dir() and ((folder / ARTIFACTS).is_file() or not any(folder.iterdir()))):
        raise ValueError(f"{folder} holds something that is no FOCUS export: name a new folder, or an earlier export's")


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place at the end; when anything fails, `folder` stays as it was."""
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    work, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
    _swept(folder)
    (work / "metadata").mkdir(parents=True)
    try:
        yield work
        if folder.exists():
            folder.rename(old)
        work.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)


def _swept(folder: Path) -> None:
    """Take away what an export left that was killed; between its two renames the earlier export is put back."""
    for left in sorted(folder.parent.glob(f".{folder.name}.*")):
        process, _, kind = left.name.removeprefix(f".{folder.name}.").partition(".")
        if kind not in ("new", "old") or not process.isdecimal() or _runs(int(process)):
            continue
        if kind == "old" and not folder.exists():
            left.rename(folder)
        else:
            shutil.rmtree(left)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
