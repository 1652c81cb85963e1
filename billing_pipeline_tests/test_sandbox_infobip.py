"""The sandbox's Infobip: what its documents promise, over real sockets, callback included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from queue import Empty, Queue
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline.sandbox import infobip
from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.infobip_query import DIMENSIONS
from billing_pipeline.sandbox.world import Clock, World

DECODER = msgspec.json.Decoder(float_hook=Decimal)
KEY = "sandbox-infobip-key"
EVERYTHING = [name for name in DIMENSIONS if name != "MONTH"]
COSTS = ["UNIT_TYPE", "UNIT_PRICE", "QUANTITY", "TOTAL_PER_UNIT", "CURRENCY"]
MAY = {"sentSince": "2026-05-01", "sentUntil": "2026-06-01"}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Answers(NamedTuple):
    """A client of the sandbox, and the receiver its callbacks go to."""

    api: httpx.Client
    world: World
    address: str
    letters: Queue[bytes]

    def post(self, request: dict[str, Any], key: str = KEY, **more: Any) -> httpx.Response:
        body = {"callbackUrl": self.address, "request": request} | more
        return self.api.post("/billing/1/usage/query", json=body, headers={"Authorization": f"App {key}"})

    def ask(self, dimensions: list[str], interval: dict[str, str] = MAY, key: str = KEY, **more: Any) -> dict[str, Any]:
        """The callback's body, numbers as Decimals digit for digit."""
        filters = {"dateInterval": interval} | more.pop("filters", {})
        answer = self.post({"filterBy": filters, "aggregateBy": dimensions} | more, key)
        assert answer.status_code == 201, answer.text
        letter = DECODER.decode(self.letters.get(timeout=20))
        assert letter["requestId"] == answer.json()["requestId"]
        return dict(letter)


@pytest.fixture
def answers(httpserver: HTTPServer) -> Iterator[Answers]:
    letters: Queue[bytes] = Queue()

    def take(request: Request) -> Response:
        assert request.headers["Content-Type"] == "application/json"
        letters.put(request.get_data())
        return Response(status=200)

    httpserver.expect_request("/callback/token", method="POST").respond_with_handler(take)
    world = World(Clock(utc("2026-06-10T06:00")))
    world.infobip_delay = 0  # type: ignore[attr-defined]
    world.enforce_limits = False
    with running(world=world) as base, httpx.Client(base_url=f"{base}/infobip", timeout=20) as api:
        yield Answers(api, world, httpserver.url_for("/callback/token"), letters)


def rows(letter: dict[str, Any]) -> list[dict[str, Any]]:
    response = letter["response"]
    names = [column["columnName"] for column in response["columns"]]
    assert response["totalRows"] == len(response["rows"])
    return [dict(zip(names, row, strict=True)) for row in response["rows"]]


def summed(served: list[dict[str, Any]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for row in served:
        sums[row["CURRENCY"]] = sums.get(row["CURRENCY"], Decimal(0)) + row["TOTAL_PER_UNIT"]
    return sums


def own(world: World, period: str = "2026-05") -> dict[str, Decimal]:
    stated = totals(world, "infobip", "main", period)["totals"]
    return {currency: Decimal(amount) for currency, amount in stated.items()}


@pytest.mark.parametrize("moment", [
    "2026-05-15T10:00", "2026-06-01T00:00", "2026-06-03T08:59", "2026-06-03T13:00", "2026-06-04T23:50",
    "2026-06-05T00:10", "2026-07-31T23:00",
])  # fmt: skip
def test_what_is_served_adds_up_to_the_sandboxs_own_totals(answers: Answers, moment: str) -> None:
    answers.world.clock.set(utc(moment))
    served = rows(answers.ask(EVERYTHING))
    assert summed(served) == own(answers.world)
    assert len(served) == totals(answers.world, "infobip", "main", "2026-05")["rows"]
    assert 40 * int(served[-1]["DAY"][-2:]) <= len(served) <= 65 * int(served[-1]["DAY"][-2:])


@pytest.mark.parametrize("dimensions", [
    ["DAY"], ["MONTH"], ["COUNTRY_NAME"], ["ACCOUNT_KEY", "CATEGORY_NAME"], ["SENDER", "DAY", "NETWORK_NAME"],
])  # fmt: skip
def test_every_grouping_holds_the_same_money_in_one_row_a_combination(answers: Answers, dimensions: list[str]) -> None:
    served = rows(answers.ask(dimensions))
    assert summed(served) == own(answers.world)
    keys = [tuple(value for name, value in row.items() if name not in ("QUANTITY", "TOTAL_PER_UNIT")) for row in served]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        (["DAY"], ["ACCOUNT_NAME", "CATEGORY_CODE", "DAY"]),
        (["ACCOUNT_KEY", "DAY"], ["CATEGORY_CODE", "ACCOUNT_KEY", "DAY"]),
        (["ACCOUNT_NAME", "CATEGORY_NAME", "DAY"], ["ACCOUNT_NAME", "CATEGORY_NAME", "DAY"]),
        (["ACCOUNT_KEY", "CATEGORY_NAME", "DAY"], ["ACCOUNT_KEY", "CATEGORY_NAME", "DAY"]),
    ],
)
def test_the_documented_defaults_are_prepended(answers: Answers, asked: list[str], columns: list[str]) -> None:
    served = answers.ask(asked)["response"]["columns"]
    assert [column["columnName"] for column in served] == columns + COSTS
    kinds = {column["columnName"]: column["columnDataType"] for column in served}
    assert [kinds[name] for name in COSTS] == ["STRING", "NUMBER", "NUMBER", "NUMBER", "STRING"]


def test_the_callback_has_the_shape_of_the_documented_example(answers: Answers) -> None:
    letter = answers.ask(["COUNTRY_NAME"])
    midnights = {"sentSince": "2026-05-01T00:00:00.000+0000", "sentUntil": "2026-06-01T00:00:00.000+0000"}
    assert re.fullmatch("[0-9A-F]{32}", letter["requestId"])
    assert letter["status"] == "SUCCESS"
    assert letter["response"]["requestedPeriod"] == midnights
    assert letter["metadata"] == {
        "clientRequestedPeriod": midnights,
        "billingPeriods": [{"month": "2026-05", "volumeFinalized": True}],
    }
    assert letter.keys() == {"requestId", "status", "response", "metadata"}
    assert letter["response"].keys() == {"requestedPeriod", "totalRows", "columns", "rows"}


def test_a_callback_is_delivered_once_even_if_it_is_refused(answers: Answers, httpserver: HTTPServer) -> None:
    httpserver.clear()
    refused: Queue[bytes] = Queue()

    def refuse(request: Request) -> Response:
        refused.put(request.get_data())
        return Response(status=500)

    httpserver.expect_request("/callback/token").respond_with_handler(refuse)
    first = answers.post({"filterBy": {"dateInterval": MAY}, "aggregateBy": ["MONTH"]}).json()["requestId"]
    assert first.encode() in refused.get(timeout=20)
    second = answers.post({"filterBy": {"dateInterval": MAY}, "aggregateBy": ["MONTH"]}).json()["requestId"]
    assert second.encode() in refused.get(timeout=20)
    with pytest.raises(Empty):
        refused.get_nowait()


def test_a_failed_query_says_so_in_its_callback(
    answers: Answers,
) -> None:
    base = str(answers.api.base_url).removesuffix("infobip/")
    assert httpx.put(f"{base}_sandbox/infobip", json={"failure": "Could not load data"}).json()["failure"]
    letter = answers.ask(["DAY"])
    assert letter | {"requestId": ""} == {"requestId": "", "status": "FAILED", "failureMessage": "Could not load data"}
    assert httpx.put(f"{base}_sandbox/infobip", json={"failure": None}).json()["failure"] is None
    assert answers.ask(["DAY"])["status"] == "SUCCESS"
    assert httpx.put(f"{base}_sandbox/infobip", json={"no such": 1}).status_code == 400


def test_all_categories_kinds_and_currencies_occur_and_what_a_channel_lacks_is_not_available(answers: Answers) -> None:
    served = rows(answers.ask(EVERYTHING))
    seen = {name: {row[name] for row in served} for name in served[0]}
    assert len(seen["CATEGORY_CODE"]) == 15
    assert seen["CATEGORY_CODE"] >= {"SMS", "SMS_OPERATOR_FEE", "MMS_OPERATOR_FEE", "APPLE_MB", "AI"}
    assert seen["CURRENCY"] == {"EUR", "USD"}
    assert seen["DIRECTION"] == {"INBOUND", "OUTBOUND"}
    assert seen["UNIT_TYPE"] == {"message part", "message", "session", "minute", "monthly active user"}
    assert len(seen["ACCOUNT_KEY"]) == 3
    assert len(seen["TRAFFIC_TYPE"]) >= 8
    assert len(seen["SENDER_TYPE"]) >= 6
    assert {row["NETWORK_NAME"] for row in served if row["CATEGORY_CODE"] == "EMAIL"} == {"N/A"}
    assert {row["TEMPLATE_ID"] for row in served if row["CATEGORY_CODE"] == "SMS"} == {"N/A"}
    assert {row["COUNTRY_CODE"] for row in served if row["CATEGORY_CODE"].endswith("OPERATOR_FEE")} == {"US"}
    assert {type(value) for value in seen["CAMPAIGN_ID"]} == {int, str}
    assert all(re.fullmatch(r"2026-05-\d\d", day) for day in seen["DAY"])


def test_a_rows_total_is_rounded_half_up_and_is_not_always_price_times_quantity(answers: Answers) -> None:
    served = rows(answers.ask(EVERYTHING))
    differences = {row["TOTAL_PER_UNIT"] - row["UNIT_PRICE"] * row["QUANTITY"] for row in served}
    assert max(abs(difference) for difference in differences) <= Decimal("0.005")
    assert len(differences) > 10
    assert any(row["QUANTITY"] % 1 for row in served)


def test_filters_narrow_what_is_served(answers: Answers) -> None:
    filters: dict[str, list[Any]] = {
        "categories": ["SMS"],
        "accountKeys": [list(infobip.HIERARCHY)[1]],
        "countryCodes": ["US"],
        "directions": ["OUTBOUND"],
        "trafficTypes": ["MARKETING"],
        "senderTypes": ["TOLL_FREE_NUMBER"],
        "campaignIds": [492031],
        "platforms": [{"applicationId": "crm", "entityId": "us"}, {"applicationId": "none"}],
    }
    served = rows(answers.ask(EVERYTHING, filters=filters))
    expected = [
        row for row in rows(answers.ask(EVERYTHING))
        if row["CATEGORY_CODE"] == "SMS" and row["SENDER_TYPE"] == "TOLL_FREE_NUMBER"
    ]  # fmt: skip
    assert served == expected != []
    assert rows(answers.ask(["DAY"], filters={"countryCodes": ["NZ"]})) == []


def test_a_sub_account_user_sees_only_its_own(answers: Answers) -> None:
    served = rows(answers.ask(EVERYTHING, key=infobip.SUBACCOUNT_KEY))
    assert {row["ACCOUNT_NAME"] for row in served} == {"Acme Retail LatAm S.A."}


@pytest.mark.parametrize("inclusive", [False, True])
def test_the_end_of_the_interval_is_exclusive_unless_switched(answers: Answers, inclusive: bool) -> None:
    answers.world.infobip_inclusive = inclusive  # type: ignore[attr-defined]
    letter = answers.ask(["DAY"])
    assert max(row["DAY"] for row in rows(letter)) == ("2026-06-01" if inclusive else "2026-05-31")
    months = [period["month"] for period in letter["metadata"]["billingPeriods"]]
    assert months == (["2026-05", "2026-06"] if inclusive else ["2026-05"])
    assert letter["response"]["requestedPeriod"] == letter["metadata"]["clientRequestedPeriod"]


@pytest.mark.parametrize("inclusive", [False, True])
def test_unfinalized_months_are_trimmed_on_demand(answers: Answers, inclusive: bool) -> None:
    answers.world.infobip_inclusive = inclusive  # type: ignore[attr-defined]
    interval = {"sentSince": "2026-04-15", "sentUntil": "2026-06-30"}
    letter = answers.ask(["DAY"], interval, options={"includeUnfinalizedData": False})
    assert letter["response"]["requestedPeriod"] == {
        "sentSince": "2026-04-15T00:00:00.000+0000",
        "sentUntil": f"2026-{'05-31' if inclusive else '06-01'}T00:00:00.000+0000",
    }
    assert letter["metadata"]["clientRequestedPeriod"]["sentUntil"] == "2026-06-30T00:00:00.000+0000"
    assert [(each["month"], each["volumeFinalized"]) for each in letter["metadata"]["billingPeriods"]] == [
        ("2026-04", True),
        ("2026-05", True),
        ("2026-06", False),
    ]
    days = [row["DAY"] for row in rows(letter)]
    assert (min(days), max(days)) == ("2026-04-15", "2026-05-31")


def test_nothing_final_yet_is_an_empty_period_not_a_free_month(answers: Answers) -> None:
    june = {"sentSince": "2026-06-01", "sentUntil": "2026-07-01"}
    letter = answers.ask(["DAY"], june, options={"includeUnfinalizedData": False})
    assert len(set(letter["response"]["requestedPeriod"].values())) == 1
    assert rows(letter) == []
    assert rows(answers.ask(["DAY"], june)) != []


def test_a_period_asked_by_month_is_widened_to_whole_months(answers: Answers) -> None:
    interval = {"sentSince": "2026-05-10", "sentUntil": "2026-05-12"}
    letter = answers.ask(["MONTH"], interval)
    assert summed(rows(letter)) == own(answers.world)
    assert letter["response"]["requestedPeriod"]["sentUntil"] == "2026-06-01T00:00:00.000+0000"
    assert letter["metadata"]["clientRequestedPeriod"]["sentUntil"] == "2026-05-12T00:00:00.000+0000"
    assert {row["MONTH"] for row in rows(letter)} == {"2026-05"}


def test_days_can_be_spelled_as_instants(answers: Answers) -> None:
    answers.world.infobip_date_times = True  # type: ignore[attr-defined]
    assert rows(answers.ask(["DAY"]))[0]["DAY"] == "2026-05-01T00:00:00.000+0000"


@pytest.mark.parametrize(
    ("moment", "late", "final"),
    [
        ("06-04T23:59", False, False),
        ("06-05T00:00", False, True),
        ("06-06T23:59", True, False),
        ("06-07T00:00", True, True),
    ],
)
def test_the_flag_turns_true_on_the_fifth_or_later(answers: Answers, moment: str, late: bool, final: bool) -> None:
    answers.world.clock.set(utc(f"2026-{moment}"))
    answers.world.infobip_late_flag = late  # type: ignore[attr-defined]
    assert answers.ask(["DAY"])["metadata"]["billingPeriods"] == [{"month": "2026-05", "volumeFinalized": final}]


def test_a_letter_holds_the_state_of_the_instant_it_was_asked_for(answers: Answers) -> None:
    answers.world.clock.set(utc("2026-06-04T23:59"))
    answers.world.infobip_delay = 0.2  # type: ignore[attr-defined]
    answers.post({"filterBy": {"dateInterval": MAY}, "aggregateBy": ["DAY"]})
    answers.world.clock.set(utc("2026-06-05T00:01"))
    letter = msgspec.json.decode(answers.letters.get(timeout=20))
    assert letter["metadata"]["billingPeriods"] == [{"month": "2026-05", "volumeFinalized": False}]
