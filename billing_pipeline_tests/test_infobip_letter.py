"""Infobip's letter: what it must say about itself, and that it is read the same however its bytes come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from billing_pipeline.providers.infobip import parse, reading, statement
from billing_pipeline.reconcile import DoesNotReconcile
from billing_pipeline.rows import UnexpectedShape

from . import harness
from .infobip_letters import COLUMNS, MARCH, ROW, charged, failed, letter, page, reconciled, refused, row, written


def test_a_row_that_is_not_as_wide_as_the_columns_stops_the_month() -> None:
    assert "row 1 does not have a value for each of the 8 columns" in refused(letter([ROW, ROW[:-1]]))
    assert "row 0 does not have a value for each of the 8 columns" in refused(letter([[*ROW, "more"]]))


def test_fewer_rows_than_stated_do_not_reconcile() -> None:
    with pytest.raises(DoesNotReconcile, match="rows stated by the provider: expected 3, got 1"):
        reconciled([page(letter(total_rows=3))])


def test_a_letter_for_another_request_or_another_period_is_not_ours() -> None:
    assert "answers request 'ANOTHER'" in refused(letter(request_id="ANOTHER"))
    assert "it is not ours" in refused(letter(asked=("2026-02-01", "2026-03-01")))


def test_a_failed_letter_says_why() -> None:
    assert "Could not load data" in refused(failed())


@pytest.mark.parametrize("missing", ["DAY", "ACCOUNT_KEY", "CATEGORY_CODE", "TOTAL_PER_UNIT", "CURRENCY"])
def test_a_column_that_is_needed_and_missing_is_named(missing: str) -> None:
    names = [name if name != missing else "x" for name in COLUMNS]
    assert f"no column {missing}" in refused(letter(columns=names))


def test_a_column_that_stands_twice_stops_the_month() -> None:
    assert "stands twice" in refused(letter([[*ROW, 1]], columns=(*COLUMNS, "TOTAL_PER_UNIT")))


def test_new_columns_and_fields_are_kept_or_ignored_but_never_break_the_month() -> None:
    body = letter([[*ROW, Decimal("1.50")], [*ROW, True]], columns=(*COLUMNS, "MOON_PHASE"))
    body = body.replace(b'{"requestId"', b'{"news":[["response",{"rows":[1]}],"rows",[2]],"requestId"')
    rows, says = charged(body)
    assert [json.loads(one["x_Dimensions"])["MOON_PHASE"] for one in rows] == ["1.50", "true"]
    assert says.notes == ("columns that were unknown in 2026-11, kept in x_Dimensions: MOON_PHASE",)


def test_the_order_of_keys_does_not_matter() -> None:
    parsed = msgspec.json.decode(letter(), type=dict[str, msgspec.Raw])
    response = msgspec.json.decode(parsed["response"], type=dict[str, msgspec.Raw])
    turned = {**dict(reversed(parsed.items())), "response": dict(reversed(response.items()))}
    rows, _ = charged(msgspec.json.encode({"response": turned.pop("response"), **turned}))
    assert rows[0]["BilledCost"] == Decimal("11.25")


def test_a_letter_that_is_cut_off_anywhere_is_refused() -> None:
    body = letter([ROW, ROW])
    for length in range(len(body)):
        with pytest.raises(UnexpectedShape):
            reading.envelope(harness.page(body[:length]).open())
    assert "JSON" in refused(body + b"}")


@pytest.mark.parametrize("cell", [[1], {"a": [1]}])
def test_a_row_that_is_no_flat_list_is_refused(cell: object) -> None:
    refused(letter([row(UNIT_TYPE=cell)]))


@pytest.mark.parametrize("amount", ["1e-57", "5e-56", "0.5e-2147483630", "1E-19"])
def test_an_amount_that_arrow_would_take_for_zero_or_die_of_is_refused(amount: str) -> None:
    assert "row 1: TOTAL_PER_UNIT is" in refused(letter([ROW, row(TOTAL_PER_UNIT=Decimal(amount))]))
    rows, _ = charged(letter([row(QUANTITY=Decimal(amount), UNIT_PRICE=Decimal(amount))]))
    assert rows[0]["x_UnitPrice"] is None
    assert Decimal(json.loads(rows[0]["x_Dimensions"])["UNIT_PRICE"]) == Decimal(amount)


@pytest.mark.parametrize("amount", ["0e-5000000", "-0e-99", "1125e-2", "112500e-4"])
def test_a_far_exponent_that_loses_nothing_is_read(amount: str) -> None:
    rows, _ = charged(letter([row(TOTAL_PER_UNIT=Decimal(amount))]))
    assert rows[0]["BilledCost"] == Decimal(amount)


def test_rows_that_stand_twice_are_refused() -> None:
    body = letter().replace(b'"totalRows"', b'"rows":[],"totalRows"')
    with pytest.raises(UnexpectedShape, match="rows twice"):
        statement([page(body)], MARCH)


def test_without_a_letter_nothing_is_read() -> None:
    with pytest.raises(UnexpectedShape, match="0 letters instead of one"):
        list(parse([], MARCH, "x"))


def test_a_missing_flag_is_not_a_true_one_and_another_months_flag_is_not_this_months() -> None:
    assert statement([page(letter(finalized=None))], MARCH).flag is None
    other = letter().replace(b'"month":"2026-03"', b'"month":"2026-02"')
    assert statement([page(other)], MARCH).flag is None


class Slow:
    """A body that comes in pieces of a few bytes."""

    def __init__(self, body: bytes, piece: int) -> None:
        self._body, self._piece = body, piece

    def read(self, size: int = -1) -> bytes:
        taken, self._body = self._body[: self._piece], self._body[self._piece :]
        return taken


cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12),
    st.text(alphabet=st.sampled_from('[]{},:"\\ \n\t\u00e4\u4e2dx1'), max_size=8),
)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(cells, max_size=5), max_size=6), st.integers(1, 40), st.booleans())
def test_however_the_bytes_are_cut_the_rows_are_the_same(rows: list[list[Any]], piece: int, spaced: bool) -> None:
    listed = written(rows)
    text = f' {{ "a" : "\\\\\\"[" , "response" : {{ "totalRows" : 0, "rows" : {listed} , "columns" : [ ] }} }} ' if spaced else (
        f'{{"response":{{"rows":{listed},"totalRows":0}},"a":[]}}'
    )  # fmt: skip
    read = [one for block in reading.rows(Slow(text.encode(), piece)) for one in block]  # type: ignore[arg-type]
    assert read == rows


def test_a_letter_of_many_blocks_is_read_in_parts() -> None:
    many = 30_000
    body = letter([row(TOTAL_PER_UNIT=Decimal("0.01"))] * many)
    parts: Iterator[Any] = parse([page(body)], MARCH, "x")
    sizes = [len(part["BilledCost"]) for part in parts]
    assert len(sizes) > 1
    assert sum(sizes) == many
    assert statement([page(body)], MARCH).counted.totals == {"USD": Decimal("300.00")}
