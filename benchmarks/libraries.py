"""What is promised, by the libraries alone: pages landed and read back, two parsers, every column, one DuckDB table.

`python -m benchmarks.libraries PROVIDER URL FOLDER`. What it lacks is what makes a refresh safe: rate limits, retries, whether an
answer is the one to the question, whether a walk is whole, unknown fields, gates but one, the ledger, other months. So it
says about what a refresh would take, stage by stage, if our own code took nothing. Stages use two cores where the libraries do.
"""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlencode

import duckdb
import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from billing_pipeline.charges import COSTS, SCHEMA
from billing_pipeline.stored import OWN

from . import floor

BATCH = 4 << 20  # bytes of JSON that are read at once


class _CostItem(msgspec.Struct, gc=False):
    cost: Decimal


class _Item(msgspec.Struct):
    costItems: list[_CostItem]


class _Listing(msgspec.Struct):
    items: list[_Item]


class _Charge(msgspec.Struct, gc=False):
    total_amount: Decimal


class _Summary(msgspec.Struct):
    usage: list[_Charge]
    other_charges: list[_Charge]


def fetched(provider: str, url: str) -> Iterator[bytes]:
    """Every page, by httpx's transport."""
    transport = httpx.HTTPTransport()

    def get(path: str, query: dict[str, str | int]) -> bytes:
        response = transport.handle_request(httpx.Request("GET", f"{url}{path}?{urlencode(query)}"))
        body = b"".join(response.iter_bytes())
        response.close()
        return body

    return floor.ycloud(get, floor.FIRST, floor.END - timedelta(days=1)) if provider == "ycloud" else floor.plivo(get)


def land(pages: Iterator[bytes], file: Path) -> list[tuple[int, str]]:
    """One zstd stream, compressed and hashed beside; length and sha256 of each page."""
    index: list[tuple[int, str]] = []
    with (
        pa.OSFile(str(file), "wb") as raw,
        pa.CompressedOutputStream(raw, "zstd") as out,
        ThreadPoolExecutor(1) as beside,
    ):

        def keep(body: bytes) -> None:
            out.write(body)
            index.append((len(body), hashlib.sha256(body).hexdigest()))

        waiting = [beside.submit(keep, body) for body in pages]
        for step in waiting:
            step.result()
    return index


def landed(file: Path, index: list[tuple[int, str]]) -> Iterator[bytes]:
    """The pages again, each checked."""
    with pa.input_stream(str(file), compression="zstd") as stream:
        for size, digest in index:
            body = stream.read(size)
            if hashlib.sha256(body).hexdigest() != digest:
                raise ValueError("a page has changed")
            yield body


def stated(provider: str, pages: Iterator[bytes]) -> tuple[int, Decimal]:
    """Rows and money, by the second parser."""
    rows, total = 0, Decimal(0)
    for body in pages:
        if provider == "ycloud":
            amounts = [one.cost for item in msgspec.json.decode(body, type=_Listing).items for one in item.costItems]
        else:
            summary = msgspec.json.decode(body, type=_Summary)
            amounts = [one.total_amount for one in (*summary.usage, *summary.other_charges)]
        rows += len(amounts)
        total = sum(amounts, total)
    return rows, total


def charges(provider: str, bodies: list[bytes], first: int) -> pa.Table:
    """Rows in every column of the schema, those that are not a charge's own with one text."""
    if provider == "ycloud":
        found = floor.exploded(floor.table(bodies, {"items": floor.ITEM}))
        if not len(found):
            return SCHEMA.empty_table()
        day = found["date"].cast(pa.date32())
        words, units = ("channel", "conversationOriginType", "regionCode"), found["quantity"]
        start = end = day.cast(pa.timestamp("us", "UTC"))
        own = {"x_UnitPrice": found["unitPrice"], "x_DestinationCountry": found["regionCode"]}
    else:
        found = floor.table(bodies, {"usage": floor.CHARGE, "other_charges": floor.CHARGE})
        start, end = found["from_date"], found["to_date"]
        day, words, units = start.cast(pa.date32()), ("product", "type", "direction", "country"), found["total_units"]
        own = {"x_DestinationCountry": found["country"], "x_Surcharge": found["surcharge"]}
        own["x_DurationSeconds"] = found["duration_seconds"]
    number = pa.array(np.arange(first, first + len(found))).cast(pa.string())
    own |= dict.fromkeys(COSTS, found["cost" if provider == "ycloud" else "total_amount"])
    own |= {"PricingQuantity": units, "ConsumedQuantity": units, "x_UsageDate": day}
    own |= {"ChargePeriodStart": start, "ChargePeriodEnd": end}
    own["ChargeDescription"] = pc.binary_join_element_wise("", *map(found.column, words), " ", null_handling="skip")
    about = found["wabaId" if provider == "ycloud" else "error_code"]
    own["x_Dimensions"] = pc.binary_join_element_wise('{"about":"', about, '"}', "", null_handling="skip")
    own["x_RowSource"] = pc.binary_join_element_wise("landing", number, "#")
    return pa.table([_column(own, field, len(found)) for field in SCHEMA], SCHEMA)


def _column(own: dict[str, pa.ChunkedArray], field: pa.Field, rows: int) -> pa.Array:
    if field.name in own:
        return own[field.name]
    if pa.types.is_string(field.type):
        return pa.repeat("all the same", rows)
    return pa.nulls(rows, field.type) if field.nullable else pa.repeat(pa.scalar(0, pa.int64()).cast(field.type), rows)


def main(provider: str, url: str, folder: Path) -> None:
    """A month into `libraries.duckdb`."""
    index = land(fetched(provider, url), folder / "bodies.zst")
    rows, waiting, size = 0, [], 0
    with (
        pq.ParquetWriter(folder / "charges.parquet", SCHEMA, compression="zstd") as file,
        ThreadPoolExecutor(1) as beside,
        ThreadPoolExecutor(1) as writing,
    ):
        saying = beside.submit(stated, provider, landed(folder / "bodies.zst", index))
        written: Future[None] | None = None
        for number, body in enumerate(landed(folder / "bodies.zst", index), 1):
            waiting.append(body)
            size += len(body)
            if size < BATCH and number < len(index):
                continue
            batch = charges(provider, waiting, rows)
            if written:
                written.result()
            written = writing.submit(file.write_table, batch)
            rows, waiting, size = rows + len(batch), [], 0
        if written:
            written.result()
    with duckdb.connect(str(folder / "libraries.duckdb"), config={"storage_compatibility_version": "v1.0.0"}) as db:
        own = ", ".join(name for name in SCHEMA.names if name in OWN)
        db.execute(f"CREATE TABLE charges AS SELECT {own} FROM read_parquet('{folder}/charges.parquet')")
        held = db.execute("SELECT count(*), coalesce(sum(BilledCost), 0) FROM charges").fetchone()
    if held != saying.result():
        raise ValueError(f"{held} are held, {saying.result()} are stated")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
