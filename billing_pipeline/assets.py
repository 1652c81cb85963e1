"""The line as Dagster sees it: two assets per account, one warehouse.

    <provider>/<account>/raw  →  <provider>/<account>/charges  →  warehouse/charges  →  warehouse/report

What the steps do is in line.py; what they say about themselves in reports.py.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's arguments, and must not get text.
from collections.abc import Iterator
from typing import Any

import dagster as dg

from . import reports
from .landing import Partition
from .line import Line
from .month_files import bring_up_to_date
from .period import BillingPeriod
from .provider import Provider, Settings
from .reconcile import DoesNotReconcile


class Compare(dg.Config):
    """Run config of `raw`.

    Attributes:
        compare: ask for the month even if it is final, and compare what comes with what is held. Never overwrites.
    """

    compare: bool = False


def months(line: Line) -> dg.MonthlyPartitionsDefinition:
    """One partition per month, the running one included; the same for all accounts, so that lineage and backfills line up."""
    first = line.configuration.history_from
    return dg.MonthlyPartitionsDefinition(start_date=str(first), fmt="%Y-%m", end_offset=1, timezone="UTC")


def account_assets(line: Line, provider: Provider, settings: Settings) -> list[dg.AssetsDefinition]:
    """`raw` and `charges` of one account."""
    prefix = [settings.provider, settings.name]
    shared: dict[str, Any] = {
        "group_name": settings.provider,
        "partitions_def": months(line),
        "pool": f"{settings.provider}_{settings.name}",
        "owners": ["team:billing"],
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
        _tag(
            context,
            {
                "billing/provider": partition.provider,
                "billing/account": partition.account,
                "billing/period": str(partition.period),
            },
        )
        try:
            fetched = line.fetch(partition, explicit=config.compare, progress=context.log.info)
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
        "replaces it. Once it is final it is never replaced; a backfill leaves it as it is and says so.",
        metadata={"dagster/column_schema": reports.column_schema()},
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
                description="A month that was closed still has the numbers it was closed with, says the provider.",
            ),
            dg.AssetCheckSpec(
                reports.DOCUMENTED,
                asset=[*prefix, "charges"],
                description="The answer holds only values and fields that the provider documents. What it does not is kept.",
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
        try:
            loaded = line.load(partition)
        except DoesNotReconcile as error:
            yield reports.disagreement(partition, error.gates)
            raise _failed(context, line, partition, error) from error
        except Exception as error:
            raise _failed(context, line, partition, error) from error
        _tag(context, {"billing/finality": loaded.held.status})
        metadata = reports.charges_metadata(line, loaded)
        context.log.info(f"{partition}: {metadata['what happened']}; {metadata['totals']}, {metadata['finality']}")
        yield dg.MaterializeResult(
            metadata=metadata,
            data_version=dg.DataVersion(f"{loaded.held.footer['landing']} {loaded.held.status}"),
            check_results=reports.checks(line, loaded),
        )

    return [raw, charges]


def invoices_asset(line: Line, provider: Provider, settings: Settings, cron: str) -> dg.AssetsDefinition:
    """The list of invoices of an account whose provider has one, asked for once a day."""
    name = f"{settings.provider}/{settings.name}"

    @dg.asset(
        key=[settings.provider, settings.name, "invoices"],
        group_name=settings.provider,
        pool=f"{settings.provider}_{settings.name}",
        kinds={settings.name, "json"},
        owners=["team:billing"],
        tags={"provider": settings.provider, "account": settings.name},
        automation_condition=dg.AutomationCondition.on_cron(cron),
        description=f"**{provider.title}'s own list of invoices**, for the account `{settings.name}`: "
        f"`data/raw/{name}/invoices/`.\n\nThe view `reconciliation` compares them with the months. Where the account's "
        "credentials do not reach the list, "
        "this says so and is no failure.",
    )
    def invoices(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        try:
            asked = line.list_invoices(settings.provider, settings.name, context.log.info)
        except Exception as error:
            raise reports.failed(line.failure(f"{name} invoices", error)) from error
        assert asked is not None  # noqa: S101  there is no such asset otherwise
        return dg.MaterializeResult(metadata={"what came": asked.outcome, "why": asked.why or "the list came"})

    return invoices


def warehouse_asset(line: Line, upstream: list[dg.AssetsDefinition]) -> dg.AssetsDefinition:
    """The DuckDB file, brought up to date whenever months were loaded and none is being loaded."""
    condition = dg.AutomationCondition

    @dg.asset(
        key=["warehouse", "charges"],
        group_name="warehouse",
        deps=[asset for asset in upstream if asset.key.path[-1] in ("charges", "invoices")],
        kinds={"duckdb", "sql"},
        pool="warehouse",
        owners=["team:billing"],
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
        "months were loaded, in one transaction on a copy that takes the old file's place: open readers keep theirs. Open it "
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
    """The error as Dagster shows it. The check on `charges` is told too: a run that stops at `raw` does not come so far."""
    reports.report_up_to_date(context.instance, line, (partition.provider, partition.account))
    return reports.failed(line.failure(partition, error))


def _tag(context: dg.AssetExecutionContext, tags: dict[str, str]) -> None:
    """Make the run findable; not one of several accounts, as a backfill makes it: they would take each other's words away."""
    selected = context.run.asset_selection or ()
    if len({tuple(key.path[:2]) for key in selected}) == 1:
        context.instance.add_run_tags(context.run.run_id, tags)
