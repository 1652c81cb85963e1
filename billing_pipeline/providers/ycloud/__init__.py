"""YCloud: what each UTC+8 day cost by channel, region and WhatsApp account, from its daily billing interface.

Source: https://helpdocs.ycloud.com/partner-center/english-en-2/bai-biao-huo-ban/partner-platform-management-api/shi-yong-api-cha-xun-ke-hu-de-zhang-dan
(read 2026-11).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SecretStr, field_validator

from ... import charges, rows
from ...finality import Calendar
from ...period import BillingPeriod
from ...provider import Access, Columns, Page, Pages, Provider, RateLimit, Restarted, Settings, Url
from .stated import CURRENCY, belongs, decoded, statement, without_costs
from .walk import UTC8, Walk, walked, windows

COST_ITEM = pa.struct(
    {
        "cost": charges.DECIMAL,
        "unitPrice": charges.DECIMAL,
        "quantity": charges.DECIMAL,
        "conversationOriginType": pa.string(),
    }
)
ITEM = pa.struct(
    {
        "date": pa.string(),
        "isTransient": pa.bool_(),
        "channel": pa.string(),
        "wabaId": pa.string(),
        "regionCode": pa.string(),
        "costItems": pa.list_(COST_ITEM),
    }
)


class YCloudSettings(Settings):
    """A YCloud account.

    Attributes:
        api_key: sent as X-API-Key.
        managed_accounts: ids of a white-label partner's customers, opaque and case-sensitive; each is asked for with
            X-Managed-Account-ID and becomes a SubAccountId.
        managed_accounts_disjoint: True: the account's own answer is known not to contain what its managed accounts cost, so
            equal rows in both are different charges. YCloud does not say whether it does.
    """

    base_url: Url = "https://api.ycloud.com"
    api_key: SecretStr = Field(min_length=1)
    managed_accounts: tuple[Annotated[str, Field(pattern=r"^[!-~]+$", max_length=255)], ...] = ()
    managed_accounts_disjoint: bool = False

    @field_validator("managed_accounts")
    @classmethod
    def _once_each(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({one for one in ids if ids.count(one) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named twice: its charges would be counted twice")
        return ids


def fetch(access: Access, period: BillingPeriod) -> Iterator[Page | Restarted]:
    """The month of the account itself (`Page.scope` None) and of each managed account (its id), window by window.

    `Page.facts` has `account`, the configured name, and, where there are managed accounts, `managed_accounts_disjoint`.

    Raises:
        ValueError: the month has not begun in UTC+8.
        UnexpectedAnswer, RowsMoved, TooManyRows: see `walked`.
    """
    settings = cast(YCloudSettings, access.settings)
    planned = windows(period, access.now())
    if not planned:
        raise ValueError(f"{period} has not begun on YCloud's clock (UTC+8): there is nothing to ask for yet")
    facts = {"account": settings.name}
    if settings.managed_accounts:
        facts["managed_accounts_disjoint"] = "true" if settings.managed_accounts_disjoint else "false"
    for scope in (None, *settings.managed_accounts):
        for window in planned:
            yield from walked(access, Walk(scope, window, facts))


class _Items(msgspec.Struct):
    items: msgspec.Raw


def parse(pages: Pages, period: BillingPeriod, landing: str) -> Iterator[Columns]:
    """One charge per cost item; an item with an empty list of them carries no money and gives none.

    x_UnitPrice is an average; where it has more digits than the column holds, it is null and its digits are in x_Dimensions.

    Raises:
        UnexpectedShape: see `rows.read`; a row without date, channel, cost or list of cost items, or of another month.
    """
    origin: dict[int, tuple[str, str | None]] = {}

    def lists() -> Iterator[tuple[int, bytes]]:
        for page in pages:
            origin[page.number] = (page.facts["account"], page.scope)
            yield page.number, bytes(decoded(page, _Items).items)

    for items in rows.read(lists(), ITEM, inexact=frozenset({"unitPrice"})):
        if items["costItems"].null_count:
            n = pc.index(items["costItems"].is_null(), True).as_py()
            raise rows.UnexpectedShape(without_costs(items.page[n].as_py(), items.index[n].as_py()))
        if pc.sum(pc.list_value_length(items["costItems"])).as_py():
            yield _charges(items, origin, period, landing)


def _charges(
    items: rows.Rows, origin: dict[int, tuple[str, str | None]], period: BillingPeriod, landing: str
) -> Columns:
    lists = items["costItems"]
    parent = pc.list_parent_indices(lists)
    cost_items = lists.flatten()
    count = len(cost_items)
    item = {name: items[name].take(parent) for name in ("date", "isTransient", "channel", "wabaId", "regionCode")}
    page, i = items.page.take(parent), items.index.take(parent)
    j = pc.subtract(rows.numbered(count), pc.subtract(lists.offsets.take(parent), lists.offsets[0]))
    cost, quantity = cost_items.field("cost"), cost_items.field("quantity")
    for name, values in (("date", item["date"]), ("channel", item["channel"]), ("cost", cost)):
        if values.null_count:
            n = pc.index(values.is_null(), True).as_py()
            raise rows.UnexpectedShape(f"page {page[n]}, row {i[n]}, cost item {j[n]}: {name} is missing")
    try:
        day = item["date"].cast(pa.date32())
    except pa.ArrowInvalid as error:
        raise rows.UnexpectedShape(
            f"pages {page[0]} to {page[-1]}: a date is not written yyyy-MM-dd: {error}"
        ) from error
    extremes = pc.min_max(day).as_py()
    for end in extremes.values():
        belongs(end, period, f"pages {page[0]} to {page[-1]}")
    midnight = pc.subtract(day.cast(charges.INSTANT), pa.scalar(UTC8.utcoffset(None)))
    number = pc.index_in(page, pa.array(list(origin), pa.int32()))
    kind = cost_items.field("conversationOriginType")
    return {
        "BilledCost": cost,
        "BillingAccountId": pa.array([account for account, _ in origin.values()], pa.string()).take(number),
        "BillingCurrency": pa.repeat(CURRENCY, count),
        "ChargeCategory": pa.repeat("Usage", count),
        "ChargeDescription": pc.binary_join_element_wise(
            item["channel"], kind, item["regionCode"], " ", null_handling="skip"
        ),
        "ChargeFrequency": pa.repeat("Usage-Based", count),
        "ChargePeriodStart": midnight,
        "ChargePeriodEnd": pc.add(midnight, pa.scalar(timedelta(days=1))),
        "PricingQuantity": quantity,
        "PricingUnit": pc.if_else(quantity.is_valid(), "Messages", pa.scalar(None, pa.string())),
        "ServiceName": item["channel"],
        "SubAccountId": pa.array([scope for _, scope in origin.values()], pa.string()).take(number),
        "x_DestinationCountry": item["regionCode"],
        "x_Dimensions": charges.dimensions({"wabaId": item["wabaId"], "isTransient": item["isTransient"]}),
        "x_RowSource": charges.row_source(landing, page, "items", i, "costItems", j),
        "x_Type": kind,
        "x_UnitPrice": cost_items.field("unitPrice"),
        "x_UsageDate": day,
        charges.UNKNOWN: _undocumented(items[charges.UNKNOWN].take(parent), cost_items.field(charges.UNKNOWN)),
    }


def _undocumented(of_item: pa.Array, of_cost_item: pa.Array) -> pa.Array:
    """Undocumented fields of both levels in one object; null when there are none."""
    if of_cost_item.null_count == len(of_cost_item):
        return of_item
    return pa.array(list(map(_one_object, of_item.to_pylist(), of_cost_item.to_pylist())), pa.string())


def _one_object(of_item: str | None, of_cost_item: str | None) -> str | None:
    if of_cost_item is None:
        return of_item
    if of_item is None and '"wabaId"' not in of_cost_item and '"isTransient"' not in of_cost_item:
        return of_cost_item  # the usual case, an average with many digits: nothing to tell apart
    upper, lower = (
        json.loads(text or "{}", parse_float=Decimal, parse_int=Decimal) for text in (of_item, of_cost_item)
    )
    taken = {*upper, "wabaId", "isTransient"}  # a key that stands twice would hide one of the two values
    return rows.text(upper | {f"costItems.{key}" if key in taken else key: value for key, value in lower.items()})


FIELDS = {
    "items[].date": ("x_UsageDate", "ChargePeriodStart", "ChargePeriodEnd"),
    "items[].isTransient": ("x_Dimensions",),
    "items[].channel": ("ServiceName", "ChargeDescription"),
    "items[].wabaId": ("x_Dimensions",),
    "items[].regionCode": ("x_DestinationCountry", "ChargeDescription"),
    "items[].costItems[].cost": charges.COSTS,
    "items[].costItems[].unitPrice": ("x_UnitPrice",),
    "items[].costItems[].quantity": ("PricingQuantity", "ConsumedQuantity"),
    "items[].costItems[].conversationOriginType": ("x_Type", "ChargeDescription"),
}
UNUSED = {
    "offset": "paging",
    "limit": "paging",
    "length": "paging: compared with the rows",
    "total": "a control total: compared with the rows",
}


PROVIDER = Provider(
    name="ycloud",
    title="YCloud",
    calendar=Calendar(
        timezone=UTC8,
        # "Nearly real-time bills from yesterday or today" are transient: the last day's are at rest two days later.
        settles_after=timedelta(days=2),
        flag="every isTransient=false",
        # How long YCloud serves a month is not documented.
    ),
    settings=YCloudSettings,
    rate_limits=(
        RateLimit(requests=200, seconds=1),
        # https://docs.ycloud.com/en/api-reference/guides/api-fundamentals/rate-limits.md (read 2026-11) says 10,000 an hour,
        # and in one sentence 1,000: the lower cannot be wrong.
        RateLimit(requests=1000, seconds=3600),
    ),
    fetch=fetch,
    parse=parse,
    statement=statement,
    headers=lambda settings: {"X-API-Key": settings.api_key.get_secret_value()},
    volatile=frozenset({"isTransient"}),
    fields=FIELDS,
    unused=UNUSED,
)
