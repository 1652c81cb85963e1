"""accounts.toml: which accounts of which providers, with which secrets. Pure: text and environment are passed in."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr, ValidationError

from .period import BillingPeriod
from .provider import Provider, Settings

_TOP = {"history_from", "account"}


class WrongConfiguration(Exception):
    """accounts.toml cannot be used as it is. The text has one line per problem, each with the line of the file to mend."""

    rerun = "no"
    remedy = "Mend what is named; nothing was fetched"


@dataclass(frozen=True)
class Configuration:
    """What accounts.toml says.

    Attributes:
        history_from: the first month that is asked for.
        accounts: in the order of the file, each of its provider's settings class.
        source: the file, for messages.
    """

    history_from: BillingPeriod
    accounts: tuple[Settings, ...]
    source: str

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
    if problems:
        raise WrongConfiguration("\n".join(f"{source}:{line}: {problem}" for line, problem in sorted(problems)))
    return Configuration(history, tuple(accounts), source)


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
    kind = providers[name].settings
    values: dict[str, Any] = {}
    before = len(problems)
    for key, value in block.items():
        field = kind.model_fields.get(key)
        line = lines.key(number, key)
        if isinstance(value, dict) and set(value) == {"env"}:
            variable = str(value["env"])
            if not environment.get(variable):
                problems.append((line, f"{key}: the environment variable {variable} is not set (see .env.example)"))
            values[key] = environment.get(variable, "")
        elif field is not None and field.annotation is SecretStr:
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
            }.get(item["type"], f"{where}: {item['msg'].removeprefix('Value error, ')}".removeprefix(": "))
            problems.append((lines.key(number, key), what))
        return None


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

    def _find(self, key: str, first: int, last: int) -> Iterator[int]:
        pattern = re.compile(rf"""\s*(\[account\.)?["']?{re.escape(key)}["']?\s*[.=\]]""")
        return (n for n in range(first, last + 1) if pattern.match(self._lines[n - 1]))
