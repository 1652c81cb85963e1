"""Both providers' APIs over one made-up month, as bytes that are rendered once: a server that is never the slow one.

`python -m benchmarks.server PROVIDER ROWS` says on its first line, as JSON, where it listens and what the month adds up to,
and ends when its standard input does. A bare asyncio protocol, because a framework would take longer to answer than a fast
client to ask.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from urllib.parse import parse_qsl, urlsplit

from . import month
from .month import Month

COUNT = "/_requests"  # how many requests came since this was asked the last time

Render = Callable[[dict[str, str]], str]


class NotUnderstood(Exception):
    """A question that the provider would refuse."""


def ycloud(made_up: Month) -> Render:
    """YCloud's usageDetails: windows of days, pages of at most 100 items, at most 100 pages."""
    ends = [month.FIRST.isoformat()]
    starts: dict[str, int] = {}
    for n, item in enumerate(made_up.items):
        starts.setdefault(item[9:19], n)
    days = sorted(starts)

    def position(day: str) -> int:
        """Where the items of `day` and older ones begin; items stand newest first."""
        older = [d for d in days if d <= day]
        return starts[older[-1]] if older else len(made_up.items)

    def render(query: dict[str, str]) -> str:
        first, last = query.pop("filter.startDate"), query.pop("filter.endDate")
        page, limit = int(query.pop("page", "1")), int(query.pop("limit", "10"))
        asked_total = query.pop("includeTotal", "false") == "true"
        if query or not 1 <= page <= 100 or not 1 <= limit <= 100 or not ends[0] <= first <= last:
            raise NotUnderstood(f"first {first}, last {last}, page {page}, limit {limit}, also {query}")
        begin = position(last)
        end = position(date.fromordinal(date.fromisoformat(first).toordinal() - 1).isoformat())
        offset = (page - 1) * limit
        items = made_up.items[begin + offset : min(begin + offset + limit, end)]
        total = f'"total":{end - begin},' if asked_total else ""
        head = f'{{"offset":{offset},"limit":{limit},{total}"length":{len(items)},"items":['
        return head + ",".join(items) + "]}"

    return render


def plivo(made_up: Month) -> Render:
    """Plivo's UsageSummary by day over the whole month: totals and other charges on page 1, then cursors."""

    def render(query: dict[str, str]) -> str:
        size = int(query.pop("page_size", "100"))
        offset = int(query.pop("page_token", "cursor-0").removeprefix("cursor-"))
        if query != {"granularity": "day", "from_date": f"{month.FIRST}", "to_date": f"{month.END}"} or size > 1000:
            raise NotUnderstood(f"{query}, page_size {size}")
        meta: dict[str, object] = {
            "auth_id": "MABENCHMARK",
            "granularity": "day",
            "from_date": f"{month.FIRST}T00:00:00Z",
            "to_date": f"{month.END}T00:00:00Z",
            "currency": "USD",
            "page_size": size,
        }
        if offset + size < len(made_up.items):
            meta["next_page_token"] = f"cursor-{offset + size}"
        text = json.dumps(meta, separators=(",", ":"))
        if offset == 0:  # the sum is written by hand: json would make a float of it
            text = f'{text[:-1]},"total_spent":{made_up.total}}}'
        usage, others = made_up.items[offset : offset + size], made_up.others if offset == 0 else []
        return (
            f'{{"api_id":"benchmark","meta":{text},"usage":[{",".join(usage)}],"other_charges":[{",".join(others)}]}}'
        )

    return render


def any_month(render: Render, *, other: bool) -> Render:
    """The same month under every name, and with `other` somebody else's: no row of it is one of the first account's."""

    def rendered(query: dict[str, str]) -> str:
        name = (query.get("filter.startDate") or query["from_date"])[:7]
        after = f"{date.fromisoformat(f'{name}-28') + timedelta(days=4):%Y-%m}"
        text = render({key: _moved(value, ((name, "2026-05"), (after, "2026-06"))) for key, value in query.items()})
        moves = [("2026-05-", f"{name}-"), ("2026-06-", f"{after}-")]
        return _moved(text, [*moves, *((("1048576", "2048576"), ("SABENCH", "SBBENCH")) if other else ())])

    return rendered


def _moved(text: str, moves: Sequence[tuple[str, str]]) -> str:
    """Every first replaced by its second, none of them twice."""
    for number, (old, _) in enumerate(moves):
        text = text.replace(old, f"\0{number}\0")
    for number, (_, new) in enumerate(moves):
        text = text.replace(f"\0{number}\0", new)
    return text


class Answers:
    """Complete HTTP answers by request target; the same question is rendered once."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._known: dict[bytes, bytes] = {}
        self._asked = 0

    def get(self, target: bytes) -> bytes:
        """The bytes to send."""
        if target == COUNT.encode():
            asked, self._asked = self._asked, 0
            return _http("200 OK", str(asked))
        self._asked += 1
        known = self._known.get(target)
        if known is None:
            try:
                known = _http("200 OK", self._render(dict(parse_qsl(urlsplit(target.decode()).query))))
            except (NotUnderstood, KeyError, ValueError) as error:
                return _http("400 Bad Request", json.dumps({"error": repr(error)}))
            self._known[target] = known
        return known


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive for GET requests without a body. asyncio itself sets TCP_NODELAY."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._received = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where to answer."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            request, _, self._received = self._received.partition(b"\r\n\r\n")
            self._transport.write(self._answers.get(request.split(b" ", 2)[1]))


def _http(status: str, body: str) -> bytes:
    content = body.encode()
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )


async def _serve(made_up: Month, render: Render) -> None:
    answers = Answers(render)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(answers), "127.0.0.1", 0)
    told = {
        "url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "rows": made_up.rows,
        "items": len(made_up.items),
        "total": format(made_up.total, "f"),
    }
    print(json.dumps(told), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    provider, rows, *options = sys.argv[1:]
    if "any-month" in options:
        month.DAYS = 27  # every month has a day more, with which the last bucket ends
    if provider == "ycloud":
        it = month.ycloud(int(rows), long_averages="long-averages" in options, later="later" in options)
        render = ycloud(it)
    else:
        it = month.plivo(int(rows), later="later" in options)
        render = plivo(it)
    if "any-month" in options:
        render = any_month(render, other="other" in options)
    asyncio.run(_serve(it, render))
