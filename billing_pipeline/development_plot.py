"""How a month's total developed over its fetches, as a small picture for the Dagster UI. Pure: numbers in, an SVG out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from html import escape
from itertools import pairwise

from .reconcile import plain

PANELS = 4
"""Currencies that are drawn, each in a panel and with a scale of its own; more of them are named below and not drawn."""

Fetch = tuple[datetime, Mapping[str, Decimal]]
"""When it started, and the month's totals by currency that it stated."""

_WIDTH, _LEFT, _RIGHT = 480, 12, 468
_PANEL, _TOP, _BOTTOM = 118, 40, 92  # of a panel: its height, where its highest and its lowest total are drawn
_FOOT = 40  # below the panels: when the first and the last fetch were


def developed(fetches: Sequence[Fetch]) -> bool:
    """Whether there is anything to draw: two fetches that stated different totals."""
    return any(dict(fetch[1]) != dict(fetches[0][1]) for fetch in fetches)


def markdown(fetches: Sequence[Fetch]) -> str:
    """The picture as Markdown that holds all its bytes, so that the browser asks nobody for it."""
    return f"![how the total developed](data:image/svg+xml;base64,{b64encode(svg(fetches)).decode()})"


def svg(fetches: Sequence[Fetch]) -> bytes:
    """The totals over time, oldest fetch first: a step for each fetch, for a total holds until the next one.

    By hand and not by matplotlib, which the reports are drawn with: importing it would be a fifth of a month's run. The heights
    are floats, as everything that is drawn; highest, lowest and last total are written there to the last digit.
    """
    currencies = sorted({currency for _, totals in fetches for currency in totals})
    drawn, left_out = currencies[:PANELS], currencies[PANELS:]
    height = _PANEL * len(drawn) + _FOOT
    at = [instant.astimezone(UTC) for instant, _ in fetches]
    said = [
        _text(_LEFT, height - 22, f"{min(at):%Y-%m-%d %H:%M}"),
        _text(_RIGHT, height - 22, f"{max(at):%Y-%m-%d %H:%M} UTC", "end"),
    ]
    if left_out:
        said.append(_text(_LEFT, height - 6, f"not drawn: {', '.join(left_out)}"))
    panels = [_panel(c, at, [totals.get(c, Decimal(0)) for _, totals in fetches], n) for n, c in enumerate(drawn)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="11" fill="#555555"><rect width="100%" height="100%" fill="#ffffff"/>'
        f"{''.join(panels + said)}</svg>"
    ).encode()


def _panel(currency: str, at: Sequence[datetime], totals: Sequence[Decimal], number: int) -> str:
    highest, lowest = max(totals), min(totals)
    span = float(highest - lowest) or 1.0
    first = min(at)  # not the first to come, where a clock was put back
    seconds = (max(at) - first).total_seconds() or 1.0
    points = [
        (
            _LEFT + 4 + (_RIGHT - _LEFT - 8) * (instant - first).total_seconds() / seconds,
            _BOTTOM - (_BOTTOM - _TOP) * float(total - lowest) / span,
        )
        for instant, total in zip(at, totals, strict=True)
    ]
    steps = "".join(f"H{after[0]:.1f}V{after[1]:.1f}" for _, after in pairwise(points))
    lines = "".join(f'<path d="M{_LEFT} {y}H{_RIGHT}" stroke="#dddddd"/>' for y in (_TOP, _BOTTOM))
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>' for x, y in points)
    words = (
        _text(_LEFT, 16, f"{currency} {plain(totals[-1])}", bold=True),
        _text(_RIGHT, _TOP - 6, f"highest {plain(highest)}", "end"),
        _text(_RIGHT, _BOTTOM + 14, f"lowest {plain(lowest)}", "end"),
    )
    return (
        f'<g transform="translate(0 {number * _PANEL})">{lines}{"".join(words)}'
        f'<path d="M{points[0][0]:.1f} {points[0][1]:.1f}{steps}" fill="none" stroke="#4f43dd" stroke-width="1.5"/>'
        f'<g fill="#4f43dd">{dots}</g></g>'
    )


def _text(x: int, y: int, words: str, anchor: str = "start", *, bold: bool = False) -> str:
    weight = ' font-weight="bold" fill="#222222"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{weight}>{escape(words)}</text>'
