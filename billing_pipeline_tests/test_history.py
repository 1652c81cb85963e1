"""What was believed on any past day can be told and brought back, and how months move is split by its causes."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_pipeline import as_of, charges, history
from billing_pipeline.finality import Finality
from billing_pipeline.lake import Lake
from billing_pipeline.landing import Landings, Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page

from .charges_rows import AT, MAY, columns, origin, sums
from .conftest import Company

SLICE = "ServiceName, x_UsageDate, BillingCurrency"
MOMENTS = ["2026-05-17T09:30", "2026-05-18T09:30", "2026-06-03T12:00", "2026-06-04T12:00", "2026-06-05T12:00"]


@dataclass
class Diary:
    """A company whose May was looked at day by day, and what the view showed each time.

    Attributes:
        company: the company, later.
        shown: instant → the rows of `totals`, as the view of the charges gave them then.
        files: instant → month → the bytes of its Parquet file then.
    """

    company: Company
    shown: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    files: dict[str, dict[Partition, bytes]] = field(default_factory=dict)

    def look(self, moment: str, *months: Partition, explicit: bool = False) -> None:
        """Fetch the months, publish, and write down what there is to see."""
        self.company.at(moment)
        for month in months:
            self.company.do(month, explicit=explicit)
        self.company.line.publish()
        self.shown[moment] = self.company.ask(
            f"SELECT x_Provider, x_Account, x_BillingPeriod, {SLICE}, count(*), sum(BilledCost), min(x_Finality) "
            "FROM charges GROUP BY ALL ORDER BY ALL"
        )
        self.files[moment] = {month: self.company.line.lake.path(month).read_bytes() for month in months}

    def told(self, moment: str, path: Path | None = None) -> list[tuple[Any, ...]]:
        """What the file says today about that instant."""
        with duckdb.connect(str(path or self.company.line.warehouse.path), read_only=True) as db:
            return db.execute("SELECT * FROM totals_as_of($1) ORDER BY ALL", [at(moment)]).fetchall()


def at(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


@pytest.fixture
def diary(company: Company) -> Diary:
    """May of two accounts, from the middle of the month until it is final, and a restatement after that."""
    written = Diary(company)
    months = [company.month("plivo", "main", "2026-05"), company.month("ycloud", "main", "2026-05")]
    for moment in MOMENTS:
        written.look(moment, *months)
    company.world.seed = "another company"
    written.look("2026-06-20T12:00", months[0], explicit=True)
    return written


def test_the_file_alone_tells_what_the_view_showed_at_every_past_instant(diary: Diary, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "copy.duckdb"
    elsewhere.parent.mkdir()
    shutil.copy(diary.company.line.warehouse.path, elsewhere)
    assert len({str(rows) for rows in diary.shown.values()}) >= 4
    for moment, rows in diary.shown.items():
        assert rows
        assert diary.told(moment, elsewhere) == rows, moment
    assert diary.told("2026-05-17T09:29") == []
    assert diary.told("2026-06-20T12:00") == diary.told("2026-06-05T12:00")


def test_the_rows_of_any_past_fetch_can_be_brought_back_byte_for_byte(diary: Diary, tmp_path: Path) -> None:
    may = BillingPeriod.parse("2026-05")
    for number, moment in enumerate(MOMENTS):
        found = as_of.bring_back(diary.company.line, at(moment), may, tmp_path / str(number))
        assert {one.entry.partition: one.path.read_bytes() for one in found} == diary.files[moment]
        assert all(one.identical for one in found)
    only = as_of.bring_back(diary.company.line, at("2026-06-20T12:00"), may, tmp_path / "now", ["plivo"], ["main"])
    assert [one.path.read_bytes() for one in only] == [diary.files["2026-06-20T12:00"][only[0].entry.partition]]
    with pytest.raises(
        as_of.NothingBelieved, match="first complete fetch was of plivo/main 2026-05, decided at 2026-05-17"
    ):
        as_of.bring_back(diary.company.line, at("2026-05-17T09:29"), may, tmp_path / "never")
    with pytest.raises(as_of.NothingBelieved, match="has ever been fetched for it"):
        as_of.bring_back(diary.company.line, at("2026-06-20T12:00"), may.plus(1), tmp_path / "never")
    assert not list(tmp_path.rglob(".*"))


def test_history_can_be_deleted_and_is_made_again_from_the_landings(diary: Diary) -> None:
    line = diary.company.line
    files = {path: path.read_bytes() for path in line.loading.history.root.rglob("*.parquet")}
    shutil.rmtree(line.loading.history.root)
    line.warehouse.path.unlink()
    line.publish()
    assert {path: path.read_bytes() for path in line.loading.history.root.rglob("*.parquet")} == files
    one = sorted(files)[1]
    one.unlink()
    line.publish()
    assert one.read_bytes() == files[one]
    for moment, rows in diary.shown.items():
        assert diary.told(moment) == rows, moment


def test_somebody_who_wrote_into_history_is_corrected(diary: Diary) -> None:
    with duckdb.connect(str(diary.company.line.warehouse.path)) as db:
        db.execute("UPDATE history SET BilledCost = 0 WHERE x_LedgerLine = 2")
    diary.company.line.publish()
    for moment, rows in diary.shown.items():
        assert diary.told(moment) == rows, moment


def test_approved_corrections_count_from_their_approval_on(diary: Diary, tmp_path: Path) -> None:
    company, may = diary.company, diary.company.month("plivo", "main", "2026-05")
    diary.look("2026-06-21T12:00", company.month("plivo", "main", "2026-06"))
    company.at("2026-06-22T12:00")
    company.line.approve(may, "a test", "to see what it does")
    diary.look("2026-06-22T13:00", company.month("plivo", "main", "2026-06"))
    company.world.seed = "a third one"
    diary.look("2026-06-23T12:00", may, explicit=True)
    for moment, rows in diary.shown.items():
        assert diary.told(moment) == rows, moment
    for moment, parts in (("2026-06-21T12:00", 1), ("2026-06-22T13:00", 2)):
        folder = tmp_path / moment[8:10]
        as_of.bring_back(company.line, at(moment), BillingPeriod.parse("2026-06"), folder)
        files = sorted(folder.rglob("*.parquet"))
        columns = f"x_Provider, x_Account, x_BillingPeriod, {SLICE}, count(*), sum(BilledCost), min(x_Finality)"
        query = f"SELECT {columns} FROM read_parquet($1) GROUP BY ALL ORDER BY ALL"
        brought = duckdb.execute(query, [[str(file) for file in files]]).fetchall()
        assert len(files) == parts
        assert brought == [row for row in diary.shown[moment] if row[2] == "2026-06"]
    ((after, moved, unsplit),) = company.ask(
        "SELECT x_AfterClose, x_Drift, x_Unsplit FROM drift WHERE x_Provider = 'plivo' AND x_BillingPeriod = '2026-05'"
    )
    totals = [entry.tally.totals["USD"] for entry in company.line.ledger.of(may)]
    assert (after, moved, unsplit) == (totals[-1], totals[-1] - totals[0], 0)


def test_every_query_of_the_page_about_history_answers(diary: Diary) -> None:
    page = (Path(__file__).parents[1] / "docs" / "history.md").read_text().partition("## As of and drift")[2]
    queries = re.findall(r"```sql\n(.*?)```", page.partition("\n## ")[0], re.DOTALL)
    assert len(queries) == 4
    diary.company.do(diary.company.month("plivo", "main", "2026-06"))
    diary.company.line.publish()
    for query in queries:
        assert diary.company.ask(query), query


def test_drift_adds_up_from_the_first_fetch_to_the_newest(diary: Diary) -> None:
    line = diary.company.line
    parts = "x_Came + x_Vanished + x_QuantityMoved + x_PriceMoved + x_AmountMoved"
    rows = diary.company.ask(
        "SELECT x_Provider, x_FirstProvisional, x_LastProvisional, x_Final, x_AfterClose, x_Drift, x_Unsplit, "
        f"{parts} FROM drift"
    )
    assert len(rows) == 2
    for provider, first, last, final, after, moved, unsplit, added_up in rows:
        totals = [e.tally.totals["USD"] for e in line.ledger.of(diary.company.month(provider, "main", "2026-05"))]
        assert first == totals[0]
        assert last not in (first, None)
        assert final == line.lake.held(diary.company.month(provider, "main", "2026-05")).tally.totals["USD"]  # type: ignore[union-attr]
        assert after == (totals[-1] if provider == "plivo" else None)
        assert moved == totals[-1] - totals[0] != 0
        assert (unsplit, added_up) == (0, moved)


def test_a_fetch_that_changed_nothing_leaves_a_line_in_the_ledger_and_nothing_else(company: Company) -> None:
    june = company.month("plivo", "main", "2026-06")
    company.do(june)

    def stored() -> dict[str, int]:
        """Bytes of every file but the ledger's."""
        files = [f for place in ("raw", "history", "charges") for f in (company.line.data / place).rglob("*")]
        return {f.name: f.stat().st_size for f in files if f.is_file() and not f.name.startswith("ledger.")}

    company.do(june)
    after_one, count = stored(), len(list(company.line.data.rglob("*")))
    for _ in range(3):
        company.do(june)
    assert len(list(company.line.data.rglob("*"))) == count  # each dropped the one before
    assert sum(stored().values()) == pytest.approx(sum(after_one.values()), abs=100)  # times are as long or as short
    assert len(company.line.ledger.of(june)) == 5
    company.line.publish()
    assert company.ask("SELECT count(*), count(x_SameAs) FROM fetches") == [(5, 4)]
    assert company.ask("SELECT count(DISTINCT x_Landing) FROM history") == [(1,)]
    assert company.ask("SELECT count(*) FROM x_history") == [(1,)]


def test_a_final_month_that_is_confirmed_again_and_again_costs_no_space_either(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    for _ in range(4):
        company.do(may, explicit=True)
    assert [entry.decision for entry in company.line.ledger.of(may)] == ["final", *["unchanged"] * 3]
    assert len(company.line.landings.all(may)) == 2  # the one it was closed with, and the freshest evidence


def test_a_run_that_died_before_its_line_in_the_ledger_keeps_the_causes(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    for moment in MOMENTS[:3:2]:
        company.at(moment)
        company.do(may)
    whole = company.line.ledger.of(may)[-1]
    ledger = company.line.ledger.root / "plivo" / "main" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().splitlines(keepends=True)[0])
    company.line.publish()
    healed = company.line.ledger.of(may)[-1]
    assert healed.change == whole.change
    assert healed.change["causes"]["USD"]


def charge(cost: str, quantity: str | None = None, price: str | None = None, kind: str = "sms", **dims: str) -> Any:
    return (Decimal(cost), quantity and Decimal(quantity), price and Decimal(price), kind, dims)


def month(folder: Path, rows: list[Any], currency: str = "USD") -> Path:
    """A month of made-up charges as a Parquet file."""
    text = '{{"state": "{}"}}'
    made = columns(
        [(currency, row[0]) for row in rows],
        PricingQuantity=pa.array([row[1] for row in rows], charges.DECIMAL),
        x_UnitPrice=pa.array([row[2] for row in rows], charges.DECIMAL),
        x_Type=pa.array([row[3] for row in rows], pa.string()),
        x_Dimensions=pa.array([text.format(row[4].get("state", "")) for row in rows], pa.string()),
    )
    landing = Landings(folder).land(
        MAY, [Page(body=b"{}", request="GET /", received_at=AT)], fetched_at=AT, version="t"
    )
    with Lake(folder).replacement(MAY) as new:
        new.write(charges.complete(made, origin())[0])
        new.seal(landing, Finality("provisional", "", {}), left_out={}, notes=[])
        new.publish()
    return Lake(folder).path(MAY)


@pytest.mark.parametrize(
    ("before", "after", "causes"),
    [
        ([charge("1")], [charge("1")], {}),
        ([charge("1")], [charge("1"), charge("2.50", kind="mms")], {"came": "2.5"}),
        ([charge("1"), charge("2", kind="mms")], [charge("1")], {"vanished": "-2"}),
        ([charge("1")], [charge("1"), charge("1")], {"came": "1"}),
        ([charge("2", "2", "1")], [charge("3", "3", "1")], {"quantity": "1"}),
        ([charge("2", "2", "1")], [charge("4", "2", "2")], {"price": "2"}),
        ([charge("2", "2", "1")], [charge("2.1", "2", "1")], {"amount": "0.1"}),
        ([charge("2", "2", "1")], [charge("6", "3", "2")], {"amount": "4"}),
        ([charge("1", state="open")], [charge("1", state="closed")], {"came": "1", "vanished": "-1"}),
        ([charge("5"), charge("5")], [charge("3"), charge("5"), charge("5")], {"came": "3"}),
    ],
)
def test_a_change_has_the_cause_that_a_person_would_name(
    tmp_path: Path, before: list[Any], after: list[Any], causes: dict[str, str]
) -> None:
    found = history.causes(month(tmp_path / "a", before), month(tmp_path / "b", after))
    assert found == ({"USD": dict.fromkeys(history.CAUSES, "0") | causes} if causes else {})


def test_a_field_that_may_change_does_not_make_another_charge(tmp_path: Path) -> None:
    old, new = [charge("2", "2", "1", state="open")], [charge("3", "3", "1", state="closed")]
    paths = month(tmp_path / "a", old), month(tmp_path / "b", new)
    assert history.causes(*paths, {"state"})["USD"]["quantity"] == "1"
    assert history.causes(*paths)["USD"]["came"] == "3"


amounts = st.decimals(min_value=-1000, max_value=1000, places=18, allow_nan=False)
rows = st.lists(
    st.builds(
        lambda cost, quantity, price, kind: (cost, quantity, price, kind, {}),
        amounts,
        st.none() | st.integers(0, 3).map(Decimal),
        st.none() | st.integers(0, 2).map(Decimal),
        st.sampled_from(["a", "b"]),
    ),
    max_size=6,
)


@settings(max_examples=25)
@given(old=rows, new=rows, kept=rows)
def test_the_causes_add_up_to_the_change_of_the_total_to_the_last_digit(
    tmp_path_factory: pytest.TempPathFactory, old: list[Any], new: list[Any], kept: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("months")
    found = history.causes(month(folder / "a", old + kept), month(folder / "b", kept + new))
    before, after = (sums([("USD", row[0]) for row in side]).get("USD", Decimal(0)) for side in (old, new))
    assert sum(map(Decimal, found.get("USD", {}).values()), Decimal(0)) == after - before
    assert set(found) <= {"USD"}


def test_an_estimate_without_history_is_none(company: Company) -> None:
    company.do(company.month("plivo", "main", "2026-06"))
    company.line.publish()
    estimates = company.ask(
        "SELECT x_Day, x_MonthsBehindIt, x_ShareShown, x_EstimatedFinal, x_EstimatedToCome FROM accrual_estimate"
    )
    assert estimates == [(15, 0, None, None, None)]


def test_an_estimate_rests_on_what_past_months_had_shown_on_the_same_day(company: Company) -> None:
    shares = []
    for past in ("2026-03", "2026-04"):
        month = company.month("plivo", "main", past)
        company.at(f"{past}-15T06:00")
        early = company.do(month).held.tally.totals["USD"]
        company.at(f"{month.period.plus(1)}-10T06:00")
        shares.append(early / company.do(month).held.tally.totals["USD"])
    company.at("2026-05-15T12:00")
    held = company.do(company.month("plivo", "main", "2026-05")).held.tally.totals["USD"]
    company.line.publish()
    share = sum(shares) / 2
    ((day, cost, months, shown, final, to_come),) = company.ask(
        "SELECT x_Day, BilledCost, x_MonthsBehindIt, x_ShareShown, x_EstimatedFinal, x_EstimatedToCome FROM accrual_estimate"
    )
    assert (day, cost, months) == (15, held, 2)
    assert 0 < share < 1
    assert shown == round(share, 6)
    assert final == round(held / share, 2)
    assert to_come == final - round(held, 2)
