"""A provider without a network: its rows are a list in memory, so that long histories run in seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from billing_pipeline import charges, rows
from billing_pipeline.accounts import Configuration
from billing_pipeline.finality import Calendar
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod, stamp
from billing_pipeline.provider import Access, Columns, Page, Pages, Provider, RateLimit, Settings
from billing_pipeline.reconcile import Statement, Tally

ROW = pa.struct(
    [("day", pa.string()), ("service", pa.string()), ("quantity", charges.DECIMAL), ("amount", charges.DECIMAL)]
)


@dataclass(frozen=True, order=True)
class Charge:
    """What the toy bills."""

    day: int
    service: str
    quantity: int
    amount: Decimal


class _Row(msgspec.Struct):
    day: str
    amount: Decimal


class _Page(msgspec.Struct):
    rows: list[_Row]
    total: int


@dataclass
class Toy:
    """The provider's own state, and a clock.

    Attributes:
        now: what time it is.
        bills: what each month's answer holds now; a month that is not named is empty.
    """

    now: datetime = datetime(2026, 5, 10, 6, tzinfo=UTC)
    bills: dict[BillingPeriod, list[Charge]] = field(default_factory=dict)

    def line(self, data: Path) -> Line:
        """A line to one account of this provider."""
        provider = Provider(
            name="toy",
            title="Toy",
            calendar=Calendar(settles_after=timedelta(days=4)),
            settings=Settings,
            rate_limits=(RateLimit(requests=1000, seconds=1),),
            fetch=self._fetch,
            parse=_parse,
            statement=_statement,
        )
        account = Settings(provider="toy", name="main", base_url="http://127.0.0.1:9")
        configuration = Configuration(BillingPeriod(2026, 5), (account,), "toy")
        return Line(data, configuration, {"toy": provider}, lambda: self.now, "test")

    def _fetch(self, access: Access, period: BillingPeriod) -> Iterator[Page]:
        found: list[dict[str, Any]] = [
            {
                "day": str(date(period.year, period.month, charge.day)),
                "service": charge.service,
                "quantity": charge.quantity,
                "amount": str(charge.amount),
            }
            for charge in self.bills.get(period, [])
        ]
        body = json.dumps({"rows": found, "total": len(found), "asked": stamp(self.now)}).encode()
        yield Page(body=body, request=f"GET /{period}", received_at=self.now)


def _parse(pages: Pages, period: BillingPeriod, landing: str) -> Iterator[Columns]:
    lists = ((page.number, json.dumps(json.loads(page.read())["rows"]).encode()) for page in pages)
    for batch in rows.read(lists, ROW):
        days = batch["day"].cast(pa.date32())
        start = days.cast(pa.timestamp("us")).cast(charges.INSTANT)
        yield {
            "BilledCost": batch["amount"],
            "BillingAccountId": pa.repeat("toy", len(batch)),
            "BillingCurrency": pa.repeat("USD", len(batch)),
            "ChargeCategory": pa.repeat("Usage", len(batch)),
            "ChargeFrequency": pa.repeat("Usage-Based", len(batch)),
            "ChargePeriodStart": start,
            "ChargePeriodEnd": pa.array([s.as_py() + timedelta(days=1) for s in start], charges.INSTANT),
            "PricingQuantity": batch["quantity"],
            "PricingUnit": pa.repeat("Units", len(batch)),
            "ServiceName": batch["service"],
            "x_RowSource": charges.row_source(landing, batch.page, "rows", batch.index),
            "x_UsageDate": days,
        }


def _statement(pages: Pages, period: BillingPeriod) -> Statement:
    counted = Tally()
    stated = 0
    for page in pages:
        found = msgspec.json.decode(page.read(), type=_Page)
        stated += found.total
        for row in found.rows:
            counted += Tally(rows=1, totals={"USD": row.amount})
    return Statement(counted=counted, stated_rows=stated)
