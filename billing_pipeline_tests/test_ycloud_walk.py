"""YCloud over real sockets: what it is asked, and when its answers are not taken for the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline.answers import Refused, Unavailable, UnexpectedAnswer
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Access, Page, Restarted, RowsMoved
from billing_pipeline.providers.ycloud import PROVIDER, YCloudSettings, statement
from billing_pipeline.providers.ycloud.walk import TooManyRows, windows
from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.world import Clock, World

from . import harness
from .test_ycloud import RECORDINGS, recorded

PATH = "/v2/billing/usageDetails"
MAY = BillingPeriod(2026, 5)
LATER = harness.at("2026-06-10T06:00")


def row(day: date | str, number: int = 0) -> str:
    """One item of the listing as JSON: a key of its own for every day and number, and 0.01 USD."""
    return (
        f'{{"date":"{day}","isTransient":false,"channel":"whatsapp","wabaId":"W{number}","regionCode":"CN",'
        '"costItems":[{"cost":0.01,"unitPrice":0.01,"quantity":1,"conversationOriginType":"utility"}]}'
    )


@dataclass
class YCloud:
    """The listing as YCloud's pages describe it, over rows that a test gives, newest first.

    Attributes:
        rows: (date, JSON text) by managed account; None: the account's own.
        total: the total it states, made of the true number; None states none.
        before: called with each request before it is answered; may change the rows.
        asked: every query, with the header of the managed account.
    """

    rows: dict[str | None, list[tuple[str, str]]]
    total: Callable[[int], int | None] = lambda true: true
    before: Callable[[YCloud], None] = lambda ycloud: None
    asked: list[dict[str, str]] = field(default_factory=list)
    scopes: list[str | None] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        query = request.args.to_dict()
        scope = request.headers.get("X-Managed-Account-ID")
        self.asked.append(query)
        self.scopes.append(scope)
        self.before(self)
        page, limit = int(query.get("page", "1")), int(query.get("limit", "10"))
        asked = (query["filter.startDate"], query["filter.endDate"])
        found = [text for day, text in sorted(self.rows[scope], reverse=True) if asked[0] <= day <= asked[1]]
        here = found[(page - 1) * limit : page * limit]
        total = self.total(len(found)) if query.get("includeTotal") == "true" else None
        stated = "" if total is None else f'"total":{total},'
        envelope = f'"offset":{(page - 1) * limit},"limit":{limit},{stated}"length":{len(here)}'
        return Response(f'{{{envelope},"items":[{",".join(here)}]}}', content_type="application/json")

    @property
    def windows(self) -> list[tuple[str, str]]:
        """Every window asked for, in order, pages and repetitions left out."""
        return list(dict.fromkeys((query["filter.startDate"], query["filter.endDate"]) for query in self.asked))


def days(first: str, count: int, per_day: int = 1) -> list[tuple[str, str]]:
    start = date.fromisoformat(first)
    listed = [start + timedelta(days=n) for n in range(count)]
    return [(day.isoformat(), row(day, n)) for day in listed for n in range(per_day)]


@pytest.fixture
def ask(httpserver: HTTPServer, tmp_path: Path) -> Callable[..., Access]:
    """Access to a server that answers like the given YCloud."""

    def access(ycloud: YCloud, now: Callable[[], datetime] = LATER, **keys: Any) -> Access:
        httpserver.expect_request(PATH, headers={"X-API-Key": "YCLOUD_API_KEY"}).respond_with_handler(ycloud)
        made = {"provider": "ycloud", "name": "main", "base_url": httpserver.url_for(""), "api_key": "YCLOUD_API_KEY"}
        return harness.access(PROVIDER, YCloudSettings.model_validate({**made, **keys}), tmp_path, now)

    return access


def charged(pages: Sequence[Page], period: BillingPeriod = MAY) -> int:
    """The number of charges, once both readers agree on it."""
    count = len(harness.table(PROVIDER, pages, period))
    assert statement(pages, period).counted.rows == count
    return count


def test_today_is_today_in_utc8_and_no_day_after_it_is_asked_for(ask: Any) -> None:
    june = YCloud({None: []})
    harness.fetched(PROVIDER, ask(june, harness.at("2026-05-31T17:00")), MAY.plus(1))
    assert june.windows == [("2026-06-01", "2026-06-01")]
    with pytest.raises(ValueError, match="2026-06 has not begun"):
        harness.fetched(PROVIDER, ask(YCloud({None: []}), harness.at("2026-05-31T15:59")), MAY.plus(1))


def test_the_end_date_is_inclusive_and_no_boundary_day_is_asked_for_twice(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-04-30", 33)})
    assert charged(harness.fetched(PROVIDER, ask(ycloud), MAY)) == 31
    assert ycloud.windows == [("2026-05-01", "2026-05-31")]


def test_days_that_may_still_move_are_asked_for_one_by_one(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-01", 6)})
    assert charged(harness.fetched(PROVIDER, ask(ycloud, harness.at("2026-05-05T20:00")), MAY)) == 6
    assert ycloud.windows == [("2026-05-01", "2026-05-03")] + [(f"2026-05-0{n}",) * 2 for n in (4, 5, 6)]


def test_every_request_names_its_page_size_and_none_filters_by_whatsapp_account(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-01", 31, 7)})
    assert charged(harness.fetched(PROVIDER, ask(ycloud), MAY)) == 217
    window = {"filter.startDate": "2026-05-01", "filter.endDate": "2026-05-31"}
    assert ycloud.asked == [
        {"page": "1", "limit": "100", **window, "includeTotal": "true"},
        {"page": "2", "limit": "100", **window},
        {"page": "3", "limit": "100", **window},
    ]


def test_a_server_that_keeps_its_default_page_size_is_refused(ask: Any, httpserver: HTTPServer) -> None:
    documented = recorded(RECORDINGS / "2024-03-documented")[0].read()
    access = ask(YCloud({None: []}))
    httpserver.clear()
    httpserver.expect_request(PATH).respond_with_data(documented, content_type="application/json")
    with pytest.raises(UnexpectedAnswer, match="limit should be 100, the answer says 10"):
        harness.fetched(PROVIDER, access, BillingPeriod(2024, 3))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f'{{"offset":100,"limit":100,"length":1,"items":[{row("2026-05-01")}]}}', "offset should be 0"),
        (f'{{"offset":0,"limit":100,"length":2,"items":[{row("2026-05-01")}]}}', "length should be 1"),
        (f'{{"offset":0,"limit":100,"length":1,"items":[{row("2026-04-30")}]}}', "2026-04-30 was not asked for"),
        ('{"offset":0,"limit":100,"items":[]}', "length"),
        ('{"error":{"status":200,"code":"OK"}}', "offset"),
        ("[]", "object"),
    ],
)
def test_an_answer_to_another_question_is_refused(ask: Any, httpserver: HTTPServer, body: str, said: str) -> None:
    access = ask(YCloud({None: []}))
    httpserver.clear()
    httpserver.expect_request(PATH).respond_with_data(body, content_type="application/json")
    with pytest.raises(UnexpectedAnswer, match=said):
        harness.fetched(PROVIDER, access, MAY)


@pytest.mark.parametrize("count", [0, 99, 100, 101, 200])
@pytest.mark.parametrize("total", [lambda true: true, lambda true: None], ids=["total", "no-total"])
def test_paging_ends_with_a_page_that_is_not_full_whether_or_not_a_total_is_stated(
    ask: Any, count: int, total: Callable[[int], int | None]
) -> None:
    ycloud = YCloud({None: days("2026-05-07", 1, count)}, total)
    assert charged(harness.fetched(PROVIDER, ask(ycloud), MAY)) == count
    again = 2 if count >= 100 and total(1) is None else 1  # pages without a total are compared with a second walk
    assert len(ycloud.asked) == again * (count // 100 + 1)


def test_a_window_that_states_more_rows_than_are_safe_is_divided_before_it_is_walked(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-01", 31, 300)})
    assert charged(harness.fetched(PROVIDER, ask(ycloud), MAY)) == 9_300
    assert ycloud.windows == [("2026-05-01", "2026-05-31"), ("2026-05-01", "2026-05-16"), ("2026-05-17", "2026-05-31")]
    assert len(ycloud.asked) == 1 + 49 + 46


def test_a_window_whose_hundredth_page_is_full_is_discarded_and_divided(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-30", 2, 5_000)}, total=lambda true: None)
    answers = list(PROVIDER.fetch(ask(ycloud), MAY))
    restarted = [one for one in answers if isinstance(one, Restarted)]
    assert [one.traversal for one in restarted][:2] == [
        "own account|2026-05-01..2026-05-31",
        "own account|2026-05-17..2026-05-31",
    ]
    assert max(int(query["page"]) for query in ycloud.asked) == 100
    assert charged(harness.landed(answers)) == 10_000


@pytest.mark.parametrize("total", [lambda true: true, lambda true: None], ids=["total", "no-total"])
def test_a_single_day_beyond_what_paging_reaches_is_an_error(ask: Any, total: Callable[[int], int | None]) -> None:
    ycloud = YCloud({None: days("2026-05-01", 1, 10_000)}, total)
    with pytest.raises(TooManyRows, match=r"2026-05-01\.\.2026-05-01.*SMS, voice and email"):
        harness.fetched(PROVIDER, ask(ycloud, harness.at("2026-05-01T06:00")), MAY)


def test_a_single_day_just_below_the_end_of_paging_is_read_whole(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-01", 1, 9_999)})
    assert charged(harness.fetched(PROVIDER, ask(ycloud, harness.at("2026-05-01T06:00")), MAY)) == 9_999


@pytest.mark.parametrize("total", [lambda true: true, lambda true: None], ids=["total", "no-total"])
def test_a_row_that_appears_while_pages_are_walked_starts_the_walk_anew(
    ask: Any, total: Callable[[int], int | None]
) -> None:
    def one_more_before_page_2(ycloud: YCloud) -> None:
        if len(ycloud.asked) == 2:
            ycloud.rows[None] += days("2026-05-31", 1)

    ycloud = YCloud({None: days("2026-05-01", 30, 5)}, total, one_more_before_page_2)
    answers = list(PROVIDER.fetch(ask(ycloud), MAY))
    assert [type(one) for one in answers] == [Page, Page, Restarted, Page, Page]
    assert charged(harness.landed(answers)) == 151


def test_rows_that_never_stop_moving_are_an_error_after_four_walks(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-01", 31)}, total=lambda true: true + 1)
    with pytest.raises(RowsMoved, match=r"walked 4 times.*page 1 states 32 rows, 31 came"):
        harness.fetched(PROVIDER, ask(ycloud), MAY)
    assert len(ycloud.asked) == 4


def test_a_combination_that_moved_to_another_region_leaves_nothing_behind(ask: Any) -> None:
    ycloud = YCloud({None: days("2026-05-07", 1)})
    access = ask(ycloud)
    before = harness.landed(PROVIDER.fetch(access, MAY))
    ycloud.rows[None] = [(day, text.replace("CN", "HK")) for day, text in ycloud.rows[None]]
    after = harness.fetched(PROVIDER, access, MAY)
    regions = [harness.table(PROVIDER, pages, MAY)["x_DestinationCountry"].to_pylist() for pages in (before, after)]
    assert regions == [["CN"], ["HK"]]


def test_each_managed_account_is_asked_for_under_its_own_id_and_the_account_itself_under_none(ask: Any) -> None:
    ycloud = YCloud(
        {None: [("2026-05-07", row("2026-05-07", 1))], "M1": [("2026-05-07", row("2026-05-07", 2))], "M2": []}
    )
    pages = harness.fetched(PROVIDER, ask(ycloud, managed_accounts=["M1", "M2"]), MAY)
    assert ycloud.scopes == [page.scope for page in pages] == [None, "M1", "M2"]
    assert len({page.traversal for page in pages}) == 3
    table = harness.table(PROVIDER, pages, MAY)
    assert list(zip(table["SubAccountId"].to_pylist(), table["x_Dimensions"].to_pylist(), strict=True)) == [
        (None, '{"wabaId":"W1","isTransient":false}'),
        ("M1", '{"wabaId":"W2","isTransient":false}'),
    ]


@pytest.mark.parametrize(("status", "raised"), [(401, Refused), (400, Refused), (503, Unavailable)])
def test_an_outage_is_an_error_and_never_an_older_or_a_shorter_answer(
    ask: Any, httpserver: HTTPServer, status: int, raised: type[Exception]
) -> None:
    ycloud = YCloud({None: days("2026-05-01", 31, 5)})
    access = ask(ycloud)
    came: list[Page | Restarted] = []
    walk: Iterator[Page | Restarted] = PROVIDER.fetch(access, MAY)
    came.append(next(walk))
    httpserver.clear()
    httpserver.expect_request(PATH).respond_with_json(
        {"error": {"status": status, "code": "UNAUTHORIZED", "message": "YCLOUD_API_KEY is wrong"}}, status=status
    )
    with pytest.raises(raised) as error:
        came.extend(walk)
    assert len(came) == 1
    assert "YCLOUD_API_KEY" not in str(error.value)


months = st.builds(BillingPeriod, st.integers(2020, 2035), st.integers(1, 12))
instants = st.datetimes(datetime(2019, 12, 1), datetime(2036, 2, 1), timezones=st.just(UTC))  # noqa: DTZ001


@settings(max_examples=300)
@given(months, instants)
def test_every_day_that_has_begun_is_asked_for_once_no_later_day_ever_and_recent_days_alone(
    period: BillingPeriod, now: datetime
) -> None:
    today = (now + timedelta(hours=8)).date()
    planned = windows(period, now)
    covered = [one.first + timedelta(days=n) for one in planned for n in range((one.last - one.first).days + 1)]
    assert covered == [day for day in period.days() if day <= today]
    assert all(one.first == one.last for one in planned if one.last > today - timedelta(days=3))
    assert len(planned) <= 4


@settings(deadline=None, max_examples=15)
@given(
    counts=st.lists(st.integers(0, 120), min_size=31, max_size=31),
    now=st.datetimes(datetime(2026, 5, 1), datetime(2026, 6, 9), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_whatever_the_days_hold_every_row_of_a_begun_day_is_charged_once(
    counts: list[int], now: datetime, make_httpserver: HTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    listed = [one for n, count in enumerate(counts) for one in days(f"2026-05-{n + 1:02}", 1, count)]
    make_httpserver.clear()
    make_httpserver.expect_request(PATH).respond_with_handler(YCloud({None: listed}))
    made = YCloudSettings.model_validate(
        {"provider": "ycloud", "name": "main", "base_url": make_httpserver.url_for(""), "api_key": "YCLOUD_API_KEY"}
    )
    access = harness.access(PROVIDER, made, tmp_path_factory.mktemp("ycloud"), lambda: now)
    today = (now + timedelta(hours=8)).date().isoformat()
    assert charged(harness.fetched(PROVIDER, access, MAY)) == sum(day <= today for day, _ in listed)


@pytest.mark.parametrize("now", [datetime(2026, 5, 14, 17, 5, tzinfo=UTC), datetime(2026, 6, 10, 6, tzinfo=UTC)])
def test_the_stand_ins_month_is_read_to_the_last_digit_with_its_managed_accounts(now: datetime, tmp_path: Path) -> None:
    accounts = ("main", "acme-mx", "acme-sea")
    world = World(Clock(now))
    with running(world=world) as url:
        made = {"provider": "ycloud", "name": "main", "base_url": f"{url}/ycloud", "api_key": "sandbox-ycloud-key"}
        ours = YCloudSettings.model_validate({**made, "managed_accounts": accounts[1:]})
        pages = harness.fetched(PROVIDER, harness.access(PROVIDER, ours, tmp_path, lambda: now), MAY)
    billed = [totals(world, "ycloud", account, "2026-05", now) for account in accounts]
    assert charged(pages) == sum(one["rows"] for one in billed)
    assert statement(pages, MAY).counted.totals == {"USD": sum(Decimal(one["totals"]["USD"]) for one in billed)}
