"""Infobip: what a company's accounts were charged per day and dimension, from the Billing Usage API.

Asked once per month and answered by callback (`query`). What the numbers do not contain: numbers, voice, platform
fees and whatever else has no category here, so they are not the whole invoice; of fixed WhatsApp plans they show overage
only; they count charged messages only, and one data centre.

Sources: https://www.infobip.com/docs/billing-usage-api, .../query-billing-data, .../billing-data-reference and the
operation's OpenAPI (read 2026-11; the endpoint is early access).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext

import ijson
import pyarrow.compute as pc

from ... import charges
from ...period import BillingPeriod
from ...provider import Columns, Page, Pages, Provider, RateLimit
from ...reconcile import EXACT, Statement, Tally
from ...rows import UnexpectedShape
from . import reading
from .query import AGGREGATE_BY, CALENDAR, InfobipSettings, fetch
from .reading import Envelope, Response
from .rows import ABSENT, COST, columns, day, money, not_as_wide

__all__ = ["PROVIDER", "InfobipSettings", "fetch", "parse", "statement"]

CATEGORIES = frozenset({
    "SMS", "SMS_OPERATOR_FEE", "MMS", "MMS_OPERATOR_FEE", "EMAIL", "RCS", "WHATSAPP", "VIBER", "MOBILE_PUSH",
    "NUMBER_LOOKUP", "CARRIER_LOOKUP", "EMAIL_VALIDATION", "AGENTOS", "APPLE_MB", "AI",
})  # fmt: skip
"""Known categories. The list grows: an unknown one is charged like the others, and reported."""


@dataclass(frozen=True)
class _Opened:
    """A letter whose envelope was found in order."""

    page: Page
    envelope: Envelope
    response: Response
    names: Sequence[str]
    until: date
    notes: Sequence[str]


def parse(pages: Pages, period: BillingPeriod, landing: str) -> Iterator[Columns]:
    """The month's rows, some thousand at a time. One row is one combination of dimensions, unit, price and currency.

    BilledCost is TOTAL_PER_UNIT: the row's total, despite its name. Who pays is not stated, so BillingAccountId is the
    row's ACCOUNT_KEY. A UNIT_PRICE or QUANTITY with more digits than the schema holds is null and kept in x_Dimensions.

    Raises:
        UnexpectedShape: the letter answers another question, covers less than the month, or holds a row without an amount,
            a day or a value for every column.
    """
    opened = _open(pages, period)
    first = 0
    with opened.page.open() as stream:
        for rows in reading.rows(stream):
            found = columns(rows, opened.names, first, opened.page.number, landing)
            first += len(rows)
            inside = pc.and_(
                pc.greater_equal(found["x_UsageDate"], period.first_day),
                pc.less_equal(found["x_UsageDate"], period.last_day),
            )
            yield {name: values.filter(inside) for name, values in found.items()}


def statement(pages: Pages, period: BillingPeriod) -> Statement:
    """What the letter says about itself, its rows read by ijson and its money added as Decimals.

    Returns:
        stated_rows: `totalRows`; the days of other months that a widened period brings are `left_out`. stated_cost: Infobip
        states none. flag: `volumeFinalized` of this month, which speaks of volumes; None when the month is not listed.

    Raises:
        UnexpectedShape: as `parse`.
    """
    opened = _open(pages, period)
    place = {name: number for number, name in enumerate(opened.names)}
    day_at, amount_at, currency_at = (place[name] for name in ("DAY", "TOTAL_PER_UNIT", "CURRENCY"))
    category_at = place.get("CATEGORY_CODE")
    rows = {True: 0, False: 0}
    totals: dict[bool, dict[str, Decimal]] = {True: defaultdict(Decimal), False: defaultdict(Decimal)}
    days: set[date] = set()
    categories: set[str | None] = set()
    try:
        with localcontext(EXACT), opened.page.open() as stream:
            for number, row in enumerate(ijson.items(stream, "response.rows.item")):
                if not isinstance(row, list) or len(row) != len(place):
                    raise UnexpectedShape(not_as_wide(number, len(place)))
                used_on, amount, currency = day(row[day_at], number), money(row[amount_at], number), row[currency_at]
                if not isinstance(currency, str) or currency == ABSENT:
                    raise UnexpectedShape(
                        f"row {number} has no CURRENCY, so its amount says nothing; the month stays as it was"
                    )
                inside = used_on in period
                rows[inside] += 1
                totals[inside][currency] += amount
                if inside:
                    days.add(used_on)
                if category_at is not None:
                    categories.add(None if row[category_at] in (None, ABSENT) else str(row[category_at]))
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise UnexpectedShape(f"the letter is not JSON to its end: {error}") from error
    notes, doubt = _last_day(opened, period, days)
    flags = opened.envelope.metadata.billingPeriods if opened.envelope.metadata else []
    return Statement(
        counted=Tally(rows=rows[True], totals=dict(totals[True])),
        left_out=Tally(rows=rows[False], totals=dict(totals[False])),
        stated_rows=opened.response.totalRows,
        flag=next((month.volumeFinalized for month in flags if month.month == str(period)), None),
        doubt=doubt,
        notes=(*opened.notes, *_strange(opened, categories), *notes),
    )


def _letter_page(pages: Pages) -> Page:
    letters = [page for page in pages if page.facts.get("role") == "letter"]
    if len(letters) != 1:
        raise UnexpectedShape(f"the landing holds {len(letters)} letters instead of one; fetch the month again")
    return letters[0]


def _submitted(page: Page) -> datetime:
    return datetime.fromisoformat(page.facts["submitted_at"])


def _open(pages: Pages, period: BillingPeriod) -> _Opened:
    """The letter, after its envelope was compared with what was asked."""
    page = _letter_page(pages)
    with page.open() as stream:
        envelope = reading.envelope(stream)
    if envelope.requestId != page.facts["requestId"]:
        raise UnexpectedShape(
            f"the letter answers request {envelope.requestId[:60]!r}, not {page.facts['requestId']}; fetch the month again"
        )
    response = envelope.response
    if envelope.status != "SUCCESS" or response is None:
        raise UnexpectedShape(
            f"the letter's status is {envelope.status[:60]!r} ({(envelope.failureMessage or 'no reason given')[:300]}) "
            f"and it has {'no' if response is None else 'a'} response; fetch the month again"
        )
    notes = list(json.loads(page.facts.get("notes", "[]")))
    until = _granted(page, envelope, response, period, notes)
    names = [column.columnName for column in response.columns]
    if len(set(names)) != len(names):
        raise UnexpectedShape(f"a column stands twice in {names}; which one holds is anyone's guess")
    for wanted in (
        {"DAY"}, {"CATEGORY_CODE", "CATEGORY_NAME"}, {"ACCOUNT_KEY", "ACCOUNT_NAME"}, {"TOTAL_PER_UNIT"}, {"CURRENCY"},
    ):  # fmt: skip
        if not wanted & set(names):
            raise UnexpectedShape(f"the letter has no column {' or '.join(sorted(wanted))}, only {names}")
    return _Opened(page, envelope, response, names, until, notes)


def _granted(page: Page, envelope: Envelope, response: Response, period: BillingPeriod, notes: list[str]) -> date:
    """The last or the first uncovered day (readings differ) of the period that was answered, when that is the whole month."""
    asked_until = day(page.facts["sentUntil"])
    asked = envelope.metadata.clientRequestedPeriod if envelope.metadata else None
    if asked is None:
        notes.append("the letter does not repeat which period was asked for")
    elif day(asked.sentSince) != period.first_day or day(asked.sentUntil) not in (
        asked_until,
        asked_until - timedelta(days=1),
    ):
        raise UnexpectedShape(
            f"the letter answers a question for {asked.sentSince} to {asked.sentUntil}, and {period.first_day} to "
            f"{asked_until} was asked; it is not ours"
        )
    since, until = day(response.requestedPeriod.sentSince), day(response.requestedPeriod.sentUntil)
    # Inclusive (the guide's example) or exclusive (the OpenAPI): both ends of a whole month are a whole month. Of a running
    # month nothing is billed after the day on which it was asked for.
    needed = min(period.last_day, _submitted(page).date())
    if since > period.first_day or until < needed:
        raise UnexpectedShape(
            f"the answer was trimmed to {since} to {until}, and {period.first_day} to {period.last_day} was asked. What is "
            "missing is not zero: the month was not replaced. Ask again later; if it stays so, ask Infobip why"
        )
    if since < period.first_day or until > period.plus(1).first_day:
        notes.append(f"the answer was widened to {since} to {until}; days of other months are left out")
    return until


def _last_day(opened: _Opened, period: BillingPeriod, days: set[date]) -> tuple[list[str], str | None]:
    """Whether the month's last day may have been lost to the other reading of sentUntil."""
    over = _submitted(opened.page) >= period.end(UTC)
    if not over or period.last_day in days or period.last_day - timedelta(days=1) not in days:
        return [], None
    if opened.until > period.last_day:
        return [f"no charge on {period.last_day}, though there are some on the day before"], None
    lost = f"no charge on {period.last_day}, where the answered period ends by one reading and which it leaves out by the other"
    return [lost], lost


def _strange(opened: _Opened, categories: set[str | None]) -> Iterator[str]:
    documented = {*AGGREGATE_BY, *COST, "MONTH", "CATEGORY_NAME", "SUBCATEGORY_NAME", "COUNTRY_PREFIX", "USER_NAME"}
    if None in categories:
        yield f"some rows have no category; their ServiceName is {ABSENT}"
    if unknown := sorted(category for category in categories if category and category not in CATEGORIES):
        yield f"categories that were unknown in 2026-11, charged like any other: {', '.join(unknown)[:300]}"
    if strange := sorted(set(opened.names) - documented):
        yield f"columns that were unknown in 2026-11, kept in x_Dimensions: {', '.join(strange)[:300]}"


FIELDS = {
    **{f"response.rows[].{name}": ("x_Dimensions",) for name in AGGREGATE_BY},
    "response.rows[].TOTAL_PER_UNIT": charges.COSTS,
    "response.rows[].CURRENCY": ("BillingCurrency",),
    "response.rows[].ACCOUNT_KEY": ("BillingAccountId",),
    "response.rows[].ACCOUNT_NAME": ("BillingAccountName",),
    "response.rows[].DAY": ("x_UsageDate", "ChargePeriodStart", "ChargePeriodEnd"),
    "response.rows[].CATEGORY_CODE": ("ServiceName", "ChargeDescription"),
    "response.rows[].TRAFFIC_TYPE": ("x_Type",),
    "response.rows[].DIRECTION": ("x_Direction",),
    "response.rows[].COUNTRY_CODE": ("x_DestinationCountry", "ChargeDescription"),
    "response.rows[].QUANTITY": ("PricingQuantity", "ConsumedQuantity"),
    "response.rows[].UNIT_TYPE": ("x_UnitRaw", "PricingUnit", "ConsumedUnit"),
    "response.rows[].UNIT_PRICE": ("x_UnitPrice",),
}
UNUSED = {
    "response.totalRows": "a control total: compared with the rows",
    "response.columns": "the names of the rows' values",
    "response.requestedPeriod": "the question again: compared with it",
    "metadata.clientRequestedPeriod": "the question again",
    "metadata.billingPeriods[].month": "the month that volumeFinalized speaks of",
    "metadata.billingPeriods[].volumeFinalized": "decides whether the month is final: x_FinalityEvidence of billing_periods",
    "requestId": "compared with the request's",
    "status": "anything but SUCCESS stops the month",
}


PROVIDER = Provider(
    name="infobip",
    title="Infobip",
    calendar=CALENDAR,
    settings=InfobipSettings,
    headers=lambda settings: {"Authorization": f"App {settings.api_key.get_secret_value()}"},
    # Documented as 60 requests in "0 s"; a month needs one.
    rate_limits=(RateLimit(requests=1, seconds=1),),
    fetch=fetch,
    parse=parse,
    statement=statement,
    fields=FIELDS,
    unused=UNUSED,
)
