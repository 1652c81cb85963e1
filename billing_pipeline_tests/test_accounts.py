"""accounts.toml: every mistake is a sentence that names the line to mend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from billing_pipeline.accounts import Configuration, WrongConfiguration, read
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers import providers

FOUR = """\
history_from = "2026-01"   # line 1

[[account]]
provider = "plivo"         # line 4
name = "main"
auth_id = "MAACME"
auth_token = { env = "PLIVO_TOKEN" }

[[account]]
provider = "ycloud"        # line 10
name = "main"
api_key = { env = "YCLOUD_KEY" }
managed_accounts = ["acme-mx"]

[[account]]
provider = "talkdesk"      # line 16
name = "main"
base_url = "https://api.talkdeskapp.com"
token_url = "https://acme.talkdeskid.com/oauth/token"
client_id = { env = "TALKDESK_ID" }
client_secret = { env = "TALKDESK_SECRET" }

[[account]]
provider = "infobip"       # line 24
name = "main"
base_url = "https://xyz.api.infobip.com/"
api_key = { env = "INFOBIP_KEY" }
callback_url = "https://billing.example.com/callbacks"
callback_listen = "127.0.0.1:8765"
rate_limit = { requests = 5, seconds = 60 }
"""
SECRETS = {
    name: f"value of {name}" for name in ("PLIVO_TOKEN", "YCLOUD_KEY", "TALKDESK_ID", "TALKDESK_SECRET", "INFOBIP_KEY")
}


def load(text: str, **environment: str) -> Configuration:
    return read(text, "accounts.toml", SECRETS | environment, providers())


def mistakes(text: str, **environment: str) -> list[str]:
    """The lines of the error."""
    with pytest.raises(WrongConfiguration) as caught:
        load(text, **environment)
    assert not any(secret in str(caught.value) for secret in SECRETS.values())
    return str(caught.value).splitlines()


def test_accounts_of_all_four_providers_load_with_their_secrets_from_the_environment() -> None:
    configuration = load(FOUR)
    assert configuration.history_from == BillingPeriod(2026, 1)
    assert [(s.provider, s.name) for s in configuration.accounts] == [
        ("plivo", "main"),
        ("ycloud", "main"),
        ("talkdesk", "main"),
        ("infobip", "main"),
    ]
    assert configuration.account("plivo", "main").secrets() == ["value of PLIVO_TOKEN"]
    assert configuration.account("infobip", "main").base_url == "https://xyz.api.infobip.com"
    assert {type(s) for s in configuration.accounts} <= {p.settings for p in providers().values()}


def test_no_secret_is_shown_when_settings_are() -> None:
    shown = repr(load(FOUR)) + str(load(FOUR))
    assert not any(secret in shown for secret in SECRETS.values())


def test_one_provider_may_have_several_accounts() -> None:
    second = FOUR + '\n[[account]]\nprovider = "plivo"\nname = "emea"\nauth_id = "MB"\nauth_token = { env = "OTHER" }\n'
    configuration = load(second, OTHER="value of OTHER")
    assert configuration.account("plivo", "emea").secrets() == ["value of OTHER"]
    assert configuration.account("plivo", "main").secrets() == ["value of PLIVO_TOKEN"]


MISTAKES: dict[str, tuple[str, str, int, str]] = {
    "an unknown key": ("auth_id =", "auth_key =", 6, "unknown key 'auth_key'; plivo knows auth_id, auth_token"),
    "a forgotten key": ('auth_id = "MAACME"', "", 3, "auth_id is missing"),
    "an unknown top key": ("history_from", 'history = "2026-01"\nhistory_from', 1, "unknown key 'history'; known are"),
    "an unknown provider": (
        '"plivo"',
        '"pilvo"',
        4,
        f"provider must be one of {', '.join(sorted(providers()))}, not 'pilvo'",
    ),
    "no provider": ('provider = "plivo"', "", 3, "provider must be one of"),
    "a literal secret": (
        '{ env = "PLIVO_TOKEN" }',
        '"hunter2"',
        7,
        "auth_token: a secret is named here, never written",
    ),
    "a secret in a table": (
        '{ env = "PLIVO_TOKEN" }',
        '{ value = "hunter2" }',
        7,
        "a secret is named here, never written",
    ),
    "a missing variable": (
        "PLIVO_TOKEN",
        "NO_SUCH",
        7,
        "the environment variable NO_SUCH is not set (see .env.example)",
    ),
    "no name": ('name = "main"\nauth_id', "auth_id", 3, "name is missing"),
    "a name that is no folder": ('"main"\nauth_id', '"../main"\nauth_id', 5, "name: "),
    "a name with two dashes": ('"main"\nauth_id', '"a--b"\nauth_id', 5, "name: "),
    "a bad address": ("https://api.talkdeskapp.com", "api.talkdeskapp.com", 18, "must be an address like https://"),
    "an address with a query": (
        "https://api.talkdeskapp.com",
        "https://api.talkdeskapp.com?x=1",
        18,
        "must be an address",
    ),
    "an address with a password": ("https://api.talkdesk", "https://me:pw@api.talkdesk", 18, "must be an address"),
    "a port that is none": (
        "https://api.talkdeskapp.com",
        "https://api.talkdeskapp.com:99999",
        18,
        "Port out of range",
    ),
    "http to the world": (
        "https://api.talkdeskapp.com",
        "http://api.talkdeskapp.com",
        18,
        "must be https: credentials",
    ),
    "http for the token": (
        "https://acme.talkdeskid.com",
        "http://acme.talkdeskid.com",
        19,
        "must be https: credentials",
    ),
    "a day instead of a month": (
        '"2026-01"',
        '"2026-01-01"',
        1,
        "history_from: '2026-01-01' is not a month written YYYY-MM",
    ),
    "a month that is none": ('"2026-01"', '"2026-13"', 1, "history_from: 2026-13 is not a calendar month"),
    "a TOML date": ('"2026-01"', "2026-01-01", 1, "history_from: '2026-01-01' is not a month"),
    "no history": ('history_from = "2026-01"', "", 1, 'history_from = "YYYY-MM" is missing'),
    "a limit of nothing": ("requests = 5", "requests = 0", 30, "rate_limit.requests: "),
    "a misspelt limit": ("requests = 5", "request = 5", 30, "rate_limit.request"),
    "a list that is none": ('["acme-mx"]', '"acme-mx"', 13, "managed_accounts: "),
    "a customer twice": (
        '["acme-mx"]',
        '["acme-mx", "acme-mx"]',
        13,
        "acme-mx is named twice: its charges would be counted",
    ),
    "no TOML": ('auth_id = "MAACME"', "auth_id = MAACME", 6, "this is no TOML: "),
    "a key twice": ('auth_id = "MAACME"', 'auth_id = "A"\nauth_id = "B"', 7, "this is no TOML: "),
}


@pytest.mark.parametrize(("old", "new", "line", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_one_sentence_with_file_and_line(old: str, new: str, line: int, said: str) -> None:
    assert old in FOUR
    found = mistakes(FOUR.replace(old, new, 1))
    assert any(each.startswith(f"accounts.toml:{line}: ") and said in each for each in found), found
    assert "hunter2" not in str(found)


def test_several_mistakes_are_told_together_in_the_order_of_the_file() -> None:
    wrong = FOUR.replace("auth_id =", "auth_key =").replace("TALKDESK_ID", "NO_SUCH").replace('"2026-01"', '"soon"')
    lines = [int(each.split(":")[1]) for each in mistakes(wrong)]
    assert lines == sorted(lines)
    assert {1, 6, 20} <= set(lines)


@pytest.mark.parametrize("name", ["main", "Main", "MAIN"])
def test_two_accounts_of_a_provider_may_not_look_alike(name: str) -> None:
    twice = (
        f'\n[[account]]\nprovider = "plivo"\nname = "{name}"\nauth_id = "MB"\nauth_token = {{ env = "PLIVO_TOKEN" }}\n'
    )
    assert mistakes(FOUR + twice) == [
        f"accounts.toml:34: plivo/{name} has the same name as the account in line 3",
    ]


def test_the_same_name_at_another_provider_is_another_account() -> None:
    assert len({(s.provider, s.name) for s in load(FOUR).accounts}) == 4


@pytest.mark.parametrize("text", ['history_from = "2026-01"\n', 'history_from = "2026-01"\naccount = []\n'])
def test_no_account_is_a_mistake_too(text: str) -> None:
    assert mistakes(text) == ["accounts.toml:1: there is no [[account]]"]


@pytest.mark.parametrize("text", ['[account]\nprovider = "plivo"\n', "account = 1\n", "account = [1]\n"])
def test_accounts_are_written_in_double_brackets(text: str) -> None:
    assert "accounts are written as [[account]] tables" in mistakes('history_from = "2026-01"\n' + text)[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_http_is_for_this_machine_alone(host: str) -> None:
    text = FOUR.replace("https://api.talkdeskapp.com", f"http://{host}:8642/talkdesk")
    assert load(text).account("talkdesk", "main").base_url == f"http://{host}:8642/talkdesk"
    assert mistakes(FOUR.replace("https://api.talkdeskapp.com", f"http://{host}.example.com"))


def test_an_account_that_is_asked_for_and_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(KeyError, match=r"accounts\.toml has no account plivo/emea; it has plivo/main, ycloud/main"):
        load(FOUR).account("plivo", "emea")


def test_the_example_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    text = (Path(__file__).parents[1] / "accounts.example.toml").read_text()
    environment: dict[str, Any] = dict.fromkeys(re.findall(r'env = "(\w+)"', text), "x")
    assert read(text, "accounts.example.toml", environment, providers()).accounts


ALERTS = """
[alerts]                                    # line 32
webhook = { env = "HOOK" }
email_to = ["billing@example.com"]
email_from = "pipeline@example.com"
smtp_host = "smtp.example.com"
smtp_user = "me"
smtp_password = { env = "SMTP" }
"""
HOOK = "https://hooks.example.com/services/T0/B0/S3CR3T"


def test_alerts_are_off_until_they_are_configured() -> None:
    assert load(FOUR).alerts is None
    found = load(FOUR + ALERTS, HOOK=HOOK, SMTP="S3CR3T").alerts
    assert found
    assert (found.smtp_port, found.smtp_tls, found.drift_percent) == (587, "starttls", 5)
    assert "S3CR3T" not in repr(found) + str(found)
    assert {HOOK, "services/T0/B0/S3CR3T"} <= set(found.secrets())


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ('{ env = "HOOK" }', f'"{HOOK}"', 33, "webhook: a secret is named here, never written"),
        ('{ env = "SMTP" }', '"S3CR3T"', 38, "smtp_password: a secret is named here, never written"),
        ('{ env = "HOOK" }', '{ env = "NO_SUCH" }', 33, "webhook: the environment variable NO_SUCH is not set"),
        ("webhook =", "web_hook =", 33, "unknown key 'web_hook'; alerts knows drift_percent, email_from"),
        (
            '"billing@example.com"',
            '"billing@example.com\\r\\nBcc: all@example.com"',
            34,
            "email_to.0: must be an address such as billing@example.com",
        ),
        ('"smtp.example.com"', '"smtp.example.com\\r\\nX"', 36, "smtp_host: "),
        ('"smtp.example.com"', '"smtp.example.com"\nsmtp_tls = "none"', 32, "on this machine only"),
        ('smtp_user = "me"', "", 32, "smtp_user and smtp_password belong together"),
        ('smtp_host = "smtp.example.com"', "", 32, "email_to needs smtp_host and email_from"),
        ('webhook = { env = "HOOK" }\nemail_to = ["billing@example.com"]', "", 32, "so nobody would be told"),
        ('smtp_user = "me"', 'smtp_user = "me"\ndrift_percent = -1', 38, "drift_percent: "),
    ],
)
def test_a_mistake_in_alerts_is_told_with_its_line_and_without_the_secret(
    old: str, new: str, line: int, said: str
) -> None:
    assert old in ALERTS
    found = mistakes(FOUR + ALERTS.replace(old, new, 1), HOOK=HOOK, SMTP="S3CR3T")
    assert any(each.startswith(f"accounts.toml:{line}: ") and said in each for each in found), found
    assert "S3CR3T" not in str(found)


@pytest.mark.parametrize(
    "address",
    [
        "http://hooks.example.com/S3CR3T",
        "hooks.example.com/S3CR3T",
        "https://me:S3CR3T@hooks.example.com",
        "ftp://x/S3CR3T",
    ],
)
def test_a_webhook_is_https_and_a_wrong_one_is_not_told(address: str) -> None:
    found = mistakes(FOUR + ALERTS, HOOK=address, SMTP="x")
    assert "webhook: its variable must hold an https address" in str(found)
    assert "S3CR3T" not in str(found)
