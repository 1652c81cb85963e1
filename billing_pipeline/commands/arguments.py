"""What commands have in common: arguments that are completed, and how a failure is told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion
from ..period import BillingPeriod

if TYPE_CHECKING:
    from ..failures import Failure

Providers = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this provider; may be given more than once. Default: all.", autocompletion=completion.providers
    ),
]
Names = Annotated[
    list[str] | None,
    typer.Option(
        help="Only accounts of this name; may be given more than once. Default: all.", autocompletion=completion.names
    ),
]
Months = Annotated[
    list[str] | None,
    typer.Option(
        help="Only this month, YYYY-MM; may be given more than once. Default: all.", autocompletion=completion.months
    ),
]
AccountArgument = Annotated[
    str, typer.Argument(help="PROVIDER/ACCOUNT, such as plivo/main.", autocompletion=completion.accounts)
]
JSON = Annotated[
    bool, typer.Option("--json", help="One JSON document on stdout, amounts as text; notices go to stderr.")
]


def parsed(texts: list[str] | None) -> list[BillingPeriod]:
    """The months that were typed."""
    try:
        return [BillingPeriod.parse(text) for text in texts or []]
    except ValueError as error:
        raise typer.BadParameter(f"--period: {error}") from error


def json_asked() -> bool:
    """Whether JSON was asked for, also where the arguments could not be read."""
    return "--json" in sys.argv[1:]


def failed(subject: str, error: Exception) -> typer.Exit:
    """Tell why a command failed; the exit to raise."""
    from ..failures import Failure

    return told_exit(Failure.of(subject, error))


def told_exit(failure: Failure, code: int = 1, text: str = "") -> typer.Exit:
    """Tell a failure, as JSON too where JSON was asked for; the exit to raise."""
    from .. import terminal

    terminal.say(terminal.err, text or f"✗ {failure}", "red")
    if json_asked():
        told = {"subject": str(failure.subject), "kind": failure.kind, "what": failure.what, "advice": failure.advice}
        terminal.document({"error": told})
    return typer.Exit(code)
