"""`disjoint_from`: accounts that are declared to have different charges must exist."""

from __future__ import annotations

import pytest

from billing_pipeline.accounts import Configuration, WrongConfiguration, read
from billing_pipeline.providers import providers

TWO = """\
history_from = "2026-01"
[[account]]
provider = "plivo"
name = "main"
auth_id = "MA"
auth_token = { env = "TOKEN" }
[[account]]
provider = "plivo"
name = "emea"
auth_id = "MB"
auth_token = { env = "TOKEN" }
disjoint_from = ["main"]
"""


def load(text: str) -> Configuration:
    return read(text, "accounts.toml", {"TOKEN": "t"}, providers())


def test_one_of_two_accounts_is_enough_to_say_that_they_are_disjoint() -> None:
    configuration = load(TWO)
    assert configuration.disjoint("plivo", "main") == {"emea"}
    assert configuration.disjoint("plivo", "emea") == {"main"}
    assert configuration.disjoint("ycloud", "main") == set()


def test_without_the_key_no_account_is_disjoint_from_another() -> None:
    assert load(TWO.replace("disjoint_from", "# disjoint_from")).disjoint("plivo", "main") == set()


@pytest.mark.parametrize("wrong", ["apac", "emea", "MA"])
def test_an_account_that_is_not_there_or_itself_is_a_mistake_with_its_line(wrong: str) -> None:
    with pytest.raises(
        WrongConfiguration, match=f"accounts.toml:12: disjoint_from: plivo has no other account '{wrong}'"
    ):
        load(TWO.replace('["main"]', f'["{wrong}"]'))


def test_a_name_instead_of_a_list_is_a_mistake_with_its_line() -> None:
    with pytest.raises(WrongConfiguration, match=r"accounts\.toml:12: disjoint_from: "):
        load(TWO.replace('["main"]', '"main"'))
