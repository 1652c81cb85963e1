"""What Dagster is told of besides its own runs: what `billing-pipeline refresh` did and left notes of, and months that are final.

The UI then shows a month the same way, whoever fetched it. Dagster's records decide nothing: what is told here can be told again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import dagster as dg

from . import reports, untold
from .invoice_lists import Asked
from .landing import Partition
from .line import Fetched, Line, Loaded
from .reconcile import DoesNotReconcile
from .warehouse import Published

FINAL_MONTHS = "final_months"
"""Last part of the key of the asset whose partitions are there for the months of an account that are final, and for no other."""


def pass_on(instance: dg.DagsterInstance, line: Line) -> int:
    """Tell what was done in the foreground since the last time; how many things that were. See `untold`."""
    told, worked_on = 0, dict[tuple[str, str], list[Partition]]()
    for told, done in enumerate(untold.passing_on(line), 1):  # noqa: B007  the count is what is returned
        if isinstance(done, untold.Month):
            loaded = worked_on.setdefault((done.partition.provider, done.partition.account), [])
            if done.loaded:
                loaded.append(done.partition)
                month(instance, line, done.fetched, done.loaded)
        elif isinstance(done, Asked):
            invoices(instance, done.provider, done.account, done)
        elif isinstance(done, Published):
            warehouse(instance, line, done)
        else:
            pages(instance, done)
    for (provider, name), months in worked_on.items():
        account(instance, line, provider, name, months)
    return told


def month(instance: dg.DagsterInstance, line: Line, fetched: Fetched | None, loaded: Loaded) -> None:
    """A month was loaded in the foreground, and fetched unless a run that was killed had fetched it."""
    partition = loaded.held.partition
    key = [partition.provider, partition.account]
    metadata = {"raw": reports.raw_metadata(fetched)} if fetched else {}
    metadata["charges"] = reports.charges_metadata(line, loaded)
    for name, said in metadata.items():
        instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=[*key, name], partition=str(partition.period), metadata=said)
        )
    _evaluated(instance, [*key, "charges"], reports.totals_agree(loaded))


def account(
    instance: dg.DagsterInstance, line: Line, provider: str, name: str, loaded: Collection[Partition] = ()
) -> None:
    """An account had its turn in the foreground: which of its months are final, and the checks that are about all of them."""
    for event in final_months(instance, line, provider, name):
        instance.report_runless_asset_event(event)
    checks(instance, line, provider, name, loaded)


def checks(
    instance: dg.DagsterInstance, line: Line, provider: str, name: str, loaded: Collection[Partition] = ()
) -> None:
    """The checks that are about all months of an account, as they stand now."""
    for check in reports.of_account(line, (provider, name), loaded):
        _evaluated(instance, [provider, name, "charges"], check)


def failed(instance: dg.DagsterInstance, line: Line, provider: str, name: str, error: Exception) -> None:
    """A run failed: the checks that it did not come to, so that they are not shown as failed themselves."""
    if not isinstance(error, DoesNotReconcile):  # the run itself told that one
        _evaluated(instance, [provider, name, "charges"], reports.nothing_compared(line, (provider, name)))
    checks(instance, line, provider, name)


def invoices(instance: dg.DagsterInstance, provider: str, name: str, asked: Asked) -> None:
    """An account's list of invoices was asked for in the foreground."""
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=[provider, name, "invoices"], metadata=reports.invoices_metadata(asked))
    )


def final_months(
    instance: dg.DagsterInstance, line: Line, provider: str, name: str
) -> Iterator[dg.AssetMaterialization]:
    """The final months of an account that Dagster does not know of yet; after the loss of its records, all of them."""
    key = dg.AssetKey([provider, name, FINAL_MONTHS])
    known = instance.get_materialized_partitions(key)
    for held in line.lake.all():
        mine = (held.partition.provider, held.partition.account) == (provider, name)
        if mine and held.final and str(held.partition.period) not in known:
            yield dg.AssetMaterialization(
                asset_key=key, partition=str(held.partition.period), metadata=reports.final_metadata(held)
            )


def warehouse(instance: dg.DagsterInstance, line: Line, published: Published) -> None:
    """The warehouse was published in the foreground."""
    key = ["warehouse", "charges"]
    instance.report_runless_asset_event(
        dg.AssetMaterialization(asset_key=key, metadata=reports.warehouse_metadata(line, published))
    )
    for check in (reports.expiry(line), reports.invoices(line)):
        _evaluated(instance, key, check)


def pages(instance: dg.DagsterInstance, made: untold.Pages) -> None:
    """Reports were made in the foreground."""
    metadata: dict[str, Any] = {"index": dg.MetadataValue.path(made.index), **made.told}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=["warehouse", "report"], metadata=metadata))


def _evaluated(instance: dg.DagsterInstance, key: list[str], check: dg.AssetCheckResult) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(key),
            check_name=str(check.check_name),
            passed=check.passed,
            metadata=dict(check.metadata or {}),
            severity=check.severity,
            description=check.description,
            blocking=check.check_name == reports.CONTROL_TOTALS,
        )
    )
