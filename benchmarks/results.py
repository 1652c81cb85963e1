"""The tables: what was measured, as Markdown for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from .contestants import LOCK, Contestant
from .measure import Run

TITLES = {"ycloud": "YCloud", "plivo": "Plivo"}


@dataclass(frozen=True)
class Measured:
    """All runs over one month.

    Attributes:
        provider: ycloud or plivo.
        rows: of the month; 0 is the start: interpreter, imports, an empty month.
        runs: by contestant, in the order they ran.
    """

    provider: str
    rows: int
    runs: dict[str, list[Run]]

    def median(self, name: str, what: str) -> float | None:
        """The median of one figure; None when the contestant did not run."""
        values = [getattr(run, what) for run in self.runs.get(name, [])]
        return statistics.median(values) if values else None


def machine() -> dict[str, str]:
    """What the figures depend on."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file() and (found := re.search(r"model name\s*: (.+)", info.read_text())):
        model = found[1]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    ours = ", ".join(f"{name} {version(name)}" for name in ("httpx", "pyarrow", "duckdb"))
    theirs = ", ".join(f"{n} {v}" for n, v in re.findall(r"^(dlt|duckdb)==(\S+)", LOCK.read_text(), re.MULTILINE))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, {platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}; ours and floor: {ours}; dlt: {theirs}",
    }


def table(measured: Sequence[Measured], contestants: Sequence[Contestant]) -> str:
    """One table per provider, one line per size."""
    names = [contestant.name for contestant in contestants]
    text = []
    for provider in dict.fromkeys(m.provider for m in measured):
        months = sorted((m for m in measured if m.provider == provider), key=lambda m: m.rows)
        start = months[0] if months[0].rows == 0 else None
        heads = ["rows", *(f"{name}, s" for name in names)]
        heads += [f"{a} ÷ {b}" for a, b in _pairs(names)]
        heads += [
            "our CPU, s",
            "our CPU on all cores ÷ floor",
            "our rows/s",
            *(f"{name}, MB" for name in names),
            "requests " + "/".join(names),
        ]
        text += [f"### {TITLES[provider]}", "", _line(heads), _line(["---:"] * len(heads))]
        for month in months:
            cells = [f"{month.rows:,}", *(_figure(month.median(name, "seconds"), ".2f") for name in names)]
            cells += [_ratio(month, start, a, b) for a, b in _pairs(names)]
            cells += [_figure(month.median("ours", "cpu"), ".2f"), _without_a_gap(month, start)]
            seconds = month.median("ours", "seconds")
            cells += [f"{month.rows / seconds:,.0f}" if month.rows and seconds else ""]
            cells += [_figure(month.median(name, "peak"), ".0f") for name in names]
            cells += ["/".join(_figure(month.median(name, "requests"), ".0f") for name in names)]
            text.append(_line(cells))
        text.append("")
    return "\n".join(text)


COLOURS = {
    "ours": "#1f5fa8",
    "floor": "#444444",
    "floor-httpx": "#999999",
    "libraries": "#3f8f5f",
    "pandas": "#c7781f",
    "dlt": "#a83232",
}
UNDER_OURS = ("floor", "floor-httpx", "libraries")
"""What ours is compared with; the others are compared with ours."""


def plot(file: Path, measured: Sequence[Measured], contestants: Sequence[Contestant]) -> None:
    """Seconds over rows, both logarithmic, a panel for each provider; as SVG."""
    from matplotlib.figure import Figure

    providers = list(dict.fromkeys(m.provider for m in measured))
    figure = Figure(figsize=(4.6 * len(providers), 3.6), layout="constrained")
    for number, provider in enumerate(providers, 1):
        axes = figure.add_subplot(1, len(providers), number)
        months = sorted((m for m in measured if m.provider == provider and m.rows), key=lambda m: m.rows)
        for contestant in contestants:
            points = [(m.rows, s) for m in months if (s := m.median(contestant.name, "seconds")) is not None]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            colour = COLOURS.get(contestant.name)
            axes.plot(
                xs, ys, marker="o", label=contestant.name, color=colour, lw=2.5 if contestant.name == "ours" else 1.2
            )
        axes.set(
            xscale="log",
            yscale="log",
            title=TITLES[provider],
            xlabel="rows of the month",
            ylabel="seconds, start included",
        )
        axes.grid(visible=True, which="major", alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(file, format="svg", metadata={"Date": None})


def replace_chapter(folder: Path, title: str, lines: Sequence[str]) -> None:
    """Put the `lines` of a chapter, its head included, into RESULTS.md where the chapter of that title stands."""
    file = folder / "RESULTS.md"
    head, found, rest = file.read_text().partition(f"\n### {title}\n")
    if not found:
        raise ValueError(f"{file} has no chapter {title!r}: it comes with a whole run")
    _, following, after = rest.partition("\n### ")
    parts = [head.rstrip(), "\n".join(lines).strip(), f"{following}{after}".strip()]
    file.write_text("\n\n".join(filter(None, parts)) + "\n")


def write(
    folder: Path,
    measured: Sequence[Measured],
    contestants: Sequence[Contestant],
    runs: int,
    remarks: Sequence[str],
    more: Sequence[str] = (),
) -> None:
    """RESULTS.md, results.svg and results.json in `folder`; `more`: further chapters."""
    folder.mkdir(parents=True, exist_ok=True)
    about = machine()
    off = [abs(run.off) for m in measured for c in contestants if not c.exact for run in m.runs.get(c.name, [])]
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {about['date']}. {about['machine']}. {about['versions']}.",
        "",
        "A refresh of one month over loopback, from nothing, each time in a new process; the median of "
        f"{runs} interleaved runs ({', '.join(c.name for c in contestants)}, and again). The server sends bytes that were "
        "rendered before, so what is measured is the client. The provider's rate limit is lifted; in earnest it decides: at "
        "the 20 requests a minute that Plivo allows, a million rows take 50 minutes, and at YCloud's 1,000 an hour two hours "
        "and a half.",
        "",
        *(f"- {contestant.name}: {contestant.what}." for contestant in contestants),
        *(f"- {remark}" for remark in remarks),
        "",
        "Every result but that of the empty month is checked: all rows are there, and the total is the month's to the last digit"
        + (
            f"; dlt's total is a sum of doubles, which was off by up to {max(off):.1e} USD."
            if off and max(off)
            else "; dlt's total is a sum of doubles and need only agree to 12 digits."
            if off
            else "."
        ),
        "Seconds and MB (peak of resident memory) are of the whole process and those it starts. The line of 0 rows is its start: "
        "interpreter, imports and an empty month. Ratios in brackets leave the start out, where it is the lesser part. "
        "Our CPU on all cores leaves it out too: it is what ours ÷ floor would be if every core were busy with a refresh from "
        "beginning to end, so no other arrangement of the same work does better.",
        "",
        "![Seconds over rows, by contestant](results.svg)",
        "",
        table(measured, contestants),
        *more,
    ]
    (folder / "RESULTS.md").write_text("\n".join(lines), encoding="utf-8")
    plot(folder / "results.svg", measured, contestants)
    document = {
        **about,
        "measured": [
            {
                "provider": m.provider,
                "rows": m.rows,
                "runs": {name: [asdict(r) | {"off": str(r.off)} for r in runs] for name, runs in m.runs.items()},
            }
            for m in measured
        ],
    }
    (folder / "results.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    return [("ours", n) if n in UNDER_OURS else (n, "ours") for n in names if n != "ours"]


def _ratio(month: Measured, start: Measured | None, a: str, b: str) -> str:
    over, under = month.median(a, "seconds"), month.median(b, "seconds")
    if over is None or under is None:
        return "–"
    text = f"{over / under:.1f}"
    if start and month.rows:
        at_a, at_b = start.median(a, "seconds"), start.median(b, "seconds")
        if at_a is not None and at_b is not None and under > 2 * at_b:  # less than that, and it is noise over noise
            text += f" ({(over - at_a) / (under - at_b):.1f})"
    return text


def _without_a_gap(month: Measured, start: Measured | None) -> str:
    """The start left out, how many times the floor ours would take if every core were busy with it all the time."""
    if start is None or not month.rows:
        return ""
    figures = [m.median(name, what) for m in (month, start) for name, what in (("ours", "cpu"), ("floor", "seconds"))]
    cpu, floor, cpu_start, floor_start = (figure or 0.0 for figure in figures)
    if not cpu or floor <= 2 * floor_start:
        return ""
    return f"{(cpu - cpu_start) / (os.cpu_count() or 1) / (floor - floor_start):.1f}"


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
