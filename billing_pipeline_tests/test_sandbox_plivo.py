"""The stand-in for Plivo answers as https://www.plivo.com/docs/account/api/usage-summary/ says (read 2026-11)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.plivo import ACCOUNTS
from billing_pipeline.sandbox.world import Clock, World
from billing_pipeline_tests.sandbox_plivo_client import MAY, Plivo, spent, usage


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[httpx.Client, World]]:
    world = World(Clock(datetime(2026, 6, 10, 6, tzinfo=UTC)))
    with running(world=world) as address, httpx.Client(base_url=address) as client:
        yield client, world


@pytest.fixture
def plivo(sandbox: tuple[httpx.Client, World]) -> Plivo:
    client, world = sandbox
    world.clock.set(datetime(2026, 6, 10, 6, tzinfo=UTC))
    world.enforce_limits, world.scale = False, 1.0
    return Plivo(client, world)


def test_buckets_are_whole_and_carry_z(plivo: Plivo):
    window = {"from_date": "2026-05-20", "to_date": "2026-06-09"}
    for granularity, buckets in {
        "month": {("2026-05-01", "2026-06-01"), ("2026-06-01", "2026-07-01")},
        "year": {("2026-01-01", "2027-01-01")},
    }.items():
        rows = usage(plivo.walk({**window, "granularity": granularity}))
        assert {(row["from_date"], row["to_date"]) for row in rows} == {
            (f"{start}T00:00:00Z", f"{end}T00:00:00Z") for start, end in buckets
        }
    assert spent(usage(plivo.walk({**window, "granularity": "month"}))) == spent(usage(plivo.walk(window)))


def test_the_window_ends_before_to_date(plivo: Plivo):
    days = {row["from_date"] for row in usage(plivo.walk({"from_date": "2026-05-30", "to_date": "2026-06-01"}))}
    assert days == {"2026-05-30T00:00:00Z", "2026-05-31T00:00:00Z"}


def test_the_defaults_are_the_last_seven_days_by_day_a_hundred_to_a_page(plivo: Plivo):
    page = plivo.ask()
    assert set(page) == {"api_id", "meta", "usage", "other_charges"}
    meta = page["meta"]
    assert (meta["from_date"], meta["to_date"]) == ("2026-06-03T00:00:00Z", "2026-06-10T00:00:00Z")
    assert (meta["granularity"], meta["page_size"], len(page["usage"])) == ("day", 100, 100)
    assert meta["auth_id"] == "MAACMERETAILSANDBOX1"
    assert "subaccount_auth" not in meta


def test_totals_and_other_charges_are_on_page_1_only(plivo: Plivo):
    first, *later = plivo.walk(MAY)
    assert {"total_spent", "subaccount_spend"} <= set(first["meta"])
    for page in later:
        assert set(page) == {"api_id", "meta", "usage"}
        assert not {"total_spent", "total_subaccount_spent", "subaccount_spend"} & set(page["meta"])
    assert "next_page_token" not in later[-1]["meta"]


def test_a_page_token_is_bound_to_its_filters(plivo: Plivo):
    token = plivo.ask(MAY)["meta"]["next_page_token"]
    assert plivo.ask({**MAY, "page_token": token})["usage"] == plivo.ask({**MAY, "page_token": token})["usage"]
    for changed in ({"country": "US"}, {"to_date": "2026-06-02"}, {"granularity": "month"}, {"product": "voice"}):
        assert "page_token" in plivo.error({**MAY, **changed, "page_token": token})
    for made_up in ("", "2", "MTAwfGFi", "é"):
        assert "page_token" in plivo.error({**MAY, "page_token": made_up})


@pytest.mark.parametrize(
    ("granularity", "start", "end", "cap", "coarser"),
    [
        ("hour", "2026-05-01", "2026-05-09", "7 days (requested 8 days)", "day"),
        ("day", "2026-01-01", "2026-05-01", "92 days (requested 120 days)", "month"),
        ("month", "2024-01-01", "2026-02-01", "24 months (requested 25 months)", "year"),
        ("month", "2024-01-15", "2026-01-16", "24 months (requested 25 months)", "year"),
    ],
)  # fmt: skip
def test_a_window_over_the_cap_is_refused_in_plivos_words(
    plivo: Plivo, granularity: str, start: str, end: str, cap: str, coarser: str
):
    said = plivo.error({"granularity": granularity, "from_date": start, "to_date": end})
    assert said == (
        f"granularity={granularity} supports a max window of {cap}; use granularity={coarser} for larger windows"
    )


@pytest.mark.parametrize(
    ("granularity", "start", "end"),
    [
        ("hour", "2026-05-01", "2026-05-08"),
        ("day", "2026-03-01", "2026-06-01"),
        ("month", "2024-06-01", "2026-06-01"),
        ("month", "2024-02-29", "2026-02-28"),
        ("year", "2000-01-01", "2100-01-01"),
    ],
)
def test_a_window_at_the_cap_is_answered(plivo: Plivo, granularity: str, start: str, end: str):
    meta = plivo.ask({"granularity": granularity, "from_date": start, "to_date": end})["meta"]
    assert (meta["from_date"], meta["to_date"]) == (f"{start}T00:00:00Z", f"{end}T00:00:00Z")


@pytest.mark.parametrize(
    "wrong",
    [
        {"subaccount_auth": ""},
        {"granularity": "week"},
        {"granularity": ""},
        {"from_date": "01/05/2026"},
        {"from_date": ""},
        {"to_date": "2026-02-30"},
        {"product": "message,fax"},
        {"product": ""},
        {"direction": "sideways"},
        {"country": "USA"},
        {"page_size": "0"},
        {"page_size": "1001"},
        {"page_size": "ten"},
        {"page_size": ""},
    ],
)
def test_a_wrong_parameter_is_refused_by_name(plivo: Plivo, wrong: dict[str, str]):
    assert next(iter(wrong)) in plivo.error({**MAY, **wrong})


def test_a_window_must_not_be_empty(plivo: Plivo):
    assert "from_date" in plivo.error({"from_date": "2026-05-01", "to_date": "2026-05-01"})


@pytest.mark.parametrize("size", [1, 1000])
def test_page_size_is_1_to_1000_and_echoed(plivo: Plivo, size: int):
    page = plivo.ask({**MAY, "page_size": size})
    assert page["meta"]["page_size"] == size
    assert len(page["usage"]) == min(
        size, totals(plivo.world, "plivo", "main", "2026-05")["rows"] - len(page["other_charges"])
    )


def test_unknown_parameters_are_dropped_without_a_word(plivo: Plivo):
    misspelt = {"granularty": "month", "limit": "5", "auth_id": "MAACMEEMEASANDBOX002"}
    one, two = plivo.ask(MAY), plivo.ask({**MAY, **misspelt})
    assert one.pop("api_id") != two.pop("api_id")
    assert one == two


def test_credentials_must_be_right_and_for_the_account_in_the_path(plivo: Plivo):
    main, emea = (
        "/plivo/v1/Account/MAACMERETAILSANDBOX1/UsageSummary/",
        "/plivo/v1/Account/MAACMEEMEASANDBOX002/UsageSummary/",
    )
    right = ("MAACMERETAILSANDBOX1", "sandbox-plivo-main-token")
    answers = [
        plivo.client.get(main),
        plivo.client.get(main, auth=(right[0], "wrong")),
        plivo.client.get(main, auth=("wrong", right[1])),
        plivo.client.get(emea, auth=right),
        plivo.client.get(main, headers={"Authorization": "Bearer abc"}),
        plivo.client.get(main, headers={"Authorization": "Basic %%%"}),
    ]
    for answer in answers:
        assert answer.status_code == 401
        assert set(answer.json()) == {"api_id", "error"}


def test_the_21st_request_in_a_minute_is_one_too_many_for_its_account_only(plivo: Plivo):
    plivo.world.enforce_limits = True
    statuses = [plivo.get(MAY).status_code for _ in range(21)]
    assert statuses == [200] * 20 + [429]
    assert set(plivo.get().json()) == {"api_id", "error"}
    assert plivo.get(MAY, account="emea").status_code == 200


@pytest.mark.parametrize("status", [403, 429, 502])
def test_an_error_that_nobody_can_provoke_comes_when_the_sandbox_is_told(plivo: Plivo, status: int):
    plivo.client.put("/_sandbox/faults", json={"provider": "plivo", "statuses": [status]}).raise_for_status()
    answers = [plivo.get(MAY), plivo.get(MAY)]
    assert [answer.status_code for answer in answers] == [status, 200]
    assert set(answers[0].json()) == {"api_id", "error"}


def test_a_subaccount_is_a_part_of_the_parents_usage_without_other_charges(plivo: Plivo):
    whole = plivo.ask({**MAY, "page_size": 1000})
    by_subaccount = whole["meta"]["subaccount_spend"]
    assert sorted(by_subaccount) == sorted(ACCOUNTS["main"]["subaccounts"])  # type: ignore[call-overload]
    for subaccount, amount in by_subaccount.items():
        page = plivo.ask({**MAY, "page_size": 1000, "subaccount_auth": subaccount})
        assert page["usage"] == [row for row in whole["usage"] if row.get("subaccount_auth") == subaccount]
        assert page["meta"]["subaccount_auth"] == subaccount
        assert spent(page["usage"]) == Decimal(amount) == Decimal(page["meta"]["total_subaccount_spent"])
        assert "other_charges" not in page
        assert "subaccount_spend" not in page["meta"]


@pytest.mark.parametrize("asked", ["message,voice", ["voice", "message"]])
def test_products_are_repeated_or_a_comma_list(plivo: Plivo, asked: Any):
    page = plivo.ask({**MAY, "product": asked, "page_size": 1000})
    assert {row["product"] for row in page["usage"]} == {"message", "voice"}
    assert "other_charges" not in page


def test_the_product_other_has_other_charges_only(plivo: Plivo):
    page = plivo.ask({**MAY, "product": "other"})
    assert page["usage"] == []
    assert Decimal(page["meta"]["total_spent"]) == spent(page["other_charges"]) > 0


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"direction": "inbound"}, lambda row: row.get("direction") == "inbound"),
        ({"country": "GB"}, lambda row: row.get("country") == "GB"),
        ({"error_code": "200"}, lambda row: row["product"] != "message" or row.get("error_code") == "200"),
        (
            {"hangup_cause": "3010"},
            lambda row: row["product"] not in ("voice", "zentrunk") or row.get("hangup_cause") == "3010",
        ),
    ],
)
def test_the_other_filters_apply_to_the_products_that_have_them_and_not_to_other_charges(
    plivo: Plivo, asked: dict[str, str], kept: Any
):
    whole, part = (plivo.ask({**MAY, "page_size": 1000, **each}) for each in ({}, asked))
    assert part["usage"] == [row for row in whole["usage"] if kept(row)]
    assert 0 < len(part["usage"]) < len(whole["usage"])
    assert part["other_charges"] == whole["other_charges"]


def test_an_account_without_subaccounts_says_so_with_an_empty_map(plivo: Plivo):
    meta = plivo.ask(MAY, account="emea")["meta"]
    assert meta["subaccount_spend"] == {}
    assert meta["currency"] == "EUR"
