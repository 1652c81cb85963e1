"""One company on the sandbox, one clock for it and for the pipeline, one data folder per test."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import pytest

from billing_pipeline import environment, lifecycle
from billing_pipeline.landing import Partition
from billing_pipeline.line import Line, Loaded
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import RateLimit
from billing_pipeline.providers import providers
from billing_pipeline.reconcile import Tally
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .harness import QUICK

# No test is timed: a machine that is busy is no error.
# The same examples every time where a red run stops others; new ones on a desk, where they can be looked into.
hypothesis.settings.register_profile("patient", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("patient")
# Whoever starts the suite in the background of a script has Ctrl-C ignored, and processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass
class Company:
    """A sandbox, a line to it, and questions to both.

    Attributes:
        world: the sandbox's; its clock is also the pipeline's.
        address: where the sandbox listens.
        line: the line from its four APIs to the warehouse.
        histories: further sequences of FOCUS dataset instances for the outside judge, by name.
        judged: False for a test that tampers with the ledger: its history is not for the judge.
    """

    world: World
    address: str
    line: Line
    histories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    judged: bool = True

    def at(self, text: str) -> None:
        """Make it this instant (UTC)."""
        self.world.clock.set(datetime.fromisoformat(text).replace(tzinfo=UTC))

    def month(self, provider: str, account: str, period: str) -> Partition:
        """A partition."""
        return Partition(provider, account, BillingPeriod.parse(period))

    def do(self, partition: Partition, *, explicit: bool = False) -> Loaded:
        """Fetch and load one month."""
        self.line.fetch(partition, explicit=explicit)
        return self.line.load(partition)

    def stated(self, partition: Partition) -> tuple[int, dict[str, Decimal]]:
        """Rows and totals that the provider would bill for the month if asked now, by the sandbox's own account."""
        settings = self.line.configuration.account(partition.provider, partition.account)
        tally = Tally()
        for scope in (partition.account, *getattr(settings, "managed_accounts", ())):
            path = f"totals?provider={partition.provider}&account={scope}&period={partition.period}"
            with urllib.request.urlopen(f"{self.address}/_sandbox/{path}") as answer:  # noqa: S310  loopback
                found = json.loads(answer.read())
            tally += Tally(rows=found["rows"], totals={c: Decimal(amount) for c, amount in found["totals"].items()})
        return tally.rows, dict(tally.totals)

    def ask(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What a person with the DuckDB file gets."""
        with duckdb.connect(str(self.line.warehouse.path), read_only=True) as db:
            return db.execute(sql, list(parameters)).fetchall()

    def shown(self, partition: Partition) -> tuple[int, dict[str, Decimal]]:
        """Rows and totals of a month in the view of the charges."""
        rows = self.ask(
            "SELECT BillingCurrency, count(*), sum(BilledCost) FROM charges "
            "WHERE x_Provider = ? AND x_Account = ? AND x_BillingPeriod = ? GROUP BY ALL",
            partition.provider,
            partition.account,
            str(partition.period),
        )
        return sum(row[1] for row in rows), {row[0]: row[2] for row in rows}

    def incurred(self, partition: Partition) -> dict[str, Decimal]:
        """Totals of what was charged for a month, its own rows and its corrections wherever they are booked."""
        rows = self.ask(
            "SELECT BillingCurrency, sum(BilledCost) FROM charges "
            "WHERE x_Provider = ? AND x_Account = ? AND split_part(x_RowSource, '/', 3) = ? GROUP BY ALL",
            partition.provider,
            partition.account,
            str(partition.period),
        )
        return dict(rows)

    def history(self) -> list[dict[str, Any]]:
        """The ledger as FOCUS dataset instances."""
        calendars = {name: provider.calendar for name, provider in self.line.providers.items()}
        return lifecycle.instances(self.line.ledger.all(), calendars)


def histories(company: Company, folder: Path, test: str) -> None:
    """Write what a test's company decided, for the outside judge (`.ci/judge`)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, history in {"ledger": company.history(), **company.histories}.items():
        if history:
            file = folder / f"{re.sub('[^A-Za-z0-9]+', '-', test)[:150]}-{name}.json"
            file.write_text(json.dumps(history, indent=1))


def free_port() -> int:
    """A port whose successor is free too: the sandbox's and the callback receiver's.

    Below those that the kernel gives to connections (from 32,768 on), for between this look and its use one could take it.
    """
    while True:
        port = 10_000 + 2 * secrets.randbelow(
            11_000
        )  # not `random`, which Hypothesis sets to the same in every process
        with socket.socket() as one, socket.socket() as two, suppress(OSError):
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 1))
            return port


@pytest.fixture
def company(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Company]:
    """The company on 15 June 2026, with nothing fetched yet."""
    world = World(Clock(datetime(2026, 6, 15, 12, tzinfo=UTC)))
    world.enforce_limits = False
    port = free_port()
    with running(port=port, world=world) as address:
        configuration = environment.sandbox_configuration(address, world.now())
        unhurried = {"rate_limit": RateLimit(requests=1000, seconds=1)}  # the limits have tests of their own
        accounts = tuple(settings.model_copy(update=unhurried) for settings in configuration.accounts)
        configuration = replace(configuration, accounts=accounts)
        line = Line(tmp_path / "data", configuration, providers(), world.now, "test", QUICK)
        company = Company(world, address, line)
        yield company
        if company.judged and (folder := os.environ.get("LIFECYCLE_HISTORIES")):
            histories(company, Path(folder), request.node.nodeid)


WAITING = ("test_browser", "test_ui", "test_crashes", "test_readers", "test_cli", "test_pages")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those first that mostly wait for daemons and processes, so that the others fill their pauses: two minutes of twelve."""
    items.sort(key=lambda item: WAITING.index(item.path.stem) if item.path.stem in WAITING else len(WAITING))
