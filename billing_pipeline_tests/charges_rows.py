"""Charges with any amounts, and months of them in the lake: for tests of what lies behind the providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from billing_pipeline import charges
from billing_pipeline.finality import Calendar, Finality, Status
from billing_pipeline.lake import Held, Lake
from billing_pipeline.landing import Landings, Partition
from billing_pipeline.ledger import Entry, fetch_facts
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page
from billing_pipeline.warehouse import Issuer

AT = datetime(2026, 6, 15, 12, tzinfo=UTC)
MAY = Partition("plivo", "main", BillingPeriod(2026, 5))
JUNE = Partition("plivo", "main", BillingPeriod(2026, 6))
ISSUERS = {"plivo": Issuer("Plivo", Calendar(settles_after=timedelta(days=4)))}
CALENDAR = ISSUERS["plivo"].calendar

Amounts = Sequence[tuple[str, Decimal]]
"""(BillingCurrency, BilledCost) of each row."""


def sums(amounts: Amounts) -> dict[str, Decimal]:
    """What the rows add up to, in integers of the last digit: no library's decimals take part."""
    units: dict[str, int] = {}
    for currency, amount in amounts:
        sign, digits, exponent = amount.as_tuple()
        number = int("".join(map(str, digits))) * 10 ** (18 + int(exponent))
        units[currency] = units.get(currency, 0) + (-number if sign else number)
    return {currency: Decimal(f"{number}e-18") for currency, number in units.items()}


def origin(partition: Partition = MAY, status: Status = "provisional", at: datetime = AT) -> charges.Origin:
    return charges.Origin(
        provider=partition.provider,
        title="Plivo",
        account=partition.account,
        period_start=partition.period.start(UTC),
        period_end=partition.period.end(UTC),
        fetched_at=at,
        status=status,
    )


def columns(amounts: Amounts, **others: Any) -> dict[str, pa.Array]:
    """The columns that a provider must bring, one row per amount."""
    count = len(amounts)

    def same(value: object, kind: pa.DataType) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), count)

    found: dict[str, pa.Array] = {
        "BilledCost": pa.array([amount for _, amount in amounts], charges.DECIMAL),
        "BillingCurrency": pa.array([currency for currency, _ in amounts], pa.string()),
        "BillingAccountId": same("MAACME", pa.string()),
        "ChargeCategory": same("Usage", pa.string()),
        "ChargeFrequency": same("Usage-Based", pa.string()),
        "ChargePeriodStart": same(MAY.period.start(UTC), charges.INSTANT),
        "ChargePeriodEnd": same(MAY.period.end(UTC), charges.INSTANT),
        "ServiceName": same("message", pa.string()),
        "x_RowSource": charges.row_source(f"{MAY.path}/x", same(1, pa.int32()), "usage", pa.array(range(count))),
    }
    return found | others


def store(
    folder: Path,
    partition: Partition,
    amounts: Amounts,
    status: Status = "provisional",
    at: datetime = AT,
    parts: int = 1,
    **others: pa.Array,
) -> tuple[Held, Entry]:
    """A month as the line would put it into lake and ledger: its landing, its file, its decision.

    `others`: further columns, as long as `amounts`, which then are one part.
    """
    page = Page(body=b"{}", request="GET /made-up", received_at=at)
    landing = Landings(folder).land(partition, [page], fetched_at=at, version="test")
    decided = Finality(status, "made up", {"reason": "made up"})
    lake = Lake(folder)
    with lake.replacement(partition) as new:
        size = -(-len(amounts) // parts) or 1
        for start in range(0, len(amounts), size):
            new.write(
                charges.complete(columns(amounts[start : start + size], **others), origin(partition, status, at))[0]
            )
        left_out: Mapping[str, Any] = {"rows": 0, "totals": {}}
        on_disk = new.seal(landing, decided, left_out=left_out, notes=[])
        assert on_disk.rows == new.tally.rows == len(amounts)
        new.publish()
    held = lake.held(partition)
    assert held is not None
    facts = fetch_facts(
        landing, rows=new.tally.rows, totals=charges.totals_json(new.tally.totals), left_out={}, notes=[]
    )
    return held, Entry(
        decided_at=at,
        partition=partition,
        decision=status,
        rule=decided.rule,
        evidence=decided.evidence,
        landing=landing.id,
        fetch=facts,
    )
