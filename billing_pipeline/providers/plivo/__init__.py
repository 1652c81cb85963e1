"""Plivo: one walk over UsageSummary per calendar month, in days of UTC.

Usage rows come in pages behind an opaque cursor. Everything else (other_charges, total_spent) is on page 1 alone and is
taken from there alone.

Source: https://www.plivo.com/docs/account/api/usage-summary/ (read 2026-11)
"""

from __future__ import annotations

import json
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import accumulate, chain
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, SecretStr

from ... import charges, reconcile, rows
from ...finality import Calendar
from ...period import BillingPeriod, day_of
from ...provider import Access, Columns, Page, Pages, Provider, RateLimit, Restarted, Settings, Url
from ...reconcile import Statement, Tally
from ...rows import Rows, UnexpectedShape
from .pages import (
    COUNT,
    MEASURES,
    PAGE_SIZE,
    Charged,
    Count,
    Disturbed,
    Envelope,
    amount,
    came_twice,
    count_of,
    decoded,
    instant,
    listed,
    tolerance,
    unlisted,
    walk,
    walked,
)
from .seen import hashes, of_columns, repeated, twice

if TYPE_CHECKING:
    from ...transport import Auth

GRANULARITY = "day"
MAX_RESTARTS = 3

# What total_units counts. The values below are the documented ones; others pass through and are reported.
UNITS = {"message": "Message Segments", "voice": "Calls", "zentrunk": "Calls", "transcription": "Transcriptions"}
DIRECTIONS = {"inbound", "outbound"}

_USAGE_TEXTS = (
    "from_date",
    "to_date",
    "product",
    "type",
    "subaccount_auth",
    "country",
    "direction",
    "error_code",
    "hangup_cause",
    "error_reason",
)
_OTHER_TEXTS = ("from_date", "to_date", "description")
USAGE = pa.struct([(n, pa.string()) for n in _USAGE_TEXTS] + [(n, charges.DECIMAL) for n in MEASURES])
OTHER = pa.struct([(n, pa.string()) for n in _OTHER_TEXTS] + [(n, charges.DECIMAL) for n in MEASURES[:2]])


class PlivoSettings(Settings):
    """Keys of a Plivo account.

    Attributes:
        base_url: Plivo has one host for all regions.
        auth_id: the parent account's id, part of every path. The parent's answer contains all its sub-accounts.
        auth_token: the password of HTTP Basic authentication.
    """

    base_url: Url = "https://api.plivo.com"
    auth_id: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    auth_token: SecretStr


def auth(settings: PlivoSettings) -> Auth:
    """HTTP Basic: AUTH ID and AUTH TOKEN."""
    from ...transport import BasicAuth  # which who only reads answers does without

    return BasicAuth(settings.auth_id, settings.auth_token.get_secret_value())


T = TypeVar("T")


class _Other(msgspec.Struct, gc=False):
    from_date: str
    total_amount: Decimal
    description: str | None = None


def fetch(access: Access, period: BillingPeriod) -> Iterator[Page | Restarted]:
    """Every page of the month, unfiltered: a filter takes something away, and an unknown key is dropped silently.

    The window ends with the month, or with today while the month is running. A walk that breaks after page 1, or under which
    the data moved, begins anew at page 1, at most three times. The last attempt leaves today out where it can: on a busy
    account today's buckets grow from page to page, and never add up to the total of page 1.

    Raises:
        ValueError: the month has not begun.
        Refused: credentials, IP whitelist, window cap; never read as "no data".
        Unavailable: no answer to page 1, or a walk that still broke at the last attempt.
        RowsMoved: a bucket came twice, also at the last attempt.
        UnexpectedShape: an answer to another question, no total_spent on page 1, a cursor that does not end.
    """
    auth_id = cast("PlivoSettings", access.settings).auth_id
    tomorrow = day_of(access.now(), UTC) + timedelta(days=1)
    if tomorrow <= period.first_day:
        raise ValueError(f"{period} has not begun in UTC: there is nothing to ask for yet")
    question: dict[str, str | int] = {
        "granularity": GRANULARITY,
        "from_date": f"{period.first_day:%Y-%m-%d}",  # inclusive
        "to_date": f"{min(period.plus(1).first_day, tomorrow):%Y-%m-%d}",  # exclusive
        "page_size": PAGE_SIZE,
    }
    today = tomorrow - timedelta(days=1)
    for attempt in range(MAX_RESTARTS + 1):
        last = attempt == MAX_RESTARTS
        if last and period.first_day < today <= period.last_day:
            question["to_date"] = f"{today:%Y-%m-%d}"
        try:
            yield from walk(access, auth_id, question, str(period), at_rest=not last)
        except Disturbed as disturbed:
            if last:
                raise disturbed.error from None
            yield Restarted(traversal=str(period), reason=str(disturbed))
        else:
            return


def parse(pages: Pages, period: BillingPeriod, landing: str) -> Iterator[Columns]:
    """The month's charges: every usage bucket, and those other charges that begin in the month.

    Raises:
        UnexpectedShape: pages that are no complete unfiltered walk over the month; a row without what it must have; a
            bucket that is not one UTC day of the window; an amount that cannot be held exactly. Names page and row.
        RowsMoved: a bucket came twice; names one of them.
    """
    walk = walked(pages, period)
    page, first = next(walk)
    account = first.meta.auth_id or page.facts.get("auth_id")

    def shared(batch: Rows, name: str) -> dict[str, pa.Array]:
        for column in ("total_amount", "total_units"):
            _demand(batch, name, batch[column].is_valid(), f"has no {column}")
        return {
            "BilledCost": batch["total_amount"],
            "BillingAccountId": pa.repeat(pa.scalar(account, pa.string()), len(batch)),
            "BillingCurrency": pa.repeat(first.meta.currency, len(batch)),
            "ChargePeriodStart": _instants(batch, name, "from_date"),
            "ChargePeriodEnd": _instants(batch, name, "to_date"),
            "PricingQuantity": batch["total_units"],
            "x_RowSource": charges.row_source(landing, batch.page, name, batch.index),
            charges.UNKNOWN: batch[charges.UNKNOWN],
        }

    usage = ((p.number, listed(envelope.usage)) for p, envelope in chain([(page, first)], walk))
    met, places = hashes(()), Counter[int]()
    # A duration or surcharge with too many digits is no reason to lose a month: its digits stay in x_Dimensions.
    for batch in rows.read(usage, USAGE, inexact=frozenset({"duration_seconds", "surcharge"})):
        columns = shared(batch, "usage")
        start, end = columns["ChargePeriodStart"], columns["ChargePeriodEnd"]
        window = [pa.scalar(instant(t, "meta"), charges.INSTANT) for t in (first.meta.from_date, first.meta.to_date)]
        date = start.cast(pa.date32())
        midnight = pc.equal(start, date.cast(charges.INSTANT))  # floor_temporal takes 0.07 s for a million
        day = pc.and_(midnight, pc.equal(pc.subtract(end, start), pa.scalar(timedelta(days=1), pa.duration("us"))))
        inside = pc.and_(pc.greater_equal(start, window[0]), pc.less_equal(end, window[1]))
        _demand(batch, "usage", day, "is not exactly one day of UTC")
        _demand(batch, "usage", inside, "lies outside the window that was asked for")
        columns |= _usage_columns(batch) | {"x_UsageDate": date}
        met.extend(of_columns(start, {name: columns[name] for name in _APART}, _meant))
        places.update({each["values"]: each["counts"] for each in pc.value_counts(batch.page).to_pylist()})
        yield columns
    if moved := twice(met):
        again, before = (_place(row, places) for row in repeated(met))
        raise came_twice(moved, f"({again} is of what {before} is of)")
    for batch in rows.read([(page.number, listed(first.other_charges))], OTHER):
        columns = shared(batch, "other_charges") | _other_columns(batch)
        start = columns["ChargePeriodStart"]
        ours = pc.and_(pc.greater_equal(start, period.start(UTC)), pc.less(start, period.end(UTC)))
        yield {name: values.filter(ours) for name, values in columns.items()}


# What a bucket is of, beside its day; the walk looks at the same as it is written (404 and "404" are two there), or leaves it to
# this while rows are made beside it.
_APART = (
    "ServiceName", "x_Type", "SubAccountId", "x_DestinationCountry", "x_Direction", "x_Dimensions", charges.UNKNOWN,
)  # fmt: skip


def _meant(column: str, text: str) -> object:
    # As Decimal, for an int of more than 4,300 digits is refused.
    return (tuple(unlisted(json.loads(text, parse_int=Decimal))) or None) if column == charges.UNKNOWN else text


def _place(row: int, places: Counter[int]) -> str:
    """Of a row by how many stand before it, and how many each page has."""
    pages = sorted(places)
    starts = [0, *accumulate(places[page] for page in pages)]
    at = bisect(starts, row) - 1
    return f"page {pages[at]}, usage {row - starts[at]}"


def _usage_columns(batch: Rows) -> dict[str, pa.Array]:
    given = {name: _given(batch[name]) for name in _USAGE_TEXTS}
    _demand(batch, "usage", given["product"].is_valid(), "has no product")
    words = [given[name] for name in ("product", "type", "direction", "country")]
    return {
        "ChargeCategory": pa.repeat("Usage", len(batch)),
        "ChargeDescription": pc.binary_join_element_wise(*words, " ", null_handling="skip"),
        "ChargeFrequency": pa.repeat("Usage-Based", len(batch)),
        "PricingUnit": charges.mapped(given["product"], lambda product: UNITS.get(product, "Units")),
        "ServiceName": given["product"],
        "SubAccountId": given["subaccount_auth"],
        "x_DestinationCountry": given["country"],
        "x_Dimensions": charges.dimensions({n: given[n] for n in ("error_code", "hangup_cause", "error_reason")}),
        "x_Direction": given["direction"],
        "x_DurationSeconds": batch["duration_seconds"],
        "x_Surcharge": batch["surcharge"],
        "x_Type": given["type"],
    }


def _other_columns(batch: Rows) -> dict[str, pa.Array]:
    return {
        "ChargeCategory": pa.repeat("Purchase", len(batch)),
        "ChargeDescription": batch["description"],
        "ChargeFrequency": pa.repeat("Recurring", len(batch)),
        "PricingUnit": pa.repeat("Units", len(batch)),
        "ServiceName": pa.repeat("other", len(batch)),
    }


def statement(pages: Pages, period: BillingPeriod) -> Statement:
    """What the pages say about themselves.

    Returns:
        stated_cost: `meta.total_spent` of page 1: usage and other charges of the whole window and all sub-accounts.
        left_out: other charges that begin in another month. Rows and finality: not stated by Plivo.
        counted: usage rows as `pages.COUNT` of their page says, from when it came; of a page without it they are counted now.

    Raises:
        UnexpectedShape: as for `parse`.
    """
    counted, left_out = Tally(), Tally()
    stated: dict[str, Decimal] = {}
    notes: Counter[str] = Counter()
    for page, envelope in walked(pages, period):
        currency = envelope.meta.currency
        stated = stated or {currency: cast("Decimal", envelope.meta.total_spent)}
        usage = _count(page, envelope)
        others = _charges(envelope.other_charges, _Other, f"page {page.number}: other_charges")
        months = [BillingPeriod.of(instant(row.from_date, "other_charges"), UTC) for row in others]
        ours = [row for row, month in zip(others, months, strict=True) if month == period]
        counted += Tally(rows=usage.rows, totals={currency: usage.total_amount} if usage.rows else {})
        counted += _tally(ours, currency)
        theirs = [(row, month) for row, month in zip(others, months, strict=True) if month != period]
        left_out += _tally([row for row, _ in theirs], currency)
        notes.update(f"other charges of {month}, left to that month: {row.description!r}" for row, month in theirs)
        notes.update({f"unknown product {p!r}": count for p, count in usage.products.items() if p not in UNITS})
        notes.update({f"unknown direction {d!r}": n for d, n in usage.directions.items() if d and d not in DIRECTIONS})
        notes.update(f"negative other charge {row.description!r}" for row in others if row.total_amount < 0)
        if envelope.meta.granularity != GRANULARITY:
            notes[f"unknown granularity {envelope.meta.granularity!r}"] += 1
    return Statement(
        counted=counted,
        left_out=left_out,
        stated_cost=stated,
        tolerance=tolerance(counted.rows + left_out.rows),
        notes=tuple(f"{text} ({count})" for text, count in sorted(notes.items())),
    )


def _count(page: Page, envelope: Envelope) -> Count:
    """Of the usage rows of a page: as it was counted when the page came, else now; neither uses the parser of `parse`."""
    if COUNT in page.facts:
        kept: Count = decoded(page.facts[COUNT].encode(), Count, f"page {page.number}: what was counted in it")
        return kept
    return count_of(_charges(envelope.usage, Charged, f"page {page.number}: usage"))


def _charges(text: msgspec.Raw, kind: type[T], where: str) -> list[T]:
    found: list[T] = decoded(listed(text), list[kind], where)  # type: ignore[valid-type]
    if not all(map(Decimal.is_finite, map(amount, found))):
        raise UnexpectedShape(f"{where} has a total_amount that is no number")
    return found


def _tally(found: Sequence[_Other], currency: str) -> Tally:
    with localcontext(reconcile.EXACT):
        spent = sum(map(amount, found), Decimal(0))
    return Tally(rows=len(found), totals={currency: spent} if found else {})


def _given(values: pa.Array) -> pa.Array:
    """Texts without the empty ones: empty, null and a missing field all mean absent."""
    empty = pc.equal(values, "")
    if not pc.any(empty, min_count=0).as_py():
        return values
    return pc.if_else(empty, pa.scalar(None, pa.string()), values)


def _instants(batch: Rows, name: str, column: str) -> pa.Array:
    encoded = batch[column].dictionary_encode()
    instants = pa.array([_moment(text) for text in encoded.dictionary.to_pylist()], charges.INSTANT).take(
        encoded.indices
    )
    _demand(batch, name, instants.is_valid(), f"has no {column} like 2026-05-01T00:00:00Z")
    return instants


def _moment(text: str) -> datetime | None:
    try:
        return instant(text, "")
    except UnexpectedShape:
        return None  # the caller names the row


def _demand(batch: Rows, name: str, fulfilled: pa.Array, complaint: str) -> None:
    if not pc.all(fulfilled, min_count=0).as_py():
        at = pc.index(fulfilled, False).as_py()
        raise UnexpectedShape(f"page {batch.page[at]}, {name} {batch.index[at]} {complaint}")


FIELDS = {
    "meta.auth_id": ("BillingAccountId",),
    "meta.currency": ("BillingCurrency",),
    "usage[].from_date": ("ChargePeriodStart", "x_UsageDate"),
    "usage[].to_date": ("ChargePeriodEnd",),
    "usage[].product": ("ServiceName", "ChargeDescription", "PricingUnit"),
    "usage[].type": ("x_Type", "ChargeDescription"),
    "usage[].subaccount_auth": ("SubAccountId",),
    "usage[].country": ("x_DestinationCountry", "ChargeDescription"),
    "usage[].direction": ("x_Direction", "ChargeDescription"),
    "usage[].error_code": ("x_Dimensions",),
    "usage[].hangup_cause": ("x_Dimensions",),
    "usage[].error_reason": ("x_Dimensions",),
    "usage[].total_units": ("PricingQuantity", "ConsumedQuantity"),
    "usage[].total_amount": charges.COSTS,
    "usage[].duration_seconds": ("x_DurationSeconds",),
    "usage[].surcharge": ("x_Surcharge",),
    "other_charges[].from_date": ("ChargePeriodStart",),
    "other_charges[].to_date": ("ChargePeriodEnd",),
    "other_charges[].description": ("ChargeDescription",),
    "other_charges[].total_units": ("PricingQuantity",),
    "other_charges[].total_amount": charges.COSTS,
}
UNUSED = {
    "meta.total_spent": "a control total: compared with the rows",
    "meta.from_date": "the question again: compared with it",
    "meta.to_date": "the question again: compared with it",
    "meta.granularity": "the question again: compared with it",
    "meta.page_size": "paging",
    "meta.next_page_token": "paging",
    "meta.subaccount_auth": "a filter that is never sent",
    "meta.subaccount_spend": "the same money again, by sub-account",
    "api_id": "a number of the request",
}


PROVIDER = Provider(
    name="plivo",
    title="Plivo",
    # No finality flag exists. Number rentals and taxes are computed during invoicing, on the first business day of the next
    # month: https://support.plivo.com/hc/en-us/articles/360054980172 (read 2026-11). Retention is documented nowhere.
    calendar=Calendar(timezone=UTC, settles_after=timedelta(days=4)),
    settings=PlivoSettings,
    # The endpoint's own limit and that of the whole account:
    # https://docs.plivo.com/docs/voice/concepts/account-limits (read 2026-11)
    rate_limits=(RateLimit(requests=20, seconds=60), RateLimit(requests=300, seconds=5)),
    fetch=fetch,
    parse=parse,
    statement=statement,
    auth=auth,
    fields=FIELDS,
    unused=UNUSED,
)
