"""What a shell offers after TAB: providers, accounts and months, out of accounts.toml and the names of folders in data/raw.

Nobody is asked over the network, and nothing heavy is imported. Whatever cannot be read is offered less of: a mistake in
accounts.toml is told by the commands, not by the TAB key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from typing import Any

from . import environment
from .period import BillingPeriod


def providers() -> list[str]:
    """Every provider of which there is an account."""
    return sorted({provider for provider, _ in _known()})


def names(ctx: Any) -> list[str]:
    """The names of the accounts, of those providers that were typed before."""
    return sorted({name for provider, name in _known() if provider in (ctx.params.get("provider") or [provider])})


def accounts() -> list[str]:
    """Every account as PROVIDER/ACCOUNT."""
    return sorted("/".join(account) for account in _known())


def months(ctx: Any) -> list[str]:
    """The months that were fetched, of those accounts that were typed before, and those from history_from to this one."""
    typed = ctx.params.get("account")
    found = set(_asked())
    for folder in _folders("*/*/[0-9]*-[0-9]*"):
        provider, name = folder.parts[-3:-1]
        named = not typed or typed == f"{provider}/{name}" or name in typed  # one argument, or options
        if named and provider in (ctx.params.get("provider") or [provider]):
            found.add(folder.name)
    return sorted(found, reverse=True)


def _asked() -> Iterator[str]:
    # A file that is being edited says nothing yet.
    with suppress(Exception):
        month = BillingPeriod.parse(tomllib.loads(environment.accounts_written())["history_from"])
        while month <= BillingPeriod.of(environment.now(), UTC):
            yield str(month)
            month = month.plus(1)


def _known() -> set[tuple[str, str]]:
    found = {(folder.parent.name, folder.name) for folder in _folders("*/*")}
    with suppress(Exception):
        written = tomllib.loads(environment.accounts_written())["account"]
        found |= {(str(account["provider"]), str(account["name"])) for account in written}
    # What a shell would take for something else is not offered.
    return {account for account in found if all(re.fullmatch(r"[\w-]+", part) for part in account)}


def _folders(pattern: str) -> list[Any]:
    with suppress(Exception):
        return [folder for folder in (environment.data_folder() / "raw").glob(pattern) if folder.is_dir()]
    return []
