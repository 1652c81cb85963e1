"""A landing is complete or absent, holds every byte as it came, and notices when one changes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_pipeline.bodies import LARGE
from billing_pipeline.landing import DamagedLanding, Landing, Landings, Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import Page, Restarted

from .conftest import Company

MAY = Partition("plivo", "main", BillingPeriod(2026, 5))
JUNE = Partition("plivo", "main", BillingPeriod(2026, 6))
AT = datetime(2026, 6, 15, 12, tzinfo=UTC)


def page(body: bytes, traversal: str = "", **facts: str) -> Page:
    return Page(body=body, request="GET /bill?page=1", received_at=AT, traversal=traversal, facts=facts)


def land(folder: Path, *answers: Page | Restarted, partition: Partition = MAY, at: datetime = AT) -> Landing:
    return Landings(folder).land(partition, answers, fetched_at=at, version="test")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_pages_come_out_as_they_went_in(tmp_path: Path) -> None:
    first = replace(page(b'{"total": 1.10}', "walk", key="value"), scope="acme")
    landing = land(tmp_path, first, page(b"", "other"), page(b"\x00\xff"))
    assert list(landing) == [
        replace(first, number=1),
        replace(page(b"", "other"), number=2),
        replace(page(b"\x00\xff"), number=3),
    ]
    assert landing.id == "plivo/main/2026-05/20260615T120000.000000Z"
    assert landing.fetched_at == AT
    assert (landing.manifest["pages"], landing.manifest["bytes"], landing.manifest["restarts"]) == (3, 17, 0)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=6))
def test_any_bytes_survive(bodies: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        landing = land(Path(folder), *map(page, bodies))
        assert [page.read() for page in landing] == bodies
        assert [page.read() for page in Landings(Path(folder)).get(landing.id)] == bodies


def test_a_fetch_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Page]:
        yield page(b"{}" * 1000)
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        Landings(tmp_path).land(MAY, broken(), fetched_at=AT, version="test")
    assert files(tmp_path) == []
    assert Landings(tmp_path).newest(MAY) is None


def test_no_page_is_no_landing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no answer is not"):
        land(tmp_path)
    with pytest.raises(ValueError, match="no answer is not"):
        land(tmp_path, Restarted(traversal="", reason="moved"))
    assert files(tmp_path) == []


def test_a_fetch_that_is_killed_leaves_nothing_that_is_seen_and_the_next_sweeps_it_up(tmp_path: Path) -> None:
    program = (
        "import os, sys, datetime; from pathlib import Path\n"
        "from billing_pipeline_tests.test_landing import AT, MAY, Landings, page\n"
        "def fetch():\n"
        "    yield page(os.urandom(3_000_000))\n"
        "    print('landing', flush=True)\n"
        "    sys.stdin.read()\n"
        "    yield page(b'never')\n"
        "Landings(Path(sys.argv[1])).land(MAY, fetch(), fetched_at=AT, version='test')\n"
    )
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"landing\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert files(tmp_path) != []
    assert Landings(tmp_path).newest(MAY) is None
    assert Landings(tmp_path).all(MAY) == []
    landing = land(tmp_path, page(b"{}"))
    assert [folder.name for folder in landing.folder.parent.iterdir()] == [landing.folder.name]


def test_a_walk_that_started_over_is_kept_as_evidence_and_not_read(tmp_path: Path) -> None:
    landing = land(
        tmp_path,
        page(b"old 1", "a"),
        page(b"sound", "b"),
        page(b"old 2", "a"),
        Restarted(traversal="a", reason="rows moved"),
        page(b"new 1", "a"),
    )
    assert [(p.number, p.read()) for p in landing] == [(2, b"sound"), (4, b"new 1")]
    assert (landing.manifest["pages"], landing.manifest["restarts"]) == (4, 1)
    assert b"rows moved" in (landing.folder / "pages.jsonl").read_bytes()


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path: Path) -> None:
    landing = land(tmp_path, page(b'{"total": 1.10}' * 20), page(os.urandom(64)), page(b"{}", "walk"))
    for name in ("bodies.zst", "pages.jsonl"):
        file = landing.folder / name
        content = file.read_bytes()
        unnoticed = []
        for place in range(0, len(content), 7):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            try:
                pages = [page.read() for page in landing]
            except (DamagedLanding, OSError):
                continue
            unnoticed.append((place, pages))
        file.write_bytes(content)
        # Flags of the zstd frame may change without changing what comes out of it; a body never.
        assert all(pages == [page.read() for page in landing] for _, pages in unnoticed), name
        assert name == "bodies.zst" or unnoticed == []


@pytest.mark.parametrize("name", ["bodies.zst", "pages.jsonl"])
def test_a_file_that_ends_too_early_is_noticed(tmp_path: Path, name: str) -> None:
    landing = land(tmp_path, page(os.urandom(5000)), page(os.urandom(5000)))
    file = landing.folder / name
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(DamagedLanding, match=r"plivo/main/2026-05/.*"):
        list(landing)


def test_a_page_that_was_taken_out_of_the_index_is_noticed(tmp_path: Path) -> None:
    landing = land(tmp_path, page(b"one"), page(b"two"))
    index = landing.folder / "pages.jsonl"
    index.write_bytes(index.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(DamagedLanding, match=r"the sha256 of its pages\.jsonl differs"):
        list(landing)


def test_large_bodies_are_streams_that_can_be_read_twice_and_bytes_before_and_after_them_are_whole(
    tmp_path: Path,
) -> None:
    large = os.urandom(1 << 20) * 5 + b"end"
    other = b"x" * (LARGE + 1)
    landing = land(tmp_path, page(b"before"), page(large), page(b"between"), page(other), page(b"after"))
    pages = list(landing)
    assert [type(p.body) is bytes for p in pages] == [True, False, True, False, True]
    for _ in range(2):
        assert [p.read() for p in pages] == [b"before", large, b"between", other, b"after"]
    with pages[1].open() as one, pages[1].open() as two:
        assert one.read(10) == two.read(10) == large[:10]
        assert one.read() == large[10:]


def test_a_changed_large_body_is_noticed_before_any_of_it_is_read(tmp_path: Path) -> None:
    landing = land(tmp_path, page(os.urandom(LARGE + 1)))
    file = landing.folder / "bodies.zst"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedLanding):
        list(landing)


def test_a_body_may_come_as_a_file(tmp_path: Path) -> None:
    letter = tmp_path / "letter.json"
    letter.write_bytes(b'{"rows": []}')
    landing = land(tmp_path / "data", replace(page(b""), body=letter))
    letter.unlink()
    assert [p.read() for p in landing] == [b'{"rows": []}']


def test_nobody_else_can_read_a_landing(tmp_path: Path) -> None:
    landing = land(tmp_path, page(b"{}"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in landing.folder.iterdir()} == {0o600}
    assert stat.S_IMODE(landing.folder.stat().st_mode) == 0o700


def test_the_newest_landing_is_the_one_that_came_last_also_when_the_clock_was_put_back(tmp_path: Path) -> None:
    land(tmp_path, page(b"first"), at=AT)
    for body, ago in ((b"second", 3600), (b"third", 7200), (b"fourth", 3500)):
        back = land(tmp_path, page(body), at=AT - timedelta(seconds=ago))
        assert back.fetched_at == AT - timedelta(seconds=ago)  # what the clock said stays what it said
        newest = Landings(tmp_path).newest(MAY)
        assert newest is not None
        assert (newest.id, [p.read() for p in newest]) == (back.id, [body])
    assert [[p.read() for p in landing] for landing in Landings(tmp_path).all(MAY)] == [
        [b"first"], [b"second"], [b"third"], [b"fourth"],
    ]  # fmt: skip


def test_a_landing_that_is_shared_is_the_newest_also_when_the_clock_was_put_back(tmp_path: Path) -> None:
    land(tmp_path, page(b"[1]"), partition=JUNE, at=AT)
    sibling = land(tmp_path, page(b"[2]"), at=AT - timedelta(hours=1))
    shared = Landings(tmp_path).share(sibling, JUNE)
    newest = Landings(tmp_path).newest(JUNE)
    assert newest is not None
    assert (newest.id, newest.fetched_at) == (shared.id, AT - timedelta(hours=1))


def test_an_answer_to_an_older_question_that_comes_late_does_not_win_over_a_newer_one(tmp_path: Path) -> None:
    newer = land(tmp_path, page(b"newer"), at=AT)
    land(tmp_path, page(b"older", submitted_at=f"{AT - timedelta(hours=1)}"), at=AT + timedelta(hours=1))
    newest = Landings(tmp_path).newest(MAY)
    assert newest is not None
    assert newest.id == newer.id


def test_landings_of_one_instant_do_not_overwrite_each_other(tmp_path: Path) -> None:
    ids = [land(tmp_path, page(body)).id for body in (b"1", b"2", b"3")]
    assert [[p.read() for p in landing] for landing in Landings(tmp_path).all(MAY)] == [[b"1"], [b"2"], [b"3"]]
    assert [landing.id for landing in Landings(tmp_path).all(MAY)] == ids


def test_an_answer_to_an_older_question_counts_from_when_the_question_was_asked(tmp_path: Path) -> None:
    landing = land(tmp_path, page(b"{}", submitted_at="2026-06-04T23:59:59.500000+00:00"))
    assert landing.fetched_at == datetime(2026, 6, 4, 23, 59, 59, 500_000, UTC)


def test_a_landing_is_shared_with_another_month_without_new_bytes(tmp_path: Path) -> None:
    landings = Landings(tmp_path)
    landing = land(tmp_path, page(b"{}"), page(b"[]"))
    shared = landings.share(landing, JUNE)
    assert [p.read() for p in shared] == [b"{}", b"[]"]
    assert (shared.partition, shared.fetched_at) == (JUNE, landing.fetched_at)
    assert shared.manifest["shared_from"] == landing.id
    assert (shared.folder / "bodies.zst").samefile(landing.folder / "bodies.zst")


def test_no_secret_is_anywhere_in_the_data_folder(company: Company) -> None:
    secrets = {s.encode() for settings in company.line.configuration.accounts for s in settings.secrets()}
    assert len(secrets) >= 5
    for settings in company.line.configuration.accounts:
        company.do(company.month(settings.provider, settings.name, "2026-05"))
    company.line.publish()
    found = []
    for path in company.line.data.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".zst":
                landing = path.parent
                content = b"".join(
                    p.read() for p in company.line.landings.get(str(landing.relative_to(landing.parents[3])))
                )
            found += [(path, secret) for secret in secrets if secret in content]
    assert found == []


def test_a_manifest_says_whom_it_was_asked_of_when_and_what_it_holds(company: Company) -> None:
    company.do(company.month("plivo", "main", "2026-05"))
    landing = company.line.landings.newest(company.month("plivo", "main", "2026-05"))
    assert landing is not None
    manifest = json.loads((landing.folder / "manifest.json").read_bytes())
    assert manifest["base_url"] == f"{company.address}/plivo"
    assert manifest["fetched_at"] == "2026-06-15T12:00:00Z"
    assert set(manifest["files"]) == {"bodies.zst", "pages.jsonl"}
