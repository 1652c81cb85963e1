"""How we speak HTTP: time limits, retries, rate limits, bounded bodies, credentials to the configured host alone.

The only module that imports httpx, so that its successor is one file away.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import inf
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import httpcore
import httpx
import msgspec
from httpx import Auth, BasicAuth, Request, Response
from httpx_retries import Retry, RetryTransport

from .answers import Answer, Refused, Unavailable, UnexpectedAnswer
from .deadline import Connections, Deadline
from .pace import WORTH_TELLING, Pace, Waiting
from .progress import Window
from .redaction import cleaned

__all__ = ["Auth", "BasicAuth", "Http", "Patience", "Request", "Response", "post_once"]

MAX_BODY = 64 << 20  # a page is under a megabyte by every document; the limit is against a server gone mad
# Bytes that are decompressed at once, before it is asked how many they have become: up to a thousand times as many.
LITTLE = 1 << 14
TIMEOUT = httpx.Timeout(60, connect=15)
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "User-Agent": "billing-pipeline",
}
_WHOLE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")  # an address with its host
AGAIN = 1.0  # seconds; whether another run was told of a rest is not looked up for every one of a thousand requests
LONGEST_REST = timedelta(days=1)  # a Retry-After of years is a mistake, and must not lose a month
_OF_THE_WAY = (b"content-encoding", b"content-length", b"transfer-encoding")  # said of the body as it travelled
Site = tuple[str, str, int]  # scheme, host, port
_JSON = msgspec.json.Decoder(msgspec.Raw)  # looks at every byte, and makes nothing of it
RETRIED = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a provider that does not answer is asked again.

    Attributes:
        retries: how often a request is repeated on 429, 5xx and broken connections.
        backoff: first wait in seconds, doubled each time, with full jitter; Retry-After is obeyed when sent.
        longest: seconds that one of these waits may have at most; Retry-After may be longer.
        budget: seconds of waiting in all before a request is given up.
        answer: seconds that one try may take, from the connection to the last byte, however the bytes come.
        sleep: how a wait is waited.
    """

    retries: int = 6
    backoff: float = 1.0
    longest: float = 60.0
    budget: float = 600.0
    answer: float = 180.0
    sleep: Callable[[float], None] = time.sleep


class Http:
    """A client of one account.

    Args:
        base_url: the account's host. A request to any other host than this and `other_hosts` is refused before it leaves.
        limits: (requests, seconds) windows, all of which hold at once, also across processes that share `bucket`.
        now: the clock; aware.
        bucket: SQLite file that remembers recent requests; None: this object's memory alone.
        other_hosts: addresses of further hosts that belong to the account (Talkdesk's token host).
        secrets: texts that must never appear in an error.
        patience: how long a provider that does not answer is asked again.
        max_body: bytes that one answer may have, decompressed.
        waiting: called with seconds and the reason before every wait of a second or more.
    """

    def __init__(
        self,
        base_url: str,
        *,
        limits: Iterable[tuple[int, float]],
        now: Any,
        bucket: Path | None = None,
        other_hosts: Iterable[str] = (),
        secrets: Iterable[str] = (),
        headers: Mapping[str, str] | None = None,
        auth: Auth | None = None,
        patience: Patience = Patience(),
        max_body: int = MAX_BODY,
        waiting: Waiting = lambda seconds, why: None,
    ) -> None:
        self.base_url = base_url
        self._now = now
        self._hosts = {_site(httpx.URL(url)) for url in (base_url, *other_hosts)}
        self._secrets = {secret for secret in secrets if secret}
        self._pace = Pace(limits, bucket, waiting)
        rest = _Rest(bucket.with_suffix(".rest") if bucket else None, now)
        guard = _Guard(self._hosts, self._pace, patience, rest, max_body, now, self._secrets)
        retry = _Retry(
            total=patience.retries,
            backoff_factor=patience.backoff,
            max_backoff_wait=patience.budget,  # would also cut Retry-After short; `longest` is for our own waits
            total_timeout=patience.budget,
            status_forcelist=RETRIED,
            allowed_methods=("GET", "POST"),  # the only POSTs are Infobip's read-only query and a token: harmless twice
        )
        retry.patience = patience
        retry.waiting = waiting
        self._transport = RetryTransport(guard, retry)
        self._auth = auth or Auth()
        self._headers = httpx.Headers(_HEADERS | dict(headers or {}))

    def __enter__(self) -> Http:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and the memory of recent requests."""
        self._transport.close()
        self._pace.close()

    def window(self) -> Window:
        """The tightest rate limit as it stands at this instant."""
        return self._pace.window()

    def get(
        self,
        path: str,
        params: Mapping[str, str | int] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        decoder: msgspec.json.Decoder[Any] = _JSON,
    ) -> Answer:
        """The complete JSON answer to a GET.

        Args:
            path: below base_url, or a whole address on one of the account's hosts.
            params: the query.
            headers: further headers.
            decoder: for `Answer.read`. Who has to look into the body anyhow spares it one of two readings.

        Raises:
            Refused: 3xx, or 4xx other than 408, 425, 429: repeating cannot help.
            Unavailable: still 429 or 5xx, or no connection, after all retries.
            UnexpectedAnswer: a good status with a body that is empty, too large, cut off or not JSON.
        """
        return self._send("GET", path, params=params, headers=headers, decoder=decoder)

    def post(self, path: str, document: object, *, secrets: Iterable[str] = ()) -> Answer:
        """The complete JSON answer to a POST of `document`, in which `secrets` are; raises like `get`."""
        self._secrets |= set(secrets)
        return self._send("POST", path, document=document)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        document: object = None,
        decoder: msgspec.json.Decoder[Any] = _JSON,
    ) -> Answer:
        address = path if _WHOLE.match(path) else f"{self.base_url.rstrip('/')}/{path.lstrip('/')}"
        request = Request(
            method,
            f"{address}?{urlencode(params)}" if params else address,
            headers=self._headers,
            json=document,
            extensions={"timeout": TIMEOUT.as_dict()},
        )
        if headers:
            request.headers.update(headers)
        shown = f"{method} {request.url.raw_path.decode()}"
        try:
            return self._read(request, shown, decoder)
        except httpx.TransportError as error:
            # Which of the account's hosts: the one that gives tokens is asked on the way to the other.
            asked = _where(error.request)
            said = self._clean(str(error)) or type(error).__name__
            late = isinstance(error, httpx.TimeoutException)
            failed = "no complete answer in time" if late else "the connection failed"
            problem = f"{asked}: {failed}, also after all retries ({said})"
        raise Unavailable(problem)  # not while that error is handled: a traceback would show what it holds

    def _sent(self, request: Request) -> Response:
        """What httpx.Client does with a request, without its redirects, cookies and events, which nobody needs here.

        With the address put together once, it is 0.05 ms of CPU a request instead of 0.16.
        """
        flow = self._auth.sync_auth_flow(request)
        try:
            asked = next(flow)
            while True:
                try:
                    response = self._transport.handle_request(asked)
                except httpx.TransportError as error:
                    error.request = asked
                    raise
                response.request = asked
                try:
                    asked = flow.send(response)
                except StopIteration:
                    return response
        finally:
            flow.close()

    def _read(self, request: Request, shown: str, decoder: msgspec.json.Decoder[Any]) -> Answer:
        try:
            response = self._sent(request)
        except httpx.DecodingError as error:
            raise UnexpectedAnswer(f"{self._asked(request)}: the body cannot be decompressed: {error}") from error
        body, size = response.content, len(response.content)
        if response.status_code in RETRIED:
            raise Unavailable(
                f"{self._asked(request)}: still {response.status_code} after all retries ({self._excerpt(body)})"
            )
        if not response.is_success:
            raise Refused(
                f"{response.status_code} from {self._asked(request)}: {self._excerpt(body)}",
                response.status_code,
                self._clean(body[:20_000].decode(errors="replace"))[:5000],
            )
        if body.lstrip()[:1] not in (b"{", b"["):
            kind = self._clean(response.headers.get("content-type", "no content type"))
            raise UnexpectedAnswer(
                f"{self._asked(request)}: status {response.status_code}, but no JSON ({kind}, {size} bytes: "
                f"{self._excerpt(body)})"
            )
        try:
            document = _document(body, decoder)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UnexpectedAnswer(
                f"{self._asked(request)}: the body is no whole JSON document ({error}; {size} bytes)"
            ) from error
        return Answer(response.status_code, body, self._clean(shown), self._now(), document)

    def _excerpt(self, body: bytes) -> str:
        shown = body[:20_000].decode(errors="replace")
        with suppress(ValueError, RecursionError):
            shown = json.dumps(json.loads(shown), ensure_ascii=False)  # so that no secret hides behind escapes
        # Cleaned before it is cut: half a secret would not be recognized.
        return re.sub(r"[\x00-\x1f\x7f]+", " ", self._clean(shown))[:500].strip() or "empty body"

    def _asked(self, request: Request) -> str:
        return self._clean(_where(request))

    def _clean(self, shown: str) -> str:
        return cleaned(shown, self._secrets)


def _document(body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """See `Answer.document`; msgspec.DecodeError, RecursionError: it is no whole JSON document."""
    try:
        return decoder.decode(body)
    except (msgspec.ValidationError, UnicodeDecodeError) as error:
        _JSON.decode(body)  # it may have given up before the end
        return error


_reading = Lock()


def _trusted(hosts: Iterable[Site]) -> ssl.SSLContext:
    """Whom to trust: nobody, where nobody is spoken to by https."""
    if not any(scheme == "https" for scheme, *_ in hosts):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with _reading:  # four accounts that begin at once would all read them
        return _certificates()


@lru_cache(maxsize=1)
def _certificates() -> ssl.SSLContext:
    """Once a process: reading them takes 32 ms, and a client is made for every month."""
    return httpx.create_ssl_context()


class _Guard(httpx.BaseTransport):
    """Below the retries, so that each try is paced, checked, and complete before it counts as an answer."""

    def __init__(
        self,
        hosts: set[Site],
        pace: Pace,
        patience: Patience,
        rest: _Rest,
        max_body: int,
        now: Callable[[], datetime],
        secrets: set[str],
    ) -> None:
        self._secrets = secrets
        self._hosts = hosts
        self._pace = pace
        self._patience = patience
        self._rest = rest
        self._max_body = max_body
        self._now = now
        self._deadline = Deadline(patience.answer)
        self._connections = Connections(self._deadline, _trusted(hosts))

    def handle_request(self, request: Request) -> Response:
        if _site(request.url) not in self._hosts:
            raise Refused(f"{request.url.host} is not a host of this account; nothing was sent to it", 0)
        # What is sent may be echoed: a token that was made on the way, and name and password in one word of base64.
        self._secrets |= {word for word in request.headers.get("Authorization", "").split()[1:] if word}
        if until := self._rest.until():
            raise Unavailable(
                f"{_where(request)}: not asked, for the provider does not want to be asked before {until:%Y-%m-%d %H:%M:%S %Z}; "
                "a run after that may succeed"
            )
        self._pace.take()
        self._deadline.start()
        response = self._answered(request)
        wait = self._retry_after(response) if response.status_code in RETRIED else 0
        response.extensions["retry_after"] = wait
        if wait > self._patience.budget:
            self._rest.take(wait)
            raise Unavailable(
                f"{_where(request)}: {response.status_code}, and not to be asked again for {wait:.0f} seconds; a run after that "
                "may succeed"
            )
        return response

    def _answered(self, request: Request) -> Response:
        """The answer, complete."""
        url = request.url
        asked = httpcore.Request(
            request.method,
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=request.content,
            extensions=request.extensions,
        )
        with _said_by_httpx():
            came = self._connections.answered(asked)
            try:
                pieces, size = [], 0
                for piece in _decompressed(came):  # a little at a time
                    size += len(piece)
                    if size > self._max_body:
                        raise UnexpectedAnswer(
                            f"{_where(request)}: the answer is larger than {self._max_body:,} bytes, and nothing of it was used. "
                            "A page has less than a megabyte: see what the provider sends there"
                        )
                    pieces.append(piece)
            finally:
                came.close()
        headers = [(name, value) for name, value in came.headers if name.lower() not in _OF_THE_WAY]
        return Response(came.status, headers=headers, content=b"".join(pieces))

    def _retry_after(self, response: Response) -> float:
        """The seconds that the provider wants to be left alone; 0 when it does not say, or nothing that can be read."""
        said = response.headers.get("Retry-After", "").strip()
        if said.isascii() and said.isdigit():
            return float(said[:12])
        with suppress(TypeError, ValueError):
            # By the provider's own clock, where it says it: ours may be wrong.
            now = _date(response.headers["Date"]) if "Date" in response.headers else self._now()
            return max(0.0, (_date(said) - now).total_seconds())
        return 0

    def close(self) -> None:
        self._connections.close()


def _decompressed(came: httpcore.Response) -> Iterator[bytes]:
    """The body as it comes."""
    if any(name.lower() == b"content-encoding" for name, _ in came.headers):
        little = (piece[at : at + LITTLE] for piece in came.iter_stream() for at in range(0, len(piece), LITTLE))
        return Response(came.status, headers=came.headers, content=little).iter_bytes()
    return came.iter_stream()


@contextmanager
def _said_by_httpx() -> Iterator[None]:
    """What goes wrong below is told as httpx tells it: its kinds of error have the same names."""
    try:
        yield
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise getattr(httpx, type(error).__name__)(str(error)) from error


def post_once(url: str, document: object, seconds: float) -> None:
    """POST a JSON document once, to an address that may be a secret; what is answered is not read.

    Raises:
        Unavailable: no connection in time, or another status than 2xx. The text names the host alone.
    """
    host = httpx.URL(url).host
    try:
        with (
            httpx.Client(timeout=seconds, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", url, json=document, headers={"User-Agent": "billing-pipeline"}) as response,
        ):
            if not response.is_success:
                raise Unavailable(f"{host} answered {response.status_code}")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unavailable(f"{host}: the connection failed ({type(error).__name__})") from None


class _Retry(Retry):
    """Full jitter below a cap, waited as the patience says."""

    patience: Patience
    waiting: Waiting

    def increment(self) -> _Retry:
        later = super().increment()
        assert isinstance(later, _Retry)  # noqa: S101
        later.patience, later.waiting = self.patience, self.waiting
        return later

    def backoff_strategy(self) -> float:
        return random.uniform(0, min(self.patience.longest, self.backoff_factor * 2**self.attempts_made))  # noqa: S311

    def sleep(self, response: Response | Exception) -> None:
        asked = response.extensions["retry_after"] if isinstance(response, Response) else 0
        left = max(0.0, self.patience.budget - self.elapsed_sleep)
        seconds = min(asked or self.backoff_strategy(), left)
        if seconds >= WORTH_TELLING:
            came = f"{response.status_code} was answered" if isinstance(response, Response) else "the connection failed"
            self.waiting(seconds, came)
        self.patience.sleep(seconds)
        self.elapsed_sleep += seconds


class _Rest:
    """How long a provider wants to be left alone that said so with a longer Retry-After than a run can wait; for all runs.

    Args:
        file: where it is written down; None: only this object remembers.
        now: the clock; aware.
    """

    def __init__(self, file: Path | None, now: Callable[[], datetime]) -> None:
        self._file = file
        self._now = now
        self._until: datetime | None = None
        self._told: datetime | None = None
        self._looked = -inf

    def take(self, seconds: float) -> None:
        """Not before so many seconds have passed, at most a day."""
        self._told, self._until = None, self._now() + min(timedelta(seconds=min(seconds, 1e6)), LONGEST_REST)
        if self._file:
            self._file.write_text(self._until.isoformat())

    def until(self) -> datetime | None:
        """The end of a rest that is not over."""
        if self._file and time.monotonic() - self._looked > AGAIN:
            self._looked, self._told = time.monotonic(), None
            with suppress(OSError, ValueError):
                if self._file.exists():
                    self._told = datetime.fromisoformat(self._file.read_text())
        until = self._told or self._until
        # One that ends later than any can is of a clock that was wrong.
        return until if until and timedelta() < until - self._now() <= LONGEST_REST else None


def _date(text: str) -> datetime:
    """An HTTP date, which is always of Greenwich."""
    date = parsedate_to_datetime(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _where(request: Request) -> str:
    """What was asked, for an error: put together for one alone, for it takes longer than it looks."""
    return f"{request.method} {request.url.host}{request.url.path}"


def _site(url: httpx.URL) -> Site:
    return url.scheme, url.host, url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
