"""Commands in processes of their own, and how they are killed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .books import Mixed, require

PATIENCE = 300  # seconds until a process counts as one that hangs
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OPERATIONS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
"""Audit events (https://docs.python.org/3/library/audit_events.html) that change the disk; besides "open" for writing."""


@dataclass
class Kill:
    """When a process is killed: before a file operation of that number, or that many seconds after the first one."""

    operation: int = 0
    seconds: float = 0


class Processes:
    """Processes in one folder, below which `data` is what they change.

    Args:
        folder: where they run.
        environ: the variables of the next one.
        chance: when they are killed.
        say: told of every kill.
    """

    def __init__(
        self, folder: Path, environ: Callable[[], dict[str, str]], chance: random.Random, say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.environ = environ
        self.random = chance
        self.say = say
        self.kills: Counter[str] = Counter()
        self.runs: Counter[str] = Counter()
        self._lengths: dict[str, tuple[int, float]] = {}  # file operations, and seconds behind the first of them
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["billing_pipeline_tests.soak.processes", "billing_pipeline.refresh"])

    def start(self, arguments: list[str], kill: Kill) -> tuple[Any, Any]:
        """A process with a command, to be killed before a file operation, and how many of those there were."""
        operations = self._context.Value("q", 0, lock=False)  # a lock would die with its holder
        process = self._context.Process(
            target=command,
            args=(arguments, self.environ(), self.folder, kill.operation, operations),
            daemon=True,
        )
        process.start()
        return process, operations

    def run(self, arguments: list[str], kill: Kill | None = None) -> int:
        """Run a command; its exit status, -9 when it was killed."""
        kill = kill or Kill()
        process, operations = self.start(arguments, kill)
        end = time.monotonic() + PATIENCE
        while not operations.value and process.is_alive() and time.monotonic() < end:
            process.join(0.002)
        began = time.monotonic()
        if kill.seconds:
            process.join(kill.seconds)
            process.kill()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            raise Mixed(f"{arguments} hangs: {self.log()}")
        if process.exitcode == 0:
            self._lengths[name(arguments)] = operations.value, time.monotonic() - began
        return int(process.exitcode)

    def killed(self, arguments: list[str]) -> bool:
        """Run a command to be killed somewhere; whether it was killed before it was done."""
        what = name(arguments)
        self.runs[what] += 1
        if what not in self._lengths:  # the first of its kind is measured
            require(self.run(arguments) == 0, f"{arguments} failed: {self.log()}")
            return False
        operations, seconds = self._lengths[what]
        # Before any of its file operations, or at any moment: DuckDB's and Arrow's own are no events.
        kill = (
            Kill(operation=self.random.randint(1, max(operations, 1)))
            if self.random.random() < 0.6
            else Kill(seconds=self.random.uniform(0.001, max(seconds, 0.01)))
        )
        status = self.run(arguments, kill)
        if status == -signal.SIGKILL:
            self.kills[what] += 1
            self.say(f"  killed {' '.join(arguments)}: {kill}, of {operations} operations or {seconds:.1f} s")
            return True
        require(status == 0, f"{arguments} ended with {status}: {self.log()}")
        return False  # it was done before its end came: the next one is aimed better

    def dagster(self, account: str, month: str) -> subprocess.Popen[bytes]:
        """A Dagster run of one month of one account."""
        (self.folder / "data" / "dagster").mkdir(parents=True, exist_ok=True)
        select = f'key:"{account}/raw" or key:"{account}/charges"'
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "billing_pipeline.definitions",
                 "--select", select, "--partition", month],
                cwd=self.folder, env=self.environ(), stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def killed_dagster(self, account: str, month: str) -> bool:
        """The same, killed with all that it started; whether it was before it was done."""
        self.runs["dagster"] += 1
        landings = self.folder / "data" / "raw" / account / month
        before = set(landings.glob("*"))
        process = self.dagster(account, month)
        end = time.monotonic() + PATIENCE
        while set(landings.glob("*")) == before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        began = time.monotonic()
        try:
            process.wait(self.random.uniform(0, self._lengths.get("dagster", (0, PATIENCE))[1]))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.kills["dagster"] += 1
            self.say(
                f"  killed a Dagster run of {account} {month}, {time.monotonic() - began:.2f} s behind its first byte"
            )
            return True
        require(process.returncode == 0, f"dagster ended with {process.returncode}: {self.log()}")
        self._lengths["dagster"] = (0, time.monotonic() - began)
        return False

    def log(self) -> str:
        """The end of what the processes said."""
        return (self.folder / "log").read_text(errors="replace")[-3000:]


def name(arguments: list[str]) -> str:
    """What kind of command it is."""
    return " ".join(arguments[:2]) if arguments[0] == "refresh" else arguments[0]


def command(arguments: list[str], environ: dict[str, str], folder: Path, operation: int, counted: Any) -> None:
    """In a process of its own: one command of `billing-pipeline`, killed before its file operation of a number."""
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    handle = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(handle, stream)
    lock, root = threading.Lock(), str(folder / "data")

    def audit(event: str, values: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(values[2], int) and values[2] & WRITES
        if (writes or event in OPERATIONS) and str(values[0]).startswith(root) and "/locks/" not in str(values[0]):
            with lock:
                counted.value += 1
                if counted.value == operation:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    sys.argv = ["billing-pipeline", *arguments]
    from billing_pipeline.__main__ import main

    main()
