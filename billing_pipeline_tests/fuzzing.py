"""Mutated pages against each provider's reading: rows that agree with the statement, or a refusal of ours. Nothing else.

    python -m billing_pipeline_tests.fuzzing --minutes 15      (`make fuzz`)

No coverage guides it; it starts from pages that the sandbox sent, and changes bytes, tokens and whole pieces of them.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from billing_pipeline import charges, reconcile
from billing_pipeline.charges import DoesNotFit
from billing_pipeline.provider import Page, Provider
from billing_pipeline.providers import providers
from billing_pipeline.providers.ycloud.stated import CountedTwice
from billing_pipeline.reconcile import DoesNotReconcile
from billing_pipeline.rows import UnexpectedShape

from . import harness
from .fault_matrix import JUNE, PROVIDERS, rehearsal

REFUSALS = (UnexpectedShape, DoesNotFit, DoesNotReconcile, CountedTwice)
TOKENS = (
    b"null", b"true", b"-1", b"0", b"1e400", b"1E-30", b"NaN", b"0.0066500000000000005", b'""', b'"N/A"', b"[]", b"{}",
    b"[[", b"}", b'"\\ud800"', b"\xff\xfe", b"\x00", b'"2026-13-45"', b'"2026-06-31T25:00:00Z"', b'"=1+1"', b",", b":",
    b"99999999999999999999999", b'"9999-12-31T23:59:59Z"', b'"0001-01-01T00:00:00+23:59"', b"-0", b"1_000", b'"\\u0000"',
    b'"usd"', b"1e-400", b"12345678901234567890.1",
)  # fmt: skip


@cache
def known(provider: str) -> Provider:
    """The provider by name."""
    return providers()[provider]


@cache
def seeds(provider: str) -> list[Page]:
    """The pages of one real fetch, few rows each."""
    scale = 0.05 if provider == "talkdesk" else 0.01
    with tempfile.TemporaryDirectory() as folder, rehearsal(provider, Path(folder), scale) as prepared:
        landing = prepared.company.line.landings.newest(prepared.month)
        assert landing is not None
        return [replace(page, body=page.read()) for page in landing]


def judged(provider: str, pages: list[Page]) -> str:
    """What becomes of the pages: `read`, or the name of the refusal. Any other exception is a finding."""
    try:
        table = harness.table(known(provider), pages, JUNE)
        read: charges.Tally | str = charges.tally(table)
    except REFUSALS as error:
        read = type(error).__name__
    try:
        says = known(provider).statement(pages, JUNE)
        reconcile.require(reconcile.stated(says))
    except REFUSALS as error:
        return read if isinstance(read, str) else type(error).__name__
    if isinstance(read, str):
        return read
    if not reconcile.agrees(says.counted, read):
        return "DoesNotReconcile"
    return "read"


def mutated(body: bytes, chance: random.Random) -> bytes:
    """The body, one to four changes later."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(body) + 1)
        end = min(len(body), at + chance.choice((1, 1, 2, 8, 64, 1024)))
        values = [
            match.span() for match in re.finditer(rb'"[^"\\]*"|-?[0-9.]+(?:[eE][+-]?[0-9]+)?|true|false|null', body)
        ]
        kind = chance.randrange(7)
        if kind <= 2 and values:  # one value becomes another
            start, stop = chance.choice(values)
            other = chance.choice(values)
            new = chance.choice((chance.choice(TOKENS), body[slice(*other)]))
            body = body[:start] + new + body[stop:]
        elif kind == 3:
            body = body[:at] + body[end:]
        elif kind == 4:
            body = body[:at] + body[at:end] * 2 + body[end:]
        elif kind == 5:
            body = body[:at] + chance.choice(TOKENS) + body[at:]
        else:
            body = body[:at] + bytes([chance.randrange(256)]) + body[at + 1 :]
        body = body or b" "
    return body


def tried(provider: str, chance: random.Random) -> tuple[list[Page], str]:
    """One try: the pages, and what became of them."""
    pages = list(seeds(provider))
    kind = chance.randrange(10)
    if kind == 0 and len(pages) > 1:
        chance.shuffle(pages)
    elif kind == 1:
        pages.append(chance.choice(pages))
    elif kind == 2:
        pages.remove(chance.choice(pages))
    else:
        at = chance.randrange(len(pages))
        body = pages[at].body
        assert isinstance(body, bytes)
        new = mutated(body, chance) if kind > 3 else chance.randbytes(chance.randrange(200))
        pages[at] = replace(pages[at], body=new)
    return pages, judged(provider, pages)


def main(say: Callable[[str], object] = print) -> None:
    """Try for so many minutes, the four in turn, and say what came."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    found = 0
    for provider in PROVIDERS:
        seeds(provider)
        chance = random.Random(options.seed)  # noqa: S311
        ends, became = time.monotonic() + options.minutes * 60 / len(PROVIDERS), Counter[str]()
        while time.monotonic() < ends:
            try:
                became[tried(provider, chance)[1]] += 1
            except Exception:  # noqa: BLE001  that is what is looked for
                became["FOUND"] += 1
                found += 1
                if became["FOUND"] <= 5:
                    say(f"{provider}: {traceback.format_exc(limit=-4)}")
        say(f"{provider}: {sum(became.values()):,} inputs: {dict(became)}")
    raise SystemExit(found > 0)


if __name__ == "__main__":
    main()
