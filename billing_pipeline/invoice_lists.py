"""A provider's own list of invoices: landed like everything else, and what came when it was last asked for.

data/raw/<provider>/<account>/invoices/<fetched at>/    a landing of the whole list; one that says nothing new is not kept
data/invoice-lists/<provider>--<account>.json           when it was last asked for, and what came; decides nothing
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from .invoices import CENT, Invoice
from .landing import Landing, Landings, Partition
from .period import BillingPeriod, stamp
from .provider import InvoiceLine, NotOffered, Page, Provider, Restarted
from .rows import UnexpectedShape

FOLDER = "invoices"


@dataclass(frozen=True)
class Shelf(Partition):
    """Where the lists of an account are landed: beside its months, and of none of them."""

    period: BillingPeriod = field(default_factory=lambda: BillingPeriod(1970, 1))

    def __str__(self) -> str:
        return f"{self.provider}/{self.account} {FOLDER}"

    @property
    def path(self) -> str:
        """As it is written in paths and in x_RowSource: `talkdesk/main/invoices`."""
        return f"{self.provider}/{self.account}/{FOLDER}"


@dataclass(frozen=True)
class Asked:
    """What came when a list was asked for.

    Attributes:
        provider, account: whose list.
        at: when it was asked for.
        outcome: listed, or not available: the account's credentials do not reach it.
        why: why it is not available; else empty.
    """

    provider: str
    account: str
    at: datetime
    outcome: Literal["listed", "not available"]
    why: str = ""


class InvoiceLists:
    """The lists of all accounts.

    Args:
        data: the data folder.
        landings: where they are landed.
    """

    def __init__(self, data: Path, landings: Landings) -> None:
        self.root = data / "invoice-lists"
        self.landings = landings

    def take(
        self, shelf: Shelf, answers: Iterable[Page | Restarted], at: datetime, version: str, base_url: str
    ) -> Asked:
        """Land a list, unless it says what the newest one says. The caller holds the account's lock.

        Raises:
            Exception: what `answers` raises, but NotOffered; nothing was landed then.
        """
        before = self.landings.newest(shelf)
        asked = Asked(shelf.provider, shelf.account, at, "listed")
        try:
            landing = self.landings.land(shelf, answers, fetched_at=at, version=version, base_url=base_url)
        except NotOffered as error:
            asked = Asked(shelf.provider, shelf.account, at, "not available", str(error))
        else:
            if before and _digests(before) == _digests(landing):
                self.landings.drop(landing.id)
        self._note(asked)
        return asked

    def asked(self) -> list[Asked]:
        """What came last, of every list that was ever asked for."""
        found = []
        for path in sorted(self.root.glob("*--*.json")):
            with suppress(
                OSError, ValueError, KeyError, TypeError
            ):  # half written by a machine that died: it decides nothing
                told = json.loads(path.read_bytes())
                provider, account = path.stem.split("--")
                found.append(Asked(provider, account, datetime.fromisoformat(told["at"]), told["outcome"], told["why"]))
        return found

    def invoices(self, providers: Mapping[str, Provider]) -> Iterator[Invoice]:
        """Every invoice of the newest list of every account.

        Raises:
            DamagedLanding: a list is not as it was landed.
            UnexpectedShape: a list is not as the provider documents it, or does not agree with itself.
        """
        for landing in self.newest():
            offered = (
                providers[landing.partition.provider].invoices if landing.partition.provider in providers else None
            )
            if offered:
                yield from _invoices(landing, offered.parse)

    def newest(self) -> Iterator[Landing]:
        """The newest list of every account that ever had one."""
        for folder in sorted(self.landings.root.glob(f"*/*/{FOLDER}")):
            landing = self.landings.newest(Shelf(folder.parent.parent.name, folder.parent.name))
            if landing:
                yield landing

    def rows(self) -> list[list[Any]]:
        """Of the table invoice_lists, in the order of its columns."""
        ids = {(found.partition.provider, found.partition.account): found.id for found in self.newest()}
        return [[a.provider, a.account, a.at, a.outcome, a.why, ids.get((a.provider, a.account))] for a in self.asked()]

    def _note(self, asked: Asked) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.root / f"{asked.provider}--{asked.account}.json"
        draft = path.with_name(f".{path.name}.tmp")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"at": stamp(asked.at), "outcome": asked.outcome, "why": asked.why}, file, indent=1)
        draft.replace(path)


def _digests(landing: Landing) -> list[str]:
    return [hashlib.sha256(page.read()).hexdigest() for page in landing]


def _invoices(landing: Landing, parse: Callable[[Landing], Iterator[InvoiceLine]]) -> Iterator[Invoice]:
    """The invoices of a list: their lines put together."""
    found: dict[str, list[tuple[InvoiceLine, str]]] = {}
    for line in parse(landing):
        found.setdefault(line.number, []).append((line, f"{landing.id}/{line.where}"))
    for number, lines in sorted(found.items()):
        first, where = lines[0]
        heads = {(line.period, line.billing_account, line.currency, line.total) for line, _ in lines}
        if len(heads) > 1:
            raise UnexpectedShape(
                f"{landing.id}: the lines of invoice {number} differ in month, account, currency or total: "
                + "; ".join(
                    sorted(f"{period} {account} {total} {currency}" for period, account, currency, total in heads)
                )
            )
        yield Invoice(
            provider=landing.partition.provider,
            account=landing.partition.account,
            period=first.period,
            currency=first.currency,
            amount=first.total,
            number=number,
            # Each line is rounded by itself.
            tolerance=max(CENT, len(lines) * CENT / 2),
            billing_account=first.billing_account,
            source=where,
            stated=first.total,
            lines=tuple(lines),
        )
