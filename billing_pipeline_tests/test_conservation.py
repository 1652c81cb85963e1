"""No row and no cent is lost between a provider's columns and the view, nor counted twice."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_pipeline import charges, reconcile
from billing_pipeline.lake import Lake
from billing_pipeline.reconcile import Tally
from billing_pipeline.warehouse import Warehouse

from .charges_rows import ISSUERS, JUNE, MAY, columns, origin, store, sums

UNITS = 10**38 - 1  # of the last digit: what decimal128(38, 18) holds


def amounts(largest: int = UNITS) -> st.SearchStrategy[list[tuple[str, Decimal]]]:
    """Rows of a few currencies: huge, tiny, negative, nothing."""
    units = st.integers(-largest, largest) | st.integers(-(10**20), 10**20) | st.integers(-3, 3)
    amount = units.map(lambda number: Decimal(f"{number}e-18"))
    return st.lists(st.tuples(st.sampled_from(["USD", "EUR", "JPY"]), amount), max_size=30)


def without_nothing(totals: dict[str, Decimal]) -> dict[str, Decimal]:
    return {currency: amount for currency, amount in totals.items() if amount}


@given(amounts(), st.integers(1, 4))
def test_any_amounts_are_tallied_to_the_last_digit_however_they_are_divided(
    rows: list[tuple[str, Decimal]], parts: int
) -> None:
    tally = Tally()
    size = -(-len(rows) // parts) or 1
    for start in range(0, max(len(rows), 1), size):
        batch, undocumented = charges.complete(columns(rows[start : start + size]), origin())
        assert undocumented == 0
        tally += charges.tally(batch)
    assert tally == Tally(rows=len(rows), totals=sums(rows))


@settings(max_examples=25)
@given(amounts(), st.integers(1, 3))
def test_parquet_holds_what_arrow_held(rows: list[tuple[str, Decimal]], parts: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        held, _ = store(Path(folder), MAY, rows, parts=parts)
        assert held.tally == Tally(rows=len(rows), totals=sums(rows))
        table = pq.ParquetFile(held.path).read(["BillingCurrency", "BilledCost"])
        assert list(zip(*table.to_pydict().values(), strict=True)) == rows
        assert table.schema.field("BilledCost").type == charges.DECIMAL


@settings(max_examples=6)
@given(amounts(UNITS // 31), amounts(UNITS // 31))
def test_the_view_holds_what_parquet_held_also_when_it_is_loaded_twice(
    may: list[tuple[str, Decimal]], june: list[tuple[str, Decimal]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        entries = [store(folder, MAY, june)[1], store(folder, MAY, may)[1], store(folder, JUNE, june)[1]]
        warehouse = Warehouse(folder)
        seen = []
        for again in (False, True, True):
            warehouse.publish(Lake(folder).all(), entries, ISSUERS)
            with duckdb.connect(str(warehouse.path), read_only=True) as db:
                seen.append(db.execute("SELECT x_BillingPeriod, * FROM charges ORDER BY ALL").fetchall())
                for period, rows in (("2026-05", may), ("2026-06", june)):
                    found = db.execute(
                        "SELECT BillingCurrency, sum(BilledCost)::VARCHAR, sum(x_Rows)::BIGINT FROM monthly_cost "
                        "WHERE x_BillingPeriod = ? GROUP BY ALL",
                        [period],
                    ).fetchall()
                    assert {currency: Decimal(total) for currency, total, _ in found} == sums(rows)
                    assert sum(count for *_, count in found) == len(rows)
            if again:
                warehouse.path.unlink()  # the third time it is made anew
        assert seen[0] == seen[1] == seen[2]


def test_a_sum_that_no_column_can_hold_is_an_error_and_the_old_file_stays(tmp_path: Path) -> None:
    _, entry = store(tmp_path, MAY, [("USD", Decimal("1.10"))])
    warehouse = Warehouse(tmp_path)
    warehouse.publish(Lake(tmp_path).all(), [entry], ISSUERS)
    before = warehouse.path.read_bytes()
    _, entry = store(tmp_path, MAY, [("USD", Decimal("9" * 20))] * 2)
    with pytest.raises(duckdb.OutOfRangeException):
        warehouse.publish(Lake(tmp_path).all(), [entry], ISSUERS)
    assert warehouse.path.read_bytes() == before


@given(amounts(), amounts())
def test_two_stations_agree_exactly_when_rows_and_every_currency_are_equal(
    one: list[tuple[str, Decimal]], two: list[tuple[str, Decimal]]
) -> None:
    a, b = Tally(rows=len(one), totals=sums(one)), Tally(rows=len(two), totals=sums(two))
    equal = a.rows == b.rows and without_nothing(dict(a.totals)) == without_nothing(dict(b.totals))
    assert reconcile.agrees(a, b) == equal
    assert reconcile.agrees(a, a)


def test_more_rows_than_a_row_group_holds_are_all_there(tmp_path: Path) -> None:
    rows = [("USD", Decimal(f"{n}e-18")) for n in range(70_000)]
    held, _ = store(tmp_path, MAY, rows, parts=3)
    assert held.tally.totals == sums(rows)
    file = pq.ParquetFile(held.path).metadata
    assert [file.row_group(n).num_rows for n in range(file.num_row_groups)] == [70_000], "no group of crumbs"


def test_sums_beyond_what_one_amount_can_be_do_not_wrap_around() -> None:
    batch, _ = charges.complete(columns([("USD", Decimal(f"{UNITS}e-18"))] * 1000), origin())
    assert charges.tally(batch).totals == {"USD": Decimal(f"{UNITS * 1000}e-18")}
    assert pa.types.is_decimal256(charges.SUM)
