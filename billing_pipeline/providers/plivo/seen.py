"""Which usage buckets a walk has met already, in 8 bytes each: as Python's numbers in a set they take 100, up to 200 MB."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

FEW = 50_000  # so many are kept in a set


def hashes(values: Iterable[int]) -> array[int]:
    """What Python's `hash` gave, 8 bytes each."""
    return array("q", values)


class Seen:
    """64-bit hashes: few of them in a set; many one behind another, those sorted that were looked through.

    Many are looked through when they have doubled, which takes 0.1 s in all for a million; at every page it takes 1.3 s.
    """

    def __init__(self) -> None:
        self._few: set[int] = set()
        self._twice = 0  # among the few
        self._many = hashes(())
        self._sorted = 0  # of the many

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
        if not last and self._sorted and len(self._many) < 2 * self._sorted:
            return 0
        return self._look()

    def _look(self) -> int:
        import numpy as np  # a small account never needs it, and importing it is a tenth of a second of a daily refresh

        many = np.frombuffer(self._many, np.int64)
        many.sort()  # where they stand: ten million take 80 MB, and no more while they are sorted
        self._sorted = len(many)
        return self._twice + int(np.count_nonzero(many[1:] == many[:-1]))
