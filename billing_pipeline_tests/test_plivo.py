"""Plivo's answers as charges and control totals: recorded, made up, and drawn at random."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path

import hypothesis
import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer

from billing_pipeline import charges, reconcile
from billing_pipeline.finality import finality
from billing_pipeline.provider import Page
from billing_pipeline.providers.plivo import PROVIDER
from billing_pipeline.rows import UnexpectedShape
from billing_pipeline_tests import harness
from billing_pipeline_tests.plivo_bodies import MAY, PATH, RECORDINGS, body, other, pages, serve, settings, total, usage

DOCUMENTED = RECORDINGS / "2026-05-documented"


class Answer(msgspec.Struct):
    request: dict[str, object]
    body: msgspec.Raw


class Recording(msgspec.Struct):
    about: str
    fetched_at: datetime
    answers: list[Answer]


def table(*bodies: str) -> pa.Table:
    return harness.table(PROVIDER, pages(*bodies), MAY)


def rows(*bodies: str) -> list[dict[str, object]]:
    return table(*bodies).to_pylist()


def dimensions(*bodies: str) -> list[dict[str, str]]:
    return [json.loads(row["x_Dimensions"]) for row in rows(*bodies)]


def reconciled(answers: list[Page]) -> reconcile.Tally:
    """What the line does: the stated totals, then the charges against the independent count."""
    said = PROVIDER.statement(answers, MAY)
    held = charges.tally(harness.table(PROVIDER, answers, MAY))
    reconcile.require(reconcile.stated(said) + reconcile.agree("made", said.counted, held))
    return held


def test_the_documented_example_becomes_these_charges(httpserver: HTTPServer, tmp_path: Path):
    recording = msgspec.json.decode((DOCUMENTED / "recording.json").read_bytes(), type=Recording)
    assert recording.answers[0].request["path"] == PATH
    by_token = {a.request["params"].get("page_token"): bytes(a.body).decode() for a in recording.answers}
    serve(httpserver, lambda token: by_token[token])
    clock = lambda: recording.fetched_at  # noqa: E731
    access = harness.access(PROVIDER, settings(httpserver.url_for("").rstrip("/")), tmp_path, clock)
    answers = harness.fetched(PROVIDER, access, MAY)
    assert [request.args.to_dict() for request, _ in httpserver.log] == [a.request["params"] for a in recording.answers]
    assert reconciled(answers) == reconcile.Tally(rows=5, totals={"USD": Decimal("114.54985")})
    assert _csv(harness.table(PROVIDER, answers, MAY)) == (DOCUMENTED / "expected.csv").read_text()


def _csv(charged: pa.Table) -> str:
    """The columns in which anything is said, with every digit."""
    told = [name for name in charged.column_names if charged[name].null_count < len(charged)]
    out = io.StringIO()
    writer = csv.DictWriter(out, told, lineterminator="\n")
    writer.writeheader()
    for row in charged.select(told).to_pylist():
        writer.writerow({n: reconcile.plain(v) if isinstance(v, Decimal) else v for n, v in row.items()})
    return out.getvalue()


def test_months_in_an_unaligned_window_are_refused_so_no_part_of_a_month_passes_for_a_whole_one():
    example = (DOCUMENTED / "documented-example.json").read_text()
    with pytest.raises(UnexpectedShape, match="page 1 covers 2026-05-01T00:00:00Z to 2026-06-10T00:00:00Z"):
        table(example)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-05-01T00:00:00Z", "2026-06-01T00:00:00Z"),  # a month
        ("2026-05-01T00:00:00Z", "2026-05-01T01:00:00Z"),  # an hour
        ("2026-05-01T00:00:00+05:30", "2026-05-02T00:00:00+05:30"),  # a day in the console's time zone
    ],
)
def test_a_bucket_of_anything_but_one_day_of_utc_is_refused(start, end):
    with pytest.raises(UnexpectedShape, match="page 1, usage 1 is not exactly one day of UTC"):
        table(body(usage(1), usage(2, from_date=start, to_date=end), total="1"))


def test_a_bucket_outside_the_window_is_refused():
    with pytest.raises(UnexpectedShape, match="page 1, usage 0 lies outside the window"):
        table(body(usage(1, from_date="2026-06-01T00:00:00Z", to_date="2026-06-02T00:00:00Z"), total="0.5"))


def test_other_charges_and_the_total_are_taken_from_page_1_wherever_more_pages_follow():
    answers = pages(body(usage(1), others=[other("102.1245")], total="103.1245", token="next"), body(usage(2)))
    assert reconciled(answers) == reconcile.Tally(rows=3, totals={"USD": Decimal("103.1245")})


def test_other_charges_on_a_later_page_are_refused():
    with pytest.raises(UnexpectedShape, match="page 2 has other_charges"):
        table(body(usage(1), total="1", token="next"), body(usage(2), others=[other()]))


def test_a_walk_that_breaks_off_is_refused_by_both_readers():
    half = pages(body(usage(1), total="1", token="next"))
    for read in (lambda: list(PROVIDER.parse(half, MAY, "x")), lambda: PROVIDER.statement(half, MAY)):
        with pytest.raises(UnexpectedShape, match="the pages break off"):
            read()


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ({}, {}, "page 2 comes after a page that says it is the last"),
        ({"token": "next"}, {"currency": "EUR"}, "page 2 has another window or currency"),
        ({"token": "next"}, {"to_date": "2026-05-09T00:00:00Z"}, "page 2 has another window or currency"),
        ({"from_date": "2026-05-02T00:00:00Z"}, {}, "page 1 covers 2026-05-02T00:00:00Z"),
    ],
)
def test_pages_that_are_not_one_walk_over_the_month_are_refused(first, second, complaint):
    with pytest.raises(UnexpectedShape, match=complaint):
        table(body(usage(2), total="1", **first), body(usage(3), **second))


def test_a_lost_page_or_row_does_not_reconcile():
    with pytest.raises(reconcile.DoesNotReconcile, match=r"expected 1\.5 USD, got 1 USD"):
        reconciled(pages(body(usage(1), usage(2), total="1.5")))


def test_a_total_that_is_a_sum_of_floats_reconciles_all_the_same():
    reconciled(pages(body(usage(1, "0.1"), usage(2, "0.2"), others=[other("102.8")], total="103.10000000000001")))


def test_a_surcharge_is_inside_the_amount_and_never_added():
    answers = body(usage(1, "5.6074", surcharge=3.703), total="5.6074")
    assert reconciled(pages(answers)).totals == {"USD": Decimal("5.6074")}
    assert rows(answers)[0]["x_Surcharge"] == Decimal("3.703")


def test_subaccount_spend_is_a_breakdown_of_the_same_money_and_adds_nothing():
    answers = body(usage(1, "2", subaccount_auth="SA1"), total="2", subaccount_spend={"SA1": 2})
    assert reconciled(pages(answers)) == reconcile.Tally(rows=1, totals={"USD": Decimal(2)})
    assert rows(answers)[0]["SubAccountId"] == "SA1"


def test_units_of_different_products_have_different_names_and_voice_keeps_its_billed_seconds():
    products = ("message", "voice", "zentrunk", "transcription", "fax")
    seconds = (None, 52241, 1.5, 3, None)
    charged = rows(
        body(*[usage(1, "1", product=p, duration_seconds=s) for p, s in zip(products, seconds, strict=True)], total="5")
    )
    assert [row["PricingUnit"] for row in charged] == ["Message Segments", "Calls", "Calls", "Transcriptions", "Units"]
    assert [row["x_DurationSeconds"] for row in charged] == [None, Decimal(52241), Decimal("1.5"), Decimal(3), None]


def test_a_failed_but_billed_row_stands_beside_the_delivered_one():
    answers = body(usage(1, "5"), usage(1, "0.17145", error_code="200", error_reason="Opt-out block"), total="5.17145")
    assert reconciled(pages(answers)).rows == 2
    assert dimensions(answers) == [{}, {"error_code": "200", "error_reason": "Opt-out block"}]


@pytest.mark.parametrize("absent", ["", '"error_code": "", ', '"error_code": null, "hangup_cause": "", '])
def test_missing_null_and_empty_all_mean_that_there_was_no_error(absent):
    assert dimensions(body(usage(1).replace('"type"', absent + '"type"'), total="0.5")) == [{}]


def test_an_other_charge_of_another_month_is_left_to_that_month_but_belongs_to_the_stated_total():
    june = other("0.192", "CNAM Lookup", from_date="2026-06-01T00:00:00Z", to_date="2026-07-01T00:00:00Z")
    answers = pages(body(usage(1), others=[other("1"), june], total="1.692"))
    assert reconciled(answers).totals == {"USD": Decimal("1.5")}
    said = PROVIDER.statement(answers, MAY)
    assert said.left_out == reconcile.Tally(rows=1, totals={"USD": Decimal("0.192")})
    assert said.tolerance == Decimal("0.010003")  # a cent, and a millionth for each of the three rows
    assert said.notes == ("other charges of 2026-06, left to that month: 'CNAM Lookup' (1)",)


def test_an_adjustment_below_zero_is_accepted_and_reported():
    answers = pages(body(usage(1), others=[other("-0.2", "Goodwill")], total="0.3"))
    assert reconciled(answers).totals == {"USD": Decimal("0.3")}
    assert PROVIDER.statement(answers, MAY).notes == ("negative other charge 'Goodwill' (1)",)


def test_unknown_products_and_directions_pass_through_and_are_reported():
    answers = pages(body(usage(1, product="fax", direction="sideways"), total="0.5"))
    assert PROVIDER.statement(answers, MAY).notes == ("unknown direction 'sideways' (1)", "unknown product 'fax' (1)")
    row = harness.table(PROVIDER, answers, MAY).to_pylist()[0]
    assert (row["ServiceName"], row["x_Direction"]) == ("fax", "sideways")
    assert row["ChargeDescription"] == "fax sms sideways US"


@pytest.mark.parametrize("empty", ["[]", "[ ]", "null"])
def test_an_empty_month_is_a_result(empty):
    answers = pages(body(total="0").replace('"usage": []', f'"usage": {empty}'))
    assert reconciled(answers).rows == 0
    assert PROVIDER.statement(answers, MAY).stated_cost == {"USD": Decimal(0)}


@pytest.mark.parametrize("name", ["total_amount", "total_units", "product", "from_date", "to_date"])
def test_a_row_without_what_it_must_have_is_refused_by_page_and_row(name):
    broken = usage(2, "" if name == "total_amount" else "0.5", **({} if name == "total_amount" else {name: None}))
    with pytest.raises(UnexpectedShape, match=f"page 2, usage 1 has no {name}"):
        table(body(usage(1), total="1", token="next"), body(usage(3), broken))


def test_an_other_charge_without_an_amount_is_refused_by_both_readers():
    answers = pages(body(others=[other(""), other("1")], total="1"))
    with pytest.raises(UnexpectedShape, match="page 1, other_charges 0 has no total_amount"):
        list(PROVIDER.parse(answers, MAY, "x"))
    with pytest.raises(UnexpectedShape, match=r"page 1: other_charges .* `total_amount`"):
        PROVIDER.statement(answers, MAY)


def test_an_amount_that_cannot_be_held_exactly_is_refused_but_a_duration_keeps_its_digits_as_text():
    with pytest.raises(UnexpectedShape, match=r"page 1, row 0: total_amount is .* refused, not rounded"):
        table(body(usage(1, "0.0000000000000000001"), total="0"))
    (dimension,) = dimensions(body(usage(1, duration_seconds=1.0e-19), total="0.5"))
    assert dimension == {"duration_seconds": 1e-19}


def test_a_month_closes_on_the_5th_because_rentals_and_taxes_come_with_invoicing():
    def status(fetched_at: str) -> str:
        at = datetime.fromisoformat(fetched_at).replace(tzinfo=UTC)
        return finality(PROVIDER.calendar, MAY, fetched_at=at, flag=None).status

    assert [status(t) for t in ("2026-06-01T00:00:00", "2026-06-04T23:59:59", "2026-06-05T00:00:00")] == [
        "provisional",
        "provisional",
        "final",
    ]


def test_a_field_that_is_new_is_kept_and_changes_nothing_else():
    plain = [usage(day, "0.25", surcharge=0.1, error_code="30") for day in (1, 2, 3)]
    new = [*plain[:2], plain[2][:-1] + ', "carrier": {"name": "Ω", "fee": 0.10}}']
    documented, careful = table(body(*plain, total="0.75")), table(body(*new, total="0.75"))
    drop = charges.SCHEMA.get_field_index("x_Dimensions")
    assert documented.remove_column(drop) == careful.remove_column(drop)
    assert json.loads(careful["x_Dimensions"][2].as_py()) == {"error_code": "30", "carrier": {"name": "Ω", "fee": 0.1}}
    assert '"fee":0.10' in careful["x_Dimensions"][2].as_py()


SLOW_MACHINES_TOO = hypothesis.settings(deadline=None, max_examples=40)
amounts = st.decimals(-(10**15), 10**15, allow_nan=False, places=18) | st.decimals(-10, 10, places=2)


@SLOW_MACHINES_TOO
@given(st.lists(amounts, max_size=25), st.lists(amounts, max_size=4), st.data())
def test_however_the_amounts_are_split_into_pages_the_charges_are_the_same_to_the_last_digit(spent, fees, data):
    bills = [usage(1 + n, format(amount, "f")) for n, amount in enumerate(spent)]
    others = [other(format(amount, "f")) for amount in fees]
    with localcontext(reconcile.EXACT):
        exact = sum(spent, Decimal(0)) + sum(fees, Decimal(0))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(bills)), max_size=5)))
    parts = [bills[a:b] for a, b in zip([0, *cuts], [*cuts, len(bills)], strict=True)]
    tokens = [*(f"page {n}" for n in range(2, len(parts) + 1)), None]
    split = [
        body(*part, token=token, **({"others": others, "total": format(exact, "f")} if n == 0 else {}))
        for n, (part, token) in enumerate(zip(parts, tokens, strict=True))
    ]
    whole = [body(*bills, others=others, total=format(exact, "f"))]
    held = reconciled(pages(*split))
    assert (held.rows, held.totals.get("USD", Decimal(0))) == (len(bills) + len(others), exact)
    one, other_one = table(*split), table(*whole)
    source = charges.SCHEMA.get_field_index("x_RowSource")
    assert one.remove_column(source) == other_one.remove_column(source)
    assert len(set(one["x_RowSource"].to_pylist())) == len(one)


@SLOW_MACHINES_TOO
@given(st.lists(amounts, min_size=1, max_size=10), st.integers(0, 9))
def test_the_fast_reader_and_the_careful_one_agree(spent, which):
    bills = [usage(1 + n, format(amount, "f"), hangup_cause="busy" if n % 2 else "") for n, amount in enumerate(spent)]
    strange = list(bills)
    strange[which % len(bills)] = strange[which % len(bills)][:-1] + ', "x": 1}'
    stated = total(*(format(amount, "f") for amount in spent))
    drop = charges.SCHEMA.get_field_index("x_Dimensions")
    fast, careful = table(body(*bills, total=stated)), table(body(*strange, total=stated))
    assert fast.remove_column(drop) == careful.remove_column(drop)
