"""What the pages tell a person to type is typed: every command of README and docs, every unit and every line for cron.

Each page is walked from top to bottom in a folder of its own, beside a sandbox of its own, on 16 June 2026. What lies in /srv and
/tmp on the page lies in that folder, and who is told to edit accounts.toml makes the sandbox's accounts of it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pytest

from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import free_port
from .test_docs import PAGES, ROOT, fenced

NOT_TYPED = {
    r"make (run|test|lint.*|soak.*)": "what runs this test, or hours",
    r"make screenshots": "another test does it, test_browser.py",
    r"make setup": "sets up what runs this test",
    r"\.ci/.*": "what runs this test",
    r"uv pip compile .*": "needs a package index",
    r"duckdb -readonly .*": "DuckDB's own client, which is no part of this project",
}
WITH_COMMANDS = [page for page in PAGES if fenced("sh", page.read_text())]
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


class Place:
    """A person's folder, and a provider's sandbox that it talks to."""

    def __init__(self, folder: Path, world: World, address: str) -> None:
        self.folder, self.world, self.address = folder, world, address
        self.app = folder / "app"
        self.app.mkdir(parents=True)
        (folder / "backup").mkdir()
        for name in ("accounts.example.toml", ".env.example", "dagster.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, self.app)
        (self.app / ".venv").symlink_to(Path(sys.executable).parents[1])

    def adapted(self, text: str) -> str:
        """A page's words, for this folder."""
        here = {
            "/srv/billing/app": str(self.app),
            "/srv/backup": str(self.folder / "backup"),
            "/tmp/": f"{self.folder}/",  # noqa: S108
            "127.0.0.1:8642": self.address.partition("//")[2],
            "8650": str(self.second),
        }
        return re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], text)

    @property
    def second(self) -> int:
        """A port for what a page starts itself."""
        if not hasattr(self, "_second"):
            self._second = free_port()
        return self._second

    def edited(self, only: str = "") -> None:
        """accounts.toml and .env as somebody leaves them whose providers are the sandbox, or one of them."""
        configuration = files("billing_pipeline").joinpath("sandbox", "accounts.toml").read_text()
        callbacks = f"127.0.0.1:{free_port()}"
        for hole, value in {"@HISTORY@": "2026-05", "@SANDBOX@": self.address, "@CALLBACKS@": callbacks}.items():
            configuration = configuration.replace(hole, value)
        top, *accounts = re.split(r"^(?=\[\[account\]\])", configuration, flags=re.MULTILINE)
        configuration = top + "".join(account for account in accounts if f'provider = "{only}' in account)
        (self.app / "accounts.edited").write_text(configuration)
        names = re.findall(r'env = "(\w+)"', configuration)
        secrets = "".join(f"{name}={name.lower().replace('_', '-')}\n" for name in names)
        (self.app / "env.edited").write_text(secrets)

    def type(self, script: str, now: datetime) -> subprocess.CompletedProcess[str]:
        """A shell, until its script ends; what it left running in the background ends with it."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
        variables |= {
            "PATH": f"{self.app / '.venv' / 'bin'}:{os.environ['PATH']}",
            "BILLING_SANDBOX": self.address,
            "BILLING_NOW": now.isoformat(),
            "HOME": str(self.folder),
        }
        process = subprocess.Popen(  # noqa: S603
            ["bash", "-euo", "pipefail", "-c", script],  # noqa: S607
            cwd=self.app, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        said = []
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if line == "the end\n":
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.stdout.close()
        process.wait(60)
        return subprocess.CompletedProcess(script, 0 if said[-1:] == ["the end\n"] else 1, "".join(said))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with place_in(tmp_path) as place:
        yield place


@contextmanager
def place_in(folder: Path) -> Iterator[Place]:
    """On 15 June 2026, with nothing fetched."""
    world = World(Clock(NOON))
    world.enforce_limits = False
    world.infobip_delay = 0.01  # type: ignore[attr-defined]
    with running(port=free_port(), world=world) as address:
        yield Place(folder, world, address)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was fetched on 15 June, the day before."""
    with place_in(tmp_path_factory.mktemp("data")) as place:
        done = place.type("billing-pipeline refresh --provider plivo --provider talkdesk; echo the end", NOON)
        assert done.returncode == 0, done.stdout
        return place.app / "data"


@pytest.fixture
def filled(place: Place, data: Path) -> Place:
    """With the months that were open on 15 June."""
    shutil.copytree(data, place.app / "data")
    place.world.clock.set(datetime(2026, 6, 16, 12, tzinfo=UTC))
    return place


def script(place: Place, page: Path) -> str:
    """All that a page wants typed, in its order."""
    lines = []
    for block in fenced("sh", page.read_text()):
        for line in place.adapted(block).splitlines():
            command = re.sub(r"\s+#\s.*", "", line)
            if any(re.fullmatch(pattern, command) for pattern in NOT_TYPED):
                continue
            lines.append(line)
            if command.endswith("&"):  # a person is slower than a server that starts
                wait = f"until (echo > /dev/tcp/127.0.0.1/{place.second}) 2> /dev/null; do read -rt 0.1 || true; done"
                lines.append(f"timeout 60 bash -c '{wait}'")
            if command.startswith("cp .env.example"):
                place.edited()
                lines += ["cp accounts.edited accounts.toml", "cp env.edited .env"]
        lines.append(f"cd {place.app}; unset BILLING_DATA; export BILLING_SANDBOX={place.address}")
        lines.append("export BILLING_NOW=2026-06-16T12:00:00Z")
    return "\n".join([*lines, "printf '\\nthe end\\n'"])


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[str(page.relative_to(ROOT)) for page in WITH_COMMANDS])
def test_whoever_types_what_a_page_says_gets_through_it(filled: Place, page: Path) -> None:
    typed = script(filled, page)
    done = filled.type(typed, filled.world.now())
    assert done.returncode == 0, f"{typed}\n\n{done.stdout[-3000:]}"
    assert "Traceback" not in done.stdout


def test_what_is_left_out_is_what_is_said_to_be_left_out() -> None:
    typed = "\n".join(block for page in PAGES for block in fenced("sh", page.read_text()))
    for pattern in NOT_TYPED:
        assert re.search(rf"^{pattern}$", re.sub(r"(?m)\s+#\s.*$", "", typed), re.MULTILINE), pattern
    for page in PAGES:
        assert all(block.startswith("# on the server") for block in fenced("console", page.read_text())), page.name


OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
UNITS = {block.splitlines()[0].rpartition("/")[2]: block for block in fenced("ini", OPERATIONS)}


def test_the_units_are_those_of_systemd(place: Place) -> None:
    if not shutil.which("systemd-analyze"):
        if os.environ.get("PROGRAMS_REQUIRED"):
            pytest.fail("systemd-analyze is not installed")
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    folder = place.folder / "units"
    folder.mkdir()
    for name, unit in UNITS.items():
        (folder / name).write_text(place.adapted(unit).replace("User=billing\n", ""))
    done = subprocess.run(  # noqa: S603
        ["systemd-analyze", "verify", *(str(folder / name) for name in UNITS)],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if str(folder) in line or any(name in line for name in UNITS)]
    assert (done.returncode, ours) == (0, []), done.stderr
    timers = {name.partition(".")[0] for name in UNITS if name.endswith(".timer")}
    assert timers == {"billing-refresh", "billing-watch"}
    for moment in re.findall("^OnCalendar=(.*)$", OPERATIONS, re.MULTILINE):
        subprocess.run(["systemd-analyze", "calendar", moment], capture_output=True, check=True)  # noqa: S603, S607


def test_what_systemd_and_cron_are_told_to_run_runs(place: Place) -> None:
    place.edited(only="plivo")
    shutil.copy(place.app / "accounts.edited", place.app / "accounts.toml")
    shutil.copy(place.app / "env.edited", place.app / ".env")
    (crontab,) = fenced("cron", OPERATIONS)
    commands = [line.split(maxsplit=5)[5] for line in crontab.splitlines()]
    for unit in UNITS.values():
        if "Type=oneshot" in unit:
            (start,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
            (variable,) = re.findall("^Environment=(.*)$", unit, re.MULTILINE)
            (folder,) = re.findall("^WorkingDirectory=(.*)$", unit, re.MULTILINE)
            commands.append(f"cd {folder} && {variable} {start}")
    assert len(commands) == 4
    for command in commands:
        done = place.type(f"{{ {place.adapted(command)}; }} || exit 1\necho the end", NOON)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        assert "sandbox" not in done.stdout, "it asked the accounts of accounts.toml"
    held = place.type("billing-pipeline status --json; echo the end", NOON).stdout
    assert '"provisional"' in held
