"""The receiver against senders who mean harm, or who are only slow, large or many."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import socket
import stat
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from billing_pipeline.callbacks import Limits, listening
from billing_pipeline.drafts import STEP, Draft, Room, sweep
from billing_pipeline.mailbox import LANDED, Mailbox, NoAnswer, Ticket

from .conftest import Company
from .infobip_letters import deliver, reserved_port

NOTHING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
PATIENT = 60  # seconds after which a test that waits for the receiver has failed
RECEIVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from billing_pipeline.callbacks import serve
from billing_pipeline.mailbox import Mailbox
serve(Mailbox(Path(sys.argv[1]), lambda: datetime.now(UTC)), "127.0.0.1", int(sys.argv[2]))
"""


class Clock:
    """A clock that goes on by itself: every look is a second later."""

    def __init__(self) -> None:
        self.instant = datetime(2026, 4, 6, 6, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.instant += timedelta(seconds=1)
        return self.instant


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(tmp_path / "mailbox", now=Clock())


@pytest.fixture
def ticket(mailbox: Mailbox) -> Ticket:
    return issued(mailbox)


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as keeper:
        yield keeper.getsockname()[1]


def issued(mailbox: Mailbox, period: str = "2026-03") -> Ticket:
    """A ticket with its token still known."""
    ticket = mailbox.issue("infobip", "main", period, {})
    mailbox.accepted(ticket, "REQ-1")
    return ticket


def connected(port: int, data: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENT)
    with suppress(ConnectionError):  # answered and hung up before all was sent
        connection.sendall(data)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that comes back until the connection ends."""
    came = b""
    with suppress(ConnectionError):
        while more := connection.recv(65536):
            came += more
    return came


def asked(port: int, data: bytes) -> bytes:
    with connected(port, data) as connection:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        return answer(connection)


def head(ticket: Ticket, length: int, *more: str) -> bytes:
    lines = [f"POST /callbacks/{ticket.token} HTTP/1.1", "Host: x", f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def files(folder: Path) -> set[Path]:
    """Everything but tickets."""
    return {path for path in folder.rglob("*") if path.is_file() and path.name != "ticket.json"}


def test_a_stranger_is_answered_the_same_whatever_he_does(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    used = issued(mailbox, "2026-02")
    refused = issued(mailbox, "2026-01")
    with listening(mailbox, f"127.0.0.1:{port}"):
        assert asked(port, head(used, 2) + b"{}").startswith(b"HTTP/1.1 200 OK\r\n")
        mailbox.close(used, LANDED)
        mailbox.close(refused, "refused: 403")
        before = files(mailbox.folder)
        path = f"/callbacks/{ticket.token}"
        for request in (
            b"POST /callbacks/" + b"A" * 43 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
            f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
            f"POST {path}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
            f"POST {path[:-1]} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
            head(used, 2) + b"{}",
            head(used, 5) + b"other",
            head(refused, 2) + b"{}",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"hello\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        ):
            assert asked(port, request) == NOTHING, request[:60]
    assert files(mailbox.folder) - before == {mailbox.folder / used.key / "stray.json"}


def test_nothing_is_written_outside_of_the_tickets_folder(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    root = mailbox.folder.parent
    before = set(root.rglob("*"))
    with listening(mailbox, f"127.0.0.1:{port}"):
        for target in (
            f"/callbacks/../../{ticket.key}",
            f"/{ticket.key}",
            f"/{ticket.key}/ticket.json",
            f"/%2e%2e%2f{ticket.token}",
            f"/..\\{ticket.token}",
            f"/{ticket.token}%00",
            f"/{ticket.token}\x7f",
            "/" + "../" * 30 + "etc/passwd",
        ):
            request = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
            assert asked(port, request.encode()) == NOTHING, target
        assert set(root.rglob("*")) == before
        assert asked(port, head(ticket, 2) + b"{}").startswith(b"HTTP/1.1 200 ")
    (letter,) = set(root.rglob("*")) - before
    assert letter.parent == mailbox.folder / ticket.key


@pytest.mark.parametrize("said", [b"", b"P", b"POST /callbacks/x HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_who_does_not_say_where_he_sends_to_is_hung_up_on(mailbox: Mailbox, port: int, said: bytes) -> None:
    with listening(mailbox, f"127.0.0.1:{port}", Limits(head=0.2)), connected(port, said) as slow:
        assert answer(slow) == b""


def test_a_letter_that_pauses_and_one_that_drips_are_refused_and_not_kept(
    mailbox: Mailbox, ticket: Ticket, port: int
) -> None:
    with listening(mailbox, f"127.0.0.1:{port}", Limits(idle=0.2)), connected(port, head(ticket, 100) + b"{") as paused:
        assert answer(paused).startswith(b"HTTP/1.1 408 ")
    with listening(mailbox, f"127.0.0.1:{port}", Limits(seconds=0.3)), connected(port, head(ticket, 10**6)) as dripping:
        dripping.settimeout(0.01)
        came = b""
        with suppress(ConnectionError):
            while not came:
                dripping.sendall(b"x")
                with suppress(TimeoutError):
                    came = dripping.recv(1000)
        assert came.startswith(b"HTTP/1.1 408 ")
    assert files(mailbox.folder) == set()


def test_many_who_say_nothing_do_not_keep_a_letter_out(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    with ExitStack() as stack:
        stack.enter_context(listening(mailbox, f"127.0.0.1:{port}", Limits(strangers=5, head=600)))
        silent = [stack.enter_context(connected(port, b"POST /")) for _ in range(40)]
        assert asked(port, head(ticket, 2) + b"{}").startswith(b"HTTP/1.1 200 ")
        assert [answer(each) for each in silent[:35]] == [b""] * 35  # who waited longest had to go
        for each in silent:
            each.close()


def test_letters_at_once_are_bounded_for_all_and_for_one_address(mailbox: Mailbox, port: int) -> None:
    tickets = [issued(mailbox, f"2026-0{number}") for number in (1, 2, 3)]
    with ExitStack() as stack:
        stack.enter_context(listening(mailbox, f"127.0.0.1:{port}", Limits(letters=3, per_ticket=2)))
        expecting = [head(ticket, 4, "Expect: 100-continue") for ticket in (tickets[0], tickets[0], tickets[1])]
        open_ones = []
        for request in expecting[:2]:
            open_ones.append(stack.enter_context(connected(port, request)))
            assert open_ones[-1].recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"  # it has its place
        assert asked(port, head(tickets[0], 2) + b"{}").startswith(b"HTTP/1.1 503 ")
        open_ones.append(stack.enter_context(connected(port, expecting[2])))
        assert open_ones[-1].recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert asked(port, head(tickets[2], 2) + b"{}").startswith(b"HTTP/1.1 503 ")
        for each in open_ones:
            each.sendall(b"done")
            assert answer(each).startswith(b"HTTP/1.1 200 ")
        assert asked(port, head(tickets[2], 2) + b"{}").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("room", [Room(total=STEP // 2, floor=0), Room(floor=1 << 60)], ids=["bound", "disk"])
def test_a_letter_for_which_there_is_no_room_is_refused_and_not_kept_whether_it_says_its_size_or_not(
    mailbox: Mailbox, ticket: Ticket, port: int, room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    full = Mailbox(mailbox.folder, mailbox.now, room)
    chunked = f"POST /{ticket.token} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    with listening(full, f"127.0.0.1:{port}"):
        assert asked(port, head(ticket, STEP)).startswith(b"HTTP/1.1 507 ")
        assert asked(port, chunked.encode()).startswith(b"HTTP/1.1 507 ")
    assert files(mailbox.folder) == set()
    told = [record.getMessage() for record in caplog.records if record.name == "billing_pipeline.callbacks"]
    assert len(told) == 2
    assert all("infobip/main 2026-03, request REQ-1" in text and str(ticket.token) not in text for text in told)


def test_letters_that_were_landed_give_way_when_there_is_no_room(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    small = Mailbox(mailbox.folder, mailbox.now, Room(total=STEP * 2, floor=0))
    landed = issued(mailbox, "2026-02")
    with listening(small, f"127.0.0.1:{port}"):
        assert asked(port, head(landed, STEP) + b"x" * STEP).startswith(b"HTTP/1.1 200 ")
        assert asked(port, head(ticket, STEP + 1)).startswith(b"HTTP/1.1 507 ")
        mailbox.close(landed, LANDED)
        assert asked(port, head(ticket, STEP + 1) + b"x" * (STEP + 1)).startswith(b"HTTP/1.1 200 ")
    assert [ticket.key for ticket in mailbox.pending("infobip", "main")] == [ticket.key]


def test_files_and_folders_are_their_owners_alone_whatever_the_umask(tmp_path: Path, port: int) -> None:
    before = os.umask(0)
    try:
        mailbox = Mailbox(tmp_path / "mailbox", now=Clock())
        ticket = issued(mailbox)
        with listening(mailbox, f"127.0.0.1:{port}"):
            asked(port, head(ticket, 2) + b"{}")
            mailbox.close(ticket, LANDED)
            asked(port, head(ticket, 2) + b"[]")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in mailbox.folder.rglob("*") if path.is_file()}
    assert len(files(mailbox.folder)) == 2
    assert modes == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in mailbox.folder.rglob("*") if path.is_dir()} == {0o700}
    assert stat.S_IMODE(mailbox.folder.stat().st_mode) == 0o700


def test_a_letter_on_its_way_may_finish_when_the_receiver_stops(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    with ExitStack() as stack:
        receiver = stack.enter_context(ExitStack())
        receiver.enter_context(listening(mailbox, f"127.0.0.1:{port}"))
        half = stack.enter_context(connected(port, head(ticket, 4, "Expect: 100-continue")))
        assert half.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        stopping = threading.Thread(target=receiver.close)
        stopping.start()
        half.sendall(b"done")
        assert answer(half).startswith(b"HTTP/1.1 200 ")
        stopping.join()
    assert [letter.path.read_bytes() for letter in mailbox.letters(ticket)] == [b"done"]


def test_a_letter_that_arrives_while_its_ticket_is_closed_is_refused_and_remembered_when_it_is_another(
    mailbox: Mailbox, ticket: Ticket, port: int
) -> None:
    with listening(mailbox, f"127.0.0.1:{port}"):
        assert asked(port, head(ticket, 5) + b"first").startswith(b"HTTP/1.1 200 ")
        with connected(port, head(ticket, 5, "Expect: 100-continue")) as late:
            assert late.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
            mailbox.close(ticket, LANDED)
            late.sendall(b"other")
            assert answer(late) == NOTHING
    (stray,) = mailbox.strays("infobip", "main", "2026-03")
    assert (stray.bytes, stray.ticket.key) == (5, ticket.key)
    assert [letter.path.read_bytes() for letter in mailbox.letters(ticket)] == [b"first"]


def test_what_a_dead_writer_left_is_swept_and_what_a_living_one_writes_is_not(mailbox: Mailbox, ticket: Ticket) -> None:
    folder = mailbox.folder / ticket.key
    (folder / ".0123456789abcdef.tmp").write_bytes(b"half a letter")
    half = mailbox.folder / ".fedcba9876543210.tmp"
    half.mkdir()
    (half / ".0123456789abcdef.tmp").write_bytes(b"half a ticket")
    with Draft(folder) as alive:
        alive.write(b"still being written")
        sweep(mailbox.folder)
        assert set(mailbox.folder.rglob(".*.tmp")) == {alive.path}
    assert list(mailbox.folder.rglob(".*.tmp")) == []
    assert mailbox.pending("infobip", "main")


def wait_for(receiver: subprocess.Popen[bytes], port: int) -> None:
    """Until it answers."""
    up = False
    while not up:
        assert receiver.poll() is None
        with suppress(OSError):
            up = asked(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == NOTHING


@contextmanager
def process(mailbox: Mailbox, port: int, limit: int = resource.RLIM_INFINITY) -> Iterator[subprocess.Popen[bytes]]:
    """A receiver in a process of its own, that is up; files of it may have `limit` bytes."""
    command = [sys.executable, "-c", RECEIVER, str(mailbox.folder), str(port)]
    started = subprocess.Popen(  # noqa: S603  ours
        command, stderr=subprocess.DEVNULL, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )  # fmt: skip
    try:
        wait_for(started, port)
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.fixture
def real(tmp_path: Path) -> Mailbox:
    """A mailbox with the real clock, as a receiver in a process of its own has it."""
    return Mailbox(tmp_path / "mailbox", now=lambda: datetime.now(UTC))


def test_a_disk_that_takes_no_more_refuses_the_letter_and_the_receiver_lives(real: Mailbox, port: int) -> None:
    mailbox, ticket = real, issued(real)
    with process(mailbox, port, limit=1 << 20):
        size = 3 << 20
        assert asked(port, head(ticket, size) + b"x" * size).startswith(b"HTTP/1.1 507 ")
        assert files(mailbox.folder) == set()
        assert asked(port, head(ticket, 2) + b"{}").startswith(b"HTTP/1.1 200 ")


def test_memory_stays_flat_whatever_is_sent(real: Mailbox, port: int) -> None:
    ticket = issued(real)
    with process(real, port) as receiver:

        def most() -> int:
            status = Path(f"/proc/{receiver.pid}/status").read_text()
            return int(status.partition("VmHWM:")[2].split()[0]) >> 10

        assert asked(port, head(ticket, 2) + b"{}").startswith(b"HTTP/1.1 200 ")
        before, size = most(), 64 << 20
        with connected(port, head(ticket, size)) as large:
            for _ in range(64):
                large.sendall(b"x" * (1 << 20))
            assert answer(large).startswith(b"HTTP/1.1 200 ")
        with connected(port, b"POST / HTTP/1.1\r\nX: ") as endless, suppress(ConnectionError):
            for _ in range(64):
                endless.sendall(b"x" * (1 << 20))
        assert most() - before < 16  # MB


def test_two_processes_on_one_port_keep_a_letter_once_and_two_letters_both(real: Mailbox, port: int) -> None:
    mailbox, same, different = real, issued(real, "2026-02"), issued(real, "2026-03")
    with process(mailbox, port), listening(mailbox, f"127.0.0.1:{port}"):
        statuses: list[int] = []

        def send(ticket: Ticket, body: bytes) -> None:
            statuses.append(deliver(f"http://127.0.0.1:{port}/{ticket.token}", body))

        letters = [(same, b"same")] * 8 + [(different, b"one"), (different, b"two")]
        senders = [threading.Thread(target=send, args=letter) for letter in letters]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert set(statuses) <= {200, 503}  # at most three at once for one address in one process
    assert [letter.path.read_bytes() for letter in mailbox.letters(same)] == [b"same"]
    assert sorted(letter.path.read_bytes() for letter in mailbox.letters(different)) == [b"one", b"two"]


@pytest.mark.parametrize("seed", range(int(os.environ.get("RECEIVER_KILLS", "6"))))
def test_a_letter_that_was_answered_200_is_never_lost_when_the_receiver_is_killed(
    real: Mailbox, port: int, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  when to kill
    answered: dict[str, bytes] = {}
    came = threading.Semaphore(0)
    with process(real, port) as receiver:

        def send(number: int) -> None:
            chance = random.Random(f"{seed}-{number}")  # noqa: S311
            while receiver.poll() is None:
                ticket, body = issued(real), chance.randbytes(chance.choice([100, 10_000, 3_000_000]))
                with suppress(OSError), connected(port, head(ticket, len(body)) + body) as connection:
                    if answer(connection).startswith(b"HTTP/1.1 200 "):
                        answered[ticket.key] = body
                        came.release()

        senders = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for sender in senders:
            sender.start()
        with connected(
            port, head(issued(real), 5_000_000)
        ) as half:  # it is killed when so much of this letter was sent
            for _ in range(chance.randrange(1, 6)):
                assert came.acquire(timeout=PATIENT)
            for _ in range(0, chance.randrange(1, 4_900_000), 10_000):
                half.sendall(b"x" * 10_000)
            receiver.kill()
        for sender in senders:
            sender.join()
    assert answered
    kept = {ticket.key: real.letters(ticket) for ticket in real.pending("infobip", "main")}
    for key, body in answered.items():
        assert [letter.path.read_bytes() for letter in kept[key]] == [body]
    for letters in kept.values():  # also those whose answer was lost are whole
        for letter in letters:
            assert hashlib.sha256(letter.path.read_bytes()).hexdigest() == letter.sha256
    with process(real, port):
        assert list(real.folder.rglob(".*.tmp")) == []


def test_a_letter_that_was_answered_before_a_kill_is_loaded_by_the_next_run(company: Company) -> None:
    may = company.month("infobip", "main", "2026-05")
    settings = company.line.configuration.account("infobip", "main")
    accounts = (settings.model_copy(update={"wait_seconds": 0}),)
    company.line.configuration = replace(company.line.configuration, accounts=accounts)
    company.world.infobip_fault = "late"  # type: ignore[attr-defined]
    with pytest.raises(NoAnswer):
        company.line.fetch(may)
    listen = str(settings.callback_listen)  # type: ignore[attr-defined]
    environment = {
        **os.environ,
        "BILLING_DATA": str(company.line.data),
        "BILLING_SANDBOX": company.address,
        "BILLING_NOW": company.world.now().isoformat(),
    }
    command = [sys.executable, "-m", "billing_pipeline", "callbacks", "--listen", listen]
    with (
        reserved_port(
            int(listen.rpartition(":")[2])
        ) as keeper,  # else who knocks too early might be given this very port
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as receiver,  # noqa: S603  ours
    ):
        try:
            wait_for(receiver, keeper.getsockname()[1])
            letters = f"{company.address}/_sandbox/infobip/letters"
            with urllib.request.urlopen(urllib.request.Request(letters, method="POST")) as told:  # noqa: S310  loopback
                assert [each["status"] for each in json.loads(told.read())["delivered"]] == [200]
        finally:
            receiver.kill()
    asked_for = len(company.world.requests("infobip"))
    company.do(may)
    company.line.publish()
    assert company.shown(may) == company.stated(may)
    assert len(company.world.requests("infobip")) == asked_for
