"""Answers that arrive by callback (Infobip): pending requests and the letters that came for them, as files.

One folder per request, named by the SHA-256 of its token, so that reading the mailbox does not give a valid address away:

    data/mailbox/<sha256 of the token>/ticket.json
    data/mailbox/<sha256 of the token>/<received at>-<sha256 of the letter>.json

All state is on disk: a receiver and any number of runs share it, and a restart loses nothing. Everything is written to a
temporary name, fsynced and renamed; folders are 0700, files 0600. The mailbox reads no letter: what it says, its provider knows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

MAX_LETTERS = 5  # per request: one is promised, a sender that repeats itself may bring a few more
KEPT_AFTER_LANDING = timedelta(days=7)  # the landing has the bytes; this is for the person who looks on Monday
KEPT_UNANSWERED = timedelta(days=100)  # longer than Infobip serves a month: after that no letter can be of use
LOOK = 0.25  # seconds between two looks at the disk while another process may be the one that receives

_TOKEN = re.compile(r"[A-Za-z0-9_-]{40,64}")
_STAMP = "%Y%m%dT%H%M%S%fZ"


class NoAnswer(Exception):
    """A request was accepted and its letter did not come in time; it is picked up by the next run if it comes later."""

    rerun = "yes"
    remedy = "A letter that comes late is kept and found. If none comes, check callback_url, proxy and firewall"


class TooManyLetters(Exception):
    """A request already has `MAX_LETTERS` different letters; a further one is not kept."""

    rerun = "no"
    remedy = "Somebody knows the address, or the provider repeats itself: ask its support"


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A request whose answer comes by callback.

    Attributes:
        key: SHA-256 of the token; the folder's name.
        provider, account, period: whose request it is; the period as `YYYY-MM`.
        request: what was asked, without the address of the answer.
        submitted_at: just before the request was sent; what the answer says cannot be older.
        request_id: the provider's own id; None until the provider accepted it.
        closed_at: when it was dealt with; None while its letter is wanted.
        outcome: how it was closed: landed, superseded, refused, or the provider's own words.
        token: the address's unguessable last segment; only in the object that `issue` returns, never on disk.
    """

    key: str
    provider: str
    account: str
    period: str
    request: Mapping[str, object]
    submitted_at: datetime
    request_id: str | None = None
    closed_at: datetime | None = None
    outcome: str | None = None
    token: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Letter:
    """One complete body that came for a ticket, byte for byte."""

    path: Path
    received_at: datetime


class Mailbox:
    """The mailbox in `folder`; `now` is the clock, aware."""

    def __init__(self, folder: Path, now: Callable[[], datetime]) -> None:
        self.folder = folder
        self.now = now
        self._stored = threading.Condition()

    def issue(self, provider: str, account: str, period: str, request: Mapping[str, object]) -> Ticket:
        """A new ticket, on disk before the request is sent: its letter is welcome from now on.

        Args:
            provider: the provider's name.
            account: the account's.
            period: the month asked for, `YYYY-MM`.
            request: what will be asked. Never the address of the answer, which holds the token.
        """
        self._tidy()
        token = secrets.token_urlsafe(32)
        ticket = Ticket(
            key=_sha256(token),
            provider=provider,
            account=account,
            period=period,
            request=request,
            submitted_at=self.now(),
            token=token,
        )
        self._folder(ticket.key).mkdir(mode=0o700)
        self._write(ticket)
        return ticket

    def accepted(self, ticket: Ticket, request_id: str) -> Ticket:
        """The provider has taken the request and calls it `request_id`."""
        return self._write(replace(ticket, request_id=request_id))

    def close(self, ticket: Ticket, outcome: str) -> Ticket:
        """Nothing more is wanted of this ticket: its letter was landed, or none will come.

        Older open tickets of the same month are closed with it: what they would bring is older than what is known now.
        """
        for other in self.pending(ticket.provider, ticket.account, ticket.period):
            if outcome == "landed" and other.key != ticket.key and other.submitted_at <= ticket.submitted_at:
                self._write(replace(other, closed_at=self.now(), outcome="superseded"))
        return self._write(replace(ticket, closed_at=self.now(), outcome=outcome))

    def pending(self, provider: str, account: str, period: str | None = None) -> list[Ticket]:
        """Tickets of this or an earlier run that are not closed, the newest first."""
        tickets = [
            ticket
            for ticket in self._tickets()
            if (ticket.provider, ticket.account) == (provider, account)
            and ticket.period == (period or ticket.period)
            and ticket.closed_at is None
        ]
        return sorted(tickets, key=lambda ticket: ticket.submitted_at, reverse=True)

    def letters(self, ticket: Ticket) -> list[Letter]:
        """The letters that came for a ticket, in the order of their arrival."""
        paths = sorted(path for path in self._folder(ticket.key).glob("*Z-*.json"))
        return [
            Letter(path, datetime.strptime(path.name.partition("-")[0], _STAMP).replace(tzinfo=UTC)) for path in paths
        ]

    def arriving(self, ticket: Ticket, seconds: float) -> Iterator[Letter]:
        """Each letter once, as it arrives; ends when `seconds` have passed since the call. The first look is always made."""
        end = time.monotonic() + seconds
        seen: set[Path] = set()
        while True:
            for letter in self.letters(ticket):
                if letter.path not in seen:
                    seen.add(letter.path)
                    yield letter
            remaining = end - time.monotonic()
            if remaining <= 0:
                return
            with self._stored:
                self._stored.wait(min(LOOK, remaining))

    def expected(self, token: str) -> str | None:
        """The key of the ticket that was issued with `token`; None when none was."""
        if not _TOKEN.fullmatch(token):
            return None
        key = _sha256(token)
        # Found by its hash, which a guesser cannot steer, and compared in constant time: a guess learns nothing from delays.
        found = next((name for name in self._keys() if hmac.compare_digest(name, key)), None)
        return found if found and (self._folder(found) / "ticket.json").exists() else None

    def draft(self, key: str) -> IO[bytes]:
        """A new file for a letter that is being received; hand it to `keep`, or delete it."""
        path = self._folder(key) / f".{secrets.token_hex(8)}.tmp"
        path.touch(mode=0o600, exist_ok=False)
        return path.open("wb")

    def keep(self, key: str, draft: Path, sha256: str) -> None:
        """The letter in `draft` is complete and synced: it is in the mailbox when this returns, also after a power cut.

        Raises:
            TooManyLetters: `MAX_LETTERS` different ones are here already; the draft is gone.
        """
        folder = self._folder(key)
        names = [path.name for path in folder.glob("*Z-*.json")]
        if any(name.endswith(f"-{sha256}.json") for name in names):
            draft.unlink()  # the same letter again: once is enough
            return
        if len(names) >= MAX_LETTERS:
            draft.unlink()
            raise TooManyLetters(f"{MAX_LETTERS} different letters came for one request; no more are kept")
        draft.replace(folder / f"{self.now().astimezone(UTC):{_STAMP}}-{sha256}.json")
        _sync(folder)
        with self._stored:
            self._stored.notify_all()

    def _folder(self, key: str) -> Path:
        return self.folder / key

    def _keys(self) -> list[str]:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        return [path.name for path in self.folder.iterdir() if len(path.name) == 64]

    def _tickets(self) -> Iterator[Ticket]:
        for key in self._keys():
            with suppress(FileNotFoundError):  # another process is issuing or removing it just now
                held = json.loads((self._folder(key) / "ticket.json").read_bytes())
                for name in ("submitted_at", "closed_at"):
                    held[name] = held[name] and datetime.fromisoformat(held[name])
                yield Ticket(key=key, **held)

    def _write(self, ticket: Ticket) -> Ticket:
        held = {
            "provider": ticket.provider,
            "account": ticket.account,
            "period": ticket.period,
            "request": ticket.request,
            "submitted_at": ticket.submitted_at.isoformat(),
            "request_id": ticket.request_id,
            "closed_at": ticket.closed_at and ticket.closed_at.isoformat(),
            "outcome": ticket.outcome,
        }
        folder = self._folder(ticket.key)
        with self.draft(ticket.key) as file:
            file.write(json.dumps(held, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(folder / "ticket.json")
        _sync(folder)
        _sync(self.folder)
        return ticket

    def _tidy(self) -> None:
        for ticket in list(self._tickets()):
            closed = ticket.closed_at is not None and ticket.closed_at + KEPT_AFTER_LANDING < self.now()
            if closed or ticket.submitted_at + KEPT_UNANSWERED < self.now():
                shutil.rmtree(self._folder(ticket.key), ignore_errors=True)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
