"""What accompanies a FOCUS 1.4 export: metadata that says how whole it is, how it is built, where every field came from. Pure.

Source: https://focus.finops.org/focus-specification/v1-4/, section Metadata (read 2026-11). The sections are Data Generator,
Dataset Instance, Recency and Schema; objects may have further properties, and ours begin with x_.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa

from .period import stamp
from .provider import Provider

VERSION = "1.4"
GENERATOR = "billing-pipeline"
SCHEMAS_CREATED = "2026-11-22T00:00:00Z"
"""When the columns of either dataset were last changed; a test knows the columns of that day."""

COMPLETE = (
    "A time sector is complete when every account's billing period that it lies in was fetched after its end and is final: "
    "its charges are never changed again. Sectors are the days, and where charges are stated by the month the months, on each "
    "provider's own clock; so they overlap. A correction of an earlier period has its charge period there, and is no sector here."
)
DELIVERY = (
    "Overwrite: an export is a complete snapshot of the billing periods that it names and supersedes every earlier export of "
    "the same ones. A period that is Closed never changes; what is found out about it later is appended to an open period as "
    "charges with ChargeClass Correction."
)
_JSON = ("x_Dimensions",)


@dataclass(frozen=True)
class Dataset:
    """One of the two datasets of an export.

    Attributes:
        id: as FOCUS calls it.
        name: of its files.
        title: for people.
    """

    id: str
    name: str
    title: str


COST_AND_USAGE = Dataset("CostAndUsage", "cost_and_usage", "Cost and Usage, one row per billed row of a provider")
BILLING_PERIOD = Dataset("BillingPeriod", "billing_period", "Billing Period, one row per month and invoice issuer")
DATASETS = (COST_AND_USAGE, BILLING_PERIOD)


@dataclass(frozen=True)
class Sector:
    """What is known of one account in one span of charge periods.

    Attributes:
        start, end: half-open.
        updated: when the newest complete fetch started whose charges are shown; if there was none, when that was found.
        complete: nothing of it will change.
    """

    start: datetime
    end: datetime
    updated: datetime
    complete: bool


def instances() -> list[dict[str, str]]:
    """FOCUS section Dataset Instance."""
    return [
        {"DatasetInstanceId": dataset.name, "DatasetInstanceName": dataset.title, "FocusDatasetId": dataset.id}
        for dataset in DATASETS
    ]


def schema(dataset: Dataset, columns: pa.Schema, meanings: Mapping[str, str], version: str) -> dict[str, Any]:
    """FOCUS section Schema: the columns as they are delivered, in Parquet types; the CSV has the same as text.

    Args:
        dataset: whose.
        columns: of the Parquet file.
        meanings: what each column means.
        version: of this program.
    """
    definition = [_column(column, meanings[column.name]) for column in columns]
    known = json.dumps([VERSION, version, definition], ensure_ascii=False)
    return {
        "SchemaId": f"{dataset.name}-{VERSION}-{hashlib.sha256(known.encode()).hexdigest()[:12]}",
        "DatasetInstanceId": dataset.name,
        "FocusVersion": VERSION,
        "DataGeneratorVersion": version,
        "CreationDate": SCHEMAS_CREATED,
        "ColumnDefinition": definition,
    }


def _column(column: pa.Field, meaning: str) -> dict[str, Any]:
    found: dict[str, Any] = {"ColumnName": column.name}
    if pa.types.is_decimal(column.type):
        found |= {"DataType": "DECIMAL", "NumericPrecision": column.type.precision, "NumberScale": column.type.scale}
    elif pa.types.is_string(column.type):
        found |= {"DataType": "JSON" if column.name in _JSON else "STRING", "StringEncoding": "UTF-8"}
    elif pa.types.is_timestamp(column.type):
        found |= {"DataType": "DATETIME"}
    else:
        found |= {"DataType": {pa.bool_(): "BOOLEAN", pa.date32(): "DATE"}[column.type]}
    return found | {"x_Meaning": meaning}


def recency(sectors: Iterable[Sector], updated: datetime) -> dict[str, Any]:
    """FOCUS section Recency of Cost and Usage: sectors with the same ends are one, complete when all of them are.

    Args:
        sectors: of every account that ought to be in the export.
        updated: when anything in the export was last updated.
    """
    merged: dict[tuple[datetime, datetime], Sector] = {}
    for one in sectors:
        key = (one.start, one.end)
        other = merged.get(key, one)
        merged[key] = Sector(*key, max(one.updated, other.updated), one.complete and other.complete)
    return {
        "DatasetInstanceId": COST_AND_USAGE.name,
        "RecencyLastUpdated": stamp(updated),
        "TimeSectors": [
            {
                "TimeSectorStart": stamp(sector.start),
                "TimeSectorEnd": stamp(sector.end),
                "TimeSectorComplete": sector.complete,
                "TimeSectorLastUpdated": stamp(sector.updated),
            }
            for _, sector in sorted(merged.items())
        ],
        "x_Complete": COMPLETE,
    }


def recency_of_periods(updated: datetime, complete: bool) -> dict[str, Any]:
    """FOCUS section Recency of Billing Period, which is no time series. complete: every period in it is Closed."""
    return {
        "DatasetInstanceId": BILLING_PERIOD.name,
        "RecencyLastUpdated": stamp(updated),
        "DatasetInstanceLastUpdated": stamp(updated),
        "DatasetInstanceComplete": complete,
        "x_Complete": "Complete when every billing period in it is Closed.",
    }


def mapping(
    providers: Iterable[Provider], names: Sequence[str], meanings: Mapping[str, str], absent: Mapping[str, str]
) -> dict[str, Any]:
    """How each field of each provider is mapped, what each column means, and which columns of FOCUS are left out, and why.

    Args:
        providers: those whose charges may be in the export.
        names: the columns of Cost and Usage.
        meanings: of columns.
        absent: columns of FOCUS 1.4 that are not exported, with the reason.
    """
    return {
        "Providers": {
            one.name: {
                "ServiceProviderName": one.title,
                "BillingPeriodZone": str(one.calendar.timezone),
                "Fields": {name: list(columns) for name, columns in one.fields.items()},
                "NotExported": dict(one.unused),
                "UndocumentedFields": ["x_Dimensions"],
            }
            for one in providers
        },
        "Columns": {name: meanings[name] for name in names},
        "AbsentColumns": dict(absent),
    }
