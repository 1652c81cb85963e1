"""Talkdesk: links, counts and tokens of a walk."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from billing_pipeline.answers import Answer, Refused, Unavailable, UnexpectedAnswer
from billing_pipeline.providers.talkdesk import MAX_PAGES, PROVIDER, ClientCredentials
from billing_pipeline.transport import Request
from billing_pipeline_tests import harness
from billing_pipeline_tests.talkdesk_server import AUGUST, MONTH, Talkdesk, body, onward, row


@pytest.fixture
def talkdesk(httpserver: HTTPServer) -> Talkdesk:
    return Talkdesk(httpserver)


@pytest.mark.parametrize("end", [{}, {"_links": None}, {"_links": {"next": None}}, {"_links": {"next": {"href": ""}}},
                                 {"next": {"href": None}}, {"next": ""}, {"_links": {"next": {"href": MONTH}}},
                                 {"_links": {"self": f"{MONTH}?page=1", "next": f"{MONTH}?page=1"}}])  # fmt: skip
def test_a_next_that_is_absent_empty_or_the_page_itself_ends_the_walk(
    end: dict[str, Any], talkdesk: Talkdesk, tmp_path: Path
) -> None:
    talkdesk.serve(body([row(1)], **end))
    assert len(talkdesk.fetch(tmp_path)) == 1


@pytest.mark.parametrize("link", [{"_links": {"next": {"href": "?page=2"}}}, {"_links": {"next": "month?page=2"}},
                                  {"next": {"href": f"{MONTH}?page=2"}}, {"next": f"{MONTH}?page=2", "_links": {}}])  # fmt: skip
def test_a_next_may_be_an_object_or_text_and_stand_in_either_place(
    link: dict[str, Any], talkdesk: Talkdesk, tmp_path: Path
) -> None:
    talkdesk.serve(body([row(1)], **link), body([row(2)]))
    assert len(talkdesk.fetch(tmp_path)) == 2


@pytest.mark.parametrize("link", ["http://127.0.0.1:{port}/express", "https://localhost:{port}/express", "//example.com/x",
                                  "http://localhost:1/express", "http://user@localhost:{port}/express"])  # fmt: skip
def test_the_token_never_travels_to_another_address(link: str, talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.serve(body([row(1)], next=link.format(port=talkdesk.server.port)))
    with pytest.raises(UnexpectedAnswer, match="leads to another address"):
        talkdesk.fetch(tmp_path)
    assert talkdesk.asked == ["token", ""]


def test_a_next_that_is_no_address_is_an_error(talkdesk: Talkdesk, tmp_path: Path) -> None:
    for link in ("http://127.0.0.1:port/", {"href": 7}, ["page2"]):
        talkdesk.serve(body([row(1)], next=link))
        with pytest.raises(UnexpectedAnswer, match="GET /express/usage/month"):
            talkdesk.fetch(tmp_path)


def test_a_walk_in_circles_is_an_error(talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.serve(body([row(1)], **onward(2)), body([row(2)], **onward(3)), body([row(3)], next=MONTH))
    with pytest.raises(UnexpectedAnswer, match="leads back"):
        talkdesk.fetch(tmp_path)


def test_a_walk_without_end_stops_at_a_bound_and_is_an_error(talkdesk: Talkdesk, tmp_path: Path) -> None:
    class Endless:
        asked = 0

        def get(self, url: str) -> Answer:
            self.asked += 1
            return Answer(200, body([row(self.asked)], next=f"?page={self.asked}").encode(), url, harness.FETCHED)

    endless = Endless()
    access = harness.access(PROVIDER, talkdesk.settings(), tmp_path)
    access.http.close()
    with pytest.raises(UnexpectedAnswer, match=f"after {MAX_PAGES} pages"):
        list(PROVIDER.fetch(replace(access, http=endless), AUGUST))
    assert endless.asked == MAX_PAGES


def test_counts_that_the_provider_states_must_be_what_came(talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.serve(body([row(1)], count=2))
    with pytest.raises(UnexpectedAnswer, match="states count 2, but has 1 rows"):
        talkdesk.fetch(tmp_path)
    talkdesk.serve(body([row(1)], total_pages="3", **onward(2)), body([row(2)], total_pages="3"))
    with pytest.raises(UnexpectedAnswer, match="3 pages stated, but `next` ended after 2"):
        talkdesk.fetch(tmp_path)
    talkdesk.serve(body([], total_pages=0, count=0, total=0, page=1))
    assert len(talkdesk.fetch(tmp_path)) == 1


@pytest.mark.parametrize("wrong", ["{}", "[]", '{"_embedded": {}}', '{"_embedded": {"usage": null}}', '{"_embedded": null}',
                                   '{"_embedded": {"usage": {}}}', '{"_embedded": {"usage": []', "<html>", ""])  # fmt: skip
def test_a_page_without_a_list_of_usage_is_an_error_and_not_an_empty_month(
    wrong: str, talkdesk: Talkdesk, tmp_path: Path
) -> None:
    talkdesk.serve(wrong)
    with pytest.raises(UnexpectedAnswer):
        talkdesk.fetch(tmp_path)


def test_no_parameter_is_sent_unless_one_is_configured(talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.answers = {"": body([]), "month=2023-08&per_page=50": body([])}
    talkdesk.fetch(tmp_path)
    pages = talkdesk.fetch(tmp_path, query={"month": "{month}", "per_page": "50"})
    assert talkdesk.asked == ["token", "", "token", "month=2023-08&per_page=50"]
    assert pages[0].request == f"GET {MONTH}?month=2023-08&per_page=50"


def test_a_traversal_may_serve_other_months_unless_the_month_is_in_the_question(talkdesk: Talkdesk) -> None:
    assert PROVIDER.shareable
    assert PROVIDER.shareable(talkdesk.settings(query={"per_page": "50"}))
    assert not PROVIDER.shareable(talkdesk.settings(query={"month": "{month}"}))


def test_the_token_is_asked_with_client_credentials_and_the_scope(talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.serve(body([row(1)]))
    talkdesk.fetch(tmp_path)
    basic = base64.b64encode(b"client-id:client:secret").decode()
    assert talkdesk.headers == [(f"Basic {basic}", "grant_type=client_credentials&scope=express-accounts-usage%3Aread")]


@pytest.mark.parametrize(("life", "second_page_at", "tokens"), [("600", 539, 1), ("600", 540, 2), ("null", 539, 1),
                                                                ('"30"', 26, 1), ("30", 27, 2), ("0", 0, 4)])  # fmt: skip
def test_a_token_is_renewed_a_minute_before_its_end_or_a_tenth_of_a_shorter_life(
    life: str, second_page_at: int, tokens: int, talkdesk: Talkdesk, tmp_path: Path
) -> None:
    talkdesk.life = life
    talkdesk.serve(body([row(1)], total=2, **onward(2)), body([row(2)], total=2))
    clock = [0]
    provider = replace(PROVIDER, auth=lambda settings: ClientCredentials(settings, now=lambda: clock[0]))
    access = harness.access(provider, talkdesk.settings(), tmp_path)
    with access.http:
        for _ in provider.fetch(access, AUGUST):
            clock[0] = second_page_at
    assert talkdesk.tokens == tokens


@pytest.mark.parametrize(
    ("status", "answer", "error", "says"),
    [
        (401, '{"error": "invalid_client", "error_description": "client:secret is wrong"}', Refused, "invalid_client"),
        (400, '{"error": "invalid_scope"}', Refused, "express-accounts-usage:read"),
        (404, "<html>no such account</html>", Refused, "check token_url"),
        (302, "", Refused, "check token_url"),
        (503, "<html>", Unavailable, "still 503 after all retries"),
        (200, '{"token_type": "Bearer"}', UnexpectedAnswer, "no access_token"),
        (200, "<html>login</html>", UnexpectedAnswer, "no access_token"),
    ],
)
def test_a_token_that_is_not_given_is_an_error_that_says_why_and_never_a_secret(
    status: int, answer: str, error: type[Exception], says: str, talkdesk: Talkdesk, tmp_path: Path
) -> None:
    talkdesk.server.expect_request("/wrong/token").respond_with_data(answer, status)
    with pytest.raises(error, match=says) as caught:
        talkdesk.fetch(tmp_path, token_url=f"{talkdesk.home}/wrong/token")
    assert "/wrong/token (token_url)" in str(caught.value)
    assert "client:secret" not in str(caught.value)
    assert talkdesk.asked == []


def test_waiting_for_a_token_is_bounded_like_waiting_for_a_page(talkdesk: Talkdesk) -> None:
    asked = Request("GET", talkdesk.home, headers={"User-Agent": "x"}, extensions={"timeout": {"read": 60}})
    token_request = next(ClientCredentials(talkdesk.settings()).sync_auth_flow(asked))
    assert str(token_request.url) == f"{talkdesk.home}/oauth/token"
    assert token_request.extensions == {"timeout": {"read": 60}}


def test_a_token_host_that_is_not_there_is_named(talkdesk: Talkdesk, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"POST 127\.0\.0\.1/nobody/token: the connection failed"):
        talkdesk.fetch(tmp_path, token_url="http://127.0.0.1:1/nobody/token")


def test_a_403_names_the_scope_and_the_entitlement(talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.server.clear()
    talkdesk.server.expect_request("/oauth/token").respond_with_json({"access_token": "t1"})
    talkdesk.server.expect_request(MONTH).respond_with_json({"code": "403", "message": "not authorized"}, 403)
    with pytest.raises(Refused, match=r"not authorized.*lacks the scope express-accounts-usage:read"):
        talkdesk.fetch(tmp_path)


def moving(talkdesk: Talkdesk, first: list[str], later: list[str]) -> None:
    """Two pages; from the second page of the first walk on the list is another one."""
    talkdesk.serve(*first)

    def then(query: str, asked: int) -> bool:
        if query == "page=2" and asked == 1:
            talkdesk.serve(*later)
        return False

    talkdesk.refuse = then


@pytest.mark.parametrize("total", [{}, {"total": 3}], ids=["no total", "a total"])
def test_a_row_that_left_the_list_during_the_walk_takes_no_other_one_along(
    total: dict[str, int], talkdesk: Talkdesk, tmp_path: Path
) -> None:
    """Row 1 goes after page 1 was read, so row 2 moves there unseen, and page 2 says nothing of it."""
    two = {name: number - 1 for name, number in total.items()}
    moving(
        talkdesk,
        [body([row(n, product_id=f"P{n}") for n in (1,)], **onward(2), **total), body([row(2)], **total)],
        [body([row(2, product_id="P2")], **onward(2), **two), body([row(3, product_id="P3")], **two)],
    )
    landed = talkdesk.fetch(tmp_path)
    assert [b"row2" in landed[0].read(), b"row3" in landed[1].read()] == [True, True]


def test_a_list_that_never_stands_still_is_an_error(talkdesk: Talkdesk, tmp_path: Path) -> None:
    def other(query: str, asked: int) -> bool:
        talkdesk.serve(body([row(1, product_id=f"P{len(talkdesk.asked)}")], **onward(2)), body([row(2)]))
        return False

    other("", 0)
    talkdesk.refuse = other
    with pytest.raises(UnexpectedAnswer, match="walked 4 times, and the list moved every time"):
        talkdesk.fetch(tmp_path)


def test_a_walk_that_brings_the_same_rows_again_or_none_ends_soon(talkdesk: Talkdesk, tmp_path: Path) -> None:
    talkdesk.serve(*(body([row(1)], **onward(n)) for n in range(2, 9)))
    with pytest.raises(UnexpectedAnswer, match="page 2 has the very rows of an earlier page"):
        talkdesk.fetch(tmp_path)
    talkdesk.serve(body([row(1)], **onward(2)), *(body([], **onward(n)) for n in range(3, 9)))
    with pytest.raises(UnexpectedAnswer, match="3 empty pages in a row"):
        talkdesk.fetch(tmp_path)
