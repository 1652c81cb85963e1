"""The plots of a month's report: SVG that stands in the page itself, as wide as a phone, its letters those of the page.

Colours are names that the page's style sheet fills in, so that a plot is readable on dark paper and in print too, and none of
them says anything that no word or pattern says. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as Xml

from .failures import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

WIDTH = 340
"""Pixels: what a phone shows. Wider pages show several plots beside each other."""
BAR = 34  # pixels for a bar and its name
LETTERS = 11.5  # pixels
LONGEST = 44  # characters of a name
COLOURS = {
    "#101010": "--ink",
    "#808080": "--faint",
    "#d0d0d0": "--rule",
    "#3060a0": "--bar",
    "#a05030": "--fall",
    "#d0e0f0": "--bar-soft",
    "#f0d0c0": "--fall-soft",
}
INK, FAINT, RULE, BAR_COLOUR, FALL, BAR_SOFT, FALL_SOFT = COLOURS


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        name: what it is of.
        text: its value, as the page writes it.
        value: its value; it is drawn as a double, and read in `text`.
        provisional: whether it may still change: such bars are hatched.
    """

    name: str
    text: str
    value: Decimal
    provisional: bool = False


def bars(name: str, told: str, shown: Sequence[Bar]) -> str:
    """Bars below each other, from 0 to the right, or to the left where they are negative; nothing when there are none.

    Args:
        name: of the plot, unique in its page.
        told: what it shows, in words; the bars are added to it for who cannot see them.
        shown: top down.
    """
    if not shown:
        return ""
    told += ": " + "; ".join(f"{bar.name} {bar.text}{', provisional' if bar.provisional else ''}" for bar in shown)
    with _drawn(name, told, BAR * len(shown) + 8) as (axes, made):
        axes.axis("off")
        axes.set_position((0.006, 0, 0.988, 1))
        values = [float(bar.value) for bar in shown]
        for look in {(bar.provisional, value < 0) for bar, value in zip(shown, values, strict=True)}:
            boxes = [
                (0, place + 0.06, value, place + 0.42)
                for place, (bar, value) in enumerate(zip(shown, values, strict=True))
                if (bar.provisional, value < 0) == look
            ]
            _boxes(axes, boxes, *look)
        for place, bar in enumerate(shown):
            at = axes.get_yaxis_transform()  # across the whole width, whatever the values; down by the bar's place
            axes.text(0, place - 0.14, _short(bar.name), transform=at, va="center", ha="left")
            axes.text(1, place - 0.14, bar.text, transform=at, va="center", ha="right")
        _boxes(axes, [(0, place + 0.02, 0, place + 0.46) for place in range(len(shown))], edge=FAINT)
        least, most = min([0.0, *values]), max([0.0, *values])
        axes.set_xlim(least, most if most > least else least + 1)
        axes.set_ylim(len(shown) - 0.5, -0.5)
    return made[0]


def curve(name: str, told: str, days: Sequence[Decimal | None], *, provisional: bool) -> str:
    """A bar for each day of a month.

    Args:
        name: of the plot, unique in its page.
        told: what it shows, in words, for who cannot see it.
        days: from the 1st; None: the day is not there as a whole, which is marked and no 0.
        provisional: hatched: the month may still change.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _drawn(name, told, 150) as (axes, made):
        held = [(day, float(value)) for day, value in enumerate(days, 1) if value is not None]
        for fall in (False, True):
            boxes = [(day - 0.4, 0, day + 0.4, value) for day, value in held if (value < 0) == fall]
            _boxes(axes, boxes, provisional, fall)
        for day in (day for day, value in enumerate(days, 1) if value is None):
            axes.text(day, 0.02, "?", transform=axes.get_xaxis_transform(), ha="center", va="bottom", color=FAINT)
        axes.set_xlim(0.3, len(days) + 0.7)
        values = [0.0, *(value for _, value in held)]
        axes.set_ylim(min(values) * 1.08, max(values) * 1.08 or 1)
        axes.set_xticks([1, 8, 15, 22, 29] if len(days) > 28 else [1, 8, 15, 22])
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.axhline(0, color=FAINT, linewidth=1)
        axes.grid(axis="y", color=RULE, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, colors=INK)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.set_position((0.165, 0.14, 0.825, 0.82))
    return made[0]


@contextmanager
def _drawn(name: str, told: str, height: int) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, and a list that holds the SVG afterwards."""
    import matplotlib as mpl
    from matplotlib.figure import Figure  # never pyplot: it keeps what was drawn, and looks for a screen

    look: dict[Any, Any] = {
        "font.size": LETTERS,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib; only the widths of its letters are used
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,  # a provider may call something $x$
        "text.color": INK,
        "hatch.linewidth": 1,
        "path.simplify": False,
    }
    made: list[str] = []
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # whatever matplotlibrc lies on this machine
        mpl.rcParams.update(look)
        warnings.simplefilter("ignore", UserWarning)  # a letter that DejaVu does not have: the reader's fonts have it
        figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        yield figure.add_axes((0, 0, 1, 1)), made
        written = io.BytesIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    made.append(_inline(written.getvalue(), name, told))


def _inline(drawn: bytes, name: str, told: str) -> str:
    """SVG as it may stand in HTML: without namespaces and ids that nobody refers to, with words for who cannot see it."""
    svg = Xml.fromstring(drawn)  # noqa: S314  made by matplotlib a moment ago
    for parent in svg.iter():
        for child in [child for child in parent if child.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)
    text = Xml.tostring(svg, "unicode")
    referred = [each for each in (node.get("id") for node in svg.iter()) if each and f"#{each}" in text]
    for node in svg.iter():
        node.tag = node.tag.partition("}")[2]
        for key in list(node.attrib):
            value = node.attrib.pop(key)
            if key != "id" or value in referred:
                node.set(key.rpartition("}")[2], value)
        if node.tag == "text":  # matplotlib names its own font; the page has one
            rest = (part for part in node.get("style", "").split(";") if not part.strip().startswith("font"))
            node.set("style", ";".join(rest))
        if not (node.text or "").strip():
            node.text = None  # what it is indented with
        node.tail = None
    for key in ("width", "height", "version"):
        svg.attrib.pop(key, None)
    title = Xml.Element("title", {"id": f"{name}-told"})
    title.text = printable(told)
    svg.insert(0, title)
    svg.set("style", f"font-size: {LETTERS}px")
    svg.set("role", "img")
    svg.set("aria-labelledby", f"{name}-told")
    text = Xml.tostring(svg, "unicode", short_empty_elements=False)
    for colour, variable in COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    return text


def _boxes(
    axes: Axes,
    boxes: Sequence[tuple[float, float, float, float]],
    provisional: bool = False,
    fall: bool = False,
    edge: str | None = None,
) -> None:
    """Boxes (left, top, right, bottom) as one shape, full, or hatched where they may still change; with `edge` their outline."""
    if not boxes:
        return
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners = [((a, b), (c, b), (c, d), (a, d), (a, b)) for a, b, c, d in boxes]
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(boxes)
    shape = Path([corner for box in corners for corner in box], codes)
    full, soft = (FALL, FALL_SOFT) if fall else (BAR_COLOUR, BAR_SOFT)
    if edge:
        look: dict[str, Any] = {"fill": False, "edgecolor": edge, "linewidth": 1}
    elif provisional:
        look = {"facecolor": soft, "edgecolor": full, "hatch": "////", "linewidth": 0}
    else:
        look = {"facecolor": full, "linewidth": 0}
    axes.add_artist(PathPatch(shape, clip_on=False, **look))


def _short(text: str, most: int = LONGEST) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= most else text[: most - 1] + "…"
