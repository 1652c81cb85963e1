"""The line from a provider's API to the warehouse, drawn once: the schedule, the UI and `refresh` all go through here.

    fetch    provider → landing           (bytes on disk, complete or absent)
    load     landing → Parquet            (only when every control total agrees)
    publish  Parquet + ledger → DuckDB    (one transaction, one rename)

Each step can die at any moment and be repeated: it finds what the last one finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from . import charges, reconcile
from .accounts import Configuration
from .finality import Finality, finality, open_periods, out_of_reach, served
from .lake import Held, Lake, Replacement
from .landing import DamagedLanding, Landing, Landings, Partition
from .ledger import Decision, Entry, Ledger, fetch_facts, gate_json
from .mailbox import Mailbox
from .period import stamp
from .provider import Access, Provider, RateLimit, Settings
from .reconcile import Gate, Tally
from .transport import Http, Patience
from .warehouse import Issuer, Published, Warehouse

SHARED_FOR = timedelta(minutes=15)  # how old a landing of another month may be that the same traversal answers


class OutOfReach(Exception):
    """The provider no longer serves the month, so it cannot be fetched any more."""


class MonthVanished(Exception):
    """A complete answer that should list every month does not list one that we hold."""


class NothingLanded(Exception):
    """There is no landing to load a month from."""


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


@dataclass(frozen=True)
class Loaded:
    """What `load` did.

    Attributes:
        action: written: the month was replaced. kept: it already showed this landing, or is final and was not asked for.
            unchanged: it is final, and the provider still states the same. restated: it is final, and the provider now
            states other numbers; they are held in the ledger, the month stays.
        held: the month as it stands now.
        gates: the control totals that were compared.
        change: rows and totals against what the month showed before.
    """

    action: Literal["written", "kept", "unchanged", "restated"]
    held: Held
    gates: list[Gate] = field(default_factory=list)
    change: Mapping[str, Any] = field(default_factory=dict)


class Line:
    """All steps, for all accounts of a configuration.

    Args:
        data: the data folder.
        configuration: the accounts.
        providers: who they are.
        now: the clock; aware.
        version: of this program, for the manifests.
        patience: how long a provider that does not answer is asked again.
    """

    def __init__(
        self,
        data: Path,
        configuration: Configuration,
        providers: Mapping[str, Provider],
        now: Callable[[], datetime],
        version: str,
        patience: Patience = Patience(),  # noqa: B008  frozen
    ) -> None:
        self.data = data
        self.configuration = configuration
        self.providers = providers
        self.now = now
        self.version = version
        self.patience = patience
        self.landings = Landings(data)
        self.lake = Lake(data)
        self.ledger = Ledger(data)
        self.warehouse = Warehouse(data)

    def open(self, now: datetime | None = None) -> list[Partition]:
        """Every month of every account that a daily refresh asks for at `now`: not final, and still served."""
        return self._months(open_periods, now)

    def lost(self, now: datetime | None = None) -> list[Partition]:
        """Every month that never became final and that its provider no longer serves."""
        return self._months(out_of_reach, now)

    def fetch(
        self, partition: Partition, *, explicit: bool = False, progress: Callable[[str], None] = lambda text: None
    ) -> Fetched:
        """Ask the provider for a month, and land what it sends.

        Args:
            partition: the month.
            explicit: a person named this very month: a final one is asked for too, to be compared.
            progress: called with short texts during a long walk.

        Raises:
            OutOfReach: the provider no longer serves the month.
            Exception: whatever `Provider.fetch` raises; nothing was landed then.
        """
        provider, settings = self._provider(partition)
        with self._account(partition):
            held = self.lake.held(partition)
            if held and held.final and not explicit:
                return Fetched("kept", self.landings.newest(partition))
            started = self.now()
            if not served(provider.calendar, partition.period, started):
                until = provider.calendar.available_until(partition.period)
                raise OutOfReach(
                    f"{provider.title} has not served {partition.period} since {stamp(until or started)}. What was fetched "
                    "before stays as it is; only the provider's support can still supply the month."
                )
            if provider.shareable and provider.shareable(settings):
                sibling = self._sibling(partition, started)
                if sibling:
                    return Fetched("shared", self.landings.share(sibling, partition))
            with self._http(provider, settings) as http:
                mailbox = Mailbox(self.data / "mailbox", self.now)
                access = Access(settings=settings, http=http, now=self.now, mailbox=mailbox, progress=progress)
                answers = provider.fetch(access, partition.period)
                return Fetched(
                    "fetched",
                    self.landings.land(
                        partition, answers, fetched_at=started, version=self.version, base_url=settings.base_url
                    ),
                )

    def load(self, partition: Partition) -> Loaded:
        """Make the month's Parquet file from its newest landing, or compare the two when the month is final.

        Raises:
            NothingLanded: the month was never fetched.
            DoesNotReconcile: a control total does not agree. Nothing was replaced.
            MonthVanished: a complete answer lists other months but not this one, of which rows are held.
            Exception: what the provider's `parse` and `statement` raise on an answer they cannot trust.
        """
        with self._account(partition):
            held = self.lake.held(partition)
            if held:
                self._heal(held)
            else:  # its file may have been deleted: make again what was decided before going on
                held = self._restored(partition)
            landing = self.landings.newest(partition)
            if held and (landing is None or landing.id in self._seen(partition)):
                return Loaded("kept", held)
            if landing is None:
                raise NothingLanded(f"it was never fetched: run billing-pipeline refresh --period {partition.period}")
            return self._replace(partition, landing, held)

    def publish(self) -> Published:
        """Bring the warehouse up to date with the lake and the ledger.

        A month whose Parquet file is gone although it was loaded is made again from its landing first; a month whose line in
        the ledger is missing, because a run died before it wrote it, gets its line.
        """
        known = {entry.partition for entry in self.ledger.all() if entry.partition.provider in self.providers}
        for partition in sorted(known, key=str):
            if not self.lake.path(partition).exists():
                with self._account(partition):
                    self._restored(partition)
        for listed in self.lake.all():
            if listed.footer["landing"] not in self._seen(listed.partition):
                # Not waited for: whoever works on the account just now writes the line.
                with suppress(Timeout), self._account(listed.partition, seconds=0):
                    held = self.lake.held(listed.partition)
                    if held:
                        self._heal(held)
        issuers = {name: Issuer(provider.title, provider.calendar) for name, provider in self.providers.items()}
        with FileLock(self._lock("warehouse")):
            return self.warehouse.publish(self.lake.all(), self.ledger.all(), issuers)

    def _replace(
        self, partition: Partition, landing: Landing, held: Held | None, recorded: Entry | None = None
    ) -> Loaded:
        provider = self.providers[partition.provider]
        statement = provider.statement(landing, partition.period)
        gates = reconcile.stated(statement)
        reconcile.require(gates)
        if statement.vanished and held and held.tally.rows:
            raise MonthVanished(
                f"the answer is complete but has no row of {partition.period}, of which {held.tally.rows} rows "
                f"({reconcile.money(held.tally.totals)}) are held. They stay. If {provider.title} no longer serves the "
                "month, nothing is wrong; if it should, ask its support."
            )
        decided = finality(
            provider.calendar,
            partition.period,
            fetched_at=landing.fetched_at,
            flag=statement.flag,
            doubt=statement.doubt,
        )
        if recorded:  # what was decided stays decided
            decided = Finality(recorded.decided, recorded.rule, recorded.evidence)
        with self.lake.replacement(partition) as new:
            notes = [*statement.notes, *self._fill(new, provider, landing, decided)]
            gates += reconcile.agree("from landing to Arrow", statement.counted, new.tally)
            if recorded and decided.final:
                gates += reconcile.agree(f"of {partition} from the ledger to Arrow", recorded.tally, new.tally)
            reconcile.require(gates)
            left_out = {"rows": statement.left_out.rows, "totals": charges.totals_json(statement.left_out.totals)}
            on_disk = new.seal(landing, decided, left_out=left_out, notes=notes)
            gates += reconcile.agree("from Arrow to Parquet", new.tally, on_disk)
            reconcile.require(gates)
            change = _change(held, new)
            if held and held.final:
                return self._compare(held, new, landing, decided, gates, change)
            new.publish()
        now_held = self.lake.held(partition)
        assert now_held is not None  # noqa: S101  just published under the account's lock
        if landing.id not in self._seen(partition):
            self._record(partition, decided.status, decided, landing, new.tally, gates, change, left_out, notes)
        return Loaded("written", now_held, gates, change)

    def _restored(self, partition: Partition) -> Held | None:
        """A month whose Parquet file is gone, made again from the landing that it showed; None when it never showed one."""
        shown = [entry for entry in self.ledger.of(partition) if entry.decision in ("provisional", "final")]
        if not shown:
            return None
        recorded = shown[-1]
        try:
            landing = self.landings.get(recorded.landing)
        except FileNotFoundError as error:
            raise NothingLanded(
                f"{partition}: its Parquet file is gone, and so is the landing it was made from, {recorded.landing}. Restore "
                "data/raw from a backup"
            ) from error
        if landing.sha256 != recorded.fetch["sha256"]:
            raise DamagedLanding(landing.id, "is not the one in the ledger: the sha256 of its manifest differs")
        return self._replace(partition, landing, None, recorded).held

    def _fill(self, new: Replacement, provider: Provider, landing: Landing, decided: Finality) -> Iterator[str]:
        zone, period = provider.calendar.timezone, landing.partition.period
        origin = charges.Origin(
            provider=provider.name,
            title=provider.title,
            account=landing.partition.account,
            period_start=period.start(zone),
            period_end=period.end(zone),
            fetched_at=landing.fetched_at,
            status=decided.status,
        )
        undocumented = 0
        for columns in provider.parse(landing, period, landing.id):
            batch, extra = charges.complete(columns, origin)
            undocumented += extra
            new.write(batch)
        if undocumented:
            yield f"{undocumented} rows have fields that {provider.title}'s page does not document; they are in x_Dimensions"

    def _compare(
        self,
        held: Held,
        new: Replacement,
        landing: Landing,
        decided: Finality,
        gates: list[Gate],
        change: Mapping[str, Any],
    ) -> Loaded:
        same = new.same_charges(held.path)
        evidence = dict(decided.evidence)
        if not same:
            evidence |= {
                "held_landing": held.footer["landing"],
                "held_rows": held.footer["rows"],
                "held_totals": held.footer["totals"],
                "stated_landing": landing.id,
                "stated_rows": new.tally.rows,
                "stated_totals": charges.totals_json(new.tally.totals),
            }
        decided = Finality(decided.status, decided.rule, evidence)
        decision: Decision = "unchanged" if same else "restated"
        self._record(
            held.partition, decision, decided, landing, new.tally, gates, change, {"rows": 0, "totals": {}}, []
        )
        return Loaded("unchanged" if same else "restated", held, gates, change)

    def _record(
        self,
        partition: Partition,
        decision: Decision,
        decided: Finality,
        landing: Landing,
        tally: Tally,
        gates: list[Gate],
        change: Mapping[str, Any],
        left_out: Mapping[str, Any],
        notes: list[str],
    ) -> None:
        facts = fetch_facts(
            landing, rows=tally.rows, totals=charges.totals_json(tally.totals), left_out=left_out, notes=notes
        )
        self.ledger.append(
            Entry(
                decided_at=self.now(),
                partition=partition,
                decision=decision,
                rule=decided.rule,
                evidence=decided.evidence,
                landing=landing.id,
                fetch=facts,
                gates=gate_json(gates),
                change=change,
            )
        )

    def _heal(self, held: Held) -> None:
        """A run that died between the rename of a Parquet file and its line in the ledger: write the line."""
        if held.footer["landing"] in self._seen(held.partition):
            return
        footer = held.footer
        decided = Finality(held.status, footer["rule"], footer["evidence"])
        landing = self.landings.get(footer["landing"])
        self._record(
            held.partition, held.status, decided, landing, held.tally, [], {}, footer["left_out"], footer["notes"]
        )

    def _sibling(self, partition: Partition, now: datetime) -> Landing | None:
        """A landing of another month, minutes old, newer than the month's own, and sound: it passed its control totals."""
        own = self.landings.newest(partition)
        for sibling in self.landings.of_account(partition.provider, partition.account):
            fresh = timedelta() <= now - sibling.fetched_at <= SHARED_FOR
            newer = own is None or sibling.fetched_at > own.fetched_at
            if fresh and newer and sibling.id in self._seen(sibling.partition):
                return sibling
        return None

    def _seen(self, partition: Partition) -> set[str]:
        return {entry.landing for entry in self.ledger.of(partition)}

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

    def _provider(self, partition: Partition) -> tuple[Provider, Settings]:
        return self.providers[partition.provider], self.configuration.account(partition.provider, partition.account)

    def _http(self, provider: Provider, settings: Settings) -> Http:
        limits: tuple[RateLimit, ...] = (settings.rate_limit,) if settings.rate_limit else provider.rate_limits
        return Http(
            settings.base_url,
            limits=[(limit.requests, limit.seconds) for limit in limits],
            now=self.now,
            bucket=self.data / "limits" / f"{settings.provider}--{settings.name}.sqlite",
            other_hosts=provider.hosts(settings) if provider.hosts else (),
            secrets=settings.secrets(),
            headers=provider.headers(settings) if provider.headers else None,
            auth=provider.auth(settings) if provider.auth else None,
            patience=self.patience,
        )

    @contextmanager
    def _account(self, partition: Partition, seconds: float = -1) -> Iterator[None]:
        """One process at a time works on an account's months; another one waits here, at most so many seconds."""
        with FileLock(self._lock(f"{partition.provider}--{partition.account}"), timeout=seconds):
            yield

    def _lock(self, name: str) -> Path:
        folder = self.data / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.lock"


def _change(held: Held | None, new: Replacement) -> dict[str, Any]:
    """Rows and totals against what the month shows; empty when it shows nothing yet."""
    if held is None:
        return {}
    difference = reconcile.add(new.tally.totals, reconcile.negative(held.tally.totals))
    moved = {currency: amount for currency, amount in difference.items() if amount != Decimal(0)}
    return {"rows": new.tally.rows - held.tally.rows, "totals": charges.totals_json(moved)}
