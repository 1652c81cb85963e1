"""Made-up UsageSummary answers, digit by digit: amounts are JSON text and never become floats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page
from billing_pipeline.providers import plivo
from billing_pipeline_tests import harness

MAY = BillingPeriod(2026, 5)
RECORDINGS = Path(__file__).parent / "recordings" / "plivo"
PATH = "/v1/Account/PLIVO_AUTH_ID/UsageSummary/"


def usage(day: int = 1, amount: str = "0.5", **fields: object) -> str:
    """One usage row of that day of May; a field given as None is left out."""
    start = date(2026, 5, day)
    row: dict[str, object] = {
        "from_date": f"{start}T00:00:00Z",
        "to_date": f"{start + timedelta(days=1)}T00:00:00Z",
        "product": "message",
        "type": "sms",
        "country": "US",
        "direction": "outbound",
        "total_units": 1,
    }
    return _row(row | fields, amount)


def other(amount: str = "1", description: str = "Number Charges", **fields: object) -> str:
    """One other charge of May."""
    row = {"from_date": "2026-05-01T00:00:00Z", "to_date": "2026-06-01T00:00:00Z", "description": description}
    return _row({**row, "total_units": 1, **fields}, amount)


def _row(fields: Mapping[str, object], amount: str) -> str:
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(given)[:-1] + (f', "total_amount": {amount}' + "}" if amount else "}")


def body(
    *rows: str, others: list[str] | None = None, total: str | None = None, token: str | None = None, **meta: object
) -> str:
    """One answer about May; `total` makes it a page 1."""
    about = {
        "auth_id": "PLIVO_AUTH_ID",
        "granularity": "day",
        "from_date": "2026-05-01T00:00:00Z",
        "to_date": "2026-06-01T00:00:00Z",
        "currency": "USD",
        "page_size": 1000,
        **({"next_page_token": token} if token else {}),
        **meta,
    }
    text = json.dumps({name: value for name, value in about.items() if value != "MISSING"})
    text = text if total is None else text[:-1] + f', "total_spent": {total}' + "}"
    extra = "" if others is None else f', "other_charges": [{", ".join(others)}]'
    return f'{{"api_id": "made-up", "meta": {text}, "usage": [{", ".join(rows)}]{extra}}}'


def pages(*bodies: str) -> list[Page]:
    """Those bodies as the pages of a landing."""
    return [harness.page(text, number) for number, text in enumerate(bodies, 1)]


def settings(base_url: str = "https://api.plivo.com") -> plivo.PlivoSettings:
    """The account of these tests."""
    return plivo.PlivoSettings.model_validate(
        {
            "provider": "plivo",
            "name": "main",
            "base_url": base_url,
            "auth_id": "PLIVO_AUTH_ID",
            "auth_token": "PLIVO_AUTH_TOKEN",
        }
    )


Answers = Callable[[str | None], str | Response]
"""page_token → what the server says to it."""


def serve(server: HTTPServer, answers: Answers) -> None:
    """Answer every request by its page_token, and 404 to anything but a UsageSummary with the right credentials."""

    def answer(request: Request) -> Response:
        login = request.authorization
        if not login or (login.username, login.password) != ("PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN"):
            return Response('{"api_id": "made-up", "error": "unauthorized"}', 401)
        said = answers(request.args.get("page_token"))
        return said if isinstance(said, Response) else Response(said, content_type="application/json")

    server.expect_request(PATH, method="GET").respond_with_handler(answer)


def asked(server: HTTPServer) -> list[dict[str, str]]:
    """The parameters of every request so far."""
    return [request.args.to_dict() for request, _ in server.log]


def total(*amounts: str) -> str:
    """The exact sum, as JSON."""
    return format(sum(map(Decimal, amounts), Decimal(0)), "f")
