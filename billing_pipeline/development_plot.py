"""How a month's total developed over its fetches, as a small picture for the Dagster UI. Pure: numbers in, a PNG out."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from io import BytesIO

PANELS = 4
"""Currencies that are drawn, each in a panel and with an axis of its own; more of them are named below and not drawn."""

Fetch = tuple[datetime, Mapping[str, Decimal]]
"""When it started, and the month's totals by currency that it stated."""


def developed(fetches: Sequence[Fetch]) -> bool:
    """Whether there is anything to draw: two fetches that stated different totals."""
    return any(dict(fetch[1]) != dict(fetches[0][1]) for fetch in fetches)


def markdown(fetches: Sequence[Fetch]) -> str:
    """The picture as Markdown that holds all its bytes, so that the browser asks nobody for it."""
    return f"![how the total developed](data:image/png;base64,{b64encode(png(fetches)).decode()})"


def png(fetches: Sequence[Fetch]) -> bytes:
    """The totals over time, oldest fetch first: a step for each fetch, for a total holds until the next one.

    The heights are floats, as everything that is drawn: the exact amounts are told beside the picture.
    """
    # Half a second of import, which only a month with a development is to cost. Never pyplot: it looks for a display and keeps
    # every figure.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    currencies = sorted({currency for _, totals in fetches for currency in totals})
    drawn, left_out = currencies[:PANELS], currencies[PANELS:]
    at = [instant.astimezone(UTC) for instant, _ in fetches]
    figure = Figure(figsize=(5.2, 0.5 + 1.4 * len(drawn)), dpi=90)
    FigureCanvasAgg(figure)
    # By hand: an engine that finds the margins draws everything three times (100 ms instead of 35).
    figure.subplots_adjust(left=0.17, right=0.97, top=1 - 0.1 / len(drawn), bottom=0.36 / len(drawn), hspace=0.25)
    for currency, axes in zip(drawn, figure.subplots(len(drawn), sharex=True, squeeze=False)[:, 0], strict=True):
        totals = [float(stated.get(currency, 0)) for _, stated in fetches]
        axes.step(at, totals, where="post", color="#4f43dd", linewidth=1.5)
        axes.plot(at, totals, "o", color="#4f43dd", markersize=3.5)
        axes.set_ylabel(currency)
        axes.ticklabel_format(axis="y", style="plain", useOffset=False)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.2)
        locator = AutoDateLocator(minticks=2, maxticks=6)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.tick_params(labelsize=8)
    if left_out:
        figure.supxlabel(f"not drawn: {', '.join(left_out)}", fontsize=8)
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
