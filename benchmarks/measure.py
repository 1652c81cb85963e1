"""Wall time, CPU time and peak memory of a process, taken from outside; and the processes that are not measured."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from threading import Event, Thread

from .contestants import Contestant, Start, Task
from .server import COUNT

ROOT = Path(__file__).parent.parent


class Failed(Exception):
    """A contestant did not finish, or did not bring the month home."""


@dataclass(frozen=True)
class Served:
    """What the server's process says of itself: where it listens, and what its month holds."""

    url: str
    rows: int
    items: int
    total: Decimal


@dataclass(frozen=True)
class Run:
    """One measured run.

    Attributes:
        seconds: wall time from start to end of the process, the interpreter's start and imports included.
        cpu: user and system time, of all threads and children.
        peak: most memory that was resident, in MB (10^6 bytes); if it started others, as sampled of all, where that is more.
        requests: how many requests the server got.
        off: how far the total is from the month's; 0 unless the contestant keeps doubles.
    """

    seconds: float
    cpu: float
    peak: float
    requests: int
    off: Decimal


@contextmanager
def served(provider: str, rows: int, *options: str) -> Iterator[Served]:
    """The server, in its own process, for the time of the block."""
    command = [sys.executable, "-m", "benchmarks.server", provider, str(rows), *options]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        told = json.loads(process.stdout.readline() or "{}")
        if not told:
            raise Failed("the server did not start; its error stands above")
        try:
            yield Served(told["url"], told["rows"], told["items"], Decimal(told["total"]))
        finally:
            process.stdin.close()


def refreshed(contestant: Contestant, provider: str, server: Served) -> Run:
    """One run of a contestant from nothing, its result checked.

    Raises:
        Failed: it did not finish, or its rows or total are not the month's.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        task = Task(provider, server.url, server.items, Path(folder))
        start = contestant.prepare(task)
        _requests(server)
        seconds, cpu, peak = timed(contestant.name, start, task.folder)
        requests = _requests(server)
        # An empty month leaves dlt without tables: there is nothing to check but that it ended well.
        off = _checked(contestant, task, server) if server.rows else Decimal(0)
        return Run(seconds, cpu, peak, requests, off)


def timed(name: str, start: Start, folder: Path) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak MB of one process; Failed when it does not end well."""
    log = folder / "output.txt"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            start.command, cwd=folder, env=os.environ | start.environment, stdout=output, stderr=subprocess.STDOUT
        )
        ended, together = Event(), [0.0]
        Thread(target=_sample, args=(process.pid, ended, together), daemon=True).start()
        # Of this very child. What it inherits from us before it becomes itself counts as its memory too, which is why this
        # process imports nothing large.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        ended.set()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(f"{name} ended with {process.returncode}:\n{log.read_text(errors='replace')[-3000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss * unit / 1e6, together[0])


def _sample(pid: int, ended: Event, together: list[float]) -> None:
    """Put into `together` the most MB that a process and those it has started were seen to have at once; 0 while it has none.

    Four times a second, which takes a hundredth of a core. All of the largest counts, and of the others what is theirs alone.
    """
    while not ended.wait(0.25):
        family = _family(pid)
        if len(family) > 1:
            resident, private = zip(*map(_memory, family), strict=True)
            largest = max(range(len(family)), key=lambda n: resident[n])
            together[0] = max(together[0], resident[largest] + sum(private) - private[largest])


def _family(pid: int) -> list[int]:
    try:
        threads = [task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # it ended, or this is no Linux
        return [pid]
    return [pid, *(each for child in " ".join(threads).split() for each in _family(int(child)))]


def _memory(pid: int) -> tuple[float, float]:
    """MB that are resident, and those that no other process shares."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    found = {name: int(size) * 1024 / 1e6 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    return found["Rss"], found["Private_Clean"] + found["Private_Dirty"]


def _checked(contestant: Contestant, task: Task, server: Served) -> Decimal:
    database, query = contestant.result(task)
    ask = "import duckdb, sys; print(*duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2]).fetchone())"
    file = ":memory:" if database.suffix == ".parquet" else str(database)
    if file == ":memory:":
        ask = ask.replace(", read_only=True", "")
    said = subprocess.run([sys.executable, "-c", ask, file, query], check=True, capture_output=True, text=True).stdout
    rows, total = said.split()
    off = Decimal(total) - server.total
    allowed = Decimal(0) if contestant.exact else server.total * Decimal("1e-12")  # the digits a double has, and some
    if int(rows) != server.rows or abs(off) > allowed:
        raise Failed(
            f"{contestant.name} brought {rows} rows and {total} USD; the month has {server.rows} rows and {server.total} USD"
        )
    return off


def _requests(server: Served) -> int:
    with urllib.request.urlopen(server.url + COUNT) as answer:  # noqa: S310  our own server
        return int(answer.read())
