"""Kills `billing-pipeline` at random moments, and proves that no number is ever a mixture and that the next run heals."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from billing_pipeline.sandbox.app import PROVIDERS

from .books import Mixed
from .daemon import daemon
from .rounds import WHATS, soak


def main() -> int:
    """Exit status: 0 when every kill was survived."""
    parser = argparse.ArgumentParser(prog="python -m billing_pipeline_tests.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--folder", type=Path, help="kept afterwards; by default a temporary one, kept when something is wrong"
    )
    parser.add_argument("--only", action="append", choices=WHATS, help="kill only this; may be given more than once")
    parser.add_argument("--provider", action="append", choices=PROVIDERS, help="only this; fewer are quicker")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.write(f"seed {given.seed}, in {folder}\n")

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    began = time.monotonic()
    try:
        kills, runs = soak(
            given.kills,
            given.seed,
            folder,
            {what: WHATS[what] for what in given.only or WHATS},
            say,
            given.provider or PROVIDERS,
        )
        if not given.only:
            (folder / "ui").mkdir(exist_ok=True)
            kills["daemon"] += daemon(folder / "ui", say)
    except Mixed as error:
        say(f"WRONG: {error}\nEverything is kept in {folder}; again: --seed {given.seed}")
        return 1
    told = ", ".join(f"{what} {number}" for what, number in sorted(kills.items()))
    say(f"{sum(kills.values())} kills survived ({told}) in {sum(runs.values())} runs, {time.monotonic() - began:.0f} s")
    if not given.folder:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
