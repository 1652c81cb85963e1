"""How the stand-ins misbehave on command: for tests, and for a person who rehearses a bad day.

    faults=http://127.0.0.1:8642/_sandbox/faults
    curl $faults                                                                     what there is, and what is on
    curl -X PUT $faults -d '{"provider": "plivo", "fault": "truncated body"}'        the next answer
    curl -X PUT $faults -d '{"provider": "plivo", "fault": "429", "times": 0}'       every answer from now on
    curl -X PUT $faults -d '{"provider": "plivo", "fault": null}'                    all is well again

`after` lets so many answers pass first; `path` picks requests by a part of their path (without it Talkdesk's token endpoint is
left alone); `seconds` is for Retry-After and for the wait between the bytes of a slow answer; `to` is where a foreign link
leads. A fault replaces an answer (`_REPLIES`), happens on the wire (`_WIRE`) or changes the JSON of the real answer with exact
digits (`_CHANGES`); two happen to the list that the pages are cut from (`MOVES`).
"""

from __future__ import annotations

import asyncio
import copy
import gzip
import json
import threading
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from email.utils import formatdate
from functools import cache
from time import time
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Document = dict[str, Any]

PATHS = {"talkdesk": "/express/"}
"""Which requests are meant when nobody says: the bill's, not the token's."""

_ENCODE = msgspec.json.Encoder(decimal_format="number").encode


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """A fault to be done: what `PUT /_sandbox/faults` takes."""

    provider: str
    fault: str | None
    times: int = 1
    """How many answers it hits; 0: all, until it is taken back."""
    after: int = 0
    """How many answers pass before it."""
    path: str = ""
    seconds: float = 1
    to: str = "http://localhost:9/elsewhere"


@dataclass
class Armed:
    """A fault that is on, and what it did so far."""

    order: Order
    passed: int = 0
    hits: int = 0
    moved: dict[str, Decimal] = field(default_factory=dict)
    """By how much its answers state more money than the company was charged, by currency."""
    rows: int = 0
    """The same in charges."""
    before: Document | None = None
    """The provider's answer before this one."""

    @property
    def over(self) -> bool:
        """Whether it has hit as often as it should."""
        return 0 < self.order.times <= self.hits

    @property
    def done(self) -> int:
        """How often it has hit."""
        return self.hits + (self.order.fault in MOVES and self.passed > 0)

    def due(self, path: str) -> bool:
        """Whether it hits the answer to a request for `path`, which counts as one more then."""
        if self.over or (self.order.path or PATHS.get(self.order.provider, "")) not in path:
            return False
        self.passed += 1
        if self.passed <= self.order.after:
            return False
        self.hits += 1
        return True


class Faults:
    """Which faults are on. Each provider has at most a few; the first that is due is done."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []
        self._lock = threading.Lock()

    def arm(self, order: Order) -> None:
        """Do it from the next answer on, beside the provider's other faults; None takes them all back.

        Raises:
            ValueError: there is no such fault.
        """
        if order.fault is not None and order.fault not in KNOWN:
            raise ValueError(f"no fault {order.fault!r}; there are: {', '.join(KNOWN)}")
        with self._lock:
            if order.fault is None:
                self._armed = [armed for armed in self._armed if armed.order.provider != order.provider]
            else:
                self._armed.append(Armed(order))

    def armed(self) -> list[Armed]:
        """All that were ordered and not taken back, oldest first."""
        with self._lock:
            return list(self._armed)

    def due(self, provider: str, path: str) -> list[Armed]:
        """The faults that hit the answer to this request."""
        with self._lock:
            ours = [
                armed for armed in self._armed if armed.order.provider == provider and armed.order.fault not in MOVES
            ]
            return [armed for armed in ours if armed.due(path)]

    def listed(self, provider: str, rows: Sequence[T], *, first: bool) -> Sequence[T]:
        """The list that a page is cut from, as it stands when that page is asked for; `first`: it is page 1 of a walk."""
        with self._lock:
            for armed in self._armed:
                if armed.order.provider == provider and armed.order.fault in MOVES and not armed.over:
                    if not first:
                        armed.passed += 1
                        return MOVES[armed.order.fault][1](rows)
                    armed.hits += armed.passed > 0
                    armed.passed = 0
        return rows


@dataclass(frozen=True)
class Misbehaving:
    """The application, with the faults that are on between it and the network."""

    app: Application
    faults: Faults
    record: Callable[[str, str, str, str], None]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        path = scope.get("path", "")
        provider = path.strip("/").partition("/")[0]
        due = self.faults.due(provider, path) if scope["type"] == "http" else []
        whole = [armed for armed in due if armed.order.fault in _REPLIES]
        if whole:
            self.record(provider, "fault", scope["method"], path)
            status, headers, body = _REPLIES[str(whole[0].order.fault)][1](whole[0].order)
            return await _answer(send, status, headers, body)
        if not due:
            return await self.app(scope, receive, send)
        status, headers, body = await _asked(self.app, scope, receive)
        for armed in due:
            if armed.order.fault in _CHANGES and status < 300:
                body = _changed(body, armed, scope)
        wire = next((armed for armed in due if armed.order.fault in _WIRE), None)
        if wire is None:
            return await _answer(send, status, headers, body)
        return await _WIRE[str(wire.order.fault)][1](wire.order, receive, send, (status, headers, body))


Reply = tuple[int, dict[str, str], bytes]


async def _asked(app: Application, scope: MutableMapping[str, Any], receive: Receive) -> Reply:
    start: Message = {}
    body = b""

    async def keep(message: Message) -> None:
        nonlocal start, body
        if message["type"] == "http.response.start":
            start = message
        else:
            body += message.get("body", b"")

    await app(scope, receive, keep)
    headers = {name.decode(): value.decode() for name, value in start["headers"] if name != b"content-length"}
    return start["status"], headers, body


async def _begun(send: Send, status: int, headers: dict[str, str], length: int) -> None:
    lines = [(name.encode(), value.encode()) for name, value in {**headers, "content-length": str(length)}.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})


async def _answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    await _begun(send, status, headers, len(body))
    await send({"type": "http.response.body", "body": body})


# What is answered instead. ------------------------------------------------------------------------------------------------


def _error(status: int, **headers: str) -> Callable[[Order], Reply]:
    told = _ENCODE({"error": f"The sandbox was told to answer {status}."})
    return lambda order: (
        status,
        {"content-type": "application/json"}
        | {
            name.replace("_", "-"): value.format(
                seconds=int(order.seconds), date=formatdate(time() + order.seconds, usegmt=True), to=order.to
            )
            for name, value in headers.items()
        },
        told,
    )


@cache
def _bomb() -> bytes:
    return gzip.compress(b"[" + b" " * (128 << 20) + b"]", compresslevel=1)


_PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"

_REPLIES: dict[str, tuple[str, Callable[[Order], Reply]]] = {
    "429": ("Too many requests, without a word on when to come back.", _error(429)),
    "429 with seconds": ("Too many requests, Retry-After in seconds.", _error(429, retry_after="{seconds}")),
    "429 with a date": ("Too many requests, Retry-After as an HTTP date.", _error(429, retry_after="{date}")),
    "401": ("The credentials are refused, as by a token that died.", _error(401)),
    "403": ("The account may not ask.", _error(403)),
    "500": ("An internal error.", _error(500)),
    "502": ("A bad gateway.", _error(502)),
    "503": ("Service unavailable.", _error(503)),
    "503 with seconds": ("Service unavailable, Retry-After in seconds.", _error(503, retry_after="{seconds}")),
    "redirect": ("Moved to another host (`to`).", _error(302, location="{to}")),
    "HTML page": ("A sign-in page with status 200.", lambda order: (200, {"content-type": "text/html"}, _PAGE)),
    "empty body": ("Status 200 and nothing.", lambda order: (200, {"content-type": "application/json"}, b"")),
    "gzip bomb": (
        "A small compressed body that grows to 128 MB.",
        lambda order: (200, {"content-type": "application/json", "content-encoding": "gzip"}, _bomb()),
    ),
}


# What happens on the wire. The transport below ASGI is uvicorn's own: nothing else can hang up in mid-sentence. -------------


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reset(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    send.__self__.transport.abort()  # type: ignore[attr-defined]
    await _gone(receive)


async def _truncated(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    status, headers, body = reply
    await _begun(send, status, headers, len(body))
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    send.__self__.transport.close()  # type: ignore[attr-defined]
    await _gone(receive)


async def _slow_body(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    status, headers, body = reply
    await _begun(send, status, headers, len(body))
    await _dripped(
        send, [{"type": "http.response.body", "body": body[i : i + 1], "more_body": True} for i in range(64)], order
    )
    await send({"type": "http.response.body", "body": body[64:]})


async def _slow_headers(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    transport = send.__self__.transport  # type: ignore[attr-defined]
    transport.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(64):
        if transport.is_closing():
            return
        transport.write(b"x")
        await asyncio.sleep(order.seconds)
    transport.abort()


async def _dripped(send: Send, messages: list[Message], order: Order) -> None:
    for message in messages:
        if send.__self__.transport.is_closing():  # type: ignore[attr-defined]
            return
        await send(message)
        await asyncio.sleep(order.seconds)


async def _hanging(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    await _gone(receive)


async def _without_end(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    while not send.__self__.transport.is_closing():  # type: ignore[attr-defined]
        await send({"type": "http.response.body", "body": b" " * (1 << 20), "more_body": True})
        await asyncio.sleep(0)


async def _typed(order: Order, receive: Receive, send: Send, reply: Reply) -> None:
    await _answer(send, reply[0], {**reply[1], "content-type": "text/plain; charset=utf-16"}, reply[2])


_WIRE: dict[str, tuple[str, Callable[[Order, Receive, Send, Reply], Awaitable[None]]]] = {
    "connection reset": ("The connection is reset instead of an answer.", _reset),
    "truncated body": ("The connection closes after half of the body.", _truncated),
    "slow body": ("The body comes byte by byte, `seconds` apart.", _slow_body),
    "slow headers": ("The headers come byte by byte, `seconds` apart.", _slow_headers),
    "hanging socket": ("The connection stays open and nothing comes.", _hanging),
    "body without end": ("White space for ever.", _without_end),
    "wrong content type": ("The right body, said to be text/plain in UTF-16.", _typed),
}


# What is changed in the answer. -------------------------------------------------------------------------------------------

_AMOUNT = {"plivo": "total_amount", "talkdesk": "total_amount", "ycloud": "cost"}
_TOTAL = {"plivo": ("meta", "total_spent"), "talkdesk": ("total",), "ycloud": ("total",)}


@dataclass(frozen=True)
class Answered:
    """An answer that is to be changed: its JSON, and what of it a change needs to know."""

    provider: str
    document: Document
    query: dict[str, list[str]]
    armed: Armed

    @property
    def rows(self) -> list[Document]:
        """The list of rows; changes to it change the answer."""
        at = {"plivo": ("usage",), "talkdesk": ("_embedded", "usage"), "ycloud": ("items",)}.get(self.provider, ())
        found: Any = self.document
        for name in at:
            found = found.get(name, {})
        return found if at and found else []

    @property
    def priced(self) -> list[Document]:
        """The objects that have an amount."""
        if self.provider == "ycloud":
            return [cost for item in self.rows for cost in item.get("costItems") or ()]
        return [*self.rows, *(self.document.get("other_charges") or () if self.provider == "plivo" else ())]

    @property
    def amount(self) -> str:
        """The name of the amount."""
        return _AMOUNT[self.provider]

    def stated(self) -> list[tuple[str, Decimal]]:
        """Currency and amount of all that can be read as money."""
        found = []
        for charge in self.priced:
            currency = charge.get("currency") or self.document.get("meta", {}).get("currency") or "USD"
            with suppress(KeyError, InvalidOperation):
                amount = charge[self.amount]
                found.append(
                    (currency, Decimal(bytes(amount).decode() if isinstance(amount, msgspec.Raw) else str(amount)))
                )
        return found

    def lengthen(self, rows: int, money: Decimal) -> None:
        """Let every count and total of the envelope agree with so many rows, and so much money, more."""
        for name in ("count", "length", "total"):
            if name in self.document:
                self.document[name] += rows
        if self.provider == "plivo" and "total_spent" in self.document["meta"]:
            self.document["meta"]["total_spent"] += money


def _changed(body: bytes, armed: Armed, scope: MutableMapping[str, Any]) -> bytes:
    document = json.loads(body, parse_float=Decimal)
    untouched = copy.deepcopy(document)
    query = parse_qs(scope.get("query_string", b"").decode())
    answered = Answered(armed.order.provider, document, query, armed)
    stated = answered.stated()
    try:
        _CHANGES[str(armed.order.fault)][1](answered)
    except LookupError:  # nothing there to be changed, such as a page without rows: the next answer may do
        armed.hits -= 1
        return body
    for sign, charges in ((-1, stated), (1, answered.stated())):
        armed.rows += sign * len(charges)
        for currency, amount in charges:
            if not amount.is_finite():
                continue
            armed.moved[currency] = armed.moved.get(currency, Decimal(0)) + sign * amount
    armed.before = untouched
    return _ENCODE(document)


def _cost(answered: Answered) -> list[Document]:
    """Charges, the cheapest first."""
    return sorted(answered.priced, key=lambda charge: abs(charge[answered.amount]))


def _row_cost(answered: Answered, row: Document) -> Decimal:
    if answered.provider == "ycloud":
        return sum((cost["cost"] for cost in row["costItems"]), Decimal(0))
    return Decimal(row[answered.amount])


def _set(value: Any) -> Callable[[Answered], None]:
    """The first amount becomes `value`."""

    def change(answered: Answered) -> None:
        answered.priced[0][answered.amount] = value

    return change


def _balanced(value: Callable[[Decimal], Decimal]) -> Callable[[Answered], None]:
    """The first amount becomes `value` of it and another one makes up for it, so that all totals still agree."""

    def change(answered: Answered) -> None:
        first, second = answered.priced[:2]
        new = value(Decimal(first[answered.amount]))
        second[answered.amount] += first[answered.amount] - new
        first[answered.amount] = new

    return change


def _every(written: Callable[[Decimal], Any]) -> Callable[[Answered], None]:
    """Every amount is written in another way."""

    def change(answered: Answered) -> None:
        for charge in answered.priced:
            charge[answered.amount] = written(Decimal(charge[answered.amount]))

    return change


def _unknown_fields(answered: Answered) -> None:
    for each in (answered.document, *answered.rows, *answered.priced):
        each["somethingNew"] = {"list": [Decimal("1.50"), None, "=1+1"]}


def _unknown_values(answered: Answered) -> None:
    for row in answered.rows[:1]:
        row.update(
            {"plivo": {"product": "fax"}, "talkdesk": {"type": "HOLOGRAM"}, "ycloud": {"channel": "fax"}}[
                answered.provider
            ]
        )


def _without_optional(answered: Answered) -> None:
    dropped = {
        "plivo": ("duration_seconds", "surcharge", "auth_id", "subaccount_spend"),
        "talkdesk": ("count", "page", "per_page", "total", "total_pages", "next", "self", "first", "last", "prev", "show",
                     "id", "description", "wallet_name", "aggr_product_id", "unit", "price", "number_of_units"),
        "ycloud": ("total", "isTransient", "unitPrice", "quantity", "conversationOriginType"),
    }[answered.provider]  # fmt: skip
    for each in (answered.document, answered.document.get("meta", {}), *answered.rows, *answered.priced):
        for name in dropped:
            each.pop(name, None)


def _without_counts(answered: Answered) -> None:
    for name in ("count", "page", "per_page", "total", "total_pages"):
        answered.document.pop(name, None)


def _without_required(answered: Answered) -> None:
    if answered.provider == "infobip":
        del answered.document["requestId"]
    else:
        del answered.priced[0][answered.amount]


def _without_rows(answered: Answered) -> None:
    holder = answered.document["_embedded"] if answered.provider == "talkdesk" else answered.document
    del holder[{"plivo": "usage", "talkdesk": "usage", "ycloud": "items"}[answered.provider]]


def _without_costs(answered: Answered) -> None:
    del answered.rows[0]["costItems"]


def _other_currency(currency: str) -> Callable[[Answered], None]:
    def change(answered: Answered) -> None:
        (answered.document["meta"] if answered.provider == "plivo" else answered.rows[0])["currency"] = currency

    return change


def _wrong_total(answered: Answered) -> None:
    *outer, name = _TOTAL[answered.provider]
    holder = answered.document[outer[0]] if outer else answered.document
    if name in holder:
        holder[name] += 1


def _twice(answered: Answered) -> None:
    row = min(answered.rows, key=lambda row: abs(_row_cost(answered, row)))
    answered.rows.append(copy.deepcopy(row))
    answered.lengthen(1, _row_cost(answered, row))


def _lost(answered: Answered) -> None:
    row = max(answered.rows, key=lambda row: abs(_row_cost(answered, row)))
    answered.rows.remove(row)


def _lost_cheap(answered: Answered) -> None:
    answered.rows.remove(min(answered.rows, key=lambda row: abs(_row_cost(answered, row))))


def _lost_everywhere(answered: Answered) -> None:
    row = answered.rows[0]
    answered.rows.remove(row)
    answered.lengthen(-1, -_row_cost(answered, row))


def _page_again(answered: Answered) -> None:
    if answered.armed.before is not None:
        answered.document.clear()
        answered.document.update(copy.deepcopy(answered.armed.before))


def _rows_again(answered: Answered) -> None:
    if answered.armed.before is not None:
        before = Answered(answered.provider, answered.armed.before, {}, answered.armed)
        answered.rows[:] = copy.deepcopy(before.rows[: len(answered.rows)])


def _leading(answered: Answered, link: str) -> None:
    """The next page is `link`."""
    if answered.provider == "plivo":
        answered.document["meta"]["next_page_token"] = link
    else:
        answered.document["_links"]["next"] = {"href": link}
        answered.document["next"] = {"href": link}


def _loop(answered: Answered) -> None:
    if answered.provider == "plivo":
        _leading(answered, answered.query.get("page_token", [answered.document["meta"].get("next_page_token", "")])[0])
    else:
        _leading(answered, answered.document["_links"]["first"]["href"])


def _foreign(answered: Answered) -> None:
    _leading(answered, answered.armed.order.to)


def _said_id(value: Any) -> Callable[[Answered], None]:
    def change(answered: Answered) -> None:
        answered.document["requestId"] = value

    return change


_CHANGES: dict[str, tuple[str, Callable[[Answered], None]]] = {
    "unknown fields": ("The answer and all its rows have a field that no page names.", _unknown_fields),
    "unknown value": ("The first row is of a product that no page names.", _unknown_values),
    "missing optional fields": ("All that may be missing is missing.", _without_optional),
    "missing counts": ("No counts, page numbers and totals of rows, which Talkdesk's page does not promise.", _without_counts),
    "missing amount": ("A row without its amount; of Infobip, an acceptance without its requestId.", _without_required),
    "missing rows": ("No list of rows.", _without_rows),
    "missing cost items": ("An item without its list of costs.", _without_costs),
    "null amount": ("An amount is null.", _set(None)),
    "NaN amount": ("An amount is NaN.", _set(msgspec.Raw(b"NaN"))),
    "text amounts": ("All amounts are numbers in quotes.", _every(lambda amount: f"{amount:f}")),
    "amount in words": ("An amount is text that is no number.", _set("twelve")),
    "17-digit amounts": ("An amount of 17 digits behind the point.", _balanced(lambda a: a + Decimal("0.00000000000000001"))),
    "19-digit amounts": ("Float noise: an amount of 19 digits behind the point.", _balanced(lambda a: a + Decimal("5E-19"))),
    "exponent amounts": ("All amounts are written with an exponent.", _every(lambda amount: msgspec.Raw(f"{amount:e}".encode()))),
    "huge amount": ("An amount of 1E400.", _set(msgspec.Raw(b"1E400"))),
    "negative amounts": ("A negative amount, and another that makes up for it.", _balanced(lambda amount: -amount - 1)),
    "another currency": ("A row (Plivo: a page) in another currency.", _other_currency("GBP")),
    "no currency": ("A row (Plivo: a page) in a currency that is none.", _other_currency("dollars")),
    "wrong totals": ("The answer states one more than it holds.", _wrong_total),
    "duplicate row": ("The cheapest row twice, and all counts and totals agree with that.", _twice),
    "row lost": ("The dearest row is missing; the totals have it.", _lost),
    "cheap row lost": ("The cheapest row is missing; the totals have it.", _lost_cheap),
    "row lost, totals too": ("A row is missing, and all counts and totals agree with that.", _lost_everywhere),
    "repeated page": ("The answer before, once more.", _page_again),
    "repeated rows": ("The rows of the answer before, in the frame of this one.", _rows_again),
    "looping cursor": ("The next page is this page, or the first.", _loop),
    "foreign next": ("The next page is on another host (`to`).", _foreign),
    "requestId is null": ("Infobip's requestId is null.", _said_id(None)),
    "requestId is empty": ("Infobip's requestId is empty.", _said_id("")),
}  # fmt: skip


# What happens to the list that pages are cut from, between page 1 and page 2 of a walk. ------------------------------------

MOVES: dict[str, tuple[str, Callable[[Sequence[Any]], Sequence[Any]]]] = {
    "row removed between pages": (
        "After page 1 its first row leaves the list; all others move up.",
        lambda rows: rows[1:],
    ),
    "row inserted between pages": (
        "After page 1 a row comes in front; all others move down.",
        lambda rows: [*rows[:1], *rows],
    ),
    "row exchanged between pages": (
        "After page 1 its first row leaves the list and a new one comes at the end: as many rows as before.",
        lambda rows: [*rows[1:], _another(rows[0])],
    ),
}


def _another(row: Any) -> Any:
    """A row that differs from `row` in what tells rows apart."""
    if isinstance(row, dict):
        return {**row, "id": row["id"][::-1], "product_id": "new"}
    return row._replace(**({"region": "ZZ"} if "region" in row._fields else {"country": "ZZ"}))


KNOWN = {name: told for table in (_REPLIES, _WIRE, _CHANGES, MOVES) for name, (told, _) in table.items()}
"""All faults, with what each is."""
