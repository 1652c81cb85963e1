"""Atheris against each provider's reading: mutations that coverage guides, for so many minutes in all.

    make guided ARGS="--minutes 30"

Any exception but those that refuse an answer is a find; atheris then leaves the bytes in a file called crash-*.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["billing_pipeline", "msgspec", "ijson"]):
    from .fuzzing import PROVIDERS, judged, seeds


def one(provider: str, folder: Path, seconds: int) -> None:
    """Fuzz one provider; does not return, for atheris ends the process."""
    pages = list(seeds(provider))
    for number, page in enumerate(pages):
        assert isinstance(page.body, bytes)
        (folder / str(number)).write_bytes(bytes([number]) + page.body)
    # One kilobyte and more of JSON: shorter than the longest seed would cut them all off.
    longest = max(len(file.read_bytes()) for file in folder.iterdir())

    def try_one(data: bytes) -> None:
        if data:  # libFuzzer begins with nothing
            at = data[0] % len(pages)
            judged(provider, [*pages[:at], replace(pages[at], body=data[1:] or b" "), *pages[at + 1 :]])

    options = [f"-max_total_time={seconds}", f"-max_len={longest + 256}", "-verbosity=0", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, str(folder)], try_one)
    atheris.Fuzz()


def main(say: Callable[[str], object] = print) -> None:
    """The four in turn, a process each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--provider", choices=PROVIDERS)
    options = parser.parse_args()
    seconds = int(options.minutes * 60 / len(PROVIDERS))
    if options.provider:
        with tempfile.TemporaryDirectory() as folder:
            one(options.provider, Path(folder), seconds)
    failed = 0
    for provider in PROVIDERS:
        command = [sys.executable, "-m", __spec__.name, "--provider", provider, "--minutes", str(options.minutes)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)  # noqa: S603
        stats = [line for line in done.stderr.splitlines() if "executed_units" in line or "Traceback" in line]
        say(f"{provider}: exit status {done.returncode}; {'; '.join(stats)}")
        if done.returncode:
            say(done.stderr[-3000:])
        failed += done.returncode != 0
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
