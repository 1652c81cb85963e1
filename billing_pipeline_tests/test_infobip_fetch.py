"""Infobip's query and the wait for its letter, over real sockets: the stand-in calls our receiver back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline.answers import Refused, UnexpectedAnswer
from billing_pipeline.callbacks import listening
from billing_pipeline.mailbox import Mailbox, NoAnswer
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Access, Page
from billing_pipeline.providers.infobip import PROVIDER, InfobipSettings, fetch, statement
from billing_pipeline.providers.infobip.query import Failed, TwoResults

from . import harness
from .infobip_letters import MARCH, ROW, Infobip, failed, letter, reserved_port

ERROR = {
    "errorCode": "E400", "description": "Request cannot be processed.", "action": "Check the syntax.", "resources": [],
    "violations": [{"property": "request.filterBy.dateInterval.sentUntil", "violation": "must not be in the future"}],
}  # fmt: skip


class Clock:
    """A clock that is set by hand, and that may move on by itself at every look."""

    def __init__(self) -> None:
        self.instant = datetime(2026, 4, 6, 6, tzinfo=UTC)
        self.step = timedelta(0)

    def __call__(self) -> datetime:
        self.instant += self.step
        return self.instant


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def infobip(httpserver: HTTPServer) -> Iterator[Infobip]:
    with reserved_port() as keeper:
        stand_in = Infobip(httpserver, keeper.getsockname()[1], lambda request_id: [letter(request_id=request_id)])
        yield stand_in
        stand_in.settle()


@pytest.fixture
def access(infobip: Infobip, tmp_path: Path, clock: Clock) -> Access:
    return harness.access(PROVIDER, infobip.settings, tmp_path, now=clock)


def run(infobip: Infobip, access: Access, period: BillingPeriod = MARCH) -> list[Page]:
    """One run, as the line makes it: a new client and a new mailbox over the same folder."""
    again = harness.access(PROVIDER, infobip.settings, access.mailbox.folder.parent, now=access.now)
    return harness.fetched(PROVIDER, again, period)


def letter_of(pages: list[Page]) -> bytes:
    return pages[-1].read()


def give_up(infobip: Infobip, access: Access, clock: Clock) -> str:
    """A run that waits in vain; the clock says that the wait is over."""
    infobip.letters = lambda request_id: []
    clock.step = timedelta(seconds=infobip.settings.wait_seconds)
    with pytest.raises(NoAnswer) as error:
        run(infobip, access)
    clock.step = timedelta(0)
    return str(error.value)


def receive(infobip: Infobip, access: Access, body: bytes, query: int = 0) -> int:
    """What the receiver answers to a letter that comes while no run is looking."""
    with listening(access.mailbox, infobip.settings.callback_listen):
        return infobip.deliver_now(body, query)


def test_a_month_is_asked_for_once_and_its_letter_is_landed_with_what_was_asked(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    accepted, came = run(infobip, access)
    assert accepted.read() == b'{"requestId": "REQ-1"}'
    assert came.read() == letter(request_id="REQ-1")
    assert isinstance(came.body, Path)
    assert came.facts["requestId"] == "REQ-1"
    assert came.facts["submitted_at"] == "2026-04-06T06:00:00Z"
    assert "submitted_at" not in accepted.facts
    assert infobip.authorization == ["App INFOBIP_API_KEY"]
    infobip.settle()
    assert infobip.statuses == [200]
    assert access.mailbox.pending("infobip", "main") == []
    assert statement([accepted, came], MARCH).counted.rows == 1


def test_traps_1_3_7_8_11_13_14_the_question_is_the_same_for_every_month_unfiltered_and_up_to_the_first_of_the_next(
    infobip: Infobip, access: Access
) -> None:
    accepted, _ = run(infobip, access)
    asked = infobip.asked[0]
    address = asked.pop("callbackUrl")
    assert asked == {
        "request": {
            # No categories (3), no accountKeys (11), no other filter; the end as the next month's first day (1).
            "filterBy": {"dateInterval": {"sentSince": "2026-03-01", "sentUntil": "2026-04-01"}},
            # DAY and not MONTH (8, 14), key and code by name (13), one set for all (14).
            "aggregateBy": [
                "DAY", "ACCOUNT_KEY", "ACCOUNT_NAME", "CATEGORY_CODE", "SUBCATEGORY_CODE", "APPLICATION_ID", "ENTITY_ID",
                "DIRECTION", "TRAFFIC_TYPE", "SENDER", "SENDER_TYPE", "COUNTRY_CODE", "COUNTRY_NAME", "NETWORK_NAME",
                "NORM_NET_CODE", "CAMPAIGN_REFERENCE", "CAMPAIGN_ID", "TEMPLATE_ID",
            ],
            "options": {"includeUnfinalizedData": True},  # not trimmed (7)
        }
    }  # fmt: skip
    base, _, token = address.rpartition("/")
    assert base == infobip.settings.callback_url
    assert len(token) == 43
    assert token not in accepted.request


def test_trap_15_the_provider_states_no_total_so_none_is_compared_with_an_invoice_or_another_api(
    infobip: Infobip, access: Access
) -> None:
    assert statement(run(infobip, access), MARCH).stated_cost is None


def test_every_query_has_an_address_of_its_own(infobip: Infobip, access: Access) -> None:
    run(infobip, access)
    run(infobip, access)
    assert infobip.asked[0]["callbackUrl"] != infobip.asked[1]["callbackUrl"]


def test_a_letter_may_come_before_its_query_is_answered(infobip: Infobip, access: Access) -> None:
    infobip.early = True
    with listening(access.mailbox, infobip.settings.callback_listen):
        assert letter_of(run(infobip, access)) == letter(request_id="REQ-1")


def test_a_wait_in_vain_says_what_to_check_and_the_letter_is_found_by_the_next_run(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    text = give_up(infobip, access, clock)
    assert "REQ-1" in text
    assert "billing-pipeline callbacks" in text
    assert infobip.asked[0]["callbackUrl"].rpartition("/")[2] not in text
    assert receive(infobip, access, letter(request_id="REQ-1")) == 200
    (page,) = run(infobip, access)
    assert page.read() == letter(request_id="REQ-1")
    assert len(infobip.asked) == 1
    assert page.facts["submitted_at"] < "2026-04-06T06:04"
    assert access.mailbox.pending("infobip", "main") == []


def test_a_query_that_still_waits_is_waited_for_and_not_repeated(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    infobip.letters = lambda request_id: []
    first = harness.access(PROVIDER, infobip.settings, access.mailbox.folder.parent, now=clock)
    stopped = fetch(first, MARCH)
    next(stopped)  # the query is accepted; then the machine goes down
    first.http.close()
    stopped.close()
    assert receive(infobip, access, letter(request_id="OTHER")) == 200
    assert receive(infobip, access, letter(request_id="REQ-1")) == 200
    assert letter_of(run(infobip, access)) == letter(request_id="REQ-1")
    assert len(infobip.asked) == 1


def test_an_old_letter_makes_room_for_a_new_question(infobip: Infobip, access: Access, clock: Clock) -> None:
    give_up(infobip, access, clock)
    receive(infobip, access, letter(request_id="REQ-1"))
    clock.instant += timedelta(hours=13)
    infobip.letters = lambda request_id: [letter(request_id=request_id)]
    assert letter_of(run(infobip, access)) == letter(request_id="REQ-2")
    assert access.mailbox.pending("infobip", "main") == []


def test_an_old_letter_is_better_than_none(infobip: Infobip, access: Access, clock: Clock) -> None:
    give_up(infobip, access, clock)
    receive(infobip, access, letter(request_id="REQ-1"))
    clock.instant += timedelta(hours=13)
    clock.step = timedelta(seconds=infobip.settings.wait_seconds)
    pages = run(infobip, access)
    assert letter_of(pages) == letter(request_id="REQ-1")
    assert pages[-1].facts["submitted_at"] < "2026-04-06T07"
    (note,) = statement(pages, MARCH).notes
    assert note.startswith("request REQ-2 was not answered in time")


def test_a_letter_computed_before_the_month_settled_is_not_taken_where_a_new_one_could_make_it_final(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    clock.instant = datetime(2026, 4, 4, 23, tzinfo=UTC)
    give_up(infobip, access, clock)
    receive(infobip, access, letter(request_id="REQ-1"))
    clock.instant = datetime(2026, 4, 5, tzinfo=UTC)
    infobip.letters = lambda request_id: [letter(request_id=request_id)]
    pages = run(infobip, access)
    assert len(infobip.asked) == 2
    assert pages[-1].facts["submitted_at"] == "2026-04-05T00:00:00Z"


def test_a_failed_letter_stops_the_run_with_infobips_reason_and_the_next_run_asks_again(
    infobip: Infobip, access: Access
) -> None:
    infobip.letters = lambda request_id: [failed(request_id)]
    with pytest.raises(Failed, match=r"REQ-1 .*Could not load data"):
        run(infobip, access)
    infobip.letters = lambda request_id: [letter(request_id=request_id)]
    assert letter_of(run(infobip, access)) == letter(request_id="REQ-2")


def test_a_failed_letter_that_came_while_nobody_looked_is_asked_again_and_noted(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    give_up(infobip, access, clock)
    receive(infobip, access, failed("REQ-1"))
    infobip.letters = lambda request_id: [letter(request_id=request_id)]
    pages = run(infobip, access)
    assert letter_of(pages) == letter(request_id="REQ-2")
    assert "Could not load data" in statement(pages, MARCH).notes[0]


def test_letters_that_are_not_ours_or_not_whole_are_set_aside_and_the_right_one_is_waited_for(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    clock.step = timedelta(milliseconds=1)  # letters of one instant have no order
    infobip.letters = lambda request_id: [
        letter(request_id="ANOTHER"), letter(request_id=request_id)[:-5], b"<html>", letter(request_id=request_id),
    ]  # fmt: skip
    pages = run(infobip, access)
    assert letter_of(pages) == letter(request_id="REQ-1")
    notes = statement(pages, MARCH).notes
    assert [note.partition("set aside: ")[2][:30] for note in notes] == [
        "it answers request 'ANOTHER', ", "the letter is not the JSON tha", "the letter is not the JSON tha",
    ]  # fmt: skip


def test_a_letter_that_comes_twice_is_charged_once(infobip: Infobip, access: Access) -> None:
    infobip.letters = lambda request_id: [letter(request_id=request_id)] * 2
    daemon = Mailbox(access.mailbox.folder, now=access.now)
    with listening(daemon, infobip.settings.callback_listen):
        pages = run(infobip, access)
        infobip.settle()
    assert infobip.statuses in ([200, 200], [200, 404])  # before its ticket is closed, or after
    assert [page.facts["role"] for page in pages] == ["accepted", "letter"]
    assert len(list(access.mailbox.folder.glob("*/*Z-*.json"))) == 1


def test_a_letter_is_not_closed_before_its_page_was_taken_over(infobip: Infobip, access: Access) -> None:
    with suppress(KeyboardInterrupt):
        for page in fetch(access, MARCH):
            if isinstance(page, Page) and page.facts["role"] == "letter":
                raise KeyboardInterrupt
    access.http.close()
    (page,) = run(infobip, access)
    assert page.read() == letter(request_id="REQ-1")
    assert len(infobip.asked) == 1


def test_a_run_that_dies_after_the_page_and_before_its_landing_is_complete_leaves_the_letter_to_the_next(
    infobip: Infobip, access: Access
) -> None:
    dying = replace(access, afterwards=lambda step: None)
    assert letter_of(harness.fetched(PROVIDER, dying, MARCH)) == letter(request_id="REQ-1")
    (page,) = run(infobip, access)
    assert page.read() == letter(request_id="REQ-1")
    assert len(infobip.asked) == 1
    assert access.mailbox.pending("infobip", "main") == []


def test_a_letter_that_was_landed_by_a_run_that_died_before_it_could_say_so_is_not_landed_again(
    infobip: Infobip, access: Access, clock: Clock
) -> None:
    """Found by killing runs: the next refresh, hours later, landed the letter of the killed one once more instead of asking."""
    asked = clock()
    harness.landed(fetch(replace(access, afterwards=lambda step: None), MARCH))
    assert len(access.mailbox.pending("infobip", "main")) == 1
    clock.instant += timedelta(hours=6)
    pages = harness.landed(fetch(replace(access, landed=asked), MARCH))
    assert [(page.facts["role"], page.facts["requestId"]) for page in pages] == [
        ("accepted", "REQ-2"),
        ("letter", "REQ-2"),
    ]
    assert access.mailbox.pending("infobip", "main") == []


@pytest.mark.parametrize("same", [True, False])
def test_letters_with_other_bytes_are_two_results_only_when_they_say_something_else(
    infobip: Infobip, access: Access, clock: Clock, same: bool
) -> None:
    give_up(infobip, access, clock)
    first = letter(request_id="REQ-1")
    assert receive(infobip, access, first) == 200
    clock.instant += timedelta(seconds=1)
    other = json.dumps(json.loads(first), indent=1, sort_keys=True).encode()
    assert receive(infobip, access, other if same else other.replace(b"11.25", b"11.26")) == 200
    if same:
        assert letter_of(run(infobip, access)) == first
        return
    with pytest.raises(TwoResults, match=r"REQ-1 .* twice, and differently"):
        run(infobip, access)
    assert receive(infobip, access, first) == 404
    infobip.letters = lambda request_id: [letter(request_id=request_id)]
    assert letter_of(run(infobip, access)) == letter(request_id="REQ-2")


def test_where_the_future_is_refused_the_running_month_is_asked_for_up_to_tomorrow(
    httpserver: HTTPServer, infobip: Infobip, access: Access, clock: Clock
) -> None:
    clock.instant = datetime(2026, 3, 12, 6, tzinfo=UTC)
    httpserver.clear()
    httpserver.expect_oneshot_request("/billing/1/usage/query").respond_with_json(ERROR, status=400)
    httpserver.expect_request("/billing/1/usage/query").respond_with_handler(infobip._query)
    until = ("2026-03-01", "2026-03-13")
    infobip.letters = lambda request_id: [
        letter([["2026-03-12", *ROW[1:]]], request_id=request_id, granted=until, asked=until)
    ]
    pages = run(infobip, access)
    assert infobip.asked[0]["request"]["filterBy"]["dateInterval"]["sentUntil"] == "2026-03-13"
    assert statement(pages, MARCH).counted.rows == 1


def test_a_refused_question_is_an_error_and_leaves_nothing_pending(
    httpserver: HTTPServer, infobip: Infobip, access: Access
) -> None:
    httpserver.clear()
    httpserver.expect_request("/billing/1/usage/query").respond_with_json(ERROR, status=400)
    with pytest.raises(
        Refused, match="must not be in the future"
    ):  # a month that is over has no tomorrow to fall back to
        run(infobip, access)
    assert len(httpserver.log) == 1
    assert access.mailbox.pending("infobip", "main") == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_without_the_scope_is_told_which_scope_it_needs(
    httpserver: HTTPServer, infobip: Infobip, access: Access, status: int
) -> None:
    httpserver.clear()
    httpserver.expect_request("/billing/1/usage/query").respond_with_json({"errorCode": f"E{status}"}, status=status)
    with pytest.raises(Refused, match="billing:usage:view") as error:
        run(infobip, access)
    assert error.value.status == status
    assert "INFOBIP_API_KEY" not in str(error.value)


def test_an_acceptance_without_a_request_id_is_no_acceptance(
    httpserver: HTTPServer, infobip: Infobip, access: Access
) -> None:
    httpserver.clear()
    httpserver.expect_request("/billing/1/usage/query").respond_with_json({"requestId": ""}, status=201)
    with pytest.raises(UnexpectedAnswer, match="requestId"):
        run(infobip, access)
    assert access.mailbox.pending("infobip", "main") == []


def test_a_busy_infobip_is_asked_again_with_the_same_address(
    httpserver: HTTPServer, infobip: Infobip, access: Access
) -> None:
    addresses: list[bytes] = []

    def busy(request: Request) -> Response:
        addresses.append(request.data)
        return Response('{"errorCode":"E429"}', 429, content_type="application/json")

    httpserver.clear()
    httpserver.expect_oneshot_request("/billing/1/usage/query").respond_with_handler(busy)
    httpserver.expect_request("/billing/1/usage/query").respond_with_handler(infobip._query)
    run(infobip, access)
    assert infobip.asked[0]["callbackUrl"].encode() in addresses[0]


def test_callbacks_over_plain_http_are_for_loopback_only(infobip: Infobip) -> None:
    with pytest.raises(ValidationError, match="https"):
        InfobipSettings.model_validate({**dict(infobip.settings), "callback_url": "http://billing.example.com"})


def test_two_accounts_do_not_read_each_others_letters(infobip: Infobip, access: Access, clock: Clock) -> None:
    give_up(infobip, access, clock)
    receive(infobip, access, letter(request_id="REQ-1"))
    other = replace(
        harness.access(PROVIDER, infobip.settings, access.mailbox.folder.parent, now=clock),
        settings=infobip.settings.model_copy(update={"name": "other"}),
    )
    infobip.letters = lambda request_id: [letter(request_id=request_id)]
    assert letter_of(harness.fetched(PROVIDER, other, MARCH)) == letter(request_id="REQ-2")
    assert len(access.mailbox.pending("infobip", "main")) == 1
