"""accounts.toml: which accounts of which providers, with which secrets. Pure: text and environment are passed in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from .misconfigured import WrongConfiguration as WrongConfiguration  # here it is looked for
from .period import BillingPeriod
from .provider import Provider, Settings, web_address

T = TypeVar("T", bound=BaseModel)
PATTERNS = {
    "name": "letters and digits (A-Z, a-z, 0-9), with single - or _ between them",
    "email_to": "an address such as billing@example.com",
    "email_from": "an address such as billing@example.com",
    "smtp_host": "the name of a host",
}
"""What a key may hold, where its settings class says so with a pattern."""
_TOP = {"history_from", "account", "alerts"}


def _webhook(secret: SecretStr) -> SecretStr:
    try:
        web_address(secret.get_secret_value().partition("?")[0])
    except ValueError:  # whose text might hold a piece of it
        raise ValueError("its variable must hold an https address (http is for loopback only)") from None
    return secret


Webhook = Annotated[SecretStr, AfterValidator(_webhook)]
Mailbox = Annotated[str, Field(pattern=r"^[^@\s,;:<>()\"\x00-\x1f\x7f]+@[A-Za-z0-9.-]+$", max_length=254)]


class AlertSettings(BaseModel):
    """[alerts]: where a person is told of what is wrong; without it nobody is.

    Attributes:
        webhook: an address that gets a POST with a JSON document; whoever knows it may write there, so it is a secret.
        email_to, email_from: addresses.
        smtp_host, smtp_port, smtp_tls, smtp_user, smtp_password: the server that takes the mail. `starttls` (587), `tls` from the
            first byte (465), `none` on this machine only.
        drift_percent: a month that moves further than this after its end is told of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    webhook: Webhook | None = None
    email_to: tuple[Mailbox, ...] = ()
    email_from: Mailbox | None = None
    smtp_host: str = Field(default="", pattern=r"^[A-Za-z0-9.:-]*$")
    smtp_port: int = Field(default=587, gt=0, lt=65536)
    smtp_tls: Literal["starttls", "tls", "none"] = "starttls"
    smtp_user: str | None = None
    smtp_password: SecretStr | None = None
    drift_percent: Decimal = Field(default=Decimal(5), ge=0)

    @model_validator(mode="after")
    def _whole(self) -> AlertSettings:
        if not self.webhook and not self.email_to:
            raise ValueError("says neither webhook nor email_to, so nobody would be told")
        if self.email_to and not (self.smtp_host and self.email_from):
            raise ValueError("email_to needs smtp_host and email_from")
        if self.smtp_tls == "none" and self.smtp_host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError('smtp_tls = "none" is for a server on this machine only')
        if bool(self.smtp_user) != bool(self.smtp_password):
            raise ValueError("smtp_user and smtp_password belong together")
        return self

    def secrets(self) -> list[str]:
        """The values of all secrets, so that texts can be cleaned of them; of the webhook also its path alone."""
        values = [secret.get_secret_value() for secret in (self.webhook, self.smtp_password) if secret]
        path = urlsplit(self.webhook.get_secret_value()).path.strip("/") if self.webhook else ""
        return [*values, *([path] if len(path) > 11 else [])]


@dataclass(frozen=True)
class Configuration:
    """What accounts.toml says.

    Attributes:
        history_from: the first month that is asked for.
        accounts: in the order of the file, each of its provider's settings class.
        source: the file, for messages.
        alerts: where to tell a person what is wrong; None: nowhere.
    """

    history_from: BillingPeriod
    accounts: tuple[Settings, ...]
    source: str
    alerts: AlertSettings | None = None

    def account(self, provider: str, name: str) -> Settings:
        """The settings of one account; KeyError with the accounts there are."""
        for settings in self.accounts:
            if (settings.provider, settings.name) == (provider, name):
                return settings
        known = ", ".join(f"{s.provider}/{s.name}" for s in self.accounts)
        raise KeyError(f"{self.source} has no account {provider}/{name}; it has {known}")

    def disjoint(self, provider: str, name: str) -> set[str]:
        """The provider's other accounts that share no charge with this one, as either of the two says."""
        others = [s for s in self.accounts if s.provider == provider]
        named = {other for s in others if s.name == name for other in s.disjoint_from}
        return named | {s.name for s in others if name in s.disjoint_from}


def read(text: str, source: str, environment: Mapping[str, str], providers: Mapping[str, Provider]) -> Configuration:
    """The configuration in `text`, with every secret taken from `environment`.

    Raises:
        WrongConfiguration: naming every line to mend: a syntax error, an unknown provider or key, a literal secret, a
            variable that is not set, a value of the wrong kind, a name given twice, no such account in disjoint_from.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        stated = re.search(r" \(at line (\d+)", str(error))
        place = stated[1] if stated else str(len(text.splitlines()))  # "at end of document"
        raise WrongConfiguration(f"{source}:{place}: this is no TOML: {error}") from error
    lines = _Lines(text)
    problems = [
        (lines.top(key), f"unknown key {key!r}; known are {', '.join(sorted(_TOP))}")
        for key in document
        if key not in _TOP
    ]
    history = BillingPeriod(1970, 1)
    try:
        history = BillingPeriod.parse(str(document["history_from"]))
    except KeyError:
        problems.append((1, 'history_from = "YYYY-MM" is missing: the first month to ask for'))
    except ValueError as error:
        problems.append((lines.top("history_from"), f"history_from: {error}"))
    accounts: list[Settings] = []
    names: dict[tuple[str, str], int] = {}
    blocks = document.get("account", [])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise WrongConfiguration(f"{source}:{lines.top('account')}: accounts are written as [[account]] tables")
    if not blocks:
        problems.append((1, "there is no [[account]]"))
    written = {(str(block.get("provider")), str(block.get("name"))) for block in blocks}
    for number, block in enumerate(blocks):
        found: list[tuple[int, str]] = []
        settings = _account(block, number, lines, environment, providers, found)
        problems += found
        if settings is None:
            continue
        identity = (
            settings.provider,
            settings.name.replace("-", "_").lower(),
        )  # as asset names and file systems see it
        if identity in names:
            first = f"the account in line {names[identity]}"
            problems.append(
                (lines.key(number, "name"), f"{settings.provider}/{settings.name} has the same name as {first}")
            )
        names.setdefault(identity, lines.header(number))
        accounts.append(settings)
        for other in settings.disjoint_from:
            if other == settings.name or (settings.provider, other) not in written:
                what = f"disjoint_from: {settings.provider} has no other account {other!r}"
                problems.append((lines.key(number, "disjoint_from"), what))
    alerts = None
    if "alerts" in document:
        table = document["alerts"]
        if not isinstance(table, dict):
            problems.append((lines.top("alerts"), "alerts are written as a table, [alerts]"))
        else:
            where = lines.table("alerts")
            alerts = _settings(AlertSettings, "alerts", table, where, environment, problems)
    if problems:
        raise WrongConfiguration("\n".join(f"{source}:{line}: {problem}" for line, problem in sorted(problems)))
    return Configuration(history, tuple(accounts), source, alerts)


def _account(
    block: dict[str, Any],
    number: int,
    lines: _Lines,
    environment: Mapping[str, str],
    providers: Mapping[str, Provider],
    problems: list[tuple[int, str]],
) -> Settings | None:
    name = str(block.get("provider", ""))
    if name not in providers:
        known = ", ".join(providers)
        problems.append(
            (lines.key(number, "provider"), f"provider must be one of {known}" + (f", not {name!r}" if name else ""))
        )
        return None
    return _settings(providers[name].settings, name, block, lambda key: lines.key(number, key), environment, problems)


def _settings(
    kind: type[T],
    name: str,
    block: dict[str, Any],
    place: Callable[[str], int],
    environment: Mapping[str, str],
    problems: list[tuple[int, str]],
) -> T | None:
    """A table of the file as its settings class, secrets taken from the environment; None after a problem was added."""
    values: dict[str, Any] = {}
    before = len(problems)
    for key, value in block.items():
        field = kind.model_fields.get(key)
        line = place(key)
        if isinstance(value, dict) and set(value) == {"env"}:
            variable = str(value["env"])
            if not environment.get(variable):
                problems.append((line, f"{key}: the environment variable {variable} is not set (see .env.example)"))
            values[key] = environment.get(variable, "")
        elif field is not None and _secret(field.annotation):
            problems.append(
                (line, f'{key}: a secret is named here, never written: {key} = {{ env = "NAME_OF_A_VARIABLE" }}')
            )
        else:
            values[key] = value
    if len(problems) > before:
        return None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False, include_context=False):
            key = str(item["loc"][0]) if item["loc"] else "provider"
            where = ".".join(str(part) for part in item["loc"])
            what = {
                "extra_forbidden": f"unknown key {where!r}; {name} knows {', '.join(sorted(kind.model_fields))}",
                "missing": f"{where} is missing",
                "string_pattern_mismatch": f"{where}: must be {PATTERNS.get(key, item['msg'])}",
            }.get(item["type"], f"{where}: {item['msg'].removeprefix('Value error, ')}".removeprefix(": "))
            problems.append((place(key), what))
        return None


def _secret(annotation: Any) -> bool:
    """Whether a key holds a secret, also one that may be left out."""
    return annotation is SecretStr or any(_secret(part) for part in get_args(annotation))


class _Lines:
    """Where in the text a key stands: tomllib does not say."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._headers = [n for n, line in enumerate(self._lines, 1) if re.match(r"\s*\[\[\s*account\s*\]\]", line)]

    def top(self, key: str) -> int:
        last = self._headers[0] if self._headers else len(self._lines)
        return next(self._find(key, 1, last), 1)

    def header(self, number: int) -> int:
        return self._headers[number] if number < len(self._headers) else 1

    def key(self, number: int, key: str) -> int:
        following = self._headers[number + 1] if number + 1 < len(self._headers) else len(self._lines) + 1
        return next(self._find(key, self.header(number), following - 1), self.header(number))

    def table(self, name: str) -> Callable[[str], int]:
        """Where the keys of a table like [alerts] stand; its own line for a key that does not stand in it."""
        header = re.compile(rf"\s*\[\s*{name}\s*\]")
        first = next((n for n, line in enumerate(self._lines, 1) if header.match(line)), 1)
        after = (n for n, line in enumerate(self._lines[first:], first) if re.match(r"\s*\[", line))
        last = next(after, len(self._lines))
        return lambda key: next(self._find(key, first, last), first)

    def _find(self, key: str, first: int, last: int) -> Iterator[int]:
        pattern = re.compile(rf"""\s*(\[account\.)?["']?{re.escape(key)}["']?\s*[.=\]]""")
        return (n for n in range(first, last + 1) if pattern.match(self._lines[n - 1]))
