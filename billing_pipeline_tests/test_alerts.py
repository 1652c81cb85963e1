"""Who is told of what is wrong: by webhook and e-mail, from the command line and from Dagster's sensors, once a day each."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from rich.console import Console
from werkzeug import Request, Response

from billing_pipeline import definitions, delivery, refresh
from billing_pipeline.accounts import AlertSettings
from billing_pipeline.period import BillingPeriod
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import Company, free_port
from .post_office import post_office
from .test_cli import NOW, PLIVO, Desk

HOOK = "/services/T0SECRET/B0HOOK/x9y8z7w6v5"
ALERTS = """
[alerts]
webhook = { env = "ALERTS_WEBHOOK" }
"""


@dataclass
class Inbox:
    """What a webhook was sent, and how it answers."""

    server: HTTPServer
    status: int = 200
    got: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        def take(request: Request) -> Response:
            self.got.append(json.loads(request.data))
            return Response("ok", self.status)

        self.server.expect_request(HOOK, method="POST").respond_with_handler(take)

    @property
    def url(self) -> str:
        return self.server.url_for(HOOK)

    def causes(self) -> list[tuple[str, str]]:
        """Cause and headline of everything since the last look."""
        told = [(message["cause"], message["title"]) for message in self.got]
        self.got.clear()
        return told


@pytest.fixture
def inbox(httpserver: HTTPServer) -> Inbox:
    return Inbox(httpserver)


@pytest.fixture
def told(company: Company, inbox: Inbox) -> Company:
    """The company, with Plivo's main account alone and alerts to a webhook."""
    accounts = tuple(s for s in company.line.configuration.accounts if (s.provider, s.name) == ("plivo", "main"))
    configuration = replace(
        company.line.configuration,
        accounts=accounts,
        history_from=BillingPeriod(2026, 5),
        alerts=AlertSettings(webhook=SecretStr(inbox.url)),
    )
    company.line.configuration = configuration
    return company


def refreshed(company: Company, *months: str, **options: Any) -> str:
    """What the command line does; what it said."""
    said = io.StringIO()
    periods = [BillingPeriod.parse(month) for month in months]
    refresh.refresh(company.line, Console(file=said, width=1000), periods=periods, **options)
    return said.getvalue()


def test_a_failed_month_is_told_once_a_day_and_all_its_siblings_with_it(told: Company, inbox: Inbox) -> None:
    told.world.fail("plivo", [401] * 4)
    refreshed(told)
    (message,) = inbox.got
    assert (message["cause"], message["day"]) == ("failed", "2026-06-15")
    assert message["title"] == "plivo/main 2026-05, 2026-06 could not be brought up to date"
    assert "401 from GET" in message["text"]
    assert "A rerun cannot help before a person has done something" in message["text"]
    assert "docs/errors.md#refused" in message["text"]
    inbox.got.clear()
    refreshed(told)
    assert inbox.causes() == [], "the same cause on the same day"
    told.world.fail("plivo", [401])
    told.at("2026-06-16T06:00")
    refreshed(told)  # the second month is done now
    assert ("failed", "plivo/main 2026-05 could not be brought up to date") in inbox.causes()


def test_another_reason_is_another_cause(told: Company, inbox: Inbox) -> None:
    told.world.fail("plivo", [401])
    refreshed(told, "2026-06")
    told.world.fail("plivo", [503] * 9)
    refreshed(told, "2026-06")
    texts = [message["text"] for message in inbox.got]
    assert len(texts) == 2
    assert "401 from" in texts[0]
    assert "still 503 after all retries" in texts[1]


def test_a_month_that_is_late_is_told_when_the_fifth_is_over(told: Company, inbox: Inbox) -> None:
    told.at("2026-06-04T06:00")
    refreshed(told)
    told.at("2026-06-05T06:00")
    assert delivery.deliver(told.line) == []
    assert inbox.causes() == []
    told.at("2026-06-06T06:00")
    assert delivery.deliver(told.line) == []
    (message,) = inbox.got
    assert (message["cause"], message["title"]) == ("late", "plivo/main 2026-05 is still not final")
    assert (
        "plivo/main 2026-05 could be final since 2026-06-05T00:00:00Z: fetched before the month settles"
        in message["text"]
    )
    inbox.got.clear()
    refreshed(told)
    assert inbox.causes() == []


def test_a_restatement_is_told_until_somebody_decides(told: Company, inbox: Inbox) -> None:
    refreshed(told)
    told.world.seed = "another company"
    refreshed(told, "2026-05")
    (message,) = [message for message in inbox.got if message["cause"] == "restated"]
    assert "billing-pipeline approve plivo/main 2026-05" in message["text"]
    inbox.got.clear()
    told.at("2026-06-16T06:00")
    delivery.deliver(told.line)
    assert [cause for cause, _ in inbox.causes()] == ["restated"]
    told.line.dismiss(told.month("plivo", "main", "2026-05"), "somebody", "a mistake")
    told.at("2026-06-17T06:00")
    delivery.deliver(told.line)
    assert inbox.causes() == []


def test_a_month_that_is_soon_out_of_reach_is_told(company: Company, inbox: Inbox) -> None:
    configuration = company.line.configuration
    infobip = tuple(s for s in configuration.accounts if s.provider == "infobip")
    alerts = AlertSettings(webhook=SecretStr(inbox.url))
    company.line.configuration = replace(
        configuration, accounts=infobip, alerts=alerts, history_from=BillingPeriod(2026, 4)
    )
    delivery.deliver(company.line)
    (message,) = inbox.got
    assert message["cause"] == "expiring"
    assert "infobip/main 2026-04: 15 days left; it was never fetched" in message["text"]


def test_drift_is_told_on_the_day_it_happens_and_only_beyond_the_threshold(told: Company, inbox: Inbox) -> None:
    configuration = told.line.configuration
    may = told.month("plivo", "main", "2026-05")
    for percent, expected in (("5", []), ("4", ["drift"])):
        alerts = AlertSettings(webhook=SecretStr(inbox.url), drift_percent=percent)  # type: ignore[arg-type]
        told.line.configuration = replace(configuration, alerts=alerts)
        if not (told.line.data / "raw").exists():
            for moment in ("2026-05-20T06:00", "2026-06-03T06:00", "2026-06-05T06:00"):
                told.at(moment)
                told.do(may)  # 4641.1552 while it ran, 8058.13042, 7684.71559: 4.6 %
        delivery.deliver(told.line)
        assert [cause for cause, _ in inbox.causes()] == expected, percent
    told.at("2026-06-07T06:00")
    delivery.deliver(told.line)
    assert inbox.causes() == []


def test_nobody_is_told_of_anything_while_nothing_is_wrong_or_nothing_is_configured(
    told: Company, inbox: Inbox
) -> None:
    refreshed(told)
    assert inbox.causes() == []
    told.line.configuration = replace(told.line.configuration, alerts=None)
    told.world.fail("plivo", [401] * 4)
    assert "alerts" not in refreshed(told, "2026-05", "2026-06")
    assert inbox.causes() == []
    assert not (told.line.data / "alerts").exists()
    sensors = definitions.build(told.line).get_repository_def().sensor_defs
    assert not [sensor for sensor in sensors if sensor.name.startswith("alert")]


def test_a_warehouse_that_cannot_be_published_is_told(told: Company, inbox: Inbox) -> None:
    refreshed(told, "2026-05")
    parquet = next((told.line.data / "charges").rglob("*.parquet"))
    entry = next((told.line.data / "raw" / "plivo" / "main" / "2026-05").iterdir())
    parquet.unlink()
    (entry / "pages.jsonl").write_text("no longer what was landed")
    refreshed(told, "2026-06")
    assert ("failed", "warehouse could not be brought up to date") in inbox.causes()


@pytest.mark.parametrize("status", [500, 404, 302])
def test_a_webhook_that_fails_fails_nothing_is_reported_and_is_tried_again(
    told: Company, inbox: Inbox, status: int
) -> None:
    inbox.status = status
    told.world.fail("plivo", [401])
    said = refreshed(told, "2026-05")
    assert f"alerts: the webhook did not take a message: localhost answered {status}; the next run tries again" in said
    assert "T0SECRET" not in said
    assert told.line.failing(), "the month's own failure is what it is"
    inbox.got.clear()
    inbox.status = 200
    assert delivery.deliver(told.line) == []
    assert [cause for cause, _ in inbox.causes()] == ["failed"]


def test_a_webhook_that_drips_for_ever_costs_a_bounded_time(told: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            while not stop.wait(0.05):
                connection.sendall(b"H")  # never the end of a status line, and never silent for long

    monkeypatch.setattr(delivery, "PATIENCE", 1.0)  # not a function of ours: how long a person would wait
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{HOOK}"
        told.line.configuration = replace(told.line.configuration, alerts=AlertSettings(webhook=SecretStr(url)))
        told.world.fail("plivo", [401])
        said = refreshed(told, "2026-05")
        assert "alerts: the webhook did not take a message: no answer within 1 seconds" in said
        stop.set()
        thread.join(10)


def test_no_alert_tells_a_secret_or_calls_everybody(told: Company, inbox: Inbox) -> None:
    (account,) = told.line.configuration.accounts
    (secret,) = account.secrets()
    failure = told.line.failure("warehouse", RuntimeError(f"{secret} <!channel> \x1b[31m {inbox.url}"))
    assert delivery.deliver(told.line, more=[replace(failure, what=f"{failure.what} {secret}")]) == []
    (message,) = inbox.got
    assert secret not in json.dumps(message)
    assert "T0SECRET" not in json.dumps(message)
    assert "<!channel>" not in message["text"]
    assert "\x1b" not in message["text"]


def test_what_was_sent_is_kept_for_its_owner_alone_and_a_broken_note_is_no_trouble(told: Company, inbox: Inbox) -> None:
    told.world.fail("plivo", [401])
    refreshed(told, "2026-05")
    note = told.line.data / "alerts" / "sent.json"
    assert (note.stat().st_mode & 0o777, note.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "T0SECRET" not in note.read_text()
    inbox.got.clear()
    for broken in ("{", "[]", '{"day": "2026-06-15", "sent": 3}'):
        note.write_text(broken)
        assert delivery.deliver(told.line) == []
        assert [cause for cause, _ in inbox.causes()] == ["failed"], broken


# ---- e-mail


def test_an_e_mail_is_sent_once_and_a_webhook_that_is_down_does_not_hold_it_up(told: Company, inbox: Inbox) -> None:
    inbox.status = 500
    with post_office() as office:
        settings = AlertSettings(
            webhook=SecretStr(inbox.url),
            email_to=("billing@example.com", "ops@example.com"),
            email_from="pipeline@example.com",
            smtp_host="127.0.0.1",
            smtp_port=office.port,
            smtp_tls="none",
        )
        told.line.configuration = replace(told.line.configuration, alerts=settings)
        told.world.fail("plivo", [401])
        assert "the webhook did not take" in refreshed(told, "2026-05")
        (mail,) = office.mails
        assert mail["Subject"] == "[billing-pipeline] plivo/main 2026-05 could not be brought up to date"
        assert mail["To"] == "billing@example.com, ops@example.com"
        text = mail.get_payload(decode=True).decode()  # type: ignore[union-attr]
        assert "docs/errors.md#refused" in text
        assert len(office.envelopes[0][1]) == 2
        inbox.status = 200
        delivery.deliver(told.line)
        assert [cause for cause, _ in inbox.causes()][-1:] == ["failed"]
        assert len(office.mails) == 1, "the mail had arrived before"
        told.at("2026-06-16T06:00")
        office.refuse = True
        (problem,) = delivery.deliver(told.line)
        assert problem.startswith("alerts: the e-mail did not take a message: ")


# ---- through Dagster


def tick(company: Company, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """What the daemon does with the sensor of checks."""
    built = definitions.build(company.line)
    with dg.build_sensor_context(
        instance=instance, cursor=cursor, repository_def=built.get_repository_def()
    ) as context:
        return built.resolve_sensor_def("alert_on_checks").evaluate_tick(context)


def run(company: Company, instance: dg.DagsterInstance, month: str, **config: Any) -> dg.ExecuteInProcessResult:
    keys = [dg.AssetKey(["plivo", "main", step]) for step in ("raw", "charges")]
    return (
        definitions.build(company.line)
        .resolve_job_def("account_month")
        .execute_in_process(
            partition_key=month,
            asset_selection=keys,
            instance=instance,
            run_config={"ops": {keys[0].to_python_identifier(): {"config": config}}},
            raise_on_error=False,
        )
    )


def failure_sensor(company: Company, instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> Any:
    """What the daemon does with the sensor of failed runs."""
    sensor = definitions.build(company.line).resolve_sensor_def("alert_on_failed_run")
    with dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_instance=instance,
        dagster_run=instance.get_run_by_id(result.run_id),  # type: ignore[arg-type]
        dagster_event=result.get_run_failure_event(),
    ) as context:
        return sensor(context.for_run_failure())


def test_a_failed_run_is_told_once_by_whichever_sensor_is_first(told: Company, inbox: Inbox) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        told.world.fail("plivo", [401])
        result = run(told, instance, "2026-05")
        failure_sensor(told, instance, result)
        (message,) = inbox.got
        assert message["title"] == "plivo/main 2026-05 could not be brought up to date"
        assert "docs/errors.md#refused" in message["text"]
        inbox.got.clear()
        tick(told, instance)
        failure_sensor(told, instance, result)
        assert inbox.causes() == []


def test_a_run_that_was_killed_is_told_although_the_line_remembers_nothing(told: Company, inbox: Inbox) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        told.world.fail("plivo", [401])
        result = run(told, instance, "2026-05")
        (told.line.data / "failures" / "plivo--main--2026-05.json").unlink()  # a killed process writes none
        failure_sensor(told, instance, result)
        (message,) = inbox.got
        assert message["title"] == "plivo/main 2026-05 could not be brought up to date"
        assert result.run_id in message["text"]


def test_the_sensor_of_checks_tells_a_restatement_once_and_survives_a_restart(told: Company, inbox: Inbox) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(told, instance, "2026-05").success
        first = tick(told, instance)
        assert inbox.causes() == []
        assert "No check was evaluated" in tick(told, instance, first.cursor).skip_message
        told.world.seed = "another company"
        assert run(told, instance, "2026-05", compare=True).success
        second = tick(told, instance, first.cursor)
        assert [cause for cause, _ in inbox.causes()] == ["restated"]
        tick(told, instance, None)  # a daemon that has lost its cursor
        assert inbox.causes() == []
        told.at("2026-06-16T00:01")
        tick(told, instance, second.cursor)  # nothing was evaluated, but a day has begun
        assert [cause for cause, _ in inbox.causes()] == ["restated"]


def test_a_sensor_whose_webhook_fails_says_so_and_tries_again(told: Company, inbox: Inbox) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        inbox.status = 503
        told.world.fail("plivo", [401])
        run(told, instance, "2026-05")
        ticked = tick(told, instance)
        assert "the webhook did not take a message: localhost answered 503" in ticked.skip_message
        inbox.got.clear()
        inbox.status = 200
        tick(told, instance, ticked.cursor)
        assert [cause for cause, _ in inbox.causes()] == ["failed"]


# ---- through the command line


def test_cron_users_get_the_same_alerts_from_the_command(tmp_path: Path, inbox: Inbox) -> None:
    world = World(Clock(datetime.fromisoformat(NOW).astimezone(UTC)))
    world.enforce_limits = False
    with running(port=free_port(), world=world) as address:
        desk = Desk(tmp_path, world, address, {"BILLING_NOW": NOW, "ALERTS_WEBHOOK": inbox.url})
        desk.configure(PLIVO + ALERTS.replace("{", "{{").replace("}", "}}"))
        world.fail("plivo", [401] * 2)
        assert desk.type("refresh")[0] == 1
        assert inbox.causes() == [("failed", "plivo/main 2026-05, 2026-06 could not be brought up to date")]
        world.fail("plivo", [401] * 2)
        status, said = desk.type("refresh")
        assert (status, "T0SECRET" in said) == (1, False)
        assert inbox.causes() == []
        desk.variables["ALERTS_WEBHOOK"] = "https://hooks.example.com:no-port-S3CR3T/x"
        status, said = desk.type("status")
        assert status == 2
        assert "webhook: its variable must hold an https address" in said
        assert "S3CR3T" not in said
        assert os.environ.get("ALERTS_WEBHOOK") is None
