"""Judges a FOCUS export with the FinOps Foundation's focus-validator, which knows FOCUS 1.2: exactly its known artefacts fail.

    focus_validator.py FOLDER     FOLDER/export is what `billing-pipeline export focus` wrote

Its exit status says nothing, so its report is read: a run without it, or with another number of rules, is an error.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

RULES = 578  # of FOCUS 1.2 about Cost and Usage, those that do not apply included
CRITERIA = "USAGE_MEASUREMENT_SUPPORTED,SUB_ACCOUNT_SUPPORTED"
RESULT = re.compile(r"^\S+ ([\w-]+): (PASS|FAIL|SKIPPED)\s+\((?:violations=(\d+))?", re.MULTILINE)


def as_of_1_2(charges: pa.Table) -> pa.Table:
    """Cost and Usage as FOCUS 1.2 had it: other names for who provides, and a column without which it cannot judge quantities."""
    renamed = {"ServiceProviderName": "ProviderName", "HostProviderName": "PublisherName"}
    known = charges.drop_columns(["InvoiceDetailId"])
    known = known.rename_columns([renamed.get(name, name) for name in known.column_names])
    return known.append_column("CommitmentDiscountStatus", pa.nulls(len(known), pa.string()))


def artefacts(charges: pa.Table) -> dict[str, int]:
    """The rules that fail although nothing is wrong, with the number of rows that each fails for; see docs/focus.md."""
    bought = pc.equal(charges["ChargeCategory"], "Purchase")
    paying = pc.and_(bought, pc.not_equal(charges["EffectiveCost"], pa.scalar(0, charges["EffectiveCost"].type)))
    return {"EffectiveCost-C-005-C": pc.sum(paying).as_py(), "InvoiceId-C-005-C": charges.num_rows}


def failures(charges: pa.Table, folder: Path) -> dict[str, int]:
    """The rules that fail, with the number of violations."""
    file = folder / "focus_1_2.parquet"
    pq.write_table(as_of_1_2(charges), file)
    done = subprocess.run(  # noqa: S603
        [
            str(Path(sys.executable).with_name("focus-validator")),
            *("--data-file", str(file), "--validate-version", "1.2", "--block-download"),
            *("--focus-dataset", "CostAndUsage", "--applicability-criteria", CRITERIA),
        ],
        cwd=sysconfig.get_path("purelib"),  # it opens a file of its own relative to the current folder
        capture_output=True,
        text=True,
        check=False,
    )
    results = RESULT.findall(done.stdout)
    if len(results) != RULES:
        raise SystemExit(
            f"focus-validator reported {len(results)} rules, not {RULES}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return {rule: int(count or 0) for rule, result, count in results if result == "FAIL"}


def first(name: str, value: object) -> Callable[[pa.Table], pa.Table]:
    """Another value in the first row."""

    def spoil(charges: pa.Table) -> pa.Table:
        values = charges[name].to_pylist()
        column = pa.array([value, *values[1:]], charges.schema.field(name).type)
        return charges.set_column(charges.column_names.index(name), name, column)

    return spoil


# What is done to the charges, all of it at once, and the rule that must then fail for one row.
SPOILED = {
    "BillingCurrency-C-006-M": first("BillingCurrency", "usd"),
    "ServiceName-C-004-C": first("ServiceCategory", "Communications"),
    "ChargeClass-C-005-C": first("ChargeClass", "Restatement"),
    "BillingAccountId-C-001-M": first("BillingAccountId", None),
    "SubAccountName-C-004-C": first("SubAccountName", "a name without an account"),
}


def main(folder: Path) -> int:
    """Exit status: 0 when exactly the known artefacts fail, and more when the charges are spoiled; else 1."""
    charges = pq.read_table(folder / "cost_and_usage.parquet")
    wrong = []
    with TemporaryDirectory() as temporary:
        found, expected = failures(charges, Path(temporary)), artefacts(charges)
        if found != expected:
            wrong.append(f"the known artefacts are {expected}, and these rules fail: {found}")
        spoiled = charges
        for spoil in SPOILED.values():
            spoiled = spoil(spoiled)
        missed = {rule for rule in SPOILED if rule not in (again := failures(spoiled, Path(temporary)))}
        if missed:
            wrong.append(f"the charges were spoiled, and these rules do not fail: {sorted(missed)}; these do: {again}")
    for text in wrong:
        sys.stderr.write(f"{text}\n")
    if not wrong:
        known = ", ".join(f"{rule} ({count})" for rule, count in found.items())
        sys.stdout.write(
            f"focus-validator finds its known artefacts in {charges.num_rows} charges, {known}, and nothing else; and "
            f"{len(SPOILED)} more rules fail when the charges are spoiled.\n"
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) / "export"))
