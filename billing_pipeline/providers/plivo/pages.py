"""Plivo's UsageSummary answers as pages: is it the answer to what was asked, and are they together one complete walk?

Source: https://www.plivo.com/docs/account/api/usage-summary/ (read 2026-11)
"""

from __future__ import annotations

import operator
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Context, Decimal, localcontext
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from ... import shapes
from ...answers import Answer, Refused, Unavailable, UnexpectedAnswer
from ...period import BillingPeriod, aware, stamp
from ...provider import Access, Page, Pages, RowsMoved
from ...reconcile import EXACT
from ...rows import UnexpectedShape
from .seen import Seen, hashes

PAGE_SIZE = 1000  # the documented maximum: the fewest of the 20 requests that a minute allows
MAX_PAGES = 12_000  # twelve million buckets, at 20 requests a minute ten hours: a cursor gone mad
MEASURES = ("total_units", "total_amount", "duration_seconds", "surcharge")  # all other fields say what a bucket is of


class Meta(msgspec.Struct):
    """What an answer says about itself; `from_date` and `to_date` are ISO 8601 instants, the latter exclusive."""

    granularity: str
    from_date: str
    to_date: str
    currency: str
    page_size: int
    auth_id: str | None = None
    subaccount_auth: str | None = None
    next_page_token: str | None = None
    total_spent: Decimal | None = None


_Usage = TypeVar("_Usage")


class _Answer(msgspec.Struct, Generic[_Usage]):
    """One answer. `subaccount_spend` is left alone: it is a breakdown of the same money."""

    meta: Meta
    usage: _Usage
    other_charges: msgspec.Raw = msgspec.Raw(b"null")


Envelope = _Answer[msgspec.Raw]
"""One answer with its rows unread."""
_ENVELOPE = msgspec.json.Decoder(Envelope)
_enveloped = _ENVELOPE.decode  # one object, by which a page remembers it


_Text = TypeVar("_Text", bound=str)


class _Bucket(msgspec.Struct, Generic[_Text], forbid_unknown_fields=True, gc=False):
    """A usage row as Plivo's page lists it."""

    from_date: str
    to_date: str
    total_amount: Decimal
    product: _Text | None = None
    type: _Text | None = None
    subaccount_auth: _Text | None = None
    country: _Text | None = None
    direction: _Text | None = None
    error_code: _Text | int | None = None
    hangup_cause: _Text | int | None = None
    error_reason: _Text | None = None
    total_units: msgspec.Raw = msgspec.Raw()
    duration_seconds: msgspec.Raw = msgspec.Raw()
    surcharge: msgspec.Raw = msgspec.Raw()


_USAGE = msgspec.json.Decoder(list[_Bucket[str]])
_WHOLE = msgspec.json.Decoder(_Answer[list[_Bucket[Annotated[str, msgspec.Meta(min_length=1)]]]])
"""An answer with its rows, in one reading. It gives up at the first thing that is not as it mostly is, such as an empty text."""


class Charged(msgspec.Struct, gc=False):
    """As much of a usage row as is counted."""

    total_amount: Decimal
    product: str | None = None
    direction: str | None = None


_COUNTED = msgspec.json.Decoder(_Answer[list[Charged]])
"""An answer with so much of its rows."""


class Count(msgspec.Struct):
    """What was counted in a page's usage rows: how many, what they add up to, how many of each product and direction."""

    rows: int
    total_amount: Decimal
    products: dict[str, int]
    directions: dict[str, int]


COUNT = "usage_1"
"""The fact of a page that holds its `Count` as JSON, from when it came; the landing's sha256 covers it as it covers the bytes.

Another number when what is counted changes, or how: of pages that have none of this number the bytes are counted.
"""


class Disturbed(Exception):
    """A walk that cannot be finished but may succeed when begun anew; `error` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def tolerance(rows: int) -> Decimal:
    """How far `total_spent` may be from so many rows: it is a float that was itself added up from floats."""
    return Decimal("0.01") + Decimal("0.000001") * rows


def walk(
    access: Access, auth_id: str, question: Mapping[str, str | int], traversal: str, *, at_rest: bool = True
) -> Iterator[Page]:
    """The pages of one walk, from page 1 to the one without a cursor.

    Args:
        access: the account's.
        auth_id: the parent account.
        question: the parameters of every page, as `check_echo` wants them.
        traversal: the walk's name.
        at_rest: whether the data must have stood still: the rows of all pages add up to what page 1 states. Without it the
            walk is landed as it came, and its control totals say whether it can be used.

    Raises:
        Disturbed: it broke after page 1, or its data moved meanwhile. That a bucket came twice is found by `parse` while
            `Access.beside` says so.
        Refused, Unavailable, UnexpectedShape: beginning anew cannot mend it.
    """
    token: str | None = None
    currency = ""
    tokens: set[str] = set()
    missing = Decimal(0)  # of what page 1 states
    buckets, rows = Seen(), 0
    beside = False  # the buckets are told apart elsewhere
    for number in range(1, MAX_PAGES + 1):
        where = f"page {number}"
        access.progress(where, rows=rows)
        beside = beside or access.beside()
        try:
            answer = access.http.get(
                f"/v1/Account/{auth_id}/UsageSummary/",
                {**question, **({"page_token": token} if token else {})},
                decoder=_COUNTED if beside else _WHOLE,
            )
        except (Refused, Unavailable, UnexpectedAnswer) as error:
            if token is None or (isinstance(error, Refused) and error.status != 400):
                raise
            raise Disturbed(error) from error  # 400 with a token: the cursor is no longer valid
        envelope = opened(partial(_rows_read, answer), where, first=number == 1)
        currency = currency or envelope.meta.currency
        check_echo(envelope.meta, {**question, "auth_id": auth_id, "currency": currency}, where)
        on_page, count, whole = _buckets(envelope.usage, where, beside=beside)
        rows += count.rows
        meta, others = envelope.meta, envelope.other_charges
        page = Page(
            body=answer.body,
            request=answer.request,
            received_at=answer.received_at,
            traversal=traversal,
            facts={"auth_id": auth_id} | ({COUNT: msgspec.json.encode(count).decode()} if whole else {}),
        )
        del answer, envelope  # its rows, before there are those of the next page
        yield page
        stated = meta.total_spent if number == 1 else None
        missing = _sum([missing, stated or Decimal(0), -count.total_amount, -_sum(amounts(others, where))])
        token = meta.next_page_token
        if not beside and (twice := buckets.add(on_page, last=not token)):
            raise Disturbed(came_twice(twice, f"by {where}"))
        if not token:  # documented as omitted on the last page; null and "" can mean nothing else
            if at_rest and number > 1 and missing.is_finite() and abs(missing) > tolerance(rows):
                raise Disturbed(
                    UnexpectedShape(
                        f"the rows differ from total_spent on page 1 by {missing}: the data moved during the walk"
                    )
                )
            return
        if not count.rows and number > 1:
            raise UnexpectedShape(f"{where} is empty and has a next_page_token all the same: the walk would never end")
        if token in tokens:
            raise UnexpectedShape(f"{where} hands out a next_page_token for the second time: the walk would never end")
        tokens.add(token)
    raise UnexpectedShape(
        f"there is still a next_page_token after {MAX_PAGES} pages of {PAGE_SIZE}. Compare with the usage in Plivo's "
        "console: if it is real, raise MAX_PAGES in providers/plivo/pages.py"
    )


def came_twice(buckets: int, where: str) -> RowsMoved:
    """So many usage buckets are not of one state of Plivo's data; `where`: by which page, or which one it is."""
    return RowsMoved(
        f"{buckets} usage buckets had come twice {where}: the data moved during the walk. If it stays so at any hour, Plivo's "
        "rows differ in something that this pipeline does not know"
    )


def _rows_read(answer: Answer) -> _Answer[Any]:
    """The answer with its rows, or where they need more care with their text."""
    # Not by what `read` raises: an error that is raised keeps the body until it is collected.
    if isinstance(answer.document, msgspec.ValidationError):
        return _ENVELOPE.decode(answer.body)
    whole: _Answer[Any] = answer.read()
    return whole


def opened(read: Callable[[], _Answer[_Usage]], where: str, *, first: bool) -> _Answer[_Usage]:
    """What one answer says, checked; `first` when it is page 1 of its walk, where the totals and other_charges belong."""
    with _as_documented(where):
        envelope = read()
    meta = envelope.meta
    if meta.subaccount_auth:
        raise UnexpectedShape(f"{where} is about sub-account {meta.subaccount_auth} alone, not about the whole account")
    if first and (meta.total_spent is None or not meta.total_spent.is_finite()):
        raise UnexpectedShape(f"{where} has no meta.total_spent, so it is not page 1 of an unfiltered walk")
    if not first and listed(envelope.other_charges) != b"[]":
        raise UnexpectedShape(f"{where} has other_charges, which belong to page 1: adding them might count them twice")
    return envelope


def check_echo(meta: Meta, asked: Mapping[str, str | int], where: str) -> None:
    """Raise unless `meta` repeats what was asked: the one proof that no parameter was ignored.

    Args:
        meta: of the answer.
        asked: granularity, from_date and to_date as YYYY-MM-DD, page_size; and the auth_id and currency to expect.
        where: the page, for the error.
    """
    got = {
        "granularity": meta.granularity,
        "from_date": stamp(instant(meta.from_date, f"{where}: meta.from_date")),
        "to_date": stamp(instant(meta.to_date, f"{where}: meta.to_date")),
        "page_size": meta.page_size,
        "auth_id": meta.auth_id or asked["auth_id"],
        "currency": meta.currency,
    }
    wanted = {**asked, **{name: f"{asked[name]}T00:00:00Z" for name in ("from_date", "to_date")}}
    different = [f"{name} is {got[name]}, expected {wanted[name]}" for name in got if got[name] != wanted[name]]
    if different:
        raise UnexpectedShape(
            f"{where} answers another question than the one that was asked ({'; '.join(different)}): a parameter was "
            "ignored or changed. Compare the request with Plivo's page on UsageSummary"
        )


def walked(pages: Pages, period: BillingPeriod) -> Iterator[tuple[Page, Envelope]]:
    """The pages with their envelopes, if they are one complete walk over the month up to its end or its running day.

    Raises:
        UnexpectedShape: another window, another currency, a page too many, a walk that breaks off, no page at all.
    """
    first: Meta | None = None
    more: str | None = "page 1"
    for page in pages:
        where = f"page {page.number}"
        envelope = opened(partial(page.made, _enveloped), where, first=first is None)
        meta = envelope.meta
        start, end = instant(meta.from_date, f"{where}: from_date"), instant(meta.to_date, f"{where}: to_date")
        if start != period.start(UTC) or not start < end <= period.end(UTC):
            raise UnexpectedShape(
                f"{where} covers {stamp(start)} to {stamp(end)}; expected {period} from its first day on"
            )
        first = first or meta
        if (first.currency, first.from_date, first.to_date) != (meta.currency, meta.from_date, meta.to_date):
            raise UnexpectedShape(f"{where} has another window or currency than page 1: they are of different walks")
        if not more:
            raise UnexpectedShape(f"{where} comes after a page that says it is the last: they are of different walks")
        more = meta.next_page_token
        yield page, envelope
    if more:
        raise UnexpectedShape(
            "the pages break off: "
            + ("the last one has a next_page_token" if first else "there is none")
            + ". Fetch again"
        )


ABOUT = tuple(name for name in _Bucket.__struct_fields__ if name not in MEASURES)
_of = operator.attrgetter(*ABOUT)
amount = operator.attrgetter("total_amount")
"""Of a row."""


def _buckets(usage: msgspec.Raw | list[Any], where: str, *, beside: bool) -> tuple[array[int], Count, bool]:
    """Hashes of what each usage row is of (all its fields but the measures; empty, null and missing are one), and its count.

    The last says whether all of it is counted. Of a page whose rows have fields that Plivo does not list it is not, and it is
    read field by field, six times slower: a new field may be what tells two rows apart. Those are counted when the landing is
    read. `beside`: the hashes are made elsewhere, and those that come of it are for nobody.
    """
    if not isinstance(usage, msgspec.Raw):
        return _told_apart(usage, () if beside else map(_of, usage))
    text = listed(usage)
    try:
        rows = _USAGE.decode(text)
    except msgspec.ValidationError:
        found = decoded(text, list[dict[str, Any]], f"{where}: usage")
        return hashes(map(_hash, found)), Count(len(found), _sum(amounts(usage, where)), {}, {}), False
    return _told_apart(rows, (tuple(None if value == "" else value for value in _of(row)) for row in rows))


def _told_apart(rows: Sequence[Any], about: Iterable[tuple[Any, ...]]) -> tuple[array[int], Count, bool]:
    count = count_of(rows)
    whole = count.total_amount.is_finite() and None not in count.products
    return hashes(map(hash, about)), count, whole


def _hash(row: dict[str, Any]) -> int:
    about = tuple(None if row.get(name) == "" else row.get(name) for name in ABOUT)
    more = unlisted(row)
    return hash((about, *more)) if more else hash(about)


def unlisted(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a row says in fields that Plivo's page does not list, in one order; empty and null are as if missing."""
    return sorted((n, repr(v)) for n, v in row.items() if n not in (*ABOUT, *MEASURES) and v not in (None, ""))


def count_of(rows: Sequence[Any]) -> Count:
    """Of rows with total_amount, product and direction."""
    products, directions = (Counter(map(operator.attrgetter(name), rows)) for name in ("product", "direction"))
    del directions[None]  # voice may have none, and nobody asks
    return Count(len(rows), _sum(map(amount, rows)), products, directions)


_ANYTHING = Context(prec=EXACT.prec, traps=[])


def _sum(values: Iterable[Decimal]) -> Decimal:
    """No number when one of them is none: `statement` says which."""
    with localcontext(_ANYTHING):
        return sum(values, Decimal(0))


class _Amount(msgspec.Struct, gc=False):
    total_amount: Decimal


def amounts(rows: msgspec.Raw, where: str) -> list[Decimal]:
    """total_amount of every row."""
    return [row.total_amount for row in decoded(listed(rows), list[_Amount], where)]


_NONE = re.compile(rb"null|(\[[ \t\r\n]*\])?")


def listed(raw: msgspec.Raw) -> bytes:
    """The JSON text of a list of rows; an absent list (null, or no such field) is an empty one."""
    text = bytes(raw)
    return b"[]" if _NONE.fullmatch(text) else text


def instant(text: str, where: str) -> datetime:
    """An ISO 8601 instant, in UTC; anything else, also a time without a zone, is an UnexpectedShape."""
    try:
        return aware(datetime.fromisoformat(text)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UnexpectedShape(f"{where} should be an instant like 2026-05-01T00:00:00Z, got {text[:40]!r}") from error


def decoded(text: bytes | msgspec.Raw, kind: Any, where: str) -> Any:
    """`text` as msgspec reads it into `kind`; what does not fit is an UnexpectedShape."""
    with _as_documented(where):
        return shapes.read(text, kind)


@contextmanager
def _as_documented(where: str) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnexpectedShape(f"{where} is not built as Plivo's page on UsageSummary says: {error}") from error
