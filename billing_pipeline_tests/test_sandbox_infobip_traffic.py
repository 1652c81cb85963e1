"""How a month of the sandbox's Infobip traffic changes until it is final."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing_pipeline.sandbox.infobip_traffic import records, streams
from billing_pipeline.sandbox.world import World


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def known(world: World, moment: str) -> dict[tuple[int, date], tuple[str | int, Decimal]]:
    """May's records by stream and day: category and amount."""
    kinds = streams(world)
    return {
        (record.stream, record.day): (kinds[record.stream].dimensions["CATEGORY_CODE"], record.total)
        for record in records(world, "2026-05", utc(moment))
    }


def test_late_records_a_discount_and_an_adjustment_change_the_month_until_the_fifth() -> None:
    world = World()
    ended, arrived, discounted, adjusted, settled = (
        known(world, f"2026-06-{moment}") for moment in ("01T00:00", "03T08:59", "03T12:00", "04T14:00", "05T00:00")
    )
    assert ended.items() < arrived.items()
    assert {arrived[key][0] for key in arrived if discounted[key] != arrived[key]} == {"SMS"}
    assert sum(amount for _, amount in discounted.values()) < sum(amount for _, amount in arrived.values())
    gone = discounted.keys() - adjusted.keys()
    assert {discounted[key][0] for key in gone} == {"EMAIL_VALIDATION", "SMS_OPERATOR_FEE"}
    assert adjusted.items() < discounted.items()
    assert settled == adjusted == known(world, "2026-09-01T00:00") == known(World(), "2026-06-05T00:00")


def test_todays_traffic_is_partial() -> None:
    world = World()
    amounts = [sum(amount for _, amount in known(world, f"2026-05-20T{hour:02}:00").values()) for hour in range(24)]
    assert amounts == sorted(amounts)
    assert len(set(amounts)) == 24


@pytest.mark.parametrize("scale", [0.5, 3])
def test_scale_multiplies_the_records_and_leaves_those_of_the_middling_company(scale: float) -> None:
    middling, world = known(World(), "2026-06-10T06:00"), World(scale=scale)
    many = known(world, "2026-06-10T06:00")
    assert abs(len(many) - len(middling) * scale) <= len(middling) * 0.05
    assert (many.items() <= middling.items()) if scale < 1 else (middling.items() <= many.items())
    assert len({str(stream) for stream in streams(world)}) == len(streams(world))
