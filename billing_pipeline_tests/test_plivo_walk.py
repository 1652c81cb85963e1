"""Plivo's walk over pages, over real sockets: what is asked, when it begins anew, what it refuses."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Response

from billing_pipeline import charges, reconcile
from billing_pipeline.answers import Answer, Refused, Unavailable
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Access, Page, Restarted, RowsMoved
from billing_pipeline.providers.plivo import PROVIDER
from billing_pipeline.providers.plivo.pages import COUNT
from billing_pipeline.providers.plivo.seen import AT_ONCE, FEW, Seen, hashes, of_columns, repeated, twice
from billing_pipeline.rows import BATCH_BYTES, UnexpectedShape
from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.plivo import ACCOUNTS
from billing_pipeline.sandbox.world import Clock, World
from billing_pipeline_tests import harness
from billing_pipeline_tests.plivo_bodies import MAY, Answers, asked, body, other, serve, settings, total, usage

WHOLE_MAY = {"granularity": "day", "from_date": "2026-05-01", "to_date": "2026-06-01", "page_size": "1000"}


@pytest.fixture
def walk(httpserver: HTTPServer, tmp_path: Path):
    def run(answers: Answers, period: BillingPeriod = MAY, now: str | None = None) -> list[Page | Restarted]:
        serve(httpserver, answers)
        clock = harness.at(now) if now else lambda: harness.FETCHED
        access = harness.access(PROVIDER, settings(httpserver.url_for("").rstrip("/")), tmp_path, clock)
        with access.http:
            return list(PROVIDER.fetch(access, period))

    return run


def two_pages(token: str | None) -> str:
    if token is None:
        return body(usage(1), others=[other("1")], total="2", token="next")
    return body(usage(2))


def error(status: int, text: str = '{"api_id": "made-up", "error": "no"}') -> Response:
    return Response(text, status)


def test_only_the_documented_parameters_are_sent_and_no_filter_so_nothing_is_misspelt_or_taken_away(httpserver, walk):
    walk(two_pages)
    assert asked(httpserver) == [WHOLE_MAY, WHOLE_MAY | {"page_token": "next"}]


def test_sub_accounts_are_inside_the_one_walk_and_never_asked_for_beside_it(httpserver, walk):
    walk(lambda token: body(usage(1), usage(1, subaccount_auth="SA1"), total="1"))
    assert asked(httpserver) == [WHOLE_MAY]


def test_the_last_day_of_the_month_is_asked_for_although_to_date_is_exclusive(httpserver, walk):
    walk(lambda token: body(total="0"))
    assert asked(httpserver)[0]["to_date"] == "2026-06-01"


def test_a_running_month_is_asked_for_up_to_and_including_today(httpserver, walk):
    walk(lambda token: body(total="0", to_date="2026-05-18T00:00:00Z"), now="2026-05-17T23:59:59")
    assert asked(httpserver)[0] | {"page_size": ""} == WHOLE_MAY | {"to_date": "2026-05-18", "page_size": ""}


def test_a_month_that_has_not_begun_is_not_asked_for(walk):
    with pytest.raises(ValueError, match="2026-06 has not begun"):
        walk(lambda token: body(total="0"), period=BillingPeriod(2026, 6), now="2026-05-31T23:59:59")


def test_both_dates_stay_the_same_when_the_walk_crosses_midnight(httpserver, tmp_path):
    clock = iter([datetime(2026, 5, 17, 23, 59, 59, tzinfo=UTC)] + [datetime(2026, 5, 18, tzinfo=UTC)] * 9)
    end = {"to_date": "2026-05-18T00:00:00Z"}
    serve(httpserver, lambda token: body(usage(2), **end) if token else body(usage(1), total="1", token="next", **end))
    access = harness.access(
        PROVIDER, settings(httpserver.url_for("").rstrip("/")), tmp_path, harness.at("2026-05-18T00:00:00")
    )
    access = replace(access, now=lambda: next(clock))
    assert len(harness.fetched(PROVIDER, access, MAY)) == 2
    assert [request["to_date"] for request in asked(httpserver)] == ["2026-05-18", "2026-05-18"]


def test_the_window_of_a_month_is_within_the_92_days_that_days_may_be_asked_for(httpserver, walk):
    walk(lambda token: body(total="0"))
    request = asked(httpserver)[0]
    assert (datetime.fromisoformat(request["to_date"]) - datetime.fromisoformat(request["from_date"])).days == 31


def test_a_window_over_the_cap_is_an_error_and_never_an_empty_month(walk):
    reason = "granularity=day supports a max window of 92 days (requested 120 days)"
    with pytest.raises(Refused, match=re.escape(reason)):
        walk(lambda token: error(400, f'{{"api_id": "made-up", "error": "{reason}"}}'))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("granularity", "month"),
        ("from_date", "2026-05-03T00:00:00Z"),
        ("to_date", "2026-06-02T00:00:00Z"),
        ("page_size", 100),
        ("auth_id", "SOMEBODY_ELSE"),
    ],
)
def test_an_answer_that_shows_that_a_parameter_was_ignored_is_refused(walk, name, value):
    with pytest.raises(UnexpectedShape, match=f"page 1 answers another question.*{name} is {value}"):
        walk(lambda token: body(total="0", **{name: value}))


@pytest.mark.parametrize(("name", "value"), [("currency", "EUR"), ("page_size", 100), ("granularity", "hour")])
def test_every_page_is_compared_with_the_question_not_only_the_first(walk, name, value):
    with pytest.raises(UnexpectedShape, match=f"page 2 answers another question.*{name} is {value}"):
        walk(lambda token: body(usage(2), **{name: value}) if token else two_pages(None))


def test_the_same_instant_written_differently_is_the_same_window(walk):
    assert len(walk(lambda token: body(total="0", from_date="2026-05-01T00:00:00.000+00:00"))) == 1


def test_an_answer_about_one_sub_account_is_refused(walk):
    with pytest.raises(UnexpectedShape, match="about sub-account SA1 alone"):
        walk(lambda token: body(total="0", subaccount_auth="SA1"))


def test_a_first_page_without_the_total_is_refused(walk):
    with pytest.raises(UnexpectedShape, match=r"page 1 has no meta\.total_spent"):
        walk(lambda token: body(usage(1)))


def test_other_charges_on_a_later_page_are_refused_because_they_might_count_twice(walk):
    with pytest.raises(UnexpectedShape, match="page 2 has other_charges"):
        walk(lambda token: body(usage(2), others=[other()]) if token else two_pages(None))


@pytest.mark.parametrize("end", [{}, {"next_page_token": None}, {"next_page_token": ""}])
def test_a_cursor_that_is_missing_null_or_empty_ends_the_walk(walk, end):
    assert len(walk(lambda token: body(usage(1), total="0.5", **end))) == 1


def test_a_cursor_that_comes_back_is_refused_instead_of_walking_in_circles(walk):
    walks = {None: ("a", 1), "a": ("b", 2), "b": ("a", 3)}
    with pytest.raises(UnexpectedShape, match="page 3 hands out a next_page_token for the second time"):
        walk(lambda t: body(usage(walks[t][1]), total=None if t else "9", token=walks[t][0]))


def test_a_list_in_the_place_of_a_row_is_refused_and_not_taken_for_no_rows(walk):
    with pytest.raises(UnexpectedShape, match="not built as Plivo's page"):
        walk(lambda token: body("[]", total="0"))


class Endless:
    """Stands where Http stands, because 12,000 real requests take half a minute."""

    def __init__(self) -> None:
        self.pages = 0

    def get(self, path: str, params: dict[str, object], *, decoder: msgspec.json.Decoder[Any]) -> Answer:
        self.pages += 1
        total = None if "page_token" in params else "0"
        text = body(usage(country=f"{self.pages}"), total=total, token=str(self.pages)).encode()
        return Answer(200, text, f"GET {path}", harness.FETCHED, decoder.decode(text))


class Saying:
    """Stands where Http stands, with one answer."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()

    def get(self, path: str, params: dict[str, object], *, decoder: msgspec.json.Decoder[Any]) -> Answer:
        try:
            document = decoder.decode(self.text)
        except msgspec.ValidationError as error:
            document = error
        return Answer(200, self.text, f"GET {path}", harness.FETCHED, document)


def moved(answers: Iterable[object]) -> str:
    """What is said of rows that moved, but for where; nothing when none did."""
    try:
        list(answers)
    except RowsMoved as error:
        return str(error).partition(" twice ")[0]
    return ""


TEXTS = st.sampled_from([None, "", "a", "b"])
ROWS = st.fixed_dictionaries(
    {
        "day": st.integers(1, 3),
        "amount": st.sampled_from(["0.1", "0.2", "1e-3"]),
        "product": st.sampled_from(["message", "voice"]),
        "type": TEXTS,
        "country": TEXTS,
        "direction": TEXTS,
    },
    optional={
        "subaccount_auth": TEXTS,
        "error_code": TEXTS | st.just(404),
        "hangup_cause": TEXTS,
        "error_reason": TEXTS,
        "carrier": TEXTS,  # undocumented
        "flags": st.sampled_from([[], ["x"], {"y": 1}]),
        "duration_seconds": st.sampled_from([1, 2.5, "1." + "3" * 30]),  # the last one cannot be held
    },
)


@given(st.lists(ROWS, max_size=8))
@example(
    [{"day": 1, "amount": "0.1", "product": "voice"}, {"day": 1, "amount": "0.1", "product": "voice", "carrier": ""}]
)
@example([{"day": 1, "amount": "0.1", "product": "voice", "flags": flags} for flags in ([], ["x"])])
def test_parse_tells_buckets_apart_as_the_walk_does_which_may_leave_it_to_parse(rows: list[dict[str, Any]]) -> None:
    text = body(*(usage(**row) for row in rows), total=total(*(row["amount"] for row in rows)))
    access = Access(settings=settings(), http=Saying(text), now=lambda: harness.FETCHED, mailbox=Any)  # type: ignore[arg-type]
    found = moved(PROVIDER.fetch(access, MAY))
    left = list(PROVIDER.fetch(replace(access, beside=lambda: True), MAY))
    assert moved(PROVIDER.parse(harness.landed(left), MAY, "landing")) == found
    if not found:
        said = [PROVIDER.statement(harness.landed(came), MAY) for came in (left, PROVIDER.fetch(access, MAY))]
        assert said[0] == said[1]


@pytest.mark.parametrize("days", [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 1]])
def test_parse_tells_buckets_apart_also_when_they_are_many_rows_apart_and_names_them(days: list[int]) -> None:
    """Each page but the first is larger than a batch."""
    reasons = ["x" * BATCH_BYTES if day > 1 else "" for day in days]
    texts = [
        body(usage(day, error_reason=reason), token=str(n) if n < 5 else None, total="3" if n == 0 else None)
        for n, (day, reason) in enumerate(zip(days, reasons, strict=True))
    ]
    pages = [harness.page(text, number) for number, text in enumerate(texts, 1)]
    if days[5] == 1:
        with pytest.raises(
            RowsMoved, match=r"^1 usage buckets had come twice \(page 6, usage 0 is of what page 1, usage 0 "
        ):
            list(PROVIDER.parse(pages, MAY, "landing"))
    else:
        rows = [row for batch in PROVIDER.parse(pages, MAY, "landing") for row in batch["x_RowSource"].to_pylist()]
        assert rows == [f"landing/{page}#/usage/0" for page in range(1, 7)]


@pytest.mark.parametrize("name", ["duration_seconds", "surcharge", "carrier_id"])
def test_a_number_of_thousands_of_digits_that_is_no_money_is_kept(name: str) -> None:
    text = body(usage(1)[:-1] + f', "{name}": {"1" * 5000}' + "}", total="0.5")
    (batch, *_) = PROVIDER.parse([harness.page(text, 1)], MAY, "landing")
    assert "1" * 5000 in batch[charges.UNKNOWN][0].as_py()


def test_a_walk_without_end_is_given_up(tmp_path):
    access = harness.access(PROVIDER, settings(), tmp_path)
    access.http.close()
    with pytest.raises(UnexpectedShape, match="still a next_page_token after 12000 pages"):
        list(PROVIDER.fetch(replace(access, http=Endless()), MAY))


def test_an_empty_page_that_goes_on_is_the_end_of_patience(walk):
    with pytest.raises(UnexpectedShape, match="page 2 is empty and has a next_page_token"):
        walk(lambda token: body(token="more") if token else two_pages(None))


def test_a_bucket_that_stands_twice_on_one_page_is_noticed_also_when_the_totals_agree(walk):
    with pytest.raises(RowsMoved, match="1 usage buckets had come twice by page 1"):
        walk(lambda token: body(usage(1, "0.001"), usage(1, "0.001"), total="0.002"))


def test_a_cursor_that_expired_begins_the_walk_anew_and_page_1_counts_once(httpserver, walk):
    expired = iter([True, False])
    answers = walk(lambda token: error(400) if token and next(expired) else two_pages(token))
    assert [type(answer) for answer in answers] == [Page, Restarted, Page, Page]
    kept = harness.landed(answers)
    assert [page.number for page in kept] == [2, 3]
    assert harness.table(PROVIDER, kept, MAY).num_rows == 3
    assert [request.get("page_token") for request in asked(httpserver)] == [None, "next", None, "next"]


def test_a_bucket_that_comes_twice_begins_the_walk_anew_because_the_data_moved(walk):
    moved = iter([True, False])
    repeated = body(usage(1, "0.75"), usage(2))  # the same bucket of another page, grown meanwhile
    answers = walk(lambda token: repeated if token and next(moved) else two_pages(token))
    assert [type(answer) for answer in answers] == [Page, Page, Restarted, Page, Page]
    assert "1 usage buckets had come twice" in answers[2].reason
    assert harness.table(PROVIDER, harness.landed(answers), MAY).num_rows == 3


@pytest.mark.parametrize("absent", [{}, {"error_code": "", "hangup_cause": ""}])
def test_a_bucket_that_keeps_coming_twice_is_an_error_after_three_new_beginnings(httpserver, walk, absent):
    with pytest.raises(RowsMoved, match="1 usage buckets had come twice by page 2"):
        walk(lambda token: body(usage(1, **absent)) if token else two_pages(None))
    assert len(asked(httpserver)) == 2 * 4


@pytest.mark.parametrize(
    "difference",
    [
        {"error_code": "200"},
        {"hangup_cause": "busy"},
        {"subaccount_auth": "SA1"},
        {"type": "mms"},
        {"carrier": "a new dimension"},
    ],
)
def test_rows_that_differ_in_any_dimension_are_different_buckets(walk, difference):
    answers = walk(lambda token: body(usage(1, **difference)) if token else two_pages(None))
    assert [type(answer) for answer in answers] == [Page, Page]


def test_a_walk_that_stays_rate_limited_ends_in_an_error_and_not_in_half_a_month(httpserver, walk):
    with pytest.raises(Unavailable, match="429"):
        walk(lambda token: error(429) if token else two_pages(None))
    assert len(asked(httpserver)) == 4 * (1 + 3)  # four walks; each asks page 2 once and twice again


def test_a_short_outage_in_the_middle_is_waited_out(walk):
    bad = iter([True, True, False])
    answers = walk(lambda token: error(502, "Bad Gateway") if token and next(bad) else two_pages(token))
    assert [type(answer) for answer in answers] == [Page, Page]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_credentials_that_end_in_the_middle_are_an_error_at_once(httpserver, walk, status):
    with pytest.raises(Refused, match=str(status)):
        walk(lambda token: error(status, "IP not whitelisted") if token else two_pages(None))
    assert len(asked(httpserver)) == 2


def test_no_error_says_the_auth_token(walk):
    with pytest.raises(Refused) as refused:
        walk(lambda token: error(403, "PLIVO_AUTH_TOKEN is not welcome"))
    assert "PLIVO_AUTH_TOKEN" not in str(refused.value) + repr(refused.value.body)


def test_a_page_says_what_was_asked_to_get_it(walk):
    page = walk(lambda token: body(total="0"))[0]
    assert page.request.startswith("GET /v1/Account/PLIVO_AUTH_ID/UsageSummary/?granularity=day&from_date=2026-05-01&")
    assert page.facts.keys() == {"auth_id", COUNT}
    assert page.facts["auth_id"] == "PLIVO_AUTH_ID"


def uncounted(pages: list[Page]) -> list[Page]:
    """The same pages as an older version landed them."""
    return [replace(page, facts={"auth_id": "PLIVO_AUTH_ID"}) for page in pages]


@pytest.mark.parametrize("seed", range(5))
def test_what_was_counted_as_pages_came_is_what_is_counted_in_their_bytes(walk, seed):
    chance = random.Random(seed)  # noqa: S311
    amounts = [f"{chance.randint(-(10**9), 10**9)}.{chance.randint(0, 10**18):018}" for _ in range(40 * seed)]
    rows = [
        usage(amount=amount, country=f"{n}", **{name: chance.choice(some) for name, some in SAID.items()})
        for n, amount in enumerate(amounts)
    ]
    pages = walk(lambda token: body(*rows[1::2]) if token else body(*rows[::2], total=total("0", *amounts), token="2"))
    assert all(COUNT in page.facts for page in pages)
    said = PROVIDER.statement(pages, MAY)
    assert said == PROVIDER.statement(uncounted(pages), MAY)
    assert (said.counted.rows, said.stated_cost) == (len(rows), {"USD": Decimal(total("0", *amounts))})


SAID = {"product": ["message", "voice", "fax"], "direction": [None, "", "outbound", "up"]}


def test_rows_that_nobody_documented_are_counted_in_their_bytes(walk):
    pages = walk(lambda token: body(usage(region="EU"), usage(region="US"), total=total("0.5", "0.5")))
    assert COUNT not in pages[0].facts
    assert PROVIDER.statement(pages, MAY).counted.rows == 2


def test_a_row_without_a_product_is_counted_in_its_bytes_and_refused_by_its_place(walk):
    pages = walk(lambda token: body(usage(product=None), total="0.5"))
    assert COUNT not in pages[0].facts
    assert PROVIDER.statement(pages, MAY).counted.rows == 1
    with pytest.raises(UnexpectedShape, match="usage 0 has no product"):
        harness.table(PROVIDER, pages, MAY)


@pytest.mark.parametrize("amounts", [["NaN"], ["Infinity", "-Infinity"], ["sNaN"]], ids=str)
@pytest.mark.parametrize("further", [False, True], ids=["one page", "two pages"])
def test_an_amount_that_is_no_number_is_landed_and_refused_by_its_page(walk, amounts, further):
    odd = [usage(amount=f'"{amount}"', country=f"{n}") for n, amount in enumerate(amounts)]
    pages = walk(lambda token: body(usage(2)) if token else body(*odd, total="1", token="2" if further else None))
    assert len(pages) == 1 + further
    assert COUNT not in pages[0].facts
    with pytest.raises(UnexpectedShape, match="page 0: usage has a total_amount that is no number"):
        PROVIDER.statement(pages, MAY)


def test_rows_that_are_not_those_that_were_counted_do_not_reconcile(walk):
    pages = walk(lambda token: body(usage(), total="0.5"))
    pages[0] = replace(pages[0], body=pages[0].body.replace(b"0.5", b"0.6"))
    said, held = PROVIDER.statement(pages, MAY), charges.tally(harness.table(PROVIDER, pages, MAY))
    with pytest.raises(reconcile.DoesNotReconcile, match=r"expected 0.5 USD, got 0.6 USD"):
        reconcile.require(reconcile.agree("from landing to Arrow", said.counted, held))


def test_a_count_that_cannot_be_read_is_refused(walk):
    pages = walk(lambda token: body(usage(), total="0.5"))
    pages[0] = replace(pages[0], facts={**pages[0].facts, COUNT: '{"rows": 1'})
    with pytest.raises(UnexpectedShape, match="page 0: what was counted in it"):
        PROVIDER.statement(pages, MAY)


def test_plivo_is_asked_at_most_20_times_a_minute_and_300_times_in_5_seconds():
    assert [(limit.requests, limit.seconds) for limit in PROVIDER.rate_limits] == [(20, 60), (300, 5)]


@pytest.mark.parametrize("account", sorted(ACCOUNTS))
@pytest.mark.parametrize("month", ["2026-05", "2026-06"])
def test_the_stand_in_for_plivo_is_read_to_the_last_digit(tmp_path, account, month):
    world, period = World(Clock(harness.FETCHED), scale=3), BillingPeriod.parse(month)
    world.enforce_limits = False
    with running(world=world) as address:
        keys = {name: str(ACCOUNTS[account][name]) for name in ("auth_id", "auth_token")}
        told = settings(f"{address}/plivo").model_copy(update={**keys, "auth_token": SecretStr(keys["auth_token"])})
        pages = harness.fetched(PROVIDER, harness.access(PROVIDER, told, tmp_path), period)
    said, held = PROVIDER.statement(pages, period), charges.tally(harness.table(PROVIDER, pages, period))
    reconcile.require(reconcile.stated(said) + reconcile.agree("made", said.counted, held))
    assert {"rows": held.rows, "totals": charges.totals_json(held.totals)} == totals(world, "plivo", account, month)


def test_todays_buckets_that_grow_under_the_walk_begin_it_anew_and_at_last_without_today(httpserver, walk):
    """A busy account: page 2 already holds more than the total of page 1 knew."""
    attempts = []

    def growing(token: str | None) -> str:
        attempts.append(token) if token is None else None
        quiet = len(attempts) == 4
        end = {"to_date": "2026-05-17T00:00:00Z" if quiet else "2026-05-18T00:00:00Z"}
        return (
            body(usage(2, "0.5" if quiet else "0.7"), **end)
            if token
            else body(usage(1), total="1", token="next", **end)
        )

    answers = walk(growing, now="2026-05-17T12:00:00")
    restarts = [answer.reason for answer in answers if isinstance(answer, Restarted)]
    assert [reason.partition(":")[0] for reason in restarts] == [
        "the rows differ from total_spent on page 1 by -0.2"
    ] * 3
    assert [question["to_date"] for question in asked(httpserver)] == ["2026-05-18"] * 6 + ["2026-05-17"] * 2
    assert reconcile.stated(PROVIDER.statement(harness.landed(answers), MAY))[0].passed


@given(st.lists(st.sets(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 30), max_size=40), max_size=12))
def test_what_was_seen_is_recognised_however_many_pages_ago(pages: list[set[int]]) -> None:
    seen, known = Seen(), set[int]()
    for page in pages:
        assert seen.add(hashes(page), last=False) == len(page & known)
        if page & known:  # and there the walk begins anew
            return
        known |= page
        assert len(seen) == len(known)


def test_rows_with_the_same_texts_in_other_columns_are_different_rows() -> None:
    """Found by chance: while hashes of tuples were added up, half of such pairs came out as one."""
    texts = [*map(str, range(100))]
    rows = list(product(texts, texts))
    columns = {name: pa.array([row[n] for row in rows]) for n, name in enumerate(["x_Type", "x_DestinationCountry"])}
    day = pa.array([datetime(2026, 5, 1, tzinfo=UTC)] * len(rows), charges.INSTANT)
    assert twice(of_columns(day, columns, lambda _, text: text)) == 0


EDGES = [-(2**63), -(2**62), -1, 0, 1, 2**62, 2**63 - 1]


@pytest.mark.parametrize("count", [len(EDGES), FEW, FEW + 1, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE + 7])
def test_all_hashes_are_looked_through_in_whatever_range_of_numbers(count: int) -> None:
    drawn = random.Random(count)  # noqa: S311  no secret
    # Also those at which a range ends when there are two, three or four of them.
    borders = {
        (end << 64) // parts - (1 << 63) + more for parts in (2, 3, 4) for end in range(1, parts) for more in (-1, 0)
    }
    different = {*EDGES, *borders} if count > 20 else {*EDGES}
    while len(different) < count:
        different.add(drawn.randrange(-(2**63), 2**63))
    met = hashes(different)
    assert twice(met) == 0
    with pytest.raises(ValueError, match="different"):
        repeated(met)
    again = [*EDGES, *borders] if count > 20 else EDGES
    met.extend(hashes(again))
    assert twice(met) == len(again)
    later, before = repeated(met)
    assert (met[later], later >= count, before < count) == (met[before], True, True)


@pytest.mark.parametrize("page", [60, 101, 119, 120, 121, 200])
def test_among_many_what_came_twice_is_noticed_before_they_have_doubled_and_by_the_last_page(page: int) -> None:
    seen, pages = Seen(), [hashes(range(1000 * n, 1000 * (n + 1))) for n in range(201)]
    pages[page] = hashes([3, 70_000][: 1 + (page > 100)])
    found = [seen.add(each, last=each is pages[-1]) for each in pages]
    assert next(number for number, twice in enumerate(found) if twice) in range(page, min(2 * page, 200) + 1)
    assert max(found) in (1, 2)
