"""One port for the four providers, each under its own name, and `/_sandbox/` for whoever runs the tests.

A provider is a module with

- `ACCOUNTS`: account name -> its credentials and ids;
- `routes(world)`: the paths as the provider documents them, without the prefix this module adds (`/plivo`, ...);
- `charges(world, account, period, at)`: what the provider would bill for a month ("2026-05") if asked at that
  instant; each has `amount` (Decimal) and `currency`. The answers are made of the same charges;
- `admin_routes(world)`, if it has switches of its own: mounted under `/_sandbox`.

Admin: `GET /_sandbox/totals?provider=&account=&period=[&at=]`, `GET|PUT /_sandbox/clock`, `GET|PUT /_sandbox/scale`,
`GET|PUT /_sandbox/faults` (see `faults`), `GET|PUT /_sandbox/infobip`, `GET /_sandbox/requests[?provider=]`,
`GET /_sandbox/accounts`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from importlib import import_module
from typing import Annotated, Any, Protocol, cast

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route

from billing_pipeline.sandbox.answer import ExactJson
from billing_pipeline.sandbox.faults import KNOWN, Misbehaving, Order
from billing_pipeline.sandbox.world import Clock, World

PROVIDERS = ("infobip", "plivo", "talkdesk", "ycloud")
PORT = 8642
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ProviderModule(Protocol):
    """What this module asks of a provider's module."""

    ACCOUNTS: Mapping[str, object]

    def routes(self, world: World) -> list[BaseRoute]:
        """The provider's endpoints."""

    def charges(self, world: World, account: str, period: str, at: datetime) -> Iterable[Mapping[str, Any]]:
        """What the provider would bill."""


def providers() -> dict[str, ProviderModule]:
    """The provider modules by name."""
    return {name: cast(ProviderModule, import_module(f"billing_pipeline.sandbox.{name}")) for name in PROVIDERS}


def totals(world: World, provider: str, account: str, period: str, at: datetime | None = None) -> dict[str, Any]:
    """The sandbox's own exact totals: `{"rows": 3, "totals": {"USD": "123.45"}}`.

    Raises:
        KeyError: no such provider or account.
    """
    module = providers()[provider]
    module.ACCOUNTS[account]
    rows = 0
    amounts: dict[str, Decimal] = {}
    for charge in module.charges(world, account, period, at or world.now()):
        rows += 1
        amounts[charge["currency"]] = amounts.get(charge["currency"], Decimal(0)) + charge["amount"]
    return {"rows": rows, "totals": {currency: f"{amount.normalize():f}" for currency, amount in amounts.items()}}


def create_app(world: World) -> Misbehaving:
    """The four APIs and the admin paths, over one world."""

    async def show_totals(request: Request) -> ExactJson:
        asked = request.query_params
        try:
            at = _instant(asked["at"]) if "at" in asked else None
            return ExactJson(totals(world, asked["provider"], asked["account"], asked["period"], at))
        except (KeyError, ValueError) as wrong:
            return ExactJson({"error": f"totals: {type(wrong).__name__} {wrong}"}, 400)

    async def clock(request: Request) -> ExactJson:
        if request.method == "PUT":
            try:
                said = msgspec.json.decode(await request.body())["now"]
                world.clock.set(None if said is None else _instant(said))
            except (KeyError, TypeError, ValueError) as wrong:
                return ExactJson({"error": f'clock: {{"now": "2026-06-10T06:00:00Z"}} or null, not this: {wrong}'}, 400)
        return ExactJson({"now": world.now().isoformat()})

    async def scale(request: Request) -> ExactJson:
        if request.method == "PUT":
            try:
                world.scale = msgspec.json.decode(await request.body(), type=_Scale).scale
            except msgspec.ValidationError as wrong:
                return ExactJson({"error": f'scale: {{"scale": 2.5}}, not this: {wrong}'}, 400)
        return ExactJson({"scale": world.scale})

    async def faults(request: Request) -> ExactJson:
        if request.method == "PUT":
            body = await request.body()
            try:
                if b'"statuses"' in body:
                    said = msgspec.json.decode(body, type=_Statuses)
                    world.fail(said.provider, said.statuses)
                    return ExactJson({"provider": said.provider, "statuses": said.statuses})
                order = msgspec.json.decode(body, type=Order)
                if order.provider not in PROVIDERS:
                    raise ValueError(f"no provider {order.provider!r}; there are: {', '.join(PROVIDERS)}")
                world.faults.arm(order)
            except ValueError as wrong:
                example = '{"provider": "plivo", "fault": "truncated body", "times": 1}'
                return ExactJson({"error": f"faults: {example}, not this: {wrong}"}, 400)
        on = [
            {**msgspec.to_builtins(armed.order), "hits": armed.done, "rows": armed.rows, "moved": armed.moved}
            for armed in world.faults.armed()
        ]
        return ExactJson({"on": on, "known": KNOWN})

    async def requests(request: Request) -> ExactJson:
        return ExactJson({"requests": [asdict(each) for each in world.requests(request.query_params.get("provider"))]})

    async def accounts(_: Request) -> ExactJson:
        return ExactJson({name: dict(module.ACCOUNTS) for name, module in providers().items()})

    admin = [
        Route("/totals", show_totals),
        Route("/clock", clock, methods=["GET", "PUT"]),
        Route("/scale", scale, methods=["GET", "PUT"]),
        Route("/faults", faults, methods=["GET", "PUT"]),
        Route("/requests", requests),
        Route("/accounts", accounts),
        *(
            route
            for module in providers().values()
            if hasattr(module, "admin_routes")
            for route in module.admin_routes(world)
        ),
    ]
    each = [Mount(f"/{name}", routes=module.routes(world)) for name, module in providers().items()]
    return Misbehaving(Starlette(routes=[Mount("/_sandbox", routes=admin), *each]), world.faults, world.record)


def serve(
    host: str = "127.0.0.1", port: int = PORT, clock: Clock | None = None, scale: float = 1.0, seed: str = "acme"
) -> None:
    """Serve until interrupted; another seed bills other numbers, as a provider does that restates.

    Raises:
        ValueError: `host` is not this machine; the credentials are in the source.
    """
    if host not in LOOPBACK:
        raise ValueError(f"the sandbox listens on loopback only ({', '.join(LOOPBACK)}), not on {host}")
    uvicorn.run(create_app(World(clock, scale, seed)), host=host, port=port, log_level="warning", ws="none")


class _Scale(msgspec.Struct):
    """`{"scale": 2.5}`."""

    scale: Annotated[float, msgspec.Meta(gt=0)]


class _Statuses(msgspec.Struct):
    """`{"provider": "plivo", "statuses": [502, 429]}`: what the next answers are to be."""

    provider: str
    statuses: list[int]


class _Server(uvicorn.Server):
    """A server that says when it answers."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def running(
    port: int = 0, now: datetime | None = None, scale: float = 1.0, world: World | None = None
) -> Iterator[str]:
    """A sandbox in a thread; yields its base address, such as `http://127.0.0.1:40123`.

    Args:
        port: 0 takes any free one.
        now: where its clock stands; None is the real time.
        scale: multiplies the rows.
        world: instead of `now` and `scale`, for a caller who wants to hold it.

    Raises:
        OSError: the port is taken.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        app = create_app(world or World(Clock(now), scale))
        server = _Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="sandbox", daemon=True)
        thread.start()
        try:
            while not server.ready.wait(0.1):
                if not thread.is_alive():
                    raise RuntimeError("the sandbox's server stopped while starting; its log says why")
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
    finally:
        bound.close()


def _instant(text: str) -> datetime:
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text} has no zone; write {text}Z")
    return instant
