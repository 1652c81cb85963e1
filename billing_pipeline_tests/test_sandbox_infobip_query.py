"""What the sandbox's Infobip refuses, and how it says so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import httpx
import pytest

from billing_pipeline.sandbox import infobip
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

KEY = "sandbox-infobip-key"
MAY = {"sentSince": "2026-05-01", "sentUntil": "2026-06-01"}
GOOD: dict[str, Any] = {"filterBy": {"dateInterval": MAY}, "aggregateBy": ["DAY"]}


class Asking(NamedTuple):
    """A client of the sandbox; no answer of its queries is awaited."""

    api: httpx.Client
    world: World

    def post(self, request: dict[str, Any], key: str = KEY, **more: Any) -> httpx.Response:
        body = {"callbackUrl": "http://127.0.0.1:9/", "request": request} | more
        return self.api.post("/billing/1/usage/query", json=body, headers={"Authorization": f"App {key}"})


@pytest.fixture
def asking() -> Iterator[Asking]:
    world = World(Clock(datetime(2026, 6, 10, 6, tzinfo=UTC)))
    world.infobip_delay = 3600  # type: ignore[attr-defined]
    with running(world=world) as base, httpx.Client(base_url=f"{base}/infobip", timeout=20) as api:
        yield Asking(api, world)


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"callbackUrl": None}, "callbackUrl"),
        ({"callbackUrl": "nowhere"}, "callbackUrl"),
        ({"request": None}, "request"),
        ({"request": {"aggregateBy": ["DAY"]}}, "request.filterBy"),
        ({"request": GOOD | {"filterBy": {}}}, "request.filterBy.dateInterval"),
        ({"request": GOOD | {"aggregateBy": []}}, "request.aggregateBy"),
        ({"request": {"filterBy": GOOD["filterBy"]}}, "request.aggregateBy"),
        ({"request": GOOD | {"aggregateBy": ["DAY", "CAMPAIGN_REFERENCE_ID"]}}, "request.aggregateBy[1]"),
        ({"request": GOOD | {"aggregateBy": ["DAY", "DAY"]}}, "request.aggregateBy[1]"),
        ({"request": GOOD | {"options": {"includeUnfinalizedData": "no"}}}, "request.options.includeUnfinalizedData"),
        (
            {"request": GOOD | {"filterBy": {"dateInterval": MAY, "directions": ["BOTH"]}}},
            "request.filterBy.directions[0]",
        ),
        (
            {"request": GOOD | {"filterBy": {"dateInterval": MAY, "campaignIds": ["1"]}}},
            "request.filterBy.campaignIds[0]",
        ),
    ],
)
def test_what_is_wrong_with_a_query_is_named(asking: Asking, body: dict[str, Any], where: str) -> None:
    answer = asking.post(**({"request": GOOD} | body))
    told = answer.json()
    assert (answer.status_code, told["errorCode"]) == (400, "E400")
    assert told.keys() == {"errorCode", "description", "action", "violations", "resources"}
    assert where in [each["property"] for each in told["violations"]]
    assert all(each["violation"] for each in told["violations"])


@pytest.mark.parametrize(
    ("since", "until", "status"),
    [
        ("2026-04-01", "2026-07-01", 201),
        ("2026-04-01", "2026-07-02", 400),
        ("2026-03-31", "2026-05-01", 400),
        ("2026-05-02", "2026-05-02", 400),
        ("2026-05-02", "2026-05-01", 400),
        ("2026-5-1", "2026-06-01", 400),
        ("20260501", "2026-06-01", 400),
        ("2026-05-01T00:00:00Z", "2026-06-01", 400),
    ],
)
def test_intervals_are_three_months_at_most_and_within_retention(
    asking: Asking, since: str, until: str, status: int
) -> None:
    interval = {"sentSince": since, "sentUntil": until}
    answer = asking.post({"filterBy": {"dateInterval": interval}, "aggregateBy": ["MONTH"]})
    assert answer.status_code == status, answer.text


def test_bad_keys_scopes_and_outages_are_told_in_the_documented_shape(asking: Asking) -> None:
    asking.world.fail("infobip", [500])
    told = [asking.post(GOOD), asking.post(GOOD, key="wrong"), asking.post(GOOD, key=infobip.UNSCOPED_KEY)]
    told.append(asking.api.post("/billing/1/usage/query", content=b"{", headers={"Authorization": f"App {KEY}"}))
    told.append(asking.api.post("/billing/1/usage/query", json={}, headers={"Authorization": f"Bearer {KEY}"}))
    assert [answer.json()["errorCode"] for answer in told] == ["E500", "E401", "E403", "E400", "E401"]
    for answer in told:
        assert answer.json()["errorCode"] == f"E{answer.status_code}"
        assert answer.json().keys() == {"errorCode", "description", "action", "violations", "resources"}
    assert [request.account for request in asking.world.requests("infobip")] == ["main", "", "main", "main", ""]
