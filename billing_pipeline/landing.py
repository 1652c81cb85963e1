"""data/raw/: a provider's bytes, untouched and for ever.

A landing is one complete fetch of one month of one account. Its folder appears by one rename, so it is complete or absent:

    data/raw/<provider>/<account>/<YYYY-MM>/<fetched_at>/
        bodies.zst       every body as it came, one after another, in one zstd stream (`zstd -dc bodies.zst`)
        pages.jsonl      one line per page: what was asked, where its body stands, its sha256
        manifest.json    what was fetched, when, how much, and the sha256 of the other two

Secrets are in none of them: pages carry methods, paths and parameters, never headers that authenticate.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import pyarrow as pa

from .period import BillingPeriod, stamp
from .provider import Page, Restarted

FORMAT = 1
CHUNK = 1 << 20
LARGE = 4 << 20  # larger bodies (a callback with a whole month) are handed out as streams, not as bytes


class DamagedLanding(Exception):
    """The bytes of a landing are not those that were landed."""


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


class Landing:
    """A complete fetch on disk. Iterating over it gives its pages, in order, restarted walks left out.

    Attributes:
        partition: whose month it is.
        folder: where it lies.
        manifest: the parsed manifest.json.
    """

    def __init__(self, partition: Partition, folder: Path) -> None:
        self.partition = partition
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())

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
        """Pages one at a time, each checked against its sha256 before (a large one: while) it is read.

        Raises:
            DamagedLanding: a body does not have the length or the sha256 it was landed with.
        """
        entries = [json.loads(line) for line in (self.folder / "pages.jsonl").read_bytes().splitlines()]
        restarts = {e["restarted"]: n for n, e in enumerate(entries) if "restarted" in e}
        offset = 0
        with pa.input_stream(str(self.folder / "bodies.zst"), compression="zstd") as bodies:
            for n, entry in enumerate(entries):
                if "restarted" in entry:
                    continue
                stored = _Stored(self.folder / "bodies.zst", offset, entry, f"{self.id}/{entry['number']}")
                offset += entry["bytes"]
                whole = stored.whole(bodies) if entry["bytes"] <= LARGE else stored.skip(bodies)
                if n > restarts.get(entry["traversal"], -1):
                    yield Page(
                        body=whole,
                        request=entry["request"],
                        traversal=entry["traversal"],
                        scope=entry["scope"],
                        received_at=datetime.fromisoformat(entry["received_at"]),
                        number=entry["number"],
                        facts=entry["facts"],
                    )


@dataclass(frozen=True)
class _Stored:
    """One body inside the zstd stream."""

    file: Path
    offset: int
    entry: dict[str, Any]
    name: str

    def open(self) -> BinaryIO:
        """The body as a stream of its own, from its beginning; checked when it has been read to its end."""
        stream = pa.input_stream(str(self.file), compression="zstd")
        left = self.offset
        while left:
            left -= len(stream.read(min(left, CHUNK))) or self._damaged("ends too early")
        return io.BufferedReader(_Checked(stream, self), CHUNK)

    def whole(self, bodies: pa.NativeFile) -> bytes:
        """The body out of the stream that stands at its beginning."""
        body = bytes(bodies.read(self.entry["bytes"]))
        if hashlib.sha256(body).hexdigest() != self.entry["sha256"]:
            self._damaged("has changed since it was landed: its sha256 differs")
        return body

    def skip(self, bodies: pa.NativeFile) -> _Stored:
        """Move the stream behind this body."""
        left = self.entry["bytes"]
        while left:
            left -= len(bodies.read(min(left, CHUNK))) or self._damaged("ends too early")
        return self

    def _damaged(self, how: str) -> NoReturn:
        raise DamagedLanding(f"landing {self.name} {how}. Restore data/raw from a backup, or fetch the month again")


class _Checked(io.RawIOBase):
    """A body's bytes, bounded, and compared with their sha256 at the end."""

    def __init__(self, stream: pa.NativeFile, stored: _Stored) -> None:
        self._stream = stream
        self._stored = stored
        self._left: int = stored.entry["bytes"]
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = bytes(self._stream.read(min(len(buffer), self._left))) if self._left else b""
        self._left -= len(piece)
        self._digest.update(piece)
        if (self._left and not piece) or (not self._left and self._digest.hexdigest() != self._stored.entry["sha256"]):
            self._stored._damaged("has changed since it was landed")
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._stream.close()
        super().close()


class Landings:
    """The folder data/raw/.

    Args:
        root: the data folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "raw"

    def land(
        self, partition: Partition, answers: Iterable[Page | Restarted], *, fetched_at: datetime, version: str
    ) -> Landing | None:
        """Write what a fetch brings, as it comes; the landing appears when the fetch is complete, by one rename.

        Args:
            partition: whose month it is.
            answers: what `Provider.fetch` yields. When it raises, nothing is left behind.
            fetched_at: when the fetch started, or was submitted.
            version: of this program.
        """
        month = self.root / partition.path
        month.mkdir(parents=True, exist_ok=True)
        for stale in month.glob(".*.tmp"):  # of a run that was killed: nobody else writes here, the account is locked
            shutil.rmtree(stale)
        work = month / f".{os.getpid()}.tmp"
        work.mkdir(mode=0o700)
        try:
            with _create(work / "bodies.zst") as raw, _create(work / "pages.jsonl") as index:
                started = _write(answers, raw, index)
            manifest = {
                "format": FORMAT,
                "version": version,
                "provider": partition.provider,
                "account": partition.account,
                "period": str(partition.period),
                "fetched_at": stamp(started.submitted_at or fetched_at),
                **started.summary,
                "files": {name: _sha256(work / name) for name in ("bodies.zst", "pages.jsonl")},
            }
            with _create(work / "manifest.json") as file:
                file.write(json.dumps(manifest, indent=1).encode() + b"\n")
            return self._publish(partition, work, datetime.fromisoformat(str(manifest["fetched_at"])))
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def share(self, landing: Landing, partition: Partition) -> Landing:
        """The same landing for another month that the same traversal answers, without new bytes on disk (hard links)."""
        month = self.root / partition.path
        month.mkdir(parents=True, exist_ok=True)
        work = month / f".{os.getpid()}.tmp"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        try:
            for name in ("bodies.zst", "pages.jsonl"):
                _link(landing.folder / name, work / name)
            manifest = landing.manifest | {"period": str(partition.period), "shared_from": landing.id}
            with _create(work / "manifest.json") as file:
                file.write(json.dumps(manifest, indent=1).encode() + b"\n")
            return self._publish(partition, work, landing.fetched_at)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise

    def _publish(self, partition: Partition, work: Path, fetched_at: datetime) -> Landing:
        name = f"{fetched_at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
        target = work.parent / name
        while target.exists():  # the same instant twice: a standing clock, or one answered query landed again
            name += "+"
            target = work.parent / name
        sync(work)
        work.rename(target)
        sync(work.parent)
        return Landing(partition, target)

    def newest(self, partition: Partition) -> Landing | None:
        """The landing whose fetch started last; None when there is none."""
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


@dataclass
class _Written:
    summary: dict[str, Any]
    submitted_at: datetime | None


def _write(answers: Iterable[Page | Restarted], raw: IO[bytes], index: IO[bytes]) -> _Written:
    pages = size = restarts = 0
    submitted: datetime | None = None
    with pa.CompressedOutputStream(raw, "zstd") as bodies:
        for answer in answers:
            if isinstance(answer, Restarted):
                restarts += 1
                index.write(_line({"restarted": answer.traversal, "reason": answer.reason}))
                continue
            pages += 1
            digest, length = hashlib.sha256(), 0
            with answer.open() as stream:
                while piece := stream.read(CHUNK):
                    bodies.write(piece)
                    digest.update(piece)
                    length += len(piece)
            size += length
            if "submitted_at" in answer.facts:
                submitted = datetime.fromisoformat(answer.facts["submitted_at"])
            index.write(
                _line(
                    {
                        "number": pages,
                        "request": answer.request,
                        "traversal": answer.traversal,
                        "scope": answer.scope,
                        "received_at": stamp(answer.received_at),
                        "bytes": length,
                        "sha256": digest.hexdigest(),
                        "facts": dict(answer.facts),
                    }
                )
            )
    if not pages:
        raise ValueError("a fetch must bring at least one page: an empty month is an answer, no answer is not")
    return _Written({"pages": pages, "bytes": size, "restarts": restarts}, submitted)


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _create(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder: Path) -> None:
    """Make names (and the files of a new folder) survive a power cut."""
    for path in (*folder.glob("*.*"), folder):
        if path.is_file() or path == folder:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
