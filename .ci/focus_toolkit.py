"""Judges a FOCUS 1.4 export with focus-data-toolkit: without a violation, and spoiled in many ways never so.

focus_toolkit.py FOLDER     FOLDER/export is what `billing-pipeline export focus` wrote
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from focus_data_toolkit import cli

COST, PERIOD = "cost_and_usage", "billing_period"
Columns = dict[str, list[Any]]


def said(*arguments: str) -> tuple[int, str]:
    """What `focus-toolkit` exits with and says."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = cli.main(list(arguments))
    return status, out.getvalue()


def verdicts(folder: Path, kinds: tuple[str, ...] = ("parquet", "csv")) -> dict[str, tuple[int, str]]:
    """Each dataset alone, and both together, in each kind of file."""
    found = {}
    for kind in kinds:
        cost, period = (str(folder / f"{name}.{kind}") for name in (COST, PERIOD))
        found[f"cost-and-usage, {kind}"] = said("validate", "--dataset", "cost-and-usage", cost)
        found[f"billing-period, {kind}"] = said("validate", "--dataset", "billing-period", period)
        found[f"bundle, {kind}"] = said("validate-bundle", "--cost-and-usage", cost, "--billing-period", period)
    return found


def first(columns: Columns, name: str, value: Any) -> None:
    """Another value in the first row."""
    columns[name][0] = value


def original(columns: Columns) -> int:
    """The row that the first correction corrects."""
    return columns["x_ChargeKey"].index(next(key for key in columns["x_CorrectionOf"] if key))


def _without(columns: Columns, place: int) -> None:
    for values in columns.values():
        del values[place]


def few(charges: pa.Table) -> pa.Table:
    """Some charges, and every correction with what it corrects: spoiling needs no more, and the toolkit takes a while."""
    corrected = charges["x_CorrectionOf"].drop_null().combine_chunks()
    now_and_then = pa.array([place % 50 == 0 for place in range(charges.num_rows)])
    involved = pc.or_(charges["x_CorrectionOf"].is_valid(), pc.is_in(charges["x_ChargeKey"], corrected))
    return charges.filter(pc.or_(now_and_then, involved))


# What is done to the export, to which dataset, and what the toolkit must then say.
SPOILED: dict[str, tuple[str, Callable[[Columns], None], str]] = {
    "a currency that is none": (COST, lambda c: first(c, "BillingCurrency", "usd"), "BillingCurrency row 0"),
    "a category that FOCUS does not have": (
        COST,
        lambda c: first(c, "ServiceCategory", "Communications"),
        "ServiceCategory row 0",
    ),
    "a null where none may be": (COST, lambda c: first(c, "BillingAccountId", None), "BillingAccountId row 0"),
    "a class that is none": (COST, lambda c: first(c, "ChargeClass", "Restatement"), "ChargeClass row 0"),
    "usage without a quantity": (COST, lambda c: first(c, "PricingQuantity", None), "unit_without_quantity"),
    "the same charge twice": (COST, lambda c: first(c, "x_ChargeKey", c["x_ChargeKey"][1]), "FDT-CORR-003"),
    "a correction of nothing": (COST, lambda c: _without(c, original(c)), "FDT-CORR-001"),
    "a charge of a month that is not there": (PERIOD, lambda c: _without(c, 0), "FDT-CROSS-040"),
    "a status that is none": (PERIOD, lambda c: first(c, "BillingPeriodStatus", "Final"), "BillingPeriodStatus row 0"),
    "no status": (PERIOD, lambda c: first(c, "BillingPeriodStatus", None), "BillingPeriodStatus row 0"),
    "a month that ends later": (
        PERIOD,
        lambda c: first(c, "BillingPeriodEnd", c["BillingPeriodEnd"][0] + timedelta(days=1)),
        "FDT-CROSS-040",
    ),
}


def main(folder: Path) -> int:
    """Exit status: 0 when the export passes and everything spoiled is refused; else 1, with what is wrong."""
    wrong = [f"{name}: {text[:3000]}" for name, (status, text) in verdicts(folder).items() if status]
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        tables = {name: pq.read_table(folder / f"{name}.parquet") for name in (COST, PERIOD)}
        rows, tables[COST] = tables[COST].num_rows, few(tables[COST])
        for what, (name, spoil, expected) in SPOILED.items():
            for other, table in tables.items():
                pq.write_table(table, work / f"{other}.parquet")
            columns = tables[name].to_pydict()
            spoil(columns)
            schema = pa.schema([column.with_nullable(True) for column in tables[name].schema])
            pq.write_table(pa.table(columns, schema=schema), work / f"{name}.parquet")
            found = verdicts(work, ("parquet",)).values()
            if not any(status and expected in text for status, text in found):
                wrong.append(
                    f"{what}: the toolkit should say {expected!r}, and says {[text[:500] for _, text in found]}"
                )
    for text in wrong:
        sys.stderr.write(f"{text}\n")
    if not wrong:
        sys.stdout.write(
            f"focus-data-toolkit finds no violation in {rows} charges and {tables[PERIOD].num_rows} billing periods, as Parquet "
            f"and CSV, and refuses {len(SPOILED)} spoiled exports.\n"
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) / "export"))
