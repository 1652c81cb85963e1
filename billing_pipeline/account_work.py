"""One account's part of a refresh: its months one after another, then its list of invoices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .ahead import Ahead, Worth
from .failures import Failure
from .invoice_lists import Asked
from .landing import Partition
from .line import Fetched, Line, Loaded
from .progress import Progress
from .provider import RowsMoved

Say = Callable[[Callable[[], str]], None]
"""Called with how to put together what is done now, before each step and each page; may raise `Stopped`."""


class Stopped(BaseException):
    """Somebody pressed Ctrl-C: the month ends between two pages, and that is no failure of it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one month.

    Attributes:
        partition: the month of an account; or what else failed, by its name.
        fetched, loaded: what was done; None where it failed before.
        failure: why it failed; None when it did not. The month then shows what it showed before.
    """

    partition: Partition | str
    fetched: Fetched | None = None
    loaded: Loaded | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Task:
    """What is to be done of one account.

    Attributes:
        provider, account: which.
        landed: months that a killed run fetched and did not come to load.
        wanted: months to be fetched and loaded, after those.
        explicit: see `Line.fetch`.
        lists: whether its list of invoices is asked for, after all months.
        ahead: what a process is worth that makes a month's file while it is fetched; None: no core is free for one.
    """

    provider: str
    account: str
    landed: tuple[Partition, ...]
    wanted: tuple[Partition, ...]
    explicit: bool
    lists: bool
    ahead: Worth | None = None

    @property
    def months(self) -> tuple[Partition, ...]:
        """In the order in which they are done."""
        return (*self.landed, *self.wanted)

    def without(self, done: Outcome | Asked) -> Task:
        """What is left then."""
        if isinstance(done, Asked) or isinstance(done.partition, str):
            return replace(self, lists=False)
        landed, wanted = (tuple(p for p in months if p != done.partition) for months in (self.landed, self.wanted))
        return replace(self, landed=landed, wanted=wanted)


def worked(line: Line, task: Task, say: Say) -> Iterator[Outcome | Asked]:
    """What became of each month, as it is done, and of the list of invoices. A month that fails holds up no other."""
    for partition in task.months:

        def tell(text: Callable[[], str], partition: Partition = partition) -> None:
            say(lambda: f"{partition.period} {text()}")

        tell(lambda: "asking")
        with Ahead(
            line.data,
            task.ahead,
            waiting=lambda tell=tell: tell(lambda: "reconciling"),  # type: ignore[misc]
            meanwhile=line.warehouse.prepare,
        ) as ahead:
            done = _month(line, partition, task, tell, ahead)
        yield done
    if task.lists:
        say(lambda: "list of invoices")
        name = f"{task.provider}/{task.account} invoices"
        try:
            asked = line.list_invoices(task.provider, task.account)
        except Exception as error:  # noqa: BLE001  as a month's
            yield Outcome(name, failure=line.failure(name, error))
        else:
            if asked:
                yield asked


def _month(line: Line, partition: Partition, task: Task, tell: Say, ahead: Ahead) -> Outcome:
    fetched, moved = None, False

    def fetch() -> Fetched:
        return line.fetch(
            partition,
            explicit=task.explicit or moved,
            progress=lambda now: tell(lambda: _briefly(now)),
            grown=ahead.grown,
            beside=ahead.reads,
        )

    def load() -> Loaded:
        tell(lambda: "reconciling")
        return line.load(partition, lambda rows: tell(lambda: f"reconciling, {rows} rows"), ahead.made)

    try:
        if partition in task.wanted:
            fetched = fetch()
        try:
            loaded = load()
        except RowsMoved:
            if not ahead.started and partition in task.wanted:
                raise
            moved = True
        if moved:  # not while that error is handled: it keeps the rows that were read
            ahead.end()
            fetched = fetch()  # which looks for itself now, whether a row comes twice, and begins anew by itself
            loaded = load()
    except Exception as error:  # noqa: BLE001  one month must not hold up the others; the error is told and counted
        return Outcome(partition, failure=line.failure(partition, error))
    return Outcome(partition, fetched, loaded)


def _briefly(now: Progress) -> str:
    """What fits behind a bar: before pages come what is done, then how many of what; while it waits, why."""
    if now.waits:
        return now.doing
    told = [f"{now.pages} page{'s' if now.pages > 1 else ''}" if now.pages else now.doing]
    told += [f"{now.rows} rows"] if now.rows else []
    window = now.window
    return ", ".join([*told, str(window)] if window else told)
