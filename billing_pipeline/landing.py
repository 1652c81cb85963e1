"""data/raw/: a provider's bytes, untouched and for ever.

A landing is one complete fetch of one month of one account. Its folder appears by one rename, so it is complete or absent. It
is named by the instant at which the fetch started; names follow the order in which landings came, also when the clock was put
back in between (`fetched_at` in the manifest says what the clock said):

    data/raw/<provider>/<account>/<YYYY-MM>/<fetched_at>/
        bodies.zst       every body as it came, one after another, in one zstd stream (`zstd -dc bodies.zst`)
        pages.jsonl      one line per page: what was asked, where its body stands, its sha256, facts about it
        manifest.json    what was fetched, when, how much, and the sha256 of the other two

Secrets are in none of them: pages carry methods, paths and parameters, never headers that authenticate.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from . import bodies
from .bodies import BODIES, INDEX, DamagedLanding, create
from .leftovers import remove
from .period import BillingPeriod, stamp
from .provider import Page, Restarted

__all__ = ["Arriving", "DamagedLanding", "Landing", "Landings", "Partition", "sync"]

FORMAT = 1
_NAME = "%Y%m%dT%H%M%S.%fZ"  # of a landing's folder


@dataclass(frozen=True)
class Partition:
    """One month of one account: what is fetched, replaced and closed as a whole."""

    provider: str
    account: str
    period: BillingPeriod

    def __str__(self) -> str:
        return f"{self.provider}/{self.account} {self.period}"

    @property
    def path(self) -> str:
        """As it is written in paths and in x_RowSource: `plivo/main/2026-05`."""
        return f"{self.provider}/{self.account}/{self.period}"


@dataclass(frozen=True)
class Arriving:
    """A landing that is being written.

    Attributes:
        partition: whose month it is.
        folder: where it lies now.
        target: where it will lie, if nothing lies there, the clock stands right, and no page says when it was asked for.
        fetched_at: when the fetch started.
    """

    partition: Partition
    folder: Path
    target: Path
    fetched_at: datetime


class Landing:
    """A complete fetch on disk. Iterating over it gives its pages, in order, restarted walks left out.

    Attributes:
        partition: whose month it is.
        folder: where it lies.
    """

    def __init__(self, partition: Partition, folder: Path) -> None:
        self.partition = partition
        self.folder = folder
        _ = self.manifest  # FileNotFoundError here

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What manifest.json says."""
        return json.loads((self.folder / "manifest.json").read_bytes())  # type: ignore[no-any-return]

    @property
    def id(self) -> str:
        """`<provider>/<account>/<YYYY-MM>/<fetched_at>`; the beginning of x_RowSource."""
        return f"{self.partition.path}/{self.folder.name}"

    @property
    def fetched_at(self) -> datetime:
        """When the fetch started (a query that is answered by callback: when it was submitted); UTC."""
        return datetime.fromisoformat(self.manifest["fetched_at"])

    @property
    def sha256(self) -> str:
        """Of the manifest, which holds the sha256 of everything else: one fingerprint for the whole landing."""
        return hashlib.sha256((self.folder / "manifest.json").read_bytes()).hexdigest()

    def __iter__(self) -> Iterator[Page]:
        """Pages one at a time, each checked against its sha256 before it is handed out.

        Raises:
            DamagedLanding: a byte is not the one that was landed.
        """
        return bodies.read(self.folder, self.id, self.manifest["files"][INDEX])


class Landings:
    """The folder data/raw/.

    Args:
        root: the data folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "raw"

    def land(
        self,
        partition: Partition,
        answers: Iterable[Page | Restarted],
        *,
        fetched_at: datetime,
        version: str,
        base_url: str = "",
        grown: Callable[[Arriving, int], object] = lambda arriving, size: None,
    ) -> Landing:
        """Write what a fetch brings, as it comes; the landing appears when the fetch is complete, by one rename.

        Args:
            partition: whose month it is.
            answers: what `Provider.fetch` yields. When it raises, nothing is left behind.
            fetched_at: when the fetch started, or was submitted.
            version: of this program.
            base_url: whom it was asked of.
            grown: called at each page with the landing and its bytes so far.
        """
        month = self.root / partition.path
        month.mkdir(parents=True, exist_ok=True)
        work = _work(month)
        try:
            arriving = Arriving(partition, work, month / _named(fetched_at), fetched_at)
            written = asdict(bodies.write(answers, work, lambda size: grown(arriving, size)))
            submitted_at = written.pop("submitted_at")
            manifest = {
                "format": FORMAT,
                "version": version,
                "provider": partition.provider,
                "account": partition.account,
                "period": partition.path.rpartition("/")[2],
                "base_url": base_url,
                "fetched_at": stamp(submitted_at or fetched_at),
                **written,
                "files": {name: _sha256(work / name) for name in (BODIES, INDEX)},
            }
            with create(work / "manifest.json") as file:
                file.write(json.dumps(manifest, indent=1).encode() + b"\n")
            return self._publish(partition, work, datetime.fromisoformat(str(manifest["fetched_at"])), fetched_at)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def share(self, landing: Landing, partition: Partition) -> Landing:
        """The same landing for another month that the same traversal answers, without new bytes on disk (hard links)."""
        month = self.root / partition.path
        month.mkdir(parents=True, exist_ok=True)
        work = _work(month)
        try:
            for name in (BODIES, INDEX):
                _link(landing.folder / name, work / name)
            manifest = landing.manifest | {"period": str(partition.period), "shared_from": landing.id}
            with create(work / "manifest.json") as file:
                file.write(json.dumps(manifest, indent=1).encode() + b"\n")
            return self._publish(partition, work, landing.fetched_at, None)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _publish(self, partition: Partition, work: Path, fetched_at: datetime, began: datetime | None) -> Landing:
        """Give a landing its name, and so make it be there.

        `began`: what the clock said when this fetch began, which may be later than the question that it answers, `fetched_at`;
        None: this landing comes after all others, whatever they say.
        """
        name = _named(fetched_at)
        last = next((folder.name for folder in reversed(self._folders(work.parent))), None)
        if last:
            latest = datetime.strptime(last.rstrip("+"), _NAME).replace(tzinfo=UTC)
            # The clock was put back. By its own time this landing would stand behind one that came before it, and be ignored.
            if fetched_at < latest and (began is None or began < latest):
                name = f"{latest + timedelta(microseconds=1):{_NAME}}"
        # The same instant twice: a standing clock, or one answered query landed again. After the last: one before may be gone.
        taken = sorted(folder.name for folder in work.parent.glob(f"{name}*"))
        target = work.parent / (f"{taken[-1]}+" if taken else name)
        for path in (*work.iterdir(), work):
            sync(path)
        work.rename(target)
        sync(work.parent)
        return Landing(partition, target)

    def newest(self, partition: Partition) -> Landing | None:
        """The landing that came last, or whose question was asked last; None when there is none."""
        folders = self._folders(self.root / partition.path)
        return Landing(partition, folders[-1]) if folders else None

    def all(self, partition: Partition) -> list[Landing]:
        """Every landing of a month, oldest first."""
        return [Landing(partition, folder) for folder in self._folders(self.root / partition.path)]

    def of_account(self, provider: str, account: str) -> Iterator[Landing]:
        """The newest landing of every month of an account."""
        for month in sorted((self.root / provider / account).glob("????-??")):
            landing = self.newest(Partition(provider, account, BillingPeriod.parse(month.name)))
            if landing:
                yield landing

    def samples(self) -> Iterator[Landing]:
        """One landing of every account there is."""
        for account in sorted(self.root.glob("*/*/")):
            yield from islice(self.of_account(account.parent.name, account.name), 1)

    def drop(self, identity: str) -> None:
        """Remove a landing whose rows another landing holds too; nothing when it is gone already."""
        provider, account, period, name = identity.split("/")
        folder = self.root / provider / account / period / name
        if folder.is_dir():
            # Renamed first: a landing is complete or absent, also when this dies half-way. The next run sweeps it up.
            doomed = folder.with_name(f".{name}.tmp")
            remove([doomed])
            folder.rename(doomed)
            shutil.rmtree(doomed)

    def get(self, identity: str) -> Landing:
        """The landing with this `Landing.id`; FileNotFoundError when it is gone."""
        provider, account, period, name = identity.split("/")
        return Landing(
            Partition(provider, account, BillingPeriod.parse(period)), self.root / provider / account / period / name
        )

    @staticmethod
    def _folders(month: Path) -> list[Path]:
        # '+' sorts before 'Z' but only after the whole name, so later landings of one instant sort last.
        return sorted((f for f in month.glob("[0-9]*Z*") if f.is_dir()), key=lambda f: f.name) if month.is_dir() else []


def _named(fetched_at: datetime) -> str:
    return f"{fetched_at.astimezone(UTC):{_NAME}}"


def _work(month: Path) -> Path:
    """A new folder for a landing that is not complete yet."""
    remove(month.glob(".*.tmp"))  # of a run that was killed: nobody else writes here, the account is locked
    work = month / f".{os.getpid()}.tmp"
    work.mkdir(mode=0o700)
    return work


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut. The files of a folder are not: they may be somebody else's."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
