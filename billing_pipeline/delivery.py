"""Alerts on their way: by webhook, by e-mail, and each once a day; data/alerts/ remembers which were delivered.

Bounded in time, and never an error of the pipeline: what could not be delivered is told to the caller, and tried again later.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC
from email.message import EmailMessage
from pathlib import Path
from threading import Thread
from typing import Any

from filelock import FileLock, Timeout

from .accounts import AlertSettings
from .alerts import TITLES, Alert, wrong
from .failures import Failure, printable
from .line import Line
from .redaction import cleaned
from .transport import post_once

PATIENCE = 15.0
"""Seconds for one message; a channel that fails is not tried again before the next occasion."""


def deliver(line: Line, alerts: Iterable[Alert] | None = None, more: Iterable[Failure] = ()) -> list[str]:
    """Send what is wrong now and was not sent today, on every configured channel.

    Args:
        line: its configuration says where to.
        alerts: what to send; None: everything that is wrong.
        more: failures that are no month's.

    Returns:
        A sentence for each channel that did not take its messages; nothing when all is well, or no channel is configured.
    """
    settings = line.configuration.alerts
    if settings is None:
        return []
    secrets = [*settings.secrets(), *(secret for s in line.configuration.accounts for secret in s.secrets())]
    locks = line.data / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / "alerts.lock", timeout=3 * PATIENCE):
            found = list(wrong(line, more) if alerts is None else alerts)
            return _deliver(settings, _Sent(line), found, secrets)
    except Timeout:
        return ["alerts: another process has been sending for too long; the next run tries again"]
    except Exception as error:  # noqa: BLE001  no alert is worth a failed run
        return [f"alerts: not sent: {printable(cleaned(f'{type(error).__name__}: {error}', secrets))[:300]}"]


def _deliver(settings: AlertSettings, sent: _Sent, alerts: list[Alert], secrets: list[str]) -> list[str]:
    channels: dict[str, Callable[[dict[str, Any]], None]] = {}
    if settings.webhook:
        channels["webhook"] = lambda message: _post(settings, message)
    if settings.email_to:
        channels["e-mail"] = lambda message: _mail(settings, message)
    problems = []
    for channel, send in channels.items():
        new = [alert for alert in alerts if not sent.already(channel, alert.key)]
        for cause in dict.fromkeys(alert.cause for alert in new):
            same = [alert for alert in new if alert.cause == cause]
            try:
                _within(PATIENCE, send, _message(sent.day, same, secrets))
            except Exception as error:  # noqa: BLE001  whatever it is, it is reported and the pipeline goes on
                what = printable(cleaned(str(error), secrets))[:300] or type(error).__name__
                problems.append(f"alerts: the {channel} did not take a message: {what}; the next run tries again")
                break
            sent.note(channel, [alert.key for alert in same])
    return problems


def _message(day: str, same: list[Alert], secrets: list[str]) -> dict[str, Any]:
    """One message about one cause, as the webhook gets it."""
    cause = same[0].cause
    title = f"{', '.join(alert.subject for alert in same)} {TITLES[cause]}"
    text = cleaned("\n\n".join([title, *(f"{alert.subject}: {alert.text}" for alert in same)]), secrets)
    return {
        # Chat programs take <...> for links and for calling everybody; a provider's words must do neither.
        "text": text.replace("<", "‹").replace(">", "›"),
        "title": cleaned(title, secrets),
        "cause": cause,
        "day": day,
        "alerts": [{"subject": alert.subject, "text": cleaned(alert.text, secrets)} for alert in same],
    }


def _post(settings: AlertSettings, message: dict[str, Any]) -> None:
    assert settings.webhook  # noqa: S101
    post_once(settings.webhook.get_secret_value(), message, PATIENCE)


def _mail(settings: AlertSettings, message: dict[str, Any]) -> None:
    mail = EmailMessage()
    mail["Subject"] = f"[billing-pipeline] {message['title']}"[:200]
    mail["From"], mail["To"] = settings.email_from, ", ".join(settings.email_to)
    mail.set_content("\n\n".join([message["title"], *(f"{a['subject']}: {a['text']}" for a in message["alerts"])]))
    trusting = ssl.create_default_context()  # smtplib on its own would take any certificate
    with (
        smtplib.SMTP_SSL(settings.smtp_host, settings.smtp_port, timeout=PATIENCE, context=trusting)
        if settings.smtp_tls == "tls"
        else smtplib.SMTP(settings.smtp_host, settings.smtp_port, timeout=PATIENCE)
    ) as server:
        if settings.smtp_tls == "starttls":
            server.starttls(context=trusting)
        if settings.smtp_user and settings.smtp_password:
            server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
        server.send_message(mail)


def _within(seconds: float, send: Callable[[dict[str, Any]], None], message: dict[str, Any]) -> None:
    """Call it in a thread and wait so long: time limits of sockets are for each read, and a server may drip for ever."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            send(message)
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            failed.append(error)

    thread = Thread(target=work, name="alert", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if thread.is_alive():
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")


class _Sent:
    """data/alerts/sent.json: what each channel took today (UTC)."""

    def __init__(self, line: Line) -> None:
        self.day = f"{line.now().astimezone(UTC):%Y-%m-%d}"
        self._path = line.data / "alerts" / "sent.json"
        self._keys: dict[str, list[str]] = {}
        try:
            written = json.loads(self._path.read_bytes())
            if written["day"] == self.day:
                self._keys = {str(channel): [str(key) for key in keys] for channel, keys in written["sent"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            self._keys = {}  # the first, or half written by a machine that died: rather told twice than not

    def already(self, channel: str, key: str) -> bool:
        return key in self._keys.get(channel, ())

    def note(self, channel: str, keys: list[str]) -> None:
        self._keys.setdefault(channel, []).extend(keys)
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft: Path = self._path.with_name(".sent.json.tmp")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"day": self.day, "sent": self._keys}, file, indent=1)
        draft.replace(self._path)
