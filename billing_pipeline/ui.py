"""`billing-pipeline ui`: Dagster's own development server, and the sandbox beside it where there is no accounts.toml."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout

from . import environment

RECORDS = Path("data/dagster")  # as dagster.yaml has it
STOPPING = 20  # seconds; Dagster takes 1 to 6, and a run that is under way is ended with it


class Stopped(BaseException):
    """Somebody wants the server to end: Ctrl-C, `kill`, or the terminal was closed."""


def run(port: int) -> int:
    """Serve until interrupted; 0 when it was, else Dagster's own exit status."""
    for name in ("workspace.yaml", "dagster.yaml"):
        if not Path(name).is_file():
            sys.stderr.write(f"There is no {name} here. Type: cd to the project's folder, then make ui\n")
            return 2
    url = f"http://127.0.0.1:{port}"
    if environment.listens(url):
        sys.stderr.write(
            f"Something listens on {url} already: if it is this UI, open it; if not, type: "
            f"billing-pipeline ui --port {port + 1}\n"
        )
        return 2
    environment.data_folder().mkdir(parents=True, exist_ok=True)
    RECORDS.mkdir(parents=True, exist_ok=True)
    only = FileLock(RECORDS / "ui.lock")
    try:
        only.acquire(timeout=0)
    except Timeout:
        sys.stderr.write("A UI of this folder runs already, on another port: two would do everything twice.\n")
        return 2
    with only:
        close_interrupted_runs()
        return _serve(port, url)


def close_interrupted_runs() -> int:
    """Tell Dagster that the runs which it believes under way are over, and how many they were.

    The end of the UI, or of the machine, ends the runs too, but Dagster would take them for running until their four hours
    are over, and keep their accounts waiting.
    """
    import dagster as dg  # a second of import that no other command should pay

    from .under_way import close_killed_runs

    with dg.DagsterInstance.from_config(str(Path.cwd())) as instance:
        return close_killed_runs(instance, also_without_lock=True)


def _serve(port: int, url: str) -> int:
    # Handlers before children: a child inherits what is ignored (SIGINT is, in a script's background), but no handler.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    children: list[subprocess.Popen[bytes]] = []
    try:
        if environment.on_sandbox() and not environment.listens(environment.sandbox_address()):
            children.append(_sandbox())
            sys.stdout.write(
                "No accounts.toml here: the built-in sandbox stands in for the providers, its data is made up.\n"
            )
        sys.stdout.write(f"The Dagster UI: {url} (in about ten seconds). The schedule is on. Ctrl-C ends it.\n")
        sys.stdout.flush()
        children.append(_dagster(port))
        return children[-1].wait()
    except Stopped:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave children behind
        for child in reversed(children):
            _end(child)


def _sandbox() -> subprocess.Popen[bytes]:
    pretended = environment.environment().get("BILLING_NOW")
    now = ["--now", pretended] if pretended else []
    port = str(environment.port(environment.sandbox_address()))
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "billing_pipeline", "sandbox", "--port", port, *now], start_new_session=True
    )


def _dagster(port: int) -> subprocess.Popen[bytes]:
    # The instance is the dagster.yaml here, always: nobody types a DAGSTER_HOME, and that of another project must not count.
    said = {"DAGSTER_HOME": str(Path.cwd()), "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **said},
        start_new_session=True,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    """Gently, and then with everything that it started."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)  # Dagster stops its own children on this, and on nothing else
        try:
            child.wait(STOPPING)
        except subprocess.TimeoutExpired:
            sys.stderr.write("Dagster does not stop by itself; it is killed. The next start finds what was finished.\n")
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:  # the usual case: nobody of it is left
        return
    child.wait()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped
