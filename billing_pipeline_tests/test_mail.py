"""Alerts by e-mail over TLS: the mail server proves who it is before it hears a password."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from billing_pipeline import delivery
from billing_pipeline.accounts import AlertSettings
from billing_pipeline.alerts import Alert

from .conftest import Company
from .post_office import Post, post_office
from .self_signed import certificate

PASSWORD = "S3CR3T-of-the-mail-server"
WRONG = Alert(cause="failed", key="k", subject="plivo/main 2026-05", text="It is wrong.")


def told(company: Company, office: Post, tls: str) -> list[str]:
    settings = AlertSettings(
        email_to=("billing@example.com",),
        email_from="pipeline@example.com",
        smtp_host="localhost",
        smtp_port=office.port,
        smtp_tls=tls,
        smtp_user="me",
        smtp_password=SecretStr(PASSWORD),
    )
    company.line.configuration = replace(company.line.configuration, alerts=settings)
    return delivery.deliver(company.line, [WRONG])


@pytest.mark.parametrize("tls", ["starttls", "tls"])
def test_a_mail_goes_out_encrypted_to_a_server_that_is_who_it_says(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    certified = certificate(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(certified[0]))
    with post_office(tls, certified) as office:
        assert told(company, office, tls) == []
    assert len(office.mails) == 1
    in_the_clear = [line.split()[0] for line, encrypted in office.said if not encrypted]
    assert in_the_clear == ([b"ehlo", b"STARTTLS"] if tls == "starttls" else [])
    assert any(line.startswith(b"AUTH") for line, encrypted in office.said if encrypted)


@pytest.mark.parametrize("tls", ["starttls", "tls"])
@pytest.mark.parametrize("host", ["localhost", "mail.example.com"])
def test_a_server_that_nobody_vouches_for_or_of_another_name_hears_no_password(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: str, host: str
) -> None:
    certified = certificate(tmp_path, host)
    if host != "localhost":
        monkeypatch.setenv("SSL_CERT_FILE", str(certified[0]))
    with post_office(tls, certified) as office:
        (problem,) = told(company, office, tls)
    assert "CERTIFICATE_VERIFY_FAILED" in problem
    assert not any(line.startswith(b"AUTH") for line, _ in office.said)
    assert office.mails == []


def test_a_server_that_offers_no_encryption_hears_no_password(company: Company) -> None:
    with post_office("none") as office:
        (problem,) = told(company, office, "starttls")
    assert "STARTTLS" in problem
    assert not any(line.startswith(b"AUTH") for line, _ in office.said)
    assert office.mails == []
