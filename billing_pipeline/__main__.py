"""The command line: `billing-pipeline refresh`, `status`, `as-of`, `restatements`, `replay` and more; `--help` names all."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from . import environment, importing
from .commands import deciding, exporting, fetching, looking, proving, serving
from .commands.arguments import failed, json_asked, told_exit
from .misconfigured import WrongConfiguration

LOOK, FETCH, DECIDE = "Look", "Fetch", "Decide"
PROVE, EXPORT, RUN = "Prove", "Export", "Run"
STOPPED = 130  # the exit status of Ctrl-C, as shells have it
PANELS = (LOOK, FETCH, DECIDE, PROVE, EXPORT, RUN)
"""The groups of `--help`, in the order of a person's life with it."""


class _Commands(TyperGroup):
    """The commands in the order of their panels; a wrong argument is told as JSON too where JSON was asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names."""
        order = {name: number for number, name in enumerate(PANELS)}
        panels = {name: getattr(command, "rich_help_panel", None) for name, command in self.commands.items()}
        return sorted(self.commands, key=lambda name: order.get(str(panels[name]), len(order)))

    def invoke(self, ctx: Any) -> Any:
        """Run what was typed."""
        try:
            return super().invoke(ctx)
        except TyperException as error:
            if json_asked():
                from . import terminal

                told = {"subject": "arguments", "kind": type(error).__name__, "what": error.format_message()}
                terminal.document({"error": told | {"advice": "See --help"}})
            raise


app = typer.Typer(
    cls=_Commands,
    help=(
        "What your communications providers charge, to the last digit.\n\n"
        "Without accounts.toml it runs on a built-in sandbox, whose data is made up:\n"
        "  billing-pipeline refresh     fetch, reconcile and publish\n"
        "  billing-pipeline status      what is held, and what is final\n"
        "  billing-pipeline sql         ask the numbers\n\n"
        "Months are written YYYY-MM and are the provider's own: UTC, YCloud's UTC+8.\n"
        "Instants are in UTC. Amounts are exact; currencies are never added up.\n"
        "COMMAND --help has examples; whatever prints results has --json."
    ),
    epilog=(
        "Exit status: 0 all is well; 1 something failed or does not agree, and is named; 2 wrong arguments or configuration, "
        "nothing was done; 130 stopped by Ctrl-C. See docs/command-line.md."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
exports = typer.Typer(help="Write the published numbers as files for other tools.", no_args_is_help=True)
app.add_typer(exports, name="export", rich_help_panel=EXPORT)
invoices = typer.Typer(
    help="The real invoices, to be compared with the months: see docs/invoices.md.", no_args_is_help=True
)
app.add_typer(invoices, name="invoice", rich_help_panel=DECIDE)

app.command(rich_help_panel=LOOK)(looking.status)
app.command(rich_help_panel=LOOK)(looking.sql)
app.command(name="as-of", rich_help_panel=LOOK)(looking.as_of)
app.command(rich_help_panel=FETCH)(fetching.refresh)
app.command(rich_help_panel=DECIDE)(deciding.restatements)
app.command(rich_help_panel=DECIDE)(deciding.approve)
app.command(rich_help_panel=DECIDE)(deciding.dismiss)
invoices.command()(deciding.add)
app.command(rich_help_panel=PROVE)(proving.verify)
app.command(rich_help_panel=PROVE)(proving.replay)
exports.command(name="focus")(exporting.export_focus)
app.command(rich_help_panel=EXPORT)(exporting.report)
app.command(rich_help_panel=RUN)(serving.ui)
app.command(rich_help_panel=RUN)(serving.callbacks)
app.command(rich_help_panel=RUN)(serving.sandbox)


def main() -> None:
    """Entry point of the command `billing-pipeline`."""
    status: list[int] = []
    atexit.register(_leave, status)  # before all that a command registers, so it is called after them
    environment.private()
    environment.spared()
    importing.sparingly()
    try:
        app(prog_name="billing-pipeline")
    except SystemExit as end:
        if end.code == STOPPED:
            _stop()
        if isinstance(end.code, int):
            status.append(end.code)
        raise
    except WrongConfiguration as error:
        from .failures import Failure, printable

        sys.exit(told_exit(Failure.of("configuration", error), 2, printable(str(error))).exit_code)
    except Exception as error:
        from .failures import own
        from .scratch import interrupted

        if interrupted(error):
            _stop()
        if not own(error) and not isinstance(error, OSError):
            raise  # a bug: its traceback helps whoever mends it
        sys.exit(failed("billing-pipeline", error).exit_code)


def _leave(status: list[int]) -> None:
    """End with this status, when everything has been done that was to be done at the end.

    The interpreter would take its modules apart first, one by one: 0.15 s of a command, for memory that goes with the process
    anyhow. Without a status, after an error, it does.
    """
    with suppress(OSError, ValueError):  # nobody reads any more: the interpreter knows what to do then
        for stream in (sys.stdout, sys.stderr):
            if stream:  # a shell can close them
                stream.flush()
        if status:
            os._exit(status[0])


def _stop() -> None:
    """End at once: threads that wait for a provider would hold up the end for minutes."""
    if json_asked():
        from . import terminal

        stopped = {"subject": "billing-pipeline", "kind": "Stopped", "what": "Ctrl-C", "advice": "Type it again"}
        terminal.document({"error": stopped})
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
