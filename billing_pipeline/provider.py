"""What a provider is: three functions and a few facts.

`fetch` reaches out, `parse` and `statement` only read what it brought. A provider's module is found by looking into
`billing_pipeline/providers/`; nothing else has to know it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Protocol, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from .finality import Calendar
from .period import BillingPeriod
from .progress import Saying, silent
from .reconcile import Statement

if TYPE_CHECKING:
    from .mailbox import Mailbox
    from .transport import Auth, Http


T = TypeVar("T")


class RateLimit(BaseModel):
    """At most `requests` in any `seconds`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    requests: int = Field(gt=0)
    seconds: float = Field(gt=0)


def web_address(url: str) -> str:
    """The address without a trailing slash; ValueError unless it is https, or http on loopback."""
    parts = urlsplit(url)
    odd = parts.query or parts.fragment or parts.username or re.search(r"\][^:]", parts.netloc)  # http://[::1].evil.com
    if (
        parts.scheme not in ("http", "https") or not parts.hostname or odd or parts.port == 0
    ):  # a port beyond 65535 raises
        raise ValueError("must be an address like https://api.example.com")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("must be https: credentials are sent to it (http is for loopback only)")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(web_address)]
"""https address without a trailing slash; http on loopback only, for credentials go there."""


class Settings(BaseModel):
    """What every account has in accounts.toml; each provider adds its own keys. Unknown keys are errors.

    Attributes:
        provider: the name of a module in `providers/`.
        name: unique within the provider; part of asset keys, paths and x_Account.
        base_url: where requests and credentials go, and nowhere else.
        rate_limit: instead of the provider's documented one.
        disjoint_from: names of the provider's other accounts whose charges are different ones, however alike they look.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    provider: str
    name: str = Field(pattern=r"^[A-Za-z0-9]+([_-][A-Za-z0-9]+)*$", max_length=60)
    base_url: Url
    rate_limit: RateLimit | None = None
    disjoint_from: tuple[str, ...] = ()

    def secrets(self) -> list[str]:
        """The values of all secrets, so that texts can be cleaned of them."""
        return [v.get_secret_value() for v in dict(self).values() if isinstance(v, SecretStr)]


class Openable(Protocol):
    """A large body on disk."""

    def open(self) -> BinaryIO:
        """The bytes as a stream, from their beginning."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """One answer of a provider: the bytes as they came, and what was asked to get them.

    Attributes:
        body: the bytes, or something to open that holds them (a callback may be too large for memory).
        request: method, path and parameters; never a secret.
        traversal: which walk over pages it belongs to; see `Restarted`.
        scope: whose bill, where one account's fetch walks several (YCloud: a managed account's id); None: its own.
        received_at: when it was complete.
        number: its place in the landing, from 1; given by the landing.
        facts: other things that reading needs and the bytes do not say (Infobip: the request's own id), or that were counted in
            them when they came. They are sealed with the landing, as the bytes are. `submitted_at` is
            the instant that counts for finality where it is not the start of the fetch (an answer by callback).
    """

    body: bytes | Path | Openable
    request: str
    received_at: datetime
    traversal: str = ""
    scope: str | None = None
    number: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)
    _made: dict[Callable[[bytes], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def open(self) -> BinaryIO:
        """The bytes as a stream, from their beginning."""
        if isinstance(self.body, bytes):
            return io.BytesIO(self.body)
        return self.body.open("rb") if isinstance(self.body, Path) else self.body.open()

    def read(self) -> bytes:
        """All the bytes; only for pages that are small by contract."""
        with self.open() as stream:
            return stream.read()

    def made(self, make: Callable[[bytes], T]) -> T:
        """What `make` makes of all the bytes, once for both who read a landing together; of a large body each time."""
        if not isinstance(self.body, bytes):
            return make(self.read())
        if make not in self._made:
            self._made[make] = make(self.read())
        found: T = self._made[make]
        return found


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """The walk `traversal` begins anew: its pages so far are kept as evidence, and are not read."""

    traversal: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Access:
    """All that `fetch` may use of the world.

    Attributes:
        settings: the account's, of the provider's own settings class.
        http: speaks to the account's hosts: paced, retried, bounded.
        now: the clock; aware.
        mailbox: answers that arrive by callback.
        progress: called before each request of a long walk with a short text ("page 12"), and with `rows`, how many it has
            counted so far, where it counts them anyway. Pages and requests are counted without it.
        afterwards: called with what is to be done once the landing is complete on disk, and never when it fails.
        landed: when the question of the month's newest landing was asked; None: nothing was landed yet.
        beside: whether the month's rows are made meanwhile, by `parse`. Whether one came twice may be left to it then: where it
            raises RowsMoved, the month is asked for again, and nobody reads beside.
    """

    settings: Settings
    http: Http
    now: Callable[[], datetime]
    mailbox: Mailbox
    progress: Saying = silent
    afterwards: Callable[[Callable[[], object]], object] = lambda step: step()
    landed: datetime | None = None
    beside: Callable[[], bool] = lambda: False


Pages = Iterable[Page]
"""The pages of a complete landing, in order, restarted walks left out. May be read more than once."""

Columns = Mapping[str, pa.Array]
"""Columns of `charges.SCHEMA` (what the provider knows of them), equally long, plus the helper `charges.UNKNOWN`."""


class RowsMoved(Exception):
    """The rows of a month moved while they were fetched, so what came is not of one state of it."""

    rerun = "yes"
    remedy = (
        "If it stays, ask for it by name (billing-pipeline refresh --period) at an hour when fewer messages are sent"
    )


class NotOffered(Exception):
    """The account's credentials do not reach a list that the provider offers to others. Nothing is wrong with the months."""


@dataclass(frozen=True, kw_only=True)
class InvoiceLine:
    """One line of one invoice, as a provider's own list of invoices has it.

    Attributes:
        number: the invoice's.
        period: the month that it is for.
        billing_account: the paying account that it is about, as charges have it in BillingAccountId.
        currency, total: the invoice's; the same on each of its lines.
        amount: the line's.
        product: as `x_Dimensions.product_id` of the charges that it covers; None: the line names none.
        description: what it is for.
        where: `<page>#<JSON pointer>` to it.
    """

    number: str
    period: BillingPeriod
    billing_account: str
    currency: str
    total: Decimal
    amount: Decimal
    product: str | None
    description: str | None
    where: str


@dataclass(frozen=True, kw_only=True)
class InvoiceList:
    """A provider's own list of invoices.

    Attributes:
        fetch: every page of it. Raises NotOffered where the account's credentials do not reach it.
        parse: the lines of all invoices out of the pages.
        auth: how its requests are authenticated, when otherwise than those for charges.
    """

    fetch: Callable[[Access], Iterator[Page | Restarted]]
    parse: Callable[[Pages], Iterator[InvoiceLine]]
    auth: Callable[[Any], Auth] | None = None


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One provider.

    Attributes:
        name: as in accounts.toml and in asset keys; the module's name.
        title: as its invoices write it.
        calendar: its clock, how long its months settle, its own flag, how long it serves them (with the source, as a comment).
        settings: the keys its accounts have.
        rate_limits: what its documents allow, all of them at once.
        fetch: every page that says something of the month, as it arrives. Yields nothing half: it raises instead.
        parse: the month's charges out of the pages, in batches; `landing` is the prefix of x_RowSource.
        statement: what the pages say they add up to, counted by another parser than `parse` uses.
        auth: how requests of this account are authenticated, when it is more than a header.
        headers: headers of every request of this account.
        hosts: further addresses besides base_url that belong to the account (Talkdesk's token endpoint).
        shareable: whether one traversal of this account answers for every month, so that a landing of another month that is
            only minutes old may serve; None: never.
        volatile: fields of x_Dimensions that change from fetch to fetch without meaning another charge.
        fields: into which columns each field of an answer goes, by its path in the JSON (`usage[].total_amount`). Published
            with every export, and held against the bytes by a test; empty: not stated.
        unused: fields that go into no column, with the reason.
        invoices: its list of invoices; None: its API has none.
    """

    name: str
    title: str
    calendar: Calendar
    settings: type[Settings]
    rate_limits: tuple[RateLimit, ...]
    fetch: Callable[[Access, BillingPeriod], Iterator[Page | Restarted]]
    parse: Callable[[Pages, BillingPeriod, str], Iterator[Columns]]
    statement: Callable[[Pages, BillingPeriod], Statement]
    auth: Callable[[Any], Auth] | None = None
    headers: Callable[[Any], Mapping[str, str]] | None = None
    hosts: Callable[[Any], tuple[str, ...]] | None = None
    shareable: Callable[[Any], bool] | None = None
    volatile: frozenset[str] = frozenset()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unused: Mapping[str, str] = field(default_factory=dict)
    invoices: InvoiceList | None = None
