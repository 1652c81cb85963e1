"""The line from a provider's API to the warehouse, drawn once: the schedule, the UI and `refresh` all go through here.

    fetch    provider → landing           (bytes on disk, complete or absent)
    load     landing → Parquet            (only when every control total agrees)
    publish  Parquet + ledger → DuckDB    (on a copy, published by one rename)

Each step can die at any moment and be repeated: it finds what the last one finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from . import leftovers, scratch, snapshot
from .accounts import Configuration
from .corrections import Corrections, Restatement, restatements
from .coverage import Expectation
from .failures import Failure, Failures
from .finality import EXPIRES_SOON, days_left, late_periods, open_periods, out_of_reach, served, watched_periods
from .invoice_lists import Asked, InvoiceLists, Shelf
from .invoices import Invoice, merged, tables
from .lake import Lake, Replacement
from .landing import Arriving, Landing, Landings, Partition
from .ledger import Entry, Ledger
from .loading import Loaded, Loading, MonthVanished, NothingLanded
from .mailbox import Mailbox
from .making import Made
from .pace import Waiting
from .period import BillingPeriod, stamp
from .progress import Progress, Walk
from .provider import Access, Page, Provider, RateLimit, Settings
from .transport import Auth, Http, Patience
from .warehouse import Issuer, Published, Warehouse

__all__ = ["Fetched", "Line", "Loaded", "MonthVanished", "NotBegun", "NothingLanded", "OutOfReach"]

SHARED_FOR = timedelta(minutes=15)  # how old a landing of another month may be that the same traversal answers


class NotBegun(Exception):
    """The month lies in the future on the provider's clock, so there is nothing to ask for yet."""

    rerun = "yes"
    remedy = "Wait until the month has begun on the provider's clock"


class OutOfReach(Exception):
    """The provider no longer serves the month, so it cannot be fetched any more."""

    rerun = "no"
    remedy = "Ask the provider's support for the month"


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did.

    Attributes:
        action: fetched: asked the provider. shared: a landing of minutes ago already answers. kept: the month is final and
            was not asked for.
        landing: the newest landing of the month; None only for a kept month whose landings are gone.
    """

    action: Literal["fetched", "shared", "kept"]
    landing: Landing | None


class Line:
    """All steps, for all accounts of a configuration.

    Args:
        data: the data folder.
        configuration: the accounts.
        providers: who they are.
        now: the clock; aware.
        version: of this program, for the manifests.
        patience: how long a provider that does not answer is asked again.
        invoices: what is written in invoices.toml now.
    """

    def __init__(
        self,
        data: Path,
        configuration: Configuration,
        providers: Mapping[str, Provider],
        now: Callable[[], datetime],
        version: str,
        patience: Patience = Patience(),  # noqa: B008  frozen
        invoices: Callable[[], Sequence[Invoice]] = tuple,
    ) -> None:
        self.data = data
        self.configuration = configuration
        self.providers = providers
        self.now = now
        self.version = version
        self.patience = patience
        self.invoices = invoices
        self.landings = Landings(data)
        self.lake = Lake(data)
        self.ledger = Ledger(data)
        self.warehouse = Warehouse(data)
        self.loading = Loading(self.landings, self.lake, self.ledger, providers, now, self._disjoint)
        self.corrections = Corrections(self.loading)
        self.failures = Failures(data, now)
        self.invoice_lists = InvoiceLists(data, self.landings)
        self._swept: set[tuple[str, str]] = set()

    def open(self, now: datetime | None = None) -> list[Partition]:
        """Every month of every account that a daily refresh asks for at `now`: not final, and still served."""
        return self._months(open_periods, now)

    def lost(self, now: datetime | None = None) -> list[Partition]:
        """Every month that never became final and that its provider no longer serves."""
        return self._months(out_of_reach, now)

    def expiring(self, now: datetime | None = None) -> list[tuple[Partition, int]]:
        """Every month that is not final and that its provider will soon stop serving, with the days left; soonest first."""
        instant = now or self.now()
        left = ((p, days_left(self.providers[p.provider].calendar, p.period, instant)) for p in self.open(instant))
        soon = [(partition, days) for partition, days in left if days is not None and days <= EXPIRES_SOON]
        return sorted(soon, key=lambda item: (item[1], item[0].path))

    def late(self, now: datetime | None = None) -> list[Partition]:
        """Every month that is still not final although it could have been for a day, of the accounts that hold any month."""
        served = {(held.partition.provider, held.partition.account) for held in self.lake.all()}
        return [p for p in self._months(late_periods, now) if (p.provider, p.account) in served]

    def unloaded(self) -> list[Partition]:
        """Every month whose newest landing was never decided about: a run died behind the fetch, or it could not be loaded.

        An open month is fetched anew anyway; of one that is closed or out of reach this landing is all there will be.
        """
        told = {entry.landing for entry in self.ledger.all()}
        accounts = [(settings.provider, settings.name) for settings in self.configuration.accounts]
        return [
            each.partition for account in accounts for each in self.landings.of_account(*account) if each.id not in told
        ]

    def fetch(
        self,
        partition: Partition,
        *,
        explicit: bool = False,
        progress: Callable[[Progress], None] = lambda now: None,
        grown: Callable[[Arriving, int], object] = lambda arriving, size: None,
        beside: Callable[[], bool] = lambda: False,
    ) -> Fetched:
        """Ask the provider for a month, and land what it sends.

        Args:
            partition: the month.
            explicit: a person named this very month: a final one is asked for too, to be compared.
            progress: called with every step of a long walk, and before waits.
            grown: see `Landings.land`.
            beside: see `Access.beside`.

        Raises:
            NotBegun: the month lies in the future.
            OutOfReach: the provider no longer serves the month.
            Exception: whatever `Provider.fetch` raises; nothing was landed then.
        """
        provider, settings = self._provider(partition)
        unasked = (NotBegun, OutOfReach)
        with self.alone(partition), self.failures.noting(partition, "fetch", settings.secrets(), unasked):
            held = self.lake.held(partition)
            if held and held.final and not explicit:
                return Fetched("kept", self.landings.newest(partition))
            started = self.now()
            current = provider.calendar.current(started)
            if partition.period > current:
                raise NotBegun(f"it has not begun: on {provider.title}'s clock the running month is {current}")
            if not served(provider.calendar, partition.period, started):
                until = provider.calendar.available_until(partition.period)
                raise OutOfReach(
                    f"{provider.title} has not served {partition.period} since {stamp(until or started)}. What was fetched "
                    "before stays as it is; only the provider's support can still supply the month"
                )
            if provider.shareable and provider.shareable(settings):
                sibling = self._sibling(partition, started)
                if sibling:
                    return Fetched("shared", self.landings.share(sibling, partition))
            walk = Walk(progress)
            with self._http(provider, settings, waiting=walk.waiting) as http:
                walk.window = http.window
                mailbox = Mailbox(self.data / "mailbox", self.now)
                steps: list[Callable[[], object]] = []
                newest = self.landings.newest(partition)
                access = Access(
                    settings=settings,
                    http=http,
                    now=self.now,
                    mailbox=mailbox,
                    progress=walk,
                    afterwards=steps.append,
                    landed=newest.fetched_at if newest else None,
                    beside=beside,
                )
                answers = walk.counted(provider.fetch(access, partition.period), lambda each: isinstance(each, Page))
                landing = self.landings.land(
                    partition,
                    answers,
                    fetched_at=started,
                    version=self.version,
                    base_url=settings.base_url,
                    grown=grown,
                )
                for step in steps:
                    step()
                return Fetched("fetched", landing)

    def list_invoices(
        self, provider: str, account: str, progress: Callable[[Progress], None] = lambda now: None
    ) -> Asked | None:
        """Ask a provider for its list of invoices, and land it; None: its API has none.

        Raises:
            Exception: whatever `InvoiceList.fetch` raises; nothing was landed then. That the account's credentials do not reach
                the list is no error: the answer says so.
        """
        offered, settings = self.providers[provider].invoices, self.configuration.account(provider, account)
        if offered is None:
            return None
        shelf = Shelf(provider, account)
        walk = Walk(progress)
        with self.alone(shelf), self._http(self.providers[provider], settings, offered.auth, walk.waiting) as http:
            walk.window = http.window
            mailbox = Mailbox(self.data / "mailbox", self.now)
            access = Access(settings=settings, http=http, now=self.now, mailbox=mailbox, progress=walk)
            answers = offered.fetch(access)
            return self.invoice_lists.take(shelf, answers, self.now(), self.version, settings.base_url)

    def load(
        self,
        partition: Partition,
        progress: Callable[[int], None] = lambda rows: None,
        made: Callable[[Landing, Replacement], Made | None] = lambda landing, new: None,
    ) -> Loaded:
        """Make the month's Parquet file from its newest landing, or compare the two when the month is final.

        Args:
            partition: the month.
            progress: called with the number of rows read, as they are read.
            made: may have its file already, and puts it into the replacement then.

        Raises:
            NothingLanded: the month was never fetched.
            DoesNotReconcile: a control total does not agree. Nothing was replaced.
            OverlappingAccounts: another account of the provider holds the same charges. Nothing was replaced.
            MonthVanished: a complete answer lists other months but not this one, of which rows are held.
            Exception: what the provider's `parse` and `statement` raise on an answer they cannot trust.
        """
        secrets = self._provider(partition)[1].secrets()
        with self.alone(partition), self.failures.noting(partition, "load", secrets):
            for booked in sorted(self.corrections.needed(partition), key=str):
                self.corrections.ensure(booked)
            loaded = self.loading.load(partition, progress, made)
            self.corrections.ensure(partition)  # when the month was closed just now, its corrections close with it
            return loaded

    def approve(self, partition: Partition, by: str, why: str = "") -> Entry:
        """Book the undecided restatement of a month as corrections in the account's oldest open month after it.

        Raises:
            NothingToDecide: no restatement of the month is undecided.
            DoesNotReconcile: closed rows + corrections are not what the provider states. Nothing was booked.
        """
        self._provider(partition)
        with self.alone(partition):
            months = [month for month in self.open() if replace(month, period=partition.period) == partition]
            later = [month.period for month in months if month.period > partition.period]
            # There is none after the running month, of which nothing can be restated either: that is told.
            return self.corrections.approve(partition, min(later, default=partition.period.plus(1)), by, why)

    def dismiss(self, partition: Partition, by: str, why: str) -> Entry:
        """Close the undecided restatement of a month without booking anything; the same rows are no news from then on.

        Raises:
            NothingToDecide: no restatement of the month is undecided.
        """
        with self.alone(partition):
            return self.corrections.dismiss(partition, by, why)

    def restatements(self) -> list[Restatement]:
        """Every restatement there was, and what became of it."""
        return restatements(self.ledger.all())

    def failure(self, subject: Partition | str, error: BaseException) -> Failure:
        """An error as every person is told of it, without any account's secrets."""
        failure = Failure.of(subject, error, [secret for s in self.configuration.accounts for secret in s.secrets()])
        if failure.chapter != "the-machine" or not self.data.is_dir():
            return failure
        free = shutil.disk_usage(self.data).free  # what the system says names a file at best, and rarely why
        return replace(failure, what=f"{failure.what}; the data folder {self.data} has {free / 1e6:,.1f} MB free")

    def failing(self, now: datetime | None = None) -> list[Failure]:
        """Every month whose last try failed, as far as it is still asked for: open, or final and compared now and then."""
        asked = {*self.open(now), *self.watched(now)}
        return [failure for failure in self.failures.all() if failure.subject in asked]

    def watched(self, now: datetime | None = None) -> list[Partition]:
        """Every final month of every account that the weekly watch asks for at `now`, to compare it."""
        return self._months(watched_periods, now)

    def publish(self, *, anew: bool = False) -> Published:
        """Bring the warehouse up to date with the lake and the ledger, or with `anew` make it from nothing.

        A month whose Parquet file is gone although it was loaded is made again from its landing first; a month whose line in
        the ledger is missing, because a run died before it wrote it, gets its line.
        """
        known = {entry.partition for entry in self.ledger.all() if entry.partition.provider in self.providers}
        self._sweep()
        for partition in sorted(known, key=str):
            if not self.lake.path(partition).exists():
                with self.alone(partition):
                    self.loading.restored(partition)
        approved = {entry.partition for entry in self.ledger.all() if entry.decision == "approved"}
        booked = {month for partition in approved & known for month in self.corrections.needed(partition)}
        for partition in sorted(booked | {file.partition for file in self.lake.all_corrections()}, key=str):
            if not self.corrections.sound(partition):
                with self.alone(partition):
                    self.corrections.ensure(partition)
        told = {entry.landing for entry in self.ledger.all()}
        for listed in self.lake.all():
            if listed.footer["landing"] not in told:
                # Not waited for: whoever works on the account just now writes the line.
                with suppress(Timeout), self.alone(listed.partition, seconds=0):
                    held = self.lake.held(listed.partition)
                    if held:
                        self.loading.heal(held)
        for partition in sorted(self.loading.history.missing(self.ledger.all()) & known, key=str):
            with self.alone(partition):
                self.loading.remember(partition)
        with self.only("warehouse"), scratch.stoppable():
            return self.project(self.warehouse, anew=anew)

    def project(self, warehouse: Warehouse, *, anew: bool = False, at: datetime | None = None) -> Published:
        """Make a warehouse hold what lake and ledger hold, as seen `at` an instant (now); nobody else may be writing to it."""
        issuers = {name: Issuer(provider.title, provider.calendar) for name, provider in self.providers.items()}
        expectation = Expectation(
            at=at or self.now(),
            history_from=self.configuration.history_from,
            accounts=[(settings.provider, settings.name) for settings in self.configuration.accounts],
        )
        listed = list(self.invoice_lists.invoices(self.providers))
        with leftovers.files_of(warehouse.path) as folder:
            found = snapshot.taken(self.lake, self.ledger, folder, self._settle)
            return warehouse.publish(
                found.months,
                found.entries,
                issuers,
                corrections=found.corrections,
                anew=anew,
                expectation=expectation,
                invoices={**tables(merged(self.invoices(), listed)), "invoice_lists": self.invoice_lists.rows()},
            )

    def _settle(self, partition: Partition) -> None:
        """Let somebody who is between a month's file and its line come to its line; write it for one who died there."""
        with suppress(Timeout), self.alone(partition, seconds=0.1):
            held = self.lake.held(partition)
            if held:
                self.loading.heal(held)
            self.corrections.ensure(partition)

    def _sibling(self, partition: Partition, now: datetime) -> Landing | None:
        """A landing of another month, minutes old, newer than the month's own, and sound: it passed its control totals."""
        own = self.landings.newest(partition)
        for sibling in self.landings.of_account(partition.provider, partition.account):
            fresh = timedelta() <= now - sibling.fetched_at <= SHARED_FOR
            newer = own is None or sibling.fetched_at > own.fetched_at
            if fresh and newer and sibling.id in self.ledger.landings(sibling.partition):
                return sibling
        return None

    def _months(self, which: Callable[..., list[Any]], now: datetime | None) -> list[Partition]:
        instant = now or self.now()
        held = list(self.lake.all())
        return [
            Partition(settings.provider, settings.name, period)
            for settings in self.configuration.accounts
            for period in which(
                self.providers[settings.provider].calendar,
                history_from=self.configuration.history_from,
                held={
                    month.partition.period: month.status
                    for month in held
                    if (month.partition.provider, month.partition.account) == (settings.provider, settings.name)
                },
                now=instant,
            )
        ]

    def _disjoint(self, partition: Partition) -> set[str]:
        return self.configuration.disjoint(partition.provider, partition.account)

    def _provider(self, partition: Partition) -> tuple[Provider, Settings]:
        return self.providers[partition.provider], self.configuration.account(partition.provider, partition.account)

    def _http(
        self,
        provider: Provider,
        settings: Settings,
        auth: Callable[[Any], Auth] | None = None,
        waiting: Waiting = lambda seconds, why: None,
    ) -> Http:
        auth = auth or provider.auth
        limits: tuple[RateLimit, ...] = (settings.rate_limit,) if settings.rate_limit else provider.rate_limits
        return Http(
            settings.base_url,
            limits=[(limit.requests, limit.seconds) for limit in limits],
            now=self.now,
            bucket=self.data / "limits" / f"{settings.provider}--{settings.name}.sqlite",
            other_hosts=provider.hosts(settings) if provider.hosts else (),
            secrets=settings.secrets(),
            headers=provider.headers(settings) if provider.headers else None,
            auth=auth(settings) if auth else None,
            patience=self.patience,
            waiting=waiting,
        )

    @contextmanager
    def alone(self, partition: Partition, seconds: float = -1) -> Iterator[None]:
        """One process at a time works on an account's months; another one waits here, at most so many seconds.

        Whoever comes first sweeps up what a killed run left: a disk that is full of it must not stay full.
        """
        account = (partition.provider, partition.account)
        with self.only("--".join(account), seconds):
            if account not in self._swept:
                leftovers.sweep_account(self.data, *account)
                self._swept.add(account)
            yield

    def only(self, what: str, seconds: float = -1) -> FileLock:
        """A lock of that name, to be held by one process at a time; another one waits, at most so many seconds."""
        folder = self.data / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{what}.lock", timeout=seconds)

    def _sweep(self) -> None:
        """Remove what killed runs left: of accounts that nobody works on just now, of `verify`, and of comparisons."""
        self._swept.clear()  # another process may have been killed since
        for provider, account in sorted(leftovers.accounts(self.data)):
            with suppress(Timeout), self.alone(Partition(provider, account, BillingPeriod.parse("2000-01")), seconds=0):
                pass  # the month does not matter: `alone` sweeps
        with suppress(Timeout), self.only("verify", seconds=0):
            leftovers.sweep_verify(self.data)
        scratch.sweep()
