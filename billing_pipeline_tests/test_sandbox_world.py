"""The invented company and the admin paths."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest

from billing_pipeline.sandbox import plivo, ycloud
from billing_pipeline.sandbox.app import running, serve, totals
from billing_pipeline.sandbox.world import COUNTRIES, SINCE, Clock, World, pace

ACCOUNTS = [("plivo", name) for name in plivo.ACCOUNTS] + [("ycloud", name) for name in ycloud.ACCOUNTS]


@pytest.fixture
def world() -> World:
    return World(Clock(datetime(2026, 6, 10, 6, tzinfo=UTC)))


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with running(world=world) as address, httpx.Client(base_url=address) as client:
        yield client


def test_a_clock_stands_where_it_is_put_and_runs_again():
    clock = Clock(datetime(2026, 6, 10, 8, tzinfo=UTC))
    assert clock.now() == clock.now() == datetime(2026, 6, 10, 8, tzinfo=UTC)
    clock.set(None)
    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_clock_refuses_a_time_without_a_zone():
    with pytest.raises(ValueError, match="zone"):
        Clock(datetime(2026, 6, 10))  # noqa: DTZ001


def test_chance_falls_the_same_way_for_the_same_seed_and_keys_only():
    draw = World().draw("plivo", "2026-05", 3).getrandbits(64)
    assert draw == World().draw("plivo", "2026-05", 3).getrandbits(64)
    assert draw != World().draw("plivo", "2026-05", 4).getrandbits(64)
    assert draw != World(seed="other").draw("plivo", "2026-05", 3).getrandbits(64)


def test_countries_are_different_and_the_company_grows():
    assert len({country.code for country in COUNTRIES}) == len(COUNTRIES)
    assert pace(SINCE.replace(year=2026)) > pace(SINCE)


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS)
def test_two_worlds_bill_the_same(world: World, provider: str, account: str):
    other = World(Clock(world.now()))
    for period in ("2026-05", "2026-06"):
        assert totals(world, provider, account, period) == totals(other, provider, account, period)


def test_another_process_bills_the_same(world: World):
    program = (
        "from datetime import datetime, UTC\n"
        "from billing_pipeline.sandbox.app import totals\n"
        "from billing_pipeline.sandbox.world import World\n"
        f"for provider, account in {ACCOUNTS!r}:\n"
        "    print(totals(World(), provider, account, '2026-06', datetime(2026, 6, 10, 6, tzinfo=UTC)))\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    here = [str(totals(world, provider, account, "2026-06")) for provider, account in ACCOUNTS]
    assert said.stdout.splitlines() == here


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS)
def test_every_charge_has_an_exact_amount_and_a_currency(world: World, provider: str, account: str):
    module = plivo if provider == "plivo" else ycloud
    charges = list(module.charges(world, account, "2026-05", world.now()))
    assert charges
    assert all(type(charge["amount"]) is Decimal and len(charge["currency"]) == 3 for charge in charges)
    assert any(charge["amount"] == 0 for charge in charges)


@pytest.mark.parametrize(("provider", "account"), ACCOUNTS)
def test_nothing_is_billed_before_the_company_or_after_the_present(world: World, provider: str, account: str):
    for period in ("2024-12", "2026-07"):
        assert totals(world, provider, account, period) == {"rows": 0, "totals": {}}


def test_scale_multiplies_the_rows(world: World):
    rows = totals(world, "plivo", "main", "2026-05")["rows"]
    world.scale = 5.0
    assert 3 * rows < totals(world, "plivo", "main", "2026-05")["rows"] < 6 * rows


def test_a_month_has_the_size_of_a_middling_company(world: World):
    assert 600 <= totals(world, "plivo", "main", "2026-05")["rows"] <= 1000
    assert 250 <= totals(world, "plivo", "emea", "2026-05")["rows"] <= 350


def test_the_totals_are_exact_text(client: httpx.Client, world: World):
    asked = {"provider": "plivo", "account": "main", "period": "2026-05"}
    answer = client.get("/_sandbox/totals", params=asked).json()
    amounts = [charge["amount"] for charge in plivo.charges(world, "main", "2026-05", world.now())]
    assert answer == {"rows": len(amounts), "totals": {"USD": f"{sum(amounts).normalize():f}"}}
    earlier = client.get("/_sandbox/totals", params={**asked, "at": "2026-05-03T12:00:00Z"}).json()
    assert 0 < earlier["rows"] < answer["rows"]


@pytest.mark.parametrize(
    "asked",
    [
        {"provider": "plivo", "account": "nobody", "period": "2026-05"},
        {"provider": "nobody", "account": "main", "period": "2026-05"},
        {"provider": "plivo", "account": "main", "period": "May"},
        {"provider": "plivo", "account": "main", "period": "2026-5"},
        {"provider": "plivo", "account": "main", "period": "2026-05", "at": "2026-05-03T12:00:00"},
        {"provider": "plivo", "account": "main"},
    ],
)
def test_totals_of_nothing_are_refused(client: httpx.Client, asked: dict[str, str]):
    assert client.get("/_sandbox/totals", params=asked).status_code == 400


def test_the_clock_is_set_and_let_go_over_http(client: httpx.Client, world: World):
    assert client.get("/_sandbox/clock").json() == {"now": "2026-06-10T06:00:00+00:00"}
    client.put("/_sandbox/clock", json={"now": "2026-06-04T23:50:00Z"}).raise_for_status()
    assert world.now() == datetime(2026, 6, 4, 23, 50, tzinfo=UTC)
    client.put("/_sandbox/clock", json={"now": None}).raise_for_status()
    assert world.now() > datetime(2026, 6, 11, tzinfo=UTC)


@pytest.mark.parametrize("body", ['{"now": "2026-06-04T23:50:00"}', '{"now": 5}', "{}", "not json", "[]"])
def test_a_clock_that_is_not_understood_is_left_alone(client: httpx.Client, world: World, body: str):
    assert client.put("/_sandbox/clock", content=body).status_code == 400
    assert world.now() == datetime(2026, 6, 10, 6, tzinfo=UTC)


def test_the_scale_is_set_over_http(client: httpx.Client, world: World):
    assert client.put("/_sandbox/scale", json={"scale": 2.5}).json() == {"scale": 2.5}
    assert world.scale == 2.5
    assert client.put("/_sandbox/scale", json={"scale": -1}).status_code == 400
    assert world.scale == 2.5


def test_a_fault_that_is_not_understood_is_refused(client: httpx.Client):
    assert client.put("/_sandbox/faults", json={"provider": "plivo"}).status_code == 400


def test_the_log_says_who_asked_what(client: httpx.Client, world: World):
    client.get("/ycloud/v2/billing/usageDetails?page=1", headers={"X-API-Key": "sandbox-ycloud-key"})
    client.get("/ycloud/v2/billing/usageDetails", headers={"X-API-Key": "wrong"})
    logged = client.get("/_sandbox/requests", params={"provider": "ycloud"}).json()["requests"]
    assert [(each["account"], each["method"]) for each in logged] == [("main", "GET"), ("", "GET")]
    assert logged[0]["path"] == "/ycloud/v2/billing/usageDetails?page=1"
    assert world.requests("plivo") == []


def test_the_accounts_are_the_ones_the_demo_uses(client: httpx.Client):
    accounts = client.get("/_sandbox/accounts").json()
    assert accounts["plivo"]["main"]["auth_id"] == "MAACMERETAILSANDBOX1"
    assert accounts["plivo"]["main"]["auth_token"] == "sandbox-plivo-main-token"
    assert len(accounts["plivo"]["main"]["subaccounts"]) == 3
    assert accounts["plivo"]["emea"]["auth_id"] == "MAACMEEMEASANDBOX002"
    assert accounts["plivo"]["emea"]["auth_token"] == "sandbox-plivo-emea-token"
    assert list(accounts["ycloud"]) == ["main", "acme-mx", "acme-sea"]
    assert {account["api_key"] for account in accounts["ycloud"].values()} == {"sandbox-ycloud-key"}


def test_the_sandbox_listens_on_loopback_only():
    with pytest.raises(ValueError, match="loopback"):
        serve(host="0.0.0.0")  # noqa: S104


def test_two_sandboxes_run_side_by_side():
    with running() as one, running(now=datetime(2026, 6, 1, tzinfo=UTC), scale=2) as two:
        assert httpx.get(f"{two}/_sandbox/clock").json() == {"now": "2026-06-01T00:00:00+00:00"}
        assert httpx.get(f"{one}/_sandbox/scale").json() == {"scale": 1.0}
