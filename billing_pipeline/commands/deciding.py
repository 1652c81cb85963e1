"""What a person decides: `restatements`, `approve`, `dismiss`, and the invoices that months are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from .. import completion, environment
from ..misconfigured import WrongConfiguration
from .arguments import JSON, AccountArgument, failed, told_exit

if TYPE_CHECKING:
    from ..line import Line


def restatements(as_json: JSON = False) -> None:
    """Final months for which a provider stated something else later: both totals, and what was decided about it.

    Examples:
      billing-pipeline restatements
      billing-pipeline restatements --json

    Exit status: 0, also while some wait for a decision; 2 wrong
    configuration.
    """
    from .. import restatements as work
    from .. import terminal

    found = environment.line().restatements()
    if as_json:
        terminal.document(work.rows(found))
    else:
        work.show(found, terminal.out)


def approve(
    account: AccountArgument,
    period: Annotated[str, typer.Argument(help="The restated month, YYYY-MM.", autocompletion=completion.months)],
    why: Annotated[str, typer.Option(help="The reason, for the ledger. Default: none.", show_default=False)] = "",
    as_json: JSON = False,
) -> None:
    """Accept a restatement: book the difference as corrections in the oldest open month. Closed rows stay as they are.

    Example:
      billing-pipeline approve plivo/main 2026-05 --why "Plivo, by mail"

    Exit status: 0 booked; 1 nothing waits for a decision (also when it
    was approved before), or it does not reconcile; 2 wrong arguments or
    configuration.
    """
    from .. import restatements as work

    _decide(account, period, as_json, lambda line, by: work.approve(line, account, period, by, why))


def dismiss(
    account: AccountArgument,
    period: Annotated[str, typer.Argument(help="The restated month, YYYY-MM.", autocompletion=completion.months)],
    why: Annotated[str, typer.Option(help="The reason, for the ledger.")],
    as_json: JSON = False,
) -> None:
    """Reject a restatement: the month stays as it is, and the same numbers are no news when they are stated again.

    Example:
      billing-pipeline dismiss plivo/main 2026-05 --why "a mistake of theirs"

    Exit status: as of approve.
    """
    from .. import restatements as work

    _decide(account, period, as_json, lambda line, by: work.dismiss(line, account, period, by, why))


def _decide(account: str, period: str, as_json: bool, decision: Callable[[Line, str], str]) -> None:
    from .. import restatements as work
    from .. import terminal

    line = environment.line()
    try:
        told = decision(line, environment.person())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except work.REFUSED as error:
        raise failed(f"{account} {period}", error) from error
    if as_json:
        newest = [row for row in line.restatements() if str(row.restated.partition) == f"{account} {period}"]
        terminal.document(work.rows(newest)[-1])
    else:
        terminal.say(terminal.out, told)


def add(
    account: AccountArgument,
    period: Annotated[
        str, typer.Argument(help="The month that is invoiced, YYYY-MM.", autocompletion=completion.months)
    ],
    amount: Annotated[str, typer.Option(help="Its total, such as 8058.13, in the invoice's currency.")],
    currency: Annotated[str, typer.Option(help="Such as USD.")],
    number: Annotated[str, typer.Option(help="The invoice's number.")],
    explained: Annotated[
        list[str] | None,
        typer.Option(
            help="LABEL=AMOUNT: a part that no charge can be for, such as tax=12.00; may be given more than once."
        ),
    ] = None,
    tolerance: Annotated[str, typer.Option(help="How far from it the month may be, in that currency.")] = "0.01",
    billing_account: Annotated[
        str | None,
        typer.Option(help="The one BillingAccountId that it is about. Default: all of the account's charges."),
    ] = None,
    as_json: JSON = False,
) -> None:
    """Write an invoice into invoices.toml, publish, and say whether its month agrees.

    Example:
      billing-pipeline invoice add plivo/main 2026-05 --amount 8058.13
        --currency USD --number 4711 --explained tax=12.00

    Exit status: 0 written, whatever the comparison says; 1 the warehouse
    could not be published; 2 wrong arguments or configuration, nothing
    was written.
    """
    from .. import invoiced as work
    from .. import terminal
    from ..invoices import said

    line = environment.line()
    try:
        invoice = said(account, period, amount, currency, number, explained or [], tolerance, billing_account)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    work.written(environment.invoices_file(), invoice, environment.known_accounts(line))
    try:
        line.publish()
    except WrongConfiguration:
        raise
    except Exception as error:
        raise told_exit(line.failure("warehouse", error)) from error
    found = work.compared(line.warehouse.path, invoice)
    if as_json:
        terminal.document(found)
    else:
        terminal.say(terminal.out, work.told(found))
