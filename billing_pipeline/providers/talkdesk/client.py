"""Talkdesk's client: which host is asked, and with which token.

Source: https://docs.talkdesk.com/docs/how-to-guarantee-your-app-works-in-all-regions and
https://docs.talkdesk.com/reference/cc-basic (read 2026-11).
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Generator, Mapping
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr, model_validator

from ... import shapes
from ...answers import Refused, Unavailable, UnexpectedAnswer
from ...provider import Settings, Url
from ...redaction import cleaned
from ...transport import Auth, Request, Response

HOSTS = {"us": "https://api.talkdeskapp.com", "eu": "https://api.talkdeskapp.eu", "ca": "https://api.talkdeskappca.com"}
TOKEN_HOSTS = {"talkdeskid.com": "us", "talkdeskid.eu": "eu", "talkdeskidca.com": "ca", "talkdeskid.au": "au"}
SCOPE = "express-accounts-usage:read"


class TalkdeskSettings(Settings):
    """One OAuth client: of an organization (all its accounts), or of one account. Never both: every account came twice.

    Attributes:
        region: whose API host is asked when `base_url` is not given.
        token_url: the account's token endpoint, such as https://ACCOUNT.talkdeskid.com/oauth/token.
        client_id, client_secret: of a client with the scope express-accounts-usage:read.
        query: further query parameters, for Talkdesk's page names none; `{month}` in a value becomes the asked YYYY-MM.
    """

    region: Literal["us", "eu", "ca"] = "us"
    token_url: Url
    client_id: SecretStr
    client_secret: SecretStr
    query: Mapping[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _host_of_region(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("base_url"):
            return given
        region = given.get("region", "us")
        # At another region's host the same client finds nothing, or an empty list that looks like a month without cost.
        host = urlsplit(str(given.get("token_url", ""))).hostname or ""
        home = next((r for ending, r in TOKEN_HOSTS.items() if host.endswith("." + ending)), region)
        if home != region and region in HOSTS:
            raise ValueError(
                f"token_url is of region {home!r}, but region is {region!r}: set region = {home!r}"
                if home in HOSTS
                else f"no API host of region {home!r} is documented: ask Talkdesk and set base_url"
            )
        return {**given, "base_url": HOSTS.get(region, HOSTS["us"])}


class _Token(msgspec.Struct):
    access_token: str = ""
    expires_in: Decimal | None = None
    error: str = ""
    error_description: str = ""


class ClientCredentials(Auth):
    """OAuth2 client credentials: one token for many pages, renewed before it ends and once when it is refused.

    Args:
        settings: the account's.
        now: seconds on a clock that never goes back; used for the token's life alone.
        scope: what the token is asked for; one that was not granted would make the server refuse the others with it.

    Raises (while a request is sent):
        Refused: the token endpoint refuses the client. A second 401 of the API itself is the transport's `Refused`.
        Unavailable: the token endpoint does not answer.
        UnexpectedAnswer: it answers something that is no token.

    Source: https://docs.talkdesk.com/reference/cc-basic (read 2026-11)
    """

    def __init__(
        self, settings: TalkdeskSettings, now: Callable[[], float] = time.monotonic, scope: str = SCOPE
    ) -> None:
        self._settings = settings
        self._scope = scope
        self._now = now
        self._bearer = ""
        self._renew_at = now()

    def sync_auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """The request with a token; after a 401 once more, the same request, with a new one."""
        if self._now() >= self._renew_at:
            yield from self._renewed(request)
        request.headers["Authorization"] = self._bearer
        response = yield request
        if response.status_code == 401:
            yield from self._renewed(request)
            request.headers["Authorization"] = self._bearer
            yield request

    def _renewed(self, request: Request) -> Generator[Request, Response, None]:
        asked_at = self._now()
        pair = f"{self._settings.client_id.get_secret_value()}:{self._settings.client_secret.get_secret_value()}"
        response = yield Request(
            "POST",
            self._settings.token_url,
            data={"grant_type": "client_credentials", "scope": self._scope},
            headers={
                "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
                "Accept": "application/json",
                "User-Agent": request.headers["User-Agent"],
            },
            extensions={"timeout": request.extensions["timeout"]},  # without it httpx would wait for ever
        )
        where = f"POST {response.request.url.host}{response.request.url.path} (token_url)"
        try:
            token = shapes.read(response.read(), _Token, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError):
            token = _Token(error="the answer is not JSON as an OAuth2 server sends it")
        if response.status_code == 429 or response.status_code >= 500:
            raise Unavailable(f"{where}: still {response.status_code} after all retries")
        if not response.is_success:
            said = ": ".join(filter(None, (token.error, token.error_description))) or "it gives no reason"
            said = cleaned(said, [*self._settings.secrets(), pair, base64.b64encode(pair.encode()).decode()])
            raise Refused(
                f"{response.status_code} from {where}: no token ({said[:300]}): check token_url, "
                f"client_id and client_secret, and that the client has the scope {self._scope}",
                response.status_code,
            )
        if not token.access_token:
            raise UnexpectedAnswer(
                f"{where}: status {response.status_code}, but no access_token; is it the token endpoint?"
            )
        self._bearer = f"Bearer {token.access_token}"
        life = Decimal(600) if token.expires_in is None else token.expires_in  # "access tokens live 10 minutes"
        # A minute early, so that no page is asked with a token that ends under way; a tenth of a life that is shorter.
        self._renew_at = asked_at + int(life - min(Decimal(60), life / 10))
