"""The DuckDB file is always whole, always readable, and can be made anew from files at any time."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from billing_pipeline import charges, scratch, stored
from billing_pipeline.lake import Lake
from billing_pipeline.reconcile import DoesNotReconcile
from billing_pipeline.warehouse import CONFIG, LIMITS, Published, Warehouse

from .charges_rows import AT, ISSUERS, JUNE, MAY, store

ONE = [("USD", Decimal("1.10")), ("EUR", Decimal("-0.000000000000000001"))]
TWO = [("USD", Decimal("2.20"))] * 3

FOCUS_1_4 = """
AllocatedMethodDetails AllocatedMethodId AllocatedResourceId AllocatedResourceName AllocatedTags AvailabilityZone
BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency BillingPeriodEnd BillingPeriodStart
CapacityReservationId CapacityReservationStatus ChargeCategory ChargeClass ChargeDescription ChargeFrequency
ChargePeriodEnd ChargePeriodStart CommitmentDiscountCategory CommitmentDiscountId CommitmentDiscountName
CommitmentDiscountQuantity CommitmentDiscountStatus CommitmentDiscountType CommitmentDiscountUnit
CommitmentProgramEligibilityDetails ConsumedQuantity ConsumedUnit ContractApplied ContractedCost ContractedUnitPrice
EffectiveCost HostProviderName InvoiceDetailId InvoiceId InvoiceIssuerName ListCost ListUnitPrice PricingCategory
PricingCurrency PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice
PricingQuantity PricingUnit RegionId RegionName ResourceId ResourceName ResourceType ServiceCategory ServiceName
ServiceProviderName ServiceSubcategory SkuId SkuMeter SkuPriceDetails SkuPriceId SubAccountId SubAccountName
SubAccountType Tags
""".split()  # noqa: SIM905
"""The columns of the dataset Cost and Usage. Source: the FOCUS 1.4 data model, FinOps Foundation, CC-BY-4.0."""


def publish(folder: Path, *entries: Any) -> Published:
    return Warehouse(folder).publish(Lake(folder).all(), entries, ISSUERS)


def ask(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as db:
        return db.execute(sql).fetchall()


def totals(folder: Path) -> list[tuple[Any, ...]]:
    return ask(
        folder,
        "SELECT x_BillingPeriod, BillingCurrency, count(*), sum(BilledCost) FROM charges GROUP BY ALL ORDER BY ALL",
    )


def test_a_month_is_replaced_whole_and_others_are_left_alone(tmp_path: Path) -> None:
    june = store(tmp_path, JUNE, ONE)[1]
    publish(tmp_path, june, store(tmp_path, MAY, ONE)[1])
    published = publish(tmp_path, june, store(tmp_path, MAY, TWO)[1])
    assert (published.loaded, published.rows, published.rebuilt) == ([MAY], 5, False)
    assert totals(tmp_path) == [
        ("2026-05", "USD", 3, Decimal("6.60")),
        ("2026-06", "EUR", 1, Decimal("-1e-18")),
        ("2026-06", "USD", 1, Decimal("1.10")),
    ]


@pytest.mark.parametrize("kinds", [1, 3, 20, 5000])
def test_charges_are_the_rows_of_the_parquet_file_in_their_order_whatever_they_share(
    tmp_path: Path, kinds: int
) -> None:
    chance = random.Random(kinds)  # noqa: S311
    rows = 5000
    words = [None, *map(str, range(kinds))]
    texts = [[chance.choice(words) for _ in range(rows)] for _ in range(3)]
    others = {name: pa.array(text) for name, text in zip(("SubAccountId", "x_Type", "PricingUnit"), texts, strict=True)}
    others["PricingQuantity"] = pa.array([chance.choice([None, Decimal(7)]) for _ in range(rows)], charges.DECIMAL)
    if kinds > 1:
        others["ChargeCategory"] = pa.array([chance.choice(["Usage", "Purchase"]) for _ in range(rows)])
        others["x_IsPrepayment"] = pa.array([chance.choice([True, False]) for _ in range(rows)])
    amounts = [("USD", Decimal(n)) for n in range(rows)]
    first = store(tmp_path, MAY, [("EUR", Decimal(1))])
    held, entry = store(tmp_path, JUNE, amounts, **others)
    publish(tmp_path, first[1], entry)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as db:
        shown = "SELECT * EXCLUDE (x_BillingPeriod) FROM charges WHERE BillingCurrency = 'USD' ORDER BY BilledCost"
        file = db.execute("FROM read_parquet($1, hive_partitioning = false)", [str(held.path)]).fetchall()
        assert db.execute(shown).fetchall() == file
        costs = db.execute("SELECT BilledCost FROM x_rows").fetchall()
        assert costs == [(Decimal(1),), *((cost,) for cost, *_ in file)]
        assert db.execute("SELECT count(*) FROM x_common").fetchall()[0][0] <= min(rows, 4 * (kinds + 1) ** 3) + 1


def test_rows_stored_by_two_threads_stand_in_the_order_of_their_files(tmp_path: Path) -> None:
    counts = {MAY: 100_000, JUNE: 150_000}  # two pieces, the first of both months: 122,880 rows, and the others
    published = {}
    for partition, count in counts.items():
        kinds = pa.array(["a", None, "b"]).take(pa.array([n % 3 for n in range(count)]))
        published[partition] = store(tmp_path, partition, [("USD", Decimal(7))] * count, x_Type=kinds)
    publish(tmp_path, *(entry for _, entry in published.values()))
    for (held, _), first in zip(published.values(), (0, counts[MAY]), strict=True):
        file = f"SELECT file_row_number + {first}, x_RowSource, x_Type FROM read_parquet('{held.path}', file_row_number = true)"
        shown = "SELECT x_rows.rowid, x_RowSource, x_Type FROM x_rows JOIN x_common USING (x_Common) WHERE x_BillingPeriod = "
        shown += f"'{held.partition.period}'"
        assert ask(tmp_path, f"SELECT count(*) FROM (({file}) INTERSECT ({shown}))") == [(counts[held.partition],)]
    assert ask(tmp_path, "SELECT count(*), sum(BilledCost) FROM charges") == [
        (sum(counts.values()), 7 * sum(counts.values()))
    ]


@given(st.lists(st.integers(0, 12 * stored.GROUP), max_size=4))
@example([100_000, 150_000])
@example([stored.GROUP * 3 - 1])
def test_every_row_is_in_one_piece_and_each_but_the_last_is_whole_row_groups(counts: list[int]) -> None:
    files = [stored.Shared(Path(f"{number}"), MAY, count, (), (), 0, 1) for number, count in enumerate(counts)]
    pieces = list(stored.pieces(files))
    stretches = [stretch for piece in pieces for stretch in piece]
    for file in files:
        ends = [(stretch.first, stretch.end) for stretch in stretches if stretch.file is file]
        assert [0, *(end for _, end in ends)] == [*(first for first, _ in ends), file.rows]  # one behind another
    assert [stretch.file.path for stretch in stretches] == sorted(stretch.file.path for stretch in stretches)
    sizes = [sum(stretch.end - stretch.first for stretch in piece) for piece in pieces]
    assert all(size and size % stored.GROUP == 0 for size in sizes[:-1])
    assert len(sizes) >= min(2, sum(counts) // stored.GROUP)  # so that both threads have something to do
    assert max(sizes, default=0) < (stored.MOST + 1) * stored.GROUP


@pytest.mark.parametrize(("short", "anew"), [(0, True), (1, False)], ids=["a whole row group, anew", "a row less"])
def test_long_texts_of_which_each_is_another_take_more_memory_and_are_published(
    tmp_path: Path, short: int, anew: bool
) -> None:
    # What lacks memory is the storing, the commit, or the checkpoint that a commit makes: each says so in another way.
    first = store(tmp_path, MAY, ONE)[1]
    if not anew:
        publish(tmp_path, first)
    count = stored.GROUP - short
    texts = pa.array([f"{number:0600}" for number in range(count)])
    held, entry = store(tmp_path, JUNE, [("USD", Decimal(7))] * count, ChargeDescription=texts)
    with pytest.raises(duckdb.Error, match="allocate"):  # the first memory does not suffice: else this shows nothing
        too_little(held.path, tmp_path / "small.duckdb")
    published = publish(tmp_path, first, entry)
    assert (published.rows, published.rebuilt) == (count + len(ONE), anew)
    shown = ask(tmp_path, "SELECT count(DISTINCT ChargeDescription), max(ChargeDescription)::INTEGER FROM charges")
    assert shown == [(count, count - 1)]
    assert [path.name for path in tmp_path.glob(".*")] == []


def too_little(file: Path, database: Path) -> None:
    """Store a month with the memory that is tried first."""
    with duckdb.connect(str(database), config={**CONFIG, "memory_limit": LIMITS[0]}) as db:
        stored.create(db)
        stored.insert(db, [stored.share(db, file, JUNE)])
        db.execute("CHECKPOINT")


def test_ctrl_c_while_rows_are_stored_leaves_the_old_numbers_and_no_file(tmp_path: Path) -> None:
    entry = store(tmp_path, MAY, ONE)[1]
    publish(tmp_path, entry)
    before = totals(tmp_path)
    many = [store(tmp_path, JUNE, [("USD", Decimal(7))] * 6 * stored.GROUP)[1], entry]
    with pytest.raises(KeyboardInterrupt):
        published_unless_pressed(tmp_path, many)
    if totals(tmp_path) != before:
        assert ask(tmp_path, "SELECT count(*) FROM charges") == [(6 * stored.GROUP + len(ONE),)]
    assert [path.name for path in tmp_path.glob(".*")] == []
    assert publish(tmp_path, *many).rows == 6 * stored.GROUP + len(ONE)


def published_unless_pressed(folder: Path, entries: list[Any]) -> None:
    """Publish, and press Ctrl-C when the next file has grown by its first rows; at the end at the latest."""
    over = Event()
    size = (folder / "warehouse.duckdb").stat().st_size

    def grown() -> bool:
        with suppress(FileNotFoundError):
            return any(path.stat().st_size > size + 100_000 for path in folder.glob(".warehouse.duckdb.*.tmp"))
        return False

    def watch() -> None:
        while not grown() and not over.wait(0.001):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        with scratch.stoppable():
            publish(folder, *entries)
    finally:
        over.set()
        watcher.join()
    signal.pause()  # it was published before the key was pressed


def test_an_instant_without_a_zone_is_one_of_utc_whatever_zone_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, entry = store(tmp_path, MAY, ONE)
    table = pq.ParquetFile(held.path).read()
    place = table.column_names.index("ChargePeriodStart")
    naive = table["ChargePeriodStart"].cast(pa.timestamp("us"))  # as another tool may have written the file anew
    pq.write_table(table.set_column(place, "ChargePeriodStart", naive), held.path)
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        publish(tmp_path, entry)
    finally:
        monkeypatch.undo()
        time.tzset()
    start = MAY.period.start(UTC).timestamp()
    assert ask(tmp_path, "SELECT DISTINCT epoch(ChargePeriodStart) FROM charges") == [(start,)]


@pytest.mark.parametrize("name", stored.FOLLOWING)
def test_a_file_with_a_column_that_does_not_follow_from_the_others_is_not_published(tmp_path: Path, name: str) -> None:
    _, first = store(tmp_path, MAY, ONE)
    publish(tmp_path, first)
    before = totals(tmp_path)
    held, second = store(tmp_path, MAY, TWO, PricingQuantity=pa.array([Decimal(1)] * 3, charges.DECIMAL))
    table = pq.ParquetFile(held.path).read()
    place = table.column_names.index(name)
    stranger = pa.array([Decimal("2.20"), Decimal("2.20"), Decimal("2.200000000000000001")], charges.DECIMAL)
    pq.write_table(table.set_column(place, table.field(place), stranger), held.path)
    with pytest.raises(
        DoesNotReconcile, match=f"rows 0 to 2 of plivo/main 2026-05 whose .*{name}.*: expected 3, got [02]"
    ):
        publish(tmp_path, second)
    assert totals(tmp_path) == before


def test_an_empty_month_is_a_month(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, [])[1])
    assert ask(tmp_path, "SELECT x_Rows, x_Totals FROM billing_periods") == [(0, "{}")]
    assert ask(tmp_path, "SELECT count(*) FROM focus.billing_period") == [(1,)]


def test_a_month_that_left_the_lake_leaves_the_warehouse(tmp_path: Path) -> None:
    held, entry = store(tmp_path, MAY, ONE)
    publish(tmp_path, entry)
    held.path.unlink()
    assert publish(tmp_path).removed == ["plivo/main/2026-05"]
    assert totals(tmp_path) == []


def test_somebody_who_wrote_into_the_published_file_is_corrected(tmp_path: Path) -> None:
    entry = store(tmp_path, MAY, ONE)[1]
    publish(tmp_path, entry)
    before = totals(tmp_path)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as db:
        db.execute("UPDATE x_rows SET BilledCost = BilledCost * 2")
        db.execute("INSERT INTO x_rows SELECT * REPLACE (x_Common + 100 AS x_Common) FROM x_rows")
        db.execute(
            "INSERT INTO x_rows SELECT * REPLACE (x_Common + 3 AS x_Common) FROM x_rows"
        )  # that nothing belongs to
        db.execute(
            "INSERT INTO x_common SELECT * REPLACE (x_Common + 100 AS x_Common, '2026-07' AS x_BillingPeriod) FROM x_common"
        )
    publish(tmp_path, entry)
    assert totals(tmp_path) == before


def test_a_file_that_is_replaced_while_it_is_loaded_is_loaded_as_it_was(tmp_path: Path) -> None:
    entry = store(tmp_path, MAY, ONE)[1]
    listed = [held.pinned(tmp_path / "second-name.parquet") for held in Lake(tmp_path).all()]
    store(tmp_path, MAY, TWO)  # and another run replaces before the publication comes to it
    Warehouse(tmp_path).publish(listed, [entry], ISSUERS)
    assert totals(tmp_path) == [
        ("2026-05", "EUR", 1, Decimal("-0.000000000000000001")),
        ("2026-05", "USD", 1, Decimal("1.10")),
    ]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000])
def test_a_file_that_is_no_database_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(content)
    assert publish(tmp_path, store(tmp_path, MAY, ONE)[1]).rebuilt
    assert len(totals(tmp_path)) == 2


def test_a_database_of_another_layout_is_made_anew(tmp_path: Path) -> None:
    entry = store(tmp_path, MAY, ONE)[1]
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as db:
        db.execute("CREATE TABLE charges (amount DOUBLE)")
    assert publish(tmp_path, entry).rebuilt
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as db:
        db.execute("UPDATE x_layout SET fingerprint = 'of an older version'")
    assert publish(tmp_path, entry).rebuilt
    assert not publish(tmp_path, entry).rebuilt
    assert len(totals(tmp_path)) == 2


def test_a_stale_wal_beside_the_file_keeps_nobody_from_opening_it(tmp_path: Path) -> None:
    entry = store(tmp_path, MAY, ONE)[1]
    publish(tmp_path, entry)
    program = (
        "import duckdb, os, sys\n"
        "db = duckdb.connect(sys.argv[1])\n"
        "db.execute('CREATE TABLE somebody_elses (x INT)')\n"
        "os._exit(0)\n"  # killed before its .wal was taken into the file
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "warehouse.duckdb")], check=True)  # noqa: S603
    assert (tmp_path / "warehouse.duckdb.wal").exists()
    assert publish(tmp_path, entry).rebuilt
    assert not (tmp_path / "warehouse.duckdb.wal").exists()
    assert len(totals(tmp_path)) == 2


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / ".warehouse.duckdb.1.tmp").write_bytes(b"of a run that was killed")
    (tmp_path / ".warehouse.duckdb.1.tmp.wal").write_bytes(b"its log")
    (tmp_path / ".warehouse.duckdb.1.tmp.parquet").write_bytes(b"its month")
    publish(tmp_path, store(tmp_path, MAY, ONE)[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["charges", "raw", "warehouse.duckdb"]


READER = """
import sys, duckdb
path, loops, kept_open = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "open"
question = "SELECT count(*), sum(BilledCost)::VARCHAR, count(DISTINCT x_BillingPeriod) FROM charges"
def ask(db):
    rows, total, months = db.execute(question).fetchall()[0]
    [(periods, stated)] = db.execute("SELECT count(*), sum(x_Rows) FROM billing_periods").fetchall()
    assert (rows, months) == (stated, periods) and (rows, float(total)) in ((6, 6.6), (60, 66.0)), (rows, total, stated)
    return rows, total
if kept_open:
    db = duckdb.connect(path, read_only=True)
    db.execute("BEGIN")
    first = ask(db)
    print("reading", flush=True)
    for _ in range(loops):
        assert ask(db) == first
    sys.stdin.read()  # until every publication is done
    assert ask(db) == first
else:
    print("reading", flush=True)
    for _ in range(loops):
        with duckdb.connect(path, read_only=True) as db:
            ask(db)
"""


def test_readers_in_other_processes_never_wait_never_fail_and_never_see_half_a_state(tmp_path: Path) -> None:
    small = [("USD", Decimal("1.10"))] * 3
    entries = [store(tmp_path, month, small)[1] for month in (MAY, JUNE)]
    publish(tmp_path, *entries)
    arguments = [sys.executable, "-c", READER, str(tmp_path / "warehouse.duckdb")]
    readers = [
        subprocess.Popen([*arguments, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        for how in (("60", "open"), ("60", "anew"))
    ]
    for reader in readers:
        assert reader.stdout
        assert reader.stdout.readline() == b"reading\n"
    for n in range(8):
        entries = [store(tmp_path, month, small * (10 if n % 2 else 1))[1] for month in (MAY, JUNE)]
        publish(tmp_path, *entries)
    for reader in readers:
        reader.communicate(timeout=120)
    assert [reader.returncode for reader in readers] == [0, 0]


def test_every_table_view_column_and_macro_says_what_it_is(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, ONE)[1])
    ours = "NOT internal AND schema_name IN ('main', 'focus')"
    for what, name in (("tables", "table_name"), ("views", "view_name")):
        silent = ask(tmp_path, f"SELECT {name} FROM duckdb_{what}() WHERE {ours} AND coalesce(comment, '') = ''")
        assert silent == []
    silent = ask(
        tmp_path,
        f"SELECT table_name, column_name FROM duckdb_columns() WHERE {ours} AND coalesce(comment, '') = '' ORDER BY ALL",
    )
    assert silent == []
    macros = ask(tmp_path, f"SELECT function_name, coalesce(comment, '') FROM duckdb_functions() WHERE {ours}")
    assert macros
    assert [name for name, comment in macros if not comment] == []


def test_no_column_of_ours_says_that_it_is_always_null(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, ONE)[1])
    fallback = ask(
        tmp_path,
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND schema_name = 'main' "
        "AND comment LIKE '%none of the providers states%'",
    )
    assert fallback == []


def test_money_and_quantities_are_exact_decimals_everywhere(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, ONE)[1])
    amounts = "column_name SIMILAR TO '.*(Cost|Quantity|UnitPrice|Surcharge|DurationSeconds)'"
    found = ask(
        tmp_path, f"SELECT DISTINCT data_type FROM duckdb_columns() WHERE NOT internal AND {amounts} ORDER BY ALL"
    )
    assert found == [("DECIMAL(38,18)",)]
    assert ask(
        tmp_path, "SELECT count(*) FROM duckdb_columns() WHERE NOT internal AND data_type IN ('DOUBLE', 'FLOAT')"
    ) == [(0,)]


def test_the_full_width_view_has_every_column_of_focus_in_its_order(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, ONE)[1])
    names = [row[0] for row in ask(tmp_path, "SELECT column_name FROM (DESCRIBE focus.cost_and_usage)")]
    assert len(FOCUS_1_4) == 65
    assert names[:65] == FOCUS_1_4
    assert all(name.startswith("x_") for name in names[65:])
    assert ask(tmp_path, "SELECT sum(BilledCost) FROM focus.cost_and_usage WHERE BillingCurrency = 'USD'") == [
        (Decimal("1.10"),)
    ]


def test_the_month_says_when_it_was_closed_and_the_ledger_why(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, ONE, "final")[1], store(tmp_path, JUNE, ONE)[1])
    periods = ask(tmp_path, "SELECT x_BillingPeriod, x_Finality, x_FinalizedAt FROM billing_periods ORDER BY 1")
    assert periods == [("2026-05", "final", AT), ("2026-06", "provisional", None)]
    assert ask(tmp_path, "SELECT BillingPeriodStatus FROM focus.billing_period ORDER BY BillingPeriodStart") == [
        ("Closed",),
        ("Open",),
    ]


def test_a_person_may_read_the_file_with_nothing_but_its_name(tmp_path: Path) -> None:
    publish(tmp_path, store(tmp_path, MAY, ONE)[1])
    target = tmp_path / "out.csv"
    ask(tmp_path, f"COPY (SELECT BilledCost FROM charges ORDER BY ALL) TO '{target}'")
    with target.open() as file:
        assert [row[0] for row in csv.reader(file)] == ["BilledCost", "-0.000000000000000001", "1.100000000000000000"]


NO_ROOM = """
import resource, sys
from pathlib import Path
from billing_pipeline.warehouse import Warehouse

warehouse, (_, most) = Warehouse(Path(sys.argv[1])), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, most))
try:
    warehouse.publish([], [], {})
except Exception as error:
    print("checkpoint" in str(error), warehouse.path.exists())
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
print(warehouse.publish([], [], {}).rebuilt, [path.name for path in warehouse.path.parent.iterdir()])
"""


def test_tables_that_found_no_room_are_told_and_not_taken_for_those_of_the_next_warehouse(tmp_path: Path) -> None:
    """They are made once a process; DuckDB says nothing of a checkpoint that fails while a file is closed."""
    ran = subprocess.run([sys.executable, "-c", NO_ROOM, str(tmp_path)], capture_output=True, text=True, check=True)  # noqa: S603
    assert ran.stdout.splitlines() == ["True False", "True ['warehouse.duckdb']"]
