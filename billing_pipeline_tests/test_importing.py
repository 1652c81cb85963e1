"""A command starts without what its libraries can do without, and what needs it gets it later."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGIN = """
import sys
from billing_pipeline.importing import sparingly, undisturbed
sparingly()
with undisturbed():
    import {first}
print(*sorted({{"numpy", "pandas", "duckdb", "httpx._main"}} & set(sys.modules)))
import matplotlib.figure
import pyarrow as pa, pyarrow.compute as pc
print("numpy" in sys.modules, "pandas" in sys.modules, pc.sum(pa.array([1, 2])).as_py())
"""


def run(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", text], check=True, capture_output=True, text=True)  # noqa: S603  ourselves


def said(first: str) -> list[str]:
    return run(BEGIN.format(first=first)).stdout.splitlines()


def test_a_refresh_begins_without_numpy_pandas_and_duckdb() -> None:
    assert said("billing_pipeline.refresh") == ["", "True False 3"]


@pytest.mark.parametrize("provider", ["plivo", "ycloud"])
def test_who_makes_a_month_ahead_of_large_accounts_begins_without_a_client(provider: str) -> None:
    """It starts while its month is being fetched, and every module that it imports has to be paid for then."""
    ours = f"from billing_pipeline import ahead, providers; providers.provider({provider!r})"
    client = "{'httpx', 'httpcore', 'pyrate_limiter', 'asyncio', 'duckdb'}"
    assert run(f"{ours}; import sys; print(sorted({client} & set(sys.modules)))").stdout == "[]\n"


def test_a_drawing_gets_numpy_whichever_part_of_pyarrow_came_before() -> None:
    assert said("pyarrow") == ["", "True False 3"]
    assert said("billing_pipeline.month_plots, pyarrow.parquet") == ["", "True False 3"]


def test_the_end_of_a_process_is_as_quiet_as_without() -> None:
    """DuckDB's binding complains of every object that is left when the interpreter ends."""
    end = "import duckdb\nduckdb.connect().execute('SELECT 1').fetchall()"
    assert run(BEGIN.format(first="billing_pipeline.refresh") + end).stderr == ""
