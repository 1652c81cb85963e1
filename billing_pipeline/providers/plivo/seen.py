"""Which usage buckets a walk has met already, in 8 bytes each: as Python's numbers in a set they take 100, up to 200 MB."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FEW = 50_000  # so many are kept in a set


def hashes(values: Iterable[int]) -> array[int]:
    """What Python's `hash` gave, 8 bytes each."""
    return array("q", values)


class Seen:
    """64-bit hashes: few of them in a set, many as a sorted run and those that came since.

    Many are looked through when they have doubled, which takes 0.1 s in all for a million; at every page it takes 1.3 s.
    """

    def __init__(self) -> None:
        self._few: set[int] = set()
        self._twice = 0  # among the few
        self._sorted: npt.NDArray[np.int64] | None = None
        self._since: list[array[int]] = []
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._few) + self._twice + len(() if self._sorted is None else self._sorted) + self._waiting

    def add(self, met: array[int], *, last: bool) -> int:
        """Remember hashes; how many of all so far came twice, when they are looked through: certainly at the `last` page."""
        if self._sorted is None and len(self) + len(met) <= FEW:
            new = len({*met} - self._few)
            self._few.update(met)
            self._twice += len(met) - new
            return self._twice
        self._since.append(met)
        self._waiting += len(met)
        if not last and self._sorted is not None and len(self) < 2 * len(self._sorted):
            return 0
        return self._look()

    def _look(self) -> int:
        import numpy as np  # a small account never needs it, and importing it is a tenth of a second of a daily refresh

        known = np.fromiter(self._few, np.int64) if self._sorted is None else self._sorted
        self._sorted = np.concatenate((known, *(np.frombuffer(met, np.int64) for met in self._since)))
        self._sorted.sort()
        self._few, self._since, self._waiting = set(), [], 0
        return self._twice + int(np.count_nonzero(self._sorted[1:] == self._sorted[:-1]))
