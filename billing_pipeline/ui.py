"""`billing-pipeline ui`: Dagster's own development server, and the sandbox beside it where there is no accounts.toml."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from . import environment


def run(port: int) -> int:
    """Serve until interrupted; the exit status is Dagster's."""
    for name in ("workspace.yaml", "dagster.yaml"):
        if not Path(name).is_file():
            sys.stderr.write(f"There is no {name} here. Type: cd to the project's folder, then make ui\n")
            return 2
    environment.data_folder().mkdir(parents=True, exist_ok=True)
    beside: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-m", "billing_pipeline"]
    if environment.on_sandbox() and not environment.listens(environment.sandbox_address()):
        address = environment.sandbox_address()
        pretended = environment.environment().get("BILLING_NOW")
        now = ["--now", pretended] if pretended else []
        beside.append(subprocess.Popen([*command, "sandbox", "--port", str(environment.port(address)), *now]))  # noqa: S603
    dagster = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    quiet = {**os.environ, "DAGSTER_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
    server = subprocess.Popen(dagster, env=quiet, start_new_session=True)  # noqa: S603
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.send_signal(
            signal.SIGINT
        )  # Dagster stops its four children on this, and on nothing gentler than SIGKILL else
        try:
            return server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            return 1
    finally:
        for process in beside:
            process.terminate()
            process.wait(10)
