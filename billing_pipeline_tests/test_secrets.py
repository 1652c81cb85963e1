"""No secret is found anywhere after runs full of faults, nothing goes to a foreign host, and files are private."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, quote_plus

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dotenv import dotenv_values
from rich.console import Console

from billing_pipeline import accounts, definitions, refresh, status
from billing_pipeline.landing import Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers import providers
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import free_port
from .harness import QUICK
from .test_cli import CLEAN, NOW

PROJECT = Path(__file__).parent.parent
SECRETS = {
    "PLIVO_TOKEN": 'S3CR3T/plivo+tok=en"1',
    "YCLOUD_KEY": "S3CR3T/ycloud+key=2",
    "TALKDESK_ID": "S3CR3T-talkdesk+id=3",
    "TALKDESK_SECRET": "S3CR3T/talkdesk+sec=4",
    "INFOBIP_KEY": "S3CR3T/infobip+key=5",
    "HOOK": "http://127.0.0.1:9/services/S3CR3T/hook+6",  # nobody listens there
    "SMTP": "S3CR3T/smtp+7",
}
ACCOUNTS = """history_from = "2026-05"

[[account]]
provider = "plivo"
name = "main"
base_url = "{proxy}/plivo"
auth_id = "MAACMERETAILSANDBOX1"
auth_token = {{ env = "PLIVO_TOKEN" }}
rate_limit = {{ requests = 1000, seconds = 1 }}

[[account]]
provider = "ycloud"
name = "main"
base_url = "{proxy}/ycloud"
api_key = {{ env = "YCLOUD_KEY" }}
rate_limit = {{ requests = 1000, seconds = 1 }}

[[account]]
provider = "talkdesk"
name = "main"
base_url = "{proxy}/talkdesk"
token_url = "{proxy}/talkdesk/oauth/token"
client_id = {{ env = "TALKDESK_ID" }}
client_secret = {{ env = "TALKDESK_SECRET" }}
rate_limit = {{ requests = 1000, seconds = 1 }}

[[account]]
provider = "infobip"
name = "main"
base_url = "{proxy}/infobip"
api_key = {{ env = "INFOBIP_KEY" }}
callback_url = "http://127.0.0.1:{port}/callbacks"
callback_listen = "127.0.0.1:{port}"
wait_seconds = 60
rate_limit = {{ requests = 1000, seconds = 1 }}

[alerts]
webhook = {{ env = "HOOK" }}
email_to = ["billing@example.com"]
email_from = "pipeline@example.com"
smtp_host = "127.0.0.1"
smtp_port = 9
smtp_tls = "none"
smtp_user = "pipeline"
smtp_password = {{ env = "SMTP" }}
"""
REAL = {
    "plivo": ("Authorization", "Basic " + base64.b64encode(b"MAACMERETAILSANDBOX1:sandbox-plivo-main-token").decode()),
    "ycloud": ("X-API-Key", "sandbox-ycloud-key"),
    "infobip": ("Authorization", "App sandbox-infobip-key"),
    "talkdesk": (
        "Authorization",
        "Basic " + base64.b64encode(b"sandbox-talkdesk-client:sandbox-talkdesk-secret").decode(),
    ),
}
"""What the sandbox knows, in place of our secrets; Talkdesk's for the token endpoint alone."""


@dataclass
class Provider:
    """Stands before the sandbox, and echoes all that it was told in every way a broken server might.

    Attributes:
        sandbox: where the real answers are.
        evil: an address that must never hear of anybody.
        mode: what goes wrong now; "" nothing.
        learnt: what it was given that is secret and that we did not choose: bearer tokens, callback addresses.
    """

    sandbox: str
    evil: str
    mode: str = ""
    learnt: set[str] = field(default_factory=set)
    asked: int = 0

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes, here: str
    ) -> tuple[int, dict[str, str], bytes]:
        self.asked += 1
        told = " ".join(f"{name}: {value}" for name, value in headers.items()) + " " + body.decode()
        self.learnt |= set(re.findall(r"Bearer (\S+)", told)) | set(re.findall(r'/callbacks/([^"/]+)"', told))
        self.learnt |= set(re.findall(r"Basic (\S+)", told))
        plain = [base64.b64decode(word).decode() for word in re.findall(r"Basic (\S+)", told)]
        echo = json.dumps(
            {"headers": headers, "body": body.decode(), "plain": plain, "said": [quote(p, safe="") for p in plain]}
        )
        kind = {"Content-Type": "application/json"}
        token = path.endswith("/oauth/token")
        if self.mode in ("401", "503") and not (token and self.asked % 2):  # the token endpoint fails too, now and then
            return (
                int(self.mode),
                kind | {"Retry-After": "0"},
                f'{{"error": "no", "error_description": {json.dumps(echo)}, "echo": {echo}}}'.encode(),
            )
        if self.mode == "redirect":
            away = f"{self.evil}{path}?key={quote(echo)}"
            return 302, kind | {"Location": away}, echo.encode()
        if self.mode == "broken" and not token:
            return 200, kind, f'{{"data": [], "echo": {echo}, "cut'.encode()
        if self.mode == "html" and not token:
            return 200, {"Content-Type": f"text/html; {quote(echo)}"}, f"<html>{html.escape(echo)}".encode()
        status, came = self.forward(method, path, headers, body, here)
        if token and status == 200:
            self.learnt.add(json.loads(came)["access_token"])
        if self.mode == "next" and path.startswith("/talkdesk") and not token:
            answer = json.loads(came)
            answer["_links"] = {"next": {"href": f"{self.evil}/talkdesk/usage?page=2"}}
            came = json.dumps(answer).encode()
        return status, kind, came

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes, here: str) -> tuple[int, bytes]:
        passed = {
            name: value
            for name, value in headers.items()
            if name.lower() in ("content-type", "accept", "authorization")
        }
        provider = path.split("/")[1]
        if provider != "talkdesk" or path.endswith("/oauth/token"):
            name, value = REAL[provider]
            passed = {key: v for key, v in passed.items() if key.lower() != name.lower()} | {name: value}
        request = urllib.request.Request(self.sandbox + path, body or None, passed, method=method)  # noqa: S310  loopback
        try:
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                return answer.status, answer.read().replace(self.sandbox.encode(), here.encode())
        except urllib.error.HTTPError as error:
            return error.code, error.read()


@contextmanager
def serving(answer: Callable[..., tuple[int, dict[str, str], bytes]]) -> Iterator[str]:
    """A server on loopback that answers so; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            here = f"http://{self.headers['Host']}"
            status, headers, came = answer(self.command, self.path, dict(self.headers.items()), body, here)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(came))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(came)

        do_GET = do_POST = _do

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def forms(secret: str) -> set[bytes]:
    """How a secret may be written."""
    raw = secret.encode()
    return {
        raw,
        quote(secret).encode(),
        quote(secret, safe="").encode(),
        quote_plus(secret).encode(),
        json.dumps(secret)[1:-1].encode(),
        json.dumps(json.dumps(secret))[2:-2].encode(),
        html.escape(secret).encode(),
        base64.b64encode(raw),
        base64.urlsafe_b64encode(raw),
        base64.b64encode(raw).rstrip(b"="),
        raw.hex().encode(),
    }


def contents(path: Path) -> Iterator[bytes]:
    """Every byte of a file, and what is packed or split in it."""
    yield path.read_bytes()
    if path.suffix == ".zst":
        with pa.input_stream(str(path), compression="zstd") as stream:
            yield stream.read()
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        yield (
            str(table.to_pylist()).encode()
            + str(table.schema.metadata).encode()
            + str(pq.read_metadata(path).metadata).encode()
        )
    elif path.suffix == ".duckdb":
        with duckdb.connect(str(path), read_only=True) as db:
            for (name,) in db.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall():
                yield str(db.execute(f'SELECT * FROM "{name}"').fetchall()).encode()
    elif path.read_bytes()[:15] == b"SQLite format 3":
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as lite:
            yield "\n".join(lite.iterdump()).encode()
        lite.close()


def leaks(folder: Path, secrets: set[str]) -> list[tuple[str, str]]:
    """Files below a folder in which a secret is found; those that are there to hold them left out."""
    needles = {form: secret for secret in secrets for form in forms(secret)}
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".env":
            for content in contents(path):
                found += [
                    (str(path.relative_to(folder)), secret) for form, secret in needles.items() if form in content
                ]
    return found


@dataclass
class Place:
    """A folder with accounts.toml, .env and dagster.yaml, and everything that is said there, in files."""

    folder: Path
    provider: Provider
    visitors: list[str]
    environment: dict[str, str]

    def type(self, *arguments: str) -> int:
        """A command with the umask that most machines have; what it says is kept in a file."""
        return self.python(f"{arguments[0]}-{self.provider.mode}", "-m", "billing_pipeline", *arguments)

    def python(self, name: str, *arguments: str) -> int:
        """Another Python, likewise; what it says is kept under this name."""
        with (self.folder / f"said-{name}").open("ab") as said:
            return subprocess.run(  # noqa: S603
                ["/bin/sh", "-c", 'umask 022; exec "$@"', "sh", sys.executable, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=said,
                stderr=said,
                check=False,
                timeout=180,
            ).returncode

    def line(self) -> Line:
        """The line of this folder in this process, with little patience."""
        configuration = accounts.read(
            (self.folder / "accounts.toml").read_text(), "accounts.toml", SECRETS, providers()
        )
        clock = datetime.fromisoformat(NOW).astimezone(UTC)
        return Line(self.folder / "data", configuration, providers(), lambda: clock, "test", QUICK)

    def secrets(self) -> set[str]:
        """Everything that must not be found: what we chose, and what was made on the way."""
        pairs = {
            f"{SECRETS['TALKDESK_ID']}:{SECRETS['TALKDESK_SECRET']}",
            f"MAACMERETAILSANDBOX1:{SECRETS['PLIVO_TOKEN']}",
        }
        return {*SECRETS.values(), *pairs, *self.provider.learnt}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    world = World(Clock(datetime.fromisoformat(NOW).astimezone(UTC)))
    world.enforce_limits = False
    visitors: list[str] = []

    def evil(
        method: str, path: str, headers: dict[str, str], body: bytes, here: str
    ) -> tuple[int, dict[str, str], bytes]:
        visitors.append(f"{method} {path} {headers} {body!r}")
        return 200, {"Content-Type": "application/json"}, b"{}"

    with running(port=free_port(), world=world) as sandbox, serving(evil) as away:
        provider = Provider(sandbox, away)
        with serving(provider.answer) as proxy:
            (tmp_path / "accounts.toml").write_text(ACCOUNTS.format(proxy=proxy, port=free_port()))
            (tmp_path / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in SECRETS.items()))
            (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
            yield Place(tmp_path, provider, visitors, CLEAN | {"BILLING_NOW": NOW})


def test_the_grep_finds_a_secret_wherever_it_is_put(place: Place) -> None:
    assert leaks(place.folder, place.secrets()) == []
    secret, data = SECRETS["PLIVO_TOKEN"], place.folder / "data"
    data.mkdir()
    places = ["x.parquet", "x.zst", "x.sqlite", "x.duckdb", "x.log"]
    pq.write_table(pa.table({"a": [secret] * 1000}), data / "x.parquet")
    with pa.output_stream(str(data / "x.zst"), compression="zstd") as stream:
        stream.write(secret.encode() * 100)
    with sqlite3.connect(data / "x.sqlite") as lite:
        lite.execute("CREATE TABLE t (a TEXT)")
        lite.execute("INSERT INTO t VALUES (?)", ["x" * 4000 + secret])
    lite.close()
    with duckdb.connect(str(data / "x.duckdb")) as db:
        db.execute("CREATE TABLE t AS SELECT ? AS a", [secret])
    (data / "x.log").write_text(quote(secret, safe=""))
    assert {path for path, _ in leaks(place.folder, {secret})} == {f"data/{name}" for name in places}
    assert dotenv_values(place.folder / ".env") == SECRETS


def test_no_secret_is_found_anywhere_after_runs_full_of_faults(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("401", "redirect"):
        place.provider.mode = mode
        assert place.type("refresh") == 1, mode
        assert place.visitors == [], mode
    assert place.type("status", "--json") == 0
    monkeypatch.chdir(place.folder)
    line = place.line()
    said = io.StringIO()
    for mode in ("503", "html", "broken", "next"):
        place.provider.mode = mode
        outcomes = refresh.refresh(line, Console(file=said, width=300), periods=[BillingPeriod(2026, 5)])
        assert {o.partition.provider for o in outcomes if o.failure and isinstance(o.partition, Partition)} == (
            {"talkdesk"} if mode == "next" else {"infobip", "plivo", "talkdesk", "ycloud"}
        )
        said.write(refresh.summary(line, outcomes))
    with dg.DagsterInstance.from_config(str(place.folder)) as instance:
        job = definitions.build(line).resolve_job_def("account_month")
        for name, mode in (
            *(("plivo", "401"), ("ycloud", "html"), ("talkdesk", "401"), ("infobip", "401"), ("infobip", "html")),
            *(("plivo", ""), ("infobip", "")),
        ):
            place.provider.mode = mode
            result = job.execute_in_process(
                partition_key="2026-05",
                asset_selection=[dg.AssetKey([name, "main", step]) for step in ("raw", "charges")],
                instance=instance,
                raise_on_error=False,
                run_config={"ops": {f"{name}__main__raw": {"config": {"compare": True}}}},
            )
            assert result.success == (mode == ""), (mode, name)
    place.provider.mode = ""
    assert not [o for o in refresh.refresh(line, Console(file=said), periods=[BillingPeriod(2026, 5)]) if o.failure]
    status.show(line, Console(file=said))
    assert place.visitors == []
    assert len(place.provider.learnt) > 5, "tokens and callback addresses were seen"
    (place.folder / "said-in-process").write_text(said.getvalue())
    assert leaks(place.folder, place.secrets()) == []
    # It would have been found: the faults were told of, and Dagster has kept them.
    assert "***" in (place.folder / "said-refresh-401").read_text()
    assert b"***" in b"".join(
        path.read_bytes() for path in (place.folder / "data" / "dagster").rglob("*") if path.is_file()
    )


DAEMON = """
import dagster
from billing_pipeline.definitions import defs as lazy

defs = lazy()
with dagster.DagsterInstance.get() as instance:
    context = dagster.build_sensor_context(instance=instance, repository_def=defs.get_repository_def())
    print(defs.resolve_sensor_def("told_by_refresh").evaluate_tick(context).skip_message)
"""


def test_everything_below_data_is_for_its_owner_alone_under_the_usual_umask(place: Place) -> None:
    assert place.type("refresh") == 0
    place.environment["DAGSTER_HOME"] = str(place.folder)
    assert place.python("daemon", "-c", DAEMON) == 0
    assert "things were done" in (place.folder / "said-daemon").read_text()
    data = place.folder / "data"
    found = {path.relative_to(data).parts[0] for path in data.rglob("*")}
    assert {"raw", "charges", "history", "warehouse.duckdb", "mailbox", "limits", "locks", "untold", "dagster"} <= found
    modes = {
        str(path.relative_to(data)): oct(path.stat().st_mode & 0o777)
        for path in (data, *data.rglob("*"))
        if path.stat().st_mode & 0o777 != (0o700 if path.is_dir() else 0o600) and path.suffix != ".lock"
    }
    assert modes == {}
    assert not [path for path in data.rglob("*") if path.stat().st_mode & 0o077]
    warehouse = data / "warehouse.duckdb"
    warehouse.chmod(0o640)  # a person lets a group ask it
    before = warehouse.stat().st_ino
    assert place.type("refresh", "--provider", "plivo", "--period", "2026-06") == 0
    assert (warehouse.stat().st_mode & 0o777, warehouse.stat().st_ino == before) == (0o640, False)


def test_recordings_hold_no_credentials() -> None:
    folder = Path(__file__).parent / "recordings"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        text = path.read_text()
        assert not re.search(r"(?i)\b(basic|bearer|app)\s+[\w.~+/=-]{16,}", text), path
        assert not re.search(
            r'(?i)"(authorization|x-api-key|api_?key|auth_token|client_secret|access_token|callbackurl)"', text
        ), path
