"""A mail server of the tests, on loopback: without TLS, with STARTTLS, or with TLS from the first byte."""

from __future__ import annotations

import email
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path


@dataclass
class Post:
    """A mail server that takes everything.

    Attributes:
        said: every line that a client sent as a command, and whether it came encrypted.
        refuse: senders, from now on.
    """

    port: int
    mails: list[Message] = field(default_factory=list)
    envelopes: list[tuple[str, list[str]]] = field(default_factory=list)
    said: list[tuple[bytes, bool]] = field(default_factory=list)
    refuse: bool = False


@contextmanager
def post_office(tls: str = "none", certified: tuple[Path, Path] | None = None) -> Iterator[Post]:
    """SMTP on a loopback port, one connection at a time. tls: as smtp_tls in accounts.toml; then with certificate and key."""
    context = None
    if certified:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certified)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        office = Post(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with suppress(OSError):  # a client that does not trust us hangs up
                    _greet(connection, office, context, tls)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield office
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def _greet(connection: socket.socket, office: Post, context: ssl.SSLContext | None, tls: str) -> None:
    with context.wrap_socket(connection, server_side=True) if context and tls == "tls" else connection as spoken:
        say(spoken, "220 here")
        _converse(spoken, office, context)


def say(connection: socket.socket, text: str) -> None:
    connection.sendall(text.encode() + b"\r\n")


def _converse(connection: socket.socket, office: Post, context: ssl.SSLContext | None) -> None:
    encrypted = isinstance(connection, ssl.SSLSocket)
    offered = "250-STARTTLS\r\n" if context and not encrypted else ""
    sender, recipients = "", []
    stream = connection.makefile("rb")
    for line in stream:
        verb = line.split()[0].upper() if line.split() else b""
        office.said.append((line.strip(), encrypted))
        if verb == b"EHLO":
            say(connection, f"250-here\r\n{offered}250 AUTH PLAIN")
        elif verb == b"STARTTLS" and context:
            say(connection, "220 go ahead")
            with context.wrap_socket(connection, server_side=True) as spoken:
                return _converse(spoken, office, context)
        elif verb == b"AUTH":
            say(connection, "235 welcome")
        elif verb == b"MAIL":
            sender = line.decode().strip()
            say(connection, "550 not you" if office.refuse else "250 ok")
        elif verb == b"RCPT":
            recipients.append(line.decode().strip())
            say(connection, "250 ok")
        elif verb == b"DATA":
            say(connection, "354 go on")
            body = b""
            while not body.endswith(b"\r\n.\r\n"):
                body += stream.readline()
            office.mails.append(email.message_from_bytes(body[:-3]))
            office.envelopes.append((sender, recipients))
            say(connection, "250 taken")
        elif verb == b"QUIT":
            say(connection, "221 bye")
            return None
        else:
            say(connection, "250 ok")
    return None
