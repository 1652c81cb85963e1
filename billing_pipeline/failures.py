"""What went wrong, said in one way everywhere, and remembered in data/failures/ until the month is brought up to date.

An exception of this program says of itself what a person needs: `rerun`, whether a rerun can help, and `remedy`, what to do.
Its chapter in docs/errors.md is named after it. What is remembered decides nothing; it is shown, and sent as an alert.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

from .landing import Partition
from .period import BillingPeriod, stamp
from .redaction import cleaned

Rerun = Literal["yes", "once", "no"]
Step = Literal["fetch", "load", ""]

RERUN: dict[Rerun, str] = {
    "yes": "A rerun may help, and the next one comes by itself",
    "once": "A rerun may help once; what fails the same way again does not mend itself",
    "no": "A rerun cannot help before a person has done something",
}
PAGE = "docs/errors.md"
LONGEST = 4000  # characters of one failure: what a provider says may be long


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a month is not up to date; or the warehouse, or a command.

    Attributes:
        subject: the month of an account, or a name.
        kind: the exception's name.
        what: what was expected and what came; never a secret, no control character.
        rerun: yes: it may mend itself. once: it is worth one try. no: a person must do something first.
        remedy: what to do.
        chapter: of docs/errors.md.
        step: which step of the line it stopped.
        at: when it was last so.
        since: when it first was, without a success in between.
    """

    subject: Partition | str
    kind: str
    what: str
    rerun: Rerun
    remedy: str
    chapter: str
    step: Step = ""
    at: datetime | None = None
    since: datetime | None = None

    @classmethod
    def of(cls, subject: Partition | str, error: BaseException, secrets: Iterable[str] = ()) -> Failure:
        """The failure that `error` is; `secrets` are taken out of its text."""
        what = (
            printable(cleaned(str(error), secrets).replace("\n", " "))[:LONGEST].strip().rstrip(".")
            or type(error).__name__
        )
        kind = type(error).__name__
        if own(error):
            rerun, remedy = cast("Rerun", error.rerun), str(error.remedy)  # type: ignore[attr-defined]
            return cls(subject=subject, kind=kind, what=what, rerun=rerun, remedy=remedy, chapter=chapter(kind))
        # SQLite (recent requests) and DuckDB have errors of their own for what the disk refuses.
        if isinstance(error, OSError | sqlite3.OperationalError) or kind == "IOException":
            return cls(subject=subject, kind=kind, what=what, rerun="once", remedy=MACHINE, chapter="the-machine")
        return cls(
            subject=subject, kind=kind, what=f"{kind}: {what}", rerun="once", remedy=BUG, chapter="anything-else"
        )

    @property
    def advice(self) -> str:
        """Whether a rerun helps, what to do, and where more is written."""
        return f"{RERUN[self.rerun]}. {self.remedy}. See {PAGE}#{self.chapter}"

    def __str__(self) -> str:
        return f"{self.subject}: {self.what}. {self.advice}"


MACHINE = "Look at what it names: room on the disk, the rights of the data folder, a port that is taken"
BUG = "This program did not expect it: keep the run's log or the traceback, and report it"


def own(error: BaseException) -> bool:
    """Whether it is one of this program's own exceptions, which say what to do."""
    return hasattr(error, "rerun") and hasattr(error, "remedy")


def chapter(kind: str) -> str:
    """The chapter of an exception in docs/errors.md: DoesNotReconcile → does-not-reconcile."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", kind).lower()


def printable(text: str) -> str:
    """The text without what a terminal or an editor would obey: escapes, control characters, reversed writing."""
    return "".join(c if c == "\n" or unicodedata.category(c) not in _OBEYED else repr(c)[1:-1] for c in text)


_OBEYED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


class Failures:
    """The folder data/failures/: one small file for each month whose last try failed.

    Args:
        root: the data folder.
        now: the clock; aware.
    """

    def __init__(self, root: Path, now: Callable[[], datetime]) -> None:
        self.root = root / "failures"
        self.now = now

    @contextmanager
    def noting(
        self,
        partition: Partition,
        step: Step,
        secrets: Iterable[str],
        unasked: tuple[type[Exception], ...] = (),
    ) -> Iterator[None]:
        """Remember that a step of a month failed, and forget it when that step succeeds. The error goes on unchanged.

        Whoever calls this holds the account's lock. `unasked` are errors of a month that nobody but a person would ask for.
        """
        try:
            yield
        except unasked:
            raise
        except Exception as error:
            # A full disk or a read-only folder must not hide what went wrong first.
            with suppress(OSError):
                self._note(replace(Failure.of(partition, error, secrets), step=step, at=self.now()))
            raise
        # A fetch that succeeds says nothing yet about a month whose bytes could not be loaded.
        with suppress(OSError):
            found = self.last(partition)
            if found and found.step == step:
                self._path(partition).unlink(missing_ok=True)

    def last(self, partition: Partition) -> Failure | None:
        """How the last try of a month failed; None: it did not."""
        return _read(self._path(partition), partition)

    def all(self) -> list[Failure]:
        """Every month whose last try failed, in a fixed order."""
        found = []
        for path in sorted(self.root.glob("*--*--*.json")):
            provider, account, period = path.stem.split("--")
            failure = _read(path, Partition(provider, account, BillingPeriod.parse(period)))
            if failure:
                found.append(failure)
        return found

    def _note(self, failure: Failure) -> None:
        assert isinstance(failure.subject, Partition)  # noqa: S101
        before = self.last(failure.subject)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(failure.subject)
        draft = path.with_name(f".{path.name}.tmp")
        written = {
            "kind": failure.kind,
            "what": failure.what,
            "rerun": failure.rerun,
            "remedy": failure.remedy,
            "chapter": failure.chapter,
            "step": failure.step,
            "at": stamp(failure.at or self.now()),
            "since": stamp((before.since if before else None) or failure.at or self.now()),
        }
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(written, file, indent=1)
        draft.replace(path)

    def _path(self, partition: Partition) -> Path:
        return self.root / f"{partition.provider}--{partition.account}--{partition.period}.json"


def _read(path: Path, partition: Partition) -> Failure | None:
    try:
        written: dict[str, Any] = json.loads(path.read_bytes())
        written |= {name: datetime.fromisoformat(written[name]) for name in ("at", "since")}
        return Failure(subject=partition, **written)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
    ):  # not there, or half written by a machine that died: it decides nothing
        return None
