"""Infobip's letters for tests, and a stand-in that accepts queries and delivers them over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pyarrow as pa
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline import charges
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page
from billing_pipeline.providers.infobip import PROVIDER, InfobipSettings, statement
from billing_pipeline.reconcile import Statement, agree, require, stated
from billing_pipeline.rows import UnexpectedShape

from . import harness

MARCH = BillingPeriod(2026, 3)
REQUEST_ID = "B61D150B0F6596F68D88D253886432B5"
COLUMNS = ("DAY", "ACCOUNT_KEY", "CATEGORY_CODE", "UNIT_TYPE", "UNIT_PRICE", "QUANTITY", "TOTAL_PER_UNIT", "CURRENCY")
ROW = ("2026-03-31", "KEY_A", "SMS", "message part", Decimal("0.0075"), 1500, Decimal("11.25"), "USD")


def row(**values: Any) -> list[Any]:
    """`ROW` with other values by column name."""
    return [values.get(name, value) for name, value in zip(COLUMNS, ROW, strict=True)]


def written(value: Any) -> str:
    """JSON with a Decimal's own digits."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{json.dumps(k)}:{written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value)


def letter(
    rows: Sequence[Sequence[Any]] = (ROW,),
    *,
    request_id: str = REQUEST_ID,
    columns: Sequence[str] = COLUMNS,
    granted: tuple[str, str] = ("2026-03-01", "2026-04-01"),
    asked: tuple[str, str] = ("2026-03-01", "2026-04-01"),
    finalized: bool | None = True,
    total_rows: int | None = None,
) -> bytes:
    """A SUCCESS letter for March 2026."""
    months = [] if finalized is None else [{"month": "2026-03", "volumeFinalized": finalized}]
    return written(
        {
            "requestId": request_id,
            "status": "SUCCESS",
            "response": {
                "requestedPeriod": dict(zip(("sentSince", "sentUntil"), granted, strict=True)),
                "totalRows": len(rows) if total_rows is None else total_rows,
                "columns": [{"columnName": name, "columnDataType": "STRING"} for name in columns],
                "rows": rows,
            },
            "metadata": {
                "clientRequestedPeriod": dict(zip(("sentSince", "sentUntil"), asked, strict=True)),
                "billingPeriods": months,
            },
        }
    ).encode()


def failed(request_id: str = REQUEST_ID) -> bytes:
    """The documented letter of a query that failed."""
    return written({"requestId": request_id, "status": "FAILED", "failureMessage": "Could not load data"}).encode()


def page(body: bytes, *, submitted_at: str = "2026-04-06T06:00:00Z", **facts: str) -> Page:
    """A letter as the landing hands it out."""
    said = {"role": "letter", "requestId": REQUEST_ID, "submitted_at": submitted_at, "sentUntil": "2026-04-01", **facts}
    return harness.page(body, 2, facts=said)


def reconciled(pages: Sequence[Page], period: BillingPeriod = MARCH) -> tuple[pa.Table, Statement]:
    """Charges and statement, agreeing as the line demands it."""
    table = harness.table(PROVIDER, pages, period)
    says = statement(pages, period)
    require(stated(says) + agree("made of them", says.counted, charges.tally(table)))
    return table, says


def charged(body: bytes, **facts: str) -> tuple[list[dict[str, Any]], Statement]:
    table, says = reconciled([page(body, **facts)])
    return table.to_pylist(), says


def refused(body: bytes, **facts: str) -> str:
    """The one reason for which both readers refuse a letter."""
    with pytest.raises(UnexpectedShape) as by_statement:
        statement([page(body, **facts)], MARCH)
    with pytest.raises((UnexpectedShape, charges.DoesNotFit)) as by_parse:
        harness.table(PROVIDER, [page(body, **facts)], MARCH)
    if by_parse.type is UnexpectedShape and "JSON" not in str(by_statement.value):
        assert str(by_statement.value) == str(by_parse.value)
    return str(by_statement.value)


def reserved_port(port: int = 0) -> socket.socket:
    """A socket that keeps a port, 0 any, for receivers that share it, without listening itself."""
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    keeper.bind(("127.0.0.1", port))
    return keeper


def deliver(url: str, body: bytes) -> int:
    """POST a letter; the answer's status."""
    with closing(httpx.Client(trust_env=False)) as client:
        return client.post(url, content=body, headers={"Content-Type": "application/json"}).status_code


class Infobip:
    """A stand-in: accepts every query as `REQ-1`, `REQ-2`, ... and delivers what `letters` makes of the request id.

    `early`: the letters are delivered before the query is answered 201.
    """

    def __init__(self, server: HTTPServer, port: int, letters: Callable[[str], Sequence[bytes]]) -> None:
        self.letters = letters
        self.early = False
        self.asked: list[dict[str, Any]] = []
        self.authorization: list[str | None] = []
        self.statuses: list[int] = []
        self._threads: list[threading.Thread] = []
        self.settings = InfobipSettings(
            provider="infobip",
            name="main",
            base_url=server.url_for("").rstrip("/"),
            api_key="INFOBIP_API_KEY",
            callback_url=f"http://127.0.0.1:{port}/callbacks",
            callback_listen=f"127.0.0.1:{port}",
            wait_seconds=60,
        )
        server.expect_request("/billing/1/usage/query", method="POST").respond_with_handler(self._query)

    def _query(self, request: Request) -> Response:
        asked = json.loads(request.data)
        self.asked.append(asked)
        self.authorization.append(request.headers.get("Authorization"))
        request_id = f"REQ-{len(self.asked)}"
        courier = threading.Thread(target=self._deliver, args=(asked["callbackUrl"], request_id))
        courier.start()
        if self.early:
            courier.join()
        self._threads.append(courier)
        return Response(json.dumps({"requestId": request_id}), 201, content_type="application/json")

    def _deliver(self, url: str, request_id: str) -> None:
        for body in self.letters(request_id):
            self.statuses.append(deliver(url, body))

    def settle(self) -> None:
        """Wait until everything is delivered."""
        for courier in self._threads:
            courier.join()

    def deliver_now(self, body: bytes, query: int = 0) -> int:
        """Deliver a letter to the address of an earlier query."""
        return deliver(self.asked[query]["callbackUrl"], body)


class Recorded(msgspec.Struct):
    """One answer of a recording."""

    request: str
    facts: dict[str, str]
    body: msgspec.Raw
