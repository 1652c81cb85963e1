"""Plivo's UsageSummary.

Source: https://www.plivo.com/docs/account/api/usage-summary/ (read 2026-11)
"""

from __future__ import annotations

import base64
import binascii
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from secrets import compare_digest
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from billing_pipeline.sandbox import plivo_bill, plivo_request
from billing_pipeline.sandbox.answer import ExactJson, plain
from billing_pipeline.sandbox.plivo_bill import ACCOUNTS, Other, Usage, midnight
from billing_pipeline.sandbox.plivo_request import Asked, Refused
from billing_pipeline.sandbox.world import World

REQUESTS, SECONDS = 20, 60
FAULTS = {
    401: "Unauthorized. Invalid AUTH ID or AUTH TOKEN.",
    403: "Forbidden. The request originated from a non-whitelisted IP.",
    429: "Rate limit exceeded. Retry after a short backoff.",
    502: "Bad gateway.",
}


def charges(world: World, account: str, period: str, at: datetime) -> Iterator[Mapping[str, Any]]:
    """What Plivo would bill `account` for a month if asked at `at`: every daily bucket and every other charge.

    Raises:
        KeyError: no such account.
        ValueError: `period` is not a month.
    """
    currency = ACCOUNTS[account]["currency"]
    for row in plivo_bill.usage(world, account, period, at):
        yield {"amount": row.amount, "currency": currency, **_usage(row, row.start + timedelta(days=1))}
    for other in plivo_bill.other_charges(world, account, period, at):
        yield {"amount": other.amount, "currency": currency, **_other(other)}


def routes(world: World) -> list[BaseRoute]:
    """The one endpoint, over the world's clock."""
    seen: defaultdict[str, deque[float]] = defaultdict(deque)

    async def usage_summary(request: Request) -> ExactJson:
        api_id = str(uuid.uuid4())
        account = _account(request)
        world.record("plivo", account, request.method, f"{request.url.path}?{request.url.query}")
        try:
            if not account:
                raise Refused(401, FAULTS[401])
            if world.enforce_limits:
                _within_limit(seen[account])
            if status := world.fault("plivo"):
                raise Refused(status, FAULTS.get(status, "Bad request."))
            now = world.now()
            asked = plivo_request.asked(request.query_params, now.date())
            return ExactJson({"api_id": api_id, **_answer(world, account, asked, _offset(request, asked), now)})
        except Refused as refused:
            headers = {"WWW-Authenticate": 'Basic realm="Plivo"'} if refused.status == 401 else None
            return ExactJson({"api_id": api_id, "error": refused.error}, refused.status, headers)

    return [Route("/v1/Account/{auth_id}/UsageSummary/", usage_summary, methods=["GET"])]


def _account(request: Request) -> str:
    """The account whose credentials were sent and whose auth_id is in the path; "" if there is none."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    for name, account in ACCOUNTS.items():
        known = user == account["auth_id"] == request.path_params["auth_id"]
        if (
            scheme.lower() == "basic"
            and known
            and compare_digest(password.encode(), str(account["auth_token"]).encode())
        ):
            return name
    return ""


def _within_limit(answered: deque[float]) -> None:
    """20 requests in any 60 seconds."""
    now = time.monotonic()
    while answered and answered[0] <= now - SECONDS:
        answered.popleft()
    if len(answered) >= REQUESTS:
        raise Refused(429, FAULTS[429])
    answered.append(now)


def _offset(request: Request, asked: Asked) -> int:
    """Where the page begins; a token is good only with the filters it was given for."""
    token = request.query_params.get("page_token")
    if token is None:
        return 0
    try:
        offset, digest = base64.urlsafe_b64decode(token.encode()).decode().split("|")
        if digest == asked.digest():
            return int(offset)
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise Refused(400, "invalid page_token: pass next_page_token back with all other filters unchanged")


def _answer(world: World, account: str, asked: Asked, offset: int, now: datetime) -> dict[str, Any]:
    months = plivo_bill.periods(asked.start, min(asked.end, now.date() + timedelta(days=1)))
    states = tuple(plivo_bill.state(month, now) for month in months)
    key = ("plivo answer", account, asked, states)
    rows = world.kept(key, lambda: _summary(world, account, asked, months, now))
    rows = world.faults.listed("plivo", rows, first=not offset)
    following = offset + asked.page_size
    meta: dict[str, Any] = {"auth_id": ACCOUNTS[account]["auth_id"]}
    if asked.subaccount:
        meta["subaccount_auth"] = asked.subaccount
    meta |= {
        "granularity": asked.granularity,
        "from_date": _iso(midnight(asked.start)),
        "to_date": _iso(midnight(asked.end)),
        "currency": ACCOUNTS[account]["currency"],
        "page_size": asked.page_size,
    }
    if following < len(rows):
        meta["next_page_token"] = base64.urlsafe_b64encode(f"{following}|{asked.digest()}".encode()).decode()
    answer: dict[str, Any] = {
        "meta": meta,
        "usage": [_usage(row, _bucket(row.start, asked.granularity)[1]) for row in rows[offset:following]],
    }
    if offset:
        return answer  # totals and other charges are on page 1 only
    other = [
        charge
        for month in months
        for charge in plivo_bill.other_charges(world, account, month, now)
        if charge.start < midnight(asked.end) and charge.end > midnight(asked.start)
    ]
    billed = not asked.subaccount and "other" in asked.products
    spent = sum((row.amount for row in rows), Decimal(0))
    meta["total_spent"] = plain(spent + sum((charge.amount for charge in other if billed), Decimal(0)))
    if asked.subaccount:
        meta["total_subaccount_spent"] = plain(spent)
    else:
        by_subaccount: defaultdict[str, Decimal] = defaultdict(Decimal)
        for row in rows:
            if row.subaccount:
                by_subaccount[row.subaccount] += row.amount
        meta["subaccount_spend"] = {name: plain(by_subaccount[name]) for name in sorted(by_subaccount)}
    if billed:
        answer["other_charges"] = [_other(charge) for charge in other]
    return answer


def _summary(world: World, account: str, asked: Asked, months: list[str], now: datetime) -> Sequence[Usage]:
    """The usage rows of a request, all pages, by bucket and dimensions."""
    buckets: dict[tuple[Any, ...], Usage] = {}
    for month in months:
        for day in plivo_bill.usage(world, account, month, now):
            if not (asked.start <= day.start.date() < asked.end and _matches(day, asked)):
                continue
            for row in _hours(world, account, day, now) if asked.granularity == "hour" else [day]:
                row = row._replace(start=_bucket(row.start, asked.granularity)[0])
                key = row[:9]
                buckets[key] = _sum(buckets[key], row) if key in buckets else row
    return [buckets[key] for key in sorted(buckets)]


def _matches(row: Usage, asked: Asked) -> bool:
    return (
        row.product in asked.products
        and asked.subaccount in ("", row.subaccount)
        and asked.direction in ("", row.direction)
        and asked.country in ("", row.country)
        and (row.product != "message" or asked.error_code in ("", row.error_code))
        and (row.product not in ("voice", "zentrunk") or asked.hangup_cause in ("", row.hangup_cause))
    )


def _sum(one: Usage, two: Usage) -> Usage:
    seconds = None if one.seconds is None or two.seconds is None else one.seconds + two.seconds
    return one._replace(
        units=one.units + two.units,
        seconds=seconds,
        amount=one.amount + two.amount,
        surcharge=one.surcharge + two.surcharge,
    )


def _hours(world: World, account: str, day: Usage, now: datetime) -> Iterable[Usage]:
    """A day's bucket in hourly ones that add up to it, none after the present."""
    last = now.hour if day.start.date() == now.date() else 23
    chance = world.draw("plivo", "hours", account, *day[:8])
    weights = [chance.randrange(1, 30) * (3 if 8 <= hour <= 20 else 1) for hour in range(last + 1)]

    def until(whole: Decimal, done: int, digit: str = "0.00001") -> Decimal:
        if done == day.units:
            return whole
        return (whole * done / day.units).quantize(Decimal(digit), ROUND_DOWN)

    before = 0
    for hour in range(last + 1):
        done = day.units * sum(weights[: hour + 1]) // sum(weights)
        if done > before:
            surcharge = until(day.surcharge, done) - until(day.surcharge, before)
            price = day.amount - day.surcharge
            yield day._replace(
                start=day.start + timedelta(hours=hour),
                units=done - before,
                seconds=None
                if day.seconds is None
                else until(day.seconds, done, "1") - until(day.seconds, before, "1"),
                amount=until(price, done) - until(price, before) + surcharge,
                surcharge=surcharge,
            )
        before = done


def _bucket(start: datetime, granularity: str) -> tuple[datetime, datetime]:
    """The whole bucket an instant lies in, also where the window holds only a part of it."""
    if granularity == "hour":
        return start, start + timedelta(hours=1)
    if granularity == "day":
        return start, start + timedelta(days=1)
    if granularity == "month":
        return start.replace(day=1), plivo_bill.month_end(f"{start:%Y-%m}")
    return start.replace(month=1, day=1), start.replace(year=start.year + 1, month=1, day=1)


def _usage(row: Usage, end: datetime) -> dict[str, Any]:
    """A row as Plivo writes it; what does not apply is left out."""
    written: dict[str, Any] = {
        "from_date": _iso(row.start),
        "to_date": _iso(end),
        "product": row.product,
        "type": row.type,
    }
    places = (("subaccount_auth", row.subaccount), ("country", row.country), ("direction", row.direction))
    written |= {name: value for name, value in places if value}
    written["total_units"] = row.units
    if row.seconds is not None:
        written["duration_seconds"] = plain(row.seconds)
    written["total_amount"] = plain(row.amount)
    if row.surcharge:
        written["surcharge"] = plain(row.surcharge)
    labels = (("error_code", row.error_code), ("hangup_cause", row.hangup_cause), ("error_reason", row.error_reason))
    return written | {name: value for name, value in labels if value}


def _other(charge: Other) -> dict[str, Any]:
    return {
        "from_date": _iso(charge.start),
        "to_date": _iso(charge.end),
        "description": charge.description,
        "total_units": charge.units,
        "total_amount": plain(charge.amount),
    }


def _iso(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"
