"""Runs that Dagster believes under way and that were killed: they must not keep their accounts waiting.

A run that is killed keeps its place in its account's pool, and Dagster gives it free only while its daemon runs. So every run
holds a lock of its own, which ends with its process whatever ends that, and begins by closing the runs whose lock nobody holds.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of a resource's arguments.
import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import dagster as dg


@dg.resource(description="Closes runs that were killed before they could say so.")
def alive(context: dg.InitResourceContext) -> Iterator[None]:
    """For every asset that has a pool: it is made before the run asks for its place in there."""
    if context.instance is None or context.instance.is_ephemeral or context.run is None:
        yield None
        return
    close_killed_runs(context.instance)
    path = _lock(context.instance, context.run.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    with draft.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        draft.replace(path)  # so that whoever sees it sees it held
        try:
            yield None
        finally:
            path.unlink(missing_ok=True)


def close_killed_runs(instance: dg.DagsterInstance, *, also_without_lock: bool = False) -> int:
    """Tell Dagster that runs which it believes under way are over; how many there were.

    Closed as failed, they are repeated by Dagster's own `run_retries` while its daemon runs.

    Args:
        instance: whose runs.
        also_without_lock: those too that have not come as far as to hold a lock, because nobody can be starting one just now.
    """
    closed = 0
    for path in sorted(_folder(instance).glob("*")):
        with suppress(FileNotFoundError), path.open("r+") as held:
            # It lives, or has ended just now by itself.
            if not _nobody_has(held) or not os.fstat(held.fileno()).st_nlink:
                continue
            if path.suffix == ".lock":
                closed += _close(instance, path.stem)
            # A draft is about to be held, unless its run is over: then that was killed in between.
            if path.suffix == ".lock" or _over(instance.get_run_by_id(path.stem)):
                path.unlink(missing_ok=True)
    if also_without_lock:
        under_way = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
        for run in instance.get_runs(dg.RunsFilter(statuses=under_way)):
            if not _lock(instance, run.run_id).exists():
                closed += _close(instance, run.run_id)
    return closed


def _close(instance: dg.DagsterInstance, run_id: str) -> int:
    run = instance.get_run_by_id(run_id)
    if run is None or _over(run):  # it has ended, or another one closed it, since the list was made
        return 0
    instance.report_run_failed(run, "This run was killed while it was under way. Nothing half done is shown.")
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    return 1


def _over(run: dg.DagsterRun | None) -> bool:
    return run is None or run.is_finished


def _nobody_has(held: IO[str]) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _folder(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory).resolve() / "under_way"


def _lock(instance: dg.DagsterInstance, run_id: str) -> Path:
    return _folder(instance) / f"{run_id}.lock"
