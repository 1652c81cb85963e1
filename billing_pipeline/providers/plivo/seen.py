"""Which usage buckets were met already, in 8 bytes each: as Python's numbers in a set they take 100, up to 200 MB."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

FEW = 50_000  # so many are kept in a set
_ODD = 0x9E3779B97F4A7C15 - (1 << 64)  # 2**64 by the golden ratio: spreads instants over all numbers
AT_ONCE = 1 << 18  # hashes that are compared at once: Arrow needs 50 MB for a million


def hashes(values: Iterable[int]) -> array[int]:
    """What Python's `hash` gave, 8 bytes each."""
    return array("q", values)


def of_columns(day: pa.Array, columns: Mapping[str, pa.Array], known: Callable[[str, str], object]) -> array[int]:
    """The same of what stands beside each other in columns.

    Args:
        day: instants.
        columns: of texts, of which each has few values; by name.
        known: what a text of a column means; None as if there were none.
    """
    rows = len(day)
    added = pc.multiply(day.cast(pa.int64()), _ODD)
    for name, values in columns.items():
        if values.null_count == rows:
            continue
        encoded = values.dictionary_encode()
        meant = (known(name, text) for text in encoded.dictionary.to_pylist())
        # Of a text, not of a tuple: sums of tuples' hashes are equal where two columns have changed their texts.
        numbers = pa.array([0 if each is None else hash(f"{name} {each!r}") for each in meant], pa.int64())
        added = pc.add(added, pc.fill_null(numbers.take(encoded.indices), 0))  # beyond 64 bits it begins anew
    found = hashes(())
    if rows:
        found.frombytes(memoryview(added.buffers()[1])[8 * added.offset : 8 * (added.offset + rows)])
    return found


def twice(met: array[int]) -> int:
    """How many hashes came before."""
    if len(met) <= FEW:
        return len(met) - len({*met})
    return _twice(met)


def repeated(met: array[int]) -> tuple[int, int]:
    """Where one of those stands that came before, and where it came before; ValueError: none did."""
    for part in _parts(met):
        counted = pc.value_counts(part)
        several = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
        if len(several):
            first = met.index(several[0].as_py())
            return met.index(met[first], first + 1), first
    raise ValueError("all are different")


class Seen:
    """64-bit hashes: few of them in a set; many one behind another.

    Many are looked through when they have doubled, which takes 0.1 s in all for a million; at every page it takes 1.3 s.
    """

    def __init__(self) -> None:
        self._few: set[int] = set()
        self._twice = 0  # among the few
        self._many = hashes(())
        self._looked = 0  # through so many

    def __len__(self) -> int:
        return len(self._few) + self._twice + len(self._many)

    def add(self, met: array[int], *, last: bool) -> int:
        """Remember hashes; how many of all so far came twice, when they are looked through: certainly at the `last` page."""
        if not self._many and len(self) + len(met) <= FEW:
            new = len({*met} - self._few)
            self._few.update(met)
            self._twice += len(met) - new
            return self._twice
        self._many.extend(hashes(self._few))
        self._few = set()
        self._many.extend(met)
        if not last and self._looked and len(self._many) < 2 * self._looked:
            return 0
        return self._look()

    def _look(self) -> int:
        self._looked = len(self._many)
        return self._twice + _twice(self._many)


def _twice(many: array[int]) -> int:
    return len(many) - sum(len(part.unique()) for part in _parts(many))


def _parts(many: array[int]) -> Iterator[pa.Array]:
    """All of them, equal ones in the same part."""
    numbers = pa.Array.from_buffers(pa.int64(), len(many), [None, pa.py_buffer(many)])
    parts = len(many) // AT_ONCE + 1
    for part in range(parts):
        low, above = ((end << 64) // parts - (1 << 63) for end in (part, part + 1))
        yield numbers.filter(pc.and_(pc.greater_equal(numbers, low), pc.less_equal(numbers, above - 1)))
