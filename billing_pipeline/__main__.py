"""The command line: `billing-pipeline refresh`, `status`, `as-of`, `restatements`, `replay` and more; `--help` names all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from . import completion, environment
from .misconfigured import WrongConfiguration
from .period import BillingPeriod, aware

if TYPE_CHECKING:
    from .failures import Failure
    from .line import Line

# What a command works with is imported in it: `--help` and the TAB key take a third of the time that a command does.

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
            if _json_asked():
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


@app.command(rich_help_panel=LOOK)
def status(as_json: JSON = False) -> None:
    """The months held: rows, totals by currency, and why each is provisional or final.

    Examples:
      billing-pipeline status
      billing-pipeline status --json

    A final month never changes again. A provisional one may: it is
    asked for daily until its provider's numbers have settled.

    Exit status: 0, also while months fail; 2 wrong configuration.
    """
    from . import refresh as work
    from . import terminal

    line = environment.line()
    if as_json:
        terminal.document(work.status_rows(line))
        return
    if not any(True for _ in line.lake.all()):
        terminal.say(terminal.out, "Nothing has been fetched yet. Type: billing-pipeline refresh")
    work.show_status(line, terminal.out)


@app.command(rich_help_panel=LOOK)
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
    from . import asking as work
    from . import terminal

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
        raise _failed("sql", error) from error


@app.command(name="as-of", rich_help_panel=LOOK)
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
    from . import as_of as work
    from . import terminal
    from .loading import NothingLanded
    from .reconcile import DoesNotReconcile

    try:
        at = aware(datetime.fromisoformat(instant))
    except ValueError as error:
        raise typer.BadParameter(f"INSTANT: {error}; write it with its zone, such as 2026-11-03T09:00:00Z") from error
    (month,) = _months([period])
    line = environment.line()
    try:
        with terminal.steps("bringing back", watched=not as_json) as tell:
            found = work.bring_back(line, at, month, to, provider or [], account or [], progress=tell)
    except (work.NothingBelieved, NothingLanded, DoesNotReconcile) as error:
        raise _failed(f"as-of {month}", error) from error
    if as_json:
        terminal.document(work.rows(found))
    else:
        work.show(found, terminal.out)


@app.command(rich_help_panel=FETCH)
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
    from . import refresh as work
    from . import terminal

    line = environment.line()
    months = _months(period)
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
        )
    if not as_json:
        work.show_status(line, terminal.out)
        terminal.say(terminal.out, work.summary(line, done))
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


@app.command(rich_help_panel=DECIDE)
def restatements(as_json: JSON = False) -> None:
    """Final months for which a provider stated something else later: both totals, and what was decided about it.

    Examples:
      billing-pipeline restatements
      billing-pipeline restatements --json

    Exit status: 0, also while some wait for a decision; 2 wrong
    configuration.
    """
    from . import restatements as work
    from . import terminal

    found = environment.line().restatements()
    if as_json:
        terminal.document(work.rows(found))
    else:
        work.show(found, terminal.out)


@app.command(rich_help_panel=DECIDE)
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
    from . import restatements as work

    _decide(account, period, as_json, lambda line, by: work.approve(line, account, period, by, why))


@app.command(rich_help_panel=DECIDE)
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
    from . import restatements as work

    _decide(account, period, as_json, lambda line, by: work.dismiss(line, account, period, by, why))


def _decide(account: str, period: str, as_json: bool, decision: Callable[[Line, str], str]) -> None:
    from . import restatements as work
    from . import terminal

    line = environment.line()
    try:
        told = decision(line, environment.person())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except work.REFUSED as error:
        raise _failed(f"{account} {period}", error) from error
    if as_json:
        newest = [row for row in line.restatements() if str(row.restated.partition) == f"{account} {period}"]
        terminal.document(work.rows(newest)[-1])
    else:
        terminal.say(terminal.out, told)


@invoices.command()
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
    from . import invoiced as work
    from . import terminal
    from .invoices import said

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
        raise _exit(line.failure("warehouse", error)) from error
    found = work.compared(line.warehouse.path, invoice)
    if as_json:
        terminal.document(found)
    else:
        terminal.say(terminal.out, work.told(found))


@app.command(rich_help_panel=PROVE)
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
    from . import terminal
    from . import verify as work

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


@app.command(rich_help_panel=PROVE)
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
    from . import replay as work
    from . import terminal

    line = environment.line()
    months = _months(period)
    with terminal.steps("replaying", watched=not as_json) as tell:
        done = work.replay(line, periods=months, accept=accept, progress=tell)
    if as_json:
        terminal.document(done.as_json())
    else:
        work.show(done, terminal.out)
    if not done.good:
        raise typer.Exit(1)


@exports.command(name="focus")
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
    from . import export as work
    from . import terminal
    from .reconcile import DoesNotReconcile

    line, months = environment.line(), _months(period)
    try:
        with terminal.steps("exporting", watched=not as_json) as tell:
            done = work.focus_1_4(line.warehouse.path, line.providers, months, to, line.version, progress=tell)
    except ValueError as error:
        raise typer.BadParameter(f"--out: {error}") from error
    except (work.NothingToExport, DoesNotReconcile) as error:
        raise _failed("export focus", error) from error
    if as_json:
        terminal.document(done.as_json())
    else:
        work.show(done, terminal.out)


@app.command(rich_help_panel=EXPORT)
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
    from . import month_files as work
    from . import terminal
    from .asking import NothingPublished, Unanswerable
    from .month_facts import NothingToReport

    months = _months([period] if period else None)
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
        raise _failed("report", error) from error
    if as_json:
        terminal.document(document)
    else:
        terminal.say(terminal.out, told)


@app.command(rich_help_panel=RUN)
def ui(port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000) -> None:
    """The Dagster UI with schedule and sensors, and the sandbox beside it when there is no accounts.toml.

    Examples:
      billing-pipeline ui
      billing-pipeline ui --port 3001

    It runs until Ctrl-C, in the folder that has workspace.yaml.

    Exit status: 0 it was stopped; 2 it was not started, and says why;
    otherwise Dagster's own.
    """
    from . import ui as work

    environment.line()  # a wrong accounts.toml is told here, in one line, rather than in Dagster's log
    raise typer.Exit(work.run(port))


@app.command(rich_help_panel=RUN)
def callbacks(
    listen: Annotated[str | None, typer.Option(help="host:port; default: callback_listen of accounts.toml.")] = None,
) -> None:
    """Receive answers that come by callback (Infobip), store them, and let the next run find them.

    Example:
      billing-pipeline callbacks --listen 127.0.0.1:8765

    It runs until Ctrl-C. A refresh listens by itself while it waits; this
    is for a receiver that is always there.

    Exit status: 0 stopped by Ctrl-C; 1 nobody can listen there; 2 wrong
    arguments or configuration.
    """
    from . import terminal
    from .callbacks import serve
    from .mailbox import Mailbox

    line = environment.line()
    found = {getattr(s, "callback_listen", None) for s in line.configuration.accounts} - {None}
    addresses = [listen] if listen else sorted(str(address) for address in found)
    if len(addresses) != 1:
        raise typer.BadParameter(
            f"say which address: --listen HOST:PORT (accounts.toml has {', '.join(addresses) or 'none'})"
        )
    host, _, port = addresses[0].rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter(f"{addresses[0]!r} is not HOST:PORT, such as 127.0.0.1:8765")
    terminal.say(terminal.out, f"Receiving on {addresses[0]}; letters are kept in {line.data / 'mailbox'}.")
    try:
        serve(Mailbox(line.data / "mailbox", line.now), host, int(port))
    except OSError as error:
        terminal.say(terminal.err, f"✗ {error}", "red")
        raise typer.Exit(1) from error


@app.command(rich_help_panel=RUN)
def sandbox(
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8642,
    now: Annotated[str | None, typer.Option(help="Pretend it is this instant, such as 2026-06-03T06:00:00Z.")] = None,
    scale: Annotated[float, typer.Option(help="How much more data than a mid-sized company has.")] = 1.0,
    seed: Annotated[str, typer.Option(help="Another word bills other numbers: to rehearse a restatement.")] = "acme",
) -> None:
    """A stand-in for the four providers' APIs, with made-up data; for a first look, rehearsals and tests.

    Examples:
      billing-pipeline sandbox
      billing-pipeline sandbox --port 9000 --now 2026-06-03T06:00:00Z

    It runs until Ctrl-C. A refresh without accounts.toml uses one that
    listens, or starts its own.

    Exit status: 1 nobody can listen there; 2 wrong arguments; 130
    stopped by Ctrl-C.
    """
    from . import terminal
    from .sandbox.app import serve
    from .sandbox.world import Clock

    clock = Clock()
    if now:
        try:
            clock.set(aware(datetime.fromisoformat(now)))
        except ValueError as error:
            raise typer.BadParameter(f"--now: {error}; write it with its zone") from error
    address = f"http://{host}:{port}"
    terminal.say(terminal.out, f"The sandbox listens on {address} ({address}/_sandbox/accounts shows what it knows).")
    try:
        serve(host, port, clock, scale, seed)
    except ValueError as error:
        raise typer.BadParameter(f"--host: {error}") from error


def _months(texts: list[str] | None) -> list[BillingPeriod]:
    try:
        return [BillingPeriod.parse(text) for text in texts or []]
    except ValueError as error:
        raise typer.BadParameter(f"--period: {error}") from error


def _json_asked() -> bool:
    return "--json" in sys.argv[1:]


def _failed(subject: str, error: Exception) -> typer.Exit:
    """Tell why a command failed; the exit to raise."""
    from .failures import Failure

    return _exit(Failure.of(subject, error))


def _exit(failure: Failure, code: int = 1, text: str = "") -> typer.Exit:
    from . import terminal

    terminal.say(terminal.err, text or f"✗ {failure}", "red")
    if _json_asked():
        told = {"subject": str(failure.subject), "kind": failure.kind, "what": failure.what, "advice": failure.advice}
        terminal.document({"error": told})
    return typer.Exit(code)


@contextmanager
def _sandbox(locks: Path, told: Any) -> Iterator[None]:
    """The sandbox for the duration of a command, unless one listens already or accounts.toml makes it needless."""
    from . import terminal

    if not environment.on_sandbox():
        yield
        return
    from filelock import FileLock

    from .sandbox.app import running

    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "sandbox.lock") as owned:  # another command's sandbox would go away with that command
        if environment.listens(environment.sandbox_address()):
            owned.release()
            yield
            return
        terminal.say(told, "No accounts.toml here: running on the built-in sandbox, whose data is made up.")
        with running(port=environment.port(environment.sandbox_address()), now=environment.pretended()):
            yield


class _NoPandas:
    """Keeps pyarrow from importing pandas for its first array: 0.5 s of the 2.9 s of a refresh, and no command needs it.

    pyarrow asks once and remembers; whoever asks after it is answered as ever.
    """

    def find_spec(self, name: str, *_: object) -> None:
        """What the import system asks."""
        if name == "pandas":
            sys.meta_path.remove(self)
            raise ModuleNotFoundError(name)


def main() -> None:
    """Entry point of the command `billing-pipeline`."""
    environment.private()
    sys.meta_path.insert(0, _NoPandas())
    try:
        app(prog_name="billing-pipeline")
    except SystemExit as end:
        if end.code == STOPPED:  # threads that wait for a provider would hold up the end for minutes
            if _json_asked():
                from . import terminal

                stopped = {
                    "subject": "billing-pipeline",
                    "kind": "Stopped",
                    "what": "Ctrl-C",
                    "advice": "Type it again",
                }
                terminal.document({"error": stopped})
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(STOPPED)
        raise
    except WrongConfiguration as error:
        from .failures import Failure, printable

        sys.exit(_exit(Failure.of("configuration", error), 2, printable(str(error))).exit_code)
    except Exception as error:
        from .failures import own

        if not own(error) and not isinstance(error, OSError):
            raise  # a bug: its traceback helps whoever mends it
        sys.exit(_failed("billing-pipeline", error).exit_code)


if __name__ == "__main__":
    main()
