"""Two accounts that bring the same charges are refused with a sentence; two that only look alike are not."""

from __future__ import annotations

import shutil
import urllib.request
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline.lake import Lake
from billing_pipeline.landing import Partition
from billing_pipeline.overlap import OverlappingAccounts, require
from billing_pipeline.providers.ycloud.stated import CountedTwice

from .charges_rows import MAY, Amounts, store
from .conftest import Company

OWN_KEY = {"infobip": {"api_key": SecretStr("sandbox-infobip-subaccount-key")}}


def second(company: Company, provider: str, **changes: Any) -> Partition:
    """May of one more account of a provider, named `second`, with the keys of `main` but for the changes."""
    main = company.line.configuration.account(provider, "main")
    added = main.model_copy(update={"name": "second", **changes})
    known = company.line.configuration
    company.line.configuration = replace(known, accounts=(*known.accounts, added))
    return company.month(provider, "second", "2026-05")


@pytest.mark.parametrize("provider", ["infobip", "plivo", "talkdesk", "ycloud"])
@pytest.mark.parametrize("first", ["main", "second"])
def test_a_month_that_another_account_holds_already_is_refused_whichever_came_first(
    company: Company, provider: str, first: str
) -> None:
    other = second(company, provider, **OWN_KEY.get(provider, {}))
    main = company.month(provider, "main", "2026-05")
    held, refused = (main, other) if first == "main" else (other, main)
    company.do(held)
    with pytest.raises(OverlappingAccounts, match=f"charges worth .* are held for {provider}/{held.account} too"):
        company.do(refused)
    company.line.publish()
    assert company.shown(refused) == (0, {})
    assert company.shown(held)[0] == company.line.lake.held(held).tally.rows  # type: ignore[union-attr]


def test_the_refusal_says_how_much_money_and_what_to_do(company: Company) -> None:
    other = second(company, "talkdesk")
    company.do(company.month("talkdesk", "main", "2026-05"))
    with pytest.raises(OverlappingAccounts) as refused:
        company.do(other)
    for said in ("EUR + ", " USD", "counted twice", "take the other's [[account]] out", 'disjoint_from = ["main"]'):
        assert said in str(refused.value)
    assert "sandbox-talkdesk-secret" not in str(refused.value)


@pytest.mark.parametrize("who", ["main", "second"])
def test_one_of_the_two_may_say_that_the_charges_are_different_ones(company: Company, who: str) -> None:
    other = second(company, "talkdesk")
    named = {who: ({"main", "second"} - {who}).pop()}
    accounts = tuple(
        s.model_copy(update={"disjoint_from": (named[s.name],)}) if s.provider == "talkdesk" and s.name in named else s
        for s in company.line.configuration.accounts
    )
    company.line.configuration = replace(company.line.configuration, accounts=accounts)
    company.do(company.month("talkdesk", "main", "2026-05"))
    assert company.do(other).action == "written"


def test_accounts_of_one_provider_with_charges_of_their_own_are_both_loaded(company: Company) -> None:
    assert {company.do(company.month("plivo", name, "2026-05")).action for name in ("main", "emea")} == {"written"}


def test_two_strangers_without_an_owner_in_their_rows_may_have_a_few_equal_ones(company: Company) -> None:
    """YCloud names no account: equal days, channels and prices are coincidence until they are most of a month."""
    other = second(company, "ycloud", managed_accounts=())
    company.do(company.month("ycloud", "main", "2026-05"))
    company.world.seed = "another company with the same price list"
    assert company.do(other).action == "written"


def test_a_customer_that_a_partner_contains_is_recognised_under_a_key_of_its_own(tmp_path: Path) -> None:
    same: Amounts = [("USD", Decimal(n) / 8) for n in range(1, 15)]
    own: Amounts = [("USD", Decimal(n)) for n in range(100, 140)]
    partner, customer = named("partner"), named("customer")
    store(tmp_path, partner, [*own, *same])
    store(tmp_path, customer, same)
    with pytest.raises(OverlappingAccounts, match=r"14 charges worth 13\.125 USD are held for plivo/partner too"):
        required(tmp_path, customer)


def test_charges_of_nothing_are_alike_everywhere_and_are_no_overlap(tmp_path: Path) -> None:
    for name in ("one", "other"):
        store(tmp_path, named(name), [("USD", Decimal(0))] * 20)
    required(tmp_path, named("other"))


def test_an_empty_month_overlaps_with_nothing(tmp_path: Path) -> None:
    store(tmp_path, named("one"), [])
    store(tmp_path, named("other"), [("USD", Decimal(1))])
    required(tmp_path, named("one"))
    required(tmp_path, named("other"))


def test_a_partner_whose_own_answer_holds_its_customers_rows_is_refused_over_real_sockets(
    company: Company, httpserver: HTTPServer
) -> None:
    settings = company.line.configuration.account("ycloud", "main")

    def whoever_is_asked_for(request: Request) -> Response:
        """The account's own answer, also where a customer's was asked for: the two hold the same rows."""
        url = f"{settings.base_url}{request.path}?{request.query_string.decode()}"
        sent = urllib.request.Request(url, headers={"X-API-Key": request.headers["X-API-Key"]})  # noqa: S310  loopback
        with urllib.request.urlopen(sent) as answer:  # noqa: S310
            return Response(answer.read(), content_type="application/json")

    httpserver.expect_request("/v2/billing/usageDetails").respond_with_handler(whoever_is_asked_for)
    changes = {"managed_accounts": ("acme-mx",), "managed_accounts_disjoint": False, "base_url": httpserver.url_for("")}
    with pytest.raises(CountedTwice, match="managed accounts acme-mx"):
        company.do(second(company, "ycloud", **changes))


def named(account: str) -> Partition:
    return Partition(MAY.provider, account, MAY.period)


def required(folder: Path, partition: Partition) -> None:
    lake = Lake(folder)
    require(partition, lake.path(partition), lake.beside(partition), disjoint=(), volatile=())


def test_corrections_that_are_booked_beside_a_month_are_no_other_account(tmp_path: Path) -> None:
    month = named("one")
    store(tmp_path, month, [("USD", Decimal(1))])
    shutil.copy(Lake(tmp_path).path(month), Lake(tmp_path).corrections_path(month))
    required(tmp_path, month)
