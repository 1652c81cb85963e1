"""Judges histories of FOCUS 1.4 Billing Periods with focus-data-toolkit: every one legal, and illegal ones made of them not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from focus_data_toolkit.lifecycle import DatasetInstance, check_dataset_instances

History = list[DatasetInstance]


def reopened(history: History) -> History:
    """A closed month is delivered as open."""
    last = history[-1]
    again = replace(last, instance_id="again", order=last.order + 1, previous_instance_id=last.instance_id)
    return [*history, replace(again, status="Open")]


def incomplete_again(history: History) -> History:
    """A closed month is no longer complete."""
    last = history[-1]
    again = replace(last, instance_id="again", order=last.order + 1, previous_instance_id=last.instance_id)
    return [*history, replace(again, complete=False)]


def moved(history: History) -> History:
    """A closed month covers other days than before."""
    last = history[-1]
    again = replace(last, instance_id="again", order=last.order + 1, previous_instance_id=last.instance_id)
    return [*history, replace(again, period_end="2999-01-01T00:00:00Z")]


def backdated(history: History) -> History:
    """An update is said to be older than what it updates."""
    last = history[-1]
    again = replace(last, instance_id="again", order=last.order + 1, previous_instance_id=last.instance_id)
    return [*history, replace(again, last_updated="2001-01-01T00:00:00Z")]


def gap(history: History) -> History:
    """What an instance follows was taken out of the history."""
    return history[1:]


def twice(history: History) -> History:
    """One instance stands there twice."""
    return [*history, history[-1]]


ILLEGAL: dict[Callable[[History], History], str] = {
    reopened: "FDT-CORR-004",
    incomplete_again: "FDT-LIFE-006",
    moved: "FDT-LIFE-006",
    backdated: "FDT-LIFE-005",
    gap: "FDT-LIFE-003",
    twice: "FDT-LIFE-001",
}


def subjects(history: History) -> Iterator[History]:
    """The instances of each subject."""
    for subject in sorted({instance.subject_id for instance in history}):
        yield [instance for instance in history if instance.subject_id == subject]


def main(folder: Path) -> int:
    """Exit status: 0 when all are legal and the judge was seen to judge; else 1, with what is wrong on standard error."""
    files = sorted(folder.glob("*.json"))
    wrong: list[str] = []
    months: list[History] = []
    transitions: set[tuple[str, str]] = set()
    for file in files:
        history = [DatasetInstance(**instance) for instance in json.loads(file.read_text())]
        wrong += [f"{file.stem}: {found.code} {found.message}" for found in check_dataset_instances(history)]
        for month in subjects(history):
            months.append(month)
            transitions |= {(a.status, b.status) for a, b in pairwise(month)}
    needed = {("Open", "Open"), ("Open", "Closed"), ("Closed", "Closed")}
    if not needed <= transitions:
        wrong.append(f"the histories in {folder} lack {sorted(needed - transitions)}: there is too little to judge")
    else:
        full = next(m for m in months if len(m) > 2 and (m[0].status, m[-1].status) == ("Open", "Closed"))
        for spoil, code in ILLEGAL.items():
            codes = {found.code for found in check_dataset_instances(spoil(full))}
            if code not in codes:
                wrong.append(
                    f"the judge does not judge: {spoil.__doc__} It should say {code}, and says {sorted(codes)}"
                )
    for text in wrong:
        sys.stderr.write(f"{text}\n")
    if not wrong:
        sys.stdout.write(
            f"focus-data-toolkit accepts {len(files)} histories of {len(months)} billing periods with "
            f"{sum(map(len, months))} instances, and rejects {len(ILLEGAL)} illegal ones.\n"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
