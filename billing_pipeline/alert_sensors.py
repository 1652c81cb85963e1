"""The two sensors that send alerts while the Dagster daemon runs; `billing-pipeline refresh` sends the same without it."""

import dagster as dg

from .alerts import failed, wrong
from .delivery import deliver
from .failures import Failure
from .landing import Partition
from .line import Line
from .period import BillingPeriod
from .reports import CHECKS, EXPIRY

WILL_RETRY = "dagster/will_retry"
OPEN_THE_RUN = "Open the run in the Dagster UI; its log says more"


def alert_sensors(line: Line) -> list[dg.SensorDefinition]:
    """Both sensors; none while accounts.toml has no [alerts]."""
    if line.configuration.alerts is None:
        return []

    @dg.run_failure_sensor(
        name="alert_on_failed_run",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="A run failed: what is wrong is sent to where [alerts] of accounts.toml says, once a day for each cause.",
    )
    def alert_on_failed_run(context: dg.RunFailureSensorContext) -> dg.SkipReason:
        run = context.dagster_run
        if run.tags.get(WILL_RETRY) == "true":
            return dg.SkipReason("The run was killed and is started again: that run decides.")
        alerts = wrong(line)
        if not any(alert.cause == "failed" and _names(alert.subject, run) for alert in alerts):
            alerts += failed([_of_run(line, run, context.failure_event)])  # killed, or not a month's
        return _told(context, deliver(line, alerts), "The failed run was told of.")

    @dg.sensor(
        name="alert_on_checks",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        description="Checks were evaluated, or a day has begun: what is wrong now (a failed or late month, a restatement, a "
        "month that is soon out of reach, drift) is sent to where [alerts] of accounts.toml says, once a day for each cause.",
    )
    def alert_on_checks(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        latest = context.instance.event_log_storage.get_latest_asset_check_execution_by_key(_checks(line))
        seen = f"{max((record.id for record in latest.values()), default=0)} {line.now():%Y-%m-%d}"
        if context.cursor == seen:
            return dg.SkipReason("No check was evaluated since the last look.")
        problems = deliver(line)
        if not problems:  # else the next tick tries again
            context.update_cursor(seen)
        return _told(context, problems, "Everything that is wrong has been told.")

    return [alert_on_failed_run, alert_on_checks]


def _checks(line: Line) -> list[dg.AssetCheckKey]:
    warehouse = dg.AssetCheckKey(dg.AssetKey(["warehouse", "charges"]), EXPIRY)
    accounts = [dg.AssetKey([s.provider, s.name, "charges"]) for s in line.configuration.accounts]
    return [warehouse, *(dg.AssetCheckKey(key, name) for key in accounts for name in CHECKS)]


def _told(
    context: dg.RunFailureSensorContext | dg.SensorEvaluationContext, problems: list[str], well: str
) -> dg.SkipReason:
    for problem in problems:
        context.log.error(problem)
    return dg.SkipReason("; ".join(problems) or well)


def _of_run(line: Line, run: dg.DagsterRun, event: dg.DagsterEvent) -> Failure:
    """A run that failed outside of what the line itself remembers."""
    error = RuntimeError(f"{event.message or 'the run failed'} (run {run.run_id})")
    found = line.failure(_subject(run), error)
    return Failure(
        subject=found.subject,
        kind="RunFailed",
        what=found.what.removeprefix("RuntimeError: "),
        rerun="once",
        remedy=OPEN_THE_RUN,
        chapter="anything-else",
    )


def _subject(run: dg.DagsterRun) -> Partition | str:
    accounts = {(key.path[0], key.path[1]) for key in run.asset_selection or ()}
    if len(accounts) != 1:
        return f"run of {run.job_name}"
    ((provider, account),) = accounts
    month = run.tags.get("dagster/partition")
    return Partition(provider, account, BillingPeriod.parse(month)) if month else f"{provider}/{account}"


def _names(subject: str, run: dg.DagsterRun) -> bool:
    """Whether an alert's headline names the run's own month."""
    found = _subject(run)
    account, _, months = subject.partition(" ")
    if isinstance(found, Partition):
        return account == f"{found.provider}/{found.account}" and str(found.period) in months
    return account == found
