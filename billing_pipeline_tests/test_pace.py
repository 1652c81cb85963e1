"""How far a month is: requests left are what the limiter itself knows, waits are told before they begin, pages are counted."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Response

from billing_pipeline.landing import Partition
from billing_pipeline.pace import Pace
from billing_pipeline.period import BillingPeriod
from billing_pipeline.progress import Progress, Window
from billing_pipeline.transport import Http, Patience

from .conftest import Company
from .toy import Toy

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
Waits = list[tuple[float, str]]


@pytest.mark.parametrize("shared", [True, False])
def test_the_requests_left_are_those_of_the_limiter_also_the_ones_that_another_process_sent(
    tmp_path: Path, shared: bool
) -> None:
    file = tmp_path / "limits.sqlite" if shared else None
    mine = Pace([(300, 5), (20, 3600)], file, lambda seconds, why: None)
    other = Pace([(20, 3600)], file, lambda seconds, why: None) if shared else mine
    assert mine.window() == Window(requests=20, seconds=3600, left=20)
    for sent in range(1, 20):
        (mine if sent % 2 else other).take()
        assert mine.window().left == 20 - sent
    assert mine.window().wait == 0
    other.take()
    full = mine.window()
    assert full.left == 0
    assert 3500 < full.wait <= 3636  # an hour and one per cent
    assert full.limit == "20 requests an hour"
    assert str(full) == "0 of 20 requests left"


def test_a_request_that_waited_for_another_process_counts_from_when_it_was_let_through(tmp_path: Path) -> None:
    """Else it would leave the window too early, and one more would be sent than the provider allows."""
    file = tmp_path / "limits.sqlite"
    pace = Pace([(2, 60)], file, lambda seconds, why: None)
    with file.with_suffix(".alone").open() as other:
        asking = Thread(target=pace.take)
        fcntl.flock(other, fcntl.LOCK_EX)
        asking.start()
        asking.join(0.2)  # as long as it may need to come to the lock, where it stays
        assert asking.is_alive()
        released = time.time_ns() // 1_000_000
        fcntl.flock(other, fcntl.LOCK_UN)
        asking.join()
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT item_timestamp >= ? FROM rate_bucket", [released]).fetchall() == [(1,)]


def test_the_tightest_of_several_windows_is_the_one_that_is_shown(tmp_path: Path) -> None:
    pace = Pace([(3, 3600), (10, 86_400)], tmp_path / "limits.sqlite", lambda seconds, why: None)
    pace.take()
    assert (pace.window().requests, pace.window().left) == (3, 2)
    pace.take()
    pace.take()
    assert (pace.window().requests, pace.window().left) == (3, 0)


def test_a_wait_for_the_rate_limit_is_told_before_it_begins(tmp_path: Path) -> None:
    waits: Waits = []
    pace = Pace([(2, 1.2)], tmp_path / "limits.sqlite", lambda seconds, why: waits.append((seconds, why)))
    pace.take()
    pace.take()
    assert waits == []
    pace.take()
    ((seconds, why),) = waits
    assert 1 <= seconds <= 1.25
    assert why == "2 requests in 1.2 s"


def test_a_wait_that_the_provider_asks_for_is_told_with_its_reason(httpserver: HTTPServer) -> None:
    httpserver.expect_ordered_request("/bill").respond_with_response(Response(b"{}", 429, {"Retry-After": "40"}))
    httpserver.expect_ordered_request("/bill").respond_with_json({})
    waits: Waits = []
    with Http(
        httpserver.url_for(""),
        limits=[(100, 1)],
        now=lambda: NOW,
        patience=Patience(sleep=lambda seconds: None),
        waiting=lambda seconds, why: waits.append((seconds, why)),
    ) as http:
        http.get("/bill")
        assert http.window().left == 98
    assert waits == [(40, "429 was answered")]


def test_a_provider_that_says_nothing_of_its_progress_is_counted_all_the_same(tmp_path: Path) -> None:
    toy, told, windows = Toy(), list[Progress](), list[Window | None]()
    rows: list[int] = []
    line, may = toy.line(tmp_path), Partition("toy", "main", BillingPeriod(2026, 5))

    def hear(now: Progress) -> None:
        told.append(now)
        windows.append(now.window)

    line.fetch(may, progress=hear)
    assert [(now.doing, now.pages) for now in told] == [("page 1", 1)]
    assert windows[-1] is not None
    assert windows[-1].requests == 1000
    line.load(may, rows.append)


@pytest.mark.parametrize("provider", ["plivo", "talkdesk", "ycloud"])
def test_pages_and_rows_grow_to_what_is_landed_and_each_page_is_told_once(company: Company, provider: str) -> None:
    month, told, windows, texts = (
        company.month(provider, "main", "2026-05"),
        list[Progress](),
        list[Window | None](),
        [],
    )
    rows: list[int] = []

    def hear(now: Progress) -> None:
        told.append(now)
        windows.append(now.window)
        texts.append(str(now))

    landing = company.line.fetch(month, progress=hear).landing
    assert landing is not None
    held = company.line.load(month, rows.append).held
    pages = landing.manifest["pages"]
    assert [now.pages for now in told] == sorted(now.pages for now in told)
    assert len(told) <= len(company.world.requests(provider))  # one update a request
    assert told[-1].pages in (pages, pages - 1)  # told before each page is asked for
    counted = [now.rows or 0 for now in told]
    assert counted == sorted(counted)
    assert provider == "talkdesk" or counted[-1] <= held.tally.rows  # its answer has every month's rows
    assert counted[-1] > 0 or pages == 1
    assert rows[-1] == held.tally.rows
    assert all(window and window.left <= window.requests for window in windows)
    assert texts[0] == f"{told[0].doing} (0 rows, 1000 of 1000 requests left)"
