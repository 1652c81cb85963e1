"""A short while of fuzzing in every run of the tests, and what a longer one found."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_pipeline.rows import UnexpectedShape

from . import harness
from .fault_matrix import JUNE, PROVIDERS
from .fuzzing import judged, known, seeds, tried


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_pages_that_are_mutated_are_read_when_they_are_not(provider: str) -> None:
    assert judged(provider, seeds(provider)) == "read"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(PROVIDERS), st.integers(0, 2**64))
def test_mutated_pages_are_read_as_their_statement_says_or_refused_by_name(provider: str, number: int) -> None:
    tried(provider, Random(number))  # noqa: S311  raises what is neither


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(PROVIDERS), st.binary(max_size=200))
def test_any_bytes_for_a_page_are_refused_by_name(provider: str, body: bytes) -> None:
    pages = seeds(provider)
    assert judged(provider, [*pages[:-1], replace(pages[-1], body=body)]) != "read"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_page_that_is_no_utf_8_is_refused_by_both_readers(provider: str) -> None:
    """Found by fuzzing: of YCloud it was a UnicodeDecodeError."""
    pages = [(page, page.read().replace(b"2026", b"\xe5\x28\x29\xff")) for page in seeds(provider)]
    broken = [replace(page, body=body) for page, body in pages]
    with pytest.raises(UnexpectedShape):
        harness.table(known(provider), broken, JUNE)
    with pytest.raises(UnexpectedShape):
        known(provider).statement(broken, JUNE)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_byte_that_is_no_text_is_refused_wherever_it_stands(provider: str) -> None:
    """Found by fuzzing: in the type of a column of Infobip's, and in a row of Talkdesk's that came twice, it was a traceback."""
    pages = seeds(provider)
    body = pages[-1].read()
    places = [match.end() - 1 for match in re.finditer(rb'"[^"]+"', body)]
    types = [match.end() - 1 for match in re.finditer(rb'"columnDataType":"[^"]+"', body)]
    for at in [*types, *places[:: max(1, len(places) // 40)]]:
        broken = replace(pages[-1], body=body[:at] + b"\xc0\xb1" + body[at:])
        judged(provider, [*pages[:-1], broken])
        judged(provider, [*pages, broken])
        judged(provider, [broken, *pages])


@pytest.mark.parametrize("tiny", ["1e-2147483630", "-0e-5000000", "0.1E-9999999"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_an_exponent_that_kills_arrow_is_read_or_refused_by_the_careful_reader(tiny: str, quote: str) -> None:
    pages = list(seeds("talkdesk"))
    body = pages[0].body
    assert isinstance(body, bytes)
    broken = re.sub(rb'("total_amount": ?)[0-9."]+', rb"\g<1>" + f"{quote}{tiny}{quote}".encode(), body)
    assert broken != body
    judged("talkdesk", [replace(pages[0], body=broken), *pages[1:]])
