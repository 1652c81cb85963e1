"""Control totals: equal to the last digit, currency by currency, or the month is not replaced."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_pipeline.reconcile import (
    DoesNotReconcile,
    Statement,
    Tally,
    add,
    agree,
    agrees,
    money,
    negative,
    plain,
    require,
    stated,
)

UNITS = st.integers(-(10**60), 10**60)
TOTALS = st.dictionaries(st.sampled_from(["USD", "EUR", "JPY"]), UNITS.map(lambda units: Decimal(f"{units}e-18")))


def tally(rows: int = 1, **totals: str) -> Tally:
    return Tally(rows=rows, totals={currency: Decimal(amount) for currency, amount in totals.items()})


def passed(statement: Statement) -> list[bool]:
    return [gate.passed for gate in stated(statement)]


@given(TOTALS, TOTALS)
def test_totals_are_added_exactly_and_currency_by_currency(a: dict[str, Decimal], b: dict[str, Decimal]) -> None:
    units = {
        currency: int(f"{a.get(currency, Decimal(0)):.18f}".replace(".", ""))
        + int(f"{b.get(currency, Decimal(0)):.18f}".replace(".", ""))
        for currency in {*a, *b}
    }
    assert add(a, b) == {currency: Decimal(f"{number}e-18") for currency, number in units.items()}
    assert not any(add(a, negative(a)).values())


@given(UNITS, st.integers(0, 18))
def test_an_amount_is_written_with_every_digit_and_no_other(units: int, scale: int) -> None:
    amount = Decimal(f"{units}e-{scale}")
    text = plain(amount)
    assert Decimal(text) == amount
    assert "E" not in text
    assert text != "-0"
    assert "." not in text or text[-1] not in "0."


def test_currencies_are_never_added_up() -> None:
    assert money(add({"USD": Decimal(1)}, {"EUR": Decimal(2)})) == "2 EUR + 1 USD"
    assert not agrees(tally(USD="3"), tally(USD="1", EUR="2"))
    assert money({}) == "0"


def test_one_digit_or_one_row_too_few_is_a_difference() -> None:
    whole = tally(2, USD="10.000000000000000001")
    assert agrees(whole, whole)
    assert not agrees(whole, tally(2, USD="10"))
    assert not agrees(whole, tally(1, USD="10.000000000000000001"))
    assert [gate.passed for gate in agree("x", whole, tally(1, USD="10"))] == [False, False]


def test_a_currency_that_adds_up_to_nothing_may_be_missing() -> None:
    assert agrees(tally(2, USD="1", EUR="0"), tally(2, USD="1"))


def test_what_a_provider_does_not_state_is_not_compared() -> None:
    assert stated(Statement(counted=tally(5, USD="1"))) == []


def test_stated_rows_must_be_those_that_came_also_the_ones_that_belong_to_another_month() -> None:
    statement = {"counted": tally(5, USD="5"), "left_out": tally(2, USD="2")}
    assert passed(Statement(**statement, stated_rows=7)) == [True]  # type: ignore[arg-type]
    assert passed(Statement(**statement, stated_rows=5)) == [False]  # type: ignore[arg-type]
    assert passed(Statement(**statement, stated_cost={"USD": Decimal(7)})) == [True]  # type: ignore[arg-type]
    assert passed(Statement(**statement, stated_cost={"USD": Decimal(5)})) == [False]  # type: ignore[arg-type]


def test_zero_rows_and_zero_money_that_are_stated_are_compared_too() -> None:
    assert passed(Statement(counted=Tally(), stated_rows=0, stated_cost={"USD": Decimal(0)})) == [True, True]
    assert passed(Statement(counted=tally(USD="0.01"), stated_rows=0, stated_cost={})) == [False, False]


@pytest.mark.parametrize(
    ("off", "tolerance", "agrees"),
    [
        ("0", "0", True),
        ("0.000000000000000001", "0", False),
        ("0.01", "0.01", True),
        ("-0.01", "0.01", True),
        ("0.011", "0.01", False),
    ],
)
def test_a_stated_total_may_be_off_only_by_the_tolerance_that_was_given(off: str, tolerance: str, agrees: bool) -> None:
    statement = Statement(
        counted=tally(USD="100"),
        stated_cost={"USD": Decimal(100) + Decimal(off)},
        tolerance=Decimal(tolerance),
    )
    assert passed(statement) == [agrees]
    assert ("within" in stated(statement)[0].name) == (tolerance != "0")


def test_a_tolerance_does_not_excuse_another_currency() -> None:
    statement = Statement(
        counted=tally(USD="100", EUR="5"), stated_cost={"USD": Decimal(105)}, tolerance=Decimal("0.01")
    )
    assert passed(statement) == [False]


def test_the_tolerance_is_for_what_the_provider_states_and_never_for_rows() -> None:
    statement = Statement(counted=tally(5, USD="1"), stated_rows=6, tolerance=Decimal(10))
    assert passed(statement) == [False]


def test_a_difference_says_what_was_expected_what_came_and_that_nothing_was_replaced() -> None:
    gates = agree("from landing to Arrow", tally(3, USD="103.10"), tally(2, USD="103"))
    with pytest.raises(DoesNotReconcile) as caught:
        require(gates)
    said = str(caught.value)
    assert "rows from landing to Arrow: expected 3, got 2" in said
    assert "expected 103.1 USD, got 103 USD" in said
    assert "The month was not replaced: yesterday's numbers stay" in said
    assert caught.value.gates == gates
    require(agree("x", tally(), tally()))
    assert str(gates[0]).endswith("(DOES NOT AGREE)")
