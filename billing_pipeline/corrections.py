"""A final month that its provider states anew: held until a person decides, then booked as corrections or dismissed.

    approved     what the provider states now, minus what is held, charge by charge, becomes rows with ChargeClass
                 'Correction' in the oldest open month. The closed month's own rows stay, byte for byte.
    dismissed    nothing is booked; the same rows, stated again, are no news.

The ledger decides; the files of corrections are derived from it and from the landings, and are made again when they are lost.
Whoever calls this holds the account's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from . import matching, reconcile, scratch
from .charges import totals_json
from .comparing import booked_in
from .finality import PROVISIONAL, Finality
from .lake import Replacement
from .landing import Partition
from .ledger import REPLAYED, Entry, gate_json
from .loading import Loading, NothingLanded
from .period import BillingPeriod
from .reconcile import Tally, Totals
from .schema import SCHEMA

if TYPE_CHECKING:
    import duckdb

Outcome = Literal["undecided", "withdrawn", "approved", "dismissed"]


class NothingToDecide(Exception):
    """The month has no restatement that waits for a person's decision."""

    rerun = "no"
    remedy = "Type billing-pipeline restatements to see what waits"


@dataclass(frozen=True)
class Restatement:
    """One time that a provider stated other numbers for a final month.

    Attributes:
        restated: the newest fetch that states them.
        outcome: undecided: it waits for a person. withdrawn: the provider states the held numbers again, or other ones.
        decision: the person's; None while there is none.
    """

    restated: Entry
    outcome: Outcome
    decision: Entry | None = None

    @property
    def difference(self) -> Totals:
        """What is stated minus what was held, in the currencies that moved."""
        return _moved(_totals(self.restated.evidence["held_totals"]), self.restated.tally.totals)


class Corrections:
    """Between a person on one side, lake and ledger on the other.

    Args:
        loading: reads landings, and knows lake and ledger.
    """

    def __init__(self, loading: Loading) -> None:
        self.loading = loading
        self.lake = loading.lake
        self.ledger = loading.ledger

    def approve(self, partition: Partition, period: BillingPeriod, by: str, why: str) -> Entry:
        """Book the month's undecided restatement as corrections.

        Args:
            partition: the restated month.
            period: the month that the corrections are booked in; open.
            by: who approves.
            why: for what reason; may be empty.

        Raises:
            NothingToDecide: no restatement of the month is undecided.
            DoesNotReconcile: closed rows + corrections are not what the provider states. Nothing was booked.
        """
        entry = self._decision(partition, "approved", by, why, booked_in=str(period))
        booked = replace(partition, period=period)
        with self._made(booked, [*self._booked(booked), entry]) as (new, gates):
            # The line first: a file without its line is taken away again, a line without its file makes the file.
            self.ledger.append(replace(entry, gates=gate_json(gates)))
            new.publish()
        return entry

    def dismiss(self, partition: Partition, by: str, why: str) -> Entry:
        """Close the month's undecided restatement without booking anything.

        Raises:
            NothingToDecide: no restatement of the month is undecided.
            ValueError: no reason was given.
        """
        if not why.strip():
            raise ValueError("say why: the reason stays in the ledger")
        entry = self._decision(partition, "dismissed", by, why)
        self.ledger.append(entry)
        return entry

    def needed(self, partition: Partition) -> set[Partition]:
        """The months whose corrections have to be right before `partition` is compared or shown."""
        elsewhere = {replace(partition, period=booked_in(entry)) for entry in self.ledger.approvals(partition)}
        return {partition, *elsewhere}

    def sound(self, booked: Partition) -> bool:
        """Whether the file of corrections booked in a month is what ledger and month say."""
        held = self.lake.corrections(booked)
        approved = [entry.landing for entry in self._booked(booked)]
        if held is None:
            return not approved
        finality = self._finality(booked)
        return bool(held.footer["approved"] == approved and held.footer["evidence"] == finality.evidence)

    def ensure(self, booked: Partition) -> None:
        """Make the corrections booked in a month again where they are lost, or where the month was closed meanwhile."""
        if self.sound(booked):
            return
        approvals = self._booked(booked)
        if not approvals:
            self.lake.corrections_path(booked).unlink()
            return
        with self._made(booked, approvals) as (new, _):
            new.publish()

    def months(self) -> set[Partition]:
        """Every month in which corrections are booked, or that has a file of them."""
        approved = {replace(e.partition, period=booked_in(e)) for e in self.ledger.all() if e.decision == "approved"}
        return approved | self.lake.corrected()

    @contextmanager
    def remade(self, booked: Partition) -> Iterator[Replacement | None]:
        """The corrections booked in a month, made from the landings beside the file that is held; None: none are booked.

        Raises:
            Exception: as `approve`, and what `Loading.remade` raises.
        """
        approvals = self._booked(booked)
        if approvals:
            with self._made(booked, approvals, anew=True) as (new, _):
                yield new
        else:
            yield None

    def believed(self, booked: Partition, instant: datetime, folder: Path) -> list[Path]:
        """The corrections that had been booked in a month by `instant`, made again below `folder`: a file per approval."""
        approvals = [entry for entry in self._booked(booked) if entry.decided_at <= instant]
        folder.mkdir(parents=True, exist_ok=True)
        return self._files(approvals, folder, [])

    def _booked(self, booked: Partition) -> list[Entry]:
        """The approvals whose corrections are booked in a month, in the order of their approval."""
        entries = self.ledger.entries(booked.provider, booked.account)
        return [e for e in entries if e.decision == "approved" and booked_in(e) == booked.period]

    def _finality(self, booked: Partition) -> Finality:
        held = self.lake.held(booked)
        # Corrections may be booked in a month that was never fetched yet. Of one that was, nothing but what it is: its own
        # evidence changes with every fetch, and the file would not be the one that is made again.
        status = held.status if held else PROVISIONAL
        return Finality(status, "", {"reason": f"{booked.period}, in which it is booked, is {status}"})

    def _decision(self, partition: Partition, decision: Any, by: str, why: str, **facts: str) -> Entry:
        restated = self.ledger.undecided(partition)
        shown = self.ledger.shown(partition)
        if restated is None or shown is None:
            raise NothingToDecide(
                "there is no restatement that waits for a decision: the month is not final, its provider states what is held, "
                "or it was decided already. See billing-pipeline restatements"
            )
        baseline = (self.ledger.approvals(partition) or [shown])[-1]
        evidence: dict[str, Any] = {
            "reason": why or decision,
            "by": by,
            "why": why,
            "held_landing": baseline.landing,
            "held_totals": dict(baseline.fetch["totals"]),
            "stated_landing": restated.landing,
            "stated_totals": dict(restated.fetch["totals"]),
            "difference": totals_json(_moved(baseline.tally.totals, restated.tally.totals)),
            **facts,
        }
        return replace(restated, decided_at=self.loading.now(), decision=decision, evidence=evidence, gates=())

    @contextmanager
    def _made(
        self, booked: Partition, approvals: Sequence[Entry], *, anew: bool = False
    ) -> Iterator[tuple[Replacement, list[reconcile.Gate]]]:
        """A new file with the corrections of `approvals`, beside the old one until it is published; totals compared."""
        gates: list[reconcile.Gate] = []
        finality, held = self._finality(booked), None if anew else self.lake.corrections(booked)
        try:
            landing = self.loading.landings.get(approvals[-1].landing)
        except FileNotFoundError as error:
            raise NothingLanded(
                f"{approvals[-1].partition}: the landing of its restatement, {approvals[-1].landing}, is gone. Restore "
                "data/raw from a backup"
            ) from error
        with scratch.folder() as folder, self.lake.corrections_replacement(booked) as new:
            if held and held.footer["approved"] == [entry.landing for entry in approvals]:
                files = [held.path]  # nothing but the month's finality has changed
            else:
                files = self._files(approvals, folder, gates)
            for file in files:
                for batch in pq.ParquetFile(file).iter_batches():
                    columns = {name: batch.column(name) for name in SCHEMA.names}
                    columns["x_Finality"] = pa.repeat(finality.status, batch.num_rows)
                    arrays = [columns[column.name].cast(column.type) for column in SCHEMA]
                    new.write(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))
            expected: Totals = {}
            for entry in approvals:
                expected = reconcile.add(expected, _totals(entry.evidence["difference"]))
            gates += reconcile.agree(
                f"of corrections booked in {booked}", Tally(rows=new.tally.rows, totals=expected), new.tally
            )
            on_disk = new.seal(landing, finality, approved=[e.landing for e in approvals], left_out={}, notes=[])
            gates += reconcile.agree("of corrections from Arrow to Parquet", new.tally, on_disk)
            reconcile.require(gates)
            yield new, gates

    def _files(self, approvals: Sequence[Entry], folder: Path, gates: list[reconcile.Gate]) -> list[Path]:
        """One file of corrections per approval, in their order. Each rests on what was approved of the same month before."""
        made: dict[str, Path] = {}
        for partition in {entry.partition: None for entry in approvals}:
            earlier = self.ledger.approvals(partition)
            known = {entry.landing for entry in earlier}
            chain = [*earlier, *(e for e in approvals if e.partition == partition and e.landing not in known)]
            files: list[Path] = []
            for entry in chain:
                files.append(folder / f"{len(made)}.parquet")
                gates += self._write(entry, files[:-1], files[-1])
                made[entry.landing] = files[-1]
        return [made[entry.landing] for entry in approvals]

    def _write(self, entry: Entry, earlier: Sequence[Path], target: Path) -> list[reconcile.Gate]:
        """The corrections of one approval: what the provider stated then, minus what was held then."""
        partition = entry.partition
        provider = self.loading.providers[partition.provider]
        held = self.lake.held(partition) or self.loading.restored(partition)
        assert held is not None  # noqa: S101  a month that was restated was shown before
        stated = self.loading.believed(entry, target.with_suffix(""))
        before, after = matching.standing(held.path, earlier, partition.path), matching.parquet(stated)
        period, zone = booked_in(entry), provider.calendar.timezone
        instants = [period.start(zone), period.end(zone), datetime.fromisoformat(entry.fetch["fetched_at"])]
        columns = ", ".join(f'{_column(name, instants)} AS "{name}"' for name in SCHEMA.names)

        def booked(db: duckdb.DuckDBPyConnection) -> dict[str, Totals]:
            db.execute(f"CREATE TEMP VIEW held AS SELECT * FROM {before}")  # noqa: S608
            db.execute(f"CREATE TEMP VIEW stated AS SELECT * FROM {after}")  # noqa: S608
            matching.match(db, "held", "stated", provider.volatile)
            # Few: joined as they are, all charges of both sides would be in memory at once.
            for side, source in (("held", "before"), ("stated", "after")):
                db.execute(
                    f"CREATE TEMP TABLE x_{side} AS SELECT * FROM {side} "  # noqa: S608
                    f"WHERE x_RowSource IN (SELECT {source} FROM pairs WHERE NOT same)"
                )
            db.execute(
                f"COPY (SELECT {columns} FROM pairs LEFT JOIN x_held AS held ON held.x_RowSource = pairs.before "  # noqa: S608
                "LEFT JOIN x_stated AS stated ON stated.x_RowSource = pairs.after WHERE NOT pairs.same ORDER BY x_RowSource) "
                f"TO {matching.text(str(target))} (FORMAT parquet)"
            )
            sums: dict[str, Totals] = {}
            for name, relation in (("held", "held"), ("booked", matching.parquet(target))):
                query = f"SELECT BillingCurrency, sum(BilledCost) FROM {relation} GROUP BY ALL"  # noqa: S608
                sums[name] = dict(db.execute(query).fetchall())
            return sums

        sums = scratch.asked(booked)
        gates: list[reconcile.Gate] = []
        together = reconcile.add(sums["held"], sums["booked"])
        for name, expected, got in (
            ("held before the correction", _totals(entry.evidence["held_totals"]), sums["held"]),
            ("closed rows and corrections together", entry.tally.totals, together),
        ):
            gates += reconcile.agree(name, Tally(totals=expected), Tally(totals=got))[1:]
        reconcile.require(gates)
        return gates


def restatements(entries: Iterable[Entry]) -> list[Restatement]:
    """Every restatement of every month and what became of it, in the order they came."""
    found: list[Restatement] = []
    waiting: dict[Partition, int] = {}
    for entry in entries:
        place = waiting.get(entry.partition)
        if entry.decision == REPLAYED:
            continue
        if entry.decision == "restated":
            if place is None:
                waiting[entry.partition] = len(found)
                found.append(Restatement(entry, "undecided"))
            elif entry.same_as is None:
                found[place] = Restatement(entry, "undecided")
        elif place is not None:
            del waiting[entry.partition]
            if entry.decision in ("approved", "dismissed"):
                found[place] = Restatement(found[place].restated, entry.decision, entry)
            else:
                found[place] = Restatement(found[place].restated, "withdrawn")
    return found


def _column(name: str, instants: Sequence[Any]) -> str:
    """One column of a correction, as SQL over `held` and `stated`."""
    start, end, fetched = (f"TIMESTAMPTZ '{instant.isoformat()}'" for instant in instants)
    if name in matching.MEASURES:
        none = f'held."{name}" IS NULL AND stated."{name}" IS NULL'
        return f'CASE WHEN {none} THEN NULL ELSE coalesce(stated."{name}", 0) - coalesce(held."{name}", 0) END'
    own = {
        "BillingPeriodStart": start,
        "BillingPeriodEnd": end,
        "ChargeClass": "'Correction'",
        "x_CorrectionOf": "pairs.before",
        "x_FetchedAt": fetched,
        "x_Finality": "''",
        "x_RowSource": f"coalesce(pairs.after, '{matching.GONE}' || pairs.before)",
    }
    return own.get(name, f'CASE WHEN pairs.after IS NULL THEN held."{name}" ELSE stated."{name}" END')


def _totals(totals: Mapping[str, str]) -> Totals:
    return {currency: Decimal(amount) for currency, amount in totals.items()}


def _moved(before: Totals, after: Totals) -> dict[str, Decimal]:
    """The difference of two totals; empty when there is none."""
    difference = reconcile.add(after, reconcile.negative(before))
    return {currency: amount for currency, amount in difference.items() if amount != 0}
