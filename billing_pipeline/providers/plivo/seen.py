"""Which usage buckets a walk has met already, in 8 bytes each: as Python's numbers in a set they take 100, up to 200 MB."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt


class Seen:
    """64-bit hashes, in sorted runs of which each is longer than the next, so that there are few of them."""

    def __init__(self) -> None:
        self._runs: list[npt.NDArray[np.int64]] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def add(self, hashes: Collection[int]) -> int:
        """Remember hashes that all differ from each other; how many of them were there before."""
        new = np.sort(np.fromiter(hashes, np.int64, len(hashes)))
        known = 0
        for run in self._runs:
            places = np.searchsorted(run, new)
            known += int(np.count_nonzero(run[np.minimum(places, len(run) - 1)] == new))
        while self._runs and len(self._runs[-1]) <= len(new):
            new = np.sort(np.concatenate((self._runs.pop(), new)))
        if len(new):
            self._runs.append(new)
        return known
