"""The least that a refresh can do: a client, pyarrow, one Parquet file. It checks nothing, keeps nothing and retries nothing.

`python floor.py PROVIDER URL FILE CLIENT`, where CLIENT is `socket` (one connection, kept open, nothing but the bytes) or
`httpx`. Pages are asked for one after another, as a cursor demands. YCloud's windows are divided as the product divides them:
more than 9,000 items cannot be paged through.
"""

import json
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from urllib.parse import urlencode, urlsplit

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


Get = Callable[[str, dict[str, str | int]], bytes]


def ycloud(get: Get, first: date, last: date) -> Iterator[bytes]:
    """The bodies of all pages of a window."""
    for page in range(1, 101):
        query = {"page": page, "limit": 100, "filter.startDate": f"{first}", "filter.endDate": f"{last}"}
        body = get("/v2/billing/usageDetails", query | ({"includeTotal": "true"} if page == 1 else {}))
        if page == 1 and json.loads(body)["total"] > 9000 and first < last:
            middle = first + (last - first) // 2
            yield from ycloud(get, first, middle)
            yield from ycloud(get, middle + timedelta(days=1), last)
            return
        yield body
        if b'"length":100,' not in body[:80]:
            return


def plivo(get: Get) -> Iterator[bytes]:
    """The bodies of all pages of the month."""
    query: dict[str, str | int] = {
        "granularity": "day", "from_date": f"{FIRST}", "to_date": f"{END}", "page_size": "1000",
    }  # fmt: skip
    while True:
        body = get("/v1/Account/MABENCHMARK/UsageSummary/", query)
        yield body
        _, found, rest = body[:500].partition(b'"next_page_token":"')
        if not found:
            return
        query["page_token"] = rest.partition(b'"')[0].decode()


def by_socket(url: str) -> Get:
    """HTTP/1.1 for one server that sends a Content-Length."""
    host, port = urlsplit(url).netloc.split(":")
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    answers = connection.makefile("rb", buffering=1 << 17)

    def get(path: str, query: dict[str, str | int]) -> bytes:
        connection.sendall(f"GET {path}?{urlencode(query)} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        length = 0
        while (line := answers.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        return answers.read(length)

    return get


def by_httpx(url: str) -> Get:
    """The client that this pipeline uses."""
    import httpx

    client = httpx.Client(base_url=url)
    return lambda path, query: client.get(path, params=query).content


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
        return pa.table({"cost": pa.nulls(0, MONEY)})  # not pa.array, which imports pandas: the start of no other month
    lists = items["costItems"].chunk(0)
    parents = items.drop(["costItems"]).take(pc.list_parent_indices(lists))
    costs = pa.Table.from_struct_array(lists.flatten())
    for name in costs.column_names:
        parents = parents.append_column(name, costs[name])
    return parents


if __name__ == "__main__":
    provider, url, file, client = sys.argv[1:]
    get = {"socket": by_socket, "httpx": by_httpx}[client](url)
    if provider == "ycloud":
        charges = exploded(table(list(ycloud(get, FIRST, END - timedelta(days=1))), {"items": ITEM}))
    else:
        charges = table(list(plivo(get)), {"usage": CHARGE, "other_charges": CHARGE})
    pq.write_table(charges, file, compression="zstd")
