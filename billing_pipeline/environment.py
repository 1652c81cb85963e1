"""The one place that reads environment variables, .env and the clock, and says where everything is."""

from __future__ import annotations

import os
import pwd
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dotenv import dotenv_values

from .misconfigured import WrongConfiguration
from .period import BillingPeriod

# Said before anybody imports pyarrow, which looks once. Its own allocator keeps what it has had: a million rows take 410 MB with
# it and 375 MB without, in the same time.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

# The line and all it stands on take 0.6 s to import, and completion in a shell has no use for it: it comes when asked for.
if TYPE_CHECKING:
    from .accounts import Configuration
    from .invoices import Invoice
    from .line import Line

SANDBOX = "http://127.0.0.1:8642"  # where the sandbox listens unless BILLING_SANDBOX says otherwise
# A built-in file, read without importing the sandbox; its secrets are public, being nobody's.
SANDBOX_ACCOUNTS = Path(__file__).with_name("sandbox") / "accounts.toml"
SANDBOX_MONTHS = 5  # without accounts.toml the history begins this many months before the running one


def line() -> Line:
    """The line for this machine: accounts, data folder and clock as the environment says.

    BILLING_ACCOUNTS (default ./accounts.toml), BILLING_INVOICES (default ./invoices.toml), BILLING_DATA (default ./data),
    BILLING_SANDBOX (where the sandbox listens),
    BILLING_NOW (an instant to pretend it is, to rehearse a month's end; only while every account is on loopback).
    A variable that is exported wins over the same one in ./.env.

    Raises:
        WrongConfiguration: naming the lines to mend.
    """
    from importlib.metadata import version

    from .line import Line
    from .providers import providers

    found = environment()
    now = _clock(found)
    configuration = _configuration(found, now)
    if found.get("BILLING_NOW") and not all(_loopback(s.base_url) for s in configuration.accounts):
        raise WrongConfiguration(
            "BILLING_NOW is set, but there are accounts of real providers: with a made-up clock their months would be closed "
            "too early or too late. Unset BILLING_NOW."
        )
    if configuration.history_from > BillingPeriod.of(now(), UTC).plus(1):
        raise WrongConfiguration(f"{configuration.source}: history_from is {configuration.history_from}: not yet begun")
    if re.search(r"[*?\[\]\x00-\x1f\x7f]", str(data_folder())):
        raise WrongConfiguration(
            f"BILLING_DATA: {str(data_folder())!r} has one of * ? [ ] or a control character in its name, which DuckDB takes for "
            "a pattern and not for a folder. Choose another folder."
        )
    built = Line(
        data_folder(),
        configuration,
        providers(),
        now,
        version("billing-pipeline"),
        # Read when it is needed: a mistake in it keeps no month from being fetched, and a change is seen by the next publication.
        invoices=lambda: _invoices(built),
    )
    _keep_apart(built)
    return built


def _invoices(line: Line) -> list[Invoice]:
    from .invoices import read

    path = invoices_file()
    if not path.exists():
        if environment().get("BILLING_INVOICES"):
            raise WrongConfiguration(f"BILLING_INVOICES names {path}, but there is no such file")
        return []
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongConfiguration(f"{path}: is not written in UTF-8: {error}") from error
    return read(text, path.name, known_accounts(line))


def invoices_file() -> Path:
    """Where invoices are written down; it need not be there."""
    return Path(environment().get("BILLING_INVOICES") or "invoices.toml").absolute()


def known_accounts(line: Line) -> set[tuple[str, str]]:
    """Provider and name of every account that is configured, or of which months are held."""
    held = {(partition.provider, partition.account) for partition in line.lake.partitions()}
    return held | {(settings.provider, settings.name) for settings in line.configuration.accounts}


def _keep_apart(line: Line) -> None:
    """Refuse to mix made-up charges (of the sandbox, or of a rehearsal on loopback) and real ones in one data folder.

    Months of the same provider and account name would be taken for each other: a made-up month that is final would never be
    asked of the real provider, and a job that starts in a folder without accounts.toml would overwrite real months.
    """
    configuration = line.configuration
    made_up = {(s.provider, s.name): _loopback(s.base_url) for s in configuration.accounts}
    for landing in line.landings.samples():
        account, source = (landing.partition.provider, landing.partition.account), landing.manifest.get("base_url")
        if not source or _loopback(source) == made_up.get(account, all(made_up.values())):
            continue
        kind, now = ("made-up", "real providers") if _loopback(source) else ("real", "this machine")
        raise WrongConfiguration(
            f"{line.data} holds {kind} charges of {'/'.join(account)}, fetched from {source}, but {configuration.source} names "
            f"{now}. The two would be taken for each other. Start where the right accounts.toml is, or name it in "
            "BILLING_ACCOUNTS; or name another data folder in BILLING_DATA"
            + (", or remove this one." if _loopback(source) else ".")
        )


def private() -> None:
    """What this process and those it starts write is for its owner alone: folders 0700, files 0600."""
    os.umask(0o077)


def spared() -> None:
    """Libraries do not do unasked what takes time, in this process and those it starts. Only where no code of others runs.

    pydantic would look for plugins in every installed package; numpy's OpenBLAS would start threads that spin (0.05 s of CPU),
    and nobody here multiplies matrices.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def environment() -> Mapping[str, str]:
    """Variables: those in ./.env, overridden by those that are exported."""
    written = {key: value for key, value in dotenv_values(".env", interpolate=False).items() if value is not None}
    return {**written, **os.environ}


def data_folder() -> Path:
    """Where everything is kept; absolute."""
    return Path(environment().get("BILLING_DATA") or "data").absolute()


def on_sandbox() -> bool:
    """True when there is no accounts.toml, so that the sandbox stands in for the providers."""
    return _accounts_file(environment()) is None


def accounts_written() -> str:
    """The text of accounts.toml as it stands, unchecked; without one that of the sandbox's accounts. For completion."""
    return (_accounts_file(environment()) or SANDBOX_ACCOUNTS).read_text("utf-8-sig")


def sandbox_address() -> str:
    """Where the sandbox listens."""
    return environment().get("BILLING_SANDBOX") or SANDBOX


def _accounts_file(found: Mapping[str, str]) -> Path | None:
    named = found.get("BILLING_ACCOUNTS")
    path = Path(named or "accounts.toml")
    if path.is_file():
        return path
    if named:
        raise WrongConfiguration(
            f"BILLING_ACCOUNTS names {named}, but there is no such file (accounts.example.toml shows one)"
        )
    return None


def _configuration(found: Mapping[str, str], now: Callable[[], datetime]) -> Configuration:
    from .accounts import read
    from .providers import providers

    path = _accounts_file(found)
    if path:
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise WrongConfiguration(f"{path}: is not written in UTF-8: {error}") from error
        return read(text, str(path), found, providers())
    return sandbox_configuration(sandbox_address(), now())


def sandbox_configuration(address: str, now: datetime) -> Configuration:
    """The accounts of a sandbox at `address`; answers by callback are received on the port after its own."""
    from .accounts import read
    from .providers import providers

    text = SANDBOX_ACCOUNTS.read_text()
    filled = {
        "@HISTORY@": str(BillingPeriod.of(now, UTC).plus(-SANDBOX_MONTHS)),
        "@SANDBOX@": address,
        "@CALLBACKS@": f"127.0.0.1:{port(address) + 1}",
    }
    for hole, value in filled.items():
        text = text.replace(hole, value)
    secrets = {
        value["env"]: value["env"].lower().replace("_", "-")
        for account in tomllib.loads(text)["account"]
        for value in account.values()
        if isinstance(value, dict) and "env" in value
    }
    return read(text, "the sandbox's accounts.toml", secrets, providers())


def _clock(found: Mapping[str, str]) -> Callable[[], datetime]:
    pretended = found.get("BILLING_NOW")
    if not pretended:
        return lambda: datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(pretended)
    except ValueError as error:
        raise WrongConfiguration(
            f"BILLING_NOW is {pretended!r}, which is no instant such as 2026-06-03T06:00:00Z"
        ) from error
    if instant.tzinfo is None:
        raise WrongConfiguration(f"BILLING_NOW is {pretended!r}: it needs a time zone, such as 2026-06-03T06:00:00Z")
    return lambda: instant.astimezone(UTC)


def _loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def port(address: str) -> int:
    """The port of an address."""
    return urlsplit(address).port or 80


def listens(address: str) -> bool:
    """Whether somebody accepts connections there."""
    parts = urlsplit(address)
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((parts.hostname or "127.0.0.1", port(address))) == 0


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def person() -> str:
    """Who runs this program, as the operating system calls them."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a number that has no name
        return str(os.getuid())


def pretended() -> datetime | None:
    """The instant that BILLING_NOW pretends it is; None when the clock is the real one."""
    found = environment()
    return _clock(found)() if found.get("BILLING_NOW") else None


def now() -> datetime:
    """The instant that this program takes for the present one; UTC."""
    return _clock(environment())()
