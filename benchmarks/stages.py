"""Where our own time goes: the steps of the line one after another in one process, each timed.

`python -m benchmarks.stages PROVIDER FILE`, with the environment of `contestants.ours`; writes seconds by stage as JSON.
To a file, because DuckDB may draw a progress bar on standard output.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from billing_pipeline import environment
from billing_pipeline.landing import Partition
from billing_pipeline.period import BillingPeriod

from . import month


def timed(stages: dict[str, float], name: str, step: Callable[[], Any]) -> Any:
    """Do `step`, and remember how long it took."""
    began = time.perf_counter()
    done = step()
    stages[name] = time.perf_counter() - began
    return done


if __name__ == "__main__":
    line = environment.line()
    provider = line.providers[sys.argv[1]]
    partition = Partition(provider.name, "main", BillingPeriod.parse(month.PERIOD))
    stages: dict[str, float] = {}
    landing = timed(stages, "fetch and land", lambda: line.fetch(partition, explicit=True)).landing
    timed(stages, "load", lambda: line.load(partition))
    timed(stages, "publish", line.publish)
    # Once more and alone, to tell the parts of `load` apart.
    timed(stages, "read", lambda: sum(1 for _ in landing))
    timed(stages, "statement", lambda: provider.statement(landing, partition.period))
    timed(stages, "parse", lambda: sum(1 for _ in provider.parse(landing, partition.period, landing.id)))
    Path(sys.argv[2]).write_text(json.dumps(stages))
