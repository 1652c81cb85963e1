"""Talkdesk over real sockets: its token endpoint, its list, and rows to fill it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline import charges, reconcile
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page, Provider
from billing_pipeline.providers.talkdesk import PROVIDER, TalkdeskSettings
from billing_pipeline.reconcile import Statement
from billing_pipeline.rows import text
from billing_pipeline_tests import harness

AUGUST = BillingPeriod(2023, 8)
MONTH = "/express/usage/month"


def row(
    number: int, amount: str = "1.5", month: str = "2023-08", currency: str = "USD", **fields: Any
) -> dict[str, Any]:
    return {
        "id": f"row{number}", "account_id": "acc1", "product_id": "TD-1", "aggr_product_id": "TD-A", "month": month,
        "type": "CALL", "description": "Calls", "currency": currency, "direction": "INBOUND", "resolution": None,
        "unit": "MINUTES", "price": Decimal("0.5"), "wallet_name": "main", "number_of_units": 3,
        "total_amount": Decimal(amount),
    } | fields  # fmt: skip


def without(taken: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in taken.items() if name not in names}


def body(rows: Sequence[dict[str, Any]], **more: Any) -> str:
    return text({"_embedded": {"usage": list(rows)}, **more})


def pages(*lists: Sequence[dict[str, Any]], **more: Any) -> list[Page]:
    return [harness.page(body(rows, **more), number) for number, rows in enumerate(lists, 1)]


def both(landed: list[Page], period: BillingPeriod = AUGUST) -> tuple[list[dict[str, Any]], Statement]:
    """The month's charges and its statement, after the comparison that the line makes."""
    table = harness.table(PROVIDER, landed, period)
    said = PROVIDER.statement(landed, period)
    reconcile.require(reconcile.stated(said) + reconcile.agree("made", said.counted, charges.tally(table)))
    return table.to_pylist(), said


class Talkdesk:
    """The token endpoint and the list over real sockets; `answers` maps a query string to the body sent."""

    def __init__(self, server: HTTPServer) -> None:
        self.server = server
        self.home = server.url_for("").rstrip("/")
        self.answers: dict[str, str] = {}
        self.refuse: Callable[[str, int], bool] = lambda query, asked: False
        self.asked: list[str] = []
        self.headers: list[tuple[str, str]] = []
        self.tokens = 0
        self.life = "600"
        server.expect_request("/oauth/token", method="POST").respond_with_handler(self._token)
        server.expect_request(MONTH, method="GET").respond_with_handler(self._month)

    def settings(self, **more: Any) -> TalkdeskSettings:
        known = {"base_url": self.home, "token_url": f"{self.home}/oauth/token", "client_id": "client-id"}
        return TalkdeskSettings(provider="talkdesk", name="main", client_secret="client:secret", **known | more)

    def serve(self, *bodies: str) -> None:
        """Pages 1, 2, ... as bodies; the first is asked without a query."""
        self.answers = {f"page={number}" if number > 1 else "": each for number, each in enumerate(bodies, 1)}

    def fetch(self, tmp_path: Path, provider: Provider = PROVIDER, **more: Any) -> list[Page]:
        access = harness.access(provider, self.settings(**more), tmp_path)
        return harness.fetched(provider, access, AUGUST)

    def _token(self, request: Request) -> Response:
        self.asked.append("token")
        self.headers.append((request.headers["Authorization"], request.get_data(as_text=True)))
        self.tokens += 1
        return Response(f'{{"access_token": "t{self.tokens}", "token_type": "Bearer", "expires_in": {self.life}}}')

    def _month(self, request: Request) -> Response:
        query = request.query_string.decode()
        self.asked.append(query)
        if request.headers["Authorization"] != f"Bearer t{self.tokens}" or self.refuse(query, self.asked.count(query)):
            return Response('{"code": "401", "message": "token expired"}', 401)
        return Response(self.answers[query], content_type="application/json")


def onward(page: int) -> dict[str, Any]:
    return {"_links": {"next": {"href": f"{MONTH}?page={page}"}}}
