"""Answers that arrive by callback (Infobip): pending requests and the letters that came for them, as files.

One folder per request, named by the SHA-256 of its token, so that reading the mailbox does not give a valid address away:

    data/mailbox/<sha256 of the token>/ticket.json
    data/mailbox/<sha256 of the token>/<received at>-<sha256 of the letter>.json
    data/mailbox/<sha256 of the token>/stray.json    another letter was sent to it after its letter had been landed

All state is on disk: receivers and any number of runs share it, and a restart loses nothing. Everything is written to a
temporary name, fsynced and renamed (`drafts`); folders are 0700, files 0600. The mailbox reads no letter: what it says, its
provider knows.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from .drafts import Draft, NoRoom, Room, alone, new_folder, remove_folder, sweep

MAX_LETTERS = 5  # per request: one is promised, a sender that repeats itself may bring a few more
KEPT_AFTER_LANDING = timedelta(days=7)  # the landing has the bytes; this is for the person who looks on Monday
KEPT_UNANSWERED = timedelta(days=100)  # longer than Infobip serves a month: after that no letter can be of use
LOOK = 0.25  # seconds between two looks at the disk while another process may be the one that receives
LANDED = "landed"

_TOKEN = re.compile(r"[A-Za-z0-9_-]{40,64}")
_KEY = re.compile(r"[0-9a-f]{64}")
_STAMP = "%Y%m%dT%H%M%S%fZ"


class NoAnswer(Exception):
    """A request was accepted and its letter did not come in time; it is picked up by the next run if it comes later."""

    rerun = "yes"
    remedy = "A letter that comes late is kept and found. If none comes, check callback_url, proxy and firewall"


class TooManyLetters(Exception):
    """A request already has `MAX_LETTERS` different letters; a further one is not kept."""

    rerun = "no"
    remedy = "Somebody knows the address, or the provider repeats itself: ask its support"


class Closed(Exception):
    """The request was dealt with while a letter for it was on its way; the letter is not kept."""

    rerun = "once"
    remedy = "If the letter was another one, the next fetch of the month says so"


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
        outcome: how it was closed: landed, superseded, refused, contradicted, or the provider's own words.
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

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return self.path.stem.partition("-")[2]


@dataclass(frozen=True)
class Stray:
    """A different letter that was sent to a ticket after its letter had been landed.

    Attributes:
        ticket: the ticket.
        received_at: when it came.
        sha256, bytes: of the letter.
        told: whether a person has heard of it.
    """

    ticket: Ticket
    received_at: datetime
    sha256: str
    bytes: int
    told: bool = False


class Mailbox:
    """The mailbox in `folder`; `now` is the clock, aware; `room` is how much may lie in it."""

    def __init__(self, folder: Path, now: Callable[[], datetime], room: Room = Room()) -> None:  # noqa: B008  frozen
        self.folder = folder
        self.now = now
        self.room = room
        self._stored = threading.Condition()

    def issue(self, provider: str, account: str, period: str, request: Mapping[str, object]) -> Ticket:
        """A new ticket, on disk before the request is sent: its letter is welcome from now on.

        Args:
            provider: the provider's name.
            account: the account's.
            period: the month asked for, `YYYY-MM`.
            request: what will be asked. Never the address of the answer, which holds the token.
        """
        self.tidy()
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
        with new_folder(self._folder(ticket.key)) as folder:
            self._write(ticket, folder)
        return ticket

    def accepted(self, ticket: Ticket, request_id: str) -> Ticket:
        """The provider has taken the request and calls it `request_id`."""
        return self._write(replace(ticket, request_id=request_id))

    def close(self, ticket: Ticket, outcome: str) -> Ticket:
        """Nothing more is wanted of this ticket: its letter was landed, or none will come. Its address is used up.

        Older open tickets of the same month are closed with it: what they would bring is older than what is known now.
        """
        for other in self.pending(ticket.provider, ticket.account, ticket.period):
            if outcome == LANDED and other.key != ticket.key and other.submitted_at <= ticket.submitted_at:
                self._close(other, "superseded")
        return self._close(ticket, outcome)

    def pending(self, provider: str, account: str, period: str | None = None) -> list[Ticket]:
        """Tickets of this or an earlier run that are not closed, the newest first."""
        tickets = [ticket for ticket in self._of(provider, account, period) if ticket.closed_at is None]
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

    def addressee(self, token: str) -> Ticket | None:
        """The ticket that was issued with `token`; None when none was. Its letter may have been landed already."""
        if not _TOKEN.fullmatch(token):
            return None
        key = _sha256(token)
        # Found by its hash, which a guesser cannot steer, and compared in constant time: a guess learns nothing from delays.
        found = next((name for name in self._keys() if hmac.compare_digest(name, key)), None)
        with suppress(FileNotFoundError):
            return self._read(found) if found else None
        return None

    def draft(self, ticket: Ticket, size: int = 0) -> Draft:
        """A new file for a letter that is being received, `size` bytes as it says itself; hand it to `keep`, or leave it.

        Raises:
            NoRoom: the mailbox or its disk is full, also without the letters of closed tickets.
            OSError: the disk takes nothing, or the ticket is gone.
        """
        try:
            self.room.require(self.folder, size)
        except NoRoom:
            for closed in (ticket for ticket in self._tickets() if ticket.closed_at):
                remove_folder(self._folder(closed.key))  # its landing has the bytes
            self.room.require(self.folder, size)
        return Draft(self._folder(ticket.key), self.room, self.folder)

    def keep(self, ticket: Ticket, draft: Draft) -> None:
        """The letter in `draft` is complete: it is in the mailbox when this returns, also after a power cut.

        Raises:
            TooManyLetters: `MAX_LETTERS` different ones are here already.
            Closed: the ticket was closed meanwhile, and this is another letter than those that had come.
            OSError: the disk does not take it, or the ticket is gone.
        """
        draft.settle()
        folder, sha256 = self._folder(ticket.key), draft.sha256
        with alone(folder):
            held = [letter.sha256 for letter in self.letters(ticket)]
            if sha256 in held:
                return  # the same letter again: once is enough
            now = self._read(ticket.key)
            if now.closed_at is not None:
                self._stray(now, sha256, draft.size)
                raise Closed(f"{ticket.provider}/{ticket.account} {ticket.period}: {now.outcome}")
            if len(held) >= MAX_LETTERS:
                raise TooManyLetters(f"{MAX_LETTERS} different letters came for one request; no more are kept")
            draft.publish(folder / f"{self.now().astimezone(UTC):{_STAMP}}-{sha256}.json")
        with self._stored:
            self._stored.notify_all()

    def wants_strays(self, ticket: Ticket) -> bool:
        """Whether the mailbox would learn anything from a letter to this closed ticket."""
        return ticket.outcome == LANDED and not (self._folder(ticket.key) / "stray.json").exists()

    def stray(self, ticket: Ticket, sha256: str, size: int) -> bool:
        """A letter came for a ticket whose letter was landed: when it is a different one, remember that, and not the letter.

        Returns:
            Whether it is one to remember.
        """
        with suppress(FileNotFoundError), alone(self._folder(ticket.key)):
            return self._stray(ticket, sha256, size)
        return False

    def strays(self, provider: str, account: str, period: str) -> list[Stray]:
        """Different letters that came for landed tickets of a month, and of which nobody has heard yet."""
        found = []
        for ticket in self._of(provider, account, period):
            with suppress(FileNotFoundError):
                held = json.loads((self._folder(ticket.key) / "stray.json").read_bytes())
                held["received_at"] = datetime.fromisoformat(held["received_at"])
                found.append(Stray(ticket, **held))
        return [stray for stray in found if not stray.told]

    def note(self, stray: Stray) -> None:
        """Remember it, or that it was told."""
        held = {
            "received_at": stray.received_at.isoformat(),
            "sha256": stray.sha256,
            "bytes": stray.bytes,
            "told": stray.told,
        }
        _publish(self._folder(stray.ticket.key), "stray.json", held)

    def tidy(self) -> None:
        """Remove what dead writers left half, and tickets that are of no use any more, with their letters."""
        sweep(self.folder)
        for ticket in list(self._tickets()):
            closed = ticket.closed_at is not None and ticket.closed_at + KEPT_AFTER_LANDING < self.now()
            if closed or ticket.submitted_at + KEPT_UNANSWERED < self.now():
                remove_folder(self._folder(ticket.key))

    def _folder(self, key: str) -> Path:
        return self.folder / key

    def _keys(self) -> list[str]:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        return [path.name for path in self.folder.iterdir() if _KEY.fullmatch(path.name)]

    def _of(self, provider: str, account: str, period: str | None) -> Iterator[Ticket]:
        return (
            ticket
            for ticket in self._tickets()
            if (ticket.provider, ticket.account) == (provider, account) and period in (None, ticket.period)
        )

    def _tickets(self) -> Iterator[Ticket]:
        for key in self._keys():
            with suppress(FileNotFoundError):  # another process is removing it just now
                yield self._read(key)

    def _read(self, key: str) -> Ticket:
        held: dict[str, Any] = json.loads((self._folder(key) / "ticket.json").read_bytes())
        for name in ("submitted_at", "closed_at"):
            held[name] = held[name] and datetime.fromisoformat(held[name])
        return Ticket(key=key, **held)

    def _close(self, ticket: Ticket, outcome: str) -> Ticket:
        with alone(self._folder(ticket.key)):  # no letter is kept from here on, so none comes that nobody looks at
            return self._write(replace(ticket, closed_at=self.now(), outcome=outcome))

    def _write(self, ticket: Ticket, folder: Path | None = None) -> Ticket:
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
        _publish(folder or self._folder(ticket.key), "ticket.json", held)
        return ticket

    def _stray(self, ticket: Ticket, sha256: str, size: int) -> bool:
        if not self.wants_strays(ticket) or sha256 in [letter.sha256 for letter in self.letters(ticket)]:
            return False
        self.note(Stray(ticket, self.now(), sha256, size))
        return True


def _publish(folder: Path, name: str, held: Mapping[str, object]) -> None:
    with Draft(folder) as draft:
        draft.write(json.dumps(held, indent=1).encode())
        draft.publish(folder / name)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
