"""The sandbox's switch for faults, and the tables of them in README.md and docs/faults.md."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.faults import KNOWN
from billing_pipeline.sandbox.world import World

from .fault_matrix import CASES, PAGES, written


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with running(world=World()) as address, httpx.Client(base_url=address) as client:
        yield client


def test_the_tables_in_readme_and_docs_are_those_of_the_tests() -> None:
    for page in PAGES:
        assert written(page) == page.read_text(), f"{page.name} is out of date: type `make faults`"


def test_every_fault_that_the_sandbox_knows_is_tried() -> None:
    assert {case.fault for case in CASES} | {fault for case in CASES for fault in case.beside} == set(KNOWN)


def test_a_person_sees_what_there_is_and_what_is_on_and_takes_it_back(client: httpx.Client) -> None:
    assert client.get("/_sandbox/faults").json() == {"on": [], "known": KNOWN}
    on = client.put("/_sandbox/faults", json={"provider": "plivo", "fault": "503", "after": 1}).json()["on"]
    assert [(each["fault"], each["times"], each["hits"]) for each in on] == [("503", 1, 0)]
    asked = [client.get("/plivo/v1/Account/x/UsageSummary/").status_code for _ in range(3)]
    assert asked == [401, 503, 401]
    assert client.get("/_sandbox/faults").json()["on"][0]["hits"] == 1
    assert client.put("/_sandbox/faults", json={"provider": "plivo", "fault": None}).json()["on"] == []


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"provider": "plivo", "fault": "503s"}, "no fault '503s'; there are: 429,"),
        ({"provider": "twilio", "fault": "503"}, "no provider 'twilio'; there are: infobip, plivo"),
        ({"provider": "plivo", "fault": "503", "time": 2}, "unknown field `time`"),
        ({"fault": "503"}, "missing required field `provider`"),
    ],
)
def test_an_order_that_is_none_is_refused_with_what_there_is(
    client: httpx.Client, order: dict[str, object], said: str
) -> None:
    refused = client.put("/_sandbox/faults", json=order)
    assert refused.status_code == 400
    assert said in refused.json()["error"]


def test_a_fault_of_one_provider_is_none_of_another(client: httpx.Client) -> None:
    client.put("/_sandbox/faults", json={"provider": "plivo", "fault": "503", "times": 0})
    assert client.get("/ycloud/v2/billing/usageDetails").status_code == 401
    assert client.get("/plivo/v1/Account/x/UsageSummary/").status_code == 503
