"""The line as Dagster sees it: two assets per account, one warehouse, and what each run says about itself.

    <provider>/<account>/raw  →  <provider>/<account>/charges  →  warehouse/charges

Only this module and definitions.py know that Dagster exists. What the steps do is in line.py.
"""

# No `from __future__ import annotations` here: Dagster reads the annotations of an asset's arguments, and must not get text.
from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from .charges import SCHEMA
from .landing import Partition
from .line import Fetched, Line, Loaded
from .period import BillingPeriod
from .provider import Provider, Settings
from .reconcile import DoesNotReconcile, Gate, money
from .warehouse import Published

CONTROL_TOTALS = "control_totals_agree"
UNCHANGED = "final_month_unchanged"
DOCUMENTED = "nothing_undocumented"


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
        kinds={"python", "json"},
        description=f"{provider.title}'s own answers for a month, as they came: data/raw/{'/'.join(prefix)}/<month>/. "
        "A landing is complete or absent, and never changes. A final month is not asked for again.",
        **shared,
    )
    def raw(context: dg.AssetExecutionContext, config: Compare) -> dg.MaterializeResult[Any]:
        partition = Partition(settings.provider, settings.name, BillingPeriod.parse(context.partition_key))
        tag_run(context, partition)
        try:
            fetched = line.fetch(partition, explicit=config.compare, progress=context.log.info)
        except Exception as error:
            raise failure(partition, error) from error
        return dg.MaterializeResult(metadata=raw_metadata(fetched))

    @dg.asset(
        key=[*prefix, "charges"],
        deps=[raw],
        kinds={"arrow", "parquet"},
        description="The month's charges in the common schema, one Parquet file, replaced whole and only when every control "
        "total agrees. A final month is never replaced.",
        metadata={"dagster/column_schema": column_schema()},
        check_specs=[
            dg.AssetCheckSpec(
                CONTROL_TOTALS,
                asset=[*prefix, "charges"],
                blocking=True,
                description="What the provider states = what was counted in its bytes = Arrow = Parquet, rows and money.",
            ),
            dg.AssetCheckSpec(
                UNCHANGED,
                asset=[*prefix, "charges"],
                description="A month that was closed still has the numbers it was closed with, says the provider.",
            ),
            dg.AssetCheckSpec(
                DOCUMENTED,
                asset=[*prefix, "charges"],
                description="The answer holds only values and fields that the provider documents. What it does not is kept.",
            ),
        ],
        **shared,
    )
    def charges(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        partition = Partition(settings.provider, settings.name, BillingPeriod.parse(context.partition_key))
        try:
            loaded = line.load(partition)
        except DoesNotReconcile as error:
            yield dg.AssetCheckResult(passed=False, check_name=CONTROL_TOTALS, metadata=gate_metadata(error.gates))
            raise failure(partition, error) from error
        except Exception as error:
            raise failure(partition, error) from error
        context.instance.add_run_tags(context.run_id, {"billing/finality": loaded.held.status})
        yield dg.MaterializeResult(
            metadata=charges_metadata(loaded),
            data_version=dg.DataVersion(loaded.held.footer["landing"] + " " + loaded.held.status),
            check_results=checks(loaded),
        )

    return [raw, charges]


def warehouse_asset(line: Line, upstream: list[dg.AssetsDefinition]) -> dg.AssetsDefinition:
    """The DuckDB file, brought up to date whenever months were loaded and none is being loaded."""
    condition = dg.AutomationCondition

    @dg.asset(
        key=["warehouse", "charges"],
        group_name="warehouse",
        deps=[asset for asset in upstream if asset.key.path[-1] == "charges"],
        kinds={"duckdb", "sql"},
        pool="warehouse",
        owners=["team:billing"],
        automation_condition=condition.any_deps_updated().since_last_handled()
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress(),
        description="data/warehouse.duckdb: every month as it stands. Changed months are replaced in one transaction on a copy "
        "that takes the old file's place: open readers keep theirs. Open it read-only.",
        metadata={"dagster/column_schema": column_schema()},
    )
    def warehouse() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=warehouse_metadata(line, line.publish()))

    return warehouse


def raw_metadata(fetched: Fetched) -> dict[str, Any]:
    """What a person reads on a materialization of `raw`."""
    what = {
        "fetched": "asked the provider and landed a complete answer",
        "shared": "a complete answer of the last minutes holds this month too; the provider was not asked again",
        "kept": "the month is final: the provider was not asked",
    }[fetched.action]
    if fetched.landing is None:
        return {"action": fetched.action, "what happened": what}
    manifest = fetched.landing.manifest
    return {
        "action": fetched.action,
        "what happened": what,
        "fetched at": manifest["fetched_at"],
        "requests": manifest["pages"],
        "walks restarted": manifest["restarts"],
        "bytes": manifest["bytes"],
        "landing": dg.MetadataValue.path(str(fetched.landing.folder)),
        "sha256": fetched.landing.sha256,
    }


def charges_metadata(loaded: Loaded) -> dict[str, Any]:
    """What a person reads on a materialization of `charges`."""
    footer, held = loaded.held.footer, loaded.held
    what = {
        "written": "the month was replaced by what the provider states now",
        "kept": "nothing to do: the month is final, or already shows the newest landing",
        "unchanged": "the month is final, and the provider still states the same",
        "restated": "the month is final and stays; the provider now states other numbers, which are held in the ledger",
    }[loaded.action]
    metadata: dict[str, Any] = {
        "action": loaded.action,
        "what happened": what,
        "finality": held.status,
        "reason": footer["evidence"]["reason"],
        "rule": footer["rule"],
        "totals": ", ".join(f"{amount} {currency}" for currency, amount in footer["totals"].items())
        or "nothing billed",
        "change since the last fetch": _change(loaded),
        "fetched at": footer["fetched_at"],
        "landing": footer["landing"],
        "dagster/row_count": footer["rows"],
        "dagster/uri": str(held.path),
    }
    if loaded.gates:
        metadata |= gate_metadata(loaded.gates)
    if footer["left_out"]["rows"]:
        metadata["left to other months"] = dg.MetadataValue.json(footer["left_out"])
    if footer["notes"]:
        metadata["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in footer["notes"]))
    return metadata


def checks(loaded: Loaded) -> list[dg.AssetCheckResult]:
    """The checks of `charges`, evaluated on one load that succeeded."""
    footer = loaded.held.footer
    restated = loaded.action == "restated"
    text = (
        f"The provider now states other numbers for this final month (difference: {_change(loaded)}). The month stays as it was "
        "closed; both totals are in finality_ledger. Ask the provider why."
        if restated
        else "The month is as it was closed."
        if loaded.held.final
        else "The month is not closed yet."
    )
    return [
        dg.AssetCheckResult(
            passed=all(gate.passed for gate in loaded.gates),
            check_name=CONTROL_TOTALS,
            metadata=gate_metadata(loaded.gates) if loaded.gates else {"compared": "when the month was written"},
        ),
        dg.AssetCheckResult(passed=not restated, check_name=UNCHANGED, description=text),
        dg.AssetCheckResult(
            passed=not footer["notes"],
            check_name=DOCUMENTED,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(footer["notes"]) or "Nothing undocumented came.",
        ),
    ]


def warehouse_metadata(line: Line, published: Published) -> dict[str, Any]:
    """What a person reads on a materialization of the warehouse: which months are final, at one look."""
    held = list(line.lake.all())
    accounts = sorted({(month.partition.provider, month.partition.account) for month in held})
    rows = sorted({month.partition.period for month in held}, reverse=True)
    cells = {month.partition: f"{month.status}: {money(month.tally.totals)}" for month in held}
    table = ["| month | " + " | ".join("/".join(a) for a in accounts) + " |", "|---" * (len(accounts) + 1) + "|"]
    for period in rows:
        texts = (cells.get(Partition(*account, period), "") for account in accounts)
        table.append(f"| {period} | " + " | ".join(texts) + " |")
    return {
        "months": dg.MetadataValue.md("\n".join(table)),
        "months replaced": ", ".join(str(partition) for partition in published.loaded) or "none",
        "dagster/row_count": published.rows,
        "dagster/uri": str(published.path),
        "bytes": published.path.stat().st_size,
        "rebuilt": published.rebuilt,
    }


def gate_metadata(gates: list[Gate]) -> dict[str, Any]:
    """Control totals as a table."""
    lines = [f"| {g.name} | {g.expected} | {g.got} | {'agrees' if g.passed else 'DOES NOT AGREE'} |" for g in gates]
    return {
        "control totals": dg.MetadataValue.md(
            "\n".join(["| total | expected | found | |", "|---|---|---|---|", *lines])
        )
    }


def column_schema() -> dg.TableSchema:
    """Names, types and meanings of the columns."""
    return dg.TableSchema(
        [dg.TableColumn(c.name, str(c.type), c.metadata[b"description"].decode()) for c in SCHEMA],
    )


def failure(partition: Partition, error: Exception) -> dg.Failure:
    """An error as Dagster shows it: who, which month, what came, and that nothing was replaced."""
    return dg.Failure(
        f"{partition}: {error}",
        metadata={"kind of error": type(error).__name__, "what is shown now": "the numbers of the last complete fetch"},
        allow_retries=False,
    )


def tag_run(context: dg.AssetExecutionContext, partition: Partition) -> None:
    """Make the run findable by provider, account and month."""
    context.instance.add_run_tags(
        context.run_id,
        {
            "billing/provider": partition.provider,
            "billing/account": partition.account,
            "billing/period": str(partition.period),
        },
    )


def report(instance: dg.DagsterInstance, partition: Partition, fetched: Fetched, loaded: Loaded) -> None:
    """Tell Dagster of a month that `billing-pipeline refresh` did in the foreground, so that the UI shows it."""
    key = [partition.provider, partition.account]
    for name, metadata in (("raw", raw_metadata(fetched)), ("charges", charges_metadata(loaded))):
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=[*key, name], partition=str(partition.period), metadata=metadata)
        )
    for check in checks(loaded):
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey([*key, "charges"]),
                check_name=str(check.check_name),
                passed=check.passed,
                metadata=dict(check.metadata or {}),
                severity=check.severity,
                description=check.description,
            )
        )


def report_warehouse(instance: dg.DagsterInstance, metadata: Mapping[str, Any]) -> None:
    """Tell Dagster that the warehouse was published in the foreground."""
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=["warehouse", "charges"], metadata=metadata))


def _change(loaded: Loaded) -> str:
    if not loaded.change:
        return "first fetch" if loaded.action == "written" else "none"
    totals = ", ".join(
        f"{'' if amount.startswith('-') else '+'}{amount} {currency}"
        for currency, amount in loaded.change["totals"].items()
    )
    return f"{loaded.change['rows']:+d} rows, {totals or 'no money'}"
