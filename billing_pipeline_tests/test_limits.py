"""A bad day stays within limits: how often, how long and how much a provider is asked, and whom it holds up."""

from __future__ import annotations

import gzip
import json
import sqlite3
import threading
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer
from rich.console import Console
from werkzeug import Request, Response

from billing_pipeline.answers import Unavailable, UnexpectedAnswer
from billing_pipeline.period import BillingPeriod
from billing_pipeline.refresh import Outcome, refresh
from billing_pipeline.transport import Http, Patience

from .conftest import Company
from .talkdesk_server import Talkdesk
from .test_transport import raw_server

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


class Waits(list[float]):
    """Waits that are only written down."""

    def patience(self, **more: float) -> Patience:
        return Patience(sleep=self.append, **more)  # type: ignore[arg-type]


def busy(httpserver: HTTPServer, **headers: str) -> list[Request]:
    asked: list[Request] = []

    def answer(request: Request) -> Response:
        asked.append(request)
        return Response(b"{}", 429, {name.replace("_", "-"): value for name, value in headers.items()})

    httpserver.expect_request("/bill").respond_with_handler(answer)
    return asked


def client(httpserver: HTTPServer, patience: Patience, now: Callable[[], datetime] = lambda: NOW, **more: Path) -> Http:
    return Http(httpserver.url_for(""), limits=[(10_000, 1)], now=now, patience=patience, **more)


def test_waits_are_anywhere_below_a_doubling_bound_that_has_a_cap(httpserver: HTTPServer) -> None:
    asked, waits = busy(httpserver), Waits()
    with client(httpserver, waits.patience(retries=400, longest=30, budget=1e9)) as http, pytest.raises(Unavailable):
        http.get("/bill")
    assert len(asked) == 401
    assert all(wait <= min(30, 2.0**attempt) for attempt, wait in enumerate(waits, 1))
    late = sorted(waits[5:])
    assert late[0] < 5 < 25 < late[-1]  # the whole range: two clients that fail together do not come back together


def test_the_waits_of_a_request_end_with_its_budget(httpserver: HTTPServer) -> None:
    asked, waits = busy(httpserver, Retry_After="40"), Waits()
    with client(httpserver, waits.patience(retries=100, budget=100)) as http, pytest.raises(Unavailable):
        http.get("/bill")
    assert waits == [40, 40, 20]
    assert len(asked) == 4


def test_a_day_of_429_does_not_hammer(httpserver: HTTPServer) -> None:
    asked, waits = busy(httpserver), Waits()
    for _ in range(12):  # every month of a year, once
        with client(httpserver, waits.patience()) as http, pytest.raises(Unavailable):
            http.get("/bill")
    assert len(asked) == 12 * (1 + Patience().retries)


def test_who_wants_to_be_left_alone_for_an_hour_is_by_all_months_and_processes(
    httpserver: HTTPServer, tmp_path: Path
) -> None:
    asked, clock = busy(httpserver, Retry_After="3600"), [NOW]
    while clock[0] < NOW + timedelta(hours=6):
        leave_alone = pytest.raises(
            Unavailable, match=r"not to be asked again|not asked, .*before 2026-06-1.*may succeed"
        )
        with (
            client(httpserver, Waits().patience(), lambda: clock[0], bucket=tmp_path / "b.sqlite") as http,
            leave_alone,
        ):
            http.get("/bill")
        clock[0] += timedelta(minutes=30)
    assert len(asked) == 6


def test_a_date_to_come_back_is_read_on_the_providers_own_clock() -> None:
    wrong = datetime(2031, 1, 1, tzinfo=UTC)
    dates = [format_datetime(wrong + timedelta(seconds=seconds), usegmt=True) for seconds in (0, 7)]
    head = f"HTTP/1.1 429 Busy\r\nDate: {dates[0]}\r\nRetry-After: {dates[1]}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    waits = Waits()
    with raw_server(head.encode() + b"{}", head.encode() + b"{}") as (url, _):
        patience = waits.patience(retries=1)
        with Http(url, limits=[(10_000, 1)], now=lambda: NOW, patience=patience) as http, pytest.raises(Unavailable):
            http.get("/bill")
    assert waits == [7]


@pytest.mark.parametrize("said", ["99999999999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_who_wants_to_be_left_alone_for_years_is_for_a_day(httpserver: HTTPServer, tmp_path: Path, said: str) -> None:
    asked, clock = busy(httpserver, Retry_After=said), [NOW]
    for later, times in ((timedelta(), 1), (timedelta(hours=23), 1), (timedelta(hours=25), 2)):
        clock[0] = NOW + later
        left_alone, file = pytest.raises(Unavailable), tmp_path / "bucket.sqlite"
        with client(httpserver, Waits().patience(), lambda: clock[0], bucket=file) as http, left_alone:
            http.get("/bill")
        assert len(asked) == times


@pytest.mark.parametrize("said", ["soon", "-5", "1e9", ""])
def test_a_retry_after_that_says_nothing_leaves_our_own_waits(httpserver: HTTPServer, said: str) -> None:
    busy(httpserver, Retry_After=said)
    waits = Waits()
    with client(httpserver, waits.patience(retries=2, longest=3)) as http, pytest.raises(Unavailable):
        http.get("/bill")
    assert len(waits) == 2
    assert max(waits) <= 3


def test_a_clock_that_was_set_back_does_not_make_the_limits_wait_for_it(httpserver: HTTPServer, tmp_path: Path) -> None:
    httpserver.expect_request("/bill").respond_with_data("{}")
    file = tmp_path / "bucket.sqlite"

    def once() -> None:
        with Http(httpserver.url_for(""), limits=[(1, 0.01)], now=lambda: NOW, bucket=file) as http:
            http.get("/bill")

    once()
    with sqlite3.connect(file) as db:
        db.execute("UPDATE rate_bucket SET item_timestamp = item_timestamp + 86400000")
    db.close()
    once()  # would wait a day


def test_a_token_that_grows_when_it_is_decompressed_is_left_at_the_limit(talkdesk: Talkdesk, tmp_path: Path) -> None:
    bomb = gzip.compress(b" " * (96 << 20), compresslevel=1)
    talkdesk.server.expect_request("/bomb").respond_with_data(bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(UnexpectedAnswer, match=r"/bomb: the answer is larger than 67,108,864 bytes"):
        talkdesk.fetch(tmp_path, token_url=f"{talkdesk.home}/bomb")


@pytest.fixture
def talkdesk(httpserver: HTTPServer) -> Talkdesk:
    return Talkdesk(httpserver)


def test_a_provider_that_hangs_holds_up_nobody_else(company: Company) -> None:
    """Everybody else's June is in the warehouse while Plivo still hangs, and Plivo's too once it does not."""
    company.line.patience = Patience(retries=20, backoff=0.01, longest=0.1, budget=60, answer=3)
    june = BillingPeriod(2026, 6)

    def plivo(fault: str | None) -> None:
        body = json.dumps({"provider": "plivo", "fault": fault, "times": 0}).encode()
        asked = urllib.request.Request(f"{company.address}/_sandbox/faults", body, method="PUT")  # noqa: S310
        urllib.request.urlopen(asked).close()  # noqa: S310  loopback

    plivo("hanging socket")
    outcomes: list[Outcome] = []
    running = threading.Thread(
        target=lambda: outcomes.extend(refresh(company.line, Console(quiet=True), periods=[june], publish_every=0.2))
    )
    running.start()
    others = [company.month(provider, "main", "2026-06") for provider in ("infobip", "talkdesk", "ycloud")]
    ends = time.monotonic() + 60
    try:
        while not all(company.line.warehouse.path.exists() and company.shown(month)[0] for month in others):
            assert time.monotonic() < ends, "the others wait for Plivo"
            running.join(0.1)
        assert running.is_alive(), "Plivo does not hang"
        assert [company.shown(month) for month in others] == [company.stated(month) for month in others]
        assert company.shown(company.month("plivo", "main", "2026-06")) == (0, {})
    finally:
        plivo(None)
        running.join(60)
    assert [outcome.failure for outcome in outcomes] == [None] * 5
    everybody = [*others, company.month("plivo", "main", "2026-06"), company.month("plivo", "emea", "2026-06")]
    assert [company.shown(month) for month in everybody] == [company.stated(month) for month in everybody]
