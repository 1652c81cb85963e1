"""The line as Dagster sees it: two assets per account, one warehouse, and a row of months that are final.

    <provider>/<account>/raw  →  <provider>/<account>/charges  →  warehouse/charges  →  warehouse/report
                                                               →  <provider>/<account>/final_months

What the steps do is in line.py; what they say about themselves in reports.py.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's arguments, and must not get text.
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg

from . import reports, telling
from .landing import Partition
from .line import Line
from .month_files import bring_up_to_date
from .period import BillingPeriod
from .provider import Provider, Settings
from .reconcile import DoesNotReconcile
from .under_way import alive

FRESH = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=30), fail_window=timedelta(hours=54))
"""Every account has an open month, the running one, and so is loaded once a day, at whatever hour and by whom: one missed day and
the hours of a slow walk warn, two missed days fail."""

OWNERS = ["team:billing"]

ALIVE = {"alive": alive}
"""For whatever waits for a place in a pool: a run that was killed in there is closed by the next one."""


class Compare(dg.Config):
    """Run config of `raw`.

    Attributes:
        compare: ask for the month even if it is final, and compare what comes with what is held. Never overwrites.
    """

    compare: bool = False


def months(line: Line, last: BillingPeriod | None = None) -> dg.MonthlyPartitionsDefinition:
    """One partition per month, the running one included; the same for all accounts, so that lineage and backfills line up.

    Args:
        line: since when there are months.
        last: until when; None: the running month, which Dagster takes from the machine's own clock.
    """
    return dg.MonthlyPartitionsDefinition(
        start_date=str(line.configuration.history_from),
        end_date=str(last.plus(1)) if last else None,
        fmt="%Y-%m",
        # Months behind the machine's clock: the running one, or in a rehearsal of a time to come, as many as it takes to `last`.
        end_offset=12 * 100 if last else 1,
        timezone="UTC",
    )


def account_assets(
    line: Line, provider: Provider, settings: Settings, partitions: dg.PartitionsDefinition
) -> list[dg.AssetsDefinition]:
    """`raw` and `charges` of one account."""
    prefix = [settings.provider, settings.name]
    shared: dict[str, Any] = {
        "group_name": settings.provider,
        "partitions_def": partitions,
        "pool": f"{settings.provider}_{settings.name}",
        "required_resource_keys": {*ALIVE},
        "owners": OWNERS,
        "tags": {"provider": settings.provider, "account": settings.name},
    }

    @dg.asset(
        key=[*prefix, "raw"],
        # The account as a kind: a node of the graph shows its kinds, but only the last part of its key.
        kinds={settings.name, "json"},
        description=f"**{provider.title}'s own answers for a month, as they came**, for the account `{settings.name}`: "
        f"`data/raw/{'/'.join(prefix)}/<month>/`.\n\nA landing is complete or absent, and never changes. A final month is not "
        "asked for again; to ask all the same and compare, launch it with the config `compare: true`.",
        **shared,
    )
    def raw(context: dg.AssetExecutionContext, config: Compare) -> dg.MaterializeResult[Any]:
        partition = Partition(settings.provider, settings.name, BillingPeriod.parse(context.partition_key))
        _tag(context, partition)
        try:
            fetched = line.fetch(partition, explicit=config.compare, progress=lambda now: context.log.info(str(now)))
        except Exception as error:
            raise _failed(context, line, partition, error) from error
        metadata = reports.raw_metadata(fetched)
        context.log.info(f"{partition}: {metadata['what happened']}")
        return dg.MaterializeResult(metadata=metadata)

    @dg.asset(
        key=[*prefix, "charges"],
        deps=[raw],
        kinds={settings.name, "parquet"},
        description=f"**What {provider.title} charges the account `{settings.name}` for a month**, in the common schema: one "
        "Parquet file, replaced whole and only when every control total agrees.\n\nWhile the month is provisional each fetch "
        "replaces it. Once it is final it is never replaced; a backfill leaves it as it is and says so. Each partition says "
        f"whether it is final and why; `{telling.FINAL_MONTHS}` beside it shows at one look which ones are.",
        metadata={"dagster/column_schema": reports.column_schema()},
        freshness_policy=FRESH,
        check_specs=[
            dg.AssetCheckSpec(
                reports.CONTROL_TOTALS,
                asset=[*prefix, "charges"],
                blocking=True,
                description="What the provider states = what was counted in its bytes = Arrow = Parquet, rows and money.",
            ),
            dg.AssetCheckSpec(
                reports.UNCHANGED,
                asset=[*prefix, "charges"],
                description="Every month that was closed still has the numbers it was closed with, says the provider. Where it "
                "does not, the month stays as it is until a person decides.",
            ),
            dg.AssetCheckSpec(
                reports.DOCUMENTED,
                asset=[*prefix, "charges"],
                description="The answers hold only values and fields that the provider documents. What it does not is kept.",
            ),
            dg.AssetCheckSpec(
                reports.EXPIRY,
                asset=[*prefix, "charges"],
                description="No month of the account will soon be out of reach without being final.",
            ),
            dg.AssetCheckSpec(
                reports.IN_TIME,
                asset=[*prefix, "charges"],
                description="Every month of the account became final when it could.",
            ),
            dg.AssetCheckSpec(
                reports.UP_TO_DATE,
                asset=[*prefix, "charges"],
                description="The last try of every month of the account succeeded, also that of `billing-pipeline refresh`.",
            ),
        ],
        **shared,
    )
    def charges(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        partition = Partition(settings.provider, settings.name, BillingPeriod.parse(context.partition_key))
        _tag(context, partition)
        try:
            loaded = line.load(partition)
        except DoesNotReconcile as error:
            yield reports.disagreement(partition, error.gates)
            raise _failed(context, line, partition, error) from error
        except Exception as error:
            raise _failed(context, line, partition, error) from error
        _tag(context, partition, finality=loaded.held.status)
        metadata = reports.charges_metadata(line, loaded)
        context.log.info(f"{partition}: {metadata['what happened']}; {metadata['totals']}, {metadata['finality']}")
        yield dg.MaterializeResult(
            metadata=metadata,
            data_version=dg.DataVersion(f"{loaded.held.footer['landing']} {loaded.held.status}"),
            check_results=reports.checks(line, loaded),
        )
        for event in telling.final_months(context.instance, line, settings.provider, settings.name):
            context.log_event(event)

    return [raw, charges]


def final_months(provider: Provider, settings: Settings, partitions: dg.PartitionsDefinition) -> dg.AssetSpec:
    """The months of an account that are final, as partitions: nothing runs to make it, the loading of a month tells of it.

    Dagster knows of a partition only whether it is there. So that is what this one says: it is there when the month is final.
    """
    prefix = [settings.provider, settings.name]
    return dg.AssetSpec(
        key=[*prefix, telling.FINAL_MONTHS],
        deps=[dg.AssetKey([*prefix, "charges"])],
        description=f"**The months of `{settings.name}` that are final**: a partition is green when {provider.title}'s month is "
        "closed, and missing while it is provisional or was never fetched.\n\nA final month is never replaced. Each green "
        "partition says by which rule it became final, and with which totals. Nothing is run to make it.",
        kinds={settings.name, "finality"},
        group_name=settings.provider,
        partitions_def=partitions,
        owners=OWNERS,
        tags={"provider": settings.provider, "account": settings.name},
    )


def invoices_asset(line: Line, provider: Provider, settings: Settings, cron: str) -> dg.AssetsDefinition:
    """The list of invoices of an account whose provider has one, asked for once a day."""
    name = f"{settings.provider}/{settings.name}"

    @dg.asset(
        key=[settings.provider, settings.name, "invoices"],
        group_name=settings.provider,
        pool=f"{settings.provider}_{settings.name}",
        required_resource_keys={*ALIVE},
        kinds={settings.name, "json"},
        owners=OWNERS,
        tags={"provider": settings.provider, "account": settings.name},
        automation_condition=dg.AutomationCondition.on_cron(cron),
        description=f"**{provider.title}'s own list of invoices**, for the account `{settings.name}`: "
        f"`data/raw/{name}/invoices/`.\n\nThe view `reconciliation` compares them with the months. Where the account's "
        "credentials do not reach the list, "
        "this says so and is no failure.",
    )
    def invoices(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        try:
            asked = line.list_invoices(settings.provider, settings.name, lambda now: context.log.info(str(now)))
        except Exception as error:
            raise reports.failed(line.failure(f"{name} invoices", error)) from error
        assert asked is not None  # noqa: S101  there is no such asset otherwise
        return dg.MaterializeResult(metadata=reports.invoices_metadata(asked))

    return invoices


def warehouse_asset(line: Line, upstream: list[dg.AssetsDefinition]) -> dg.AssetsDefinition:
    """The DuckDB file, brought up to date whenever months were loaded and none is being loaded."""
    condition = dg.AutomationCondition

    @dg.asset(
        key=["warehouse", "charges"],
        group_name="warehouse",
        deps=[asset for asset in upstream if asset.key.path[-1] in ("charges", "invoices")],
        kinds={"duckdb", "sql"},
        metadata={"dagster/column_schema": reports.warehouse_schema()},
        pool="warehouse",
        required_resource_keys={*ALIVE},
        owners=OWNERS,
        check_specs=[
            dg.AssetCheckSpec(
                reports.EXPIRY,
                asset=["warehouse", "charges"],
                # Here too: an account whose fetches fail evaluates no check of its own.
                description="No month of any account will soon be out of reach without being final.",
            ),
            dg.AssetCheckSpec(
                reports.INVOICES,
                asset=["warehouse", "charges"],
                description="No final month disagrees with its invoice beyond the stated tolerance.",
            ),
        ],
        automation_condition=condition.any_deps_updated().since_last_handled()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress(),
        description="**Every month as it stands, to be asked in SQL**: `data/warehouse.duckdb` with `charges`, "
        "`billing_periods`, `monthly_cost` and more. Its tables and columns say what they mean.\n\nPublished by itself when "
        "months were loaded, all of them on a copy that takes the old file's place: open readers keep theirs. Open it "
        "read-only.",
    )
    def warehouse() -> Iterator[dg.MaterializeResult[Any]]:
        metadata = reports.warehouse_metadata(line, line.publish())
        yield dg.MaterializeResult(metadata=metadata, check_results=[reports.expiry(line), reports.invoices(line)])

    return warehouse


def report_asset(line: Line, warehouse: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """A page for each month, made again behind the warehouse: its failure leaves the published numbers as they are."""
    condition = dg.AutomationCondition

    @dg.asset(
        key=["warehouse", "report"],
        group_name="warehouse",
        deps=[warehouse],
        kinds={"html", "matplotlib"},
        pool="report",
        required_resource_keys={*ALIVE},
        owners=["team:billing"],
        automation_condition=condition.any_deps_updated().since_last_handled() & ~condition.in_progress(),
        description="**A page for each month, to read and to print**: `data/reports/`, with `index.html` to begin with. Cost by "
        "provider and service, days, movers, what may still change, and how it is known what is final.\n\nMade again when the "
        "warehouse says something else of a month than its page: `billing-pipeline report` does the same.",
    )
    def report() -> dg.MaterializeResult[Any]:
        try:
            made = bring_up_to_date(line.data)
        except Exception as error:
            raise reports.failed(line.failure("reports", error)) from error
        return dg.MaterializeResult(metadata={"index": dg.MetadataValue.path(str(made.index)), **made.told()})

    return report


def _failed(context: dg.AssetExecutionContext, line: Line, partition: Partition, error: Exception) -> dg.Failure:
    """The error as Dagster shows it. The checks on `charges` are told too: a run that stops at `raw` does not come so far."""
    telling.failed(context.instance, line, partition.provider, partition.account, error)
    return reports.failed(line.failure(partition, error))


def _tag(context: dg.AssetExecutionContext, partition: Partition, **more: str) -> None:
    """Make the run findable by what all its steps have in common.

    A backfill makes one run per month of all accounts that were chosen: where they differ, a tag of one would hide the others.
    """
    selected = {(key.path[0], key.path[1]) for key in context.run.asset_selection or ()}
    tags = {"period": str(partition.period)}
    if len({provider for provider, _ in selected}) == 1:
        tags["provider"] = partition.provider
    if len(selected) == 1:
        tags |= {"account": partition.account, **more}
    context.instance.add_run_tags(context.run.run_id, {f"billing/{name}": value for name, value in tags.items()})
