"""Talkdesk's token endpoint and Billing Insights `GET /express/usage/month` and `/express/invoices`, of an invented organization.

A month changes as the documents let one expect: usage grows day by day, late rows come until the 3rd of the next
month, a row is merged into another on the 2nd, a discount reprices outbound calls on the 4th; from the 5th 00:00 UTC
it stands still. Twelve months are served, newest first. Not documented and therefore chosen here: the names of the
parameters `page`, `per_page` and `account_id`, and that unknown parameters are ignored.

Source: https://docs.talkdesk.com/reference/billing-insights-get-monthly-usage,
https://docs.talkdesk.com/docs/paging-results, https://docs.talkdesk.com/reference/cc-basic (read 2026-11)
"""

from __future__ import annotations

import base64
import binascii
import csv
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from billing_pipeline.sandbox.answer import ExactJson, plain
from billing_pipeline.sandbox.world import MONTHLY_GROWTH, SINCE, World, pace

SCOPE = "express-accounts-usage:read"
INVOICES_SCOPE = "express-accounts-invoices:read"
SCOPES = (SCOPE, "express-accounts:read", "express-products:read", INVOICES_SCOPE)
ORGANIZATION = ("5ea75fe7aa224700012eae41", "60c1b2f49d3e8a0001f47b02", "62fd03a7c5b9e1000187d6ce")
"""Acme's Talkdesk accounts: its US stores, its outlet chain, its European service centre."""
CURRENCIES = ("USD", "USD", "EUR")
ACCOUNTS = {
    "main": {
        "client_id": "sandbox-talkdesk-client",
        "client_secret": "sandbox-talkdesk-secret",
        "accounts": ORGANIZATION,
    }
}
USAGE_ONLY = ("sandbox-talkdesk-usage-only", "sandbox-talkdesk-secret")
"""Another client of the same organization, which was not granted the scope of the invoices."""
LICENCES = ("TD-LIC-PLT-RC-100001", "Platform licences", Decimal("1250.00"))
"""What every account pays for and no usage list has."""
TAXED = {"USD": Decimal("0.0825")}
CENT = Decimal("0.01")
TOKEN_LIFE = timedelta(minutes=10)
MONTHS_SERVED = 12
PER_PAGE = 50

RECURRING = ("NUMBER", "PRODUCT_SERVICE")
MERGES = "Outbound Minutes - Unassigned"
"""The line that is merged, on the 2nd, into the line before it."""
MERGED_AFTER = timedelta(days=1, hours=12)
DISCOUNTED_AFTER = timedelta(days=3, hours=15)
DISCOUNT = Decimal("0.93")
SETTLED_AFTER = timedelta(days=4)
RECHARGED_AFTER = timedelta(days=11, hours=9)
FREE_UNITS = {"SPEECH_TRANSCRIPTION": 300}
STEPS = {"MINUTES": Decimal("0.1"), "GB": Decimal("0.001")}


class Line(NamedTuple):
    """One thing an account pays for; every month has one row of it."""

    place: int
    """Which of the organization's accounts."""
    product: str
    aggregate: str
    type: str
    description: str
    direction: str | None
    resolution: str | None
    unit: str
    price: str
    volume: int
    """Units an average day; of recurring and prepaid lines, units a month."""
    wallet: str
    places: int
    """Decimals of `total_amount`."""
    late: int
    """Hours after the end of the month at which the row appears; 0 is not late."""


@cache
def _lines() -> tuple[Line, ...]:
    """The catalogue beside this module; an empty direction or resolution is null."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as catalogue:
        return tuple(
            Line(
                **row
                | {"direction": row["direction"] or None, "resolution": row["resolution"] or None}
                | {name: int(row[name]) for name in ("place", "volume", "places", "late")}
            )
            for row in csv.DictReader(catalogue)
        )


def charges(world: World, account: str, period: str, at: datetime) -> Sequence[dict[str, Any]]:
    """The month's rows as they stand at `at`, in the order they are served.

    Also of months no longer served. `amount` is the row's `total_amount`.

    Raises:
        KeyError: no such account.
    """
    ACCOUNTS[account]
    start = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    end = (start + timedelta(days=32)).replace(day=1)
    state = min(at.astimezone(UTC), end + SETTLED_AFTER).replace(minute=0, second=0, microsecond=0)
    if state < start or start.date() < SINCE:
        return []
    return world.kept(("talkdesk", period, state), lambda: _usage(world, start, end, state))


def _usage(world: World, start: datetime, end: datetime, at: datetime) -> list[dict[str, Any]]:
    days = (min(at, end) - start).days
    busy = sum((pace((start + timedelta(days=day)).date()) for day in range(days)), Decimal(0))
    growth = MONTHLY_GROWTH ** ((start.year - SINCE.year) * 12 + start.month - SINCE.month)
    rows: list[dict[str, Any]] = []
    lines = _lines()
    for number in range(world.scaled(len(lines))):
        copy, index = divmod(number, len(lines))
        line = lines[index]
        appears = end + timedelta(hours=line.late) if line.late else start
        if at < (start + RECHARGED_AFTER if line.type == "RECHARGE" else appears):
            continue
        key = (copy, index, f"{start:%Y-%m}")
        if line.type in ("RECHARGE", "CREDIT_COMMIT"):
            units = Decimal(line.volume)
        elif line.type in RECURRING:
            units = (line.volume * growth).quantize(Decimal(1), ROUND_HALF_UP)
        else:
            chance = Decimal(world.draw("talkdesk", *key).randint(880, 1120)) / 1000
            units = (line.volume * busy * chance).quantize(STEPS.get(line.unit, Decimal(1)), ROUND_HALF_UP)
        if not units:
            continue
        price = Decimal(line.price)
        if at >= end + DISCOUNTED_AFTER and (line.type, line.direction) == ("CALL", "OUTBOUND"):
            price = (price * DISCOUNT).quantize(Decimal("0.000001"), ROUND_HALF_UP)
        billed = max(units - FREE_UNITS.get(line.type, 0), Decimal(0))
        total = (price * billed).quantize(Decimal(1).scaleb(-line.places), ROUND_HALF_UP)
        if line.description == MERGES and at >= end + MERGED_AFTER:
            target = rows[-1]
            target["number_of_units"] += units
            target["amount"] = target["total_amount"] = target["total_amount"] + total
            continue
        rows.append(
            {
                "id": md5("/".join(map(str, key)).encode(), usedforsecurity=False).hexdigest(),
                "account_id": _account_id(copy, line.place),
                "product_id": line.product,
                "aggr_product_id": line.aggregate,
                "month": f"{start:%Y-%m}",
                "type": line.type,
                "description": line.description,
                "currency": CURRENCIES[line.place],
                "direction": line.direction,
                "resolution": line.resolution,
                "unit": line.unit,
                "price": plain(price),
                "wallet_name": line.wallet,
                "number_of_units": units,
                "total_amount": total,
                "amount": total,
            }
        )
    return rows


def invoices(world: World, at: datetime) -> list[dict[str, Any]]:
    """Lines of the invoices issued until `at`, newest month first: one invoice an account and month, on the 5th of the next.

    One line a product, to the cent as an invoice has it; then licences and tax, which the usage list lacks.
    """
    rows: list[dict[str, Any]] = []
    month = at.year * 12 + at.month - 1
    for each in range(month - 1, month - 1 - MONTHS_SERVED, -1):
        start = datetime(each // 12, each % 12 + 1, 1, tzinfo=UTC)
        issued = (start + timedelta(days=32)).replace(day=1) + SETTLED_AFTER
        if at < issued:
            continue
        billed: dict[tuple[str, str], dict[str, Decimal]] = {}
        for row in charges(world, "main", f"{start:%Y-%m}", at):
            products = billed.setdefault((row["account_id"], row["currency"]), {})
            products[row["product_id"]] = products.get(row["product_id"], Decimal(0)) + row["amount"]
        for place, ((account, currency), products) in enumerate(billed.items(), 1):
            lines = [(name, name, amount.quantize(CENT, ROUND_HALF_UP)) for name, amount in products.items()]
            lines.append(LICENCES)
            if currency in TAXED:
                tax = sum((amount for _, _, amount in lines), Decimal(0)) * TAXED[currency]
                lines.append(("", "Sales tax", tax.quantize(CENT, ROUND_HALF_UP)))
            number = f"INV-{start:%Y%m}-{place:03}"
            total = sum((amount for _, _, amount in lines), Decimal(0))
            rows += [
                {
                    "id": md5(f"{number}/{index}".encode(), usedforsecurity=False).hexdigest(),
                    "account_id": account,
                    "number": number,
                    "date": f"{issued:%Y-%m-%d}",
                    "currency": currency,
                    "total_invoice_amount": total,
                    "product_id": product or None,
                    "description": description,
                    "quantity": Decimal(1),
                    "rate": amount,
                    "amount": amount,
                }
                for index, (product, description, amount) in enumerate(lines)
            ]
    return rows


def _account_id(copy: int, place: int) -> str:
    """Larger worlds have more accounts with the same habits."""
    if copy == 0:
        return ORGANIZATION[place]
    return md5(f"account {copy} {place}".encode(), usedforsecurity=False).hexdigest()[:24]


def _served(row: dict[str, Any]) -> dict[str, Any]:
    """The row as an answer spells it: every second id says `account ID`, as the page writes it, the others `account_id`."""
    spelling = "account ID" if int(row["id"], 16) % 2 else "account_id"
    return {spelling if key == "account_id" else key: value for key, value in row.items()}


def routes(world: World) -> list[BaseRoute]:
    """The token endpoint and the usage endpoint."""
    tokens: dict[str, tuple[datetime, tuple[str, ...]]] = {}

    async def token(request: Request) -> ExactJson:
        own = (ACCOUNTS["main"]["client_id"], ACCOUNTS["main"]["client_secret"])
        granted = {own: SCOPES, USAGE_ONLY: (SCOPE,)}.get(_client(request), ())
        known = bool(granted)
        world.record("talkdesk", "main" if known else "", request.method, _path(request))
        if not known:
            return _refused("invalid_client", "Client authentication failed.", 401)
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return _refused("invalid_request", "The body must be application/x-www-form-urlencoded.")
        form = parse_qs((await request.body()).decode())
        if "grant_type" not in form:
            return _refused("invalid_request", "Missing required parameter: grant_type.")
        if form["grant_type"] != ["client_credentials"]:
            return _refused("unsupported_grant_type", "The grant type is not supported for this client.")
        scopes = tuple(" ".join(form.get("scope", granted)).split())
        if not set(scopes) <= set(granted):
            return _refused("invalid_scope", "The requested scope is invalid or was not granted to this client.")
        issued = secrets.token_urlsafe(48)
        tokens[issued] = (world.now() + TOKEN_LIFE, scopes)
        answer = {"access_token": issued, "token_type": "Bearer", "expires_in": 600, "scope": " ".join(scopes)}
        return ExactJson(answer, headers={"Cache-Control": "no-store"})

    async def usage(request: Request) -> ExactJson:
        return answer(request, SCOPE)

    async def invoiced(request: Request) -> ExactJson:
        return answer(request, INVOICES_SCOPE)

    def answer(request: Request, scope: str) -> ExactJson:
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        expires, scopes = tokens.get(bearer if scheme.lower() == "bearer" else "", (world.now(), ()))
        valid = world.now() < expires
        world.record("talkdesk", "main" if valid else "", request.method, _path(request))
        if not valid:
            return _wrong(401, "unauthorized", "The access token is missing, invalid or expired.")
        if status := world.fault("talkdesk"):
            return _wrong(status, f"error_{status}", "The request cannot be answered at the moment.")
        if scope not in scopes:
            return _wrong(403, "forbidden", "The access token lacks a required scope.", f"Required scope: {scope}.")
        if scope == INVOICES_SCOPE:
            return _page(world, request, "invoices", invoices(world, world.now()))
        rows = [{key: value for key, value in row.items() if key != "amount"} for row in _listing(world)]
        return _page(world, request, "usage", rows)

    return [
        Route("/oauth/token", token, methods=["POST"]),
        Route("/express/usage/month", usage, methods=["GET"]),
        Route("/express/invoices", invoiced, methods=["GET"]),
    ]


def _page(world: World, request: Request, name: str, rows: Sequence[dict[str, Any]]) -> ExactJson:
    try:
        page = int(request.query_params.get("page", "1"))
        per_page = int(request.query_params.get("per_page", str(PER_PAGE)))
        if page < 1 or not 1 <= per_page <= PER_PAGE:
            raise ValueError
    except ValueError:
        fields = [{"name": "page", "description": f"page is 1 or more, per_page 1 to {PER_PAGE}."}]
        return _wrong(400, "bad_request", "Validation failed.", fields=fields)
    wanted = request.query_params.get("account_id")
    if wanted is not None:
        copies = -(-world.scaled(len(_lines())) // len(_lines()))
        if wanted not in {_account_id(copy, place) for copy in range(copies) for place in range(3)}:
            return _wrong(403, "forbidden", "This caller is not authorized to query the given accounts.")
        rows = [row for row in rows if row["account_id"] == wanted]
    rows = world.faults.listed("talkdesk", rows, first=page == 1)
    pages = max(1, -(-len(rows) // per_page))

    numbers = {"first": 1, "last": pages, "next": page + 1, "prev": page - 1, "self": page, "show": page}
    if page >= pages:
        del numbers["next"]  # its absence is what ends a walk
    if page == 1:
        del numbers["prev"]
    links = {name: {"href": str(request.url.include_query_params(page=number))} for name, number in numbers.items()}
    shown = rows[(page - 1) * per_page : page * per_page]
    return ExactJson(
        {
            "count": len(shown),
            "page": page,
            "per_page": per_page,
            "total": len(rows),
            "total_pages": pages,
            **links,
            "_embedded": {name: [_served(row) for row in shown]},
            "_links": {name: link for name, link in links.items() if name != "show"},
        }
    )


def _listing(world: World) -> Sequence[dict[str, Any]]:
    """All rows served now, newest month first."""
    now = world.now().replace(minute=0, second=0, microsecond=0)
    month = now.year * 12 + now.month - 1
    periods = [f"{each // 12}-{each % 12 + 1:02}" for each in range(month, month - MONTHS_SERVED, -1)]
    return world.kept(
        ("talkdesk", "listing", now),
        lambda: [row for period in periods for row in charges(world, "main", period, now)],
    )


def _client(request: Request) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (name, secret) if scheme.lower() == "basic" else ("", "")


def _path(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _refused(error: str, description: str, status: int = 400) -> ExactJson:
    headers = {"WWW-Authenticate": 'Basic realm="Talkdesk"'} if status == 401 else None
    return ExactJson({"error": error, "error_description": description}, status, headers)


def _wrong(status: int, code: str, message: str, description: str = "", fields: object = ()) -> ExactJson:
    told = {"description": description} if description else {}
    return ExactJson({"code": code, "message": message, **told, "fields": fields}, status)
