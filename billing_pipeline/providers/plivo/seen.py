"""Which usage buckets a walk has met already, in 8 bytes each: as Python's numbers in a set they take 100, up to 200 MB."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.int64]

FEW = 50_000  # so many are looked through at every page


class Seen:
    """64-bit hashes: a sorted run, and those that came since.

    Many are looked through when they have doubled, which takes 0.1 s in all for a million; at every page it takes 1.3 s.
    """

    def __init__(self) -> None:
        self._sorted: Hashes = np.empty(0, np.int64)
        self._since: list[Hashes] = []
        self._waiting = 0

    def __len__(self) -> int:
        return len(self._sorted) + self._waiting

    def add(self, hashes: Hashes, *, last: bool) -> int:
        """Remember hashes; how many of all so far came twice, when they are looked through: certainly at the `last` page."""
        self._since.append(hashes)
        self._waiting += len(hashes)
        if not last and FEW < len(self) < 2 * len(self._sorted):
            return 0
        self._sorted = np.concatenate((self._sorted, *self._since))
        self._sorted.sort()
        self._since, self._waiting = [], 0
        return int(np.count_nonzero(self._sorted[1:] == self._sorted[:-1]))
