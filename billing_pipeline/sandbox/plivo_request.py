"""What Plivo is asked: the parameters of UsageSummary, their defaults, caps and errors.

Source: https://www.plivo.com/docs/account/api/usage-summary/ (read 2026-11)
"""

from __future__ import annotations

import calendar
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b

from starlette.datastructures import QueryParams

PRODUCTS = ("message", "voice", "zentrunk", "transcription", "other")
COARSER = {"hour": "day", "day": "month", "month": "year"}


class Refused(Exception):
    """A request Plivo answers with an error."""

    def __init__(self, status: int, error: str):
        super().__init__(error)
        self.status = status
        self.error = error


@dataclass(frozen=True)
class Asked:
    """A valid request, its defaults filled in; "" is a filter not set."""

    granularity: str
    start: date
    end: date
    """Exclusive."""
    products: tuple[str, ...]
    subaccount: str
    direction: str
    country: str
    error_code: str
    hangup_cause: str
    page_size: int

    def digest(self) -> str:
        """What a page token is bound to."""
        return blake2b(repr(astuple(self)).encode(), digest_size=9).hexdigest()


def asked(sent: QueryParams, today: date) -> Asked:
    """The parameters of a request, checked; the ones Plivo does not know are dropped without a word.

    Raises:
        Refused: 400, with the text Plivo would send.
    """
    if sent.get("subaccount_auth") == "":
        raise Refused(400, "subaccount_auth must be non-empty")
    granularity = _one_of("granularity", sent.get("granularity", "day"), ("hour", "day", "month", "year"))
    products = tuple(each.strip() for value in sent.getlist("product") for each in value.split(","))
    for product in products:
        _one_of("product", product, PRODUCTS)
    country = sent.get("country", "")
    if "country" in sent and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise Refused(400, "country must be an ISO-3166-1 alpha-2 code")
    size = sent.get("page_size", "100")
    if not (size.isascii() and size.isdigit() and 1 <= int(size[:9]) <= 1000):
        raise Refused(400, "page_size must be an integer between 1 and 1000")
    wanted = Asked(
        granularity,
        _date("from_date", sent["from_date"]) if "from_date" in sent else today - timedelta(days=7),
        _date("to_date", sent["to_date"]) if "to_date" in sent else today,
        tuple(sorted(set(products))) or PRODUCTS,
        sent.get("subaccount_auth", ""),
        _one_of("direction", sent["direction"], ("inbound", "outbound")) if "direction" in sent else "",
        country.upper(),
        sent.get("error_code", ""),
        sent.get("hangup_cause", ""),
        int(size),
    )
    _within_cap(wanted)
    return wanted


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise Refused(400, f"{name} must be one of {', '.join(allowed)}")
    return value


def _date(name: str, text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise Refused(400, f"{name} must be in YYYY-MM-DD format") from None


def _within_cap(asked: Asked) -> None:
    """The window caps, with Plivo's words for them."""
    if asked.end <= asked.start:
        raise Refused(400, "from_date must be before to_date")
    if asked.granularity == "month":
        months = (asked.end.year - asked.start.year) * 12 + asked.end.month - asked.start.month
        # A part of a month counts; from the 31st, a month is over on the last day of a shorter one.
        last_day = calendar.monthrange(asked.end.year, asked.end.month)[1]
        requested, cap, unit = months + (asked.end.day > min(asked.start.day, last_day)), 24, "months"
    else:
        requested, unit = (asked.end - asked.start).days, "days"
        cap = {"hour": 7, "day": 92}.get(asked.granularity, requested)
    if requested > cap:
        raise Refused(
            400,
            f"granularity={asked.granularity} supports a max window of {cap} {unit} (requested {requested} {unit}); "
            f"use granularity={COARSER[asked.granularity]} for larger windows",
        )
