"""Months against their real invoices: written down or listed by the provider, explained, and never judged too early."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr
from rich.console import Console

from billing_pipeline import invoiced, reports, status
from billing_pipeline import refresh as work
from billing_pipeline.accounts import WrongConfiguration
from billing_pipeline.asking import Unanswerable, ask
from billing_pipeline.assets import ALIVE, invoices_asset, warehouse_asset
from billing_pipeline.invoices import Invoice, block, merged, read
from billing_pipeline.landing import DamagedLanding
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers.talkdesk.invoices import parse
from billing_pipeline.rows import UnexpectedShape
from billing_pipeline.sandbox.talkdesk import LICENCES, USAGE_ONLY
from billing_pipeline.verify import verify

from . import harness
from .conftest import Company

MAY = "2026-05"
ACCOUNTS = {("plivo", "main"), ("talkdesk", "main")}
COLUMNS = "x_BillingPeriod, BillingCurrency, x_Ours, x_Invoice, x_Explained, x_Unexplained, x_Verdict"
VERDICTS = f"SELECT {COLUMNS} FROM reconciliation "


def invoice(amount: str, number: str = "1", **others: Any) -> Invoice:
    known: dict[str, Any] = {
        "provider": "plivo",
        "account": "main",
        "period": BillingPeriod(2026, 5),
        "currency": "USD",
    }
    return Invoice(amount=Decimal(amount), number=number, **{**known, **others})


def written(company: Company, *invoices: Invoice) -> None:
    """Publish with these in invoices.toml."""
    text = "\n".join(block(one) for one in invoices)
    company.line.invoices = lambda: read(text, "invoices.toml", ACCOUNTS)
    company.line.publish()


@pytest.fixture
def closed(company: Company) -> tuple[Company, Decimal]:
    """May of Plivo, final."""
    company.do(company.month("plivo", "main", MAY))
    company.line.publish()
    return company, company.shown(company.month("plivo", "main", MAY))[1]["USD"]


def test_a_month_agrees_disagrees_or_is_not_judged_yet(closed: tuple[Company, Decimal]) -> None:
    company, ours = closed
    company.do(company.month("plivo", "main", "2026-06"))
    tax = (("tax", Decimal("12.34")), ("credit note", Decimal("-2")))
    for difference, verdict in (
        ("0", "agrees"),
        ("0.05", "agrees"),
        ("-0.05", "agrees"),
        ("0.050000000000000001", "disagrees"),
    ):
        total = ours + Decimal("10.34") + Decimal(difference)
        written(company, invoice(str(total), explained=tax, tolerance=Decimal("0.05")))
        ((period, currency, held, amount, explained, left, said),) = company.ask(
            VERDICTS + "WHERE x_BillingPeriod = '2026-05'"
        )
        assert (period, currency, held, amount) == (MAY, "USD", ours, total)
        assert (explained, left, said) == (Decimal("10.34"), Decimal(difference), verdict)
    assert not reports.invoices(company.line).passed
    check = reports.invoices(company.line).description
    assert check
    assert "plivo/main 2026-05: invoice 1 is" in check
    assert "tax 12.34" in check
    written(company, invoice("1", period=BillingPeriod(2026, 6)), invoice("1", "2", period=BillingPeriod(2026, 4)))
    said = dict(company.ask("SELECT x_BillingPeriod, x_Verdict FROM reconciliation"))
    assert said == {"2026-04": "never fetched", "2026-05": "no invoice", "2026-06": "not final yet"}
    assert reports.invoices(company.line).passed


def test_a_month_that_disagrees_is_told_also_where_little_memory_is_not_enough(
    closed: tuple[Company, Decimal], monkeypatch: pytest.MonkeyPatch
) -> None:
    company, ours = closed
    written(company, invoice(str(ours + 1)))
    monkeypatch.setattr(invoiced, "MEMORY", "1KB")
    with pytest.raises(Unanswerable, match="Out of Memory"):
        list(ask(company.line.warehouse.path, VERDICTS, invoiced.MEMORY))
    assert [judged.month for judged in invoiced.said(company.line.warehouse.path).disagreements] == [
        "plivo/main 2026-05"
    ]
    assert not reports.invoices(company.line).passed


def test_several_invoices_of_a_month_add_up_and_another_currency_stands_by_itself(
    closed: tuple[Company, Decimal],
) -> None:
    company, ours = closed
    written(company, invoice(str(ours - 100)), invoice("100.01", "2"), invoice("5", "3", currency="EUR"))
    assert company.ask(VERDICTS) == [
        (MAY, "EUR", Decimal(0), Decimal(5), Decimal(0), Decimal(5), "disagrees"),
        (MAY, "USD", ours, ours + Decimal("0.01"), Decimal(0), Decimal("0.01"), "agrees"),  # a cent each
    ]


def test_an_invoice_of_before_a_correction_agrees_as_the_month_was_closed(closed: tuple[Company, Decimal]) -> None:
    company, ours = closed
    company.world.seed = "another company"
    may = company.month("plivo", "main", MAY)
    company.do(may, explicit=True)
    company.line.approve(may, "a person", "agreed")
    now = company.line.ledger.of(may)[-2].tally.totals["USD"]
    assert now != ours
    for amount, verdict in ((ours, "agrees as it was closed"), (now, "agrees"), (now + 1, "disagrees")):
        written(company, invoice(str(amount)))
        ((_, _, held, *_, said),) = company.ask(VERDICTS)
        assert (held, said) == (now, verdict)
    assert reports.invoices(company.line).passed is False


def test_talkdesks_list_is_landed_traceable_and_explains_what_the_usage_list_lacks(company: Company) -> None:
    company.do(company.month("talkdesk", "main", MAY))
    asked = company.line.list_invoices("talkdesk", "main")
    assert asked
    assert asked.outcome == "listed"
    company.line.publish()
    rows = company.ask(
        "SELECT x_Unexplained, x_Tolerance, x_Explained, BillingCurrency, x_Verdict FROM reconciliation "
        "WHERE x_BillingPeriod = '2026-05'"
    )
    assert len(rows) == 3  # an invoice for each account of the organization
    for left, tolerance, explained, currency, verdict in rows:
        assert abs(left) <= tolerance
        assert verdict == "agrees"
        assert explained == LICENCES[2] if currency == "EUR" else explained > LICENCES[2]
    assert reports.invoices(company.line).passed
    for where, amount in company.ask("SELECT x_RowSource, x_LineAmount FROM invoice_lines"):
        landing, place = where.split("#")
        page = next(iter(company.line.invoice_lists.newest()))
        body = next(each for each in page if landing == f"{page.id}/{each.number}").read()
        found = json.loads(body, parse_float=Decimal, parse_int=Decimal)["_embedded"]["invoices"]
        assert found[int(place.removeprefix("/_embedded/invoices/"))]["amount"] == amount
    assert verify(company.line).findings == []


def test_a_cent_that_talkdesk_invoices_too_much_is_told(company: Company) -> None:
    company.do(company.month("talkdesk", "main", MAY))
    company.line.list_invoices("talkdesk", "main")
    company.line.publish()
    number, amount, payer = company.ask(
        "SELECT InvoiceId, x_InvoiceAmount, BillingAccountId FROM invoices WHERE x_BillingPeriod = '2026-05' ORDER BY 1"
    )[0]
    talkdesk = {"provider": "talkdesk", "tolerance": Decimal("0.1")}
    written(company, invoice(str(amount), number, **talkdesk))
    verdict = f"SELECT x_Verdict, BillingAccountId FROM reconciliation WHERE x_Invoices = '{number}'"
    assert company.ask(verdict) == [("agrees", payer)]
    written(company, invoice(str(amount), number, explained=(("tax", Decimal(1)),), **talkdesk))
    assert company.ask(verdict) == [("disagrees", payer)]  # what is written counts instead of what the lines suggest
    written(company, invoice(str(amount + Decimal("0.01")), number, **talkdesk))
    assert company.ask(verdict) == [("the provider states another invoice", payer)]
    assert "another total" in str(reports.invoices(company.line).description)


def test_a_client_without_the_scope_is_told_as_not_available_and_its_months_are_fetched(company: Company) -> None:
    line = company.line
    limited = tuple(
        settings.model_copy(update={"client_id": SecretStr(USAGE_ONLY[0]), "client_secret": SecretStr(USAGE_ONLY[1])})
        if settings.provider == "talkdesk"
        else settings
        for settings in line.configuration.accounts
    )
    object.__setattr__(line.configuration, "accounts", limited)
    company.do(company.month("talkdesk", "main", MAY))
    asked = line.list_invoices("talkdesk", "main")
    assert asked
    assert (asked.outcome, asked.why) == ("not available", "the client lacks the scope express-accounts-invoices:read")
    line.publish()
    assert company.ask("SELECT x_Outcome, x_Landing FROM invoice_lists") == [("not available", None)]
    assert reports.invoices(line).passed
    assert "not available" in str(reports.invoices(line).metadata)
    assert verify(line).findings == []


def test_the_asset_of_a_list_lands_it_and_the_warehouse_has_the_check(company: Company) -> None:
    company.do(company.month("talkdesk", "main", MAY))
    provider, settings = company.line.providers["talkdesk"], company.line.configuration.account("talkdesk", "main")
    asset = invoices_asset(company.line, provider, settings, "0 6 * * *")
    with dg.DagsterInstance.ephemeral() as instance:
        assets = [asset, warehouse_asset(company.line, [asset])]
        done = dg.materialize(assets, resources=ALIVE, instance=instance)
    (came,) = done.asset_materializations_for_node("talkdesk__main__invoices")
    assert came.metadata["what came"].value == "listed"
    assert {check.check_name: check.passed for check in done.get_asset_check_evaluations()}["invoices_agree"]


def test_a_provider_without_a_list_is_not_asked(company: Company) -> None:
    assert company.line.list_invoices("plivo", "main") is None
    assert company.world.requests("plivo") == []


def test_a_list_that_says_nothing_new_is_not_kept_and_one_that_does_is(company: Company) -> None:
    company.do(company.month("talkdesk", "main", MAY))

    def landings() -> list[Path]:
        return sorted((company.line.data / "raw/talkdesk/main/invoices").iterdir())

    company.line.list_invoices("talkdesk", "main")
    first = landings()
    company.at("2026-06-16T12:00")
    company.line.list_invoices("talkdesk", "main")
    assert landings() == first
    company.line.publish()
    assert company.ask("SELECT x_AskedAt::DATE::VARCHAR FROM invoice_lists") == [("2026-06-16",)]
    company.at("2026-07-06T12:00")  # June's invoices are there
    company.line.list_invoices("talkdesk", "main")
    assert len(landings()) == 2
    company.line.publish()
    assert company.ask("SELECT count(*) FROM invoices WHERE x_BillingPeriod = '2026-06'") == [(3,)]
    assert verify(company.line).findings == []


def test_a_changed_byte_of_a_list_is_found(company: Company) -> None:
    company.do(company.month("talkdesk", "main", MAY))
    company.line.list_invoices("talkdesk", "main")
    company.line.publish()
    (bodies,) = (company.line.data / "raw/talkdesk/main/invoices").glob("*/bodies.zst")
    content = bytearray(bodies.read_bytes())
    content[-1] ^= 1
    bodies.write_bytes(content)
    assert any("invoices" in finding.where for finding in verify(company.line).findings)
    with pytest.raises((DamagedLanding, OSError)):
        company.line.publish()


def test_an_outage_of_the_list_leaves_what_is_known(company: Company) -> None:
    company.line.list_invoices("talkdesk", "main")
    company.world.fail("talkdesk", [503] * 20)
    with pytest.raises(Exception, match="503"):
        company.line.list_invoices("talkdesk", "main")
    company.world.fail("talkdesk", [])
    company.line.publish()
    assert company.ask("SELECT count(*) > 0 FROM invoices") == [(True,)]


def row(**others: object) -> str:
    known = {"id": "a", "account ID": "x", "number": "1", "date": "2026-06-01", "currency": "USD",
             "total_invoice_amount": 3.3, "product_id": None, "description": "tax", "amount": 3.3}  # fmt: skip
    return json.dumps(known | others)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([row(amount=None)], "amount is missing"),
        ([row(number="")], "number is missing"),
        ([row(**{"account ID": None})], "account ID is missing"),
        ([row(currency="usd")], "currency"),
        ([row(date="soon")], "date"),
        ([row(), row(amount=1)], "another content"),
        ([row(amount="1.0000000000000000001")], "refused, not rounded"),
        ([row(total_invoice_amount="1e-57")], "refused, not rounded"),
        ([row(amount="NaN")], "refused, not rounded"),
        ([row(amount="much")], "an amount a number"),
    ],
)
def test_a_line_that_is_not_as_documented_is_not_left_out(rows: list[str], why: str) -> None:
    body = f'{{"_embedded": {{"invoices": [{", ".join(rows)}]}}}}'
    with pytest.raises(UnexpectedShape, match=why):
        list(parse([harness.page(body)]))


def test_a_repeated_line_counts_once_and_january_invoices_december() -> None:
    body = f'{{"_embedded": {{"invoices": [{row(date="2027-01-01")}, {row(date="2027-01-01")}]}}}}'
    (line,) = parse([harness.page(body)])
    assert (str(line.period), line.amount, line.total) == ("2026-12", Decimal("3.3"), Decimal("3.3"))


GOOD = """
[[invoice]]
provider = "plivo"
account = "main"
month = "2026-05"
currency = "USD"
amount = "1.10"
number = "1"
"""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (GOOD.replace('"1.10"', "1.10"), "amount: must be text"),
        (GOOD.replace('"1.10"', '"1,234.10"'), "is not an amount"),
        (GOOD.replace('"1.10"', '"NaN"'), "is not an amount"),
        (GOOD.replace('"1.10"', '"1.1234567890123456789"'), "is not an amount"),
        (GOOD.replace("main", "mian"), "there is no account plivo/mian; there are plivo/main"),
        (GOOD.replace("2026-05", "May 2026"), "2026"),
        (GOOD.replace('"USD"', '"dollars"'), "three capital letters"),
        (GOOD.replace("number =", "nummer ="), "unknown key 'nummer'"),
        (GOOD + GOOD, "number 1 stands at invoices.toml:2 too"),
        (GOOD + 'tolerance = "-1"', "must not be below 0"),
        (GOOD + "explained = [{ label = 'tax' }]", "must be a list such as"),
        ("[[invoice", "no TOML"),
        ("[invoices]", "unknown key 'invoices'"),
    ],
)
def test_a_wrong_invoices_toml_is_told_with_the_line_to_mend(wrong: str, why: str) -> None:
    with pytest.raises(WrongConfiguration, match=why) as told:
        read(wrong, "invoices.toml", ACCOUNTS)
    assert str(told.value).startswith("invoices.toml")


def test_what_is_written_is_read_again_to_the_last_digit() -> None:
    odd = invoice(
        "-12345678901234567890.123456789012345678", 'a"\\ü\n', tolerance=Decimal(0), billing_account="x",
        explained=(("tax", Decimal("0.000000000000000001")), ('"', Decimal(-1))),
    )  # fmt: skip
    (again,) = read(block(odd), "", ACCOUNTS)
    assert again == Invoice(**{**vars(odd), "source": again.source})
    assert merged([again], []) == [again]


def test_a_mistake_in_invoices_toml_keeps_no_month_from_being_fetched(company: Company) -> None:
    company.line.invoices = lambda: read(GOOD.replace("main", "mian"), "invoices.toml", ACCOUNTS)
    may = company.month("plivo", "main", MAY)
    assert company.do(may).held.final
    with pytest.raises(WrongConfiguration):
        company.line.publish()


def test_the_command_writes_publishes_and_says_what_came_of_it(closed: tuple[Company, Decimal], tmp_path: Path) -> None:
    company, ours = closed
    toml = tmp_path / "invoices.toml"
    toml.write_text("# mine\n")

    def add(*arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
        return subprocess.run(  # noqa: S603
            [sys.executable, "-m", "billing_pipeline", *arguments],
            cwd=tmp_path,
            env=clean | {"BILLING_NOW": "2026-06-15T12:00:00Z", "BILLING_SANDBOX": company.address},
            capture_output=True,
            text=True,
            check=False,
        )

    usual = ["invoice", "add", "plivo/main", MAY, "--currency", "USD"]
    done = add(*usual, "--number", "1", "--amount", str(ours + 12), "--explained", "tax=12")
    assert done.returncode == 0, done.stderr
    assert "unexplained 0 USD: agrees" in done.stdout
    done = add(*usual, "--number", "2", "--amount", "1", "--tolerance", "0.5")
    assert done.stdout.rstrip().endswith("disagrees")
    assert "✗ plivo/main 2026-05: invoice 1, 2 is" in " ".join(add("status").stdout.split())
    kept = toml.read_text()
    assert kept.startswith("# mine\n")
    for wrong in (["--number", "2", "--amount", "1"], ["--number", "3", "--amount", "1,000.00"]):
        done = add(*usual, *wrong)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
    assert toml.read_text() == kept
    assert "agrees" in add("sql", "SELECT x_Verdict FROM reconciliation").stdout


def test_refresh_asks_for_the_lists_and_says_what_is_not_available(company: Company) -> None:
    console = Console(record=True, width=200)
    done = work.refresh(company.line, console, providers=["talkdesk"])
    assert not [outcome for outcome in done if outcome.failure]
    assert company.ask("SELECT count(*) > 0 FROM invoice_lines") == [(True,)]
    status.show(company.line, console)
    assert "invoice" not in console.export_text()  # it speaks only when something is wrong
