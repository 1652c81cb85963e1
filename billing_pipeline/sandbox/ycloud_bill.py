"""What YCloud bills Acme: one item per UTC+8 day, channel, WABA and region, with the cost of each kind of conversation.

How a day changes, by the clock (UTC+8): today's and yesterday's items are transient. Today's grow with the hours and
some are missing; yesterday's are a little short and at list price. From the second day after, they are final: complete,
with the volume price for utility and authentication, and some of them in another region than before.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from billing_pipeline.sandbox.world import COUNTRIES, PURPOSES, SINCE, World, pace

ZONE = timezone(timedelta(hours=8))
CURRENCY = "USD"
API_KEY = "sandbox-ycloud-key"

ACCOUNTS: dict[str, dict[str, object]] = {
    "main": {"api_key": API_KEY, "wabas": ["104857600000001", "104857600000002"]},
    "acme-mx": {"api_key": API_KEY, "managed_account_id": "acme-mx", "wabas": ["104857600000101"]},
    "acme-sea": {"api_key": API_KEY, "managed_account_id": "acme-sea", "wabas": ["104857600000201"]},
}

WHATSAPP_PRICES = {
    # region: marketing, utility, authentication, authentication_international (where Meta has that rate)
    "US": ("0.025", "0.0034", "0.0034"),
    "DE": ("0.1365", "0.055", "0.055"),
    "GB": ("0.0529", "0.022", "0.022"),
    "FR": ("0.0859", "0.03", "0.03"),
    "ES": ("0.0615", "0.02", "0.02"),
    "IT": ("0.0691", "0.03", "0.03"),
    "MX": ("0.0305", "0.0085", "0.0085"),
    "BR": ("0.0625", "0.0068", "0.0068"),
    "IN": ("0.0118", "0.0014", "0.0014", "0.028"),
    "ID": ("0.0411", "0.025", "0.025", "0.136"),
    "MY": ("0.086", "0.014", "0.014", "0.0418"),
    "ZA": ("0.0379", "0.0076", "0.0076", "0.02"),
    "CO": ("0.0125", "0.0008", "0.0008"),
    "PE": ("0.0703", "0.02", "0.02"),
}
OTHER_PRICES = ("0.0604", "0.0077", "0.0077")
SMS_PRICES = {"US": "0.0075", "DE": "0.0883", "GB": "0.0426", "ID": "0.3352", "SG": "0.0371", "CN": "0.0062"}
VOICE_PRICES = {"US": "0.0132", "SG": "0.0189", "ID": "0.0611"}
EMAIL_PRICE = "0.00035"

VOLUME_PRICE = Decimal("0.95")
MOVES = {"US": "PR", "DE": "LI", "GB": "IE", "MX": "GT", "ID": "TL", "SG": "BN"}
"""Region of a transient item -> where it may be when it is final."""

WEIGHTS = {country.code: country.weight for country in COUNTRIES}


class Line(NamedTuple):
    """One combination of dimensions that Acme's messages take."""

    channel: str
    waba: str
    """"" for a channel that has none."""
    region: str
    """"" for e-mail, which is sent from no country."""
    quantity: int
    """On an average day."""
    moves: bool = True


class Cost(NamedTuple):
    """The part of an item that one kind of conversation costs."""

    origin: str
    """"" for a channel that has no kinds."""
    quantity: int
    cost: Decimal
    unit_price: Decimal
    """The average."""


class Item(NamedTuple):
    """One item of the bill."""

    day: date
    """In UTC+8."""
    channel: str
    waba: str
    region: str
    transient: bool
    costs: tuple[Cost, ...]


def items(world: World, account: str, period: str, at: datetime) -> list[Item]:
    """A UTC+8 month's items as they stand at an instant: the latest date first, as YCloud sorts them.

    Raises:
        ValueError: `period` is not a month.
    """
    first, seen = month_start(period), state(period, at)

    def build() -> list[Item]:
        found = list(_items(world, account, first, seen))
        return sorted(found, key=lambda item: (-item.day.toordinal(), *item[1:4]))

    return world.kept(("ycloud", account, period, seen), build)


def month_start(period: str) -> date:
    """2026-05 -> 1 May 2026."""
    return datetime.strptime(period, "%Y-%m").replace(tzinfo=ZONE).date()


def next_month(first: date) -> date:
    """1 May 2026 -> 1 June 2026."""
    return (first + timedelta(days=31)).replace(day=1)


def state(period: str, at: datetime) -> datetime:
    """The earliest instant at which YCloud would have answered the same as at `at`, in UTC+8."""
    settled = datetime.combine(next_month(month_start(period)) + timedelta(days=1), time(), ZONE)
    return min(at.astimezone(ZONE).replace(minute=0, second=0, microsecond=0), settled)


def _items(world: World, account: str, first: date, at: datetime) -> Iterator[Item]:
    days = [first + timedelta(days=day) for day in range((next_month(first) - first).days)]
    days = [day for day in days if SINCE <= day <= at.date()]
    if not days:
        return
    for line in lines(world, account):
        chance = world.draw("ycloud", account, first, *line[:3])
        for day in days:
            traffic, noise, fate = (chance.randrange(100) for _ in range(3))
            quantity = int(line.quantity * pace(day) * (70 + noise * 60 // 99) / 100)
            age = (at.date() - day).days
            if age == 0:
                quantity = 0 if fate >= 88 else quantity * (at.hour + 1) // 25
            elif age == 1:
                quantity = 0 if fate >= 97 else quantity * 98 // 100
            costs = tuple(_costs(line, quantity, final=age >= 2)) if traffic < 96 else ()
            if costs:
                moved = line.moves and fate < 8 and age >= 2
                region = MOVES.get(line.region, line.region) if moved else line.region
                yield Item(day, line.channel, line.waba, region, age < 2, costs)


def _costs(line: Line, quantity: int, final: bool) -> Iterator[Cost]:
    if line.channel != "whatsapp":
        listed = {"sms": SMS_PRICES.get(line.region, "0.0512"), "voice": VOICE_PRICES.get(line.region, "0.0233")}
        if quantity:
            yield _cost("", quantity, Decimal(listed.get(line.channel, EMAIL_PRICE)))
        return
    prices = [Decimal(price) for price in WHATSAPP_PRICES.get(line.region, OTHER_PRICES)]
    listed_prices = dict(zip(("marketing", "utility", "authentication"), prices, strict=False))
    for origin in sorted(PURPOSES):
        part = quantity * PURPOSES[origin] // 100
        price = listed_prices.get(origin, Decimal(0))  # a service conversation is free
        if final and origin in ("utility", "authentication"):
            price *= VOLUME_PRICE
        if origin == "authentication" and len(prices) > 3 and part // 9:
            yield _cost("authentication_international", part // 9, prices[3])
            part -= part // 9
        if part:
            yield _cost(origin, part, price)


def _cost(origin: str, quantity: int, price: Decimal) -> Cost:
    cost = (quantity * price).quantize(Decimal("0.0001"), ROUND_HALF_UP)
    return Cost(origin, quantity, cost, (cost / quantity).quantize(Decimal("0.000001"), ROUND_HALF_UP))


def lines(world: World, account: str) -> list[Line]:
    """The account's kinds of messages: 26 for the parent at scale 1, 8 or 9 for a managed account, every channel among them."""
    if account == "main":
        shop, care = "104857600000001", "104857600000002"
        known = [
            _whatsapp("DE", shop), _whatsapp("US", shop), _whatsapp("IN", care), Line("sms", "", "US", 900),
            Line("voice", "", "US", 60), Line("email", "", "", 5200),
            *(_whatsapp(region, shop) for region in ("GB", "FR", "ES", "IT", "NL", "PL", "AT", "CH")),
            *(_whatsapp(region, care) for region in ("DE", "US", "GB", "BR", "ZA", "HK")),
            *(Line("sms", "", region, 40 + WEIGHTS.get(region, 3)) for region in ("DE", "GB", "SG", "CN")),
            Line("voice", "", "SG", 25), Line("voice", "", "DE", 30),
        ]  # fmt: skip
    elif account == "acme-mx":
        known = [
            *(_whatsapp(region, "104857600000101") for region in ("MX", "CO", "PE", "CL", "US")),
            Line("sms", "", "MX", 210), Line("sms", "", "CO", 35), Line("email", "", "", 1400),
        ]  # fmt: skip
    else:
        known = [
            *(_whatsapp(region, "104857600000201") for region in ("ID", "SG", "MY", "PH", "TH")),
            Line("sms", "", "ID", 150), Line("sms", "", "SG", 60), Line("voice", "", "ID", 20), Line("email", "", "", 900),
        ]  # fmt: skip
    wanted = world.scaled(len(known))
    return [*known[:wanted], *(_branch(number, account) for number in range(wanted - len(known)))]


def _whatsapp(region: str, waba: str, moves: bool = True) -> Line:
    return Line("whatsapp", waba, region, WEIGHTS.get(region, 4) * 6 + 15, moves)


def _branch(number: int, account: str) -> Line:
    """One more WABA's messages to one more region: how a larger scale makes more items."""
    branch, place = divmod(number, len(COUNTRIES))
    waba = f"{200_000_000_000_000 + list(ACCOUNTS).index(account) * 1_000_000 + branch}"
    return _whatsapp(COUNTRIES[place].code, waba, moves=False)
