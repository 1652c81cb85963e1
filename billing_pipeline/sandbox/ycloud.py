"""YCloud's daily billing, usageDetails.

Source: https://helpdocs.ycloud.com/partner-center/english-en-2/bai-biao-huo-ban/partner-platform-management-api/shi-yong-api-cha-xun-ke-hu-de-zhang-dan
and, for paging, errors and limits, https://docs.ycloud.com/en/api-reference/guides/api-fundamentals/ (read 2026-11)
"""

from __future__ import annotations

import re
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from billing_pipeline.sandbox import ycloud_bill
from billing_pipeline.sandbox.answer import ExactJson, plain
from billing_pipeline.sandbox.world import SINCE, World
from billing_pipeline.sandbox.ycloud_bill import ACCOUNTS, API_KEY, CURRENCY, Cost, Item

LIMITS = ((200, 1), (10_000, 3600))
"""Requests, seconds; shared by all calls with one API key."""

FAULTS = {
    401: "UNAUTHORIZED",
    403: "ACCOUNT_LIMITED",
    404: "NOT_FOUND",
    429: "TOO_MANY_REQUESTS",
    500: "INTERNAL_SERVER_ERROR",
    503: "SERVICE_UNAVAILABLE",
}


class Refused(Exception):
    """A request YCloud answers with an error."""

    def __init__(self, status: int, code: str, message: str, target: str = "", retry_after: int = 0):
        super().__init__(message)
        self.status = status
        self.target = target
        self.retry_after = retry_after
        self.error = {"status": status, "code": code, "message": message} | ({"target": target} if target else {})


@dataclass(frozen=True)
class Asked:
    """A valid request, its defaults filled in."""

    page: int
    limit: int
    include_total: bool
    start: date
    end: date
    """Inclusive."""
    waba: str
    """"" for all."""


def charges(world: World, account: str, period: str, at: datetime) -> Iterator[Mapping[str, Any]]:
    """What YCloud would bill `account` for a UTC+8 month if asked at `at`: every cost item, one charge each.

    Raises:
        KeyError: no such account.
        ValueError: `period` is not a month.
    """
    ACCOUNTS[account]
    for item in ycloud_bill.items(world, account, period, at):
        dimensions = _item(item)
        del dimensions["costItems"]
        for cost in item.costs:
            yield {"amount": cost.cost, "currency": CURRENCY, **dimensions, **_cost(cost)}


def routes(world: World) -> list[BaseRoute]:
    """The one endpoint, over the world's clock."""
    answered: defaultdict[int, deque[float]] = defaultdict(deque)

    async def usage_details(request: Request) -> ExactJson:
        request_id = f"req_{uuid.uuid4().hex}"
        headers = {"YCloud-Request-ID": request_id}
        account = _account(request)
        world.record("ycloud", account, request.method, f"{request.url.path}?{request.url.query}")
        try:
            if request.headers.get("X-API-Key") != API_KEY:
                raise Refused(401, "UNAUTHORIZED", "The API key is missing or invalid.")
            if world.enforce_limits:
                _within_limits(answered)
            if status := world.fault("ycloud"):
                raise Refused(status, FAULTS.get(status, "BAD_REQUEST"), "As the sandbox was told to answer.")
            if not account:
                raise Refused(403, "FORBIDDEN", "The managed account does not exist or is not yours.")
            return ExactJson(_answer(world, account, asked(request.query_params), world.now()), headers=headers)
        except Refused as refused:
            if refused.retry_after:
                headers["Retry-After"] = str(refused.retry_after)
            return ExactJson({"error": {**refused.error, "requestId": request_id}}, refused.status, headers)

    return [Route("/v2/billing/usageDetails", usage_details, methods=["GET"])]


def _account(request: Request) -> str:
    """The account that the key and the managed account's id mean; "" if there is none."""
    if request.headers.get("X-API-Key") != API_KEY:
        return ""
    managed = request.headers.get("X-Managed-Account-ID")
    return next((name for name, account in ACCOUNTS.items() if account.get("managed_account_id") == managed), "")


def _within_limits(answered: defaultdict[int, deque[float]]) -> None:
    now = time.monotonic()
    for allowed, seconds in LIMITS:
        window = answered[seconds]
        while window and window[0] <= now - seconds:
            window.popleft()
        if len(window) >= allowed:
            wait = int(window[0] + seconds - now) + 1
            raise Refused(429, "TOO_MANY_REQUESTS", f"More than {allowed} requests in {seconds} s.", retry_after=wait)
    for _, seconds in LIMITS:
        answered[seconds].append(now)


def asked(sent: QueryParams) -> Asked:
    """The parameters of a request, checked.

    Raises:
        Refused: 400, PARAM_MISSING or PARAM_INVALID with the parameter's name.
    """
    start, end = _date(sent, "filter.startDate"), _date(sent, "filter.endDate")
    if end < start:
        raise _invalid("filter.endDate", "should not be before 'filter.startDate'")
    total = sent.get("includeTotal", "false")
    if total not in ("true", "false"):
        raise _invalid("includeTotal", "should be true or false")
    return Asked(
        _number(sent, "page", 1), _number(sent, "limit", 10), total == "true", start, end, sent.get("filter.wabaId", "")
    )


def _invalid(name: str, why: str) -> Refused:
    return Refused(400, "PARAM_INVALID", f"Parameter '{name}' {why}.", name)


def _number(sent: QueryParams, name: str, default: int) -> int:
    text = sent.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= 100:
        raise _invalid(name, "should be between 1 and 100")
    return int(text)


def _date(sent: QueryParams, name: str) -> date:
    text = sent.get(name)
    if not text:
        raise Refused(400, "PARAM_MISSING", f"Parameter '{name}' is required.", name)
    try:
        if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        pass
    raise _invalid(name, "should be a date of format yyyy-MM-dd")


def _answer(world: World, account: str, asked: Asked, now: datetime) -> dict[str, Any]:
    today = now.astimezone(ycloud_bill.ZONE).date()
    months: list[str] = []
    first = max(asked.start, SINCE).replace(day=1)
    while first <= min(asked.end, today):
        months.append(f"{first:%Y-%m}")
        first = ycloud_bill.next_month(first)

    def build() -> Sequence[Item]:
        return [
            item
            for month in reversed(months)
            for item in ycloud_bill.items(world, account, month, now)
            if asked.start <= item.day <= asked.end and asked.waba in ("", item.waba)
        ]

    states = tuple(ycloud_bill.state(month, now) for month in months)
    found = world.kept(("ycloud answer", account, asked.start, asked.end, asked.waba, states), build)
    found = world.faults.listed("ycloud", found, first=asked.page == 1)
    offset = (asked.page - 1) * asked.limit
    items = [_item(item) for item in found[offset : offset + asked.limit]]
    total = {"total": len(found)} if asked.include_total else {}
    return {"offset": offset, "limit": asked.limit, **total, "length": len(items), "items": items}


def _item(item: Item) -> dict[str, Any]:
    """An item as YCloud writes it; what does not apply is left out."""
    written: dict[str, Any] = {"date": f"{item.day}", "isTransient": item.transient, "channel": item.channel}
    if item.waba:
        written["wabaId"] = item.waba
    if item.region:
        written["regionCode"] = item.region
    return written | {"costItems": [_cost(cost) for cost in item.costs]}


def _cost(cost: Cost) -> dict[str, Any]:
    written: dict[str, Any] = {
        "cost": plain(cost.cost),
        "unitPrice": plain(cost.unit_price),
        "quantity": cost.quantity,
    }
    return written | ({"conversationOriginType": cost.origin} if cost.origin else {})
