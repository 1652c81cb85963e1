"""What the stand-in for Plivo bills: the same money however it is asked for, and how a month settles."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing_pipeline.sandbox.app import running, totals
from billing_pipeline.sandbox.world import Clock, World
from billing_pipeline_tests.sandbox_plivo_client import MAY, Plivo, key, spent, usage

MOMENTS = [
    "2026-05-01T00:10+00:00",
    "2026-05-15T13:20+00:00",
    "2026-06-01T09:00+00:00",
    "2026-06-03T00:00+00:00",
    "2026-06-04T23:50+00:00",
    "2026-06-05T00:10+00:00",
    "2026-08-20T00:00+00:00",
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[tuple[httpx.Client, World]]:
    world = World(Clock(datetime(2026, 6, 10, 6, tzinfo=UTC)))
    with running(world=world) as address, httpx.Client(base_url=address) as client:
        yield client, world


@pytest.fixture
def plivo(sandbox: tuple[httpx.Client, World]) -> Plivo:
    client, world = sandbox
    world.clock.set(datetime(2026, 6, 10, 6, tzinfo=UTC))
    world.enforce_limits, world.scale = False, 1.0
    return Plivo(client, world)


@pytest.mark.parametrize("account", ["main", "emea"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_all_pages_add_up_to_the_sandboxs_total_and_to_total_spent(plivo: Plivo, moment: str, account: str):
    plivo.world.clock.set(datetime.fromisoformat(moment))
    pages = plivo.walk({**MAY, "page_size": 97}, account)
    rows, other = usage(pages), pages[0]["other_charges"]
    stated = totals(plivo.world, "plivo", account, "2026-05")
    billed = spent(rows) + spent(other)
    assert len(rows) + len(other) == stated["rows"]
    assert {pages[0]["meta"]["currency"]: f"{billed.normalize():f}"} == stated["totals"]
    assert Decimal(pages[0]["meta"]["total_spent"]) == billed
    assert len({key(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("granularity", ["day", "month", "year"])
def test_every_granularity_holds_the_same_money(plivo: Plivo, granularity: str):
    page = plivo.ask({**MAY, "granularity": granularity, "page_size": 1000})
    assert (
        f"{spent(page['usage']) + spent(page['other_charges']):f}"
        == totals(plivo.world, "plivo", "main", "2026-05")["totals"]["USD"]
    )
    assert page["meta"]["granularity"] == granularity


def test_hours_add_up_to_their_days(plivo: Plivo):
    window = {"from_date": "2026-06-04", "to_date": "2026-06-11"}
    days, hours = (usage(plivo.walk({**window, "granularity": each, "page_size": 1000})) for each in ("day", "hour"))
    assert len(hours) > len(days)
    assert max(row["from_date"] for row in hours) <= "2026-06-10T06:00:00Z"
    for number in ("total_units", "duration_seconds", "total_amount", "surcharge"):
        sums: list[dict[Any, Decimal]] = [{}, {}]
        for sum_, rows in zip(sums, (days, hours), strict=True):
            for row in rows:
                bucket = (row["from_date"][:10], *[pair for pair in key(row) if not pair[0].endswith("_date")])
                sum_[bucket] = sum_.get(bucket, Decimal(0)) + Decimal(row.get(number, 0))
        assert sums[0] == sums[1], number


def test_every_documented_kind_of_row_is_there(plivo: Plivo):
    rows = usage(plivo.walk(MAY))
    assert {(row["product"], row["type"]) for row in rows} >= {
        ("message", "sms"), ("message", "mms"), ("voice", "pstn"), ("zentrunk", "pstn"), ("transcription", "auto"),
    }  # fmt: skip
    assert any(row.get("error_code") and row["total_amount"] > 0 for row in rows)
    assert any(row["total_amount"] == 0 for row in rows)
    assert any("country" not in row and "direction" not in row for row in rows)
    for row in rows:
        assert ("duration_seconds" in row) == (row["product"] != "message")
        assert 0 <= row.get("surcharge", 0) <= row["total_amount"]
        assert ("error_reason" in row) == ("error_code" in row or "hangup_cause" in row)
        assert isinstance(row["total_units"], int)
    assert any(isinstance(row.get("duration_seconds"), Decimal) for row in rows)


def test_other_charges_belong_to_months_also_where_the_window_does_not(plivo: Plivo):
    plivo.world.clock.set(datetime(2026, 6, 20, tzinfo=UTC))
    starts = {
        row["from_date"][:7] for row in plivo.ask({"from_date": "2026-05-10", "to_date": "2026-06-10"})["other_charges"]
    }
    assert starts == {"2026-05", "2026-06"}
    descriptions = [row["description"] for row in plivo.ask(MAY)["other_charges"]]
    assert descriptions == ["CNAM Lookup", "Number Charges", "Other Charges", "Recording Storage"]


def test_a_month_end_charge_comes_with_the_invoice(plivo: Plivo):
    for moment, there in ((datetime(2026, 6, 2, 23, 59, tzinfo=UTC), False), (datetime(2026, 6, 3, tzinfo=UTC), True)):
        plivo.world.clock.set(moment)
        descriptions = {row["description"] for row in plivo.ask(MAY)["other_charges"]}
        assert ({"Number Charges", "Other Charges", "Recording Storage"} <= descriptions) == there


def test_a_discount_reprices_the_whole_month_on_the_4th(plivo: Plivo):
    months = []
    for moment in (datetime(2026, 6, 4, 11, 59, tzinfo=UTC), datetime(2026, 6, 4, 12, tzinfo=UTC)):
        plivo.world.clock.set(moment)
        months.append({key(row): row for row in usage(plivo.walk(MAY))})
    before, after = months
    assert set(before) == set(after)
    changed = {row["from_date"] for each, row in before.items() if row["total_amount"] > after[each]["total_amount"]}
    assert len(changed) == 31
    assert all(before[each]["total_units"] == row["total_units"] for each, row in after.items())


def test_todays_and_yesterdays_rows_grow_and_some_vanish(plivo: Plivo):
    appeared = vanished = grown = 0
    for day in range(1, 29):
        date = datetime(2026, 5, day, tzinfo=UTC)
        window = {"from_date": f"{date:%Y-%m-%d}", "to_date": f"{date + timedelta(days=1):%Y-%m-%d}"}
        states = []
        for age in (timedelta(hours=20), timedelta(days=1, hours=3), timedelta(days=2), timedelta(days=3)):
            plivo.world.clock.set(date + age)
            states.append({key(row): row["total_units"] for row in usage(plivo.walk(window))})
        today, yesterday, settled, later = states
        assert settled == later
        appeared += len(set(settled) - set(yesterday))
        vanished += len(set(yesterday) - set(settled))
        grown += sum(units < settled.get(each, 0) for each, units in today.items())
    assert min(appeared, vanished, grown) > 10


def test_nothing_changes_from_the_5th_on(plivo: Plivo):
    answers = []
    for moment in (datetime(2026, 6, 5, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)):
        plivo.world.clock.set(moment)
        page = plivo.ask({**MAY, "page_size": 1000})
        del page["api_id"]
        answers.append(page)
    assert answers[0] == answers[1]


def test_a_large_month_takes_many_pages_and_still_adds_up(plivo: Plivo):
    plivo.world.scale = 20
    pages = plivo.walk({**MAY, "page_size": 1000})
    assert len(pages) > 10
    billed = spent(usage(pages)) + spent(pages[0]["other_charges"])
    assert {"USD": f"{billed.normalize():f}"} == totals(plivo.world, "plivo", "main", "2026-05")["totals"]
