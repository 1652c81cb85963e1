"""How a month is asked of Infobip: one POST, then the wait for a letter that is delivered once.

Sources: https://www.infobip.com/docs/billing-usage-api/query-billing-data, the operation's OpenAPI (read 2026-11).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import msgspec
from pydantic import SecretStr

from ... import shapes
from ...answers import Answer, Refused, UnexpectedAnswer
from ...callbacks import listening
from ...finality import Calendar
from ...mailbox import LANDED, Letter, NoAnswer, Stray, Ticket
from ...period import BillingPeriod, day_of, stamp
from ...provider import Access, Page, Restarted, Settings, Url
from ...rows import UnexpectedShape
from .reading import content, envelope

PATH = "/billing/1/usage/query"

CALENDAR = Calendar(
    timezone=UTC,  # "UTC. Custom time zones are not supported."
    settles_after=timedelta(days=4),  # "may change until finalized on the 5th of the following month"
    flag="volumeFinalized",
    serves_months=2,  # "Current month and up to 2 months prior"
)

FRESH = timedelta(hours=12)
"""A letter that came while nobody looked is taken instead of asking again when it was asked for less than this ago."""

AGGREGATE_BY = [
    "DAY", "ACCOUNT_KEY", "ACCOUNT_NAME", "CATEGORY_CODE", "SUBCATEGORY_CODE", "APPLICATION_ID", "ENTITY_ID",
    "DIRECTION", "TRAFFIC_TYPE", "SENDER", "SENDER_TYPE", "COUNTRY_CODE", "COUNTRY_NAME", "NETWORK_NAME", "NORM_NET_CODE",
    "CAMPAIGN_REFERENCE", "CAMPAIGN_ID", "TEMPLATE_ID",
]  # fmt: skip
"""The one set of dimensions that is ever asked for: another set would be another full copy of the same money.

DAY tells the days outside the month apart; ACCOUNT_KEY and CATEGORY_CODE are asked for by name, so that nothing is added in
front and nothing hangs on a name that changes. Of the 23 that exist these are left out: MONTH (widens a period to whole
months), CATEGORY_NAME, SUBCATEGORY_NAME and COUNTRY_PREFIX (say again what a code says), USER_NAME (a person's login).
"""


class InfobipSettings(Settings):
    """An Infobip account: one API key of one company in one data centre. A second data centre is a second account.

    Attributes:
        base_url: the account's own, as the portal shows it; another one may be served by another data centre.
        api_key: with scope billing:usage:view. Its answer covers the company's whole hierarchy of accounts: two keys of one
            company would count everything twice.
        callback_url: public address of our receiver; a last segment that nobody can guess is added for each request.
        callback_listen: host:port on which the receiver behind that address listens.
        wait_seconds: how long a run waits for the letter. It is not lost afterwards: the next run finds it.
    """

    api_key: SecretStr
    callback_url: Url
    callback_listen: str = "127.0.0.1:8765"
    wait_seconds: int = 900


class Failed(Exception):
    """Infobip's letter says that the query failed."""

    rerun = "yes"
    remedy = "If it stays, give Infobip's support the request id"


class TwoResults(Exception):
    """One query was answered twice, and differently: nothing says which answer holds."""

    rerun = "once"
    remedy = (
        "Compare the two letters it names: give Infobip's support the request id, or find out who knows the address"
    )


class _Accepted(msgspec.Struct):
    requestId: str


@dataclass(frozen=True)
class _Arrived:
    """A letter that answers its ticket."""

    ticket: Ticket
    letter: Letter


def fetch(access: Access, period: BillingPeriod) -> Iterator[Page | Restarted]:
    """The acceptance of the query, where this run sent one, and the letter.

    A letter that came while nobody looked is taken when it is fresh; a query that still waits is waited for; otherwise the
    month is asked for. When the wait ends in vain, an older letter that was never landed is better than none: what counts for
    finality is when it was asked for. The ticket is closed once the landing is on disk; after a crash in between it is closed
    by the next fetch, which asks anew.

    Raises:
        NoAnswer: no letter in time.
        Failed: the letter says so.
        TwoResults: another letter says something else, or did so after the month's last letter had been landed.
        Refused, Unavailable, UnexpectedAnswer: the query was not accepted.
    """
    settings, mailbox, now = _settings(access), access.mailbox, access.now()
    notes: list[str] = []
    _hear_strays(access, period)
    for asked in mailbox.pending("infobip", settings.name, str(period)):
        if asked.request_id and asked.submitted_at == access.landed:
            _tick_off(access, asked, notes)
    tickets = [ticket for ticket in mailbox.pending("infobip", settings.name, str(period)) if ticket.request_id]
    arrived = _came_before(access, tickets, notes)
    if arrived is None or not _serves(arrived.ticket, period, now, FRESH):
        wait = timedelta(seconds=settings.wait_seconds)
        unanswered = [t for t in tickets if arrived is None or t.submitted_at > arrived.ticket.submitted_at]
        ticket = next((t for t in unanswered if _serves(t, period, now, wait)), None)
        with listening(mailbox, settings.callback_listen) as receiving:
            if ticket is None:
                page, ticket = _submit(access, settings, period)
                yield page
            access.progress(f"waiting for Infobip's letter to request {ticket.request_id}")
            remaining = min(wait, wait - (access.now() - ticket.submitted_at))  # the clock may have been put back
            arrived = _await(access, ticket, remaining.total_seconds(), notes) or arrived
        if arrived is None:
            raise NoAnswer(_no_answer(settings, ticket, receiving, notes))
        if arrived.ticket.key != ticket.key:
            notes.append(
                f"request {ticket.request_id} was not answered in time; the letter to the one of "
                f"{stamp(arrived.ticket.submitted_at)} was used"
            )
    yield _page(arrived, notes)
    _sole(access, arrived)  # another one may have come while this one was landed
    access.afterwards(lambda: _landed(access, arrived))


def _serves(ticket: Ticket, period: BillingPeriod, now: datetime, age: timedelta) -> bool:
    """Young enough, and not asked for before the month settled when asking now could make it final."""
    settles_at = CALENDAR.settles_at(period)
    return now - ticket.submitted_at < age and not ticket.submitted_at < settles_at <= now


def _tick_off(access: Access, ticket: Ticket, notes: list[str]) -> None:
    """Its letter, or one to a question of the same instant, was landed by a run that died before it could say so."""
    with suppress(Failed):  # which closes it
        arrived = _await(access, ticket, 0, notes)
        if arrived:
            _landed(access, arrived)
        else:
            access.mailbox.close(ticket, "superseded")


def _came_before(access: Access, tickets: list[Ticket], notes: list[str]) -> _Arrived | None:
    """The newest letter that came while nobody looked. One that says FAILED closes its ticket: the month is asked for again."""
    for ticket in tickets:
        try:
            arrived = _await(access, ticket, 0, notes)
        except Failed as failed:
            notes.append(str(failed))
        else:
            if arrived:
                return arrived
    return None


def _await(access: Access, ticket: Ticket, seconds: float, notes: list[str]) -> _Arrived | None:
    for letter in access.mailbox.arriving(ticket, seconds):
        try:
            with letter.path.open("rb") as stream:
                found = envelope(stream)
        except UnexpectedShape as error:
            notes.append(f"a letter of {stamp(letter.received_at)} was set aside: {error}")
            continue
        if found.requestId != ticket.request_id:
            notes.append(
                f"a letter of {stamp(letter.received_at)} was set aside: it answers request {found.requestId[:60]!r}, "
                f"not ours, {ticket.request_id}"
            )
        elif found.status == "FAILED":
            reason = (found.failureMessage or "without a reason")[:300]
            access.mailbox.close(ticket, f"FAILED: {reason}")
            raise Failed(
                f"Infobip could not answer request {ticket.request_id} of {stamp(ticket.submitted_at)}: {reason}. The next "
                "run asks again; if it stays so, give Infobip's support the request id"
            )
        else:
            return _sole(access, _Arrived(ticket, letter))
    return None


def _sole(access: Access, arrived: _Arrived) -> _Arrived:
    """The letter, when no other one answers the same request differently."""
    ticket, letter, other = arrived.ticket, arrived.letter, _rival(access, arrived)
    if other is None:
        return arrived
    access.mailbox.close(ticket, "contradicted")
    raise TwoResults(
        f"Infobip answered request {ticket.request_id} of {stamp(ticket.submitted_at)} twice, and differently: {letter.path} "
        f"came at {stamp(letter.received_at)}, {other.path} at {stamp(other.received_at)}. Nothing says which one holds, so "
        "neither was taken and the month stays as it was. The next run asks again. Compare the two: give Infobip's support "
        "the request id, or find out who else knows the address of the callback"
    )


def _rival(access: Access, arrived: _Arrived) -> Letter | None:
    """A letter that answers the same request differently."""
    for other in access.mailbox.letters(arrived.ticket):
        if other.path == arrived.letter.path:
            continue
        try:
            with other.path.open("rb") as stream:
                ours = envelope(stream).requestId == arrived.ticket.request_id
            if ours and content(arrived.letter.path) != content(other.path):
                return other
        except UnexpectedShape:
            continue  # set aside when it was looked at
    return None


def _landed(access: Access, arrived: _Arrived) -> None:
    """Close the ticket. A letter that came a moment before and was not looked at yet is told by the next fetch."""
    ticket = access.mailbox.close(arrived.ticket, LANDED)
    other = _rival(access, arrived)
    if other:
        access.mailbox.note(Stray(ticket, other.received_at, other.sha256, other.path.stat().st_size))


def _hear_strays(access: Access, period: BillingPeriod) -> None:
    """Tell a person, once, that a landed request was answered again and differently."""
    strays = access.mailbox.strays("infobip", access.settings.name, str(period))
    for stray in strays:
        access.mailbox.note(replace(stray, told=True))
    if strays:
        told = "; ".join(
            f"request {stray.ticket.request_id} of {stamp(stray.ticket.submitted_at)} got another letter of {stray.bytes} "
            f"bytes (sha256 {stray.sha256[:16]}...) at "
            f"{stamp(stray.received_at)}"
            for stray in strays
        )
        raise TwoResults(
            f"after its letter had been landed, {told}. The month stays as it was, and nothing says that what "
            "was landed is the right one. The next run asks again, and its answer replaces or is compared with the month; "
            "find out who else knows the address of the callback, or give Infobip's support the request id"
        )


def _submit(access: Access, settings: InfobipSettings, period: BillingPeriod) -> tuple[Page, Ticket]:
    """Ask for the month up to the first day of the next one, or, where the future is refused, up to tomorrow."""
    end = period.plus(1).first_day
    tomorrow = day_of(access.now(), UTC) + timedelta(days=1)
    try:
        return _ask(access, settings, period, f"{end:%Y-%m-%d}")
    except Refused as refused:
        about_the_end = re.search("interval|sentUntil|future", refused.body, re.IGNORECASE)
        if refused.status != 400 or not about_the_end or not period.first_day < tomorrow < end:
            raise
        return _ask(access, settings, period, f"{tomorrow:%Y-%m-%d}")


def _ask(access: Access, settings: InfobipSettings, period: BillingPeriod, sent_until: str) -> tuple[Page, Ticket]:
    request = {
        "filterBy": {
            # The OpenAPI says that sentUntil is exclusive, the guide's example reads it as inclusive: the first day of the
            # next month loses nothing under either, and a day too many is told apart by DAY. No other filter, ever: a list
            # of categories would lose those that come after it was written, and the operator fees first of all.
            "dateInterval": {"sentSince": f"{period.first_day:%Y-%m-%d}", "sentUntil": sent_until}
        },
        "aggregateBy": AGGREGATE_BY,
        "options": {"includeUnfinalizedData": True},  # False would trim the period, and a trimmed month looks empty
    }
    ticket = access.mailbox.issue("infobip", settings.name, str(period), request)
    try:
        question = {"callbackUrl": f"{settings.callback_url}/{ticket.token}", "request": request}
        answer = access.http.post(PATH, question, secrets=[str(ticket.token)])
        request_id = _request_id(answer)
    except Refused as refused:
        access.mailbox.close(ticket, f"refused: {refused.status}")
        if refused.status in (401, 403):
            raise Refused(
                f"{refused}. Check that the API key is valid and has scope billing:usage:view; legacy account setups cannot "
                "use this API at all (ask the account manager)",
                refused.status,
                refused.body,
            ) from refused
        raise
    except Exception as error:
        access.mailbox.close(ticket, f"not accepted: {type(error).__name__}")
        raise
    ticket = access.mailbox.accepted(ticket, request_id)
    facts = {"role": "accepted", "requestId": request_id}  # submitted_at is said by the letter's page alone
    return Page(body=answer.body, request=_asked(ticket), received_at=answer.received_at, facts=facts), replace(
        ticket, token=None
    )


def _request_id(answer: Answer) -> str:
    try:
        request_id = shapes.read(answer.body, _Accepted).requestId
    except msgspec.DecodeError as error:
        raise UnexpectedAnswer(f"{answer.request}: {answer.status}, but no requestId in the answer: {error}") from error
    if not request_id:
        raise UnexpectedAnswer(f"{answer.request}: {answer.status}, but the requestId is empty")
    return request_id


def _page(arrived: _Arrived, notes: list[str]) -> Page:
    ticket = arrived.ticket
    facts = {
        "role": "letter",
        "requestId": str(ticket.request_id),
        "submitted_at": stamp(ticket.submitted_at),
        "sentUntil": ticket.request["filterBy"]["dateInterval"]["sentUntil"],  # type: ignore[index]
        "notes": json.dumps(notes),
    }
    return Page(
        body=arrived.letter.path,
        request=f"callback to {_asked(ticket)}",
        received_at=arrived.letter.received_at,
        facts=facts,
    )


def _asked(ticket: Ticket) -> str:
    return f"POST {PATH} {json.dumps(ticket.request, separators=(',', ':'))}"


def _no_answer(settings: InfobipSettings, ticket: Ticket, receiving: bool, notes: list[str]) -> str:
    port = (
        "" if receiving else f" Another program holds {settings.callback_listen}, so this run could not listen itself."
    )
    seen = "".join(f" {note}." for note in notes)
    return (
        f"Infobip accepted request {ticket.request_id} at {stamp(ticket.submitted_at)}, and no letter came within "
        f"{settings.wait_seconds} s.{port}{seen} Check that {settings.callback_url}/... can be reached from the internet and "
        f"leads to {settings.callback_listen}, that the firewall lets Infobip in, and keep `billing-pipeline callbacks` "
        "running: a letter that comes later is then picked up by the next run"
    )


def _settings(access: Access) -> InfobipSettings:
    if not isinstance(access.settings, InfobipSettings):
        raise TypeError(f"these are the settings of {access.settings.provider}, not of Infobip")
    return access.settings
