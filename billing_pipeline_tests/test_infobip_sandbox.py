"""Infobip end to end: asked, called back and read, against the stand-in, under every reading of the documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest

from billing_pipeline import charges
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers.infobip import PROVIDER, InfobipSettings
from billing_pipeline.reconcile import agree, require, stated
from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.infobip import ACCOUNTS
from billing_pipeline.sandbox.world import Clock, World

from . import harness
from .infobip_letters import reserved_port


@pytest.mark.parametrize("month", ["2026-05", "2026-06"])
@pytest.mark.parametrize("switches", [{}, {"inclusive": True}, {"date_times": True}], ids=str)
def test_the_stand_in_for_infobip_is_read_to_the_last_digit(
    tmp_path: Path, month: str, switches: Mapping[str, object]
) -> None:
    world, period = World(Clock(harness.FETCHED), scale=0.5), BillingPeriod.parse(month)
    world.enforce_limits = False
    for name, value in switches.items():
        setattr(world, f"infobip_{name}", value)
    with running(world=world) as address, reserved_port() as keeper:
        receiver = f"127.0.0.1:{keeper.getsockname()[1]}"
        told = InfobipSettings(
            provider="infobip",
            name="main",
            base_url=f"{address}/infobip",
            api_key=str(ACCOUNTS["main"]["api_key"]),
            callback_url=f"http://{receiver}/callbacks",
            callback_listen=receiver,
            wait_seconds=60,
        )
        pages = harness.fetched(PROVIDER, harness.access(PROVIDER, told, tmp_path), period)
    says, table = PROVIDER.statement(pages, period), harness.table(PROVIDER, pages, period)
    held = charges.tally(table)
    require(stated(says) + agree("made of them", says.counted, held))
    assert {"rows": held.rows, "totals": charges.totals_json(held.totals)} == totals(world, "infobip", "main", month)
    assert says.flag is (month == "2026-05")
    assert set(table["x_UsageDate"].to_pylist()) == {day for day in period.days() if day <= date(2026, 6, 10)}
