"""The sandbox's Talkdesk: what its documents promise, over real sockets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest

from billing_pipeline.sandbox import talkdesk
from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.world import Clock, World

BASIC = ("sandbox-talkdesk-client", "sandbox-talkdesk-secret")
TYPES = (
    "AMD", "API_REQUEST", "CALL", "CALL_SERVICE", "CREDIT_COMMIT", "DIALER", "MESSAGE", "NUMBER", "PRODUCT_SERVICE",
    "RECHARGE", "SPEECH_TRANSCRIPTION", "VOICEMAIL_TRANSCRIPTION", "OTHER",
)  # fmt: skip
MOMENTS = (
    "2026-05-15T10:00",
    "2026-06-01T00:00",
    "2026-06-03T13:00",
    "2026-06-04T23:50",
    "2026-06-05T00:10",
    "2026-11-21T08:30",
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
def world() -> World:
    return World(Clock(utc("2026-06-10T06:00")))


@pytest.fixture
def api(world: World) -> Iterator[httpx.Client]:
    with running(world=world) as base, httpx.Client(base_url=f"{base}/talkdesk") as client:
        yield client


def read(answer: httpx.Response) -> Any:
    """JSON whose numbers are Decimals, digit for digit."""
    return answer.json(parse_float=Decimal, parse_int=Decimal)


def token(api: httpx.Client, **form: str) -> str:
    answer = api.post("/oauth/token", auth=BASIC, data={"grant_type": "client_credentials"} | form)
    assert answer.status_code == 200
    return str(answer.json()["access_token"])


def get(api: httpx.Client, bearer: str, url: str = "/express/usage/month") -> httpx.Response:
    return api.get(url, headers={"Authorization": f"Bearer {bearer}"})


def walk(api: httpx.Client) -> list[dict[str, Any]]:
    """All rows, by following `_links.next`."""
    rows: list[dict[str, Any]] = []
    answer = read(get(api, bearer := token(api)))
    while True:
        rows += answer["_embedded"]["usage"]
        if "next" not in answer["_links"]:
            return rows
        answer = read(get(api, bearer, answer["_links"]["next"]["href"]))


def summed(rows: list[dict[str, Any]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["currency"]] = sums.get(row["currency"], Decimal(0)) + row["total_amount"]
    return sums


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_served_adds_up_to_the_sandboxs_own_totals(api: httpx.Client, world: World, moment: str) -> None:
    world.clock.set(utc(moment))
    rows = walk(api)

    months = sorted({row["month"] for row in rows})
    assert len(months) == 12
    assert months[-1] == moment[:7]
    for month in months:
        served = [row for row in rows if row["month"] == month]
        stated = totals(world, "talkdesk", "main", month)
        assert len(served) == stated["rows"]
        assert summed(served) == {currency: Decimal(amount) for currency, amount in stated["totals"].items()}


def test_pages_hold_fifty_and_only_the_last_has_no_next(api: httpx.Client) -> None:
    first = read(get(api, bearer := token(api)))
    assert (first["count"], first["page"], first["per_page"]) == (50, 1, 50)
    assert first["total_pages"] == -(-int(first["total"]) // 50) <= 15
    assert "prev" not in first["_links"]
    assert first["_links"].items() <= {name: first.get(name) for name in first}.items()

    last = read(get(api, bearer, first["_links"]["last"]["href"]))
    assert last["count"] == len(last["_embedded"]["usage"]) == (first["total"] - 1) % 50 + 1
    assert "next" not in last["_links"]
    assert "next" not in last
    assert last["_links"]["self"] == first["_links"]["last"]
    assert str(api.base_url) + "express/usage/month?page=2" == first["_links"]["next"]["href"]


def test_rows_come_newest_month_first_and_have_all_documented_fields_and_values(api: httpx.Client) -> None:
    rows = walk(api)
    months = [row["month"] for row in rows]
    assert months == sorted(months, reverse=True)
    assert {row["type"] for row in rows} == set(TYPES)
    assert {row["direction"] for row in rows} == {"INBOUND", "OUTBOUND", "OTHER", None}
    assert {row["resolution"] for row in rows} == {
        *("ABANDONED", "ANSWERED", "MACHINE", "MISSED", "VOICEMAIL", "OTHER"),
        None,
    }
    assert {row["unit"] for row in rows} == {
        "CHARS",
        "CONVERSATIONS",
        "GB",
        "MINUTES",
        "NUMBERS",
        "PAGES",
        "REQUESTS",
        "SECONDS",
        "SEGMENTS",
        "SESSIONS",
        "OTHER",
    }
    assert {row["currency"] for row in rows} == {"USD", "EUR"}
    assert all(re.fullmatch("[0-9a-f]{32}", row["id"]) for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_the_account_is_spelled_both_ways_and_never_missing(api: httpx.Client) -> None:
    rows = walk(api)
    assert {row.get("account_id") or row["account ID"] for row in rows} == set(talkdesk.ORGANIZATION)
    assert all(("account_id" in row) != ("account ID" in row) for row in rows)
    assert len(rows) * 0.4 < sum("account ID" in row for row in rows) < len(rows) * 0.6


def test_a_token_lives_ten_minutes_of_the_sandboxs_clock(api: httpx.Client, world: World) -> None:
    bearer = token(api, scope="express-accounts-usage:read")
    world.clock.set(world.now() + timedelta(seconds=599))
    assert get(api, bearer).status_code == 200
    world.clock.set(world.now() + timedelta(seconds=1))
    expired = get(api, bearer)
    assert expired.status_code == 401
    assert {"code", "message"} <= expired.json().keys()
    assert get(api, token(api)).status_code == 200


def test_a_token_says_its_type_life_and_scope(api: httpx.Client) -> None:
    form = {"grant_type": "client_credentials", "scope": "express-accounts-usage:read"}
    answer = api.post("/oauth/token", auth=BASIC, data=form).json()
    assert answer.pop("access_token") != token(api)
    assert answer == {"token_type": "Bearer", "expires_in": 600, "scope": "express-accounts-usage:read"}


@pytest.mark.parametrize(
    ("auth", "form", "status", "error"),
    [
        (("sandbox-talkdesk-client", "wrong"), {"grant_type": "client_credentials"}, 401, "invalid_client"),
        (None, {"grant_type": "client_credentials"}, 401, "invalid_client"),
        (BASIC, {"scope": "express-accounts-usage:read"}, 400, "invalid_request"),
        (BASIC, {"grant_type": "password"}, 400, "unsupported_grant_type"),
        (BASIC, {"grant_type": "client_credentials", "scope": "users:write"}, 400, "invalid_scope"),
    ],
)
def test_the_token_endpoint_refuses_in_its_own_shape(
    api: httpx.Client, auth: tuple[str, str] | None, form: dict[str, str], status: int, error: str
) -> None:
    answer = api.post("/oauth/token", auth=auth, data=form)
    assert (answer.status_code, answer.json()["error"]) == (status, error)
    assert answer.json()["error_description"]


def test_calls_without_token_scope_or_sense_are_refused(api: httpx.Client) -> None:
    bearer = token(api)
    narrow = token(api, scope="express-accounts:read")
    answers = [
        api.get("/express/usage/month"),
        get(api, "made-up"),
        get(api, narrow),
        get(api, bearer, "/express/usage/month?account_id=000000000000000000000000"),
        get(api, bearer, "/express/usage/month?page=0"),
        get(api, bearer, "/express/usage/month?per_page=51"),
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 403, 403, 400, 400]
    for answer in answers:
        assert {"code", "message", "fields"} <= answer.json().keys()


def test_the_organization_can_be_narrowed_to_an_account_and_links_keep_that(api: httpx.Client) -> None:
    account = talkdesk.ORGANIZATION[2]
    answer = read(get(api, token(api), f"/express/usage/month?account_id={account}"))
    assert {row["currency"] for row in answer["_embedded"]["usage"]} == {"EUR"}
    assert f"account_id={account}" in answer["_links"]["next"]["href"]


def may(world: World, moment: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in talkdesk.charges(world, "main", "2026-05", utc(moment))}


def test_the_current_month_grows_from_day_to_day(world: World) -> None:
    days = [sum(row["amount"] for row in may(world, f"2026-05-{day:02}T12:00").values()) for day in range(1, 32)]
    assert days == sorted(days)
    assert len(set(days)) == len(days)


def test_late_rows_come_until_the_third_and_one_is_merged_on_the_second(world: World) -> None:
    ended, second, third = (may(world, f"2026-06-{moment}") for moment in ("01T00:00", "02T13:00", "03T07:00"))
    assert [row["description"] for key, row in ended.items() if key not in second] == [talkdesk.MERGES]
    late = [row["description"] for key, row in third.items() if key not in ended]
    assert sorted(late) == [
        "Call Transcription",
        "Outbound Minutes - France",
        "Outbound Minutes - Mexico",
        "Voicemail Transcription",
        "WhatsApp Conversations",
    ]
    merged = sum(row["amount"] for key, row in ended.items() if key not in second)
    grown = {key: second[key]["amount"] - ended[key]["amount"] for key in ended.keys() & second.keys()}
    assert [amount for amount in grown.values() if amount] == [merged]


def test_a_discount_reprices_outbound_calls_on_the_fourth(world: World) -> None:
    before, after = may(world, "2026-06-04T14:59"), may(world, "2026-06-04T15:00")
    changed = [row for key, row in after.items() if row != before[key]]
    assert {(row["type"], row["direction"]) for row in changed} == {("CALL", "OUTBOUND")}
    assert {row["currency"] for row in changed} == {"USD", "EUR"}
    assert all(row["amount"] < before[row["id"]]["amount"] for row in changed)


def test_nothing_changes_from_the_fifth(world: World) -> None:
    settled = may(world, "2026-06-05T00:00")
    assert settled == may(world, "2026-06-05T00:10") == may(world, "2027-03-01T00:00")
    assert settled == {row["id"]: row for row in talkdesk.charges(World(), "main", "2026-05", utc("2026-08-01T00:00"))}


def test_nothing_is_billed_before_the_month_or_the_company_began(world: World) -> None:
    assert totals(world, "talkdesk", "main", "2026-05", utc("2026-04-30T23:59")) == {"rows": 0, "totals": {}}
    assert totals(world, "talkdesk", "main", "2024-12") == {"rows": 0, "totals": {}}


def test_amounts_travel_as_json_numbers_with_their_own_digits(api: httpx.Client) -> None:
    body = get(api, token(api)).content
    amounts = re.findall(rb'"total_amount":([^,}]+)', body)
    assert all(re.fullmatch(rb"-?\d+(\.\d{2,5})?", amount) for amount in amounts)
    assert {len(amount.partition(b".")[2]) for amount in amounts} >= {2, 3, 4, 5}


@pytest.mark.parametrize("scale", [0.2, 3])
def test_scale_multiplies_the_rows(world: World, scale: float) -> None:
    middling = totals(world, "talkdesk", "main", "2026-05")["rows"]
    world.scale = scale
    assert abs(totals(world, "talkdesk", "main", "2026-05")["rows"] - middling * scale) <= 2
    assert len(may(world, "2026-06-10T06:00")) == totals(world, "talkdesk", "main", "2026-05")["rows"]


def test_an_answer_can_be_told_to_fail_once(api: httpx.Client, world: World) -> None:
    world.fail("talkdesk", [503])
    bearer = token(api)
    assert [get(api, bearer).status_code for _ in range(2)] == [503, 200]
    assert [(request.account, request.method) for request in world.requests("talkdesk")] == [
        ("main", "POST"),
        ("main", "GET"),
        ("main", "GET"),
    ]
    assert msgspec.json.decode(get(api, bearer).content)["page"] == 1
