"""How we speak HTTP, over real sockets: patient, paced, bounded, and never telling a secret."""

from __future__ import annotations

import base64
import gzip
import html
import json
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from billing_pipeline.answers import Refused, Unavailable, UnexpectedAnswer
from billing_pipeline.redaction import cleaned
from billing_pipeline.transport import BasicAuth, Http, Patience

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SECRET = 'k"ey/with+odd=letters'
HURRIED = Patience(retries=2, backoff=0.001, budget=5)


def client(url: str, **options: Any) -> Http:
    settings: dict[str, Any] = {"limits": [(10_000, 1)], "now": lambda: NOW, "secrets": [SECRET], "patience": HURRIED}
    return Http(url, **{**settings, **options})


@pytest.fixture
def http(httpserver: HTTPServer) -> Iterator[Http]:
    with client(httpserver.url_for(""), headers={"X-API-Key": SECRET}) as http:
        yield http


def answers(httpserver: HTTPServer, *responses: Response) -> list[float]:
    """Give these answers one after another, the last for ever; the list is of when each was asked for."""
    times: list[float] = []

    def handler(_: Request) -> Response:
        times.append(time.monotonic())
        return responses[min(len(times), len(responses)) - 1]

    httpserver.expect_request("/bill").respond_with_handler(handler)
    return times


def json_body(body: bytes = b'{"total": 1.10}', status: int = 200, **headers: str) -> Response:
    return Response(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


@contextmanager
def raw_server(*replies: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A socket that says exactly these bytes, one connection each, and hangs up."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for reply in replies:
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(65536))
                    connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        thread.join(10)


def test_an_answer_is_its_bytes_and_what_was_asked(httpserver: HTTPServer, http: Http) -> None:
    answers(httpserver, json_body())
    answer = http.get("/bill", {"month": "2026-05"})
    assert (answer.status, answer.body, answer.received_at) == (200, b'{"total": 1.10}', NOW)
    assert answer.request == "GET /bill?month=2026-05"


def test_a_server_that_says_when_to_come_back_is_not_asked_before(httpserver: HTTPServer, http: Http) -> None:
    times = answers(httpserver, json_body(b"{}", 429, Retry_After="1"), json_body())
    assert http.get("/bill").status == 200
    assert len(times) == 2
    assert times[1] - times[0] >= 1


def test_a_server_that_wants_to_be_left_alone_for_longer_than_we_can_wait_is_left_alone(
    httpserver: HTTPServer, http: Http
) -> None:
    times = answers(httpserver, json_body(b"{}", 429, Retry_After="86400"))
    with pytest.raises(Unavailable, match="429, and not to be asked again for 86400 seconds"):
        http.get("/bill")
    assert len(times) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(httpserver: HTTPServer, http: Http, status: int) -> None:
    times = answers(httpserver, json_body(b"{}", status), json_body(b"{}", status), json_body())
    assert http.get("/bill").status == 200
    assert len(times) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_stays_in_trouble_is_unavailable(httpserver: HTTPServer, http: Http, status: int) -> None:
    times = answers(httpserver, json_body(f'{{"error": "{SECRET[:1]}busy"}}'.encode(), status))
    with pytest.raises(Unavailable, match=f"still {status} after all retries .*busy"):
        http.get("/bill")
    assert len(times) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 422])
def test_a_refusal_is_not_repeated(httpserver: HTTPServer, http: Http, status: int) -> None:
    times = answers(httpserver, json_body(b'{"error": "no such thing"}', status))
    with pytest.raises(Refused, match=f"{status} from GET localhost/bill: .*no such thing") as caught:
        http.get("/bill")
    assert (len(times), caught.value.status) == (1, status)


ECHOES = {
    "as it is": SECRET.encode(),
    "in JSON": b'{"you sent": "' + SECRET.replace('"', '\\"').encode() + b'"}',
    "in JSON escapes": ('{"you sent": "' + "".join(f"\\u{ord(c):04x}" for c in SECRET) + '"}').encode(),
    "in an address": b"/?key=k%22ey%2Fwith%2Bodd%3Dletters",
    "in Base64": base64.b64encode(SECRET.encode()),
    "across the end of the excerpt": b"x" * 490 + SECRET.encode(),
    "across the end of the body that is kept": b"x" * 4990 + SECRET.encode(),
    "in an echoed Basic header": b"Authorization: Basic " + base64.b64encode(b"someone:" + SECRET.encode()),
    "in an echoed token": b"authorization: bearer eyJhbGciOi.JIUzI1NiIs.InR5cCI6",
}


@pytest.mark.parametrize("body", ECHOES.values(), ids=ECHOES.keys())
@pytest.mark.parametrize("status", [401, 503])
def test_no_error_tells_a_secret_that_the_server_echoes(
    httpserver: HTTPServer, http: Http, body: bytes, status: int
) -> None:
    answers(httpserver, json_body(body, status))
    with pytest.raises((Refused, Unavailable, UnexpectedAnswer)) as caught:
        http.get("/bill")
    told = str(caught.value) + getattr(caught.value, "body", "")
    hidden = [SECRET, SECRET[:8], "k%22ey", base64.b64encode(SECRET.encode()).decode()[:12], "eyJhbGciOi"]
    hidden.append(base64.b64encode(b"someone:" + SECRET.encode()).decode()[:12])
    assert not [secret for secret in hidden if secret in told]


def test_what_was_asked_is_remembered_without_the_secret(httpserver: HTTPServer, http: Http) -> None:
    answers(httpserver, json_body())
    assert http.get("/bill", {"key": SECRET}).request == "GET /bill?key=***"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><body>Please log in</body></html>", "status 200, but no JSON .*Please log in"),
        (b"", "status 200, but no JSON .*0 bytes: empty body"),
        (b"   \n", "status 200, but no JSON"),
        (b"null", "status 200, but no JSON"),
        (b'{"rows": [{"amount": 1}, {"amou', "no whole JSON document"),
        (b'[{"amount": 1}]]', "no whole JSON document"),
        (b'[{"amount": NaN}]', "no whole JSON document"),
        (b"[" * 100_000, "no whole JSON document"),
    ],
    ids=["HTML", "empty", "blank", "null", "cut off", "too much", "NaN", "deep"],
)
def test_a_good_status_with_a_bad_body_is_no_answer(httpserver: HTTPServer, http: Http, body: bytes, said: str) -> None:
    answers(httpserver, json_body(body, Content_Type="text/html"))
    with pytest.raises(UnexpectedAnswer, match=said):
        http.get("/bill")


def test_a_body_that_breaks_off_is_asked_for_once_more_in_full() -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"total": 1'
    whole = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"total": 1.1}'
    with raw_server(half, whole) as (url, heard), client(url) as http:
        assert http.get("/bill").body == b'{"total": 1.1}'
    assert len(heard) == 2


def test_a_body_that_breaks_off_every_time_is_no_answer() -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"total": 1}'
    after_all = pytest.raises(Unavailable, match="connection failed, also after all retries")
    with raw_server(half, half, half) as (url, heard), client(url) as http, after_all:
        http.get("/bill")
    assert len(heard) == 1 + HURRIED.retries


def test_a_body_whose_end_nobody_announced_is_held_to_be_whole_json() -> None:
    with (
        raw_server(b'HTTP/1.0 200 OK\r\n\r\n{"rows": [1, 2') as (url, _),
        client(url) as http,
        pytest.raises(UnexpectedAnswer, match="no whole JSON document"),
    ):
        http.get("/bill")


def test_a_chunk_that_breaks_off_is_not_taken_for_the_end() -> None:
    half = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{"total": 1}\r\n'
    with raw_server(half, half, half) as (url, _), client(url) as http, pytest.raises(Unavailable):
        http.get("/bill")


def test_nobody_listening_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with client(url) as http, pytest.raises(Unavailable, match=r"GET 127\.0\.0\.1/bill: the connection failed"):
        http.get("/bill")


def test_an_answer_without_end_is_left_at_the_limit(httpserver: HTTPServer) -> None:
    answers(httpserver, json_body(b"[" + b"1," * 600 + b"1]"))
    with (
        client(httpserver.url_for(""), max_body=1000) as http,
        pytest.raises(UnexpectedAnswer, match="larger than 1,000 bytes"),
    ):
        http.get("/bill")


def test_a_gzip_bomb_is_left_at_the_limit(httpserver: HTTPServer) -> None:
    bomb = gzip.compress(b"[" + b" " * (64 << 20) + b"]")
    assert len(bomb) < 100_000
    answers(httpserver, json_body(bomb, Content_Encoding="gzip"))
    with (
        client(httpserver.url_for(""), max_body=1 << 20) as http,
        pytest.raises(UnexpectedAnswer, match="larger than 1,048,576 bytes"),
    ):
        http.get("/bill")


def test_of_a_gzip_bomb_a_little_is_decompressed_at_once(httpserver: HTTPServer) -> None:
    answers(httpserver, json_body(gzip.compress(b"[" + b" " * (250 << 20), 1), Content_Encoding="gzip"))
    with client(httpserver.url_for(""), max_body=1 << 20) as http:
        tracemalloc.start()
        try:
            with pytest.raises(UnexpectedAnswer, match="larger than 1,048,576 bytes"):
                http.get("/bill")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 40 << 20, "16 kB become 17 MB, and zlib doubles its room as it goes"


def test_a_body_that_is_not_compressed_as_it_says_is_no_answer(httpserver: HTTPServer, http: Http) -> None:
    answers(httpserver, json_body(b'{"total": 1}', Content_Encoding="gzip"))
    with pytest.raises(UnexpectedAnswer, match="cannot be decompressed"):
        http.get("/bill")


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_refused_and_no_credentials_go_where_it_points(status: int) -> None:
    with HTTPServer() as elsewhere, HTTPServer() as here:
        elsewhere.expect_request("/bill").respond_with_json({"total": 1})
        target = elsewhere.url_for("/bill")
        here.expect_request("/bill").respond_with_response(Response("", status, {"Location": target}))
        with client(here.url_for(""), auth=BasicAuth("id", SECRET)) as http, pytest.raises(Refused, match=str(status)):
            http.get("/bill")
        assert elsewhere.log == []


def test_a_link_to_another_host_is_refused_before_anything_is_sent(http: Http) -> None:
    with HTTPServer() as elsewhere:
        with pytest.raises(Refused, match="is not a host of this account; nothing was sent to it"):
            http.get(elsewhere.url_for("/bill"))
        assert elsewhere.log == []


@pytest.mark.parametrize("url", ["https://localhost:{port}/bill", "http://127.0.0.1:{port}/bill"])
def test_another_scheme_or_another_name_is_another_host(httpserver: HTTPServer, http: Http, url: str) -> None:
    with pytest.raises(Refused, match="not a host of this account"):
        http.get(url.format(port=httpserver.port))


def test_an_address_that_stands_in_a_query_is_no_other_host(httpserver: HTTPServer, http: Http) -> None:
    answers(httpserver, json_body())
    assert http.get("/bill?next=http://elsewhere/bill").status == 200


def test_a_cookie_is_not_sent_back(httpserver: HTTPServer, http: Http) -> None:
    httpserver.expect_request("/bill").respond_with_response(Response("{}", headers={"Set-Cookie": "who=you; Path=/"}))
    for _ in range(2):
        http.get("/bill")
    assert not any("Cookie" in request.headers for request, _ in httpserver.log)


def test_a_further_host_of_the_account_may_be_asked(httpserver: HTTPServer) -> None:
    answers(httpserver, json_body())
    with client("http://127.0.0.1:9", other_hosts=[httpserver.url_for("/token")]) as http:
        assert http.get(httpserver.url_for("/bill")).status == 200


def test_requests_of_two_clients_and_two_processes_share_one_limit(httpserver: HTTPServer, tmp_path: Path) -> None:
    requests, seconds = 6, 1.5
    times = answers(httpserver, json_body())
    program = (
        "import sys, datetime; from pathlib import Path; from billing_pipeline.transport import Http\n"
        "limits, now = [(int(sys.argv[3]), float(sys.argv[4]))], lambda: datetime.datetime.now(datetime.UTC)\n"
        "with Http(sys.argv[1], limits=limits, now=now, bucket=Path(sys.argv[2])) as http:\n"
        "    [http.get('/bill') for _ in range(8)]\n"
    )
    given = [httpserver.url_for(""), str(tmp_path / "bucket.sqlite"), str(requests), str(seconds)]
    arguments = [sys.executable, "-W", "error", "-c", program, *given]
    processes = [subprocess.Popen(arguments) for _ in range(2)]  # noqa: S603
    assert [process.wait(60) for process in processes] == [0, 0]
    assert len(times) == 16
    # A tenth of the window is left to the way from the limiter to the server, which a busy machine makes longer.
    assert all(later - earlier >= seconds * 0.9 for earlier, later in zip(times, times[requests:], strict=False))


def test_every_try_counts_against_the_limit_also_the_repeated_ones(httpserver: HTTPServer, tmp_path: Path) -> None:
    times = answers(httpserver, json_body(b"{}", 503), json_body(b"{}", 503), json_body())
    with client(httpserver.url_for(""), limits=[(2, 1)], bucket=tmp_path / "bucket.sqlite") as http:
        http.get("/bill")
    assert len(times) == 3
    assert times[2] - times[0] >= 0.9


def test_several_limits_hold_at_once(httpserver: HTTPServer) -> None:
    times = answers(httpserver, json_body())
    with client(httpserver.url_for(""), limits=[(2, 0.2), (4, 1.0), (100, 0.5)]) as http:
        for _ in range(6):
            http.get("/bill")
    assert times[2] - times[0] >= 0.18
    assert times[4] - times[0] >= 0.9


@pytest.mark.parametrize(
    "secret", ['S3CR3T/plivo+tok=en"1', "S3CR3T<&>' ü+x", "aaaaaaaa", "\\back/sl+ash\\", "S3CR3T😀89"], ids=range(5)
)
def test_a_secret_is_taken_out_however_it_is_written(secret: str) -> None:
    once = json.dumps(secret)
    written = [
        *(secret, once, json.dumps(once), json.dumps(json.dumps(once)), json.dumps(secret, ensure_ascii=False)),
        *(quote(secret), quote(secret, safe=""), quote_plus(secret), quote(quote(secret)), quote(once)),
        *(html.escape(secret), html.escape(once), secret.encode().hex()),
    ]
    for text in written:
        assert cleaned(f"they said {text}, so", [secret]).count("***") == 1, text
        assert cleaned(f"they said {text}, so", [secret]).endswith(", so"), text
    for before in ("", "i", "id", "id:", "MAACMERETAILSANDBOX1:"):
        for after in ("", "\n", ":x", "xyz"):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                text = encode(f"{before}{secret}{after}".encode()).decode()
                told = cleaned(text, [secret])
                assert told.endswith("***"), (before, after, told)
                # What is left is of what stood before it, and at most six of its bits.
                assert len(told) - 3 <= (8 * len(before) + 17) // 6, (before, after, told)


def test_a_text_without_the_secret_is_left_as_it_is() -> None:
    text = '401 from GET api.example.com/v1/bill?month=2026-05: {"error": "no", "id": "c87b7378-30d0-41f2"} \\ % &amp; Grüße'
    assert cleaned(text, ['S3CR3T/plivo+tok=en"1', "", "sandbox-plivo-main-token"]) == text


class _Document(msgspec.Struct):
    rows: list[int]


_DOCUMENT = msgspec.json.Decoder(_Document)


def test_a_body_is_read_once_and_comes_as_what_the_decoder_made_of_it(httpserver: HTTPServer, http: Http) -> None:
    answers(httpserver, json_body(b'{"rows": [1, 2]}'))
    assert http.get("/bill", decoder=_DOCUMENT).read() == _Document([1, 2])


@pytest.mark.parametrize(
    "body", [b'{"rows": "none"}', b'{"rows": [1, "\xff"]}', b'{"\xff": 1}'], ids=["kind", "text", "key"]
)
def test_what_the_decoder_refuses_comes_with_its_reason(httpserver: HTTPServer, http: Http, body: bytes) -> None:
    answers(httpserver, json_body(body))
    answer = http.get("/bill", decoder=_DOCUMENT)
    assert answer.body == body
    with pytest.raises((msgspec.ValidationError, UnicodeDecodeError)):
        answer.read()


def test_half_a_body_is_none_also_where_the_decoder_gave_up_before_its_end(httpserver: HTTPServer, http: Http) -> None:
    answers(httpserver, json_body(b'{"rows": "none", "more'))
    with pytest.raises(UnexpectedAnswer, match="no whole JSON document"):
        http.get("/bill", decoder=_DOCUMENT)
