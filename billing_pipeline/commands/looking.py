"""What is held, at any time: `status`, `sql`, `as-of`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from .. import completion, environment
from ..period import aware
from .arguments import JSON, Names, Providers, failed, parsed


def status(as_json: JSON = False) -> None:
    """The months held: rows, totals by currency, and why each is provisional or final.

    Examples:
      billing-pipeline status
      billing-pipeline status --json

    A final month never changes again. A provisional one may: it is
    asked for daily until its provider's numbers have settled.

    Exit status: 0, also while months fail; 2 wrong configuration.
    """
    from .. import status as held
    from .. import terminal

    line = environment.line()
    if as_json:
        terminal.document(held.months(line))
        return
    if not any(True for _ in line.lake.all()):
        terminal.say(terminal.out, "Nothing has been fetched yet. Type: billing-pipeline refresh")
    held.show(line, terminal.out)


def sql(
    query: Annotated[str | None, typer.Argument(help="A question; without one a prompt, or what is piped in.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a line of names.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of objects; amounts are text, with every digit.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Show at most so many rows of a table; 0: all.", min=0)] = 100,
    tables: Annotated[bool, typer.Option("--tables", help="List the views, and what a row of each is.")] = False,
) -> None:
    """Ask the published warehouse in SQL, read-only; without a question, at a prompt.

    Examples:
      billing-pipeline sql --tables
      billing-pipeline sql "FROM monthly_cost LIMIT 5"
      billing-pipeline sql --csv "FROM cost_by_service"

    Instants are in UTC. What does not fit the terminal is shown one
    column below the other.

    Exit status: 0 answered; 1 the question was refused, or nothing was
    published yet; 2 wrong arguments.
    """
    from .. import asking as work
    from .. import terminal

    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    form: work.Form = "csv" if as_csv else "json" if as_json else "table"
    path = environment.data_folder() / "warehouse.duckdb"
    try:
        if tables:
            work.listed(path, form, terminal.out)
            return
        text = query if query is not None else work.typed_in()
        if text is None:
            work.prompt(path, terminal.out)
            return
        answers = list(work.ask(path, text))
        if form != "table" and len(answers) != 1:
            raise typer.BadParameter(f"--{form} takes one statement, not {len(answers)}")
        for answer in answers:
            work.show(answer, form, terminal.out, rows)
    except (work.NothingPublished, work.Unanswerable) as error:
        raise failed("sql", error) from error


def as_of(
    instant: Annotated[str, typer.Argument(help="With its zone, such as 2026-11-03T09:00:00Z.")],
    period: Annotated[str, typer.Option(help="The month, YYYY-MM.", autocompletion=completion.months)],
    to: Annotated[Path, typer.Option("--out", help="The folder to write to; one Parquet file per account.")],
    provider: Providers = None,
    account: Names = None,
    as_json: JSON = False,
) -> None:
    """Bring back the full rows of a month as they were believed at a past instant, from the landings, as Parquet.

    Example:
      billing-pipeline as-of 2026-06-16T00:00:00Z --period 2026-06 --out june

    What was decided at that very instant counts. Nothing is asked of a
    provider, and nothing in the data folder changes.

    Exit status: 0 written; 1 nothing was known yet, or a landing is
    gone; 2 wrong arguments or configuration.
    """
    from .. import as_of as work
    from .. import terminal
    from ..loading import NothingLanded
    from ..reconcile import DoesNotReconcile

    try:
        at = aware(datetime.fromisoformat(instant))
    except ValueError as error:
        raise typer.BadParameter(f"INSTANT: {error}; write it with its zone, such as 2026-11-03T09:00:00Z") from error
    (month,) = parsed([period])
    line = environment.line()
    try:
        with terminal.steps("bringing back", watched=not as_json) as tell:
            found = work.bring_back(line, at, month, to, provider or [], account or [], progress=tell)
    except (work.NothingBelieved, NothingLanded, DoesNotReconcile) as error:
        raise failed(f"as-of {month}", error) from error
    if as_json:
        terminal.document(work.rows(found))
    else:
        work.show(found, terminal.out)
