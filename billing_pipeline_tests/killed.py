"""A refresh of the toy provider in a process of its own, killed with -9 at a chosen step: the same step every time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

from .toy import Toy

STEPS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "shutil.rmtree"}
"""What Python announces before it does it to a file. What DuckDB and pyarrow do in between is not counted."""

_processes = multiprocessing.get_context(
    "forkserver"
)  # a clean process each time, without importing everything each time
_processes.set_forkserver_preload([__name__])


def refresh(toy: Toy, data: Path, step: int) -> bool:
    """Refresh every open month and publish; True when the process was killed before it ended."""
    process = _processes.Process(target=_refresh, args=(toy, data, step))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _refresh(toy: Toy, data: Path, step: int) -> None:
    left = step

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event in STEPS and str(arguments[0]).startswith(str(data)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    line = toy.line(data)
    sys.addaudithook(count)
    for partition in line.open():
        line.fetch(partition)
        line.load(partition)
    line.publish()
