"""What Plivo bills Acme: one row per day and combination of dimensions, and the month-end charges.

How a month changes, by the clock (UTC):

- a day's rows appear on that day and grow with its hours; some appear only on the next afternoon, and everything
  is a little short until the day after the next, when some failed messages, delivered after all, disappear;
- number rental, recording storage and taxes are computed with the invoice, on the 3rd of the next month;
- a volume discount reprices the outbound text messages of the whole month on the 4th, at noon;
- from the 5th on nothing changes.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

from billing_pipeline.sandbox.world import COUNTRIES, SINCE, World, pace

SHOP, PARCEL, CARE = "SAACMESHOPSANDBOX001", "SAACMEPARCELSANDBOX2", "SAACMECARESANDBOX003"

ACCOUNTS: dict[str, dict[str, object]] = {
    "main": {
        "auth_id": "MAACMERETAILSANDBOX1",
        "auth_token": "sandbox-plivo-main-token",
        "currency": "USD",
        "subaccounts": [SHOP, PARCEL, CARE],
    },
    "emea": {
        "auth_id": "MAACMEEMEASANDBOX002",
        "auth_token": "sandbox-plivo-emea-token",
        "currency": "EUR",
        "subaccounts": [],
    },
}

DISCOUNTED = Decimal("0.94")
"""What is left of a text message's price once the month's volume is known."""

SMS_PRICES = {
    "US": Decimal("0.0055"), "GB": Decimal("0.0414"), "MX": Decimal("0.0452"), "BR": Decimal("0.0289"),
    "CA": Decimal("0.0065"), "SG": Decimal("0.0433"), "IN": Decimal("0.00279"), "AU": Decimal("0.0512"),
    "PR": Decimal("0.03429"), "DE": Decimal("0.0829"), "FR": Decimal("0.0671"), "ES": Decimal("0.0575"),
    "IT": Decimal("0.0741"),
}  # fmt: skip
ELSEWHERE = Decimal("0.0617")

FAILED = (("200", "Opt-out block"), ("50", "Invalid destination number"), ("80", "Destination temporarily unavailable"),
          ("420", "Message expired"), ("30", "Spam detected"), ("1000", "Unknown error"))  # fmt: skip
WEIGHTS = {country.code: country.weight for country in COUNTRIES}


class Line(NamedTuple):
    """One combination of dimensions that Acme's traffic takes."""

    product: str
    type: str
    subaccount: str = ""
    country: str = ""
    direction: str = ""
    error_code: str = ""
    hangup_cause: str = ""
    error_reason: str = ""
    units: int = 0
    """On an average day."""
    price: Decimal = Decimal(0)
    """Per unit; per minute where seconds are billed."""
    surcharge: Decimal = Decimal(0)
    """Per unit, the carrier's."""
    seconds: int = 0
    """Per unit; 0 where seconds are not billed."""
    often: int = 97
    """On how many days of a hundred there is such traffic."""


class Usage(NamedTuple):
    """One bucket of usage; "" is an absent dimension."""

    start: datetime
    product: str
    type: str
    subaccount: str
    country: str
    direction: str
    error_code: str
    hangup_cause: str
    error_reason: str
    units: int
    seconds: Decimal | None
    amount: Decimal
    surcharge: Decimal
    """A part of `amount`."""


class Other(NamedTuple):
    """One charge that is not traffic; it covers a calendar month."""

    start: datetime
    end: datetime
    description: str
    units: int
    amount: Decimal


def month_start(period: str) -> datetime:
    """2026-05 -> 1 May 2026, 00:00 UTC.

    Raises:
        ValueError: not a month.
    """
    first = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    if f"{first:%Y-%m}" != period:  # chance falls by the text
        raise ValueError(f"a month is written {first:%Y-%m}, not {period}")
    return first


def month_end(period: str) -> datetime:
    """2026-05 -> 1 June 2026, 00:00 UTC."""
    first = month_start(period)
    return first + timedelta(days=calendar.monthrange(first.year, first.month)[1])


def state(period: str, at: datetime) -> datetime:
    """The earliest instant at which Plivo would have answered the same as at `at`: the hour, and never after the 5th."""
    return min(at.replace(minute=0, second=0, microsecond=0), month_end(period) + timedelta(days=4))


def usage(world: World, account: str, period: str, at: datetime) -> list[Usage]:
    """The month's daily buckets as they stand at an instant, by date and dimensions."""
    seen = state(period, at)
    return world.kept(("plivo", account, period, seen), lambda: sorted(_usage(world, account, period, seen)))


def other_charges(world: World, account: str, period: str, at: datetime) -> list[Other]:
    """The month's charges that are not traffic, as they stand at an instant."""
    start, end, at = month_start(period), month_end(period), state(period, at)
    if start.date() < SINCE or at < start:
        return []
    found: list[Other] = []
    months = (start.year - SINCE.year) * 12 + start.month - SINCE.month
    if account == "main":
        days = (min(at, end) - start).days
        looked_up = sum(world.draw("plivo", "cnam", period, day).randrange(4, 19) for day in range(days))
        if looked_up:
            found.append(Other(start, end, "CNAM Lookup", looked_up, looked_up * Decimal("0.004")))
        if start.month in (1, 4, 7, 10):  # charged for the quarter, on its first day
            found.append(Other(start, end, "Short Code Charges", 1, Decimal("1500")))
    if at >= end + timedelta(days=2):
        numbers = (120 if account == "main" else 34) + months
        found.append(Other(start, end, "Number Charges", numbers, numbers * Decimal("0.7917")))
        minutes = world.draw("plivo", "recordings", account, period).randrange(20_000, 60_000)
        found.append(Other(start, end, "Recording Storage", minutes, minutes * Decimal("0.0004")))
        taxed = sum((row.amount for row in usage(world, account, period, at)), Decimal(0))
        found.append(Other(start, end, "Other Charges", 1, _rounded(taxed * Decimal("0.0573"), "0.0001")))
    return sorted(found, key=lambda other: other.description)


def _usage(world: World, account: str, period: str, at: datetime) -> Iterator[Usage]:
    first = month_start(period)
    days = [first + timedelta(days=day) for day in range((month_end(period) - first).days)]
    days = [day for day in days if SINCE <= day.date() <= at.date()]
    if not days:
        return
    discounted = at >= month_end(period) + timedelta(days=3, hours=12)
    for line in lines(world, account):
        chance = world.draw("plivo", account, period, *line[:7])
        for day in days:
            traffic, noise, fate, length = (chance.randrange(100) for _ in range(4))
            whole = int(line.units * pace(day.date()) * (70 + noise * 60 // 99) / 100)
            units = _arrived(whole, fate, bool(line.error_code), at - day)
            if traffic < line.often and units:
                yield _priced(line, day, units, length, discounted)


def _arrived(units: int, fate: int, failed: bool, age: timedelta) -> int:
    """How many of a day's units are known when the day is `age` old."""
    late = fate < 12
    if age >= timedelta(days=2):
        return 0 if failed and fate >= 75 else units  # delivered after all
    if age >= timedelta(days=1):
        return 0 if late and age < timedelta(days=1, hours=12) else units * 97 // 100
    return 0 if late else units * (age // timedelta(hours=1) + 1) // 25


def _priced(line: Line, day: datetime, units: int, length: int, discounted: bool) -> Usage:
    seconds = None
    amount = units * line.price
    if line.seconds:
        seconds = Decimal(units * line.seconds * (80 + length * 40 // 99) // 100)
        if line.product == "transcription":
            seconds += Decimal(length) / 100  # of recordings, which do not end on the second
        amount = _rounded(seconds * line.price / 60)
    if discounted and line.product == "message" and line.direction == "outbound":
        amount = _rounded(amount * DISCOUNTED)
    surcharge = units * line.surcharge
    return Usage(day, *line[:8], units, seconds, amount + surcharge, surcharge)


def _rounded(amount: Decimal, to: str = "0.00001") -> Decimal:
    return amount.quantize(Decimal(to), ROUND_HALF_UP)


def lines(world: World, account: str) -> list[Line]:
    """The account's kinds of traffic: about 30 for the main account at scale 1, every product and type among them."""
    carrier = Decimal("0.0035")
    if account == "main":
        known = [
            _sms("US", surcharge=carrier),
            _sms("US", SHOP, surcharge=Decimal("0.0045")),
            Line("voice", "pstn", "", "US", "outbound", units=410, price=Decimal("0.0115"), seconds=74),
            Line("transcription", "auto", units=95, price=Decimal("0.0095"), seconds=132, often=90),
            _sms("PR", failed=0),
            _sms("GB"), _sms("GB", PARCEL), _sms("MX"), _sms("MX", SHOP), _sms("BR", SHOP), _sms("CA", surcharge=carrier),
            _sms("SG", PARCEL), _sms("IN", SHOP), _sms("AU", PARCEL),
            _sms("US", failed=0, surcharge=carrier), _sms("US", failed=1), _sms("MX", SHOP, failed=2), _sms("GB", failed=3),
            Line("message", "mms", "", "US", "outbound", units=120, price=Decimal("0.018"), surcharge=Decimal("0.0082")),
            Line("message", "mms", SHOP, "US", "inbound", units=22, price=Decimal("0.0165"), often=80),
            Line("message", "sms", "", "US", "inbound", units=310, price=Decimal("0.0055"), surcharge=Decimal("0.0012")),
            Line("message", "sms", CARE, "GB", "inbound", units=90),  # free
            Line("voice", "pstn", CARE, "US", "inbound", units=260, price=Decimal("0.0055"), seconds=215),
            Line("voice", "pstn", CARE, "GB", "outbound", units=140, price=Decimal("0.0158"), seconds=160),
            Line("voice", "pstn", "", "US", "outbound", hangup_cause="3010", error_reason="Busy Line", units=35, seconds=2),
            Line("voice", "pstn", CARE, "MX", "outbound", hangup_cause="3000", error_reason="No Answer", units=18,
                 price=Decimal("0.0210"), seconds=30, often=75),
            Line("zentrunk", "pstn", "", "US", "outbound", units=520, price=Decimal("0.0065"), seconds=118),
            Line("zentrunk", "pstn", CARE, "US", "inbound", hangup_cause="4010", error_reason="End Of XML Instructions",
                 units=40, price=Decimal("0.0030"), seconds=61, often=85),
            Line("transcription", "auto", CARE, units=44, price=Decimal("0.0095"), seconds=240, often=90),
        ]  # fmt: skip
    else:
        known = [
            _sms("DE"), _sms("FR"),
            Line("voice", "pstn", "", "DE", "outbound", units=330, price=Decimal("0.0146"), seconds=96),
            Line("transcription", "auto", units=51, price=Decimal("0.0088"), seconds=174, often=90),
            _sms("ES"), _sms("IT"), _sms("DE", failed=1), _sms("FR", failed=2),
            Line("message", "sms", "", "DE", "inbound", units=75),  # free
            Line("voice", "pstn", "", "FR", "outbound", hangup_cause="3000", error_reason="No Answer", units=12, seconds=25),
            Line("zentrunk", "pstn", "", "DE", "inbound", units=210, price=Decimal("0.0041"), seconds=140),
        ]  # fmt: skip
    wanted = world.scaled(len(known))
    return [*known[:wanted], *(_branch(number, account) for number in range(wanted - len(known)))]


def _sms(country: str, subaccount: str = "", failed: int | None = None, surcharge: Decimal = Decimal(0)) -> Line:
    price, units = SMS_PRICES.get(country, ELSEWHERE), WEIGHTS[country] * 9 // (2 if subaccount else 1) + 3
    if failed is None:
        return Line("message", "sms", subaccount, country, "outbound", units=units, price=price, surcharge=surcharge)
    code, reason = FAILED[failed]
    price = price if code == "200" else Decimal(0)  # billed although it failed, as in Plivo's own example
    return Line(
        "message", "sms", subaccount, country, "outbound", code, "", reason, units // 20 + 2, price, surcharge, often=70
    )


def _branch(number: int, account: str) -> Line:
    """The traffic of one more branch of the company: how a larger scale makes more rows."""
    branch, rest = divmod(number, len(COUNTRIES) * 3)
    kind, place = divmod(rest, len(COUNTRIES))
    subaccount = f"SA{'EU' if account == 'emea' else 'US'}BRANCH{branch:010d}"
    return _sms(COUNTRIES[place].code, subaccount, failed=None if kind == 0 else kind - 1)


def periods(start: date, end: date) -> list[str]:
    """The months that touch [start, end), none before the company's first."""
    first = max(start, SINCE).replace(day=1)
    found: list[str] = []
    while first < end:
        found.append(f"{first:%Y-%m}")
        first = (first + timedelta(days=31)).replace(day=1)
    return found


def midnight(day: date) -> datetime:
    """The start of a UTC day."""
    return datetime.combine(day, time(), UTC)
