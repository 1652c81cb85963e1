"""A company's data folder as weeks of refreshes leave it, made once; and a line to a copy of it that reaches no provider."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from billing_pipeline import environment
from billing_pipeline.landing import Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Provider, RateLimit
from billing_pipeline.providers import providers
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import free_port
from .harness import QUICK

ACCOUNTS = [("infobip", "main"), ("plivo", "main"), ("plivo", "emea"), ("talkdesk", "main"), ("ycloud", "main")]
LAST = datetime(2026, 6, 11, 6, tzinfo=UTC)  # of the last publication
NOWHERE = "http://127.0.0.1:1"  # refuses every connection


def partition(text: str) -> Partition:
    """`plivo/main/2026-05` as a partition."""
    provider, account, period = text.split("/")
    return Partition(provider, account, BillingPeriod.parse(period))


def offline(data: Path, known: Mapping[str, Provider] | None = None) -> Line:
    """A line to a data folder, whose providers cannot be reached."""
    accounts = environment.sandbox_configuration(NOWHERE, LAST)
    return Line(data, accounts, known or providers(), lambda: LAST, "test", QUICK)


def lived(data: Path) -> None:
    """As a company does from May to June 2026: May is final and twice restated (once approved), June provisional."""
    world = World(Clock(datetime(2026, 5, 30, 6, tzinfo=UTC)))
    world.enforce_limits = False
    with running(port=free_port(), world=world) as address:
        configuration = environment.sandbox_configuration(address, LAST)
        unhurried = {"rate_limit": RateLimit(requests=1000, seconds=1)}
        accounts = tuple(settings.model_copy(update=unhurried) for settings in configuration.accounts)
        line = Line(data, replace(configuration, accounts=accounts), providers(), world.now, "test", QUICK)

        def do(moment: str, months: Iterator[str] | list[str]) -> None:
            world.clock.set(datetime.fromisoformat(moment).replace(tzinfo=UTC))
            for text in months:
                line.fetch(partition(text), explicit=True)
                line.load(partition(text))
            line.publish()

        do("2026-05-30T06:00", ["plivo/main/2026-05", "ycloud/main/2026-05"])
        do("2026-06-08T06:00", [f"{provider}/{account}/2026-06" for provider, account in ACCOUNTS])
        do("2026-06-09T06:00", [f"{provider}/{account}/2026-05" for provider, account in ACCOUNTS])
        do("2026-06-09T06:10", ["ycloud/main/2026-06"])
        do(
            "2026-06-09T06:10", ["ycloud/main/2026-06"]
        )  # the same rows again, and once more: no bytes are kept for these
        do("2026-06-09T06:10", ["ycloud/main/2026-06"])
        do("2026-06-10T06:00", ["plivo/main/2026-05", "plivo/main/2026-06"])
        world.seed = "another company"
        do("2026-06-11T06:00", ["plivo/emea/2026-05", "talkdesk/main/2026-05"])
        line.approve(partition("talkdesk/main/2026-05"), "a person", "Talkdesk confirmed it")
        line.publish()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder, to be copied."""
    data = tmp_path_factory.mktemp("year") / "data"
    lived(data)
    return data


@pytest.fixture
def line(example: Path, tmp_path: Path) -> Line:
    """A line to a copy of the data folder; no provider can be reached."""
    shutil.copytree(example, tmp_path / "data")
    return offline(tmp_path / "data")


def content(line: Line) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table and view of the warehouse, in the order in which it is handed out (small ones: sorted)."""
    with duckdb.connect(str(line.warehouse.path), read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        tables = db.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() "
            "UNION ALL SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        rows = {name: db.execute(f"SELECT x::VARCHAR FROM {name} AS x").fetchall() for (name,) in sorted(tables)}
    return {name: found if name == "main.charges" else sorted(found) for name, found in rows.items()}


def files(line: Line) -> dict[str, bytes]:
    """Every Parquet file, by its name."""
    return {str(path.relative_to(line.data)): path.read_bytes() for path in sorted(line.data.rglob("*.parquet"))}
