"""Talkdesk: one walk along `next` links brings every month of every account of the organization, one row a product.

Source: https://docs.talkdesk.com/reference/billing-insights-get-monthly-usage and the platform's paging, token and region
pages below https://docs.talkdesk.com/docs/ (read 2026-11).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, timedelta
from decimal import Decimal, localcontext
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from ... import charges
from ...finality import Calendar
from ...period import BillingPeriod
from ...provider import Access, Columns, Page, Pages, Provider, RateLimit, Restarted
from ...reconcile import EXACT, Statement, Tally
from ...rows import Rows, UnexpectedShape, read
from .client import SCOPE, ClientCredentials, TalkdeskSettings
from .invoices import INVOICES
from .pages import Answer, answered, decoded, repeated
from .walk import MAX_PAGES, walk

__all__ = ["MAX_PAGES", "PROVIDER", "ClientCredentials"]

ACCOUNT = ("account ID", "account_id", "accountId")  # the page writes the first, the platform elsewhere the second
PREPAID = ("RECHARGE", "CREDIT_COMMIT")
RECURRING = ("NUMBER", "PRODUCT_SERVICE")
DOCUMENTED: dict[str, set[str | None]] = {
    "type": {*PREPAID, *RECURRING, "AMD", "API_REQUEST", "CALL", "CALL_SERVICE", "DIALER", "MESSAGE",
             "SPEECH_TRANSCRIPTION", "VOICEMAIL_TRANSCRIPTION", "OTHER"},
    "direction": {None, "INBOUND", "OUTBOUND", "OTHER"},
    "resolution": {None, "ABANDONED", "ANSWERED", "MACHINE", "MISSED", "VOICEMAIL", "OTHER"},
    "unit": {"CHARS", "CONVERSATIONS", "GB", "MINUTES", "NUMBERS", "PAGES", "REQUESTS", "SECONDS", "SEGMENTS", "SESSIONS",
             "OTHER"},
}  # fmt: skip
_DIMENSIONS = ("id", "product_id", "aggr_product_id", "resolution", "wallet_name")
_TEXTS = (*_DIMENSIONS, *ACCOUNT, "month", "type", "description", "currency", "direction", "unit")
_AMOUNTS = ("price", "number_of_units", "total_amount")
ROW = pa.struct([(name, pa.string()) for name in _TEXTS] + [(name, charges.DECIMAL) for name in _AMOUNTS])


class _Row(msgspec.Struct):
    month: str
    type: str
    currency: str
    total_amount: Decimal
    id: str | None = None
    direction: str | None = None
    resolution: str | None = None
    unit: str | None = None


def fetch(access: Access, period: BillingPeriod) -> Iterator[Page | Restarted]:
    """Every page of one walk along the `next` links, whatever month is asked: the API names no month parameter.

    The list has no snapshot: a row that leaves it during the walk pulls another one over a page border, unseen, and no total is
    promised that would tell. So a list of several pages is walked twice, and anew until both walks list the same rows.

    Raises:
        Refused, Unavailable: see `transport`; never the end of the pages.
        UnexpectedAnswer: a page without `_embedded.usage`, a link to another host or back, a count that is not what came, a
            list that moved during every walk.
    """
    settings = cast("TalkdeskSettings", access.settings)
    query = urlencode({name: value.replace("{month}", str(period)) for name, value in settings.query.items()})
    url = f"{settings.base_url}/express/usage/month" + (f"?{query}" if query else "")
    return walk(access, url, SCOPE, _listed)


def _listed(page: Page) -> tuple[Answer, msgspec.Raw]:
    answer = answered(page)
    return answer, answer.embedded.usage


def parse(pages: Pages, period: BillingPeriod, landing: str) -> Iterator[Columns]:
    """The rows whose own `month` is asked; rows of the others are their months' business. Repeated rows are left out.

    Raises:
        UnexpectedShape: a row without account, month, type, currency or total_amount; two rows with one id that differ.
    """
    repeats = repeated(pages)
    lists = ((page.number, bytes(answered(page).embedded.usage)) for page in pages)
    # Neither is money to be added up: too many digits are no reason to lose a month, and stay in x_Dimensions.
    for rows in read(lists, ROW, inexact=frozenset({"price", "number_of_units"})):
        account = _account(rows)
        for name in ("month", "type", "currency", "total_amount"):
            _present(rows, name, rows[name])
        for month in pc.unique(rows["month"]).to_pylist():
            if not _is_month(month):
                at = _where(rows, pc.equal(rows["month"], month))
                raise UnexpectedShape(f"{at}: month is {month!r}, not written YYYY-MM")
        mine = pc.equal(rows["month"], str(period))
        if repeats:
            places = zip(rows.page.to_pylist(), rows.index.to_pylist(), strict=True)
            mine = pc.and_(mine, pa.array([place not in repeats for place in places], pa.bool_()))
        kept = Rows(rows.columns.filter(mine), rows.page.filter(mine), rows.index.filter(mine))
        if len(kept):
            yield _columns(kept, account.filter(mine), period, landing)


def _columns(rows: Rows, account: pa.Array, period: BillingPeriod, landing: str) -> Columns:
    kind, units, quantity = rows["type"], rows["unit"], rows["number_of_units"]
    frequency = {**dict.fromkeys(PREPAID, "One-Time"), **dict.fromkeys(RECURRING, "Recurring")}
    none = pa.scalar(None, pa.string())
    return {
        "BilledCost": rows["total_amount"],
        "BillingAccountId": account,
        "BillingCurrency": rows["currency"],
        "ChargeCategory": charges.mapped(kind, lambda text: "Purchase" if text in frequency else "Usage"),
        "ChargeDescription": rows["description"],
        "ChargeFrequency": charges.mapped(kind, lambda text: frequency.get(text, "Usage-Based")),
        # The page does not say whose midnight; UTC until Talkdesk does.
        "ChargePeriodStart": pa.repeat(pa.scalar(period.start(UTC), charges.INSTANT), len(rows)),
        "ChargePeriodEnd": pa.repeat(pa.scalar(period.end(UTC), charges.INSTANT), len(rows)),
        "PricingQuantity": quantity,
        "PricingUnit": pc.if_else(quantity.is_null(), none, charges.unit(units).fill_null("Units")),
        "ServiceName": kind,
        "x_Dimensions": charges.dimensions({name: rows[name] for name in _DIMENSIONS}),
        "x_Direction": rows["direction"],
        "x_IsPrepayment": pc.is_in(kind, pa.array(PREPAID)),
        "x_RowSource": charges.row_source(landing, rows.page, "_embedded", "usage", rows.index),
        "x_Type": kind,
        "x_UnitPrice": rows["price"],
        "x_UnitRaw": units,
        charges.UNKNOWN: rows[charges.UNKNOWN],
    }


def statement(pages: Pages, period: BillingPeriod) -> Statement:
    """What the traversal holds of the month, and of the others.

    Returns:
        stated_rows: `total` of the last page that states one; it counts the rows of all months. Repeated rows count once.
        doubt: no row came at all, or none of a month older than the oldest that came: wrong host, or no longer served.
        vanished: no row of the month came. It never means that the month costs nothing.
        flag, stated_cost: Talkdesk states neither.

    Raises:
        UnexpectedShape: see `parse`; a total_amount that is no number.
    """
    repeats = repeated(pages)
    rows: Counter[str] = Counter()
    sums: dict[str, dict[str, Decimal]] = {}
    unknown: Counter[tuple[str, str | None]] = Counter()
    stated: list[int] = []
    asked, anonymous, month = "", 0, str(period)
    with localcontext(EXACT):
        for page in pages:
            asked = asked or page.request
            answer = answered(page)
            if answer.total is not None:
                stated.append(answer.total)
            for index, row in enumerate(decoded(page, answer.embedded.usage, list[_Row])):
                if (page.number, index) in repeats:
                    continue
                if row.month not in rows and not _is_month(row.month):
                    raise UnexpectedShape(
                        f"page {page.number}, row {index}: month is {row.month!r}, not written YYYY-MM"
                    )
                rows[row.month] += 1
                totals = sums.setdefault(row.month, {})
                totals[row.currency] = totals.get(row.currency, Decimal(0)) + row.total_amount
                anonymous += row.id is None
                if row.month == month:
                    unknown.update(
                        (n, getattr(row, n)) for n, known in DOCUMENTED.items() if getattr(row, n) not in known
                    )
    tallies = {name: Tally(rows=number, totals=sums[name]) for name, number in rows.items()}
    doubt = None
    if not rows:
        doubt = "not one row in a complete traversal: the region's host or the client's entitlement may be wrong"
    elif month < min(rows):
        doubt = f"no row of this month in a complete traversal; the oldest month served is {min(rows)}"
    notes = [f"{name} {value!r} is not documented ({n} rows); kept as written" for (name, value), n in unknown.items()]
    if repeats:
        notes.append(
            f"{len(repeats)} rows came twice, same id and content, and count once: the list moved during the walk"
        )
    if anonymous:
        notes.append(f"{anonymous} rows have no id: one that came twice would count twice")
    if len(set(stated)) > 1:
        notes.append(
            f"the stated total moved from {stated[0]} to {stated[-1]} rows during the walk; the last one counts"
        )
    others = sorted(rows.keys() - {month})
    if others and any(month in value for _, value in parse_qsl(urlsplit(asked).query)):
        notes.append(f"Talkdesk ignored the month in the configured query: rows of {', '.join(others)} came along")
    return Statement(
        counted=tallies.get(month, Tally()),
        left_out=sum((tallies[name] for name in others), Tally()),
        stated_rows=stated[-1] if stated else None,
        doubt=doubt,
        vanished=month not in rows,
        notes=tuple(notes),
    )


def _account(rows: Rows) -> pa.Array:
    none = pa.scalar(None, pa.string())
    spelled = [pc.if_else(pc.equal(rows[name], ""), none, rows[name]) for name in ACCOUNT]
    account = pc.coalesce(*spelled)
    _present(rows, " or ".join(ACCOUNT), account)
    for values in spelled:
        differs = pc.not_equal(values, account)
        if pc.any(differs).as_py():
            raise UnexpectedShape(f"{_where(rows, differs)}: two spellings of the account id with different values")
    return account


def _present(rows: Rows, name: str, values: pa.Array) -> None:
    if values.null_count:
        raise UnexpectedShape(
            f"{_where(rows, values.is_null())}: {name} is missing or null, in {values.null_count} rows of this batch. No row "
            "is left out for that: compare the landing with the list of fields in Talkdesk's page"
        )


def _where(rows: Rows, mask: pa.Array) -> str:
    at = pc.index(mask, True).as_py()
    return f"page {rows.page[at]}, row {rows.index[at]}"


def _is_month(text: str) -> bool:
    try:
        BillingPeriod.parse(text)
    except ValueError:
        return False
    return True


FIELDS = {
    "_embedded.usage[].total_amount": charges.COSTS,
    "_embedded.usage[].currency": ("BillingCurrency",),
    **{f"_embedded.usage[].{name}": ("BillingAccountId",) for name in ACCOUNT},
    "_embedded.usage[].month": ("ChargePeriodStart", "ChargePeriodEnd"),
    "_embedded.usage[].type": ("ServiceName", "x_Type", "ChargeCategory", "ChargeFrequency", "x_IsPrepayment"),
    "_embedded.usage[].description": ("ChargeDescription",),
    "_embedded.usage[].direction": ("x_Direction",),
    "_embedded.usage[].number_of_units": ("PricingQuantity", "ConsumedQuantity"),
    "_embedded.usage[].unit": ("x_UnitRaw", "PricingUnit", "ConsumedUnit"),
    "_embedded.usage[].price": ("x_UnitPrice",),
    **{f"_embedded.usage[].{name}": ("x_Dimensions",) for name in _DIMENSIONS},
}
UNUSED = {
    "count": "paging: compared with the rows",
    "total": "a control total: compared with the rows",
    **dict.fromkeys(
        ("page", "per_page", "total_pages", "_links", "self", "first", "last", "next", "prev", "show"), "paging"
    ),
}


PROVIDER = Provider(
    name="talkdesk",
    title="Talkdesk",
    # Usage is billed on the first of the next month and nothing says when it is final; the 5th leaves four days for late
    # rows. Source: https://support.talkdesk.com/hc/en-us/articles/20409803117467-Billing-FAQ (read 2026-11)
    calendar=Calendar(settles_after=timedelta(days=4), daily=False),
    settings=TalkdeskSettings,
    # None is documented for this list; a sibling of the same API allows two a second.
    # Source: https://docs.talkdesk.com/reference/instantiate-a-trial (read 2026-11)
    rate_limits=(RateLimit(requests=2, seconds=1),),
    fetch=fetch,
    parse=parse,
    statement=statement,
    auth=ClientCredentials,
    hosts=lambda settings: (settings.token_url,),
    shareable=lambda settings: not any("{month}" in value for value in settings.query.values()),
    invoices=INVOICES,
    volatile=frozenset({"id"}),  # the page does not promise that a row keeps its id from one answer to the next
    fields=FIELDS,
    unused=UNUSED,
)
