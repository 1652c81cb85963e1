"""JSON rows become columns exactly, by two readers that agree, or not at all."""

from __future__ import annotations

import json
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from billing_pipeline import rows
from billing_pipeline.charges import DECIMAL, UNKNOWN
from billing_pipeline.rows import UnexpectedShape

ITEM = pa.struct({"cost": DECIMAL, "kind": pa.string()})
ROW = pa.struct({"amount": DECIMAL, "text": pa.string(), "flag": pa.bool_(), "items": pa.list_(ITEM)})
WIDE = Context(prec=80)
NEW = b'{"a_new_field":1}'  # one undocumented field sends a whole batch to the careful reader


def written(value: Any) -> str:
    """JSON text with the digits of the decimals."""
    return rows.text(value)


def amounts() -> st.SearchStrategy[Decimal]:
    """Anything that decimal128(38, 18) holds, written with as many digits behind the point as it may have."""
    return st.builds(
        lambda n, scale, sign: Decimal(f"{sign}{n // 10 ** (18 - scale)}e-{scale}"),
        st.integers(0, 10**38 - 1) | st.integers(0, 10**18),
        st.integers(0, 18),
        st.sampled_from(["", "-"]),
    )


def round_to_18(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-18), context=WIDE)


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def objects(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={name: st.none() | value for name, value in fields.items()})


def documented() -> st.SearchStrategy[list[dict[str, Any]]]:
    item = objects({"cost": amounts(), "kind": texts()})
    return st.lists(
        objects({"amount": amounts(), "text": texts(), "flag": st.booleans(), "items": st.lists(item, max_size=3)}),
        max_size=6,
    )


def columns(pages: list[bytes]) -> list[tuple[int, int, dict[str, Any]]]:
    """Every row with its page and its place in it."""
    return [
        (page, index, row)
        for batch in rows.read(list(enumerate(pages, 1)), ROW)
        for page, index, row in zip(
            batch.page.to_pylist(), batch.index.to_pylist(), batch.columns.to_pylist(), strict=True
        )
    ]


def expected(row: dict[str, Any]) -> dict[str, Any]:
    """What a documented row is to become."""
    items = row.get("items")
    return {
        "amount": row.get("amount"),
        "text": row.get("text"),
        "flag": row.get("flag"),
        "items": (items and [{"cost": item.get("cost"), "kind": item.get("kind"), UNKNOWN: None} for item in items])
        or items,
        UNKNOWN: None,
    }


@given(st.lists(documented(), min_size=1, max_size=3))
def test_the_fast_and_the_careful_reader_agree_on_documented_rows(pages: list[list[dict[str, Any]]]) -> None:
    bodies = [written(page).encode() for page in pages]
    fast = columns(bodies)
    careful = columns([*bodies, b"[" + NEW + b"]"])[:-1]
    assert fast == careful
    assert [row for *_, row in fast] == [expected(row) for page in pages for row in page]
    assert [(page, index) for page, index, _ in fast] == [
        (number, place) for number, page in enumerate(pages, 1) for place in range(len(page))
    ]


@given(
    documented(),
    st.dictionaries(
        texts().filter(lambda name: name not in {"amount", "text", "flag", "items"}),
        st.recursive(
            st.none() | st.booleans() | texts() | amounts(),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts(), inner, max_size=2),
            max_leaves=4,
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_fields_that_nobody_documented_survive_with_all_their_digits(
    page: list[dict[str, Any]], new: dict[str, Any]
) -> None:
    strange = [row | new for row in page]
    for row, (_, _, read) in zip(page, columns([written(strange).encode()]), strict=True):
        kept = json.loads(read.pop(UNKNOWN), parse_float=Decimal, parse_int=Decimal)
        assert kept == json.loads(written(new), parse_float=Decimal, parse_int=Decimal)
        assert read | {UNKNOWN: None} == expected(row)


def test_rows_of_several_batches_come_in_order_and_none_is_missing() -> None:
    large = rows.BATCH_BYTES * "x"  # so that each page is a batch
    pages = [written([{"text": large + str(page)}, {"text": "y"}]).encode() for page in range(3 * rows.READERS)]
    read = [(page, index, (row["text"] or "")[-1]) for page, index, row in columns(pages)]
    assert read == [row for n in range(3 * rows.READERS) for row in ((n + 1, 0, str(n)), (n + 1, 1, "y"))]


@given(st.lists(documented(), max_size=4), st.integers(0, 4))
def test_rows_are_the_same_however_they_are_divided_into_pages(pages: list[list[dict[str, Any]]], at: int) -> None:
    together = [row for page in pages for row in page]
    divided = [together[:at], together[at:]]
    one = [row for *_, row in columns([written(together).encode()])]
    assert [row for *_, row in columns([written(page).encode() for page in divided])] == one


@settings(max_examples=600)
@given(
    st.integers(0, 10**24) | st.sampled_from([0, 3 * 10**40, 10**57, 10**75, 5]),
    st.integers(-30, 10) | st.integers(-200, 90) | st.sampled_from([-2147483630, -5000000, 2147483630, -(10**12)]),
    st.booleans(),
    st.booleans(),
)
@example(3 * 10**40, -114, False, False)  # pyarrow's own reader makes 3E-16 of it
@example(0, -5000000, False, False)  # and dies of these
@example(1, -2147483630, False, True)
def test_an_amount_is_held_exactly_or_refused_never_rounded(
    digits: int, exponent: int, negative: bool, quoted: bool
) -> None:
    number = f"{'-' if negative else ''}{digits}e{exponent}"
    body = f'[{{"amount": "{number}"}}]' if quoted else f'[{{"amount": {number}}}]'
    amount = Decimal(number)
    fits = not amount or (amount.adjusted() < 20 and amount == round_to_18(amount))
    if fits:
        assert [row["amount"] for *_, row in columns([body.encode()])] == [amount]
    else:
        with pytest.raises(UnexpectedShape, match=r"page 1, row 0: amount .* refused, not rounded"):
            columns([body.encode()])


@pytest.mark.parametrize(
    "row",
    [
        '{"amount": 0.1234567890123456789}',
        '{"amount": 100000000000000000000}',
        '{"amount": "0.1234567890123456789"}',
        '{"amount": NaN}',
        '{"amount": "NaN"}',
        '{"amount": "Infinity"}',
        '{"amount": "1_000"}',
        '{"amount": "1,50"}',
        '{"amount": " 1"}',
        '{"amount": "0x10"}',
        '{"amount": "١٢"}',
        '{"amount": ""}',
        '{"amount": true}',
        '{"amount": []}',
        '{"amount": {"value": 1}}',
        '{"amount": 1e99999999999999999999}',
        '{"amount": "1e99999999999999999999"}',
        '{"amount": 1, "amount": 2}',
        '{"new": 1, "new": 2}',
        '{"items": [{"cost": 1, "cost": 2}]}',
        '{"items": [{"cost": "many"}]}',
        '{"items": [null]}',
        '{"items": {"cost": 1}}',
        '{"items": ["text"]}',
        '{"flag": "true"}',
        '{"flag": 1}',
        '{"text": {"a": 1}}',
        '{"text": ["a"]}',
        '{"text": "\\ud83d"}',
        "null",
        "[]",
        "1",
        '"text"',
        "true",
        '{"a": 01}',
        '{"a": 1,}',
        '{"deep": ' + "[" * 200_000 + "}",
    ],
    ids=lambda row: row[:40],
)
def test_what_cannot_be_trusted_is_refused_and_the_page_is_named(row: str) -> None:
    with pytest.raises(UnexpectedShape, match="page 2"):
        columns([b'[{"amount": 1}]', f'[{{"amount": 2}}, {row}]'.encode()])


@pytest.mark.parametrize("hidden", ["1\\u0065-57", "1e\\u002d57", "1e-\\u0035\\u0037", "1\\u0045\\u002D57"])
def test_an_exponent_behind_escapes_is_seen(hidden: str) -> None:
    with pytest.raises(UnexpectedShape, match="refused, not rounded"):
        columns([f'[{{"amount": "{hidden}"}}]'.encode()])


def test_the_row_is_named_too() -> None:
    with pytest.raises(UnexpectedShape, match=r"page 1, row 3, items 1: cost should be a number, got 'x'"):
        columns([b'[{}, {}, {}, {"items": [{"cost": 1}, {"cost": "x"}]}]'])


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[", b'[{"a":1}]]', b'[{}],"rows":[{}]', b"[]}\n{"])
def test_what_is_no_list_of_rows_is_refused(body: bytes) -> None:
    with pytest.raises(UnexpectedShape, match="page 1"):
        columns([body])


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnexpectedShape, match="page 1"):
        columns([b'[{"text": "\xff"}]'])


def test_null_missing_and_empty_are_no_rows_no_lists_and_no_amounts() -> None:
    read = [row for *_, row in columns([b'[{"amount": null, "items": null}, {"items": []}, {}]'])]
    assert [row["amount"] for row in read] == [None, None, None]
    assert [row["items"] for row in read] == [None, [], None]


def test_text_may_be_sent_as_a_number_and_keeps_its_digits() -> None:
    assert columns([b'[{"text": 1.50}]'])[0][2]["text"] == "1.50"


def test_a_field_with_the_name_of_our_own_helper_column_is_only_a_field() -> None:
    assert columns([b'[{"x_Unknown": "theirs"}]'])[0][2][UNKNOWN] == '{"x_Unknown":"theirs"}'


def test_half_a_character_in_a_new_field_is_kept_as_it_was_written() -> None:
    assert columns([b'[{"new": "\\ud83d"}]'])[0][2][UNKNOWN] == '{"new":"\\ud83d"}'


def test_white_space_and_line_breaks_between_rows_mean_nothing() -> None:
    assert len(columns([b'\n[\r\n {"amount"\n:\t1}\n,\n{"amount": 2} ]\r\n'])) == 2


def test_an_average_with_too_many_digits_is_null_and_its_digits_are_kept() -> None:
    page = b'[{"amount": 0.1234567890123456789, "text": "a"}]'
    (batch,) = rows.read([(1, page)], ROW, inexact=frozenset({"amount"}))
    assert batch["amount"].to_pylist() == [None]
    assert batch[UNKNOWN].to_pylist() == ['{"amount":0.1234567890123456789}']


def test_many_pages_are_read_in_batches_and_no_row_is_lost_between_them() -> None:
    page = written([{"text": "x" * 1000, "amount": Decimal(n)} for n in range(300)]).encode()
    read = columns([page] * 8)
    assert len(read) == 2400
    assert sum(row["amount"] for *_, row in read) == 8 * sum(range(300))
    assert [page for page, *_ in read] == [number for number in range(1, 9) for _ in range(300)]
