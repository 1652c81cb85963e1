"""One walk along the `next` links of a Talkdesk list, page by page, until there is none; walked again until it stands still.

Source: https://docs.talkdesk.com/docs/paging-results (read 2026-11).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urldefrag, urljoin, urlsplit

import msgspec

from ...answers import Refused, UnexpectedAnswer
from ...provider import Access, Page, Restarted
from ...rows import UnexpectedShape
from .pages import Answer, identities

MAX_PAGES = 20_000  # of 50 rows by default: a million rows, which is a server gone round in circles
WALKS = 4  # the first, and three more when the list moved under it
TRAVERSAL = "list"

Read = Callable[[Page], tuple[Answer, msgspec.Raw]]
"""A page as it is built, and its rows as JSON text."""


def walk(access: Access, url: str, scope: str, read: Read) -> Iterator[Page | Restarted]:
    """Every page of a list that stood still while it was walked. `Provider.fetch` of the usage list says why that is looked at.

    Args:
        access: to the account's host, and no other.
        url: of the first page.
        scope: that the list needs, for the text of a refusal.
        read: how a page of this list is built.

    Raises:
        Refused, Unavailable: see `transport`; never the end of the pages.
        UnexpectedAnswer: a page that is not built so, a link to another host or back, a count that is not what came, a list that
            moved during every walk.
    """
    reason = ""
    for attempt in range(WALKS):
        if attempt:
            yield Restarted(traversal=TRAVERSAL, reason=reason)
        seen = yield from _walk(access, url, scope, read)
        if len(seen.pages) == 1:
            return
        if len(set(seen.totals)) > 1:
            reason = f"the stated total moved from {seen.totals[0]} to {seen.totals[-1]} rows"
        elif _read(_walk(access, url, scope, read)).rows != seen.rows:
            reason = "two walks, one after the other, listed different rows"
        else:
            return
    raise UnexpectedAnswer(
        f"walked {WALKS} times, and the list moved every time (the last time: {reason}), so that rows may be missing. Run again "
        "later; if it stays so, ask Talkdesk why its list does not stand still"
    )


@dataclass
class _Seen:
    """What one walk came across: its pages (hashes of their rows), the totals stated, and its rows."""

    pages: set[int] = field(default_factory=set)
    totals: list[int] = field(default_factory=list)
    rows: Counter[int] = field(default_factory=Counter)


def _read(walk: Generator[Page, None, _Seen]) -> _Seen:
    """What a walk comes across whose pages nobody keeps."""
    while True:
        try:
            next(walk)
        except StopIteration as done:
            seen: _Seen = done.value
            return seen


def _walk(access: Access, url: str, scope: str, read: Read) -> Generator[Page, None, _Seen]:
    base = access.settings.base_url
    seen, visited, before, empty = _Seen(), set[str](), None, 0
    for number in range(1, MAX_PAGES + 1):
        access.progress(f"page {number}", rows=seen.rows.total())
        try:
            came = access.http.get(url)
        except Refused as error:
            if error.status != 403:
                raise
            advice = f"the client lacks the scope {scope}, the Billing Insights entitlement, or is of another region"
            raise Refused(f"{error}: {advice}", error.status, error.body) from error
        page = Page(
            body=came.body,
            request=came.request,
            received_at=came.received_at,
            number=number,
            traversal=TRAVERSAL,
        )
        try:
            answer, listed = read(page)
            keys = identities(page, listed)
            here = {url, _resolved(url, answer.link("self", answer.own))}
            url = _resolved(url, answer.link("next", answer.next))
            origin = _origin(url)
        except (UnexpectedShape, ValueError) as error:
            raise UnexpectedAnswer(f"{came.request}: {error}") from error
        rows = len(keys)
        if answer.count not in (None, rows):
            raise UnexpectedAnswer(f"{came.request}: page {number} states count {answer.count}, but has {rows} rows")
        if None not in (before, answer.page) and answer.page != cast("int", before) + 1:
            raise UnexpectedAnswer(
                f"{came.request}: page {answer.page} followed page {before}; pages were skipped or repeated"
            )
        before = answer.page
        yield page
        if answer.total is not None:
            seen.totals.append(answer.total)
        seen.rows.update(keys)
        body = hash(bytes(listed)) if rows else -number
        if body in seen.pages:
            raise UnexpectedAnswer(
                f"{came.request}: page {number} has the very rows of an earlier page; the walk goes in circles"
            )
        seen.pages.add(body)
        visited |= here
        if url in here:  # no link, an empty one, or one to this page itself
            if answer.total_pages not in (None, number) and (answer.total_pages, number) != (0, 1):
                raise UnexpectedAnswer(
                    f"{came.request}: {answer.total_pages} pages stated, but `next` ended after {number}"
                )
            return seen
        if origin != _origin(base):
            raise UnexpectedAnswer(
                f"{came.request}: `next` leads to another address than {base}; the token was not sent there"
            )
        if url in visited:
            raise UnexpectedAnswer(
                f"{came.request}: `next` leads back to a page that was read before; the walk has no end"
            )
        empty = 0 if rows else empty + 1
        if empty > 2:
            raise UnexpectedAnswer(
                f"{came.request}: {empty} empty pages in a row, and still a `next`; the walk has no end"
            )
    raise UnexpectedAnswer(f"still a `next` after {MAX_PAGES} pages; the walk has no end, or MAX_PAGES is too small")


def _resolved(url: str, link: str) -> str:
    return urldefrag(urljoin(url, link)).url if link else url


def _origin(url: str) -> tuple[str, str | None, int | None, str | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme), parts.username
