"""Random histories of fetches, closings, restatements, decisions, crashes and replays, against a model of a few lines."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import duckdb
import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from billing_pipeline.landing import Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.replay import replay
from billing_pipeline.verify import verify

from . import killed
from .toy import Charge, Toy

MONTHS = [BillingPeriod(2026, 5), BillingPeriod(2026, 6), BillingPeriod(2026, 7)]
CHARGES = st.lists(
    st.builds(
        Charge,
        day=st.integers(1, 28),
        service=st.sampled_from(["sms", "voice"]),
        quantity=st.integers(1, 3),
        amount=st.decimals("-3", "9", places=3, allow_nan=False, allow_infinity=False),
    ),
    max_size=5,
)
Shown = dict[str, tuple[int, Decimal]]


class Histories(RuleBasedStateMachine):
    """Whatever happens, the warehouse shows what the model believes, now and at every instant before."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.toy = Toy()
        self.line = self.toy.line(self.folder / "data")
        self.closed: dict[BillingPeriod, list[Charge]] = {}  # as the month was closed: never changes again
        self.open: dict[BillingPeriod, list[Charge]] = {}  # as the newest fetch of an open month brought it
        self.accepted: dict[BillingPeriod, list[Charge]] = {}  # closed, and what was approved since
        self.held: dict[BillingPeriod, list[Charge]] = {}  # stated after the close, and waiting for a person
        self.dismissed: dict[BillingPeriod, list[list[Charge]]] = {}  # since the month was closed or last approved
        self.believed: list[tuple[datetime, Shown]] = []

    def teardown(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder)

    @initialize(early=CHARGES, late=CHARGES)
    def may_is_closed(self, early: list[Charge], late: list[Charge]) -> None:
        """Fetched while it ran, and again after the 5th of June; from here on June is open."""
        self.toy.bills[MONTHS[0]] = early
        self.refresh()
        self.toy.bills[MONTHS[0]] = late
        self.toy.now = datetime(2026, 6, 5, 6, tzinfo=UTC)
        self.refresh()

    @rule(month=st.sampled_from(MONTHS), bill=CHARGES, days=st.integers(0, 25))
    def days_pass(self, month: BillingPeriod, bill: list[Charge], days: int) -> None:
        """The provider states another bill for some month, open or closed, and the schedule asks for the open ones.

        Never beyond July, so that one month at least is open for corrections.
        """
        self.toy.bills[month] = bill
        self.toy.now = max(self.toy.now, min(self.toy.now + timedelta(days=days), datetime(2026, 7, 28, 6, tzinfo=UTC)))
        self.refresh()

    @rule(month=st.sampled_from(MONTHS), bill=CHARGES, days=st.integers(0, 25), step=st.integers(1, 90))
    def a_run_is_killed(self, month: BillingPeriod, bill: list[Charge], days: int, step: int) -> None:
        """As days_pass, but for a run before it that dies: each month then shows the old bill or the new one."""
        shown = {m: (len(b), total(b)) for m, b in {**self.open, **self.closed}.items()}
        self.toy.bills[month] = bill
        self.toy.now = max(self.toy.now, min(self.toy.now + timedelta(days=days), datetime(2026, 7, 28, 6, tzinfo=UTC)))
        asked = self.line.open()
        event(f"killed: {killed.refresh(self.toy, self.line.data, step)}")
        with self.asked() as db:
            found = db.execute(
                "SELECT x_BillingPeriod, count(*), sum(BilledCost) FROM charges WHERE ChargeClass IS NULL GROUP BY ALL"
            ).fetchall()
        now = {str(row[0]): tuple(row[1:]) for row in found}
        for m in MONTHS:
            allowed = [shown.get(m, (0, 0))]
            if m not in self.closed:
                allowed.append((len(self.toy.bills.get(m, [])), total(self.toy.bills.get(m, []))))
            assert now.get(str(m), (0, 0)) in allowed
        self.refresh(asked)  # also what the killed run has closed already
        assert not [path for path in self.line.data.rglob("*") if ".tmp" in path.name]

    @rule(
        data=st.data(),
        bill=CHARGES | st.none(),
        decision=st.sampled_from(["approved", "dismissed", "approved", "undecided"]),
    )
    def a_closed_month_is_looked_at(self, data: st.DataObject, bill: list[Charge] | None, decision: str) -> None:
        """It is asked for and compared; `bill` is what the provider states now, None what it stated before.

        Approved: booked as corrections. Dismissed: no news when it is stated again, until another bill is approved.
        """
        month = data.draw(st.sampled_from(sorted(self.closed)))
        if bill is not None:
            self.toy.bills[month] = bill
        stated = self.toy.bills.get(month, [])
        self.line.fetch(self.partition(month), explicit=True)
        self.line.load(self.partition(month))
        self.publish()
        self.held.pop(month, None)
        if sorted(stated) == sorted(self.accepted[month]) or sorted(stated) in self.dismissed.get(month, []):
            event("no news")
            return
        event(decision)
        if decision == "undecided":
            self.held[month] = stated
        elif decision == "approved":
            self.line.approve(self.partition(month), "somebody")
            self.accepted[month] = stated
            self.dismissed.pop(month, None)
        else:
            self.line.dismiss(self.partition(month), "somebody", "not ours")
            self.dismissed.setdefault(month, []).append(sorted(stated))
        self.publish()

    @rule(seed=st.integers(0, 1000), everything=st.booleans())
    def something_is_lost(self, seed: int, everything: bool) -> None:
        """A file that is derived from the landings is gone; or all of them, and a replay."""
        data = self.line.data
        if everything:
            for path in data.iterdir():
                if path.name != "raw":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            assert replay(self.line).good
            self.remember()
            return
        derived = sorted(
            [*data.glob("charges/*/*.parquet"), *data.glob("history/**/*.parquet"), *data.glob("*.duckdb")]
        )
        random.Random(seed).choice(derived).unlink()  # noqa: S311
        self.publish()

    @invariant()
    def what_is_shown_is_what_is_believed(self) -> None:
        """Rows, money and finality by month; corrections complete each closed month; nothing else is held back."""
        if not self.believed:
            return
        with self.asked() as db:
            own = db.execute(
                "SELECT x_BillingPeriod, count(*), sum(BilledCost) FROM charges WHERE ChargeClass IS NULL GROUP BY ALL"
            ).fetchall()
            incurred = db.execute(
                "SELECT strftime(ChargePeriodStart, '%Y-%m'), sum(BilledCost) FROM charges GROUP BY ALL"
            ).fetchall()
            periods = db.execute("SELECT x_BillingPeriod, x_Finality, x_Restated FROM billing_periods").fetchall()
        months = {**self.open, **self.closed}
        assert {row[0]: row[1:] for row in own} == {str(m): (len(b), total(b)) for m, b in months.items() if b}
        whole = {str(m): total(b) for m, b in {**self.open, **self.accepted}.items()}
        assert {m: t for m, t in whole.items() if t} == {m: t for m, t in incurred if t}
        finality = {str(m): ("final" if m in self.closed else "provisional", m in self.held) for m in months}
        assert {row[0]: row[1:] for row in periods} == finality

    @invariant()
    def what_was_believed_is_still_known(self) -> None:
        """Every instant before answers as it did then."""
        with self.asked() as db:
            for instant, shown in self.believed[-3:]:
                then = db.execute(
                    "SELECT x_BillingPeriod, sum(x_Rows), sum(BilledCost) FROM totals_as_of(?) GROUP BY ALL", [instant]
                ).fetchall()
                assert {row[0]: (row[1], row[2]) for row in then if row[1]} == shown

    def refresh(self, asked: list[Partition] | None = None) -> None:
        """What the schedule does."""
        for partition in asked or self.line.open():
            self.line.fetch(partition)
            self.line.load(partition)
            bill = self.toy.bills.get(partition.period, [])
            settled = self.toy.now >= partition.period.end(UTC) + timedelta(days=4)
            self.open.pop(partition.period, None)
            if settled:
                self.closed[partition.period] = self.accepted[partition.period] = bill
            else:
                self.open[partition.period] = bill
        self.publish()

    def publish(self) -> None:
        """Each publication has an instant of its own."""
        self.line.publish()
        self.remember()

    def remember(self) -> None:
        """What the warehouse shows at this instant; the next thing happens a second later."""
        with self.asked() as db:
            rows = db.execute("SELECT x_BillingPeriod, count(*), sum(BilledCost) FROM charges GROUP BY ALL").fetchall()
        self.believed.append((self.toy.now, {row[0]: (row[1], row[2]) for row in rows}))
        self.toy.now += timedelta(seconds=1)

    def asked(self) -> duckdb.DuckDBPyConnection:
        """A reader's connection."""
        return duckdb.connect(str(self.line.warehouse.path), read_only=True)

    @staticmethod
    def partition(month: BillingPeriod) -> Partition:
        """The toy has one account."""
        return Partition("toy", "main", month)


def total(bill: list[Charge]) -> Decimal:
    """The sum of a bill."""
    return sum((charge.amount for charge in bill), Decimal(0))


Histories.TestCase.settings = settings(
    max_examples=int(os.environ.get("HISTORIES", "5")),  # one takes eight seconds
    stateful_step_count=8,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
test_histories = Histories.TestCase


def test_a_history_with_everything_in_it_verifies() -> None:
    machine = Histories()
    try:
        may = machine.partition(MONTHS[0])
        machine.may_is_closed([Charge(1, "sms", 2, Decimal("1.5"))], [Charge(1, "sms", 2, Decimal(2))])
        machine.toy.bills[MONTHS[0]] = [Charge(1, "sms", 2, Decimal("1.25")), Charge(2, "voice", 1, Decimal(4))]
        machine.line.fetch(may, explicit=True)
        machine.line.load(may)
        machine.line.approve(may, "somebody")
        machine.publish()
        machine.something_is_lost(0, everything=True)
        assert verify(machine.line).findings == []
    finally:
        machine.teardown()


def test_a_history_file_that_cannot_be_read_is_a_finding_and_no_traceback() -> None:
    machine = Histories()
    try:
        machine.may_is_closed([Charge(1, "sms", 2, Decimal("1.5"))], [Charge(1, "sms", 2, Decimal(2))])
        next(machine.line.data.glob("history/**/*.parquet")).write_bytes(b"not Parquet")
        found = verify(machine.line).findings
        assert any("data/history is damaged" in finding.what for finding in found)
    finally:
        machine.teardown()
