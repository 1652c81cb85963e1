"""Infobip's `POST /billing/1/usage/query` and its callback, with the traffic of an invented company.

A month changes as the documents say it may: today's traffic is partial, some records arrive up to three days late,
a retroactive volume discount reprices outbound SMS on the 3rd of the next month, a pricing adjustment takes rows away
on the 4th; from the 5th 00:00 UTC, when `volumeFinalized` turns true, it stands still. Where the documents contradict
each other or are silent there is a switch: see `SWITCHES`.

Source: https://www.infobip.com/docs/billing-usage-api/query-billing-data,
https://www.infobip.com/docs/billing-usage-api/billing-data-reference, the OpenAPI `billing-usage-api` (read 2026-11)
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast
from uuid import uuid4

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from billing_pipeline.sandbox.answer import ExactJson
from billing_pipeline.sandbox.infobip_post import FAULTS, Post, deliver
from billing_pipeline.sandbox.infobip_query import Query, read
from billing_pipeline.sandbox.infobip_traffic import HIERARCHY, records, streams
from billing_pipeline.sandbox.world import World

ACCOUNTS = {"main": {"api_key": "sandbox-infobip-key", "accounts": HIERARCHY}}
UNSCOPED_KEY = "sandbox-infobip-unscoped-key"
"""A key without billing:usage:view. The guide says 401, the OpenAPI 403; it gets 403."""
SUBACCOUNT_KEY = "sandbox-infobip-subaccount-key"
"""The key of a user of the hierarchy's last account, who sees that account only."""

SWITCHES = {
    "inclusive": False,  # sentUntil includes its day, as the guide's example reads; the OpenAPI says exclusive
    "late_flag": False,  # volumeFinalized turns true on the 7th: the documents promise the 5th for the data only
    "date_times": False,  # DAY and MONTH as 2026-05-01T00:00:00.000+0000; their form is shown nowhere
    "failure": None,  # a text makes every callback FAILED, with this failureMessage
    "delay": 0.2,  # seconds until the callback; null: it comes before the query is answered
    "fault": None,  # one of `infobip_post.FAULTS`
}
"""Held as attributes of the world (`world.infobip_inclusive = True`), set by PUT /_sandbox/infobip."""

COSTS = {
    "UNIT_TYPE": "STRING",
    "UNIT_PRICE": "NUMBER",
    "QUANTITY": "NUMBER",
    "TOTAL_PER_UNIT": "NUMBER",
    "CURRENCY": "STRING",
}
TYPES = {"DAY": "DATE_TIME", "MONTH": "DATE_TIME", "CAMPAIGN_ID": "INTEGER"}
REQUESTS_A_SECOND = 60
"""The OpenAPI says 60 in "0" seconds; others read one second."""

_JSON = msgspec.json.Encoder(decimal_format="number")


def charges(world: World, account: str, period: str, at: datetime) -> Iterator[dict[str, Any]]:
    """The month's records as they stand at `at`, also of months out of retention.

    Raises:
        KeyError: no such account.
    """
    ACCOUNTS[account]
    known = streams(world)
    for record in records(world, period, at):
        stream = known[record.stream]
        facts = {"day": record.day, "price": record.price, "quantity": record.quantity, "unit": stream.unit}
        yield {"amount": record.total, "currency": stream.currency, **facts, **stream.dimensions}


@dataclass(frozen=True)
class _Letter:
    """One answer on its way; its contents are those of the instant the query was accepted."""

    world: World
    query: Query
    identifier: str
    visible: frozenset[str]
    """Account keys the asking user may see."""
    at: datetime

    def deliver(self) -> None:
        """POST it, once: the documents know no retry. Or what the fault makes of it."""
        deliver(_post(self.world), _switch(self.world, "fault"), self.identifier, self.query.callback, self._copied)

    def _copied(self) -> BinaryIO:
        letter = cast(BinaryIO, TemporaryFile())  # noqa: SIM115  whoever sends it closes it
        for part in self._parts():
            letter.write(part)
        letter.seek(0)
        return letter

    def _parts(self) -> Iterator[bytes]:
        """The body, piece by piece: a month of a large world does not fit in memory."""
        failure = _switch(self.world, "failure")
        if failure is not None:
            yield _JSON.encode({"requestId": self.identifier, "status": "FAILED", "failureMessage": failure})
            return
        inclusive = timedelta(days=1 if _switch(self.world, "inclusive") else 0)
        since, end = self.query.since, self.query.until + inclusive
        if "MONTH" in self.query.dimensions and "DAY" not in self.query.dimensions:
            # "The range may be aligned to the aggregation granularity."
            since = since.replace(day=1)
            end = end if end.day == 1 else _next_month(end)
        months = [since.replace(day=1)]
        while _next_month(months[-1]) < end:
            months.append(_next_month(months[-1]))
        final = {month: self._final(month) for month in months}
        if not self.query.unfinalized:
            # "... and trimmed to finalized periods only."
            end = max(since, min([end, *(month for month in months if not final[month])]))
        columns = {name: TYPES.get(name, "STRING") for name in self.query.dimensions} | COSTS
        named = [{"columnName": name, "columnDataType": kind} for name, kind in columns.items()]
        metadata = {
            "clientRequestedPeriod": _interval(self.query.since, self.query.until),
            "billingPeriods": [{"month": f"{month:%Y-%m}", "volumeFinalized": final[month]} for month in months],
        }
        yield b'{"requestId":"%b","status":"SUCCESS","response":{' % self.identifier.encode()
        yield b'"requestedPeriod":%b,' % _JSON.encode(_interval(since, end - inclusive))
        yield b'"columns":%b,"rows":[' % _JSON.encode(named)
        rows = 0
        for row in self._rows([month for month in months if month < end], since, end):
            yield (b"," if rows else b"") + _JSON.encode(row)
            rows += 1
        yield b'],"totalRows":%d},"metadata":%b}' % (rows, _JSON.encode(metadata))

    def _final(self, month: date) -> bool:
        day = 7 if _switch(self.world, "late_flag") else 5
        return self.at >= datetime.combine(_next_month(month).replace(day=day), datetime.min.time(), UTC)

    def _rows(self, months: list[date], since: date, end: date) -> Iterator[list[Any]]:
        """One row for each combination of the dimensions, unit, price and currency."""
        dimensions = self.query.dimensions
        keys = [
            (*(stream.dimensions.get(name) for name in dimensions), stream.unit, stream.currency)
            if stream.dimensions["ACCOUNT_KEY"] in self.visible and self.query.wants(stream.dimensions)
            else None
            for stream in streams(self.world)
        ]
        groups: dict[tuple[Any, ...], list[Decimal]] = {}
        group: date | None = None
        for month in months:
            for record in records(self.world, f"{month:%Y-%m}", self.at):
                key = keys[record.stream]
                if key is None or not since <= record.day < end:
                    continue
                # Days and months come one after the other, so only one of them is held.
                if group is not None and self._group(record.day) != group:
                    yield from self._written(groups, group)
                    groups.clear()
                group = self._group(record.day)
                sums = groups.setdefault((key, record.price), [Decimal(0), Decimal(0)])
                sums[0] += record.quantity
                sums[1] += record.total
        if group is not None:
            yield from self._written(groups, group)

    def _group(self, day: date) -> date:
        if "DAY" in self.query.dimensions:
            return day
        return day.replace(day=1) if "MONTH" in self.query.dimensions else date.min

    def _written(self, groups: Mapping[tuple[Any, ...], list[Decimal]], day: date) -> Iterator[list[Any]]:
        times = {"DAY": f"{day:%Y-%m-%d}", "MONTH": f"{day:%Y-%m}"}
        if _switch(self.world, "date_times"):
            times = {"DAY": _midnight(day), "MONTH": _midnight(day.replace(day=1))}
        for (key, price), (quantity, total) in groups.items():
            *facts, unit, currency = key
            values = [times.get(name, fact) for name, fact in zip(self.query.dimensions, facts, strict=True)]
            yield [*values, unit, price, quantity, total, currency]


def routes(world: World) -> list[BaseRoute]:
    """The one endpoint."""
    recent: deque[float] = deque(maxlen=REQUESTS_A_SECOND)

    async def query(request: Request) -> ExactJson:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        known = scheme == "App" and key in (ACCOUNTS["main"]["api_key"], SUBACCOUNT_KEY, UNSCOPED_KEY)
        world.record("infobip", "main" if known else "", request.method, request.url.path)
        if not known:
            return _wrong(401, "The request lacks valid authentication credentials.", "Check the API key.")
        if status := world.fault("infobip"):
            return _wrong(status, "The request cannot be answered at the moment.", "Try again later.")
        if key == UNSCOPED_KEY:
            return _wrong(403, "Insufficient permissions.", "Give the API key the scope billing:usage:view.")
        if world.enforce_limits and len(recent) == REQUESTS_A_SECOND and time.monotonic() - recent[0] < 1:
            return _wrong(429, "Too many requests.", "Wait, then repeat the request more slowly.")
        recent.append(time.monotonic())
        asked, violations = read(await request.body(), world.now(), bool(_switch(world, "inclusive")))
        if asked is None:
            found = [{"property": where, "violation": what} for where, what in violations]
            return _wrong(
                400, "Request cannot be processed.", "Check the syntax, violations and adjust the request.", found
            )
        identifier = uuid4().hex.upper()
        visible = frozenset(list(HIERARCHY)[-1:] if key == SUBACCOUNT_KEY else HIERARCHY)
        letter = _Letter(world, asked, identifier, visible, world.now())
        delay = _switch(world, "delay")
        if delay is None:
            await run_in_threadpool(letter.deliver)
        else:
            timer = threading.Timer(delay, letter.deliver)
            timer.daemon = True
            timer.start()
        return ExactJson({"requestId": identifier}, 201)

    return [Route("/billing/1/usage/query", query, methods=["POST"])]


def admin_routes(world: World) -> list[BaseRoute]:
    """`/infobip`, to be mounted beside the sandbox's other switches: GET shows them, PUT sets those it names.

    `/infobip/letters`: GET shows which letters are held and how the others were taken, POST delivers those that are held.
    """

    async def switches(request: Request) -> ExactJson:
        if request.method == "PUT":
            said = msgspec.json.decode(await request.body())
            if not isinstance(said, dict) or not said.keys() <= SWITCHES.keys():
                return ExactJson({"error": f"infobip: an object with any of {', '.join(SWITCHES)}"}, 400)
            if said.get("fault") not in (None, *FAULTS):
                known = {name: does for name, (does, _) in FAULTS.items()}
                return ExactJson({"error": "infobip: no such fault", "faults": known}, 400)
            for name, value in said.items():
                setattr(world, f"infobip_{name}", value)
        return ExactJson({name: _switch(world, name) for name in SWITCHES})

    async def letters(request: Request) -> ExactJson:
        post = _post(world)
        if request.method == "POST":
            await run_in_threadpool(post.deliver)
        return ExactJson({"held": [identifier for identifier, _ in post.held], "delivered": post.delivered})

    return [
        Route("/infobip", switches, methods=["GET", "PUT"]),
        Route("/infobip/letters", letters, methods=["GET", "POST"]),
    ]


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


def _midnight(day: date) -> str:
    return f"{day}T00:00:00.000+0000"


def _interval(since: date, until: date) -> dict[str, str]:
    return {"sentSince": _midnight(since), "sentUntil": _midnight(until)}


def _switch(world: World, name: str) -> Any:
    return getattr(world, f"infobip_{name}", SWITCHES[name])


def _post(world: World) -> Post:
    post: Post = world.__dict__.setdefault("infobip_post", Post())
    return post


def _wrong(status: int, description: str, action: str, violations: object = ()) -> ExactJson:
    told = {"errorCode": f"E{status}", "description": description, "action": action}
    return ExactJson({**told, "violations": violations, "resources": []}, status)
