"""The least that a refresh can do: httpx, pyarrow, one Parquet file. It checks nothing, keeps nothing and retries nothing.

`python floor.py PROVIDER URL FILE`. Pages are asked for one after another, as a cursor demands. YCloud's windows are
divided as the product divides them: more than 9,000 items cannot be paged through.
"""

import sys
from collections.abc import Iterator
from datetime import date, timedelta

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

FIRST, END = date(2026, 5, 1), date(2026, 6, 1)
MONEY = pa.decimal128(38, 18)
COST_ITEM = pa.struct(
    {"cost": MONEY, "unitPrice": MONEY, "quantity": MONEY, "conversationOriginType": pa.string()},
)
ITEM = pa.struct(
    {
        "date": pa.string(),
        "isTransient": pa.bool_(),
        "channel": pa.string(),
        "wabaId": pa.string(),
        "regionCode": pa.string(),
        "costItems": pa.list_(COST_ITEM),
    }
)
TEXTS = (
    "product", "type", "subaccount_auth", "country", "direction", "error_code", "hangup_cause", "error_reason",
    "description",
)  # fmt: skip
INSTANT = pa.timestamp("us", "UTC")
CHARGE = pa.struct(
    [("from_date", INSTANT), ("to_date", INSTANT)]
    + [(name, pa.string()) for name in TEXTS]
    + [(name, MONEY) for name in ("total_units", "total_amount", "duration_seconds", "surcharge")]
)


def ycloud(client: httpx.Client, first: date, last: date) -> Iterator[bytes]:
    """The bodies of all pages of a window."""
    for page in range(1, 101):
        query = {"page": page, "limit": 100, "filter.startDate": f"{first}", "filter.endDate": f"{last}"}
        answer = client.get("/v2/billing/usageDetails", params=query | ({"includeTotal": "true"} if page == 1 else {}))
        listing = answer.json() if page == 1 else None
        if listing and listing["total"] > 9000 and first < last:
            middle = first + (last - first) // 2
            yield from ycloud(client, first, middle)
            yield from ycloud(client, middle + timedelta(days=1), last)
            return
        yield answer.content
        if b'"length":100,' not in answer.content[:80]:
            return


def plivo(client: httpx.Client) -> Iterator[bytes]:
    """The bodies of all pages of the month."""
    query = {"granularity": "day", "from_date": f"{FIRST}", "to_date": f"{END}", "page_size": "1000"}
    while True:
        body = client.get("/v1/Account/MABENCHMARK/UsageSummary/", params=query).content
        yield body
        _, found, rest = body[:500].partition(b'"next_page_token":"')
        if not found:
            return
        query["page_token"] = rest.partition(b'"')[0].decode()


def table(bodies: list[bytes], lists: dict[str, pa.StructType]) -> pa.Table:
    """The rows of all bodies, each of them one line of JSON."""
    options = pj.ParseOptions(
        explicit_schema=pa.schema([(name, pa.list_(row)) for name, row in lists.items()]),
        unexpected_field_behavior="ignore",
    )
    read = pj.read_json(pa.BufferReader(b"\n".join(bodies)), pj.ReadOptions(block_size=4 << 20), options)
    return pa.concat_tables(
        pa.Table.from_struct_array(pa.chunked_array([c.flatten() for c in read[name].chunks], row))
        for name, row in lists.items()
    )


def exploded(items: pa.Table) -> pa.Table:
    """One row per cost item."""
    items = items.combine_chunks()
    if not len(items):
        return pa.table({"cost": pa.array([], MONEY)})
    lists = items["costItems"].chunk(0)
    parents = items.drop(["costItems"]).take(pc.list_parent_indices(lists))
    costs = pa.Table.from_struct_array(lists.flatten())
    for name in costs.column_names:
        parents = parents.append_column(name, costs[name])
    return parents


if __name__ == "__main__":
    provider, url, file = sys.argv[1:]
    with httpx.Client(base_url=url) as client:
        if provider == "ycloud":
            bodies = list(ycloud(client, FIRST, END - timedelta(days=1)))
            charges = exploded(table(bodies, {"items": ITEM}))
        else:
            bodies = list(plivo(client))
            charges = table(bodies, {"usage": CHARGE, "other_charges": CHARGE})
    pq.write_table(charges, file, compression="zstd")
