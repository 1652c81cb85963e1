"""One month: from its newest landing to its Parquet file and its line in the ledger, when every control total agrees.

A month that is final is compared and never replaced. Whoever calls this holds the account's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from . import charges, reconcile
from .finality import Finality, finality
from .lake import Held, Lake, Replacement
from .landing import DamagedLanding, Landing, Landings, Partition
from .ledger import SHOWN, Decision, Entry, Ledger, fetch_facts, gate_json
from .provider import Provider
from .reconcile import Gate, Tally


class MonthVanished(Exception):
    """A complete answer that should list every month does not list one that we hold."""


class NothingLanded(Exception):
    """There is no landing to load a month from."""


@dataclass(frozen=True)
class Loaded:
    """What `load` did.

    Attributes:
        action: written: the month was replaced. kept: it already shows these rows, or is final and was not asked for.
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


class Loading:
    """Between landings on one side, lake and ledger on the other.

    Args:
        landings, lake, ledger: the three.
        providers: who they are.
        now: the clock; aware.
    """

    def __init__(
        self,
        landings: Landings,
        lake: Lake,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        now: Callable[[], datetime],
    ) -> None:
        self.landings = landings
        self.lake = lake
        self.ledger = ledger
        self.providers = providers
        self.now = now

    def load(self, partition: Partition) -> Loaded:
        """See `Line.load`."""
        held = self.lake.held(partition)
        if held:
            self.heal(held)
        else:  # its file may have been deleted: make again what was decided before going on
            held = self.restored(partition)
        landing = self.landings.newest(partition)
        if held and (landing is None or landing.id in self.ledger.landings(partition)):
            return Loaded("kept", held)
        if landing is None:
            raise NothingLanded(f"it was never fetched: run billing-pipeline refresh --period {partition.period}")
        return self._replace(partition, landing, held)

    def restored(self, partition: Partition) -> Held | None:
        """A month whose Parquet file is gone, made again from the landing that it showed; None when it never showed one."""
        recorded = self.ledger.shown(partition)
        if recorded is None:
            return None
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

    def heal(self, held: Held) -> None:
        """A run that died between the rename of a Parquet file and its line in the ledger: write the line."""
        if held.footer["landing"] in self.ledger.landings(held.partition):
            return
        footer = held.footer
        decided = Finality(held.status, footer["rule"], footer["evidence"])
        landing = self.landings.get(footer["landing"])
        self._record(
            held.partition, held.status, decided, landing, held.tally, [], {}, footer["left_out"], footer["notes"]
        )

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
            if held and decided.status == held.status and new.same_charges(held.path):
                same_as = held.footer["landing"]
                self._record(
                    partition, decided.status, decided, landing, new.tally, gates, change, left_out, notes, same_as
                )
                self._tidy(partition, landing)
                return Loaded("kept", held, gates, change)
            new.publish()
        now_held = self.lake.held(partition)
        assert now_held is not None  # noqa: S101  just published under the account's lock
        if landing.id not in self.ledger.landings(partition):
            self._record(partition, decided.status, decided, landing, new.tally, gates, change, left_out, notes)
            self._tidy(partition, landing)
        return Loaded("written", now_held, gates, change)

    def _tidy(self, partition: Partition, newest: Landing) -> None:
        """Drop the bytes of earlier fetches that brought nothing new: their lines in the ledger stay, with their sha256.

        The newest landing stays whatever it brought: other months may share it, and it is the freshest evidence.
        """
        for entry in self.ledger.of(partition):
            if entry.same_as and entry.landing != newest.id:
                self.landings.drop(entry.landing)

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
        same_as: str | None = None,
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
                same_as=same_as,
                parquet=self.lake.sha256(partition) if decision in SHOWN and same_as is None else "",
            )
        )


def _change(held: Held | None, new: Replacement) -> dict[str, Any]:
    """Rows and totals against what the month shows; empty when it shows nothing yet."""
    if held is None:
        return {}
    difference = reconcile.add(new.tally.totals, reconcile.negative(held.tally.totals))
    moved = {currency: amount for currency, amount in difference.items() if amount != Decimal(0)}
    return {"rows": new.tally.rows - held.tally.rows, "totals": charges.totals_json(moved)}
