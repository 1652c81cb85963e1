"""The line from a provider's answers to charges, without disk: for tests that ask one provider's module alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from billing_pipeline import charges
from billing_pipeline.mailbox import Mailbox
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Access, Page, Pages, Provider, Restarted, Settings
from billing_pipeline.transport import Http, Patience

QUICK = Patience(retries=2, backoff=0.001, budget=5)
FETCHED = datetime(2026, 6, 10, 6, tzinfo=UTC)


def at(text: str) -> Callable[[], datetime]:
    """A clock that stands still."""
    instant = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return lambda: instant


def access(
    provider: Provider,
    settings: Settings,
    folder: Path,
    now: Callable[[], datetime] = lambda: FETCHED,
) -> Access:
    """Access to real sockets, with waits too short to notice."""
    http = Http(
        settings.base_url,
        limits=[(10_000, 1)],
        now=now,
        secrets=settings.secrets(),
        auth=provider.auth(settings) if provider.auth else None,
        headers=provider.headers(settings) if provider.headers else None,
        other_hosts=provider.hosts(settings) if provider.hosts else (),
        patience=QUICK,
    )
    return Access(settings=settings, http=http, now=now, mailbox=Mailbox(folder / "mailbox", now=now))


def fetched(provider: Provider, access: Access, period: BillingPeriod) -> list[Page]:
    """The pages of one complete fetch, as a landing would hand them out."""
    with access.http:
        return landed(provider.fetch(access, period))


def landed(answers: Iterable[Page | Restarted]) -> list[Page]:
    """Pages numbered from 1, restarted walks left out."""
    pages: list[Page] = []
    number = 0
    for answer in answers:
        if isinstance(answer, Restarted):
            pages = [page for page in pages if page.traversal != answer.traversal]
        else:
            number += 1
            pages.append(replace(answer, number=number))
    return pages


def page(body: bytes | str, number: int = 1, **facts: object) -> Page:
    """One page with made-up circumstances."""
    raw = body.encode() if isinstance(body, str) else body
    return replace(Page(body=raw, request="GET /made-up", received_at=FETCHED, number=number), **facts)  # type: ignore[arg-type]


def table(provider: Provider, pages: Pages, period: BillingPeriod) -> pa.Table:
    """The month's charges in the common schema."""
    origin = charges.Origin(
        provider=provider.name,
        title=provider.title,
        account="main",
        period_start=period.start(provider.calendar.timezone),
        period_end=period.end(provider.calendar.timezone),
        fetched_at=FETCHED,
        status="provisional",
    )
    batches = [
        charges.complete(rows, origin)[0] for rows in provider.parse(pages, period, f"{provider.name}/main/{period}/x")
    ]
    return pa.Table.from_batches(batches, charges.SCHEMA)
