"""The common schema: a row fits without losing or inventing anything, or it is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_pipeline import charges
from billing_pipeline.charges import SCHEMA, DoesNotFit, complete

from .charges_rows import columns, origin

TWO = [("USD", Decimal("1.10")), ("EUR", Decimal("-2"))]
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)


def texts(*values: str | None) -> pa.Array:
    return pa.array(values, pa.string())


def done(**others: Any) -> list[dict[str, Any]]:
    """Two rows, completed."""
    return complete(columns(TWO, **others), origin())[0].to_pylist()  # type: ignore[no-any-return]


def test_what_all_rows_share_is_filled_in() -> None:
    row = done()[0]
    assert (row["x_Provider"], row["x_Account"], row["x_Finality"]) == ("plivo", "main", "provisional")
    assert row["ServiceProviderName"] == row["InvoiceIssuerName"] == row["HostProviderName"] == "Plivo"
    assert row["ListCost"] == row["ContractedCost"] == row["EffectiveCost"] == row["BilledCost"] == Decimal("1.10")
    assert (row["x_Dimensions"], row["x_IsPrepayment"], row["ChargeClass"]) == ("{}", False, None)
    assert str(row["BillingPeriodStart"]) == "2026-05-01 00:00:00+00:00"


def test_money_paid_in_is_billed_and_has_no_effective_cost() -> None:
    rows = done(x_IsPrepayment=pa.array([True, False]))
    assert [row["BilledCost"] for row in rows] == [Decimal("1.10"), Decimal("-2")]
    assert [row["EffectiveCost"] for row in rows] == [Decimal(0), Decimal("-2")]


def test_only_usage_is_consumed() -> None:
    rows = done(
        ChargeCategory=texts("Usage", "Purchase"),
        PricingQuantity=pa.array([Decimal(3), Decimal(4)], charges.DECIMAL),
        PricingUnit=texts("Messages", "Numbers"),
    )
    assert [(row["ConsumedQuantity"], row["ConsumedUnit"]) for row in rows] == [(3, "Messages"), (None, None)]
    assert [row["PricingQuantity"] for row in rows] == [3, 4]


@pytest.mark.parametrize("name", [c.name for c in SCHEMA if not c.nullable and c.name in columns(TWO)])
def test_a_null_where_none_may_be_names_the_row(name: str) -> None:
    given = columns(TWO)
    given[name] = pa.array([*given[name].to_pylist()[:1], None], given[name].type)
    where = "in None" if name == "x_RowSource" else r"in plivo/main/2026-05/x/1#/usage/1"
    with pytest.raises(DoesNotFit, match=f"{name} is missing {where}"):
        complete(given, origin())


@pytest.mark.parametrize("currency", ["", "usd", "US", "USDT", "US ", "USD\n", "U$D", "ÄÖÜ", "USD USD"])
def test_what_is_no_currency_code_names_the_row(currency: str) -> None:
    with pytest.raises(DoesNotFit, match=r"in plivo/main/2026-05/x/1#/usage/1 is no ISO 4217 code"):
        done(BillingCurrency=texts("USD", currency))


@pytest.mark.parametrize("amount", ["0.1234567890123456789", "123456789012345678901"])
def test_an_amount_that_cannot_be_held_exactly_is_refused_not_rounded(amount: str) -> None:
    wide = pa.array([Decimal(1), Decimal(amount)], pa.decimal256(60, 30))
    with pytest.raises(DoesNotFit, match="BilledCost cannot be held exactly"):
        done(BilledCost=wide)


def test_a_column_that_the_schema_does_not_have_is_refused() -> None:
    with pytest.raises(DoesNotFit, match=r"columns \['Cost'\] are not in the schema"):
        done(Cost=texts("1", "2"))


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="not all the same length"):
        done(ServiceName=texts("one"))


def test_no_column_is_a_float() -> None:
    assert not [c.name for c in SCHEMA if pa.types.is_floating(c.type)]
    assert all(c.metadata[b"description"] for c in SCHEMA)
    names = [c.name for c in SCHEMA]
    focus = [name for name in names if not name.startswith("x_")]
    assert names == sorted(focus) + sorted(set(names) - set(focus))


@given(st.lists(st.tuples(TEXTS, TEXTS, st.none() | st.booleans()), min_size=1, max_size=5))
def test_dimensions_are_json_with_every_field_that_is_there(
    rows: list[tuple[str | None, str | None, bool | None]],
) -> None:
    one, two, three = (list(column) for column in zip(*rows, strict=True))
    made = charges.dimensions({"one": texts(*one), 'tw"o': texts(*two), "three": pa.array(three, pa.bool_())})
    assert [json.loads(text) for text in made.to_pylist()] == [
        {name: value for name, value in (("one", a), ('tw"o', b), ("three", c)) if value is not None}
        for a, b, c in rows
    ]


@given(
    st.lists(
        st.tuples(*[st.none() | st.dictionaries(st.text('ab{}\\"é', max_size=3), TEXTS, max_size=3)] * 2), max_size=5
    )
)
def test_undocumented_fields_join_the_documented_ones(
    rows: list[tuple[dict[str, Any] | None, dict[str, Any] | None]],
) -> None:
    first = [None if a is None else json.dumps({f"1{k}": v for k, v in a.items()}, ensure_ascii=False) for a, _ in rows]
    second = [
        None if b is None else json.dumps({f"2{k}": v for k, v in b.items()}, ensure_ascii=False) for _, b in rows
    ]
    made = charges.merged(texts(*first), texts(*second)).to_pylist()
    for text, a, b in zip(made, first, second, strict=True):
        assert json.loads(text) == json.loads(a or "{}") | json.loads(b or "{}")


def test_rows_with_undocumented_fields_are_counted() -> None:
    batch, count = complete(columns(TWO, x_Unknown=texts(None, '{"new":1.50}')), origin())
    assert count == 1
    assert batch["x_Dimensions"].to_pylist() == ["{}", '{"new":1.50}']


@pytest.mark.parametrize("kinds", [3, 400], ids=["rows share their values", "each row is one of its own"])
def test_dimensions_are_the_same_however_many_combinations_there_are(kinds: int) -> None:
    ids = [f"id {n % kinds}" for n in range(400)]
    others = [None if n % 5 else n % 2 == 0 for n in range(400)]
    made = charges.dimensions({"id": texts(*ids), "other": pa.array(others, pa.bool_())}).to_pylist()
    assert [json.loads(text) for text in made] == [
        {"id": one} if two is None else {"id": one, "other": two} for one, two in zip(ids, others, strict=True)
    ]


def test_numbers_in_dimensions_keep_their_digits() -> None:
    made = charges.dimensions({"n": pa.array([Decimal("1.50")], pa.decimal128(38, 2)), "i": pa.array([7])})
    assert made.to_pylist() == ['{"n":"1.50","i":"7"}']


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("message part", "Message Parts"), ("SECONDS", "Seconds"), ("GB", "GB"), ("minute", "Minutes"),
        ("a new unit", "A new unit"), ("", ""), (None, None),
    ],
)  # fmt: skip
def test_units_are_written_as_focus_writes_them(raw: str | None, shown: str | None) -> None:
    assert charges.unit(texts(raw)).to_pylist() == [shown]


def test_a_row_source_is_a_pointer_into_the_page() -> None:
    made = charges.row_source(
        "plivo/main/2026-05/x", pa.array([1, 12]), "items", pa.array([0, 7]), "costItems", pa.array([3, 4])
    )
    assert made.to_pylist() == [
        "plivo/main/2026-05/x/1#/items/0/costItems/3",
        "plivo/main/2026-05/x/12#/items/7/costItems/4",
    ]


def test_totals_are_written_with_every_digit_as_text() -> None:
    totals = {"USD": Decimal("1E+3"), "EUR": Decimal("0.100000000000000001"), "JPY": Decimal("-0")}
    assert charges.totals_json(totals) == {"EUR": "0.100000000000000001", "JPY": "0", "USD": "1000"}
