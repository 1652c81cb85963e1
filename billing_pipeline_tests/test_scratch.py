"""Questions to DuckDB that do not fit into the memory they are given first."""

from __future__ import annotations

import duckdb
import pytest

from billing_pipeline import scratch

MANY = "SELECT len(list(range || 'a text that is too long to be kept in place')) FROM range(100000)"


def test_a_question_that_does_not_fit_is_asked_again_with_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LIMITS", ("3MB", "200MB"))
    limits = []

    def work(db: duckdb.DuckDBPyConnection) -> int:
        limits.extend(db.execute("SELECT current_setting('memory_limit')").fetchall()[0])
        db.execute("CREATE TEMP TABLE begun AS SELECT 1")  # what a first try has made is gone
        return int(db.execute(MANY).fetchall()[0][0])

    assert scratch.asked(work) == 100_000
    assert limits == ["2.8 MiB", "190.7 MiB"]


def test_a_question_that_fits_into_no_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LIMITS", ("2MB", "3MB"))
    with pytest.raises(duckdb.OutOfMemoryException):
        scratch.asked(lambda db: db.execute(MANY).fetchall())
