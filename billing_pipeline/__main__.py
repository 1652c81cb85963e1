"""The command line: `billing-pipeline refresh`, `status`, `as-of`, `restatements`, `replay` and more; `--help` names all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from filelock import FileLock
from rich.console import Console

from . import environment
from .accounts import WrongConfiguration
from .failures import Failure, own, printable
from .period import BillingPeriod, aware

app = typer.Typer(
    help="What your communications providers charge, to the last digit. Without accounts.toml it runs on a built-in sandbox.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
exports = typer.Typer(help="Write the published numbers as files for other tools.", no_args_is_help=True)
app.add_typer(exports, name="export")
# Markup is off: what a provider calls something may look like it.
out = Console(markup=False)
err = Console(stderr=True, markup=False)


@app.command()
def refresh(
    provider: Annotated[list[str] | None, typer.Option(help="Only this provider; may be given more than once.")] = None,
    account: Annotated[list[str] | None, typer.Option(help="Only accounts of this name.")] = None,
    period: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this month, YYYY-MM. A final month that is named is asked for and compared, never overwritten."
        ),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Do what the weekly watch would do: ask for final months again, and compare."),
    ] = False,
) -> None:
    """Do now what the daily schedule would do: fetch, reconcile and publish every month that is not final.

    Then the reports of the months that changed are made: see report. Exit status: 0 everything is up to date; 1 a month failed
    (the others were done all the same); 2 wrong configuration. Reports that could not be made are told, and count for nothing.
    """
    from . import refresh as work

    line = environment.line()
    months = _months(period)
    if watch and months:
        raise typer.BadParameter("--watch and --period exclude each other: a month that is named is compared anyway")
    with _sandbox(line.data / "locks"):
        done = work.refresh(line, out, providers=provider or [], accounts=account or [], periods=months, watch=watch)
    work.show_status(line, out)
    out.print(work.summary(line, done), highlight=False)
    out.print(work.reported(line), highlight=False)
    if any(outcome.failure for outcome in done):
        raise typer.Exit(1)


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per month, as a list.")] = False,
) -> None:
    """The months held: rows, totals by currency, and why each is provisional or final."""
    from . import refresh as work

    line = environment.line()
    if as_json:
        out.print_json(json.dumps(work.status_rows(line)), ensure_ascii=True)
        return
    if not any(True for _ in line.lake.all()):
        out.print("Nothing has been fetched yet. Type: billing-pipeline refresh")
    work.show_status(line, out)


@app.command()
def replay(
    period: Annotated[
        list[str] | None, typer.Option(help="Only this month, YYYY-MM; may be given more than once.")
    ] = None,
    accept: Annotated[
        bool,
        typer.Option(help="Take what this version reads, after the report was seen. Closed months keep their money."),
    ] = False,
) -> None:
    """Make Parquet files and warehouse again from data/raw, without network; say first which months' totals would move.

    Exit status: 0 everything is as its landings say; 1 a month would move or could not be made again; 2 wrong configuration.
    """
    from . import replay as work

    line = environment.line()
    with out.status("replaying") as told:
        done = work.replay(line, periods=_months(period), accept=accept, progress=lambda text: told.update(text))
    work.show(done, out)
    if not done.good:
        raise typer.Exit(1)


@app.command()
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: agrees, findings, heads, ...")] = False,
    noted: Annotated[
        list[str] | None,
        typer.Option(help="The end of a chain as an earlier verify told it; may be given more than once."),
    ] = None,
) -> None:
    """Prove that closed months are as they were closed, and that landings, ledger, Parquet files and warehouse agree.

    Exit status: 0 everything agrees; 1 something was touched, and is named; 2 wrong configuration.
    """
    from . import verify as work

    try:
        heads = [work.Head.parse(text) for text in noted or []]
    except ValueError as error:
        raise typer.BadParameter(f"--noted: {error}") from error
    found = work.verify(environment.line(), heads)
    if as_json:
        out.print_json(json.dumps(found.as_json()), ensure_ascii=True)
    else:
        work.show(found, out)
    if found.findings:
        raise typer.Exit(1)


@app.command()
def restatements(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per restatement, as a list.")] = False,
) -> None:
    """Final months for which a provider stated something else later: both totals, and what was decided about it."""
    from . import restatements as work

    found = environment.line().restatements()
    if as_json:
        out.print_json(json.dumps(work.rows(found)), ensure_ascii=True)
    else:
        work.show(found, out)


@app.command()
def approve(
    account: Annotated[str, typer.Argument(help="PROVIDER/ACCOUNT, such as plivo/main.")],
    period: Annotated[str, typer.Argument(help="The restated month, YYYY-MM.")],
    why: Annotated[str, typer.Option(help="The reason, for the ledger.")] = "",
) -> None:
    """Accept a restatement: book the difference as corrections in the oldest open month. Closed rows stay as they are.

    Exit status: 0 booked; 1 nothing waits for a decision (also when it was approved before), or it does not reconcile; 2 wrong
    arguments or configuration.
    """
    from . import restatements as work

    _decide(account, period, lambda: work.approve(environment.line(), account, period, environment.person(), why))


@app.command()
def dismiss(
    account: Annotated[str, typer.Argument(help="PROVIDER/ACCOUNT, such as plivo/main.")],
    period: Annotated[str, typer.Argument(help="The restated month, YYYY-MM.")],
    why: Annotated[str, typer.Option(help="The reason, for the ledger.")],
) -> None:
    """Reject a restatement: the month stays as it is, and the same numbers are no news when they are stated again.

    Exit status: as of approve.
    """
    from . import restatements as work

    _decide(account, period, lambda: work.dismiss(environment.line(), account, period, environment.person(), why))


def _decide(account: str, period: str, decision: Callable[[], str]) -> None:
    from .restatements import REFUSED

    try:
        out.print(decision(), highlight=False)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except REFUSED as error:
        err.print(f"✗ {Failure.of(f'{account} {period}', error)}", style="red", highlight=False)
        raise typer.Exit(1) from error


@app.command()
def sql(
    query: Annotated[str | None, typer.Argument(help="A question; without one a prompt, or what is piped in.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a line of names.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of objects; amounts are text, with every digit.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Show at most so many rows of a table; 0: all.", min=0)] = 100,
    tables: Annotated[bool, typer.Option("--tables", help="List the views, and what a row of each is.")] = False,
) -> None:
    """Ask the warehouse in SQL, read-only: billing-pipeline sql "SELECT * FROM cost_by_service".

    Exit status: 0 answered; 1 the question was refused, or nothing was published yet; 2 wrong arguments.
    """
    from . import asking as work

    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other")
    form: work.Form = "csv" if as_csv else "json" if as_json else "table"
    path = environment.data_folder() / "warehouse.duckdb"
    try:
        if tables:
            work.listed(path, form, out)
            return
        text = query if query is not None else work.typed_in()
        if text is None:
            work.prompt(path, out)
            return
        answers = list(work.ask(path, text))
        if form != "table" and len(answers) != 1:
            raise typer.BadParameter(f"--{form} takes one statement, not {len(answers)}")
        for answer in answers:
            work.show(answer, form, out, rows)
    except (work.NothingPublished, work.Unanswerable) as error:
        err.print(f"✗ {Failure.of('sql', error)}", style="red", highlight=False)
        raise typer.Exit(1) from error


invoices = typer.Typer(
    help="The real invoices, to be compared with the months: see docs/invoices.md.", no_args_is_help=True
)
app.add_typer(invoices, name="invoice")


@invoices.command()
def add(
    account: Annotated[str, typer.Argument(help="PROVIDER/ACCOUNT, such as plivo/main.")],
    period: Annotated[str, typer.Argument(help="The month that is invoiced, YYYY-MM.")],
    amount: Annotated[str, typer.Option(help="Its total, such as 8058.13.")],
    currency: Annotated[str, typer.Option(help="Such as USD.")],
    number: Annotated[str, typer.Option(help="The invoice's number.")],
    explained: Annotated[
        list[str] | None,
        typer.Option(
            help="LABEL=AMOUNT: a part that no charge can be for, such as tax=12.00; may be given more than once."
        ),
    ] = None,
    tolerance: Annotated[str, typer.Option(help="How far from it the month may be.")] = "0.01",
    billing_account: Annotated[
        str | None,
        typer.Option(help="The one BillingAccountId that it is about; without it all of the account's charges."),
    ] = None,
) -> None:
    """Write an invoice into invoices.toml, publish, and say whether its month agrees.

    Exit status: 0 written, whatever the comparison says; 1 the warehouse could not be published; 2 wrong arguments or
    configuration, nothing was written.
    """
    from . import invoiced as work
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
        err.print(f"✗ {line.failure('warehouse', error)}", style="red", highlight=False)
        raise typer.Exit(1) from error
    out.print(printable(work.compared(line.warehouse.path, invoice)), markup=False, highlight=False, soft_wrap=True)


@app.command(name="as-of")
def as_of(
    instant: Annotated[str, typer.Argument(help="With its zone, such as 2026-11-03T09:00:00Z.")],
    period: Annotated[str, typer.Option(help="The month, YYYY-MM.")],
    to: Annotated[Path, typer.Option("--out", help="The folder to write to; one Parquet file per account.")],
    provider: Annotated[list[str] | None, typer.Option(help="Only this provider; may be given more than once.")] = None,
    account: Annotated[list[str] | None, typer.Option(help="Only accounts of this name.")] = None,
) -> None:
    """Bring back the full rows of a month as they were believed at a past instant, from the landings, as Parquet.

    Exit status: 0 they were written; 1 nothing was known yet, or a landing is gone; 2 wrong configuration.
    """
    from . import as_of as work
    from .loading import NothingLanded
    from .reconcile import DoesNotReconcile

    try:
        at = aware(datetime.fromisoformat(instant))
    except ValueError as error:
        raise typer.BadParameter(f"INSTANT: {error}; write it with its zone, such as 2026-11-03T09:00:00Z") from error
    (month,) = _months([period])
    try:
        found = work.bring_back(environment.line(), at, month, to, provider or [], account or [])
    except (work.NothingBelieved, NothingLanded, DoesNotReconcile) as error:
        err.print(f"✗ {Failure.of(f'as-of {month}', error)}", style="red", highlight=False)
        raise typer.Exit(1) from error
    work.show(found, out)


@exports.command(name="focus")
def export_focus(
    to: Annotated[Path, typer.Option("--out", help="The folder: new, empty, or an earlier export, which is replaced.")],
    period: Annotated[
        list[str] | None, typer.Option(help="Only this month, YYYY-MM; may be given more than once. Default: all held.")
    ] = None,
) -> None:
    """Write Cost and Usage and Billing Period of FOCUS 1.4 as Parquet and CSV, with metadata, from the published warehouse.

    Exit status: 0 written; 1 nothing is held of a month, or a file does not hold what the warehouse holds; 2 wrong arguments or
    configuration.
    """
    from . import export as work
    from .reconcile import DoesNotReconcile

    line, months = environment.line(), _months(period)
    try:
        done = work.focus_1_4(line.warehouse.path, line.providers, months, to, line.version)
    except ValueError as error:
        raise typer.BadParameter(f"--out: {error}") from error
    except (work.NothingToExport, DoesNotReconcile) as error:
        err.print(f"✗ {Failure.of('export focus', error)}", style="red", highlight=False)
        raise typer.Exit(1) from error
    work.show(done, out)


@app.command()
def report(
    period: Annotated[
        str | None, typer.Option(help="The month, YYYY-MM. Without it every month that has changed.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--out", help="The file; default data/reports/YYYY-MM.html.")] = None,
) -> None:
    """Write a month as one HTML file to read and to print: cost, days, movers, what is final and how that is known.

    Exit status: 0 written; 1 nothing is known of the month, or nothing was published yet; 2 wrong arguments.
    """
    from . import month_files as work
    from .asking import NothingPublished, Unanswerable
    from .month_facts import NothingToReport

    months = _months([period] if period else None)
    if to and not months:
        raise typer.BadParameter("--out is for one month: name it with --period")
    data = environment.data_folder()
    try:
        if months:
            out.print(str(work.write(data, months[0], to)), highlight=False, soft_wrap=True)
        else:
            made = work.bring_up_to_date(data)
            out.print(f"{made.index}  ({made})", highlight=False, soft_wrap=True)
    except ValueError as error:
        raise typer.BadParameter(f"--out: {error}") from error
    except (NothingPublished, NothingToReport, Unanswerable) as error:
        err.print(f"✗ {Failure.of('report', error)}", style="red", highlight=False)
        raise typer.Exit(1) from error


@app.command()
def sandbox(
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8642,
    now: Annotated[str | None, typer.Option(help="Pretend it is this instant, such as 2026-06-03T06:00:00Z.")] = None,
    scale: Annotated[float, typer.Option(help="How much more data than a mid-sized company has.")] = 1.0,
    seed: Annotated[str, typer.Option(help="Another word bills other numbers: to rehearse a restatement.")] = "acme",
) -> None:
    """A stand-in for the four providers' APIs, with made-up data; for a first look, rehearsals and tests."""
    from .sandbox.app import serve
    from .sandbox.world import Clock

    clock = Clock()
    if now:
        clock.set(datetime.fromisoformat(now))
    out.print(
        f"The sandbox listens on http://{host}:{port} (http://{host}:{port}/_sandbox/accounts shows what it knows)."
    )
    serve(host, port, clock, scale, seed)


@app.command()
def callbacks(
    listen: Annotated[str | None, typer.Option(help="host:port; default: callback_listen of accounts.toml.")] = None,
) -> None:
    """Receive answers that come by callback (Infobip), store them, and let the next run find them."""
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
    out.print(f"Receiving on {addresses[0]}; letters are kept in {line.data / 'mailbox'}.")
    try:
        serve(Mailbox(line.data / "mailbox", line.now), host, int(port))
    except OSError as error:
        err.print(f"✗ {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000) -> None:
    """The Dagster UI with schedule and sensors, and the sandbox beside it when there is no accounts.toml."""
    from . import ui as work

    environment.line()  # a wrong accounts.toml is told here, in one line, rather than in Dagster's log
    raise typer.Exit(work.run(port))


def _months(texts: list[str] | None) -> list[BillingPeriod]:
    try:
        return [BillingPeriod.parse(text) for text in texts or []]
    except ValueError as error:
        raise typer.BadParameter(f"--period: {error}") from error


@contextmanager
def _sandbox(locks: Path) -> Iterator[None]:
    """The sandbox for the duration of a command, unless one listens already or accounts.toml makes it needless."""
    if not environment.on_sandbox():
        yield
        return
    from .sandbox.app import running

    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "sandbox.lock") as owned:  # another command's sandbox would go away with that command
        if environment.listens(environment.sandbox_address()):
            owned.release()
            yield
            return
        out.print("No accounts.toml here: running on the built-in sandbox, whose data is made up.")
        with running(port=environment.port(environment.sandbox_address()), now=environment.pretended()):
            yield


class _NoPandas:
    """Keeps pyarrow from importing pandas for its first array: 0.5 s of the 2.9 s of a refresh, and no command needs it."""

    def find_spec(self, name: str, *_: object) -> None:
        """What the import system asks."""
        if name == "pandas":
            raise ModuleNotFoundError(name)

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)


def main() -> None:
    """Entry point of the command `billing-pipeline`."""
    environment.private()
    with _NoPandas():
        pa.array([0])  # pyarrow asks once, and remembers
    try:
        app()
    except WrongConfiguration as error:
        err.print(printable(str(error)), style="red", highlight=False)
        sys.exit(2)
    except Exception as error:
        if not own(error) and not isinstance(error, OSError):
            raise  # a bug: its traceback helps whoever mends it
        err.print(f"✗ {Failure.of('billing-pipeline', error)}", style="red", highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
