"""`billing-pipeline ui` as real processes, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import httpx
import pytest

from .conftest import free_port

PROJECT = Path(__file__).parent.parent
PATIENCE = 180.0  # seconds until a busy machine must have done a thing; what is waited for usually takes a tenth

T = TypeVar("T")


def until(ask: Callable[[], T | None], what: str) -> T:
    """The first answer to `ask` that is neither None nor an error of something that is not there yet."""
    end, last = time.monotonic() + PATIENCE, "nothing"
    while time.monotonic() < end:
        try:
            answer = ask()
        except (httpx.HTTPError, duckdb.Error, KeyError, LookupError) as error:
            answer, last = None, repr(error)
        if answer is not None:
            return answer
        time.sleep(0.5)
    raise TimeoutError(f"not within {PATIENCE} s: {what} (last: {last})")


@dataclass
class Ui:
    """A running UI.

    Attributes:
        process: `billing-pipeline ui`.
        folder: where it runs.
        url: where it is served.
        sandbox: where the sandbox beside it listens.
    """

    process: subprocess.Popen[bytes]
    folder: Path
    url: str
    sandbox: str

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """One GraphQL query."""
        answer = httpx.post(f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60).json()
        if "errors" in answer:
            raise AssertionError(answer["errors"])
        return dict(answer["data"])

    def ready(self) -> bool | None:
        """True when definitions are loaded and every daemon works."""
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        told = self.ask(
            "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } }"
            " instance { daemonHealth { allDaemonStatuses { healthy } } } }"
        )
        daemons = told["instance"]["daemonHealth"]["allDaemonStatuses"]
        return (bool(told["repositoriesOrError"].get("nodes")) and all(d["healthy"] for d in daemons)) or None

    def processes(self) -> list[str]:
        """The command lines of all processes that run in the folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink() == self.folder:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it ended meanwhile, or is somebody else's
                continue
        return found

    def stop(self, number: signal.Signals) -> None:
        """Send a signal; everything must be gone when the process is."""
        self.process.send_signal(number)
        try:
            assert self.process.wait(PATIENCE) == 0
        finally:
            self.process.kill()
        assert self.processes() == []
        for url in (self.url, self.sandbox):
            with pytest.raises(httpx.ConnectError):
                httpx.get(url)


def prepare(folder: Path, sandbox: str, now: str = "2026-06-15T12:00:00Z") -> dict[str, str]:
    """Give a folder the two files of the project's; the variables of whoever types a command there at that instant."""
    for name in ("workspace.yaml", "dagster.yaml"):
        shutil.copy(PROJECT / name, folder)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("BILLING_", "DAGSTER_"))}
    return environ | {
        "BILLING_SANDBOX": sandbox,
        "BILLING_NOW": now,
        "DAGSTER_HOME": "/the/home/of/another/project",
    }


def start(folder: Path, *, in_background: bool = False) -> Ui:
    """Start the UI in a folder that has only the two files of the project's, or what was done there before."""
    port, sandbox = free_port(), f"http://127.0.0.1:{free_port()}"
    environ = prepare(folder, sandbox)
    # A shell gives its background processes an ignored SIGINT to inherit.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler)
    try:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "billing_pipeline", "ui", "--port", str(port)],
                cwd=folder,
                env=environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, interrupt)
    started = Ui(process, folder.resolve(), f"http://127.0.0.1:{port}", sandbox)
    try:
        until(started.ready, "the UI is ready")
    except BaseException:
        process.terminate()
        process.wait(PATIENCE)
        raise
    return started
