"""The same month with dlt's rest_api source to DuckDB, configured as its documents show.

Its one setting that is not the default is the format between its steps: Parquet. The default, INSERT statements, took eight
times as long and 5 GB for 100,000 rows (dlt 1.31, DuckDB 2.0), which says more of a default than of dlt.

`python dlt_refresh.py PROVIDER URL FOLDER WINDOW_DAYS`, in the environment that dlt.lock describes.

Source: https://dlthub.com/docs/dlt-ecosystem/verified-sources/rest_api/basic (read 2026-11)
"""

import sys
from datetime import date, timedelta
from typing import Any

import dlt
from dlt.sources.rest_api import rest_api_source

FIRST, END = date(2026, 5, 1), date(2026, 6, 1)


def ycloud(days: int) -> list[Any]:
    """usageDetails, asked for once per window of `days`: rest_api has no way to divide a window that has too many items."""
    starts = [FIRST + timedelta(days=n) for n in range(0, (END - FIRST).days, days)]

    @dlt.resource(name="windows")
    def windows() -> Any:
        yield [
            {"first": f"{start}", "last": f"{min(start + timedelta(days=days), END) - timedelta(days=1)}"}
            for start in starts
        ]

    usage = {
        "name": "usage_details",
        "endpoint": {
            "path": "v2/billing/usageDetails",
            "params": {
                "limit": 100,
                "filter.startDate": "{resources.windows.first}",
                "filter.endDate": "{resources.windows.last}",
            },
            "data_selector": "items",
            "paginator": {"type": "page_number", "base_page": 1, "page_param": "page", "total_path": None},
        },
    }
    return [windows(), usage]


def plivo() -> list[Any]:
    """UsageSummary twice: the pages of usage, and page 1 for the other charges."""
    month = {"granularity": "day", "from_date": f"{FIRST}", "to_date": f"{END}", "page_size": 1000}
    path = "v1/Account/MABENCHMARK/UsageSummary/"
    cursor = {"type": "cursor", "cursor_path": "meta.next_page_token", "cursor_param": "page_token"}
    return [
        {"name": "usage", "endpoint": _endpoint(path, month, "usage", cursor)},
        {"name": "other_charges", "endpoint": _endpoint(path, month, "other_charges", {"type": "single_page"})},
    ]


def _endpoint(path: str, params: dict[str, Any], selector: str, paginator: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "params": params, "data_selector": selector, "paginator": paginator}


if __name__ == "__main__":
    provider, url, folder, days = sys.argv[1:]
    pipeline = dlt.pipeline(
        pipeline_name="benchmark",
        pipelines_dir=f"{folder}/pipelines",
        destination=dlt.destinations.duckdb(f"{folder}/dlt.duckdb"),
        dataset_name="month",
    )
    resources = ycloud(int(days)) if provider == "ycloud" else plivo()
    source = rest_api_source({"client": {"base_url": f"{url}/"}, "resources": resources})
    pipeline.run(source, loader_file_format="parquet")
