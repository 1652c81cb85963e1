"""YCloud: what its answers become, and what they say about themselves."""

from __future__ import annotations

import csv
import re
from datetime import date
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from billing_pipeline import charges
from billing_pipeline.finality import finality
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page
from billing_pipeline.providers.ycloud import PROVIDER, YCloudSettings, statement
from billing_pipeline.providers.ycloud.stated import CountedTwice
from billing_pipeline.reconcile import EXACT, Statement, agree, plain, require, stated
from billing_pipeline.rows import UnexpectedShape, text

from . import harness

RECORDINGS = Path(__file__).parent / "recordings" / "ycloud"
MAY = BillingPeriod(2026, 5)
SHOWN = (
    "x_UsageDate", "SubAccountId", "ServiceName", "x_Type", "x_DestinationCountry", "PricingQuantity", "PricingUnit",
    "BilledCost", "BillingCurrency", "x_UnitPrice", "ChargePeriodStart", "ChargePeriodEnd", "ChargeDescription",
    "x_Dimensions", "x_RowSource",
)  # fmt: skip


class Recorded(msgspec.Struct):
    request: str
    scope: str | None
    traversal: str
    body: msgspec.Raw


def recorded(folder: Path) -> list[Page]:
    answers = msgspec.json.decode((folder / "recording.json").read_bytes(), type=list[Recorded])
    return [
        harness.page(
            bytes(one.body), n, request=one.request, scope=one.scope, traversal=one.traversal, facts={"account": "main"}
        )
        for n, one in enumerate(answers, 1)
    ]


def answer(items: list[dict[str, Any]], *, number: int = 1, limit: int = 100, offset: int = 0, **page: Any) -> Page:
    """A page of `items` with numbers as `Decimal`."""
    body = {"offset": offset, "limit": limit, "length": len(items), "items": items}
    numbers = {name: Decimal(value) if isinstance(value, int) else value for name, value in body.items()}
    return harness.page(text(numbers), number, **{"facts": {"account": "main"}, **page})


def item(*cost_items: dict[str, Any], **fields: Any) -> dict[str, Any]:
    documented = {
        "date": "2026-05-06", "isTransient": False, "channel": "whatsapp", "wabaId": "WABA_1", "regionCode": "CN",
    }  # fmt: skip
    return {**documented, **fields, "costItems": list(cost_items)}


def cost_item(cost: str = "1.0", **fields: Any) -> dict[str, Any]:
    documented = {"unitPrice": Decimal("0.1"), "quantity": Decimal(10), "conversationOriginType": "utility"}
    return {"cost": Decimal(cost), **documented, **fields}


def reconciled(pages: list[Page], period: BillingPeriod = MAY) -> tuple[pa.Table, Statement]:
    """Charges and statement, agreeing as the line demands it."""
    table = harness.table(PROVIDER, pages, period)
    says = statement(pages, period)
    require(stated(says) + agree("made of them", says.counted, charges.tally(table)))
    return table, says


def shown(table: pa.Table) -> list[dict[str, str]]:
    """Charges as a person reads them: amounts with every digit and no more."""
    written = {Decimal: plain, type(None): lambda _: ""}
    return [
        {name: written.get(type(value), str)(value) for name, value in row.items()}
        for row in table.select(SHOWN).to_pylist()
    ]


@pytest.mark.parametrize("folder", sorted(RECORDINGS.iterdir()), ids=lambda folder: folder.name)
def test_a_recorded_month_gives_the_expected_charges(folder: Path) -> None:
    table, _ = reconciled(recorded(folder), BillingPeriod.parse(folder.name[:7]))
    with (folder / "expected.csv").open(newline="") as file:
        assert shown(table) == list(csv.DictReader(file))


def test_the_documented_example_costs_four_dollars_and_is_not_final() -> None:
    _, says = reconciled(recorded(RECORDINGS / "2024-03-documented"), BillingPeriod(2024, 3))
    assert (says.counted.rows, says.counted.totals, says.flag) == (2, {"USD": Decimal(4)}, False)
    assert says.notes == ()


def test_a_day_is_the_providers_own_and_its_instants_are_eight_hours_earlier_in_utc() -> None:
    table, _ = reconciled([answer([item(cost_item(), date="2026-05-01")])])
    row = table.to_pylist()[0]
    assert row["x_UsageDate"] == date(2026, 5, 1)
    assert (row["ChargePeriodStart"].isoformat(), row["ChargePeriodEnd"].isoformat()) == (
        "2026-04-30T16:00:00+00:00",
        "2026-05-01T16:00:00+00:00",
    )
    assert row["BillingPeriodStart"] == row["ChargePeriodStart"]


@pytest.mark.parametrize(
    ("transient", "fetched", "status"),
    [
        (False, "2026-06-02T16:00", "final"),
        (False, "2026-06-02T15:59", "provisional"),
        (True, "2026-07-01T00:00", "provisional"),
        (None, "2026-07-01T00:00", "provisional"),
    ],
)
def test_a_month_is_final_two_days_after_its_end_when_every_item_says_it_is_not_transient(
    transient: bool | None, fetched: str, status: str
) -> None:
    _, says = reconciled([answer([item(cost_item()), item(cost_item(), isTransient=transient, regionCode="BR")])])
    decided = finality(PROVIDER.calendar, MAY, fetched_at=harness.at(fetched)(), flag=says.flag)
    assert decided.status == status


def test_an_item_that_does_not_say_whether_it_is_transient_is_taken_as_transient_and_noted() -> None:
    silent = item(cost_item())
    del silent["isTransient"]
    _, says = reconciled([answer([silent])])
    assert says.flag is False
    assert says.notes == ("1 items without isTransient, taken as transient",)


def test_an_empty_month_is_a_result_with_nothing_transient_in_it() -> None:
    table, says = reconciled(recorded(RECORDINGS / "2026-02-empty"), BillingPeriod(2026, 2))
    assert (len(table), says.counted.rows, says.flag) == (0, 0, True)


def test_undocumented_channels_and_types_pass_through_as_text_and_are_noted() -> None:
    table, says = reconciled(recorded(RECORDINGS / "2026-05-two-scopes"))
    assert {"rcs", "sms", "whatsapp"} == set(table["ServiceName"].to_pylist())
    assert {"marketing_lite", "something_new", None} < set(table["x_Type"].to_pylist())
    assert says.notes == (
        "1 cost items of the undocumented channel 'rcs'",
        "1 cost items of the undocumented type 'something_new'",
        "1 items without cost items",
    )


def test_quantity_is_what_was_billed_and_cost_is_never_recomputed_from_an_average() -> None:
    table, _ = reconciled(
        [answer([item(cost_item("4.01", unitPrice=Decimal("0.0089"), quantity=Decimal(450)), cost_item("0"))])]
    )
    assert [str(cost.normalize()) for cost in table["BilledCost"].to_pylist()] == ["4.01", "0"]
    assert table["PricingQuantity"].to_pylist() == table["ConsumedQuantity"].to_pylist() == [450, 10]
    assert set(table["PricingUnit"].to_pylist()) == {"Messages"}


def test_several_cost_items_of_one_type_are_several_charges() -> None:
    table, _ = reconciled([answer([item(cost_item("1"), cost_item("1"), cost_item("2"))])])
    assert table["BilledCost"].to_pylist() == [1, 1, 2]
    assert [source.rpartition("#")[2] for source in table["x_RowSource"].to_pylist()] == [
        f"/items/0/costItems/{n}" for n in range(3)
    ]


def test_a_field_that_stands_at_both_levels_keeps_both_values() -> None:
    table, _ = reconciled(
        [answer([item(cost_item(tier="low", isTransient="no", fee=Decimal("0.10")), tier="gold"), item(cost_item())])]
    )
    first, second = map(msgspec.json.decode, table["x_Dimensions"].to_pylist())
    assert first == {
        "wabaId": "WABA_1", "isTransient": False, "tier": "gold", "costItems.tier": "low", "costItems.isTransient": "no",
        "fee": 0.1,
    }  # fmt: skip
    assert '"fee":0.10' in table["x_Dimensions"][0].as_py()
    assert second == {"wabaId": "WABA_1", "isTransient": False}


def test_a_missing_quantity_is_noted_and_has_no_unit() -> None:
    table, says = reconciled([answer([item(cost_item(quantity=None))])])
    assert (table["PricingQuantity"].to_pylist(), table["PricingUnit"].to_pylist()) == ([None], [None])
    assert says.notes == ("1 cost items without a quantity",)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (item(cost_item(), {"quantity": Decimal(1)}), "cost"),
        (item(cost_item(), cost_item(cost="1") | {"cost": None}), "cost"),
        (item(cost_item(), cost_item() | {"cost": "free"}), "cost"),
        (item(cost_item()) | {"costItems": [None]}, "costItems|cost is missing"),
        (item(cost_item()) | {"costItems": {"cost": Decimal(1)}}, "costItems"),
        (item(cost_item()) | {"costItems": None}, "costItems is missing or null, and what is missing is not zero"),
        (item(cost_item(), date=None), "date"),
        (item(cost_item(), date="06.05.2026"), "date"),
        (item(cost_item(), date="2026-06-01"), "2026-06-01"),
        (item(cost_item(), channel=None), "channel"),
        (item(cost_item(), isTransient="no"), "isTransient"),
    ],
)
def test_a_row_without_its_money_its_day_or_its_channel_is_an_error_for_both_readers(
    wrong: dict[str, Any], said: str
) -> None:
    pages = [answer([item(cost_item()), wrong])]
    with pytest.raises(UnexpectedShape, match=said):
        harness.table(PROVIDER, pages, MAY)
    with pytest.raises(UnexpectedShape, match="page 1"):
        statement(pages, MAY)


def test_a_lost_a_repeated_or_a_cut_off_page_does_not_pass_for_the_whole() -> None:
    rows = [item(cost_item(), regionCode=f"R{n}") for n in range(5)]
    pages = [answer(rows[n : n + 2], number=n // 2 + 1, limit=2, offset=n) for n in (0, 2, 4)]
    reconciled(pages)
    for wrong in (pages[1:], pages[:1] + pages[2:], pages[:2] + pages[1:], pages[:2], pages + pages[2:]):
        with pytest.raises(UnexpectedShape, match="etch the month again"):
            statement(wrong, MAY)


def test_a_total_that_is_not_what_came_is_an_error() -> None:
    page = answer([item(cost_item())])
    body = page.read().replace(b'"limit"', b'"total":2,"limit"')
    with pytest.raises(UnexpectedShape, match="states 2 items, 1 came"):
        statement([harness.page(body, facts={"account": "main"})], MAY)


def both_scopes(own: dict[str, Any], managed: dict[str, Any], disjoint: str) -> list[Page]:
    facts = {"account": "main", "managed_accounts_disjoint": disjoint}
    return [
        answer([own], facts=facts, traversal="own"),
        answer([managed], number=2, scope="M1", facts=facts, traversal="M1"),
    ]


def test_the_same_cost_in_the_own_and_in_a_managed_account_is_refused_until_someone_says_it_is_different() -> None:
    row = item(cost_item())
    with pytest.raises(CountedTwice, match=re.compile("WABA_1.*M1.*managed_accounts_disjoint = true", re.DOTALL)):
        statement(both_scopes(row, row, "false"), MAY)
    table, says = reconciled(both_scopes(row, row, "true"))
    assert (len(table), says.notes) == (2, ())


def test_what_may_overlap_without_proof_is_noted() -> None:
    _, says = reconciled(both_scopes(item(cost_item("1")), item(cost_item("2")), "false"))
    assert says.notes == ("WhatsApp accounts WABA_1 have rows, none equal, both in the own and in a managed account",)
    sms = item(cost_item(conversationOriginType=None), channel="sms", wabaId=None)
    _, says = reconciled(both_scopes(sms, sms, "false"))
    assert [note.partition(";")[0] for note in says.notes] == [
        "SMS, voice or email came for the own and for managed accounts"
    ]


def test_every_row_says_whose_it_is() -> None:
    table, _ = reconciled(both_scopes(item(cost_item()), item(cost_item(), wabaId="WABA_2"), "false"))
    assert table["SubAccountId"].to_pylist() == [None, "M1"]
    assert table["BillingAccountId"].to_pylist() == ["main", "main"]


def test_settings_have_the_one_host_and_refuse_what_would_count_twice_or_break_a_header() -> None:
    made = {"provider": "ycloud", "name": "main", "api_key": "YCLOUD_API_KEY"}
    assert YCloudSettings.model_validate(made).base_url == "https://api.ycloud.com"
    for ids in (["a", "a"], [""], ["a b"], ["a\r\nX-API-Key: b"], ["a\n"]):
        with pytest.raises(ValidationError, match="managed_accounts"):
            YCloudSettings.model_validate({**made, "managed_accounts": ids})
    with pytest.raises(ValidationError, match="api_key"):
        YCloudSettings.model_validate({**made, "api_key": ""})


amounts = st.decimals(min_value="-1e15", max_value="1e15", places=18) | st.decimals("-1e6", "1e6", places=4)
cost_items = st.builds(
    lambda cost, price, quantity, kind: {
        "cost": cost, "unitPrice": price, "quantity": Decimal(quantity), "conversationOriginType": kind,
    },
    amounts,
    st.decimals(0, 9, places=20) | amounts,
    st.integers(0, 10**9),
    st.sampled_from([None, "utility", "service", "brand_new"]),
)  # fmt: skip
items = st.builds(
    lambda day, channel, waba, region, of: {
        "date": f"2026-05-{day:02}", "isTransient": False, "channel": channel, "wabaId": waba, "regionCode": region,
        "costItems": of,
    },
    st.integers(1, 31), st.sampled_from(["whatsapp", "sms", "ünknown"]), st.sampled_from([None, "W1", "W2"]),
    st.sampled_from([None, "CN", "BR"]), st.lists(cost_items, max_size=3),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.lists(items, max_size=7), st.integers(1, 4)), max_size=4))
def test_however_rows_are_spread_over_windows_and_pages_the_charges_and_their_exact_sum_are_the_same(
    spread: list[tuple[list[dict[str, Any]], int]],
) -> None:
    pages: list[Page] = []
    for window, (listed, size) in enumerate(spread):
        for offset in range(0, len(listed) + 1, size):
            part = listed[offset : offset + size]
            pages.append(answer(part, number=len(pages) + 1, limit=size, offset=offset, traversal=str(window)))
    table, says = reconciled(pages)
    together = [one for listed, _ in spread for one in listed]
    at_once = harness.table(PROVIDER, [answer(together, limit=1000)], MAY)
    assert table.drop_columns(["x_RowSource"]) == at_once.drop_columns(["x_RowSource"])
    with localcontext(EXACT):
        expected = sum((one["cost"] for row in together for one in row["costItems"]), Decimal(0))
    assert says.counted.totals.get("USD", 0) == expected
