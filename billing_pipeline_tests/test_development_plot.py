"""The picture of how a month's total developed: when there is one, and how large it may become."""

from __future__ import annotations

import xml.etree.ElementTree as Xml
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


def parts(drawn: bytes, tag: str) -> list[Xml.Element]:
    """What is drawn of one kind."""
    return list(Xml.fromstring(drawn).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))  # noqa: S314  made a moment ago


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
    assert len(development_plot.markdown(fetches(*month))) < 40_000


def test_the_highest_the_lowest_and_the_last_total_are_written_to_the_last_digit() -> None:
    digits = ("-3", "12345678901234567890.123456789012345678", "7000.120000000000000001")
    drawn = development_plot.svg(fetches(*({"USD": amount} for amount in digits)))
    texts = {node.text for node in parts(drawn, "text")}
    assert {f"highest {digits[1]}", f"lowest {digits[0]}", f"USD {digits[2]}"} <= texts
    assert {"2026-05-01 06:00", "2026-05-03 06:00 UTC"} <= texts
    heights = [float(node.attrib["cy"]) for node in parts(drawn, "circle")]
    assert heights[1] < heights[2] <= heights[0], "the highest is above, and the others where they belong"


def test_a_currency_that_a_fetch_does_not_name_is_nothing_there_and_a_fifth_is_named_below() -> None:
    drawn = development_plot.svg(fetches({}, {"A": "1", "B": "1", "C": "1", "D": "1", "<&": "1", "Z": "1"}))
    texts = [node.text for node in parts(drawn, "text")]
    assert texts.count("lowest 0") == 4
    assert "<& 1" in texts
    assert "not drawn: D, Z" in texts


def test_what_came_after_the_clock_was_put_back_is_drawn_inside_the_picture() -> None:
    drawn = development_plot.svg([*reversed(fetches({"USD": "1"}, {"USD": "2"}, {"USD": "1"}))])
    assert {0 < float(dot.attrib["cx"]) < 480 for dot in parts(drawn, "circle")} == {True}
    assert "2026-05-03 06:00 UTC" in {node.text for node in parts(drawn, "text")}
