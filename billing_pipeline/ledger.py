"""data/raw/<provider>/<account>/ledger.jsonl: every decision about every month, append-only, one JSON line each.

With the landings beside it, the ledger is the state that everything else is derived from. Every line holds the sha256 of the
line before it, so that no line can be changed or taken out without a trace. The line that closes a month is its seal: it
names the sha256 of the month's Parquet file and of its landing. `ledger.seal` beside it holds the number of lines and the
sha256 of the last, so that the last ones cannot be cut off without a trace either.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from .finality import FINAL, PROVISIONAL, Status
from .landing import Landing, Partition, sync
from .period import BillingPeriod, stamp
from .reconcile import Gate, Tally

Decision = Literal["provisional", "final", "restated", "unchanged", "approved", "dismissed", "replayed"]
LEDGER = "ledger.jsonl"
SEAL = "ledger.seal"
SHOWN = ("provisional", "final")  # decisions by which a month shows a fetch
HUMAN = ("approved", "dismissed")  # decisions of a person about a restatement
REPLAYED: Literal["replayed"] = "replayed"
NO_FETCH = (*HUMAN, REPLAYED)  # decisions that no fetch came with


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One complete fetch, and what it decided about its month.

    Attributes:
        decided_at: when; UTC.
        partition: the month of an account.
        decision: provisional or final: the month now shows this fetch. restated: the month is final and this fetch differs;
            the month stays as it is. unchanged: the month is final and this fetch agrees with it. approved, dismissed: what a
            person decided about the restatement whose `landing` this is; its evidence says who, when and why. replayed: the
            month's file was made again from the landing it shows, or one of data/history, by a version that writes it with
            other bytes.
        rule, evidence: why, from `finality`.
        landing: the `Landing.id` that it rests on.
        fetch: fetched_at, pages, bytes, sha256 (of the landing), rows, totals (currency to amount as text), left_out, notes.
        gates: the control totals that were compared.
        change: rows and totals against what the month showed before; empty for the first fetch.
        same_as: the landing whose rows this fetch brought again, all of them and no other: the month still shows that one, and
            this one's bytes may go. None: the fetch brought something new, or it closed the month.
        parquet: sha256 of the month's Parquet file as this decision wrote it; empty where it left the file alone.
        history: `file` and `sha256` of what this decision wrote below data/history; empty where it wrote nothing there.
    """

    decided_at: datetime
    partition: Partition
    decision: Decision
    rule: str
    evidence: Mapping[str, Any]
    landing: str
    fetch: Mapping[str, Any]
    gates: Sequence[Mapping[str, Any]] = ()
    change: Mapping[str, Any] = field(default_factory=dict)
    same_as: str | None = None
    parquet: str = ""
    history: Mapping[str, str] = field(default_factory=dict)

    @property
    def tally(self) -> Tally:
        """Rows and money of the fetch."""
        totals = {currency: Decimal(amount) for currency, amount in self.fetch["totals"].items()}
        return Tally(rows=self.fetch["rows"], totals=totals)

    @property
    def decided(self) -> Status:
        """What the month was by this decision."""
        return PROVISIONAL if self.decision == PROVISIONAL else FINAL

    def as_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "x_DecidedAt": stamp(self.decided_at),
            "x_Provider": self.partition.provider,
            "x_Account": self.partition.account,
            "x_BillingPeriod": str(self.partition.period),
            "x_Decision": self.decision,
            "x_Rule": self.rule,
            "x_Evidence": dict(self.evidence),
            "x_Landing": self.landing,
            "fetch": dict(self.fetch),
            "gates": list(self.gates),
            "change": dict(self.change),
            "same_as": self.same_as,
            "parquet": self.parquet,
            "history": dict(self.history),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Entry:
        """The reverse of `as_json`."""
        period = BillingPeriod.parse(entry["x_BillingPeriod"])
        return cls(
            decided_at=datetime.fromisoformat(entry["x_DecidedAt"]),
            partition=Partition(entry["x_Provider"], entry["x_Account"], period),
            decision=entry["x_Decision"],
            rule=entry["x_Rule"],
            evidence=entry["x_Evidence"],
            landing=entry["x_Landing"],
            fetch=entry["fetch"],
            gates=entry["gates"],
            change=entry["change"],
            same_as=entry.get("same_as"),
            parquet=entry.get("parquet", ""),
            history=entry.get("history", {}),
        )


class Ledger:
    """All ledgers under the data folder; one file per account, written only by the holder of the account's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root / "raw"

    def append(self, entry: Entry) -> None:
        """Add one line, durably. What a killed run left half-written at the end is cut off first."""
        path = self._path(entry.partition.provider, entry.partition.account)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(handle, "r+b") as file:
            content = file.read()
            lines = content[: _sound(content)].splitlines()
            chained = {**entry.as_json(), "prev": self._last(entry.partition, lines)}
            file.seek(_sound(content))
            file.truncate()
            line = json.dumps(chained, ensure_ascii=False, separators=(",", ":")).encode()
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._seal(path.with_name(SEAL), f"{len(lines) + 1} {link(line)}\n")

    def sealed(self, provider: str, account: str) -> tuple[int, str]:
        """How many lines an account's ledger had when it was last written to, and the sha256 of the last of them.

        (0, "") when it was never written to; -1 and the text when the seal is not as it was written.
        """
        path = self._path(provider, account).with_name(SEAL)
        if not path.exists():
            return 0, ""
        text = path.read_bytes()
        found = re.fullmatch(rb"([1-9][0-9]*) ([0-9a-f]{64})\n", text)
        return (int(found[1]), found[2].decode()) if found else (-1, repr(text[:80]))

    def lines(self, provider: str, account: str) -> list[bytes]:
        """The complete lines of an account's ledger, as they stand in the file."""
        path = self._path(provider, account)
        content = path.read_bytes() if path.exists() else b""
        return content[: _sound(content)].splitlines()

    def entries(self, provider: str, account: str) -> list[Entry]:
        """Every decision about an account, oldest first."""
        return [Entry.from_json(json.loads(line)) for line in self.lines(provider, account)]

    def of(self, partition: Partition) -> list[Entry]:
        """Every decision about one month, oldest first."""
        return [e for e in self.entries(partition.provider, partition.account) if e.partition == partition]

    def shown(self, partition: Partition) -> Entry | None:
        """The decision by which the month shows what it shows; None when it was never loaded."""
        showing = [e for e in self.of(partition) if e.decision in SHOWN and e.same_as is None]
        return showing[-1] if showing else None

    def written(self, partition: Partition) -> Entry | None:
        """The decision that says which bytes, rows and money the month's file has; None when it was never loaded."""
        writing = [e for e in self.of(partition) if e.parquet]
        return writing[-1] if writing else None

    def newest(self, partition: Partition) -> Entry | None:
        """The newest complete fetch of the month that passed its control totals, whatever it changed."""
        fetched = [e for e in self.of(partition) if e.decision not in NO_FETCH]
        return fetched[-1] if fetched else None

    def undecided(self, partition: Partition) -> Entry | None:
        """The restatement that waits for a person; None when there is none, or the provider has withdrawn it.

        Stated again and again, it is the first fetch that stated it: later ones keep no bytes.
        """
        decided = [e for e in self.of(partition) if e.decision != REPLAYED]
        if not decided or decided[-1].decision != "restated":
            return None
        return [e for e in decided if e.decision == "restated" and e.same_as is None][-1]

    def approvals(self, partition: Partition) -> list[Entry]:
        """The restatements of a month that were approved, oldest first."""
        return [e for e in self.of(partition) if e.decision == "approved"]

    def landings(self, partition: Partition) -> set[str]:
        """The landings that were decided about."""
        return {entry.landing for entry in self.of(partition)}

    def all(self) -> Iterator[Entry]:
        """Every decision there is, account by account."""
        for path in sorted(self.root.glob(f"*/*/{LEDGER}")):
            yield from self.entries(path.parent.parent.name, path.parent.name)

    def _path(self, provider: str, account: str) -> Path:
        return self.root / provider / account / LEDGER

    def _last(self, partition: Partition, lines: list[bytes]) -> str:
        """What the next line continues. Where lines were lost, that is the lost one, so that the chain shows it for ever."""
        sealed = self.sealed(partition.provider, partition.account)[1]
        # The line before the last is good too: a run may die between its line and its seal.
        known = [link(line) for line in lines[-2:]]
        return (known or [""])[-1] if sealed in ("", *known) else sealed

    @staticmethod
    def _seal(path: Path, text: str) -> None:
        work = path.with_name(f".{SEAL}.tmp")
        with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        work.replace(path)
        sync(path.parent)


def fetch_facts(landing: Landing, **facts: Any) -> dict[str, Any]:
    """What an entry says about the fetch it rests on."""
    manifest = landing.manifest
    return {
        "fetched_at": manifest["fetched_at"],
        "pages": manifest["pages"],
        "bytes": manifest["bytes"],
        "restarts": manifest["restarts"],
        "sha256": landing.sha256,
        **facts,
    }


def gate_json(gates: Sequence[Gate]) -> list[dict[str, Any]]:
    """Gates as they stand in the ledger."""
    return [{"name": g.name, "expected": g.expected, "got": g.got, "passed": g.passed} for g in gates]


def link(line: bytes) -> str:
    """What the line after `line` holds of it."""
    return hashlib.sha256(line).hexdigest()


def _sound(content: bytes) -> int:
    """The length of the complete lines."""
    return content.rfind(b"\n") + 1
