"""YCloud's paging: one window of days at a time, walked until it is whole, or an error that says why it is not.

Source: https://docs.ycloud.com/en/api-reference/guides/api-fundamentals/pagination.md (read 2026-11).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone

import msgspec

from ...answers import Answer, UnexpectedAnswer
from ...period import BillingPeriod, day_of
from ...provider import Access, Page, Restarted, RowsMoved

PATH = "/v2/billing/usageDetails"
LIMIT = 100  # the largest page; the default is 10
MAX_PAGES = 100  # the largest page number: at most 10,000 rows can be reached
NEAR_CAP = 9_000  # a window of several days that states more is divided before it is walked
WALKS = 4  # the first, and three more when rows moved under it
SETTLED = timedelta(days=3)  # figures "from yesterday or today" may change, and one day more to be sure

UTC8 = timezone(timedelta(hours=8), "UTC+8")  # fixed, whatever the region: no daylight saving time


class TooManyRows(Exception):
    """One day has more rows than paging reaches, and no narrower question is complete."""

    rerun = "no"
    remedy = "Ask YCloud for that day's bill, and whether it can raise the limit"


@dataclass(frozen=True)
class Window:
    """Days on YCloud's UTC+8 calendar, both ends inclusive, as its parameters are."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def halves(self) -> tuple[Window, Window]:
        """The same days in two windows; only for more than one day."""
        middle = self.first + (self.last - self.first) // 2
        return Window(self.first, middle), Window(middle + timedelta(days=1), self.last)


def windows(period: BillingPeriod, now: datetime) -> list[Window]:
    """The windows in which the month is asked for at `now`: every day of it that has begun in UTC+8, once.

    Days that can no longer move share one window. Later ones are asked for alone: rows come newest first, so a new row of
    today would push all others over the borders of the pages.
    """
    today = day_of(now, UTC8)
    begun = [day for day in period.days() if day <= today]
    settled = [day for day in begun if day <= today - SETTLED]
    wide = [Window(settled[0], settled[-1])] if settled else []
    return wide + [Window(day, day) for day in begun[len(settled) :]]


@dataclass(frozen=True)
class Walk:
    """One traversal: whose bill (a managed account's id, None for the account itself), which days, `Page.facts`."""

    scope: str | None
    window: Window
    facts: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.scope or 'own account'}|{self.window}"  # no id contains a space


def walked(access: Access, walk: Walk) -> Iterator[Page | Restarted]:
    """All pages of `walk`, in one window or, where that has too many rows, in several narrower ones.

    Raises:
        UnexpectedAnswer: an answer to something else than was asked: other paging, days outside the window.
        RowsMoved: four walks over a window, and in each of them rows were missing or came twice.
        TooManyRows: a single day has 10,000 rows or more.
    """
    reason = ""
    for _ in range(WALKS):
        discarded = yield from _pages(access, walk)
        if discarded is None:
            return
        reason = discarded.reason
        if discarded.too_wide and walk.window.first == walk.window.last:
            raise TooManyRows(
                f"{walk}: {reason}. Paging ends at {MAX_PAGES * LIMIT} rows, and one day cannot be divided without losing "
                "some: filter.wabaId would leave out SMS, voice and email. The month was not replaced. Ask YCloud for this "
                "day's bill in another way, and whether it can raise the limit"
            )
        yield Restarted(traversal=str(walk), reason=reason)
        if discarded.too_wide:
            for half in walk.window.halves():
                yield from walked(access, replace(walk, window=half))
            return
    raise RowsMoved(
        f"{walk}: walked {WALKS} times, and the rows never added up (the last time: {reason}). The month was not replaced. "
        "Run again later, when fewer messages are being sent; if it stays like this, YCloud itself repeats or loses rows: "
        "show it these numbers"
    )


@dataclass(frozen=True)
class _Discarded:
    """Why the pages of a walk must not be read."""

    reason: str
    too_wide: bool = False


class _Key(msgspec.Struct, frozen=True, gc=False):
    """What YCloud groups by: no two rows of one state have the same. Null is a value like any other."""

    date: date
    channel: str | None = None
    wabaId: str | None = None
    regionCode: str | None = None


class _Listing(msgspec.Struct):
    offset: int
    limit: int
    length: int
    items: list[_Key]
    total: int | None = None


_LISTING = msgspec.json.Decoder(_Listing)


def _pages(access: Access, walk: Walk, before: set[_Key] | None = None) -> Generator[Page, None, _Discarded | None]:
    """One walk; `before`: what another one listed, which this one must list too."""
    keys: set[_Key] = set()
    came = 0
    total = None
    for number in range(1, MAX_PAGES + 1):
        answer = _asked(access, walk, number, came)
        yield Page(
            body=answer.body,
            request=answer.request,
            received_at=answer.received_at,
            traversal=str(walk),
            scope=walk.scope,
            facts=walk.facts,
        )
        listing = _checked(answer, walk, number)
        keys.update(listing.items)
        came += listing.length
        if number == 1 and listing.total is not None:
            total = listing.total
            if total >= (MAX_PAGES * LIMIT if walk.window.first == walk.window.last else NEAR_CAP + 1):
                return _Discarded(f"{total} rows are stated", too_wide=True)
        if len(keys) != came:  # at once: a server that repeats itself for ever must not be followed
            return _Discarded(
                f"{came - len(keys)} of {came} rows repeat the date, channel, wabaId and regionCode of another"
            )
        if total is not None and came > total:
            return _Discarded(f"page 1 states {total} rows, {came} came and there are more")
        if listing.length < LIMIT:  # never by `total`: it may be absent, and it may be old
            break
    else:
        return _Discarded(f"page {MAX_PAGES} is full, so there may be rows that cannot be reached", too_wide=True)
    if total is not None and total != came:
        return _Discarded(f"page 1 states {total} rows, {came} came")
    if before is not None:
        return None if keys == before else _Discarded("no total is stated, and two walks listed different rows")
    if total is None and number > 1:
        # Nothing else would tell that a row left the list meanwhile and pulled another one over a page border.
        return _read(_pages(access, walk, keys))
    return None


def _read(walk: Generator[Page, None, _Discarded | None]) -> _Discarded | None:
    """What becomes of a walk whose pages nobody keeps."""
    while True:
        try:
            next(walk)
        except StopIteration as done:
            found: _Discarded | None = done.value
            return found


def _asked(access: Access, walk: Walk, number: int, rows: int) -> Answer:
    query: dict[str, str | int] = {
        "page": number,
        "limit": LIMIT,
        "filter.startDate": walk.window.first.isoformat(),
        "filter.endDate": walk.window.last.isoformat(),  # inclusive
    }
    if number == 1:
        query["includeTotal"] = "true"  # a cross-check; counting takes YCloud time, so only once
    access.progress(f"{walk}, page {number}", rows=rows)
    headers = {"X-Managed-Account-ID": walk.scope} if walk.scope else None
    return access.http.get(PATH, query, headers=headers, decoder=_LISTING)


def _checked(answer: Answer, walk: Walk, number: int) -> _Listing:
    """The answer, when it answers what was asked."""
    where = f"{walk}, page {number}"
    try:
        listing: _Listing = answer.read()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnexpectedAnswer(f"{where}: not the list that YCloud documents: {error}") from error
    for name, expected, got in (
        ("offset", (number - 1) * LIMIT, listing.offset),
        ("limit", LIMIT, listing.limit),
        ("length", len(listing.items), listing.length),
    ):
        if expected != got:
            raise UnexpectedAnswer(
                f"{where}: {name} should be {expected}, the answer says {got}: it answers another question than was asked, and "
                "rows may be missing. The month was not replaced. See whether YCloud changed its paging"
            )
    for item in listing.items:
        if item.date not in walk.window:
            raise UnexpectedAnswer(
                f"{where}: a row of {item.date} was not asked for, so the filter was not obeyed. The month was not replaced. "
                "See whether YCloud renamed filter.startDate or filter.endDate"
            )
    return listing
