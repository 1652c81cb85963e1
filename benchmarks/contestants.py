"""Who is measured: how each is started, and where its result is to be checked. To add one, add it to `contestants`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import month

HERE = Path(__file__).parent
VENV = HERE / ".venv"
LOCK = HERE / "dlt.lock"

ACCOUNTS = {
    "ycloud": 'provider = "ycloud"\nname = "main"\nbase_url = "{url}"\napi_key = {{ env = "BENCHMARK_SECRET" }}\n',
    "plivo": 'provider = "plivo"\nname = "main"\nbase_url = "{url}"\nauth_id = "MABENCHMARK"\n'
    'auth_token = {{ env = "BENCHMARK_SECRET" }}\n',
}


@dataclass(frozen=True)
class Task:
    """One refresh of one month.

    Attributes:
        provider: ycloud or plivo.
        url: where the month is served.
        items: how many elements its list has, over all pages.
        folder: empty, for whatever the contestant writes; also where it is started.
    """

    provider: str
    url: str
    items: int
    folder: Path


@dataclass(frozen=True)
class Start:
    """What to start, and what to add to the environment."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Contestant:
    """One way to bring a month home.

    Attributes:
        name: in the tables.
        what: one sentence for the reader of the tables.
        prepare: writes into the task's folder what a person would have written once, such as accounts.toml.
        result: where it left the month: a DuckDB or Parquet file in the folder, and the SQL for (rows, total) in it.
        exact: its total must be that of the month to the last digit; False: it keeps doubles, and may be off by rounding.
    """

    name: str
    what: str
    prepare: Callable[[Task], Start]
    result: Callable[[Task], tuple[Path, str]]
    exact: bool = True


def ours(task: Task) -> Start:
    """`billing-pipeline refresh`, as a person types it, with the provider's rate limit out of the way."""
    account = ACCOUNTS[task.provider].format(url=task.url)
    (task.folder / "accounts.toml").write_text(
        f'history_from = "{month.PERIOD}"\n\n[[account]]\n{account}rate_limit = {{ requests = 1000000, seconds = 1 }}\n'
    )
    environment = {
        "BILLING_ACCOUNTS": str(task.folder / "accounts.toml"),
        "BILLING_DATA": str(task.folder / "data"),
        "BENCHMARK_SECRET": "nobody's",
    }
    # Without the reports, which are drawn once the warehouse is published, and which nobody else here draws.
    command = [sys.executable, "-m", "billing_pipeline", "refresh", "--no-reports"]
    return Start([*command, "--provider", task.provider, "--period", month.PERIOD], environment)


def _floor(task: Task, client: str = "socket") -> Start:
    # -P: this folder's modules must not stand before installed ones of the same name.
    file = str(task.folder / "floor.parquet")
    return Start([sys.executable, "-P", str(HERE / "floor.py"), task.provider, task.url, file, client])


def _libraries(task: Task) -> Start:
    command = [sys.executable, "-m", "benchmarks.libraries", task.provider, task.url, str(task.folder)]
    return Start(command, {"PYTHONPATH": str(HERE.parent)})


def _pandas(task: Task) -> Start:
    file = str(task.folder / "floor.parquet")
    return Start([sys.executable, str(HERE / "pandas_refresh.py"), task.provider, task.url, file])


def _dlt(task: Task) -> Start:
    # The widest windows that have at most 9,000 items each, as every day has equally many: known here, not to dlt.
    days = min(max(month.DAYS * 9000 // max(task.items, 1), 1), month.DAYS)
    command = [str(VENV / "bin/python"), "-P", str(HERE / "dlt_refresh.py"), task.provider, task.url, str(task.folder)]
    return Start(
        [*command, str(days)], {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(task.folder / "dlt")}
    )


def _floor_result(task: Task, sum_of: str = "sum") -> tuple[Path, str]:
    amount = "cost" if task.provider == "ycloud" else "total_amount"
    file = task.folder / "floor.parquet"
    return file, f"SELECT count(*), coalesce({sum_of}({amount}), 0) FROM read_parquet('{file}')"


def _libraries_result(task: Task) -> tuple[Path, str]:
    return task.folder / "libraries.duckdb", "SELECT count(*), coalesce(sum(BilledCost), 0) FROM charges"


def _our_result(task: Task) -> tuple[Path, str]:
    return task.folder / "data/warehouse.duckdb", "SELECT count(*), coalesce(sum(BilledCost), 0) FROM charges"


def _dlt_result(task: Task) -> tuple[Path, str]:
    tables = (
        ["SELECT cost AS amount FROM month.usage_details__cost_items"]
        if task.provider == "ycloud"
        else ["SELECT total_amount AS amount FROM month.usage", "SELECT total_amount FROM month.other_charges"]
    )
    # fsum: exact for doubles but for the last bit, so that what is off is dlt's and not the check's.
    return task.folder / "dlt.duckdb", f"SELECT count(*), coalesce(fsum(amount), 0) FROM ({' UNION ALL '.join(tables)})"


FLOOR = Contestant(
    "floor", "a bare socket, pyarrow.json, one Parquet file; nothing checked, nothing kept", _floor, _floor_result
)
FLOOR_HTTPX = Contestant("floor-httpx", "the same with httpx", partial(_floor, client="httpx"), _floor_result)
LIBRARIES = Contestant(
    "libraries",
    "httpx's transport, a landing, two parsers, every column, Parquet, a table in DuckDB: what ours does, without being careful",
    _libraries,
    _libraries_result,
)
OURS = Contestant(
    "ours",
    "billing-pipeline refresh --no-reports: landing, statement, gates, Parquet, ledger, warehouse",
    ours,
    _our_result,
)
PANDAS = Contestant(
    "pandas",
    "httpx, dicts, a DataFrame, one Parquet file; amounts are doubles",
    _pandas,
    partial(_floor_result, sum_of="fsum"),
    exact=False,
)
DLT = Contestant(
    "dlt", "rest_api source to DuckDB through Parquet files; amounts are doubles", _dlt, _dlt_result, exact=False
)


def set_up_dlt() -> str | None:
    """Make dlt's own environment when it is not there or the lock file changed; why that cannot be done, or None."""
    done = VENV / "installed.lock"
    if done.is_file() and done.read_bytes() == LOCK.read_bytes():
        return None
    print("Setting up dlt in benchmarks/.venv (once) ...", flush=True)
    install = [str(VENV / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    try:
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(VENV)],
            [*install, "--require-hashes", "--requirement", str(LOCK)],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        return f"dlt could not be installed and is left out: {said[-1] if said else error}"
    done.write_bytes(LOCK.read_bytes())
    return None
