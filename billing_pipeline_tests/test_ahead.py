"""A month's file made in a second process while the month is fetched: the same file, whatever becomes of the process."""

from __future__ import annotations

import os
import resource
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from rich.console import Console

from billing_pipeline import accounts, child
from billing_pipeline.account_process import Processes
from billing_pipeline.ahead import READY, Ahead, Worth
from billing_pipeline.bodies import BODIES, INDEX, LARGE
from billing_pipeline.definitions import build
from billing_pipeline.following import HELD, Followed
from billing_pipeline.landing import Arriving, DamagedLanding, Landing, Landings, Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page, Restarted, RowsMoved
from billing_pipeline.providers import plivo, providers
from billing_pipeline.refresh import refresh
from billing_pipeline.rows import UnexpectedShape
from billing_pipeline.sandbox.faults import Order

from .conftest import Company
from .harness import FETCHED, QUICK
from .plivo_bodies import Answers, asked, body, serve, usage
from .test_account_process import living
from .test_landing import AT, MAY, page

ANYTHING = Worth(size=0, share=0)
SECONDS = 60  # for a process to start on a busy machine; it takes half a one


def followed(ahead: Ahead) -> Callable[[Arriving, int], None]:
    """As `Ahead.grown`, but the fetch waits after its first page until the process reads: it surely reads while it is written."""

    def grown(arriving: Arriving, size: int) -> None:
        ahead.grown(arriving, size)
        assert ahead.ready(SECONDS)

    return grown


def unfinished(company: Company) -> list[Path]:
    return list((company.line.data / "charges").rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("provider", "now"),
    [
        ("plivo", "2026-06-15T12:00:00"),
        ("ycloud", "2026-06-15T12:00:00"),
        ("ycloud", "2026-06-01T12:00:00"),  # provisional by its flag: made twice, for it was expected to be final
        ("talkdesk", "2026-06-15T12:00:00"),
    ],
)
def test_a_file_made_ahead_is_byte_for_byte_the_one_that_is_made_of_its_landing(
    company: Company, provider: str, now: str
) -> None:
    company.at(now)
    line, partition, before = company.line, company.month(provider, "main", "2026-05"), living()
    with Ahead(line.data, ANYTHING) as ahead:
        line.fetch(partition, grown=followed(ahead))
        loaded = line.load(partition, made=ahead.made)
        assert ahead.taken
        assert (living(), unfinished(company)) == (before, [])
    assert loaded.action == "written"
    shown = line.ledger.shown(partition)
    assert shown
    with line.loading.remade(shown) as remade:
        assert remade.new.temporary.read_bytes() == line.lake.path(partition).read_bytes()
        assert (remade.made.gates, remade.made.notes) == (loaded.gates, loaded.held.footer["notes"])
    assert line.publish().rows == loaded.held.tally.rows == company.stated(partition)[0]


def test_a_final_month_is_compared_with_what_was_made_ahead(company: Company) -> None:
    partition = company.month("plivo", "main", "2026-05")
    company.do(partition)
    company.at("2026-06-15T13:00:00")
    with Ahead(company.line.data, ANYTHING) as ahead:
        company.line.fetch(partition, explicit=True, grown=followed(ahead))
        assert company.line.load(partition, made=ahead.made).action == "unchanged"
        assert ahead.taken


@pytest.mark.parametrize("accounts", [["main"], ["main", "emea"]])
def test_a_refresh_makes_months_ahead_of_one_account_alone(company: Company, accounts: list[str]) -> None:
    def spent() -> float:
        """CPU seconds of processes that this one has started and waited for."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, months = spent(), [BillingPeriod(2026, 5)]
    processes = Processes(2, busy=1000, ahead=ANYTHING)
    console = Console(quiet=True)
    done = refresh(company.line, console, providers=["plivo"], accounts=accounts, periods=months, processes=processes)
    assert [outcome.failure for outcome in done] == [None] * len(accounts)
    assert (spent() > before) == (len(accounts) == 1)


ONE = """
history_from = "2026-05"
[[account]]
provider = "plivo"
name = "main"
base_url = "{url}"
auth_id = "PLIVO_AUTH_ID"
auth_token = {{ env = "TOKEN" }}
"""


class Moving:
    """Plivo's May of two buckets. While it moves the first stands on both pages; it costs too little for the total to tell."""

    def __init__(self, httpserver: HTTPServer, folder: Path, answer: Answers | None = None) -> None:
        self.times = 0  # walks under which it still moves
        serve(httpserver, answer or self.answer)
        text = ONE.format(url=httpserver.url_for("").rstrip("/"))
        configuration = accounts.read(text, "accounts.toml", {"TOKEN": "PLIVO_AUTH_TOKEN"}, providers())
        self.line = Line(folder, configuration, providers(), lambda: FETCHED, "test", QUICK)
        self.month = Partition("plivo", "main", BillingPeriod(2026, 5))

    def answer(self, token: str | None) -> str:
        first, second = usage(1, "0.001"), usage(2, "0.001")
        if token is None:
            return body(first, total="0.002", token="next")
        self.times -= 1
        return body(*[first] * (self.times >= 0), second)

    def fetched_and_killed(self) -> None:
        """A final month is asked for under moving rows, and the process that looks for them dies with the run."""
        self.line.fetch(self.month)
        assert self.line.load(self.month).held.final
        self.times = 1
        self.line.fetch(self.month, explicit=True, beside=lambda: True)
        assert self.line.unloaded() == [self.month]


def test_a_month_that_was_fetched_under_moving_rows_and_not_loaded_is_asked_for_again(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    moving = Moving(httpserver, tmp_path)
    moving.fetched_and_killed()
    before = len(asked(httpserver))
    (done,) = (o for o in refresh(moving.line, Console(quiet=True)) if o.partition == moving.month)
    assert (done.failure, done.loaded and done.loaded.action) == (None, "unchanged")
    assert moving.line.unloaded() == []
    assert len([question for question in asked(httpserver)[before:] if question["from_date"] == "2026-05-01"]) == 2


def test_the_schedule_asks_for_it_again_once_its_load_has_said_that_rows_moved(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    moving = Moving(httpserver, tmp_path)
    moving.fetched_and_killed()
    definitions = build(moving.line)
    schedule = definitions.resolve_schedule_def("daily_open_months")
    steps = []

    def fetch() -> None:
        moving.times = 9
        moving.line.fetch(moving.month, explicit=True)

    # That rows moved during a fetch, which landed nothing then, says nothing of the landing that is there.
    for step in (fetch, lambda: moving.line.load(moving.month), lambda: moving.line.load(moving.month)):
        with dg.build_schedule_context(
            repository_def=definitions.get_repository_def(), scheduled_execution_time=FETCHED
        ) as context:
            requests = schedule.evaluate_tick(context).run_requests or []
        (found,) = [r for r in requests if r.tags["billing/reason"] == "fetched and never loaded"]
        steps.append([key.path[-1] for key in found.asset_selection or []])
        with pytest.raises(RowsMoved):
            step()
    assert steps == [["charges"], ["charges"], ["raw", "charges"]]
    assert found.run_config == {"ops": {"plivo__main__raw": {"config": {"compare": True}}}}


def test_without_a_process_a_month_in_which_a_bucket_is_written_in_two_ways_is_refused_and_not_asked_for_again(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    """The walk takes 404 and "404" for two buckets, which are one in the columns."""
    rows = (usage(1, "0.001", error_code=code) for code in (404, "404"))
    moving = Moving(httpserver, tmp_path, lambda token: body(*rows, total="0.002"))
    (done,) = refresh(moving.line, Console(quiet=True), periods=[moving.month.period])
    assert done.failure
    assert done.failure.kind == "RowsMoved"
    assert len(asked(httpserver)) == 1


@pytest.mark.parametrize(("times", "walks"), [(1, 2), (9, 5)])
def test_a_month_whose_walk_left_the_look_for_repeated_buckets_to_the_process_is_asked_for_again(
    httpserver: HTTPServer, tmp_path: Path, times: int, walks: int
) -> None:
    """What is asked for again looks by itself, and begins anew by itself."""
    moving = Moving(httpserver, tmp_path)
    moving.times, line, partition, may = times, moving.line, moving.month, moving.month.period
    processes, console = Processes(2, busy=1000, ahead=ANYTHING), Console(quiet=True)
    done = refresh(line, console, periods=[may], processes=processes)
    assert len(asked(httpserver)) == 2 * walks
    landings = line.landings.all(partition)
    with pytest.raises(RowsMoved, match=r"had come twice \(page 2, usage 0 is of what page 1, usage 0 is of\)"):
        list(plivo.parse(landings[0], may, landings[0].id))
    if times == 1:
        assert [outcome.failure for outcome in done] == [None]
        assert [entry.landing for entry in line.ledger.of(partition)] == [landings[1].id]
        assert line.failures.all() == []
        assert line.publish().rows == 2
    else:
        assert [failure.kind for failure in line.failures.all()] == ["RowsMoved"]
        assert len(landings) == 1
        assert line.ledger.of(partition) == []


def test_a_process_ends_with_the_one_that_started_it_and_its_file_is_swept(company: Company) -> None:
    partition = company.month("plivo", "main", "2026-05")
    arriving = Arriving(partition, company.line.data / "work", company.line.data / "target", AT)
    arriving.folder.mkdir(parents=True)
    for name in (BODIES, INDEX):
        (arriving.folder / name).touch()
    process = child.started("billing_pipeline.ahead")
    assert process
    with process:
        assert child.answered(process, (company.line.data, arriving)) == READY
        assert len(unfinished(company)) == 1
        assert process.stdin
        process.stdin.close()
        assert process.wait(SECONDS) == 1
    company.line.publish()
    assert unfinished(company) == []


def test_a_month_that_changed_is_made_ahead_too_and_says_what_changed(company: Company) -> None:
    partition = company.month("plivo", "main", "2026-06")
    company.line.fetch(partition)
    company.line.load(partition)
    company.at("2026-06-15T13:00:00")
    company.world.faults.arm(Order(provider="plivo", fault="row lost, totals too"))
    with Ahead(company.line.data, ANYTHING) as ahead:
        company.line.fetch(partition, grown=followed(ahead))
        loaded = company.line.load(partition, made=ahead.made)
        assert ahead.taken
    assert loaded.change["rows"] == -1
    assert loaded.change["causes"]


def test_a_process_that_dies_costs_nothing_but_its_time(company: Company) -> None:
    partition, before = company.month("plivo", "main", "2026-05"), set(living())
    with Ahead(company.line.data, ANYTHING) as ahead:
        company.line.fetch(partition, grown=followed(ahead))
        assert ahead.reads()
        for process in set(living()) - before:
            os.kill(process, signal.SIGKILL)
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
        assert not ahead.reads()
        assert company.line.load(partition, made=ahead.made).action == "written"
        assert not ahead.taken
    assert unfinished(company) == []


def test_a_file_that_was_swept_away_is_made_again(company: Company) -> None:
    """As by another process that found the account's lock free between fetching and loading."""
    partition = company.month("plivo", "main", "2026-05")
    with Ahead(company.line.data, ANYTHING) as ahead:
        company.line.fetch(partition, grown=followed(ahead))
        company.line.publish()
        assert company.line.load(partition, made=ahead.made).action == "written"
        assert not ahead.taken


def test_a_landing_that_came_to_lie_elsewhere_is_read_again(company: Company) -> None:
    """The clock stands, so the second landing gets another name than the one that the process was told."""
    partition = company.month("plivo", "main", "2026-05")
    company.line.fetch(partition)
    with Ahead(company.line.data, ANYTHING) as ahead:
        company.line.fetch(partition, grown=followed(ahead))
        loaded = company.line.load(partition, made=ahead.made)
        assert not ahead.taken
    assert loaded.held.footer["landing"].endswith("+")


def test_what_cannot_be_trusted_is_told_as_ever_and_nothing_is_replaced(company: Company) -> None:
    partition, errors = company.month("ycloud", "main", "2026-05"), []
    for hour, worth in ((12, ANYTHING), (13, None)):  # in a process, and without
        company.at(f"2026-06-15T{hour}:00:00")
        company.world.faults.arm(Order(provider="ycloud", fault="null amount", after=2))
        with Ahead(company.line.data, worth) as ahead:
            company.line.fetch(partition, grown=followed(ahead) if worth else ahead.grown)
            with pytest.raises(UnexpectedShape) as raised:
                company.line.load(partition, made=ahead.made)
            assert not ahead.taken
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    assert company.line.lake.held(partition) is None
    assert unfinished(company) == []


def test_a_fetch_that_fails_leaves_neither_process_nor_file(company: Company) -> None:
    partition, before = company.month("ycloud", "main", "2026-05"), living()
    company.world.faults.arm(Order(provider="ycloud", fault="HTML page", after=5, times=0))
    with pytest.raises(Exception, match="JSON"), Ahead(company.line.data, ANYTHING) as ahead:
        company.line.fetch(partition, grown=followed(ahead))
    assert ahead.started
    assert (living(), unfinished(company)) == (before, [])


@pytest.mark.parametrize(("largest", "times"), [(1 << 30, 1), (0, 0)])
def test_what_can_be_done_meanwhile_is_done_while_the_process_is_waited_for_of_landings_that_are_no_giants(
    company: Company, largest: int, times: int
) -> None:
    partition, done = company.month("plivo", "main", "2026-05"), []

    def meanwhile() -> None:
        done.append(company.line.lake.held(partition))
        raise OSError("what it meets is told by whoever needs it")

    with Ahead(company.line.data, ANYTHING._replace(meanwhile=largest), meanwhile=meanwhile) as ahead:
        company.line.fetch(partition, grown=followed(ahead))
        assert done == []
        assert company.line.load(partition, made=ahead.made).action == "written"
        assert ahead.taken
    assert done == [None] * times


@pytest.mark.parametrize("worth", [Worth(size=1 << 40, share=0), Worth(size=0, share=9), None])
def test_no_process_is_started_for_little_where_the_fetch_waits_or_without_a_core(
    company: Company, worth: Worth | None
) -> None:
    partition = company.month("plivo", "main", "2026-05")
    with Ahead(company.line.data, worth) as ahead:
        company.line.fetch(partition, grown=ahead.grown)
        assert company.line.load(partition, made=ahead.made).action == "written"
    assert not ahead.started


PAGES = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 10, 2000, HELD // 2])) | st.integers(0, 3), min_size=1, max_size=12
)
"""Pages (of which walk, how long), and walks that begin anew."""


@given(PAGES)
def test_what_is_followed_is_what_is_read_afterwards_or_is_refused(plan: list[Any]) -> None:
    answers = [
        Restarted(traversal=str(each), reason="moved")
        if isinstance(each, int)
        else page(b"%d" % n * each[1], str(each[0]))
        for n, each in enumerate(plan)
    ]
    answers.append(page(b"last", "last"))
    with tempfile.TemporaryDirectory() as folder:
        complete, found = Event(), []
        threads = []

        def grown(arriving: Arriving, size: int) -> None:
            if not threads:
                threads.append(Thread(target=lambda: found.append(_read(Followed(arriving, complete)))))
                threads[0].start()

        landing = Landings(Path(folder)).land(MAY, answers, fetched_at=AT, version="test", grown=grown)
        complete.set()
        threads[0].join(SECONDS)
        assert found in ([list(landing)], [None])
        begun = [n for n, each in enumerate(answers) if isinstance(each, Restarted)]
        if not begun:
            assert found == [list(landing)]


def _read(landing: Landing) -> list[Page] | None:
    try:
        return list(landing)
    except DamagedLanding:
        return None


def landed(folder: Path, answers: list[Page | Restarted]) -> Followed:
    """A landing that is complete, to be followed from its beginning."""
    arrived: list[Arriving] = []
    Landings(folder).land(MAY, answers, fetched_at=AT, version="test", grown=lambda each, size: arrived.append(each))
    complete = Event()
    complete.set()
    return Followed(arrived[0], complete)


def test_a_walk_that_begins_anew_before_it_was_handed_out_is_left_out(tmp_path: Path) -> None:
    followed = landed(
        tmp_path, [page(b"1", "a"), Restarted(traversal="a", reason=""), page(b"2", "a"), page(b"3", "b")]
    )
    assert [each.body for each in followed] == [b"2", b"3"]


def test_a_walk_that_begins_anew_after_it_was_handed_out_ends_the_reading(tmp_path: Path) -> None:
    followed = landed(
        tmp_path, [page(b"1", "a"), page(b"2", "b"), Restarted(traversal="a", reason=""), page(b"3", "a")]
    )
    with pytest.raises(DamagedLanding, match="began a walk anew"):
        list(followed)


def test_a_body_too_large_for_memory_waits_until_the_landing_is_complete(tmp_path: Path) -> None:
    with pytest.raises(DamagedLanding, match="too large"):
        list(landed(tmp_path, [page(b"1" * (LARGE + 1))]))


@pytest.mark.parametrize("name", ["bodies.zst", "pages.jsonl"])
def test_bytes_that_changed_meanwhile_are_noticed(tmp_path: Path, name: str) -> None:
    followed = landed(tmp_path, [page(b"123456", "a"), page(b"789", "b")])
    path = followed.folder / name
    text = path.read_bytes()
    path.write_bytes(text.replace(b"bill", b"bull") if name == "pages.jsonl" else text.replace(b"123456", b"123457"))
    assert path.read_bytes() != text
    with pytest.raises(DamagedLanding):
        list(followed)
