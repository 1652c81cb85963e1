"""What the invented company sends through Infobip, record by record, as it stands at an instant.

A record is one day of one stream; a stream is all that Infobip can tell apart about a kind of traffic. The
catalogue beside this module (infobip.csv) has one line per kind, which becomes one stream per network.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from typing import NamedTuple

from billing_pipeline.sandbox.answer import plain
from billing_pipeline.sandbox.world import COUNTRIES, SINCE, World, pace

HIERARCHY = {
    "8F0792F86035A9F4290821F1EE6BC06A": "Acme Retail GmbH",
    "D17C0A4B95E34C2F8B6E51A7703F92DE": "Acme Retail US Inc.",
    "3BE49A2C6D7148F0A5C01E88B2F4D963": "Acme Retail LatAm S.A.",
}
"""ACCOUNT_KEY to ACCOUNT_NAME, in the order of the catalogue's `place`."""

CATEGORIES = {
    "SMS": "SMS",
    "SMS_OPERATOR_FEE": "SMS Operator Fee",
    "MMS": "MMS",
    "MMS_OPERATOR_FEE": "MMS Operator Fee",
    "EMAIL": "Email",
    "RCS": "RCS",
    "WHATSAPP": "WhatsApp",
    "VIBER": "Viber",
    "MOBILE_PUSH": "Mobile Push",
    "NUMBER_LOOKUP": "Number Lookup",
    "CARRIER_LOOKUP": "Carrier Lookup",
    "EMAIL_VALIDATION": "Email Validation",
    "AGENTOS": "AgentOS",
    "APPLE_MB": "Apple Messages for Business",
    "AI": "AI",
}
SUBCATEGORIES = {"VIBER_BM": "Viber Business Messages", "VIBER_BOTS": "Viber Bots"}
ABSENT = "N/A"

SETTLED_AFTER = timedelta(days=4)
DISCOUNTED_AFTER = timedelta(days=2, hours=9)
DISCOUNT = Decimal("0.92")
WAIVED_AFTER = timedelta(days=3, hours=14)
STEPS = {"session": Decimal("0.5"), "minute": Decimal("0.01")}
CENT = Decimal("0.01")


class Stream(NamedTuple):
    """All the traffic that differs in the day alone."""

    dimensions: dict[str, str | int]
    """All dimensions but DAY and MONTH; "N/A" where the channel has none."""
    unit: str
    price: Decimal
    currency: str
    volume: int
    """Units an average day."""
    late: int
    """Hours after the end of a day at which its record arrives; 0: while it happens."""
    waived: bool
    """A pricing adjustment makes last month's records free, and only what is charged is shown."""


class Record(NamedTuple):
    """What one stream was charged for one day."""

    stream: int
    """Place in `streams()`."""
    day: date
    price: Decimal
    quantity: Decimal
    total: Decimal
    """Price times quantity, rounded half up to two decimals, as in the documented example."""


def month_of(period: str) -> tuple[datetime, datetime]:
    """First instants of the month and of the next, UTC."""
    start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    return start, (start + timedelta(days=32)).replace(day=1)


def streams(world: World) -> list[Stream]:
    """The world's streams; a larger one has more senders and entities of the same kinds."""
    kinds = _kinds()
    return world.kept(
        ("infobip", "streams"),
        lambda: [
            _copied(kinds[number % len(kinds)], number // len(kinds)) for number in range(world.scaled(len(kinds)))
        ],
    )


def records(world: World, period: str, at: datetime) -> Iterator[Record]:
    """The month's charged records as known at `at`, day by day."""
    start, end = month_of(period)
    now = min(at.astimezone(UTC), end + SETTLED_AFTER).replace(minute=0, second=0, microsecond=0)
    if start.date() < SINCE or now < start:
        return
    known = streams(world)
    prices = [_price(stream, now >= end + DISCOUNTED_AFTER) for stream in known]
    chance = world.kept(
        ("infobip", "chance", period),
        lambda: [world.draw("infobip", period, number).randbytes(31) for number in range(len(known))],
    )
    midnight = start
    while midnight < min(end, now):
        passed = min(24, int((now - midnight) / timedelta(hours=1)))
        busy = pace(midnight.date()) * passed / 24
        for number, stream in enumerate(known):
            if stream.late and now < midnight + timedelta(hours=24 + stream.late):
                continue
            if stream.waived and now >= end + WAIVED_AFTER:
                continue
            volume = stream.volume * busy * (870 + chance[number][midnight.day - 1]) / 1000
            step = STEPS.get(stream.unit)
            quantity = (volume / step).quantize(1, ROUND_HALF_UP) * step if step else volume.quantize(1, ROUND_HALF_UP)
            if quantity:
                total = (prices[number] * quantity).quantize(CENT, ROUND_HALF_UP)
                yield Record(number, midnight.date(), prices[number], quantity, total)
        midnight += timedelta(days=1)


def _price(stream: Stream, discounted: bool) -> Decimal:
    if discounted and (stream.dimensions["CATEGORY_CODE"], stream.dimensions["DIRECTION"]) == ("SMS", "OUTBOUND"):
        return plain((stream.price * DISCOUNT).quantize(Decimal("0.000001"), ROUND_HALF_UP))
    return stream.price


def _copied(kind: Stream, copy: int) -> Stream:
    if copy == 0:
        return kind
    sender = kind.dimensions["SENDER"]
    other: dict[str, str | int] = {"ENTITY_ID": f"{kind.dimensions['ENTITY_ID']}-{copy:04}"}
    if sender != ABSENT:
        other["SENDER"] = f"{sender}{copy:04}"
    return kind._replace(dimensions=kind.dimensions | other)


@cache
def _kinds() -> tuple[Stream, ...]:
    countries = {country.code: country for country in COUNTRIES}
    accounts = list(HIERARCHY.items())
    found = []
    with Path(__file__).with_name("infobip.csv").open(encoding="utf-8", newline="") as catalogue:
        for row in csv.DictReader(catalogue):
            country = countries.get(row["country"])
            key, name = accounts[int(row["place"])]
            # How many of the country's networks are told apart; 0: the channel knows no networks.
            networks = country.networks[: int(row["networks"])] if country else ()
            for place, (code, network) in enumerate(networks or (("", ""),)):
                facts: dict[str, str | int] = {
                    "APPLICATION_ID": row["application"],
                    "ENTITY_ID": row["entity"],
                    "ACCOUNT_NAME": name,
                    "ACCOUNT_KEY": key,
                    "CATEGORY_CODE": row["category"],
                    "CATEGORY_NAME": CATEGORIES[row["category"]],
                    "SUBCATEGORY_CODE": row["subcategory"],
                    "SUBCATEGORY_NAME": SUBCATEGORIES.get(row["subcategory"], ""),
                    "USER_NAME": row["user"],
                    "DIRECTION": row["direction"],
                    "TRAFFIC_TYPE": row["traffic"],
                    "SENDER": row["sender"],
                    "SENDER_TYPE": row["sender_type"],
                    "NETWORK_NAME": network,
                    "NORM_NET_CODE": code,
                    "COUNTRY_NAME": country.name if country else "",
                    "COUNTRY_CODE": country.code if country else "",
                    "COUNTRY_PREFIX": country.prefix if country else "",
                    "CAMPAIGN_ID": int(row["campaign_id"] or 0),
                    "CAMPAIGN_REFERENCE": row["campaign_reference"],
                    "TEMPLATE_ID": row["template"],
                }
                found.append(
                    Stream(
                        dimensions={dimension: value or ABSENT for dimension, value in facts.items()},
                        unit=row["unit"],
                        price=Decimal(row["price"]),
                        currency=row["currency"],
                        volume=max(1, int(row["volume"]) * (55, 30, 15)[place] // 100),
                        late=int(row["late"]),
                        waived=row["waived"] == "yes",
                    )
                )
    return tuple(found)
