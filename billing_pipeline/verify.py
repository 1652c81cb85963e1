"""`billing-pipeline verify`: whether landings, ledger, Parquet files and warehouse agree, and closed months stayed as they were.

Nothing is trusted because it is there: every byte of a landing is compared with its manifest, the manifest with the ledger,
every line of the ledger with the one before it and the last with the seal, every Parquet file with the ledger, and the
warehouse with one that is made anew for the purpose. What only a person can hold is the end of a chain, noted elsewhere: who
changes files, ledger and seal together, and well, is found by that alone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from . import equality
from .bodies import BODIES, INDEX
from .failures import printable
from .history import moving, sealed
from .invoice_lists import FOLDER, Shelf
from .lake import sha256
from .landing import DamagedLanding, Landing, Partition
from .ledger import LEDGER, NO_FETCH, SEAL, Entry, link
from .leftovers import VERIFY
from .line import Line
from .period import BillingPeriod
from .progress import Tell
from .terminal import say
from .warehouse import Warehouse

MANIFEST = "manifest.json"
RESTORE = "restore it from a backup of data/raw"
ANEW = "make it anew: billing-pipeline replay"
MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
LANDING = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z\+*")
UNFINISHED = re.compile(r"\..*\.tmp")  # what a run is writing, or a killed one left: no part of anything


class Finding(NamedTuple):
    """One thing that is not as it should be: where, what is wrong with it, what to do."""

    where: str
    what: str
    do: str


class Head(NamedTuple):
    """The end of an account's chain at some time: how many lines, and the sha256 of the last.

    Noted elsewhere, it proves later that those lines are still the same.
    """

    provider: str
    account: str
    lines: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.account}:{self.lines}:{self.sha256}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The reverse of `str`; ValueError when it is none."""
        match = re.fullmatch(r"([a-z0-9_]+)/([A-Za-z0-9_-]+):([1-9][0-9]*):([0-9a-f]{64})", text)
        if not match:
            raise ValueError(f"{text!r} is not the end of a chain as verify tells it: plivo/main:17:<64 hex digits>")
        return cls(match[1], match[2], int(match[3]), match[4])


@dataclass
class Verified:
    """What was compared, and what was found.

    Attributes:
        months, final: months held, and how many of them are closed.
        landings: how many were compared byte by byte.
        dropped: fetches that brought nothing new, whose bytes were dropped; their sha256 is in the ledger.
        heads: per account the end of its chain, to be noted elsewhere.
        findings: empty when everything agrees.
    """

    months: int = 0
    final: int = 0
    landings: int = 0
    dropped: int = 0
    heads: list[Head] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For monitoring."""
        findings = [finding._asdict() for finding in self.findings]
        return {"agrees": not findings, **vars(self), "heads": list(map(str, self.heads)), "findings": findings}


def verify(line: Line, noted: Sequence[Head] = (), progress: Tell = lambda done, of, text: None) -> Verified:
    """Compare everything below the data folder that numbers rest on; nothing is changed.

    Args:
        line: the line; no provider is asked.
        noted: ends of chains that an earlier `verify` told.
        progress: called with each landing, and with the warehouse.
    """
    found = Verified()
    raw = line.landings.root
    landings = sum(1 for _ in raw.glob("*/*/*/*/"))

    def step(text: str) -> None:
        progress(found.landings, landings + 1, text)

    months: dict[tuple[str, str], set[Partition]] = {(head.provider, head.account): set() for head in noted}
    for folder in sorted(raw.glob("*/*/")):
        months.setdefault((folder.parent.name, folder.name), set())
    for partition in line.lake.partitions():
        months.setdefault((partition.provider, partition.account), set()).add(partition)
    _unknown(line, found, [*raw.glob("*"), *raw.glob("*/*")], lambda path: path.is_dir())
    readable = True
    with ExitStack() as stack:
        for (provider, account), held in sorted(months.items()):
            # The month does not matter: the account is locked, until the warehouse has been compared too.
            stack.enter_context(line.alone(Partition(provider, account, BillingPeriod.parse("2000-01"))))
            entries = _ledger(line, found, provider, account, noted)
            readable = readable and entries is not None
            _landings(line, found, raw / provider / account, entries or [], step)
            _lake(line, found, held, entries or [])
            _history(line, found, entries or [])
        known = {line.lake.path(partition) for partition in line.lake.partitions()}
        known |= {line.lake.corrections_path(partition) for partition in line.lake.corrected()}
        _unknown(line, found, line.lake.root.rglob("*"), lambda path: path.is_dir() or path in known)
        known = (
            set(line.loading.history.known(moving(line.ledger.all())))
            if readable
            else set(line.loading.history.root.rglob("*"))
        )
        _unknown(line, found, line.loading.history.root.rglob("*"), lambda path: path.is_dir() or path in known)
        if readable and not any(where.startswith("charges/") for where, _, _ in found.findings):
            for booked in sorted(line.corrections.months(), key=str):
                _corrections(line, found, booked)
        if readable and not any(where.startswith("charges/") for where, _, _ in found.findings):
            with line.only("verify"):  # so that nobody takes its warehouse for a dead one's
                step("warehouse, made anew beside the published one")
                _warehouse(line, found)
    return found


def _name(line: Line, path: Path) -> str:
    return str(path.relative_to(line.data))


def _unknown(line: Line, found: Verified, paths: Iterable[Path], known: Callable[[Path], bool]) -> None:
    for path in sorted(paths):
        if not UNFINISHED.fullmatch(path.name) and not known(path):
            found.findings.append(Finding(_name(line, path), "is not ours", "move it away"))


def _ledger(line: Line, found: Verified, provider: str, account: str, noted: Sequence[Head]) -> list[Entry] | None:
    """The entries of an account, its chain compared; None when a line cannot be read."""
    path = line.ledger.root / provider / account / LEDGER
    where = _name(line, path)
    lines = line.ledger.lines(provider, account)
    links = [link(text) for text in lines]
    entries: list[Entry] = []
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        found.findings.append(
            Finding(
                where, "ends in half a line, of a run that was killed", "nothing: the account's next run cuts it off"
            )
        )
    for number, text in enumerate(lines, 1):
        try:
            content = json.loads(text)
            entries.append(Entry.from_json(content))
            same = (entries[-1].partition.provider, entries[-1].partition.account) == (provider, account)
        except (ValueError, KeyError, TypeError, AttributeError):
            found.findings.append(Finding(f"{where} line {number}", "cannot be read any more", RESTORE))
            continue
        if not same or content.get("prev") != (links[number - 2] if number > 1 else ""):
            what = f"does not continue line {number - 1}: one of them was changed, or lines between them were taken out"
            found.findings.append(Finding(f"{where} line {number}", what, RESTORE))
    number, sealed = line.ledger.sealed(provider, account)
    # One behind is good: a run may die between its line and its seal. The account's next line mends it.
    if number not in range(max(len(lines) - 1, 0), len(lines) + 1) or (number and links[number - 1] != sealed):
        what = (
            f"has {len(lines)} lines, and {number} when it was last written to: the last ones were cut off"
            if number > len(lines)
            else f"the last line is not the one that {SEAL} holds: one of the two was changed"
        )
        found.findings.append(Finding(where, what, RESTORE))
    for head in noted:
        if head[:2] == (provider, account) and (head.lines > len(lines) or links[head.lines - 1] != head.sha256):
            what = f"its line {head.lines} is not the one that was noted: the chain was written anew"
            found.findings.append(Finding(where, what, RESTORE))
    if lines:
        found.heads.append(Head(provider, account, len(lines), links[-1]))
    return entries if len(entries) == len(lines) else None


def _landings(line: Line, found: Verified, account: Path, entries: list[Entry], step: Callable[[str], None]) -> None:
    """Every landing of an account against its manifest, and the manifest against the ledger."""
    told = {entry.landing: entry for entry in entries if entry.decision not in NO_FETCH}
    there: dict[str, Path] = {}
    for month in sorted(account.glob("*")):
        if MONTH.fullmatch(month.name) and month.is_dir():
            landings = {path for path in month.iterdir() if LANDING.fullmatch(path.name) and path.is_dir()}
            there |= {str(path.relative_to(line.landings.root)): path for path in landings}
            _unknown(line, found, month.iterdir(), landings.__contains__)
        elif month.name == FOLDER and month.is_dir():
            lists = {path for path in month.iterdir() if LANDING.fullmatch(path.name) and path.is_dir()}
            _unknown(line, found, month.iterdir(), lists.__contains__)
            for folder in sorted(lists):  # no line of the ledger rests on them, so each is compared with itself alone
                step(_name(line, folder))
                found.landings += 1
                found.findings += _landing(line, Shelf(account.parent.name, account.name), folder, None)
        elif month.name not in (LEDGER, SEAL):
            _unknown(line, found, [month], lambda path: False)
    newest = {
        entry.partition: max(e.landing for e in told.values() if e.partition == entry.partition)
        for entry in told.values()
    }
    for identity, folder in sorted(there.items()):
        step(identity)
        found.landings += 1
        provider, name, month_name, _ = identity.split("/")
        partition = Partition(provider, name, BillingPeriod.parse(month_name))
        found.findings += _landing(line, partition, folder, told.get(identity))
        if identity not in told and identity > newest.get(partition, ""):
            again = f"billing-pipeline refresh --provider {provider} --account {name} --period {month_name} says why"
            found.findings.append(Finding(f"raw/{identity}", "was fetched and never loaded", again))
    for identity, entry in sorted(told.items()):
        if identity in there:
            continue
        if entry.same_as:
            found.dropped += 1
        else:
            found.findings.append(Finding(f"raw/{identity}", "is gone; a decision in the ledger rests on it", RESTORE))


def _landing(line: Line, partition: Partition, folder: Path, entry: Entry | None) -> Iterator[Finding]:
    where = _name(line, folder)
    names = {path.name for path in folder.iterdir()}
    for name in sorted(names ^ {BODIES, INDEX, MANIFEST}):
        yield Finding(f"{where}/{name}", *(("is not ours", "move it away") if name in names else ("is gone", RESTORE)))
    if MANIFEST not in names:
        return
    manifest = (folder / MANIFEST).read_bytes()
    if entry and hashlib.sha256(manifest).hexdigest() != entry.fetch["sha256"]:
        yield Finding(f"{where}/{MANIFEST}", "was changed: its sha256 is not the one in the ledger", RESTORE)
    try:
        files = json.loads(manifest)["files"]
        wrong = [name for name in (BODIES, INDEX) if name in names and sha256(folder / name) != files[name]]
    except (ValueError, KeyError, TypeError):
        yield Finding(f"{where}/{MANIFEST}", "cannot be read", RESTORE)
        return
    for name in wrong:
        yield Finding(
            f"{where}/{name}",
            f"was changed: its sha256 is not the one in {MANIFEST}{_page(partition, folder)}",
            RESTORE,
        )


def _page(partition: Partition, folder: Path) -> str:
    """Which page of a damaged landing is the first that is not as it was landed."""
    try:
        for _ in Landing(partition, folder):
            pass
    except DamagedLanding as error:
        return f" ({str(error).partition('. ')[0]})"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return ""


def _lake(line: Line, found: Verified, held: set[Partition], entries: list[Entry]) -> None:
    """Every month's file against the sha256 in the ledger."""
    written = {entry.partition: entry for entry in entries if entry.parquet}
    final = {entry.partition for entry in entries if entry.decision == "final"}
    found.months += len(written)
    found.final += len(final)
    for partition in sorted({*written, *held}, key=str):
        where = _name(line, line.lake.path(partition))
        again = f"make it again from its landing: billing-pipeline replay --period {partition.period}"
        closed = "the closed month's file" if partition in final else "the month's file"
        if partition not in written:
            found.findings.append(Finding(where, "is a month of which the ledger knows nothing", RESTORE))
        elif partition not in held:
            found.findings.append(Finding(where, f"{closed} is gone", again))
        elif sha256(line.lake.path(partition)) != written[partition].parquet:
            found.findings.append(
                Finding(where, f"{closed} was changed: its sha256 is not the one in the ledger", again)
            )


def _history(line: Line, found: Verified, entries: list[Entry]) -> None:
    """Every file of data/history against the sha256 in the ledger."""
    history, seals = line.loading.history, sealed(entries)
    for entry in moving(entries):
        path, told = history.path(entry), seals.get(history.name(entry))
        if path.exists() and sha256(path) == told:
            continue
        what = "was changed: its sha256 is not the one in the ledger" if path.exists() else "is gone"
        again = f"make it again from the landings: billing-pipeline replay --period {entry.partition.period}"
        found.findings.append(Finding(_name(line, path), what, again))


def _corrections(line: Line, found: Verified, booked: Partition) -> None:
    """The corrections booked in a month against what ledger and landings make of them."""
    path = line.lake.corrections_path(booked)
    again = f"make them again from the landings: billing-pipeline replay --period {booked.period}"
    try:
        with line.corrections.remade(booked) as new:
            made = new.sha256 if new else None
    except Exception as error:  # noqa: BLE001  told as a finding
        found.findings.append(Finding(_name(line, path), f"cannot be made again to be compared: {error}", RESTORE))
        return
    if made is None:
        found.findings.append(Finding(_name(line, path), "books corrections that nobody approved", again))
    elif not path.exists() or sha256(path) != made:
        what = "the corrections booked in the month were changed" if path.exists() else "is gone"
        found.findings.append(Finding(_name(line, path), what, again))


def _warehouse(line: Line, found: Verified) -> None:
    """The published warehouse against one that is made anew."""
    where = _name(line, line.warehouse.path)
    if not line.warehouse.path.exists():
        if found.months:
            found.findings.append(Finding(where, "is gone", ANEW))
        return
    fresh = Warehouse(line.data, VERIFY)
    try:
        line.project(fresh, anew=True, at=equality.published_at(line.warehouse.path))
        different = list(equality.differences(line.warehouse.path, fresh.path))
    except Exception as error:  # noqa: BLE001  a damaged file fails in many ways, and each of them is what is looked for
        different = [
            (
                "",
                f"cannot be made anew to be compared, so a file below data/charges or data/history is damaged: {error}",
            )
        ]
    finally:
        fresh.path.unlink(missing_ok=True)
    found.findings += [Finding(f"{where} {table}".strip(), what, ANEW) for table, what in different]


def show(found: Verified, console: Console) -> None:
    """What was found, each with what to do about it; or what agrees, and the ends of the chains."""
    for finding in found.findings:
        what = printable(f"{finding.where}: {finding.what}")
        say(console, f"✗ {what}. To do: {finding.do}")
    compared = f"{found.months} months ({found.final} closed), {found.landings} landings"
    if found.findings:
        text = f"{len(found.findings)} findings in {compared}."
    else:
        text = f"Everything agrees: {compared}, every line of the ledger, every row of the warehouse. Chains end with:"
    say(console, "\n".join([text, *([] if found.findings else map(str, found.heads))]))
