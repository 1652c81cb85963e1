"""What becomes of every fault that the sandbox can play as YCloud: exact numbers, or the exact ones before and an error."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from .fault_matrix import Case, Rehearsal, cases, rehearsal, rehearse


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    with rehearsal("ycloud", tmp_path_factory.mktemp("faults")) as prepared:
        yield prepared


@pytest.mark.parametrize("case", cases("ycloud"), ids=lambda case: f"{case.told}, {case.fault}")
def test_a_fault_ends_as_the_table_in_the_readme_says(prepared: Rehearsal, case: Case) -> None:
    word, says = case.outcomes["ycloud"]
    became, said = rehearse(prepared, case)
    assert became == word, said
    assert re.search(says, said, re.DOTALL), said
