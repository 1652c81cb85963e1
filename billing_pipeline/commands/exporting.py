"""Files for other tools and for readers: `export focus`, `report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .. import completion, environment
from .arguments import JSON, Months, failed, parsed


def export_focus(
    to: Annotated[Path, typer.Option("--out", help="The folder: new, empty, or an earlier export, which is replaced.")],
    period: Months = None,
    as_json: JSON = False,
) -> None:
    """Write Cost and Usage and Billing Period of FOCUS 1.4 as Parquet and CSV, with metadata, from the published warehouse.

    Examples:
      billing-pipeline export focus --out focus
      billing-pipeline export focus --period 2026-05 --out may

    Exit status: 0 written; 1 nothing is held of a month, or a file does
    not hold what the warehouse holds; 2 wrong arguments or configuration.
    """
    from .. import export as work
    from .. import terminal
    from ..reconcile import DoesNotReconcile

    line, months = environment.line(), parsed(period)
    try:
        with terminal.steps("exporting", watched=not as_json) as tell:
            done = work.focus_1_4(line.warehouse.path, line.providers, months, to, line.version, progress=tell)
    except ValueError as error:
        raise typer.BadParameter(f"--out: {error}") from error
    except (work.NothingToExport, DoesNotReconcile) as error:
        raise failed("export focus", error) from error
    if as_json:
        terminal.document(done.as_json())
    else:
        work.show(done, terminal.out)


def report(
    period: Annotated[
        str | None,
        typer.Option(
            help="The month, YYYY-MM. Default: every month that has changed.", autocompletion=completion.months
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="The file, for one month. Default: data/reports/YYYY-MM.html.")
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write a month as one HTML file to read and to print: cost, days, movers, what is final and how that is known.

    Examples:
      billing-pipeline report
      billing-pipeline report --period 2026-05 --out may.html

    A refresh makes the reports of the months that have changed, too.

    Exit status: 0 written; 1 nothing is known of the month, or nothing
    was published yet; 2 wrong arguments.
    """
    from .. import month_files as work
    from .. import terminal
    from ..asking import NothingPublished, Unanswerable
    from ..month_facts import NothingToReport

    months = parsed([period] if period else None)
    if to and not months:
        raise typer.BadParameter("--out is for one month: name it with --period")
    data = environment.data_folder()
    document: dict[str, Any]
    try:
        if months:
            path = work.write(data, months[0], to)
            told, document = str(path), {"index": None, "written": {str(months[0]): str(path)}, "kept": []}
        else:
            with terminal.steps("reporting", watched=not as_json) as tell:
                made = work.bring_up_to_date(data, tell)
            told, document = f"{made.index}  ({made})", made.as_json()
    except ValueError as error:
        raise typer.BadParameter(f"--out: {error}") from error
    except (NothingPublished, NothingToReport, Unanswerable) as error:
        raise failed("report", error) from error
    if as_json:
        terminal.document(document)
    else:
        terminal.say(terminal.out, told)
