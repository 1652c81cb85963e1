"""What a killed run leaves is swept by the next one, whatever it is and whoever's it was, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from billing_pipeline import scratch
from billing_pipeline.lake import sha256
from billing_pipeline.verify import verify

from .conftest import Company

LEFT = [
    "raw/{p}/{a}/2026-05/.123.tmp/bodies.zst",
    "raw/{p}/{a}/2026-05/.20260601T000000.000000Z.tmp/bodies.zst",
    "raw/{p}/{a}/.ledger.seal.tmp",
    "charges/x_BillingPeriod=2026-05/.{p}--{a}.parquet.123.tmp",
    "charges/x_BillingPeriod=2026-05/.{p}--{a}.parquet.123.tmp.abc.tmp/duckdb_temp_storage_DEFAULT-0.tmp",
    "charges/x_BillingPeriod=2026-05/.{p}--{a}.corrections.parquet.123.tmp",
    "history/x_BillingPeriod=2026-05/{p}--{a}/.20260601T000000.000000Z.parquet.123.tmp",
    "failures/.{p}--{a}--2026-05.json.tmp",
    ".{p}--{a}.abc.tmp/own/x.parquet",
]
WAREHOUSE = [
    ".warehouse.duckdb.123.tmp",
    ".warehouse.duckdb.123.tmp.wal",
    ".warehouse.duckdb.123.tmp.parquet",
    ".warehouse.duckdb.123.tmp.tmp/duckdb_temp_storage_DEFAULT-0.tmp",
    ".verify.duckdb",
    ".verify.duckdb.wal",
    "..verify.duckdb.123.tmp",
    "..verify.duckdb.123.tmp.parquet",
]


def leave(data: Path, names: list[str]) -> None:
    for name in names:
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")


def content(data: Path) -> dict[str, str]:
    files = (path for path in data.rglob("*") if path.is_file())
    return {str(p.relative_to(data)): sha256(p) for p in files if "locks" not in p.parts}


@pytest.mark.parametrize(("provider", "account"), [("plivo", "main"), ("plivo", "closed_last_year")])
def test_every_kind_of_leftover_is_swept_by_the_next_publication_also_of_a_final_month_and_of_a_former_account(
    company: Company, provider: str, account: str
) -> None:
    company.do(company.month("plivo", "main", "2026-05"))
    company.line.publish()
    before = content(company.line.data)
    leave(company.line.data, [*(name.format(p=provider, a=account) for name in LEFT), *WAREHOUSE])
    company.line.publish()
    del before["warehouse.duckdb"]
    after = content(company.line.data)
    del after["warehouse.duckdb"]
    assert after == before
    assert verify(company.line).findings == []


def test_what_another_process_is_writing_just_now_is_left_to_it(company: Company) -> None:
    main = company.month("plivo", "main", "2026-05")
    company.do(company.month("plivo", "emea", "2026-05"))
    names = [name.format(p="plivo", a="main") for name in LEFT]
    leave(company.line.data, [*names, ".verify.duckdb"])
    with company.line.only("plivo--main"), company.line.only("verify"):
        company.line.publish()
        assert {*names, ".verify.duckdb"} <= {*content(company.line.data)}
    company.line.publish()
    assert not {*names, ".verify.duckdb"} & {*content(company.line.data)}
    company.do(main)


def test_what_a_disk_is_full_of_is_swept_before_a_run_writes(company: Company) -> None:
    names = [name.format(p="plivo", a="main") for name in LEFT]
    leave(company.line.data, names)
    company.line.fetch(company.month("plivo", "main", "2026-06"))
    assert not {*names} & {*content(company.line.data)}


def test_what_a_killed_comparison_put_aside_is_swept_and_what_a_living_one_did_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hangs = "from billing_pipeline import scratch\nwith scratch.folder() as f: (f / 'x').touch(); print(f, flush=True); input()"
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", hangs], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().decode().strip())
        assert theirs.parent == tmp_path
        scratch.sweep()
        assert [path.name for path in theirs.iterdir()] == ["x"]
        process.kill()
        process.wait()
    with scratch.folder() as ours:
        scratch.sweep()
        assert ours.is_dir()
        assert not theirs.exists()
    assert list(tmp_path.iterdir()) == []
