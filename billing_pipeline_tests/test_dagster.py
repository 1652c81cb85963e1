"""What Dagster does with the line: what it asks for, what it shows, and what it leaves alone."""

from __future__ import annotations

import asyncio
import base64
import re
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time
from pytest_httpserver import HTTPServer
from rich.console import Console
from werkzeug import Request, Response

from billing_pipeline import definitions, refresh, reports
from billing_pipeline.callbacks import listening
from billing_pipeline.line import Line
from billing_pipeline.mailbox import Mailbox
from billing_pipeline.reconcile import money

from .conftest import Company

PROJECT = Path(__file__).parent.parent
ACCOUNTS = ["infobip/main", "plivo/emea", "plivo/main", "talkdesk/main", "ycloud/main"]


@dataclass
class Dagster:
    """The definitions of a line, and an instance in memory."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance

    def run(self, account: str, month: str, **config: Any) -> dg.ExecuteInProcessResult:
        """What a click on Materialize does for one month of an account; `config` is that of `raw`."""
        keys = [dg.AssetKey([*account.split("/"), step]) for step in ("raw", "charges")]
        ops = {"ops": {keys[0].to_python_identifier(): {"config": config}}}
        return self.job.execute_in_process(
            partition_key=month, asset_selection=keys, instance=self.instance, run_config=ops, raise_on_error=False
        )

    def launch(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """What the daemon does with a request of the schedule or of a sensor."""
        return self.job.execute_in_process(
            partition_key=request.partition_key,
            asset_selection=list(request.asset_selection or []),
            tags=dict(request.tags),
            run_config=request.run_config,
            instance=self.instance,
            raise_on_error=False,
        )

    def tick(self, moment: str, schedule: str = "daily_open_months") -> list[dg.RunRequest]:
        """What a schedule requests at an instant (UTC)."""
        at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=at,
            repository_def=self.definitions.get_repository_def(),
        ) as context:
            ticked = self.definitions.resolve_schedule_def(schedule).evaluate_tick(context)
        return list(ticked.run_requests or [])

    def late_letters(self) -> list[dg.RunRequest]:
        """What the sensor for answers by callback requests now."""
        with dg.build_sensor_context(
            instance=self.instance, repository_def=self.definitions.get_repository_def()
        ) as context:
            ticked = self.definitions.resolve_sensor_def("late_letters").evaluate_tick(context)
        return list(ticked.run_requests or [])

    def publish(self) -> dict[str, Any]:
        """Materialize the warehouse; its metadata as plain values."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(asset_selection=[dg.AssetKey(["warehouse", "charges"])], instance=self.instance)
        return plain(result.asset_materializations_for_node("warehouse__charges")[0])

    @property
    def job(self) -> dg.JobDefinition:
        """One account's month."""
        return self.definitions.resolve_job_def("account_month")


def plain(event: dg.AssetMaterialization | dg.AssetCheckEvaluation) -> dict[str, Any]:
    """Metadata as plain values."""
    return {name: value.value for name, value in event.metadata.items()}


def metadata(result: dg.ExecuteInProcessResult, account: str, step: str) -> dict[str, Any]:
    """What a person reads on the materialization that a run made."""
    events = result.asset_materializations_for_node(dg.AssetKey([*account.split("/"), step]).to_python_identifier())
    return plain(events[0])


def checks(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    """The checks that a run evaluated, by name."""
    return {check.check_name: check for check in result.get_asset_check_evaluations()}


def error(result: dg.ExecuteInProcessResult) -> str:
    """What the UI shows of the first step that failed."""
    data = result.failure_data_for_node(result.get_failed_step_keys().pop())
    assert data
    assert data.user_failure_data
    return str(data.user_failure_data.description)


@pytest.fixture
def dagster(company: Company) -> Iterator[Dagster]:
    """Dagster on the company's line."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield Dagster(definitions.build(company.line), instance)


def asked(requests: Sequence[dg.RunRequest]) -> set[str]:
    """Account and month of every request."""
    return {f"{r.tags['billing/provider']}/{r.tags['billing/account']} {r.partition_key}" for r in requests}


def test_the_graph_is_a_straight_line_per_account_into_one_warehouse(dagster: Dagster) -> None:
    dg.Definitions.validate_loadable(dagster.definitions)
    graph = dagster.definitions.resolve_asset_graph()
    for account in ACCOUNTS:
        raw, charges = (graph.get(dg.AssetKey([*account.split("/"), step])) for step in ("raw", "charges"))
        assert (raw.parent_keys, charges.parent_keys) == (set(), {raw.key})
        assert raw.group_name == charges.group_name == account.split("/")[0]
        assert raw.pools == charges.pools == {account.replace("/", "_")}
        assert raw.owners == charges.owners == ["team:billing"]
        final = graph.get(dg.AssetKey([*account.split("/"), "final_months"]))
        assert (final.parent_keys, final.is_executable, final.group_name) == ({charges.key}, False, raw.group_name)
        assert final.partitions_def == charges.partitions_def
        blocking = {key.name for key in charges.check_keys if graph.get(key).blocking}
        assert blocking == {"control_totals_agree"}
    warehouse = graph.get(dg.AssetKey(["warehouse", "charges"]))
    charges_of_all = {dg.AssetKey([*account.split("/"), "charges"]) for account in ACCOUNTS}
    assert warehouse.parent_keys == {*charges_of_all, dg.AssetKey(["talkdesk", "main", "invoices"])}
    assert (warehouse.pools, warehouse.partitions_def, warehouse.group_name) == ({"warehouse"}, None, "warehouse")
    report = graph.get(dg.AssetKey(["warehouse", "report"]))
    assert (report.parent_keys, report.group_name) == ({warehouse.key}, "warehouse")
    assert len(graph.get_all_asset_keys()) == 3 * len(ACCOUNTS) + 3  # and Talkdesk's list of invoices


def test_all_accounts_share_one_row_of_months_that_holds_the_running_one(dagster: Dagster) -> None:
    graph = dagster.definitions.resolve_asset_graph()
    found = {graph.get(key).partitions_def for key in graph.get_all_asset_keys()} - {None}
    assert len(found) == 1
    keys = found.pop().get_partition_keys(current_time=datetime(2026, 7, 1, tzinfo=UTC))
    assert keys == ["2026-01", "2026-02", "2026-03", "2026-04", "2026-05", "2026-06", "2026-07"]


def test_an_accounts_name_may_have_hyphens(company: Company) -> None:
    first, *others = company.line.configuration.accounts
    renamed = (first.model_copy(update={"name": "emea-2"}), *others)
    company.line.configuration = replace(company.line.configuration, accounts=renamed)
    dg.Definitions.validate_loadable(definitions.build(company.line))


def test_the_schedule_asks_for_every_open_month_and_nothing_else(company: Company, dagster: Dagster) -> None:
    everything = {f"{account} 2026-{month:02}" for account in ACCOUNTS for month in range(1, 7)}
    unserved = {
        f"infobip/main 2026-{month:02}" for month in (1, 2, 3)
    }  # Infobip serves the running month and two before
    assert asked(dagster.tick("2026-06-15T06:00")) == everything - unserved
    for month in ("2026-01", "2026-02", "2026-05", "2026-06"):
        company.do(company.month("plivo", "main", month))
    final = {f"plivo/main {month}" for month in ("2026-01", "2026-02", "2026-05")}
    requests = dagster.tick("2026-06-15T06:00")
    assert asked(requests) == everything - unserved - final
    assert len(requests) == len(asked(requests)), "one run for each"


def test_the_schedule_goes_by_the_instant_it_was_due(company: Company, dagster: Dagster) -> None:
    company.at("2026-07-01T00:01")  # the machine was busy over midnight
    assert "plivo/main 2026-07" not in asked(dagster.tick("2026-06-30T06:00"))


@pytest.mark.parametrize("now", ["2026-06-15T12:00", "2031-03-01T00:00"])
def test_a_rehearsal_has_the_months_up_to_the_one_it_pretends_to_be_in(company: Company, now: str) -> None:
    """Found by killing runs: of a rehearsal of the machine's own running month that month was missing."""
    company.at(now)
    built = definitions.build(company.line, rehearsal=True)
    shown = built.resolve_asset_graph().get(dg.AssetKey(["plivo", "main", "charges"])).partitions_def
    assert shown is not None
    assert shown.get_partition_keys()[-1] == now[:7]


def test_a_rehearsal_schedules_by_the_clock_it_pretends(company: Company, dagster: Dagster) -> None:
    company.at("2026-05-20T06:00")
    rehearsing = Dagster(definitions.build(company.line, rehearsal=True), dagster.instance)
    shown = rehearsing.definitions.resolve_asset_graph().get(dg.AssetKey(["plivo", "main", "charges"])).partitions_def
    assert shown
    assert shown.get_partition_keys()[-1] == "2026-05", "and no month that has not begun is shown as missing"
    requests = asked(rehearsing.tick("2026-06-30T06:00"))
    assert "plivo/main 2026-05" in requests
    assert "plivo/main 2026-06" not in requests


def test_the_schedule_says_when_there_is_nothing_to_ask_for(company: Company, dagster: Dagster) -> None:
    nobody = replace(company.line.configuration, accounts=())
    company.line.configuration = nobody
    assert dagster.tick("2026-06-15T06:00") == []


def test_schedule_and_sensors_are_on_without_a_click(dagster: Dagster) -> None:
    repository = dagster.definitions.get_repository_def()
    assert {s.name: s.default_status.value for s in (*repository.schedule_defs, *repository.sensor_defs)} == {
        "daily_open_months": "RUNNING",
        "late_letters": "RUNNING",
        "publish_when_loaded": "RUNNING",
        "told_by_refresh": "RUNNING",
        "weekly_watch": "RUNNING",
    }
    assert repository.get_schedule_def("daily_open_months").cron_schedule == "0 6 * * *"
    assert repository.get_schedule_def("daily_open_months").execution_timezone == "UTC"
    assert repository.get_schedule_def("weekly_watch").cron_schedule == "0 5 * * 0"


def test_the_weekly_watch_compares_final_months_and_says_what_to_do_about_one_that_differs(
    company: Company, dagster: Dagster
) -> None:
    assert dagster.tick("2026-06-21T05:00", "weekly_watch") == []
    for month in ("2026-05", "2026-06"):
        company.do(company.month("plivo", "main", month))
    company.world.seed = "another company"
    (request,) = dagster.tick("2026-06-21T05:00", "weekly_watch")
    assert request.tags["billing/reason"] == "weekly watch"
    done = dagster.launch(request)
    (check,) = [c for c in done.get_asset_check_evaluations() if c.check_name == "final_months_unchanged"]
    assert not check.passed
    assert "billing-pipeline approve plivo/main 2026-05" in str(check.description)
    assert "billing-pipeline dismiss plivo/main 2026-05 --why" in str(check.description)


def test_a_provider_that_is_down_fails_its_own_runs_and_no_others(company: Company, dagster: Dagster) -> None:
    company.world.fail("ycloud", [503] * 100)
    requests = [r for r in dagster.tick("2026-06-15T06:00") if r.partition_key == "2026-06"]
    done = {run.tags["billing/provider"] + "/" + run.tags["billing/account"]: dagster.launch(run) for run in requests}
    assert {account: result.success for account, result in done.items()} == {
        account: account != "ycloud/main" for account in ACCOUNTS
    }
    assert error(done["ycloud/main"]).startswith("ycloud/main 2026-06: ")
    assert "503" in error(done["ycloud/main"])
    tags = dagster.instance.get_run_by_id(done["plivo/emea"].run_id).tags
    assert {name: value for name, value in tags.items() if name.startswith("billing/")} == {
        "billing/provider": "plivo",
        "billing/account": "emea",
        "billing/period": "2026-06",
        "billing/reason": "daily",
        "billing/finality": "provisional",
    }


def test_a_materialization_tells_a_person_what_the_month_is(company: Company, dagster: Dagster) -> None:
    company.at("2026-05-31T15:00")
    first = dagster.run("plivo/main", "2026-05")
    company.at("2026-06-20T06:00")
    second = dagster.run("plivo/main", "2026-05")
    rows, totals = company.stated(company.month("plivo", "main", "2026-05"))
    shown = metadata(second, "plivo/main", "charges")
    assert (shown["rows"], shown["dagster/row_count"]) == (rows, rows)
    assert Decimal(shown["totals"].removesuffix(" USD")) == totals["USD"]
    assert (shown["finality"], shown["reason"]) == ("final", "settled")
    assert shown["rule"] == "final when fetched at or after 2026-06-05T00:00:00Z"
    assert shown["action"] == "written"
    assert shown["requests"] == metadata(second, "plivo/main", "raw")["requests"] > 0
    assert shown["bytes"] == metadata(second, "plivo/main", "raw")["bytes"] > 0
    assert "agrees" in shown["control totals"]
    before = metadata(first, "plivo/main", "charges")
    assert (before["finality"], before["reason"]) == ("provisional", "fetched before the month settles")
    assert before["change since the last fetch"] == "first fetch"
    moved, amount = shown["change since the last fetch"].removesuffix(" USD").split(" rows, ")
    assert int(moved) == shown["rows"] - before["rows"]
    assert Decimal(amount) == totals["USD"] - Decimal(before["totals"].removesuffix(" USD"))


def test_a_backfill_over_a_final_month_is_green_and_leaves_it_as_it_is_and_says_so(
    company: Company, dagster: Dagster
) -> None:
    dagster.run("plivo/main", "2026-05")
    dagster.publish()
    before = company.shown(company.month("plivo", "main", "2026-05")), len(company.world.requests())
    again = dagster.run("plivo/main", "2026-05")
    dagster.publish()
    assert again.success
    assert (
        metadata(again, "plivo/main", "raw")["action"] == metadata(again, "plivo/main", "charges")["action"] == "kept"
    )
    assert metadata(again, "plivo/main", "charges")["what happened"] == "the month is final: it was left as it is"
    assert (company.shown(company.month("plivo", "main", "2026-05")), len(company.world.requests())) == before
    assert company.ask("SELECT count(*) FROM fetches") == [(1,)]


def test_a_restatement_is_shown_as_a_failed_check_until_the_provider_takes_it_back(
    company: Company, dagster: Dagster
) -> None:
    dagster.run("plivo/main", "2026-05")
    dagster.publish()
    before = company.shown(company.month("plivo", "main", "2026-05"))
    company.world.seed = "another company"
    restated = dagster.run("plivo/main", "2026-05", compare=True)
    assert restated.success
    check = checks(restated)["final_months_unchanged"]
    assert not check.passed
    held, stated = before[1]["USD"], company.stated(company.month("plivo", "main", "2026-05"))[1]["USD"]
    assert f"closed with {held.normalize():f} USD" in str(check.description)
    assert f"states {stated.normalize():f} USD" in str(check.description)
    again = dagster.run("plivo/main", "2026-05")
    assert not checks(again)["final_months_unchanged"].passed, "an ordinary backfill does not make it good"
    assert "| final, RESTATED |" in dagster.publish()["months"]
    assert company.shown(company.month("plivo", "main", "2026-05")) == before
    company.world.seed = "acme"
    assert checks(dagster.run("plivo/main", "2026-05", compare=True))["final_months_unchanged"].passed


def test_a_control_total_that_does_not_agree_blocks_and_yesterdays_numbers_stay(
    company: Company, dagster: Dagster, httpserver: HTTPServer
) -> None:
    def too_much(request: Request) -> Response:
        ask = urllib.request.Request(company.address + request.full_path, headers=dict(request.headers))  # noqa: S310
        with urllib.request.urlopen(ask) as answer:  # noqa: S310  loopback
            told = answer.read().decode()
        off = re.sub(r'("total_spent": ?)([0-9.]+)', lambda found: f"{found[1]}{Decimal(found[2]) + 1}", told)
        assert off != told
        return Response(off, content_type="application/json")

    june = company.month("plivo", "main", "2026-06")
    dagster.run("plivo/main", "2026-06")
    dagster.publish()
    before = company.shown(june)
    company.at("2026-06-16T06:00")
    httpserver.expect_request(re.compile("^/plivo/.*")).respond_with_handler(too_much)
    moved = _changed(company.line, "plivo/main", base_url=httpserver.url_for("/plivo"))
    wrong = Dagster(definitions.build(moved), dagster.instance)
    result = wrong.run("plivo/main", "2026-06")
    assert not result.success
    check = checks(result)["control_totals_agree"]
    assert (check.passed, check.blocking) == (False, True)
    assert "DOES NOT AGREE" in plain(check)["control totals"]
    assert result.asset_materializations_for_node("plivo__main__charges") == []
    assert result.asset_materializations_for_node("plivo__main__raw"), "the answer is kept, to be looked at"
    assert "plivo/main 2026-06: control totals do not agree (billed cost stated by the provider" in error(result)
    wrong.publish()
    assert company.shown(june) == before


def _changed(line: Line, account: str, **settings: object) -> Line:
    """The line with one account's settings changed."""
    accounts = tuple(
        each.model_copy(update=settings) if f"{each.provider}/{each.name}" == account else each
        for each in line.configuration.accounts
    )
    configuration = replace(line.configuration, accounts=accounts)
    return Line(line.data, configuration, line.providers, line.now, line.version)


def test_a_letter_that_nobody_waited_for_is_landed_by_a_run_of_its_own(company: Company, dagster: Dagster) -> None:
    dagster = Dagster(definitions.build(_changed(company.line, "infobip/main", wait_seconds=0)), dagster.instance)
    company.world.infobip_delay = 2  # seconds: later than this run waits
    assert not dagster.run("infobip/main", "2026-06").success
    mailbox = Mailbox(company.line.data / "mailbox", company.line.now)
    ticket = mailbox.pending("infobip", "main")[0]
    assert dagster.late_letters() == []
    with listening(mailbox, company.line.configuration.account("infobip", "main").callback_listen):
        assert next(mailbox.arriving(ticket, 60))
    assert dagster.late_letters() == [], "a run may be about to take it"
    company.at("2026-06-15T12:05")
    (request,) = dagster.late_letters()
    assert asked([request]) == {"infobip/main 2026-06"}
    assert (request.run_key, request.tags["billing/reason"]) == (ticket.key, "late letter")
    posts = [r for r in company.world.requests("infobip") if r.method == "POST"]
    result = dagster.launch(request)
    assert result.success
    assert metadata(result, "infobip/main", "charges")["action"] == "written"
    assert [r for r in company.world.requests("infobip") if r.method == "POST"] == posts, "it was not asked again"
    assert dagster.late_letters() == []


def test_the_warehouse_says_at_one_look_which_months_are_final(company: Company, dagster: Dagster) -> None:
    dagster.run("plivo/emea", "2026-05")
    dagster.run("talkdesk/main", "2026-06")
    shown = dagster.publish()
    assert shown["months"].splitlines() == [
        "| month | infobip/main | plivo/emea | talkdesk/main |",
        "|---|---|---|---|",
        "| 2026-06 | not fetched yet | not fetched yet | provisional |",
        "| 2026-05 | not fetched yet | final | not fetched yet |",
        "| 2026-03 | no longer served | not fetched yet | not fetched yet |",
        "| 2026-02 | no longer served | not fetched yet | not fetched yet |",
        "| 2026-01 | no longer served | not fetched yet | not fetched yet |",
    ]
    rows, totals = company.shown(company.month("plivo", "emea", "2026-05"))
    assert f"| 2026-05 | plivo/emea | {rows} | {money(totals)} |" in shown["totals"]
    assert "| monthly\\_cost | " in shown["what can be asked"]
    assert shown["rows"] == company.ask("SELECT count(*) FROM charges")[0][0]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")  # of Dagster about itself
def test_the_warehouse_is_published_once_after_months_were_loaded(company: Company, dagster: Dagster) -> None:
    idle = dg.evaluate_automation_conditions(dagster.definitions, dagster.instance)
    assert idle.total_requested == 0
    for month in ("2026-04", "2026-05"):
        dagster.run("plivo/emea", month)
    loaded = dg.evaluate_automation_conditions(dagster.definitions, dagster.instance, cursor=idle.cursor)
    assert loaded.total_requested == 2  # the warehouse, and the report behind it
    dagster.publish()
    again = dg.evaluate_automation_conditions(dagster.definitions, dagster.instance, cursor=loaded.cursor)
    assert again.total_requested == 0


def test_a_month_out_of_reach_fails_and_says_who_can_still_help(dagster: Dagster) -> None:
    result = dagster.run("infobip/main", "2026-02")
    assert "infobip/main 2026-02: Infobip has not served 2026-02 since 2026-05-01" in error(result)
    assert result.asset_materializations_for_node("infobip__main__charges") == []


def looked(company: Company, instance: dg.DagsterInstance) -> str:
    """What the daemon does with the sensor that passes on what was done in the foreground."""
    built = definitions.build(company.line)
    with dg.build_sensor_context(instance=instance, repository_def=built.get_repository_def()) as context:
        ticked = built.resolve_sensor_def("told_by_refresh").evaluate_tick(context)
    return str(ticked.skip_message)


def test_the_ui_shows_what_refresh_did_in_the_foreground(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    may = company.month("plivo", "main", "2026-05")
    refresh.refresh(
        company.line, Console(file=StringIO()), providers=["plivo"], accounts=["main"], periods=[may.period]
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert looked(company, instance) == "2 things were done by `billing-pipeline refresh`."
        assert looked(company, instance) == "Nothing new."
        for key, facts in {
            "plivo/main/raw": {"action": "fetched"},
            "plivo/main/charges": {"action": "written", "finality": "final"},
        }.items():
            asset = dg.AssetRecordsFilter(asset_key=dg.AssetKey(key.split("/")), asset_partitions=["2026-05"])
            (record,) = instance.fetch_materializations(asset, limit=9).records
            assert record.asset_materialization
            assert facts.items() <= plain(record.asset_materialization).items()
        (record,) = instance.fetch_materializations(dg.AssetKey(["warehouse", "charges"]), limit=9).records
        assert record.asset_materialization
        assert "| 2026-05 | not fetched yet | final |" in plain(record.asset_materialization)["months"]


def test_dagster_tells_nobody_about_its_use_and_keeps_its_records_below_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = yaml.safe_load((PROJECT / "dagster.yaml").read_text())
    assert settings["telemetry"] == {"enabled": False}
    assert settings["nux"] == {"enabled": False}
    assert settings["concurrency"]["pools"] == {"granularity": "op", "default_limit": 1}
    assert settings["run_monitoring"]["free_slots_after_run_end_seconds"]
    (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert {path.name for path in tmp_path.iterdir()} == {"dagster.yaml", "data"}


def final_months(instance: dg.DagsterInstance, account: str) -> set[str]:
    """The months that the UI shows as final at one look."""
    return instance.get_materialized_partitions(dg.AssetKey([*account.split("/"), "final_months"]))


def test_the_partitions_of_final_months_are_the_months_that_are_final(company: Company, dagster: Dagster) -> None:
    dagster.run("plivo/main", "2026-06")
    assert final_months(dagster.instance, "plivo/main") == set()
    done = dagster.run("plivo/main", "2026-05")
    assert final_months(dagster.instance, "plivo/main") == {"2026-05"}
    assert final_months(dagster.instance, "plivo/emea") == set()
    (told,) = dagster.instance.fetch_materializations(dg.AssetKey(["plivo", "main", "final_months"]), limit=9).records
    assert told.asset_materialization
    assert told.run_id == done.run_id, "the run that closed the month is one click away"
    shown = metadata(done, "plivo/main", "charges")
    same = ("finality", "reason", "rule", "fetched at", "totals", "rows", "landing")
    assert plain(told.asset_materialization) == {name: shown[name] for name in same}
    dagster.run("plivo/main", "2026-05")
    asset = dg.AssetKey(["plivo", "main", "final_months"])
    assert len(dagster.instance.fetch_materializations(asset, limit=9).records) == 1, "told once"


def test_after_the_loss_of_dagsters_records_the_final_months_are_told_again(company: Company) -> None:
    for month in ("2026-04", "2026-05"):
        company.do(company.month("plivo", "main", month))
    with dg.DagsterInstance.ephemeral() as instance:
        Dagster(definitions.build(company.line), instance).run("plivo/main", "2026-06")
        assert final_months(instance, "plivo/main") == {"2026-04", "2026-05"}


def test_a_month_whose_total_moved_has_a_picture_of_it_and_one_that_did_not_has_none(
    company: Company, dagster: Dagster
) -> None:
    company.at("2026-05-31T15:00")
    assert "how the total developed" not in metadata(dagster.run("plivo/main", "2026-05"), "plivo/main", "charges")
    company.at("2026-05-31T15:01")
    assert "how the total developed" not in metadata(dagster.run("plivo/main", "2026-04"), "plivo/main", "charges")
    company.at("2026-06-20T06:00")
    shown = metadata(dagster.run("plivo/main", "2026-05"), "plivo/main", "charges")
    _, _, picture = shown["how the total developed"].removesuffix(")").partition("(data:image/svg+xml;base64,")
    drawn = base64.b64decode(picture, validate=True)
    assert drawn.startswith(b"<svg ")
    assert len(drawn) < 30_000
    again = metadata(dagster.run("plivo/main", "2026-05"), "plivo/main", "charges")
    assert again["how the total developed"] == shown["how the total developed"], "a month that is kept is shown alike"


def test_a_restatement_of_one_month_is_not_hidden_by_the_good_news_of_another(
    company: Company, dagster: Dagster
) -> None:
    dagster.run("plivo/main", "2026-05")
    company.world.seed = "another company"
    dagster.run("plivo/main", "2026-05", compare=True)
    company.world.seed = "acme"
    june = checks(dagster.run("plivo/main", "2026-06"))["final_months_unchanged"]
    assert not june.passed
    assert "plivo/main 2026-05" in str(june.description)


def test_every_column_of_the_warehouse_leads_to_the_columns_of_the_accounts(company: Company, dagster: Dagster) -> None:
    dagster.run("plivo/main", "2026-05")
    lineage = dagster.publish()["dagster/column_lineage"].deps_by_column
    keys = {dg.AssetKey([*account.split("/"), "charges"]) for account in ACCOUNTS}
    assert {dep.asset_key for dep in lineage["BilledCost"]} == keys
    graph = dagster.definitions.resolve_asset_graph()
    known = {key: graph.get(key).metadata["dagster/column_schema"] for key in keys}
    for column, deps in lineage.items():
        assert all(dep.column_name == column for dep in deps)
        assert all(any(c.name == column and c.description for c in known[dep.asset_key].columns) for dep in deps)
    schema = graph.get(dg.AssetKey(["warehouse", "charges"])).metadata["dagster/column_schema"]
    held = {name for (name,) in company.ask("SELECT column_name FROM duckdb_columns() WHERE table_name = 'charges'")}
    assert {column.name for column in schema.columns} == held
    assert held - set(lineage) == {"x_BillingPeriod"}


def test_an_account_that_nobody_fetched_for_days_is_stale(dagster: Dagster) -> None:
    graph = dagster.definitions.resolve_asset_graph()
    for account in ACCOUNTS:
        policy = graph.get(dg.AssetKey([*account.split("/"), "charges"])).freshness_policy_or_from_metadata
        assert isinstance(policy, dg.FreshnessPolicy)
        assert (policy.warn_window.to_timedelta(), policy.fail_window.to_timedelta()) == (
            timedelta(hours=30),
            timedelta(hours=54),
        )


@pytest.mark.parametrize(("hours", "state"), [(1, "PASS"), (31, "WARN"), (55, "FAIL")])
def test_the_daemon_finds_an_account_stale_that_was_loaded_too_long_ago(
    dagster: Dagster, hours: int, state: str
) -> None:
    dagster.run("plivo/main", "2026-06")
    key = dg.AssetKey(["plivo", "main", "charges"])
    node = dagster.definitions.resolve_asset_graph().get(key)
    with freeze_time(datetime.now(UTC) + timedelta(hours=hours)):
        context = LoadingContextForTest(dagster.instance)
        found = asyncio.run(TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(context, node))
    assert found.name == state


def test_a_run_is_found_by_all_that_its_accounts_have_in_common(company: Company, dagster: Dagster) -> None:
    def tags(*accounts: str) -> dict[str, str]:
        keys = [dg.AssetKey([*account.split("/"), step]) for account in accounts for step in ("raw", "charges")]
        done = dagster.job.execute_in_process(
            partition_key="2026-05", asset_selection=keys, instance=dagster.instance, raise_on_error=False
        )
        found = dagster.instance.get_run_by_id(done.run_id).tags
        return {name: value for name, value in found.items() if name.startswith("billing/")}

    one = {"billing/provider": "plivo", "billing/account": "main", "billing/period": "2026-05"}
    assert tags("plivo/main") == one | {"billing/finality": "final"}
    assert tags("plivo/main", "plivo/emea") == {"billing/provider": "plivo", "billing/period": "2026-05"}
    assert tags("plivo/main", "talkdesk/main") == {"billing/period": "2026-05"}


def told(instance: dg.DagsterInstance, check: str) -> tuple[bool, str]:
    """What the UI shows of a check of plivo/main: its last evaluation, in a run or outside."""
    key = dg.AssetCheckKey(dg.AssetKey(["plivo", "main", "charges"]), check)
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.evaluation, "a check that a failed run did not come to"
    return record.evaluation.passed, str(record.evaluation.description)


def test_a_run_that_fails_leaves_no_check_of_its_account_unanswered(company: Company, dagster: Dagster) -> None:
    company.world.fail("plivo", [401])
    assert not dagster.run("plivo/main", "2026-06").success
    found = {name: told(dagster.instance, name)[0] for name in reports.CHECKS}
    assert found == {name: name != "months_up_to_date" for name in reports.CHECKS}
    assert "nothing to compare" in told(dagster.instance, "control_totals_agree")[1]


def test_control_totals_that_did_not_agree_are_not_forgotten_when_the_provider_is_down_next(
    company: Company, dagster: Dagster
) -> None:
    fault = {"provider": "plivo", "fault": "wrong totals"}
    httpx.put(f"{company.address}/_sandbox/faults", json=fault).raise_for_status()
    assert not dagster.run("plivo/main", "2026-06").success
    assert not told(dagster.instance, "control_totals_agree")[0]
    company.world.fail("plivo", [401])
    assert not dagster.run("plivo/main", "2026-05").success
    passed, text = told(dagster.instance, "control_totals_agree")
    assert not passed
    assert "plivo/main 2026-06: control totals do not agree" in text


def test_a_month_that_refresh_did_is_shown_as_one_that_a_run_did(
    company: Company, dagster: Dagster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    may = company.month("plivo", "main", "2026-05")
    for moment in ("2026-05-31T15:00", "2026-06-20T06:00"):
        company.at(moment)
        refresh.refresh(
            company.line, Console(file=StringIO()), providers=["plivo"], accounts=["main"], periods=[may.period]
        )
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            looked(company, instance)
    by_run = metadata(dagster.run("plivo/main", "2026-05"), "plivo/main", "charges")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        (record, _) = instance.fetch_materializations(dg.AssetKey(["plivo", "main", "charges"]), limit=9).records
        assert record.asset_materialization
        by_refresh = plain(record.asset_materialization)
        differ = {"action", "what happened", "change since the last fetch", "control totals"}  # the run found it final
        assert {k: v for k, v in by_refresh.items() if k not in differ} == {
            k: v for k, v in by_run.items() if k not in differ
        }
        assert by_refresh["how the total developed"].startswith("![how the total developed](data:image/svg+xml;base64,")
        assert final_months(instance, "plivo/main") == {"2026-05"}
        company.line.configuration = replace(company.line.configuration, history_from=may.period.plus(1))
        refresh.refresh(company.line, Console(file=StringIO()), providers=["talkdesk"])
        looked(company, instance)
        (list_,) = instance.fetch_materializations(dg.AssetKey(["talkdesk", "main", "invoices"]), limit=9).records
        assert list_.asset_materialization
        assert "what came" in plain(list_.asset_materialization)
