"""The picture of how a month's total developed: when there is one, and how large it may become."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing_pipeline import development_plot

FIRST = datetime(2026, 5, 1, 6, tzinfo=UTC)


def fetches(*totals: dict[str, str]) -> list[development_plot.Fetch]:
    """A fetch a day."""
    return [
        (FIRST + timedelta(days=day), {currency: Decimal(amount) for currency, amount in each.items()})
        for day, each in enumerate(totals)
    ]


def test_there_is_nothing_to_see_before_two_fetches_stated_different_totals() -> None:
    assert not development_plot.developed(fetches())
    assert not development_plot.developed(fetches({"USD": "1"}))
    assert not development_plot.developed(fetches({"USD": "1"}, {"USD": "1.000"}))
    assert development_plot.developed(fetches({"USD": "1"}, {"USD": "1.000000000000000001"}))
    assert development_plot.developed(fetches({"USD": "1"}, {"USD": "1", "EUR": "-1"}))
    assert development_plot.developed(fetches({"USD": "1"}, {"USD": "2"}, {"USD": "1"}))


def test_a_long_month_in_many_currencies_stays_small_enough_for_an_event() -> None:
    codes = ("AUD", "BRL", "EUR", "GBP", "SGD", "USD")
    month = [
        {code: f"{(day * 7919) % 997 * 1000003 ** (n % 3)}.55" for n, code in enumerate(codes)} for day in range(70)
    ]
    drawn = development_plot.png(fetches(*month))
    assert drawn.startswith(b"\x89PNG")
    assert len(drawn) < 30_000
