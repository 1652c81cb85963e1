"""How we speak HTTP: timeouts, retries, rate limits, bounded bodies, credentials to the configured host alone.

The only module that imports httpx, so that its successor is one file away.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from httpx import Auth, BasicAuth, Request, Response
from httpx_retries import Retry, RetryTransport
from pyrate_limiter import Limiter, Rate, SQLiteBucket

__all__ = [
    "Answer",
    "Auth",
    "BasicAuth",
    "Http",
    "Patience",
    "Refused",
    "Request",
    "Response",
    "Unavailable",
    "UnexpectedAnswer",
    "cleaned",
    "post_once",
]

MAX_BODY = 256 << 20  # a page is under a megabyte by every document; the limit is against a server gone mad
TIMEOUT = httpx.Timeout(60, connect=15)
_CREDENTIALS = re.compile(r"\b(Basic|Bearer)\s+[\w.~+/=-]+", re.IGNORECASE)  # a server that echoes our headers
RETRIED = (408, 425, 429, 500, 502, 503, 504)


class Refused(Exception):
    """The provider will not answer this request, and asking again cannot help: credentials, scope, parameters."""

    rerun = "no"
    remedy = "Mend what the answer names (key, scope, list of allowed addresses, parameters), then refresh the month"

    def __init__(self, message: str, status: int, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class Unavailable(Exception):
    """The provider did not answer, although asked several times; a later run may succeed."""

    rerun = "yes"
    remedy = "If it lasts, look at the provider's status page and at this machine's network"


class UnexpectedAnswer(Exception):
    """An answer with a good status that is not what the provider's page promises."""

    rerun = "once"
    remedy = "If it stays, the API has changed or something answers in its place: compare with the provider's page"


@dataclass(frozen=True)
class Answer:
    """A complete answer with status 2xx."""

    status: int
    body: bytes
    request: str
    headers: Mapping[str, str]
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a provider that does not answer is asked again.

    Attributes:
        retries: how often a request is repeated on 429, 5xx and broken connections.
        backoff: first wait in seconds, doubled each time, with full jitter; Retry-After is obeyed when sent.
        budget: seconds of waiting in all before a request is given up.
    """

    retries: int = 6
    backoff: float = 1.0
    budget: float = 600.0


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
    ) -> None:
        self.base_url = base_url
        self._now = now
        self._hosts = {_host(url) for url in (base_url, *other_hosts)}
        self._secrets = {secret for secret in secrets if secret}
        self._max_body = max_body
        rates = _rates(limits)
        if bucket is None:
            self._limiter = Limiter(rates)
        else:
            bucket.parent.mkdir(parents=True, exist_ok=True)
            self._limiter = Limiter(_bucket(rates, bucket))
        retry = Retry(
            total=patience.retries,
            backoff_factor=patience.backoff,
            max_backoff_wait=patience.budget,  # would also cut Retry-After short
            backoff_jitter=1.0,
            total_timeout=patience.budget,
            status_forcelist=RETRIED,
            allowed_methods=("GET", "POST"),  # the only POSTs are Infobip's read-only query and a token: harmless twice
        )
        guard = _Guard(httpx.HTTPTransport(retries=0), self._hosts, self._limiter, retry, self._secrets)
        self._client = httpx.Client(
            base_url=base_url,
            transport=RetryTransport(guard, retry),
            timeout=TIMEOUT,
            headers={"Accept": "application/json", "User-Agent": "billing-pipeline", **(headers or {})},
            auth=auth,
            follow_redirects=False,
            trust_env=False,
        )

    def __enter__(self) -> Http:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and the memory of recent requests."""
        self._client.close()
        self._limiter.close()

    def get(
        self, path: str, params: Mapping[str, str | int] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The complete JSON answer to a GET.

        Args:
            path: below base_url, or a whole address on one of the account's hosts.
            params: the query.
            headers: further headers.

        Raises:
            Refused: 3xx, or 4xx other than 408, 425, 429: repeating cannot help.
            Unavailable: still 429 or 5xx, or no connection, after all retries.
            UnexpectedAnswer: a good status with a body that is empty, too large, cut off or not JSON.
        """
        return self._send("GET", path, params=params, headers=headers)

    def post(self, path: str, document: object) -> Answer:
        """The complete JSON answer to a POST of `document`; raises like `get`."""
        return self._send("POST", path, document=document)

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        document: object = None,
    ) -> Answer:
        request = self._client.build_request(method, path, params=params, headers=headers, json=document)
        shown = f"{method} {request.url.raw_path.decode()}"
        where = self._clean(f"{method} {request.url.host}{request.url.path}")
        for last in (
            False,
            True,
        ):  # a body that breaks off is not retried by the transport: ask once more for the whole
            try:
                return self._read(request, shown, where)
            except httpx.TransportError as error:
                # Which of the account's hosts: the one that gives tokens is asked on the way to the other.
                asked = f"{error.request.method} {error.request.url.host}{error.request.url.path}"
                if isinstance(error, httpx.TimeoutException):
                    problem = f"{asked}: no complete answer in time ({type(error).__name__})"
                else:
                    problem = f"{asked}: the connection failed ({self._clean(str(error)) or type(error).__name__})"
            if last:
                raise Unavailable(problem)
        raise AssertionError  # unreachable

    def _read(self, request: Request, shown: str, where: str) -> Answer:
        response = self._client.send(request, stream=True)
        try:
            pieces, size = [], 0
            for piece in response.iter_bytes():
                size += len(piece)
                if size > self._max_body:
                    raise UnexpectedAnswer(f"{where}: the answer is larger than {self._max_body:,} bytes")
                pieces.append(piece)
        except httpx.DecodingError as error:
            raise UnexpectedAnswer(f"{where}: the body cannot be decompressed: {error}") from error
        finally:
            response.close()
        body = b"".join(pieces)
        if response.status_code in RETRIED:
            raise Unavailable(f"{where}: still {response.status_code} after all retries ({self._excerpt(body)})")
        if not response.is_success:
            raise Refused(
                f"{response.status_code} from {where}: {self._excerpt(body)}",
                response.status_code,
                self._clean(body[:20_000].decode(errors="replace"))[:5000],
            )
        if body.lstrip()[:1] not in (b"{", b"["):
            kind = self._clean(response.headers.get("content-type", "no content type"))
            raise UnexpectedAnswer(
                f"{where}: status {response.status_code}, but no JSON ({kind}, {size} bytes: {self._excerpt(body)})"
            )
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError) as error:
            raise UnexpectedAnswer(f"{where}: the body is no whole JSON document ({error}; {size} bytes)") from error
        return Answer(response.status_code, body, self._clean(shown), dict(response.headers), self._now())

    def _excerpt(self, body: bytes) -> str:
        shown = body[:20_000].decode(errors="replace")
        with suppress(ValueError, RecursionError):
            shown = json.dumps(json.loads(shown), ensure_ascii=False)  # so that no secret hides behind escapes
        # Cleaned before it is cut: half a secret would not be recognized.
        return re.sub(r"[\x00-\x1f\x7f]+", " ", self._clean(shown))[:500].strip() or "empty body"

    def _clean(self, shown: str) -> str:
        return cleaned(shown, self._secrets)


class _Guard(httpx.BaseTransport):
    """Below the retries, so that each try is paced and checked."""

    def __init__(
        self, inner: httpx.BaseTransport, hosts: set[str], limiter: Limiter, retry: Retry, secrets: set[str]
    ) -> None:
        self._inner = inner
        self._secrets = secrets
        self._retry = retry
        self._hosts = hosts
        self._limiter = limiter

    def handle_request(self, request: Request) -> Response:
        if _host(str(request.url)) not in self._hosts:
            raise Refused(f"{request.url.host} is not a host of this account; nothing was sent to it", 0)
        # What is sent may be echoed: a token that was made on the way, and name and password in one word of base64.
        self._secrets |= {word for word in request.headers.get("Authorization", "").split()[1:] if word}
        self._limiter.try_acquire("requests")
        response = self._inner.handle_request(request)
        with suppress(ValueError):
            wait = self._retry.parse_retry_after(response.headers.get("Retry-After", ""))
            if response.status_code in RETRIED and wait > (self._retry.total_timeout or 0):
                response.close()
                raise Unavailable(
                    f"{request.method} {request.url.host}{request.url.path}: {response.status_code}, and not to be asked "
                    f"again for {wait:.0f} seconds"
                )
        return response

    def close(self) -> None:
        self._inner.close()


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


def _rates(limits: Iterable[tuple[int, float]]) -> list[Rate]:
    """Ascending windows without those that a longer one already implies (Plivo: 300 in 5 s beside 20 in 60 s)."""
    kept: list[tuple[int, float]] = []
    for requests, seconds in sorted(limits, key=lambda window: -window[1]):
        if not kept or requests < kept[-1][0]:
            kept.append((requests, seconds))
    # One per cent more time than documented, so that two clocks need not agree.
    return [Rate(requests, int(seconds * 1010)) for requests, seconds in reversed(kept)]


def cleaned(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets, however they are written, and without what looks like credentials."""
    for form in sorted({form for secret in secrets if secret for form in _forms(secret)}, key=len, reverse=True):
        text = text.replace(form, "***")
    return _CREDENTIALS.sub(r"\1 ***", text)


def _bucket(rates: list[Rate], path: Path) -> SQLiteBucket:
    """Recent requests on disk. Those of a clock that was put back since count as of now, not of a time to come."""
    bucket = SQLiteBucket.init_from_file(rates, db_path=str(path), use_file_lock=True)
    now = bucket.now()  # type: ignore[no-untyped-call]
    with bucket.lock, bucket.conn as db:
        db.execute("UPDATE rate_bucket SET item_timestamp = $1 WHERE item_timestamp > $1", [now])
    return bucket


def _forms(secret: str) -> set[str]:
    """How a secret may look in an answer that echoes it."""
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(secret.encode()).decode()}


def _host(url: str) -> str:
    parts = httpx.URL(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return f"{parts.scheme}://{parts.host}:{port}"
