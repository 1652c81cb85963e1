"""One month: from its newest landing to its Parquet file and its line in the ledger, when every control total agrees.

A month that is final is compared and never replaced. Whoever calls this holds the account's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from . import charges, history, overlap, reconcile, scratch
from .comparing import compare
from .finality import FINAL, Finality, finality
from .lake import Held, Lake, Replacement
from .landing import DamagedLanding, Landing, Landings, Partition
from .ledger import REPLAYED, SHOWN, Decision, Entry, Ledger, fetch_facts, gate_json
from .making import Made, make
from .provider import Provider
from .reconcile import Gate, Statement, Tally


class MonthVanished(Exception):
    """A complete answer that should list every month does not list one that we hold."""

    rerun = "once"
    remedy = "If the provider should still list the month, ask its support"


class NothingLanded(Exception):
    """There is no landing to load a month from."""

    rerun = "no"
    remedy = "Fetch the month; if its landing is gone, restore data/raw from a backup"


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


@dataclass(frozen=True)
class Remade:
    """A month's file as this version makes it from the landing that the month shows. See `Loading.remade`.

    Attributes:
        shown: the decision by which the month shows that landing.
        written: the decision that says which bytes, rows and money the month's own file has.
        landing, new: what it was made from, and the file.
        made: its control totals, and what was left out of it.
    """

    shown: Entry
    written: Entry
    landing: Landing
    new: Replacement
    made: Made


class Loading:
    """Between landings on one side, lake and ledger on the other.

    Args:
        landings, lake, ledger: the three.
        providers: who they are.
        now: the clock; aware.
        disjoint: names of the provider's other accounts that are declared to share no charge with a month's account.
    """

    def __init__(
        self,
        landings: Landings,
        lake: Lake,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        now: Callable[[], datetime],
        disjoint: Callable[[Partition], Collection[str]] = lambda partition: (),
    ) -> None:
        self.landings = landings
        self.lake = lake
        self.ledger = ledger
        self.providers = providers
        self.now = now
        self.disjoint = disjoint
        self.history = history.History(lake.root.parent)

    def load(
        self,
        partition: Partition,
        progress: Callable[[int], None] = lambda rows: None,
        made: Callable[[Landing, Replacement], Made | None] = lambda landing, new: None,
    ) -> Loaded:
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
        return self._replace(partition, landing, held, progress, made)

    def restored(self, partition: Partition) -> Held | None:
        """A month whose Parquet file is gone, made again from the landing that it showed; None when it never showed one."""
        shown = self.ledger.shown(partition)
        if shown is None:
            return None
        with self.remade(shown) as remade:
            if shown.decided == FINAL:
                name = f"of {partition} from the ledger to Arrow"
                reconcile.require(reconcile.agree(name, remade.written.tally, remade.new.tally))
            return self.take(remade)

    @contextmanager
    def remade(self, shown: Entry) -> Iterator[Remade]:
        """What this version makes of the landing that a month shows: a file beside the month's own, gone afterwards.

        What was decided about the month stays decided.

        Raises:
            NothingLanded: the landing is gone.
            DamagedLanding: it is not the one in the ledger, or not as it was landed.
            DoesNotReconcile: this version finds that its control totals do not agree.
        """
        partition = shown.partition
        try:
            landing = self.landings.get(shown.landing)
        except FileNotFoundError as error:
            raise NothingLanded(
                f"{partition}: its Parquet file is gone, and so is the landing it was made from, {shown.landing}. Restore "
                "data/raw from a backup"
                if not self.lake.path(partition).exists()
                else f"{partition}: the landing it was made from, {shown.landing}, is gone. Restore data/raw from a backup"
            ) from error
        if landing.sha256 != shown.fetch["sha256"]:
            raise DamagedLanding(landing.id, "is not the one in the ledger: the sha256 of its manifest differs")
        decided = Finality(shown.decided, shown.rule, shown.evidence)
        with self.lake.replacement(partition) as new:
            made = make(new, self.providers[partition.provider], landing, decided.status, lambda statement: decided)
            yield Remade(shown, self.ledger.written(partition) or shown, landing, new, made)

    def take(self, remade: Remade) -> Held:
        """Publish what was made again; a line in the ledger says so where it is not byte for byte what was there."""
        partition, shown, written = remade.shown.partition, remade.shown, remade.written
        remade.new.publish()
        if self.lake.sha256(partition) != written.parquet:
            evidence = {
                "reason": "made again from the same landing: this version writes the file with other bytes",
                "finality": shown.decided,
                "parquet_before": written.parquet,
            }
            decided = Finality(shown.decided, shown.rule, evidence)
            change = _change(written.tally, remade.new)
            entry = self._entry(
                partition, REPLAYED, decided, remade.landing, remade.new.tally, remade.made.gates, change,
                remade.made.left_out, remade.made.notes,
            )  # fmt: skip
            self.ledger.append(replace(entry, history=self.remember(partition, entry)))
        held = self.lake.held(partition)
        assert held is not None  # noqa: S101  just published under the account's lock
        return held

    def heal(self, held: Held) -> None:
        """A run that died between the rename of a Parquet file and its line in the ledger: write the line."""
        if held.footer["landing"] in self.ledger.landings(held.partition):
            return
        footer = held.footer
        decided = Finality(held.status, footer["rule"], footer["evidence"])
        landing = self.landings.get(footer["landing"])
        upcoming = _upcoming(landing, held.status, {})
        change = self.history.change(upcoming)
        entry = self._entry(
            held.partition, held.status, decided, landing, held.tally, [], change, footer["left_out"], footer["notes"]
        )
        self.remember(held.partition)
        # Again even when it is there: nothing says yet that it is as it was written.
        earlier = history.moving(self.ledger.of(held.partition))
        self.ledger.append(replace(entry, history=self.history.write(entry, earlier, held.path)))

    def remember(self, partition: Partition, upcoming: Entry | None = None) -> dict[str, str]:
        """Make the files of data/history that a month should have and has not, or not as the ledger says, again.

        A line in the ledger says so where one is not byte for byte what it was.

        Args:
            partition: the month.
            upcoming: a decision that is about to be written into the ledger: its file is made too.

        Returns:
            `Entry.history` of the upcoming decision.

        Raises:
            DoesNotReconcile: this version reads other numbers in a landing than were believed then, and nobody accepted them.
            Exception: what `remade` raises.
        """
        told = self.ledger.of(partition)
        self.history.sweep(told)
        seals = history.sealed(told)
        entries = history.moving([*told, *([upcoming] if upcoming else [])])
        wanting = self.history.wanting([*told, *([upcoming] if upcoming else [])])
        seal: dict[str, str] = {}
        for number, entry in enumerate(entries):
            if entry not in wanting:
                continue
            # What an older version read in the bytes is gone; what was accepted instead is as near as one can come.
            read = [e for e in entries if e.landing == entry.landing]
            with scratch.folder() as work:
                path = self.believed(replace(read[0], fetch=read[-1].fetch), work)
                seal = self.history.write(entry, entries[:number], path)
            before = seals.get(seal["file"], "")
            if entry is not upcoming and before != seal["sha256"]:
                evidence = {
                    "reason": "data/history: the file was made again from the same landing, with other bytes",
                    "history_before": before,
                }
                self.ledger.append(
                    replace(
                        entry,
                        decided_at=self.now(),
                        decision=REPLAYED,
                        evidence=evidence,
                        change={},
                        parquet="",
                        history=seal,
                    )
                )
        return seal

    def believed(self, entry: Entry, folder: Path) -> Path:
        """The month's file as it was after a past decision by which it showed a fetch, made again below `folder`.

        Raises:
            DoesNotReconcile: this version reads other rows or money in the landing than the ledger holds of it.
            Exception: what `remade` raises.
        """
        aside = Lake(folder)
        path = aside.path(entry.partition)
        with Loading(self.landings, aside, self.ledger, self.providers, self.now).remade(entry) as remade:
            name = f"of {entry.partition} from the ledger to what was believed"
            reconcile.require(reconcile.agree(name, entry.tally, remade.new.tally))
            remade.new.publish()
        return path

    def _replace(
        self,
        partition: Partition,
        landing: Landing,
        held: Held | None,
        progress: Callable[[int], None],
        already: Callable[[Landing, Replacement], Made | None],
    ) -> Loaded:
        provider = self.providers[partition.provider]
        calendar, period, fetched_at = provider.calendar, partition.period, landing.fetched_at

        def decide(statement: Statement) -> Finality:
            if statement.vanished and held and held.tally.rows:
                raise MonthVanished(
                    f"the answer is complete but has no row of {period}, of which {held.tally.rows} rows "
                    f"({reconcile.money(held.tally.totals)}) are held. They stay. If {provider.title} no longer serves the "
                    "month, nothing is wrong; if it should, ask its support."
                )
            return finality(calendar, period, fetched_at=fetched_at, flag=statement.flag, doubt=statement.doubt)

        with self.lake.replacement(partition) as new:
            likely = finality(calendar, period, fetched_at=fetched_at, flag=True).status
            made = already(landing, new) or make(new, provider, landing, likely, decide, progress)
            decided, gates, left_out, notes = made.finality, made.gates, made.left_out, made.notes
            if held and held.final:
                return self._compare(held, new, landing, decided, gates)
            change = _change(held.tally if held else None, new)
            same = held is not None and new.same_charges(held.path)
            if held:
                change["causes"] = {} if same else history.causes(held.path, new.temporary, provider.volatile)
            if held and decided.status == held.status and same:
                same_as = held.footer["landing"]
                self.ledger.append(
                    self._entry(
                        partition, decided.status, decided, landing, new.tally, gates, change, left_out, notes, same_as
                    )
                )
                self._tidy(partition, landing)
                return Loaded("kept", held, gates, change)
            with self.lake.alone(partition.provider):
                overlap.require(
                    partition,
                    new.temporary,
                    self.lake.beside(partition),
                    disjoint=self.disjoint(partition),
                    volatile=provider.volatile,
                )
                self.remember(partition)
                moved = history.moving(self.ledger.of(partition))
                seal = self.history.write(_upcoming(landing, decided.status, change), moved, new.temporary)
                new.publish()
        now_held = self.lake.held(partition)
        assert now_held is not None  # noqa: S101  just published under the account's lock
        entry = self._entry(partition, decided.status, decided, landing, new.tally, gates, change, left_out, notes)
        self.ledger.append(replace(entry, history=seal))
        self._tidy(partition, landing)
        return Loaded("written", now_held, gates, change)

    def _tidy(self, partition: Partition, newest: Landing) -> None:
        """Drop the bytes of earlier fetches that brought nothing new: their lines in the ledger stay, with their sha256.

        The newest landing stays whatever it brought: other months may share it, and it is the freshest evidence. What a killed
        run wrote into data/history goes too, now that a later fetch than its own is decided about.
        """
        told = self.ledger.of(partition)
        for entry in told:
            if entry.same_as and entry.landing != newest.id:
                self.landings.drop(entry.landing)
        self.history.sweep(told)

    def _compare(self, held: Held, new: Replacement, landing: Landing, decided: Finality, gates: list[Gate]) -> Loaded:
        volatile = self.providers[held.partition.provider].volatile
        verdict = compare(self.ledger, self.lake, held, new, landing, volatile, self.believed)
        decided = Finality(decided.status, decided.rule, {**decided.evidence, **verdict.evidence})
        entry = self._entry(
            held.partition, verdict.decision, decided, landing, new.tally, gates, verdict.change,
            {"rows": 0, "totals": {}}, [], verdict.same_as,
        )  # fmt: skip
        self.ledger.append(entry)
        self._tidy(held.partition, landing)
        return Loaded(verdict.decision, held, gates, verdict.change)

    def _entry(
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
    ) -> Entry:
        facts = fetch_facts(
            landing, rows=tally.rows, totals=charges.totals_json(tally.totals), left_out=left_out, notes=notes
        )
        return Entry(
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
            parquet=self.lake.sha256(partition) if decision in (*SHOWN, REPLAYED) and same_as is None else "",
        )


def _upcoming(landing: Landing, decision: Decision, change: Mapping[str, Any]) -> Entry:
    """As much of a decision as data/history has to know before it stands in the ledger."""
    return Entry(
        decided_at=landing.fetched_at,
        partition=landing.partition,
        decision=decision,
        rule="",
        evidence={},
        landing=landing.id,
        fetch={},
        change=change,
    )


def _change(held: Tally | None, new: Replacement) -> dict[str, Any]:
    """Rows and totals against what the month shows; empty when it shows nothing yet."""
    if held is None:
        return {}
    difference = reconcile.add(new.tally.totals, reconcile.negative(held.totals))
    moved = {currency: amount for currency, amount in difference.items() if amount != Decimal(0)}
    return {"rows": new.tally.rows - held.rows, "totals": charges.totals_json(moved)}
