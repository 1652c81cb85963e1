"""The daily refresh in the foreground: accounts side by side, the months of one account one after another.

It walks the same line as Dagster's schedule, without a run per month, and leaves a note of every month that was done, which
Dagster's UI shows (see `untold`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bars

from . import terminal, untold
from .account_process import Processes
from .account_work import Outcome, Stopped, Task
from .accounts import WrongConfiguration
from .charges import totals_json
from .delivery import deliver
from .failures import Failure, printable
from .invoice_lists import Asked
from .landing import Partition
from .line import Line
from .period import BillingPeriod
from .progress import Tell
from .reconcile import money
from .scratch import stoppable
from .status import failure_row
from .terminal import say
from .warehouse import Published

PATIENCE = 2  # seconds after Ctrl-C in which a month may come to the end of its page


def refresh(
    line: Line,
    console: Console,
    *,
    providers: Sequence[str] = (),
    accounts: Sequence[str] = (),
    periods: Sequence[BillingPeriod] = (),
    watch: bool = False,
    publish_every: float = 30,
    bars: Bars | None = None,
    processes: Processes | None = None,
) -> list[Outcome]:
    """Fetch, load and publish what is open, or the months that are named; one that fails holds up nobody else.

    Accounts that are done are published every `publish_every` seconds while another one hangs. With `watch` the final months
    that are still served are asked for instead, and compared. `bars` show how far every account is. `processes` may take over
    accounts that compute more than they wait, if `line` is the environment's.

    Raises:
        KeyboardInterrupt: after saying what was published until then. Months may still be waiting for an answer in threads.
    """
    named = [
        (s.provider, s.name)
        for s in line.configuration.accounts
        if (not providers or s.provider in providers) and (not accounts or s.name in accounts)
    ]
    if not named:
        known = ", ".join(f"{s.provider}/{s.name}" for s in line.configuration.accounts)
        wrong = WrongConfiguration(f"no account matches; {line.configuration.source} has {known}")
        return [Outcome("refresh", failure=line.failure("refresh", wrong))]
    wanted = (
        [Partition(*account, period) for account in named for period in periods]
        if periods
        else [p for p in (line.watched() if watch else line.open()) if (p.provider, p.account) in named]
    )
    # What a killed run fetched and did not come to load, of months that are not asked for again.
    landed = [] if periods else [p for p in line.unloaded() if (p.provider, p.account) in named and p not in wanted]
    lists: dict[tuple[str, str], Asked] = {}
    finished: list[Outcome] = []
    shown: list[Outcome] = []
    stopped = Event()
    # One account alone has the interpreter for itself, and the other cores.
    ahead = processes.ahead if processes and len(named) == 1 else None
    elsewhere = processes if processes and not ahead else Processes(0)
    with elsewhere, bars or terminal.bars(watched=False) as progress:

        def work(account: tuple[str, str]) -> list[Outcome]:
            of_landed, of_wanted = (
                [p for p in months if (p.provider, p.account) == account] for months in (landed, wanted)
            )
            explicit, name = watch or bool(periods), "/".join(account)
            task = Task(*account, tuple(of_landed), tuple(of_wanted), explicit, lists=not explicit, ahead=ahead)
            bar = progress.add_task(name, doing="", total=len(task.months))
            done = []

            def tell(text: Callable[[], str]) -> None:
                if stopped.is_set():
                    raise Stopped
                if not progress.disable:
                    progress.update(bar, doing=printable(text()))

            for event in elsewhere.worked(line, task, tell, watched=not progress.disable):
                if isinstance(event, Asked):
                    lists[account] = event
                    if event.outcome != "listed":
                        say(console, printable(f"– {name} invoices: {event.outcome}: {event.why}"))
                    continue
                done.append(event)
                if isinstance(event.partition, Partition):
                    say(console, _told(event))
                    progress.advance(bar)
                    finished.append(event)
            progress.update(bar, doing="done")
            return done

        # Each account keeps its own rate limit and its own lock; two of them never wait for each other.
        pool = ThreadPoolExecutor(max_workers=max(len(named), 1))
        working = [pool.submit(work, account) for account in named]
        try:
            told = 0
            while wait(working, timeout=publish_every).not_done:
                done = sum(each.done() for each in working)
                if done > told:
                    with suppress(Exception):  # the publishing below meets the same, and tells it
                        upcoming = list(finished)
                        line.publish()
                        shown = upcoming
                    told = done
            outcomes = [outcome for each in working for outcome in each.result()]
            task = progress.add_task("warehouse", doing="publishing", total=1)
            try:
                published = line.publish()
            except Exception as error:  # noqa: BLE001  told below; the published file stays as it was
                published = None
                outcomes.append(Outcome("warehouse", failure=line.failure("warehouse", error)))
            progress.update(task, doing="done", completed=1)
        except KeyboardInterrupt:
            stopped.set()
            elsewhere.end()
            wait(working, timeout=PATIENCE)
            progress.stop()
            say(console, _interrupted(finished, shown))
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    try:
        untold.note(line.data, _noted(outcomes, lists, published))
    except OSError as error:  # Dagster's records decide nothing, so their trouble fails nothing
        say(console, printable(f"The Dagster UI will not be told of this refresh: {error}"))
    others = [o.failure for o in outcomes if o.failure and not isinstance(o.partition, Partition)]
    for problem in deliver(line, more=others):
        say(console, problem)
    return outcomes


def _interrupted(finished: Sequence[Outcome], shown: Sequence[Outcome]) -> str:
    """What a person who pressed Ctrl-C finds in the warehouse, and what not yet."""

    def named(outcomes: Iterable[Outcome]) -> str:
        done = [o.partition for o in outcomes if o.loaded and isinstance(o.partition, Partition)]
        return "; ".join(f"{account} {', '.join(months)}" for account, months in sorted(_by_account(done).items()))

    waiting = named(outcome for outcome in finished if outcome not in shown)
    return (
        f"Stopped. Published: {named(shown) or 'nothing new'}."
        + (f" Loaded, and published by the next refresh: {waiting}." if waiting else "")
        + " All other months are as they were; nothing is half."
    )


def outcome_rows(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """What became of each month, or of a list of invoices or the warehouse where that failed, as JSON has it."""
    return [
        {
            "subject": str(outcome.partition),
            **_named(outcome.partition),
            "action": _ACTIONS[outcome.loaded.action] if outcome.loaded else "failed",
            "x_Rows": outcome.loaded.held.tally.rows if outcome.loaded else None,
            "x_Totals": totals_json(outcome.loaded.held.tally.totals) if outcome.loaded else {},
            "x_Finality": outcome.loaded.held.status if outcome.loaded else None,
            "x_Failure": failure_row(outcome.failure),
        }
        for outcome in outcomes
    ]


def _named(subject: Partition | str) -> dict[str, str | None]:
    month = subject if isinstance(subject, Partition) else None
    return {
        "x_Provider": month.provider if month else None,
        "x_Account": month.account if month else None,
        "x_BillingPeriod": str(month.period) if month else None,
    }


_ACTIONS = {"written": "loaded", "kept": "kept", "unchanged": "compared", "restated": "restated"}


def _told(outcome: Outcome) -> str:
    if outcome.failure:
        return f"✗ {outcome.partition}: {outcome.failure.what}"
    assert outcome.loaded is not None  # noqa: S101
    held = outcome.loaded.held
    did = {
        "written": "replaced" if outcome.loaded.change else "loaded",
        "kept": "kept, it is final" if held.final else "kept, nothing new",
        "unchanged": "compared, unchanged",
        "restated": "COMPARED: THE PROVIDER NOW STATES OTHER NUMBERS; the month stays, see billing-pipeline restatements",
    }[outcome.loaded.action]
    return f"✓ {outcome.partition}: {did}; {held.tally.rows} rows, {money(held.tally.totals)}, {held.status}"


def summary(line: Line, outcomes: Sequence[Outcome]) -> str:
    """What failed, why, what is shown instead and what to do; what is up to date; what to type next."""
    failed = [outcome.failure for outcome in outcomes if outcome.failure]
    lines = []
    if failed:
        lines += [f"{len(failed)} of {len(outcomes)} failed:"]
        lines += _why(line, failed)
        lines += [
            f"{len(outcomes) - len(failed)} of {len(outcomes)} are up to date"
            + (":" if len(failed) < len(outcomes) else ".")
        ]
        done = [
            outcome.partition for outcome in outcomes if isinstance(outcome.partition, Partition) and outcome.loaded
        ]
        lines += [f"  {account} {', '.join(months)}" for account, months in _by_account(done).items()]
    path = _shown(line.warehouse.path)
    lines += [
        f"Warehouse: {path}  (ask it, read-only: duckdb -readonly {path}, or duckdb.connect('{path}', read_only=True))",
        "Dagster UI: make ui",
    ]
    return "\n".join(lines)


def _why(line: Line, failed: Sequence[Failure]) -> list[str]:
    """Each account's months that failed for the same reason, told together."""
    reasons: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failed:
        subject = failure.subject
        account = f"{subject.provider}/{subject.account}" if isinstance(subject, Partition) else subject
        # The id of a request is in many a refusal, and another one each time.
        reasons.setdefault((account, re.sub("[0-9a-fA-F-]{16,}", "", failure.what), failure.advice), []).append(failure)
    lines = []
    for (account, _, advice), same in reasons.items():
        months = [failure.subject for failure in same if isinstance(failure.subject, Partition)]
        lines.append(
            f"✗ {' '.join([account, ', '.join(str(month.period) for month in months)]).strip()}: {same[0].what}"
        )
        lines += [f"    {month.period} {_stays(line, month)}" for month in months]
        lines.append(f"    {advice}")
    return lines


def _stays(line: Line, partition: Partition) -> str:
    held = line.lake.held(partition)
    if held is None:
        return "shows nothing yet: it was never fetched completely"
    return (
        f"shows what it showed before: {money(held.tally.totals)}, {held.status}, fetched {held.footer['fetched_at']}"
    )


def _by_account(months: Iterable[Partition]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for month in months:
        found.setdefault(f"{month.provider}/{month.account}", []).append(str(month.period))
    return found


def _noted(
    outcomes: list[Outcome], lists: dict[tuple[str, str], Asked], published: Published | None
) -> Iterator[untold.Done]:
    for outcome in outcomes:
        if isinstance(outcome.partition, Partition):
            yield untold.Month(outcome.partition, outcome.fetched, outcome.loaded)
    yield from lists.values()
    if published:
        yield published


def reported(line: Line, progress: Tell = lambda done, of, text: None) -> str:
    """Make the reports of the months that have changed, and say where they are, or why they could not be made.

    It comes when the numbers are published and told: its trouble is told too, and fails nothing.
    """
    from .month_files import bring_up_to_date

    if not line.warehouse.path.exists():
        return "Reports: none, nothing was published yet"
    try:
        with stoppable():
            made = bring_up_to_date(line.data, progress)
    except Exception as error:  # noqa: BLE001  told; the numbers are published all the same
        return f"✗ {line.failure('reports', error)} The numbers are published all the same."
    told = f"Reports: {_shown(made.index)}  ({made})"
    try:
        untold.note(line.data, [untold.Pages(str(made.index), made.told())])
    except OSError as error:  # as in refresh
        told += printable(f"\nThe Dagster UI will not be told of them: {error}")
    return told


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
