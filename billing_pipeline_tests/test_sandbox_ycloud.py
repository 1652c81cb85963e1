"""The stand-in for YCloud answers as its daily billing page and its API fundamentals say (read 2026-11)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import takewhile
from typing import Any

import httpx
import pytest

from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.world import Clock, World

PATH = "/ycloud/v2/billing/usageDetails"
MAY = {"filter.startDate": "2026-05-01", "filter.endDate": "2026-05-31"}
DAY = {"filter.startDate": "2026-05-20", "filter.endDate": "2026-05-20"}
MOMENTS = [
    "2026-05-01T00:10+08:00",
    "2026-05-15T13:20+00:00",
    "2026-05-31T16:30+00:00",  # June has begun in UTC+8
    "2026-06-03T00:00+00:00",
    "2026-06-04T23:50+00:00",
    "2026-06-05T00:10+00:00",
    "2026-08-20T00:00+00:00",
]


class YCloud:
    """A client that reads numbers as the digits they were sent in."""

    def __init__(self, client: httpx.Client, world: World):
        self.client = client
        self.world = world

    def get(self, params: dict[str, Any], account: str = "main", key: str = "sandbox-ycloud-key") -> httpx.Response:
        headers = {"X-API-Key": key} | ({} if account == "main" else {"X-Managed-Account-ID": account})
        return self.client.get(PATH, params=params, headers=headers)

    def ask(self, params: dict[str, Any], account: str = "main") -> dict[str, Any]:
        answer = self.get(params, account)
        assert answer.status_code == 200, answer.text
        assert answer.headers["YCloud-Request-ID"]
        return json.loads(answer.text, parse_float=Decimal)

    def items(self, params: dict[str, Any], account: str = "main", limit: int = 100) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in range(1, 101):
            answer = self.ask({**params, "page": page, "limit": limit}, account)
            assert answer["offset"] == (page - 1) * limit
            assert (answer["limit"], answer["length"]) == (limit, len(answer["items"]))
            found += answer["items"]
            if answer["length"] < limit:
                return found
        raise AssertionError("more than 100 pages")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[httpx.Client, World]]:
    world = World(Clock())
    with running(world=world) as address, httpx.Client(base_url=address) as client:
        yield client, world


@pytest.fixture
def ycloud(sandbox: tuple[httpx.Client, World]) -> YCloud:
    client, world = sandbox
    world.clock.set(datetime(2026, 6, 10, 6, tzinfo=UTC))
    world.enforce_limits, world.scale = False, 1.0
    return YCloud(client, world)


def costs(items: list[dict[str, Any]]) -> list[Decimal]:
    return [Decimal(cost["cost"]) for item in items for cost in item["costItems"]]


def key(item: dict[str, Any]) -> tuple[Any, ...]:
    return item["date"], item["channel"], item.get("wabaId"), item.get("regionCode")


@pytest.mark.parametrize("account", ["main", "acme-mx", "acme-sea"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_all_pages_add_up_to_the_sandboxs_total(ycloud: YCloud, moment: str, account: str):
    ycloud.world.clock.set(datetime.fromisoformat(moment))
    items = ycloud.items(MAY, account)
    found = costs(items)
    stated = totals(ycloud.world, "ycloud", account, "2026-05")
    assert len(found) == stated["rows"]
    assert {"USD": f"{sum(found, Decimal(0)).normalize():f}"} == stated["totals"]
    assert len({key(item) for item in items}) == len(items)


def test_no_more_requests_are_answered_than_the_limits_allow(ycloud: YCloud):
    ycloud.world.enforce_limits = True
    # A fast machine comes to the 200 of a second first.
    answers = (ycloud.get({**MAY, "limit": 1}) for _ in range(1001))
    answered = list(takewhile(lambda answer: answer.status_code == 200, answers))
    answer = ycloud.get({**MAY, "limit": 1})
    assert 200 <= len(answered) <= 1000
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "TOO_MANY_REQUESTS")
    assert int(answer.headers["Retry-After"]) >= 1


def test_a_parent_has_about_25_items_a_day_and_a_managed_account_about_8(ycloud: YCloud):
    sizes = {account: len(ycloud.items(MAY, account)) / 31 for account in ("main", "acme-mx", "acme-sea")}
    assert 22 < sizes["main"] < 28
    assert 6 < sizes["acme-mx"] < 10
    assert 6 < sizes["acme-sea"] < 10


def test_the_parents_answer_does_not_hold_its_managed_accounts(ycloud: YCloud):
    wabas = {a: {i["wabaId"] for i in ycloud.items(MAY, a) if "wabaId" in i} for a in ("main", "acme-mx", "acme-sea")}
    assert all(wabas.values())
    assert not wabas["main"] & (wabas["acme-mx"] | wabas["acme-sea"])


def test_the_default_is_the_first_ten_without_a_total(ycloud: YCloud):
    page = ycloud.ask(MAY)
    assert list(page) == ["offset", "limit", "length", "items"]
    assert (page["offset"], page["limit"], page["length"]) == (0, 10, 10)


def test_a_total_is_given_when_asked_for(ycloud: YCloud):
    assert "total" not in ycloud.ask({**MAY, "includeTotal": "false"})
    assert ycloud.ask({**MAY, "includeTotal": "true"})["total"] == len(ycloud.items(MAY))


def test_both_dates_are_inclusive_and_the_latest_comes_first(ycloud: YCloud):
    dates = [item["date"] for item in ycloud.items({"filter.startDate": "2026-05-30", "filter.endDate": "2026-06-02"})]
    assert dates == sorted(dates, reverse=True)
    assert set(dates) == {"2026-05-30", "2026-05-31", "2026-06-01", "2026-06-02"}


def test_a_page_beyond_the_last_is_empty(ycloud: YCloud):
    page = ycloud.ask({**DAY, "page": 100, "limit": 100})
    assert (page["offset"], page["length"], page["items"]) == (9900, 0, [])


def test_a_wide_window_ends_at_ten_thousand_items_without_a_word(ycloud: YCloud):
    ycloud.world.scale = 20
    page = ycloud.ask({**MAY, "page": 100, "limit": 100, "includeTotal": "true"})
    assert page["length"] == 100
    assert page["total"] > 10_000
    assert ycloud.get({**MAY, "page": 101, "limit": 100}).status_code == 400


@pytest.mark.parametrize(
    ("asked", "code", "target"),
    [
        ({"filter.endDate": "2026-05-31"}, "PARAM_MISSING", "filter.startDate"),
        ({"filter.startDate": "2026-05-01"}, "PARAM_MISSING", "filter.endDate"),
        ({**MAY, "filter.startDate": ""}, "PARAM_MISSING", "filter.startDate"),
        ({**MAY, "filter.startDate": "2026-5-1"}, "PARAM_INVALID", "filter.startDate"),
        ({**MAY, "filter.endDate": "2026-05-32"}, "PARAM_INVALID", "filter.endDate"),
        ({**MAY, "filter.endDate": "2026-04-30"}, "PARAM_INVALID", "filter.endDate"),
        ({**MAY, "page": 0}, "PARAM_INVALID", "page"),
        ({**MAY, "page": 101}, "PARAM_INVALID", "page"),
        ({**MAY, "page": "x"}, "PARAM_INVALID", "page"),
        ({**MAY, "limit": 0}, "PARAM_INVALID", "limit"),
        ({**MAY, "limit": 101}, "PARAM_INVALID", "limit"),
        ({**MAY, "limit": "١"}, "PARAM_INVALID", "limit"),
        ({**MAY, "includeTotal": "yes"}, "PARAM_INVALID", "includeTotal"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(ycloud: YCloud, asked: dict[str, Any], code: str, target: str):
    answer = ycloud.get(asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"], error["code"], error["target"]) == (400, 400, code, target)
    assert error["requestId"] == answer.headers["YCloud-Request-ID"]


def test_a_misspelt_parameter_leaves_the_default(ycloud: YCloud):
    assert ycloud.ask({**MAY, "pageSize": 100, "Limit": 100})["limit"] == 10


def test_a_key_must_be_right(ycloud: YCloud):
    for answer in (ycloud.get(MAY, key="wrong"), ycloud.client.get(PATH, params=MAY)):
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "UNAUTHORIZED")
        assert answer.headers["YCloud-Request-ID"]


def test_an_unknown_managed_account_is_forbidden(ycloud: YCloud):
    answer = ycloud.get(MAY, account="acme-nowhere")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_an_error_that_nobody_can_provoke_comes_when_the_sandbox_is_told(ycloud: YCloud, status: int):
    ycloud.client.put("/_sandbox/faults", json={"provider": "ycloud", "statuses": [status]}).raise_for_status()
    assert [ycloud.get(DAY).status_code, ycloud.get(DAY).status_code] == [status, 200]


def test_today_and_yesterday_in_utc_8_are_transient(ycloud: YCloud):
    ycloud.world.clock.set(datetime(2026, 5, 20, 16, 30, tzinfo=UTC))  # half past midnight of the 21st in UTC+8
    transient = {item["date"]: item["isTransient"] for item in ycloud.items(MAY)}
    assert max(transient) == "2026-05-21"
    assert {date for date, still in transient.items() if still} == {"2026-05-20", "2026-05-21"}


def test_a_final_day_is_not_the_transient_one(ycloud: YCloud):
    moved = 0
    for day in range(1, 29):
        window = {"filter.startDate": f"2026-05-{day:02}", "filter.endDate": f"2026-05-{day:02}"}
        states = []
        for later in (0, 1, 2, 9):
            ycloud.world.clock.set(datetime.fromisoformat(f"2026-05-{day:02}T20:00+08:00") + timedelta(days=later))
            states.append({key(item): item["costItems"] for item in ycloud.items(window)})
        today, yesterday, final, much_later = states
        assert sum(costs([{"costItems": each} for each in today.values()])) < sum(
            costs([{"costItems": each} for each in yesterday.values()])
        )
        assert yesterday != final
        assert final == much_later
        moved += len(set(yesterday) - set(final))
    assert moved > 5  # items whose region is another when they are final: an upsert would keep both


def test_a_waba_leaves_the_other_channels_out(ycloud: YCloud):
    whole = ycloud.items(MAY)
    waba = "104857600000002"
    assert ycloud.items({**MAY, "filter.wabaId": waba}) == [item for item in whole if item.get("wabaId") == waba]
    assert ycloud.items({**MAY, "filter.wabaId": "no such"}) == []


def test_every_documented_value_is_there(ycloud: YCloud):
    items = ycloud.items(MAY)
    assert {item["channel"] for item in items} == {"whatsapp", "sms", "voice", "email"}
    origins = {cost.get("conversationOriginType") for item in items for cost in item["costItems"]}
    assert origins == {"authentication", "authentication_international", "marketing", "utility", "service", None}
    for item in items:
        whatsapp = item["channel"] == "whatsapp"
        assert ("wabaId" in item) == whatsapp
        assert all(("conversationOriginType" in cost) == whatsapp for cost in item["costItems"])
        assert all(isinstance(cost["quantity"], int) and cost["quantity"] > 0 for cost in item["costItems"])
        assert len(item.get("regionCode", "XX")) == 2
    assert any("regionCode" not in item for item in items)
    assert 0 in costs(items)


def test_the_unit_price_is_an_average_and_not_the_way_to_the_cost(ycloud: YCloud):
    wrong = 0
    for item in ycloud.items(MAY):
        for cost in item["costItems"]:
            difference = abs(cost["unitPrice"] * cost["quantity"] - cost["cost"])
            assert difference <= Decimal("0.000001") * cost["quantity"]
            wrong += difference > 0
    assert wrong


def test_nothing_has_a_date_in_the_future(ycloud: YCloud):
    assert ycloud.items({"filter.startDate": "2026-06-11", "filter.endDate": "2026-12-31"}) == []
