"""A month is one Parquet file that is replaced whole and says itself what it is."""

from __future__ import annotations

import stat
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_pipeline import charges
from billing_pipeline.charges import SCHEMA
from billing_pipeline.finality import Finality
from billing_pipeline.lake import Lake
from billing_pipeline.landing import Landings, Partition
from billing_pipeline.period import BillingPeriod

from .charges_rows import AT, JUNE, MAY, columns, origin, store

ONE = [("USD", Decimal("1.10")), ("EUR", Decimal("-2"))]


def test_a_file_says_where_it_is_from_and_what_it_adds_up_to(tmp_path: Path) -> None:
    held, entry = store(tmp_path, MAY, ONE, "final")
    assert held.path == tmp_path / "charges/x_BillingPeriod=2026-05/plivo--main.parquet"
    assert (held.status, held.final, held.fetched_at) == ("final", True, AT)
    assert held.footer["landing"] == entry.landing
    assert held.footer["totals"] == {"EUR": "-2", "USD": "1.1"}
    assert pq.read_schema(held.path).remove_metadata().equals(SCHEMA.remove_metadata())
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o600


def test_an_empty_month_has_a_file_that_says_so(tmp_path: Path) -> None:
    held, _ = store(tmp_path, MAY, [])
    assert (held.tally.rows, held.tally.totals, pq.read_metadata(held.path).num_rows) == (0, {}, 0)


def test_months_are_found_in_a_fixed_order_whatever_their_account_is_called(tmp_path: Path) -> None:
    other = Partition("plivo", "acme-mx_2", BillingPeriod(2026, 5))
    for partition in (JUNE, MAY, other):
        store(tmp_path, partition, ONE)
    assert [held.partition for held in Lake(tmp_path).all()] == [other, MAY, JUNE]
    assert Lake(tmp_path).held(Partition("plivo", "acme", BillingPeriod(2026, 5))) is None
    assert Lake(tmp_path).statuses("plivo", "main") == {MAY.period: "provisional", JUNE.period: "provisional"}


def test_a_replacement_that_is_not_published_leaves_the_month_and_nothing_else(tmp_path: Path) -> None:
    held, _ = store(tmp_path, MAY, ONE)
    before = held.path.read_bytes()
    batch, _ = charges.complete(columns(ONE * 3), origin())
    with Lake(tmp_path).replacement(MAY) as new:
        new.write(batch)
    with pytest.raises(pa.ArrowInvalid), Lake(tmp_path).replacement(MAY) as new:
        new.write(pa.record_batch({"BilledCost": ["no money"], "BillingCurrency": ["USD"]}))
    assert held.path.read_bytes() == before
    assert [path.name for path in held.path.parent.iterdir()] == [held.path.name]


def test_what_a_killed_run_left_is_never_taken_for_a_month(tmp_path: Path) -> None:
    held, _ = store(tmp_path, MAY, ONE)
    stale = held.path.with_name(f".{held.path.name}.1.tmp")
    stale.write_bytes(b"half")
    assert [h.partition for h in Lake(tmp_path).all()] == [MAY]


def test_rows_in_another_order_are_the_same_charges_and_one_digit_is_another(tmp_path: Path) -> None:
    held, _ = store(tmp_path, MAY, [*ONE, *ONE])
    landing = Landings(tmp_path).newest(MAY)
    assert landing is not None
    for rows, same in (
        ([ONE[1], ONE[0], ONE[1], ONE[0]], True),
        ([*ONE, ONE[0], ("EUR", Decimal("-2.000000000000000001"))], False),
        ([*ONE, ONE[0], ONE[0]], False),
        (ONE, False),
        ([], False),
    ):
        with Lake(tmp_path).replacement(MAY) as new:
            # Another fetch, another place in it, another decision: lineage is no difference.
            batch, _ = charges.complete(columns(rows), origin(status="final"))
            new.write(batch)
            new.seal(landing, Finality("final", "made up", {}), left_out={}, notes=[])
            assert new.same_charges(held.path) == same


def test_a_pinned_file_stays_what_it_was_while_the_month_is_replaced(tmp_path: Path) -> None:
    held, _ = store(tmp_path, MAY, ONE)
    pinned = held.pinned(tmp_path / "pin.parquet")
    store(tmp_path, MAY, [])
    assert pinned.tally.rows == pq.read_metadata(pinned.path).num_rows == 2
