"""`billing-pipeline report`; data/reports/: a page for each month, made again when what it says has changed, and a list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from filelock import FileLock

from . import month_page
from .drafts import Draft, sweep, sweep_beside
from .month_facts import Facts, asked
from .period import BillingPeriod
from .progress import Tell

FOLDER = "reports"
INDEX = "index.html"


@dataclass(frozen=True)
class Made:
    """What was done in data/reports/.

    Attributes:
        index: the list of months; always written.
        written: months whose page was made.
        kept: months whose page says what the warehouse says.
    """

    index: Path
    written: list[BillingPeriod]
    kept: list[BillingPeriod]

    def told(self) -> dict[str, str]:
        """What was done, in words."""
        made, kept = (", ".join(map(str, months)) or "none" for months in (self.written, self.kept))
        return {"months made": made, "months as they were": kept}

    def as_json(self) -> dict[str, Any]:
        """The same for a program: the pages that were made, by month."""
        pages = {str(month): str(self.index.with_name(f"{month}.html")) for month in self.written}
        return {"index": str(self.index), "written": pages, "kept": list(map(str, self.kept))}

    def __str__(self) -> str:
        return f"made: {self.told()['months made']}; {len(self.kept)} as they were"


def bring_up_to_date(data: Path, progress: Tell = lambda done, of, text: None) -> Made:
    """Make the page of every month of which the published warehouse says something else than its page, and the list.

    Args:
        data: the data folder.
        progress: called with each month.

    Raises:
        NothingPublished: there is no warehouse.
        Unanswerable: it is of another version.
    """
    with _alone(data) as folder:
        months = asked(data / "warehouse.duckdb")
        written, kept = [], []
        for number, facts in enumerate(months):
            progress(number, len(months), str(facts.period))
            target = folder / f"{facts.period}.html"
            if _remembered(target) == _made_of(facts):
                kept.append(facts.period)
            else:
                _put(target, month_page.page(facts, made_of=_made_of(facts)))
                written.append(facts.period)
        index = folder / INDEX
        _put(index, month_page.index(months, made_of=month_page.looks()))
        return Made(index, written, kept)


def write(data: Path, period: BillingPeriod, to: Path | None) -> Path:
    """Make the page of one month, at `to` or in data/reports/.

    Raises:
        ValueError: `to` is a folder.
        NothingToReport: the warehouse neither holds the month nor expects it.
        NothingPublished, Unanswerable: as `bring_up_to_date`.
    """
    if to and to.is_dir():
        raise ValueError(f"{to} is a folder: name a file, such as {to / f'{period}.html'}")
    with _alone(data) as folder:
        (facts,) = asked(data / "warehouse.duckdb", period)
        target = to.absolute() if to else folder / f"{period}.html"
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_beside(target)
        _put(target, month_page.page(facts, made_of=_made_of(facts)))
        return target


@contextmanager
def _alone(data: Path) -> Iterator[Path]:
    """The folder of the reports, for one process at a time: an older publication's page never replaces a newer one's."""
    (data / "locks").mkdir(parents=True, exist_ok=True)
    folder = data / FOLDER
    with FileLock(data / "locks" / f"{FOLDER}.lock"):
        folder.mkdir(mode=0o700, exist_ok=True)
        sweep(folder)
        yield folder


def _made_of(facts: Facts) -> str:
    return sha256(f"{facts.fingerprint} {month_page.looks()}".encode()).hexdigest()


def _remembered(page: Path) -> str | None:
    """What a page was made of; None: it is not there, or none of ours."""
    if not page.exists():
        return None
    with page.open("rb") as file:
        found = re.search(rb'<meta name="made-of" content="([0-9a-f]{64})">', file.read(2000))
    return found[1].decode() if found else None


def _put(target: Path, text: str) -> None:
    with Draft(target.parent, name=target.name) as draft:
        draft.write(text.encode())
        # For its owner alone, or as a person has opened it to others since: chmod once, and it stays.
        draft.path.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o600)
        draft.publish(target)
