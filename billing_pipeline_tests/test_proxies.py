"""The two proxies of SECURITY.md, started as they stand there: letters come through, the address of one is written nowhere."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from billing_pipeline.callbacks import listening
from billing_pipeline.mailbox import Mailbox, Ticket

from .infobip_letters import reserved_port
from .self_signed import certificate

HOST = "billing.example.com"
PATIENT = 60  # seconds after which a test that waits for a program has failed
LETTER = b"a,b\n" + b"1,2\n" * 10_000_000  # 40 MB: nginx alone would refuse more than one
NGINX = (
    "daemon off; pid {0}/nginx.pid; error_log {0}/error.log; events {{}} http {{ access_log {0}/access.log;\n{1}\n}}"
)
CADDY = "{{\n  admin off\n  auto_https disable_redirects\n  storage file_system {0}/storage"


def snippet(language: str) -> str:
    text = (Path(__file__).parent.parent / "SECURITY.md").read_text()
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found)


def nginx(folder: Path, port: int, receiver: int) -> list[str | Path]:
    site = snippet("nginx").replace("listen 443", f"listen 127.0.0.1:{port}").replace(":8765", f":{receiver}")
    site = site.replace(f"/etc/letsencrypt/live/{HOST}", str(folder))
    (folder / "nginx.conf").write_text(NGINX.format(folder, site))
    return ["nginx", "-p", folder, "-c", folder / "nginx.conf"]


def caddy(folder: Path, port: int, receiver: int) -> list[str | Path]:
    site = snippet("caddy").replace(":8765", f":{receiver}")
    site = site.replace(f"{HOST} {{", f"{HOST}:{port} {{\n    tls {folder}/fullchain.pem {folder}/privkey.pem", 1)
    (folder / "Caddyfile").write_text(CADDY.format(folder) + site.removeprefix("{"))
    return ["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"]


PROXIES = {"nginx": nginx, "caddy": caddy}


@contextmanager
def proxied(name: str, folder: Path, receiver: int) -> Iterator[httpx.Client]:
    """The proxy in front of a receiver's port, and somebody who trusts its certificate."""
    folder.mkdir()
    certificate(folder, HOST)
    with reserved_port() as keeper:
        port = keeper.getsockname()[1]
    command = PROXIES[name](folder, port, receiver)
    with (folder / "printed.log").open("wb") as printed:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=printed, stderr=printed, env=os.environ | {"HOME": str(folder)}
        )
    try:
        until = time.monotonic() + PATIENT
        while True:
            assert process.poll() is None, (folder / "printed.log").read_text()
            assert time.monotonic() < until, f"{name} does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENT).close()
                break
            except ConnectionRefusedError:
                os.sched_yield()
        trusting = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
        with httpx.Client(
            verify=trusting, trust_env=False, timeout=PATIENT, base_url=f"https://127.0.0.1:{port}"
        ) as client:
            yield client
    finally:
        process.terminate()
        process.wait(PATIENT)


def send(client: httpx.Client, path: str, body: bytes) -> httpx.Response:
    return client.post(path, content=body, headers={"Host": HOST}, extensions={"sni_hostname": HOST})


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "mailbox", now=lambda: datetime.now(UTC))


@pytest.fixture
def ticket(mailbox: Mailbox) -> Ticket:
    ticket = mailbox.issue("infobip", "main", "2026-03", {})
    mailbox.accepted(ticket, "REQ-1")
    return ticket


@pytest.mark.parametrize("name", PROXIES)
def test_a_letter_comes_through_and_its_address_is_written_nowhere(
    tmp_path: Path, mailbox: Mailbox, ticket: Ticket, name: str
) -> None:
    if not shutil.which(name):
        if os.environ.get("PROGRAMS_REQUIRED"):
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    folder = tmp_path / name
    address = f"/callbacks/{ticket.token}"
    with reserved_port() as keeper:
        receiver = keeper.getsockname()[1]
    with proxied(name, folder, receiver) as client:
        assert send(client, address, LETTER).status_code == 502  # nobody listens yet: the provider sends again
        with listening(mailbox, f"127.0.0.1:{receiver}"):
            answered = send(client, address, LETTER)
            assert answered.status_code == 200
            strangers = [send(client, path, b"x") for path in ("/callbacks/" + "0" * 43, "/callbacks/", "/", "/else")]
    assert [each.status_code for each in strangers] == [404] * 4
    assert not any(
        character.isdigit() for each in (answered, *strangers) for character in each.headers.get("Server", "")
    )
    (letter,) = mailbox.letters(ticket)
    assert letter.sha256 == hashlib.sha256(LETTER).hexdigest()
    assert ticket.token.encode() not in written(folder)
