"""When the line runs, and with what: the Dagster definitions of this machine's accounts."""

import warnings
from datetime import UTC, timedelta

import dagster as dg

from . import environment, telling
from .alert_sensors import alert_sensors
from .assets import ALIVE, account_assets, final_months, invoices_asset, months, report_asset, warehouse_asset
from .landing import Partition
from .line import Line
from .mailbox import Mailbox
from .period import BillingPeriod
from .provider import RowsMoved

DAILY = "0 6 * * *"
"""UTC: every provider's previous day is over on its own clock by then (UTC+8 has its midnight at 16:00)."""

WEEKLY = "0 5 * * 0"
"""UTC, Sundays: an hour before the daily run, when nobody waits for numbers."""

UNCLAIMED = timedelta(minutes=1)
"""A run that waits takes a letter within a second; one that lies for longer than this has nobody waiting."""


def build(line: Line, *, rehearsal: bool = False) -> dg.Definitions:
    """Assets, job, schedule and sensors for the accounts of `line`.

    Args:
        line: the accounts and all steps.
        rehearsal: the line's clock is a pretended one, which the partitions and the schedule then go by too.
    """
    # A rehearsal has months up to the one that it pretends to be in; Dagster knows only the machine's clock.
    partitions = months(line, BillingPeriod.of(line.now(), UTC) if rehearsal else None)
    assets = [
        asset
        for settings in line.configuration.accounts
        for asset in account_assets(line, line.providers[settings.provider], settings, partitions)
    ]
    lists = [
        invoices_asset(line, line.providers[settings.provider], settings, DAILY)
        for settings in line.configuration.accounts
        if line.providers[settings.provider].invoices
    ]
    finals = [
        final_months(line.providers[settings.provider], settings, partitions)
        for settings in line.configuration.accounts
    ]
    job = dg.define_asset_job(
        "account_month",
        selection=dg.AssetSelection.assets(*assets),
        description="A month of an account: fetch, reconcile, replace. The schedule launches one run per account and open month.",
    )

    @dg.schedule(
        job=job,
        cron_schedule=DAILY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every day: each month of each account that is not final and that its provider still serves, a run each, so "
        "that a provider that is down holds up nobody else. A final month is not asked for again; what a killed run fetched "
        "and did not load is loaded, or asked for again where its rows moved.",
    )
    def daily_open_months(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        # The tick's own instant, not the one at which a busy machine gets round to it: the same tick asks for the same months.
        at = None if rehearsal else context.scheduled_execution_time
        # A month that has begun on YCloud's clock (UTC+8) and not yet in UTC is no partition before tomorrow's tick.
        begun = set(partitions.get_partition_keys())
        requests = [_request(partition, "daily") for partition in line.open(at) if str(partition.period) in begun]
        asked = {*line.open(at)}
        landed = [
            partition for partition in line.unloaded() if partition not in asked and str(partition.period) in begun
        ]
        told = [failure for failure in line.failures.all() if failure.step == "load"]
        moved = {failure.subject for failure in told if failure.kind == RowsMoved.__name__}
        requests += [
            _request(partition, "fetched and never loaded", ask=partition in moved, compare=partition in moved)
            for partition in landed
        ]
        return requests or dg.SkipReason("Every month is final: there is nothing to ask for.")

    @dg.schedule(
        job=job,
        cron_schedule=WEEKLY,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Every Sunday: each final month that its provider still serves is asked for again and compared, never "
        "replaced. A provider that does not say how long it serves a month is asked for the last twelve. What differs fails the "
        "check `final_months_unchanged` and waits for a person: `billing-pipeline restatements`.",
    )
    def weekly_watch(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        at = None if rehearsal else context.scheduled_execution_time
        requests = [_request(partition, "weekly watch", compare=True) for partition in line.watched(at)]
        return requests or dg.SkipReason("No month is final and still served: there is nothing to compare.")

    @dg.sensor(
        job=job,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="An answer by callback (Infobip) that arrived when no run was waiting for it any more: a run lands it.",
    )
    def late_letters() -> list[dg.RunRequest] | dg.SkipReason:
        requests = []
        mailbox = Mailbox(line.data / "mailbox", line.now)
        for settings in line.configuration.accounts:
            for ticket in mailbox.pending(settings.provider, settings.name):
                letters = mailbox.letters(ticket)
                if letters and line.now() - letters[0].received_at > UNCLAIMED:
                    partition = Partition(settings.provider, settings.name, BillingPeriod.parse(ticket.period))
                    requests.append(_request(partition, "late letter", run_key=ticket.key))
        return requests or dg.SkipReason("No letter lies unclaimed.")

    @dg.sensor(
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Shows here what `billing-pipeline refresh` did since the last look. It starts no run.",
    )
    def told_by_refresh(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        told = telling.pass_on(context.instance, line)
        return dg.SkipReason(f"{told} things were done by `billing-pipeline refresh`." if told else "Nothing new.")

    publisher = dg.AutomationConditionSensorDefinition(
        "publish_when_loaded",
        target=dg.AssetSelection.groups("warehouse") | dg.AssetSelection.assets(*lists),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        description="Publishes the warehouse once after months were loaded, however many runs that took; asks for lists of "
        "invoices once a day.",
    )
    warehouse = warehouse_asset(line, [*assets, *lists])
    return dg.Definitions(
        assets=[*assets, *finals, *lists, warehouse, report_asset(line, warehouse)],
        resources=ALIVE,
        jobs=[job],
        schedules=[daily_open_months, weekly_watch],
        sensors=[late_letters, told_by_refresh, publisher, *alert_sensors(line)],
        # One run is one process; runs are parallel. A process per step would cost 2 s of CPU each.
        executor=dg.in_process_executor,
    )


def _request(
    partition: Partition, reason: str, run_key: str | None = None, *, compare: bool = False, ask: bool = True
) -> dg.RunRequest:
    prefix = [partition.provider, partition.account]
    raw = dg.AssetKey([*prefix, "raw"]).to_python_identifier()
    return dg.RunRequest(
        run_config={"ops": {raw: {"config": {"compare": True}}}} if compare else None,
        run_key=run_key or f"{partition}",
        partition_key=str(partition.period),
        asset_selection=[dg.AssetKey([*prefix, step]) for step in (("raw", "charges") if ask else ("charges",))],
        tags={
            "billing/provider": partition.provider,
            "billing/account": partition.account,
            "billing/period": str(partition.period),
            "billing/reason": reason,
        },
    )


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of this machine: accounts.toml, or the sandbox where there is none."""
    environment.private()
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    return build(environment.line(), rehearsal=environment.pretended() is not None)
