"""Two readers of one landing, found on disk once: both get all pages in order, however far apart they are."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_pipeline.provider import Page
from billing_pipeline.together import Together
from billing_pipeline_tests import harness


class Disk:
    """Ten-byte pages, and how many were read."""

    def __init__(self, count: int, broken: int | None = None) -> None:
        self.count, self.broken, self.read = count, broken, 0

    def __iter__(self) -> Iterator[Page]:
        for number in range(self.count):
            if number == self.broken:
                raise ValueError("a page has changed")
            self.read += 1
            yield Page(body=b"x" * 10, request="GET", received_at=harness.FETCHED, number=number)


def numbers(pages: Iterator[Page]) -> list[int]:
    return [page.number for page in pages]


@given(turns=st.lists(st.booleans(), max_size=60), count=st.integers(0, 20), most=st.integers(0, 250))
def test_both_get_every_page_in_order_whoever_is_ahead(turns, count, most):
    together = Together(Disk(count), most, patience=0)
    readers, got = (iter(together), iter(together)), ([], [])
    for first in turns:
        got[first].extend(numbers(islice(readers[first], 1)))
    for reader, numbered in zip(readers, got, strict=True):
        numbered.extend(numbers(reader))
    assert got == (list(range(count)), list(range(count)))


@pytest.mark.parametrize("most", [10, 30, 10_000])
def test_in_two_threads_no_page_is_read_twice_however_little_is_left(most):
    disk = Disk(5_000)
    together = Together(disk, most, patience=60)
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(numbers, iter(together)) for _ in range(2)]
        assert all(reader.result() == list(range(5_000)) for reader in readers)
    assert disk.read == 5_000


def test_each_page_is_read_once_while_they_are_near_and_twice_when_one_takes_none():
    near, far = Disk(10), Disk(10)
    for disk, most in ((near, 100), (far, 91)):
        together = Together(disk, most, patience=0.001)
        first, second = iter(together), iter(together)
        next(second)
        assert numbers(first) == list(range(10))
        assert numbers(second) == list(range(1, 10))
    assert (near.read, far.read) == (10, 10)
    together = Together(far, 30, patience=0)
    assert [numbers(together), numbers(together)] == [list(range(10))] * 2
    assert far.read == 30


def test_what_is_wrong_with_a_page_is_told_to_both():
    together = Together(Disk(10, broken=3))
    for _ in range(2):
        reader = iter(together)
        assert numbers(islice(reader, 3)) == [0, 1, 2]
        with pytest.raises(ValueError, match="has changed"):
            next(reader)


def test_nothing_is_kept_for_one_who_has_given_up():
    disk = Disk(10)
    together = Together(disk)
    first, second = iter(together), iter(together)
    next(second)
    second.close()
    held = [weakref.ref(page) for page in first]
    gc.collect()
    assert not [page for page in held if page()], "nobody has them any more"
    assert numbers(together) == list(range(10)), "a third reader reads for himself"
    assert disk.read == 20


def test_what_is_made_of_a_page_is_made_once_for_both_and_not_kept_of_a_large_one_that_stays_on_disk(tmp_path):
    made = []

    def make(raw: bytes) -> int:
        made.append(raw)
        return len(raw)

    (tmp_path / "large").write_bytes(b"large")
    small, large = harness.page("small"), replace(harness.page(""), body=tmp_path / "large")
    assert [page.made(make) for page in (small, small, large, large)] == [5] * 4
    assert made == [b"small", b"large", b"large"]
