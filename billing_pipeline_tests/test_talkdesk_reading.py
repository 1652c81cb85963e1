"""Talkdesk: what its rows become, and what a traversal says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_pipeline import charges, reconcile
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers.talkdesk import PROVIDER, TalkdeskSettings
from billing_pipeline.reconcile import DoesNotReconcile, Tally
from billing_pipeline.rows import UnexpectedShape
from billing_pipeline.sandbox import app
from billing_pipeline.sandbox.world import Clock, World
from billing_pipeline_tests import harness
from billing_pipeline_tests.talkdesk_server import AUGUST, body, both, pages, row, without


def test_amounts_may_be_numbers_or_text_and_keep_every_digit() -> None:
    amounts = ["0.1", "0.2", "102.7", "0.000000000000000001", "-3"]
    rows = [row(n, amount) for n, amount in enumerate(amounts)]
    as_text = [each | {"total_amount": str(each["total_amount"]), "price": "0.5"} for each in rows]
    for each in (rows, as_text):
        made, said = both(pages(each))
        assert [charge["BilledCost"] for charge in made] == [Decimal(amount) for amount in amounts]
        assert said.counted.totals == {"USD": Decimal("100.000000000000000001")}


@pytest.mark.parametrize("name", ["total_amount", "currency", "month", "type"])
@pytest.mark.parametrize("period", [AUGUST, AUGUST.plus(-1)])
def test_a_row_without_amount_currency_month_or_type_is_an_error_whoever_reads_it_and_whatever_month_is_asked(
    name: str, period: BillingPeriod
) -> None:
    for lost in (without(row(2), name), row(2) | {name: None}):
        landed = pages([row(0)], [row(1), lost])
        with pytest.raises(UnexpectedShape, match=f"page 2, row 1: {name} is missing"):
            harness.table(PROVIDER, landed, period)
        with pytest.raises(UnexpectedShape, match=r"page 2 is not built .*\[1\]"):
            PROVIDER.statement(landed, period)


@pytest.mark.parametrize("month", ["2023-8", "2023-08-01", "August", "", "2023-13"])
def test_a_month_that_is_no_month_is_an_error_for_no_partition_would_hold_its_row(month: str) -> None:
    landed = pages([row(0), row(1, month=month)])
    for reader in (lambda: harness.table(PROVIDER, landed, AUGUST), lambda: PROVIDER.statement(landed, AUGUST)):
        with pytest.raises(UnexpectedShape, match=f"page 1, row 1: month is {month!r}"):
            reader()


def test_an_amount_that_is_no_number_is_an_error() -> None:
    for wrong in ("", "NaN", "1,5", True, [], {"amount": 1}):
        with pytest.raises(UnexpectedShape, match="page 1"):
            harness.table(PROVIDER, pages([row(1) | {"total_amount": wrong}]), AUGUST)


def test_a_row_that_came_twice_with_the_same_content_counts_once_and_is_noted() -> None:
    again = dict(reversed(row(2).items())) | {"price": Decimal("0.50")}  # the same, written differently
    made, said = both(
        pages([row(1), row(2)], [again, row(3), row(4, month="2023-07")], [row(4, month="2023-07")], total=4)
    )
    assert [charge["x_RowSource"].rpartition("/x/")[2] for charge in made] == [
        "1#/_embedded/usage/0", "1#/_embedded/usage/1", "2#/_embedded/usage/1",
    ]  # fmt: skip
    assert (said.counted.rows, said.left_out.rows) == (3, 1)
    assert said.notes == ("2 rows came twice, same id and content, and count once: the list moved during the walk",)


def test_one_id_with_two_contents_is_an_error_for_nobody_knows_which_is_right() -> None:
    landed = pages([row(1, "1")], [row(2), row(1, "2")])
    for reader in (lambda: harness.table(PROVIDER, landed, AUGUST), lambda: PROVIDER.statement(landed, AUGUST)):
        with pytest.raises(UnexpectedShape, match="page 2, row 1: id row1 also stands at page 1, row 0"):
            reader()


def test_rows_without_an_id_all_count_and_are_noted() -> None:
    made, said = both(pages([without(row(1), "id"), row(1, id=None)]))
    assert len(made) == 2
    assert said.notes == ("2 rows have no id: one that came twice would count twice",)


def test_a_stated_total_must_be_the_rows_of_all_months_together() -> None:
    rows = [row(1), row(2, month="2023-07")]
    assert both(pages(rows, total="2"))[1].stated_rows == 2
    assert both(pages(rows))[1].stated_rows is None
    with pytest.raises(DoesNotReconcile, match="expected 3, got 2"):
        both(pages(rows, total=3))


def test_a_total_that_moves_during_the_walk_is_taken_from_the_last_page_and_noted() -> None:
    landed = [harness.page(body([row(1)], total=1), 1), harness.page(body([row(2)], total=2), 2)]
    _, said = both(landed)
    assert said.stated_rows == 2
    assert said.notes == ("the stated total moved from 1 to 2 rows during the walk; the last one counts",)


def test_a_month_that_is_not_in_the_traversal_has_vanished_and_is_in_doubt_when_it_is_older_than_the_oldest() -> None:
    landed = pages([row(1, month="2023-06"), row(2, month="2023-08"), row(3, month="2023-08")])
    told = {str(month): PROVIDER.statement(landed, month) for month in (AUGUST.plus(n) for n in range(-3, 2))}
    assert [month for month, said in told.items() if said.vanished] == ["2023-05", "2023-07", "2023-09"]
    assert [month for month, said in told.items() if said.doubt] == ["2023-05"]
    assert told["2023-05"].doubt == "no row of this month in a complete traversal; the oldest month served is 2023-06"
    assert told["2023-07"].left_out.rows == 3


def test_a_filter_for_the_month_that_is_ignored_is_noted_and_rows_still_go_to_their_own_month() -> None:
    asked = "GET /express/usage/month?period=2023-08"
    ignored = [harness.page(body([row(1), row(2, month="2023-07")]), request=asked)]
    made, said = both(ignored)
    assert len(made) == 1
    assert said.notes == ("Talkdesk ignored the month in the configured query: rows of 2023-07 came along",)
    assert both([harness.page(body([row(1)]), request=asked)])[1].notes == ()


def test_unknown_values_pass_as_they_are_and_are_noted_and_unknown_fields_are_kept() -> None:
    new = row(1, type="FAX", direction="SIDEWAYS", resolution="BLOCKED", unit="FURLONGS", tags={"a": [Decimal("1.10")]})
    (made,), said = both(pages([new]))
    assert [made[name] for name in ("ServiceName", "x_Type", "x_Direction", "x_UnitRaw", "PricingUnit")] == [
        "FAX", "FAX", "SIDEWAYS", "FURLONGS", "Furlongs",
    ]  # fmt: skip
    assert msgspec.json.decode(made["x_Dimensions"])["resolution"] == "BLOCKED"
    assert '"tags":{"a":[1.10]}' in made["x_Dimensions"]
    assert [note.partition(" is not documented")[0] for note in said.notes] == [
        "type 'FAX'", "direction 'SIDEWAYS'", "resolution 'BLOCKED'", "unit 'FURLONGS'",
    ]  # fmt: skip


def test_a_quantity_without_a_unit_is_in_units_and_a_unit_without_a_quantity_has_none() -> None:
    (bare, none), _ = both(pages([row(1, unit=None), row(2, number_of_units=None)]))
    assert (bare["PricingQuantity"], bare["PricingUnit"], bare["x_UnitRaw"]) == (3, "Units", None)
    assert (none["PricingQuantity"], none["PricingUnit"], none["x_UnitRaw"]) == (None, None, "MINUTES")


def test_a_price_of_more_digits_than_fit_is_kept_as_written_and_does_not_stop_the_month() -> None:
    (made,), _ = both(pages([row(1, price=Decimal("0.01234567890123456789"))]))
    assert made["x_UnitPrice"] is None
    assert '"price":0.01234567890123456789' in made["x_Dimensions"]


AMOUNTS = st.decimals(min_value=-(10**9), max_value=10**9, places=9)
ROWS = st.lists(
    st.tuples(AMOUNTS, st.sampled_from(["2023-07", "2023-08", "2023-09"]), st.sampled_from(["USD", "EUR", "JPY"])),
    max_size=40,
)


def _split(rows: Sequence[dict[str, Any]], cuts: Sequence[int]) -> list[Any]:
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    return pages(*(rows[a:b] for a, b in pairwise(edges)), total=len(rows))


@settings(deadline=None)
@given(ROWS, st.lists(st.integers(0, 40), max_size=6))
def test_rows_split_over_any_pages_give_the_same_charges_and_exact_sums(
    drawn: list[tuple[Decimal, str, str]], cuts: list[int]
) -> None:
    rows = [row(n, str(amount), month, currency) for n, (amount, month, currency) in enumerate(drawn)]
    whole, split = both(pages(rows)), both(_split(rows, cuts))
    assert [without(charge, "x_RowSource") for charge in whole[0]] == [
        without(charge, "x_RowSource") for charge in split[0]
    ]
    expected: dict[str, Decimal] = {}
    for amount, month, currency in drawn:
        if month == "2023-08":
            expected = reconcile.add(expected, {currency: amount})
    assert split[1].counted.totals == expected


@settings(deadline=None)
@given(ROWS)
def test_the_months_together_are_the_whole_traversal(drawn: list[tuple[Decimal, str, str]]) -> None:
    rows = [row(n, str(amount), month, currency) for n, (amount, month, currency) in enumerate(drawn)]
    landed = _split(rows, [7, 20])
    months = [AUGUST.plus(n) for n in (-1, 0, 1)]
    made = sum((charges.tally(harness.table(PROVIDER, landed, month)) for month in months), Tally())
    for month in months:
        said = PROVIDER.statement(landed, month)
        assert (said.counted + said.left_out).rows == made.rows == len(rows)
        assert reconcile.agree("of the traversal", said.counted + said.left_out, made)[1].passed


def test_a_walk_through_the_sandbox_brings_what_the_sandbox_billed_in_each_month(tmp_path: Path) -> None:
    world = World(Clock(harness.FETCHED))
    with app.running(world=world) as address:
        account = TalkdeskSettings(
            provider="talkdesk",
            name="main",
            base_url=f"{address}/talkdesk",
            token_url=f"{address}/talkdesk/oauth/token",
            client_id="sandbox-talkdesk-client",
            client_secret="sandbox-talkdesk-secret",
        )
        landed = harness.fetched(PROVIDER, harness.access(PROVIDER, account, tmp_path), BillingPeriod(2026, 5))
    assert len(landed) > 1
    for month in (BillingPeriod(2026, 4), BillingPeriod(2026, 5), BillingPeriod(2026, 6)):
        billed = app.totals(world, "talkdesk", "main", str(month))
        _, said = both(landed, month)
        assert said.counted.rows == billed["rows"]
        assert charges.totals_json(said.counted.totals) == billed["totals"]
