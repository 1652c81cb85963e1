"""How the tests ask the sandbox's Plivo."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx

from billing_pipeline.sandbox.plivo import ACCOUNTS
from billing_pipeline.sandbox.world import World

MAY = {"from_date": "2026-05-01", "to_date": "2026-06-01"}


class Plivo:
    """A client that reads numbers as the digits they were sent in."""

    def __init__(self, client: httpx.Client, world: World):
        self.client = client
        self.world = world

    def get(self, params: Any = None, account: str = "main") -> httpx.Response:
        auth_id, auth_token = str(ACCOUNTS[account]["auth_id"]), str(ACCOUNTS[account]["auth_token"])
        return self.client.get(f"/plivo/v1/Account/{auth_id}/UsageSummary/", params=params, auth=(auth_id, auth_token))

    def ask(self, params: Any = None, account: str = "main") -> dict[str, Any]:
        answer = self.get(params, account)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text, parse_float=Decimal)

    def error(self, params: Any) -> str:
        answer = self.get(params)
        assert answer.status_code == 400
        body = answer.json()
        assert set(body) == {"api_id", "error"}
        return body["error"]

    def walk(self, params: dict[str, Any], account: str = "main") -> list[dict[str, Any]]:
        pages = [self.ask(params, account)]
        while token := pages[-1]["meta"].get("next_page_token"):
            pages.append(self.ask({**params, "page_token": token}, account))
        return pages


def usage(pages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for page in pages for row in page["usage"]]


def spent(rows: list[dict[str, Any]]) -> Decimal:
    return sum((Decimal(row["total_amount"]) for row in rows), Decimal(0))


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    numbers = ("total_units", "duration_seconds", "total_amount", "surcharge")
    return tuple(sorted((name, value) for name, value in row.items() if name not in numbers))
