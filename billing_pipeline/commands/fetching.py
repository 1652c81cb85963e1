"""`refresh`, and the sandbox for its duration where there is no accounts.toml."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import completion, environment, importing
from .arguments import JSON, Names, Providers, parsed


def refresh(
    provider: Providers = None,
    account: Names = None,
    period: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this month, YYYY-MM; may be given more than once. A final month that is named is asked for and "
            "compared, never overwritten. Default: every month that is not final.",
            autocompletion=completion.months,
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Do what the weekly watch would do: ask for final months again, and compare."),
    ] = False,
    reports: Annotated[
        bool, typer.Option(help="Make the reports of the months that changed, after all is published.")
    ] = True,
    as_json: JSON = False,
) -> None:
    """Do now what the daily schedule would do: fetch, reconcile and publish every month that is not final.

    Examples:
      billing-pipeline refresh
      billing-pipeline refresh --provider plivo --period 2026-05
      billing-pipeline refresh --watch

    Accounts are asked side by side. In a terminal each has a bar: its
    months, and of the running one pages, rows, and how many requests
    the provider's rate limit has left. Ctrl-C says what was published;
    what was not is done by the next refresh. Then the reports of the
    months that changed are made: see report. If one cannot be made that
    is told, and counts for nothing.

    Exit status: 0 everything is up to date; 1 a month failed (the others
    were done all the same); 2 wrong configuration; 130 stopped by Ctrl-C.
    """
    with importing.undisturbed():
        from .. import refresh as work
        from .. import status as held
        from .. import terminal
        from ..account_process import Processes

        line, cores = environment.line(), environment.cores()
    months = parsed(period)
    if watch and months:
        raise typer.BadParameter("--watch and --period exclude each other: a month that is named is compared anyway")
    told = terminal.err if as_json else terminal.out
    with _sandbox(line.data / "locks", told):
        done = work.refresh(
            line,
            told,
            providers=provider or [],
            accounts=account or [],
            periods=months,
            watch=watch,
            bars=terminal.bars(watched=not as_json),
            processes=Processes(cores) if cores > 1 else None,
        )
    if not as_json:
        held.show(line, terminal.out)
        terminal.say(terminal.out, work.summary(line, done))
    if reports:
        with terminal.steps("reporting", watched=not as_json) as tell:
            reported = work.reported(line, tell)
        terminal.say(told, reported)
    good = not any(outcome.failure for outcome in done)
    if as_json:
        path = line.warehouse.path
        outcomes = work.outcome_rows(done)
        terminal.document({"good": good, "outcomes": outcomes, "warehouse": str(path) if path.exists() else None})
    if not good:
        raise typer.Exit(1)


@contextmanager
def _sandbox(locks: Path, told: Any) -> Iterator[None]:
    """The sandbox for the duration of a command, unless one listens already or accounts.toml makes it needless."""
    from .. import terminal

    if not environment.on_sandbox():
        yield
        return
    from filelock import FileLock

    from ..sandbox.app import running

    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "sandbox.lock") as owned:  # another command's sandbox would go away with that command
        if environment.listens(environment.sandbox_address()):
            owned.release()
            yield
            return
        terminal.say(told, "No accounts.toml here: running on the built-in sandbox, whose data is made up.")
        with running(port=environment.port(environment.sandbox_address()), now=environment.pretended()):
            yield
