"""What YCloud's answers say about themselves, read by another parser than the one that makes the charges. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, localcontext
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from ... import rows, shapes
from ...period import BillingPeriod
from ...provider import Page, Pages
from ...reconcile import EXACT, Statement, Tally

T = TypeVar("T")

CURRENCY = "USD"  # the page says so; rows carry none
CHANNELS = {"whatsapp", "sms", "voice", "email"}
# The billing page names the first five, the newer OpenAPI (WhatsappPricingCategory) the other two.
ORIGINS = {
    "authentication", "authentication_international", "marketing", "utility", "service",
    "marketing_lite", "referral_conversion",
}  # fmt: skip


class CountedTwice(Exception):
    """The same cost came in the account's own answer and in a managed account's."""

    rerun = "no"
    remedy = "Take managed_accounts out of accounts.toml, or set managed_accounts_disjoint = true"


class _CostItem(msgspec.Struct, gc=False):
    cost: Decimal
    quantity: Any = None  # whether there is one; `parse` reads it
    conversationOriginType: str | None = None


_cost, _origin = map(attrgetter, ("cost", "conversationOriginType"))


class _Item(msgspec.Struct):
    date: date
    channel: str
    wabaId: str | None = None
    regionCode: str | None = None
    isTransient: bool | None = None
    costItems: list[_CostItem] | None = None


_cost_items = attrgetter("costItems")


class _Answer(msgspec.Struct):
    offset: int
    limit: int
    length: int
    items: list[_Item]
    total: int | None = None


@dataclass
class _Came:
    """What came of one traversal so far."""

    rows: int = 0
    total: int | None = None
    more: bool = True


def statement(pages: Pages, period: BillingPeriod) -> Statement:
    """What YCloud's answers say about themselves.

    Returns:
        stated_rows: YCloud counts items (`length` on every page, `total` on the first of a traversal), and an item has
            several cost items. So items are compared here, and this is the number of cost items in the stated items.
        stated_cost: not stated by YCloud.
        flag: no item is transient; an item that does not say is. True when there are no items.

    Raises:
        UnexpectedShape: the items that came are not those that YCloud says it sent: a page is missing, or not the last of
            its traversal although the last that came; a row without date, channel, cost or list of cost items, or of another
            month.
        CountedTwice: a cost item of a WhatsApp account came in the account's own answer and in a managed account's.
    """
    came: dict[str, _Came] = {}
    found: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    origins: Counter[str | None] = Counter()
    overlap = _Overlap()
    cost_items, cost, settled = 0, Decimal(0), True
    with localcontext(EXACT):
        for page in pages:
            answer = decoded(page, _Answer)
            _continue(came.setdefault(page.traversal, _Came()), answer, page)
            for number, item in enumerate(answer.items):
                if item.costItems is None:
                    raise rows.UnexpectedShape(without_costs(page.number, number))
            for day in {item.date for item in answer.items}:
                belongs(day, period, f"page {page.number}")
            flags = [item.isTransient for item in answer.items]
            settled &= flags.count(False) == len(flags)
            found["items without isTransient, taken as transient"] += flags.count(None)
            found["items without cost items"] += sum(not item.costItems for item in answer.items)
            for item in answer.items:
                channels[item.channel] += len(item.costItems or ())
            # A million of these are most of the work: whole lists at a time.
            ones = list(chain.from_iterable(map(_cost_items, answer.items)))
            cost_items += len(ones)
            cost = sum(map(_cost, ones), cost)
            origins.update(map(_origin, ones))
            found["cost items without a quantity"] += sum(one.quantity is None for one in ones)
            overlap.add(page, answer.items)
    for channel, count in channels.items():
        if channel not in CHANNELS:
            found[f"cost items of the undocumented channel {channel!r}"] = count
    for origin, count in origins.items():
        if origin is not None and origin not in ORIGINS:
            found[f"cost items of the undocumented type {origin!r}"] = count
    for traversal, seen in came.items():
        if seen.more:
            raise rows.UnexpectedShape(
                f"{traversal}: the last page is full, so it is not the last. Fetch the month again"
            )
        if seen.total not in (None, seen.rows):
            raise rows.UnexpectedShape(
                f"{traversal}: YCloud states {seen.total} items, {seen.rows} came. Fetch the month again"
            )
    notes = [f"{count} {what}" for what, count in sorted(found.items()) if count]
    return Statement(
        counted=Tally(rows=cost_items, totals={CURRENCY: cost} if cost_items else {}),
        stated_rows=cost_items,
        flag=settled,
        notes=(*notes, *overlap.notes()),
    )


def _continue(came: _Came, answer: _Answer, page: Page) -> None:
    """The next page of a traversal must begin where the one before ended."""
    if answer.length != len(answer.items) or answer.offset != came.rows or not came.more:
        raise rows.UnexpectedShape(
            f"page {page.number} ({page.request}): says offset {answer.offset} and length {answer.length}, has "
            f"{len(answer.items)} items, and comes after {came.rows}{'' if came.more else ', which were all'}. "
            "A page is missing or stands twice: fetch the month again"
        )
    if came.rows == 0:  # asked for on page 1 only
        came.total = answer.total
    came.rows += answer.length
    came.more = answer.length >= answer.limit


@dataclass
class _Overlap:
    """Whether the account's own answer contains its managed accounts' costs: YCloud does not say, so the rows have to.

    A WhatsApp account belongs to one of them; the other channels' rows carry nothing that tells them apart.
    """

    own: set[tuple[object, ...]] = field(default_factory=set)
    managed: dict[tuple[object, ...], str] = field(default_factory=dict)
    without_id: set[str | None] = field(default_factory=set)

    def add(self, page: Page, items: list[_Item]) -> None:
        if page.facts.get("managed_accounts_disjoint") != "false":
            return
        for item in items:
            about = (item.wabaId, item.date, item.channel, item.regionCode)
            keys = [(*about, one.conversationOriginType, one.quantity, one.cost) for one in item.costItems or ()]
            if not keys:
                continue
            if item.wabaId is None:
                self.without_id.add(page.scope)
            elif page.scope is None:
                self.own.update(keys)
            else:
                self.managed.update(dict.fromkeys(keys, page.scope))

    def notes(self) -> list[str]:
        twice = self.own & self.managed.keys()
        if twice:
            raise CountedTwice(
                f"{len(twice)} cost items of the WhatsApp accounts {_some({str(key[0]) for key in twice})} came in the account's "
                f"own answer and again for the managed accounts {_some({self.managed[key] for key in twice})}: they would be "
                "counted twice. The month was not replaced. Take managed_accounts out of this account in accounts.toml, for its "
                "own answer holds their costs; or, if YCloud says that these are different charges, set "
                "managed_accounts_disjoint = true"
            )
        notes = []
        shared = {str(key[0]) for key in self.own} & {str(key[0]) for key in self.managed}
        if shared:
            notes.append(
                f"WhatsApp accounts {_some(shared)} have rows, none equal, both in the own and in a managed account"
            )
        if None in self.without_id and len(self.without_id) > 1:
            notes.append(
                "SMS, voice or email came for the own and for managed accounts; YCloud does not say whether the own contains the "
                "others: compare with its console, then set managed_accounts_disjoint = true or drop managed_accounts"
            )
        return notes


def _some(ids: set[str]) -> str:
    return ", ".join(sorted(ids)[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def without_costs(page: int, row: int) -> str:
    """What is said of an item whose list of cost items is missing: what it costs nobody can know."""
    return (
        f"page {page}, row {row}: costItems is missing or null, and what is missing is not zero. The month was not replaced: "
        "fetch it again, and if it stays, ask YCloud what the row costs"
    )


def belongs(day: date, period: BillingPeriod, where: str) -> None:
    """Raise `UnexpectedShape` when `day` is not in the month: only its days were asked for."""
    if day not in period:
        raise rows.UnexpectedShape(f"{where}: a row of {day}, which is not in {period} and was not asked for")


def decoded(page: Page, shape: type[T]) -> T:
    """The page's body as `shape`; `UnexpectedShape` says where it is built otherwise."""
    try:
        return shapes.read(page.read(), shape)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise rows.UnexpectedShape(f"page {page.number} ({page.request}): {error}") from error
