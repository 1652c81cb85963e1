"""`verify` and `replay`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import environment
from .arguments import JSON, Months, parsed


def verify(
    as_json: JSON = False,
    noted: Annotated[
        list[str] | None,
        typer.Option(help="The end of a chain as an earlier verify told it; may be given more than once."),
    ] = None,
) -> None:
    """Prove that closed months are as they were closed, and that landings, ledger, Parquet files and warehouse agree.

    Examples:
      billing-pipeline verify
      billing-pipeline verify --json

    Note the ends of the chains elsewhere: --noted proves later that no
    line of the ledger before them was written anew.

    Exit status: 0 everything agrees; 1 something was touched, and is
    named; 2 wrong arguments or configuration.
    """
    from .. import terminal
    from .. import verify as work

    try:
        heads = [work.Head.parse(text) for text in noted or []]
    except ValueError as error:
        raise typer.BadParameter(f"--noted: {error}") from error
    line = environment.line()
    with terminal.steps("verifying", watched=not as_json) as tell:
        found = work.verify(line, heads, progress=tell)
    if as_json:
        terminal.document(found.as_json())
    else:
        work.show(found, terminal.out)
    if found.findings:
        raise typer.Exit(1)


def replay(
    period: Months = None,
    accept: Annotated[
        bool,
        typer.Option(help="Take what this version reads, after the report was seen. Closed months keep their money."),
    ] = False,
    as_json: JSON = False,
) -> None:
    """Make Parquet files and warehouse again from data/raw, without network; say first which months' totals would move.

    Examples:
      billing-pipeline replay
      billing-pipeline replay --period 2026-05

    Exit status: 0 everything is as its landings say; 1 a month would
    move or could not be made again; 2 wrong arguments or configuration.
    """
    from .. import replay as work
    from .. import terminal

    line = environment.line()
    months = parsed(period)
    with terminal.steps("replaying", watched=not as_json) as tell:
        done = work.replay(line, periods=months, accept=accept, progress=tell)
    if as_json:
        terminal.document(done.as_json())
    else:
        work.show(done, terminal.out)
    if not done.good:
        raise typer.Exit(1)
