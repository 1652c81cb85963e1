"""The mailbox and its receiver: letters that come once are never lost, and nobody else's are kept."""

from __future__ import annotations

import logging
import socket
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from billing_pipeline.callbacks import Limits, bound, listening
from billing_pipeline.drafts import remove_folder, sweep
from billing_pipeline.mailbox import MAX_LETTERS, Mailbox, Ticket

from .infobip_letters import deliver, reserved_port


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.instant = datetime(2026, 4, 6, 6, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.instant


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mailbox(tmp_path: Path, clock: Clock) -> Mailbox:
    return Mailbox(tmp_path / "mailbox", now=clock)


@pytest.fixture
def ticket(mailbox: Mailbox) -> Ticket:
    return mailbox.accepted(mailbox.issue("infobip", "main", "2026-03", {"aggregateBy": ["DAY"]}), "REQ-1")


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as keeper:
        yield keeper.getsockname()[1]


@contextmanager
def receiver(mailbox: Mailbox, limits: Limits | None = None) -> Iterator[httpx.Client]:
    """A receiver on a port of its own, and a client of it."""
    with reserved_port() as keeper:
        address = f"127.0.0.1:{keeper.getsockname()[1]}"
        with (
            listening(mailbox, address, limits or Limits()) as receiving,
            httpx.Client(base_url=f"http://{address}", trust_env=False) as client,
        ):
            assert receiving
            yield client


def bodies(mailbox: Mailbox, ticket: Ticket) -> list[bytes]:
    return [letter.path.read_bytes() for letter in mailbox.letters(ticket)]


def everything(mailbox: Mailbox) -> list[Path]:
    return sorted(path for path in mailbox.folder.rglob("*") if path.is_file() and path.name != "ticket.json")


def test_a_letter_is_in_the_mailbox_byte_for_byte_before_it_is_answered(
    mailbox: Mailbox, ticket: Ticket, port: int
) -> None:
    with listening(mailbox, f"127.0.0.1:{port}") as receiving:
        assert receiving
        assert deliver(f"http://127.0.0.1:{port}/any/prefix/{ticket.token}", b'{"not": "parsed') == 200
    assert bodies(mailbox, ticket) == [b'{"not": "parsed']


@pytest.mark.parametrize("token", ["", "short", "A" * 43, "..", "%2e%2e", "ticket.json", "A" * 43 + "/", "ä" * 43])
def test_a_letter_with_a_token_that_was_never_issued_leaves_nothing(
    mailbox: Mailbox, ticket: Ticket, token: str
) -> None:
    with receiver(mailbox) as client:
        answer = client.post(f"/callbacks/{token}", content=b"{}")
    assert (answer.status_code, answer.content) == (404, b"")
    assert everything(mailbox) == []


def test_the_tickets_own_folder_name_is_no_token(mailbox: Mailbox, ticket: Ticket) -> None:
    with receiver(mailbox) as client:
        assert client.post(f"/callbacks/{ticket.key}", content=b"{}").status_code == 404


def test_the_disk_does_not_know_the_token(mailbox: Mailbox, ticket: Ticket) -> None:
    assert ticket.token is not None
    assert len(ticket.token) == 43
    assert ticket.token not in repr(ticket)
    for path in mailbox.folder.rglob("*"):
        assert ticket.token not in str(path)
        assert path.is_dir() or ticket.token.encode() not in path.read_bytes()


def test_only_the_owner_can_read_the_mailbox(mailbox: Mailbox, ticket: Ticket) -> None:
    with receiver(mailbox) as client:
        client.post(f"/{ticket.token}", content=b"{}")
    for path in [mailbox.folder, *mailbox.folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_letter_that_is_too_large_is_refused_and_not_kept_whether_it_says_so_or_not(
    mailbox: Mailbox, ticket: Ticket
) -> None:
    with receiver(mailbox, Limits(letter=10)) as client:
        assert client.post(f"/{ticket.token}", content=b"x" * 11).status_code == 413
        assert client.post(f"/{ticket.token}", content=iter([b"x" * 6, b"x" * 6])).status_code == 413
        assert everything(mailbox) == []
        assert client.post(f"/{ticket.token}", content=b"x" * 10).status_code == 200


def test_a_letter_that_takes_too_long_is_refused_and_not_kept(mailbox: Mailbox, ticket: Ticket) -> None:
    with (
        receiver(mailbox, Limits(seconds=0)) as client,
        socket.create_connection((client.base_url.host, client.base_url.port or 0)) as sender,
    ):
        sender.sendall(f"POST /{ticket.token} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert sender.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert everything(mailbox) == []


def test_an_empty_letter_and_a_get_are_refused(mailbox: Mailbox, ticket: Ticket) -> None:
    with receiver(mailbox) as client:
        assert client.post(f"/{ticket.token}", content=b"").status_code == 400
        assert client.get(f"/{ticket.token}").status_code == 404
    assert everything(mailbox) == []


def test_a_letter_that_breaks_off_is_not_kept(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    with listening(mailbox, f"127.0.0.1:{port}"), socket.create_connection(("127.0.0.1", port)) as sender:
        sender.sendall(f"POST /{ticket.token} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        sender.shutdown(socket.SHUT_WR)
        while sender.recv(1000):
            pass
    assert everything(mailbox) == []


def test_the_same_letter_twice_is_kept_once_and_different_ones_are_all_kept_up_to_a_limit(
    mailbox: Mailbox, ticket: Ticket, clock: Clock
) -> None:
    sent = [f"letter {number}".encode() for number in range(MAX_LETTERS)]
    with receiver(mailbox) as client:
        for body in [*sent, *sent]:
            clock.instant += timedelta(seconds=1)
            assert client.post(f"/{ticket.token}", content=body).status_code == 200
        assert client.post(f"/{ticket.token}", content=b"one too many").status_code == 409
    assert bodies(mailbox, ticket) == sent


def test_a_new_mailbox_on_the_same_folder_knows_all_that_was_issued_and_all_that_came(
    mailbox: Mailbox, ticket: Ticket, clock: Clock
) -> None:
    restarted = Mailbox(mailbox.folder, now=clock)
    with receiver(restarted) as client:
        assert client.post(f"/{ticket.token}", content=b"late").status_code == 200
    assert restarted.pending("infobip", "main", "2026-03") == [ticket]
    assert restarted.pending("infobip", "main", "2026-04") == []
    assert restarted.pending("infobip", "other") == []
    assert bodies(mailbox, ticket) == [b"late"]
    assert mailbox.letters(ticket)[0].received_at == clock()


def test_a_run_that_waits_is_woken_by_the_letter_another_receiver_took(
    mailbox: Mailbox, ticket: Ticket, clock: Clock
) -> None:
    arriving = mailbox.arriving(ticket, 60)
    with receiver(Mailbox(mailbox.folder, now=clock)) as client:
        client.post(f"/{ticket.token}", content=b"first")
        assert next(arriving).path.read_bytes() == b"first"
        clock.instant += timedelta(seconds=1)
        client.post(f"/{ticket.token}", content=b"second")
        assert next(arriving).path.read_bytes() == b"second"


def test_two_receivers_share_the_port_and_one_that_stops_loses_no_letter(
    mailbox: Mailbox, ticket: Ticket, port: int
) -> None:
    url = f"http://127.0.0.1:{port}/{ticket.token}"
    with listening(mailbox, f"127.0.0.1:{port}") as first:
        with listening(mailbox, f"127.0.0.1:{port}") as second:
            assert (first, second) == (True, True)
            assert [deliver(url, b"both") for _ in range(8)] == [200] * 8
        assert [deliver(url, b"both") for _ in range(8)] == [200] * 8
    assert bodies(mailbox, ticket) == [b"both"]


def test_receivers_that_come_and_go_lose_no_letter_while_one_stays(mailbox: Mailbox, ticket: Ticket, port: int) -> None:
    # Before a receiver let its callers finish, one hand-over in ten cut a letter off.
    url = f"http://127.0.0.1:{port}/{ticket.token}"
    statuses: list[int] = []
    sender = threading.Thread(target=lambda: statuses.extend(deliver(url, b"again") for _ in range(40)))
    with listening(mailbox, f"127.0.0.1:{port}"):
        sender.start()
        while sender.is_alive():
            with listening(mailbox, f"127.0.0.1:{port}"):
                before = len(statuses)
                while len(statuses) == before and sender.is_alive():
                    sender.join(0.001)
        sender.join()
    assert statuses == [200] * 40


def test_a_port_that_another_program_holds_for_itself_is_left_to_it(mailbox: Mailbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with listening(mailbox, address) as receiving:
            assert not receiving


def test_an_address_that_is_not_ours_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot receive callbacks on 192\.0\.2\.1:8765"):
        bound("192.0.2.1:8765")


@pytest.mark.parametrize("address", ["8765", "127.0.0.1:", ":8765", "127.0.0.1:http"])
def test_an_address_that_is_no_host_and_port_is_refused_with_an_example(address: str) -> None:
    with pytest.raises(ValueError, match=r"must be host:port, such as 127\.0\.0\.1:8765"):
        bound(address)


def test_no_log_ever_shows_a_token(
    mailbox: Mailbox, ticket: Ticket, port: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), listening(mailbox, f"127.0.0.1:{port}"):
        deliver(f"http://127.0.0.1:{port}/{ticket.token}", b"{}")
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert ticket.token not in "".join([*ours, *capfd.readouterr()])


def test_a_landed_ticket_closes_the_older_ones_of_its_month_and_is_forgotten_after_a_week(
    mailbox: Mailbox, ticket: Ticket, clock: Clock
) -> None:
    clock.instant += timedelta(hours=1)
    newer = mailbox.issue("infobip", "main", "2026-03", {})
    other_month = mailbox.issue("infobip", "main", "2026-04", {})
    mailbox.close(newer, "landed")
    assert mailbox.pending("infobip", "main") == [other_month]
    clock.instant += timedelta(days=8)
    mailbox.issue("infobip", "main", "2026-05", {})
    assert {path.name for path in mailbox.folder.iterdir()} >= {other_month.key}
    assert not (mailbox.folder / ticket.key).exists()
    assert not (mailbox.folder / newer.key).exists()


def test_a_ticket_that_was_never_answered_is_forgotten_when_its_month_is_no_longer_served(
    mailbox: Mailbox, ticket: Ticket, clock: Clock
) -> None:
    clock.instant += timedelta(days=99)
    mailbox.issue("infobip", "main", "2026-06", {})
    assert len(mailbox.pending("infobip", "main")) == 2
    clock.instant += timedelta(days=2)
    mailbox.issue("infobip", "main", "2026-07", {})
    assert not (mailbox.folder / ticket.key).exists()


def test_two_who_tidy_at_once_do_not_stumble_over_each_other(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:064x}").mkdir()
    with ThreadPoolExecutor(2) as pool:
        removing = pool.submit(lambda: [remove_folder(path) for path in sorted(tmp_path.glob("0*"), reverse=True)])
        sweeps = [pool.submit(sweep, tmp_path) for _ in range(1)]
        while not removing.done():
            sweeps.append(pool.submit(sweep, tmp_path))
            sweeps[-1].result()
        assert [each.result() for each in sweeps] == [None] * len(sweeps)
    assert list(tmp_path.iterdir()) == []
