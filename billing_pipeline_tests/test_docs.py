"""What README, CONTRIBUTING, the examples and the map say is true of the code."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
import typer.main
from dotenv import dotenv_values
from pytest_httpserver import HTTPServer

import billing_pipeline
from billing_pipeline import accounts
from billing_pipeline.__main__ import app
from billing_pipeline.failures import RERUN, Failure
from billing_pipeline.invoices import read as read_invoices
from billing_pipeline.providers import providers
from billing_pipeline.reconcile import money, plain
from billing_pipeline.verify import verify

from .conftest import Company

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "billing_pipeline"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
README = PAGES[0].read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
EXAMPLE = (ROOT / "accounts.example.toml").read_text()
NAMED = {name: f"value-of-{name.lower()}" for name in dotenv_values(ROOT / ".env.example")}
ONLY_INSIDE = {"Disturbed", "NotOffered"}  # carries the error that a person sees; is an answer, not an error


def fenced(language: str, text: str = README) -> list[str]:
    """The code blocks of one language, also of indented ones."""
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in blocks]


@pytest.fixture
def data(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """Some months of everybody, one of them restated; the current folder is the one that has data/."""
    for provider in ("plivo", "talkdesk", "ycloud"):
        for period in ("2026-05", "2026-06"):
            company.do(company.month(provider, "main", period))
    company.world.seed = "another company"
    company.do(company.month("plivo", "main", "2026-05"), explicit=True)
    company.line.publish()
    monkeypatch.chdir(company.line.data.parent)
    return company


def test_every_query_of_the_readme_answers_with_rows(data: Company) -> None:
    queries = fenced("sql")
    assert queries
    for query in queries:
        assert data.ask(query), query


def test_every_query_to_copy_answers_with_rows_unless_the_page_says_that_it_may_be_empty(data: Company) -> None:
    page = (ROOT / "docs" / "queries.md").read_text()
    queries = re.findall(r"([^\n]+)\n\n```sql\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(queries) == len(fenced("sql", page)) >= 12
    for said, query in queries:
        assert data.ask(query) or "(empty on a good day)" in said, query


def test_every_query_about_invoices_answers_with_rows(data: Company) -> None:
    data.line.list_invoices("talkdesk", "main")
    data.line.publish()
    queries = fenced("sql", (ROOT / "docs" / "invoices.md").read_text())
    assert len(queries) == 3
    for query in queries:
        assert data.ask(query), query


def test_the_invoices_toml_of_the_page_is_what_the_command_of_the_page_writes(data: Company) -> None:
    (written,) = fenced("toml", (ROOT / "docs" / "invoices.md").read_text())
    (invoice,) = read_invoices(written, "invoices.toml", {("plivo", "main")})
    command = re.search(
        r"^billing-pipeline invoice add (.*)$", (ROOT / "docs" / "invoices.md").read_text(), re.MULTILINE
    )
    assert command
    for value in (
        "plivo/main",
        str(invoice.period),
        invoice.number,
        invoice.currency,
        f"{invoice.amount}",
        f"{invoice.tolerance}",
    ):
        assert value in command[1].split()


def test_the_pandas_of_the_queries_keeps_exact_decimals(data: Company, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = fenced("python", (ROOT / "docs" / "queries.md").read_text())
    exec(block, {})  # noqa: S102  ours
    told = capsys.readouterr().out
    assert "dtype: decimal128(38, 18)" in told
    for period, provider, currency, cost in data.ask(
        "SELECT x_BillingPeriod, x_Provider, BillingCurrency, sum(BilledCost) FROM charges GROUP BY ALL"
    ):
        assert re.search(rf"{period}.*", told), (period, provider, currency)
        assert str(cost) in told


def test_the_python_of_the_readme_runs(data: Company, capsys: pytest.CaptureFixture[str]) -> None:
    for block in fenced("python"):
        exec(block, {})  # noqa: S102  ours
    assert "BilledCost" in capsys.readouterr().out


def test_the_tables_and_views_of_the_readme_are_those_of_the_warehouse(data: Company) -> None:
    found = data.ask(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE table_name NOT LIKE 'x\\_%' ESCAPE '\\' "
        "UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
    )
    for schema, name in found:
        assert f"`{name if schema == 'main' else f'{schema}.{name}'}`" in README


def test_the_rehearsal_of_the_readme_gives_the_numbers_it_shows(company: Company) -> None:
    shown = re.findall(r"^✓ (plivo|ycloud)/main 2026-05: .*; (.*)$", README, re.MULTILINE)
    came = []
    for moment in ("2026-05-20T06:00", "2026-06-03T06:00", "2026-06-05T06:00"):
        company.at(moment)
        for provider in ("plivo", "ycloud"):
            held = company.do(company.month(provider, "main", "2026-05"), explicit=True).held
            came.append((provider, f"{held.tally.rows} rows, {money(held.tally.totals)}, {held.status}"))
    assert shown == came


def test_the_story_of_a_month_gives_the_tables_it_shows(company: Company) -> None:
    page = (ROOT / "docs" / "history.md").read_text().partition("\n## ")[2].partition("\n## ")[0]
    may = company.month("plivo", "main", "2026-05")
    for moment in ("2026-05-20T06:00", "2026-06-03T06:00", "2026-06-05T06:00"):
        company.at(moment)
        company.do(may, explicit=True)
    company.at("2026-06-14T06:00")
    company.world.seed = "restated"
    company.do(may, explicit=True)
    company.line.approve(may, "somebody", "agreed by mail")
    company.line.publish()
    assert verify(company.line).findings == []
    tables = re.findall(
        r"^```sql\n(.*?)^```\n\n\|[^\n]*\n\|[ :|-]+\n(.*?)\n\n", page + "\n\n", re.DOTALL | re.MULTILINE
    )
    assert len(tables) == 4
    for query, table in tables:
        shown = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        assert [[_cell(value) for value in row] for row in company.ask(query)] == shown, query


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M}"
    return "" if value is None else plain(value) if isinstance(value, Decimal) else str(value)


def test_every_command_and_option_that_is_named_exists() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        text = page.read_text()
        for name, rest in re.findall(r"billing-pipeline (\w[\w-]*)([^`\n]*)", text):
            assert name in commands, f"{page.name}: billing-pipeline {name}"
            command = commands[name]
            inner = re.match(r" (\w[\w-]*)", rest)
            if hasattr(command, "commands") and inner:
                assert inner[1] in command.commands, f"{page.name}: billing-pipeline {name}{rest}"
                command = command.commands[inner[1]]
            options = {"--help"} | {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"--[a-z]+", rest.partition("#")[0])) <= options, f"{page.name}: {name}{rest}"
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets, page.name


@pytest.mark.parametrize("wrong", ["refresh --period 2026-5", "callbacks --listen here:there", "status"])
def test_a_wrong_argument_or_configuration_is_told_without_a_traceback_and_exits_with_2(wrong: str) -> None:
    named = {"BILLING_ACCOUNTS": "/nowhere/accounts.toml"} if wrong == "status" else {}
    command = [sys.executable, "-m", "billing_pipeline", *wrong.split()]
    done = subprocess.run(command, env=os.environ | named, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_every_variable_that_is_named_is_read_and_every_one_that_is_read_is_named() -> None:
    read = set(re.findall(r'"(BILLING_\w+)"', (PACKAGE / "environment.py").read_text()))
    assert {name for page in PAGES for name in re.findall(r"BILLING_[A-Z]+", page.read_text())} <= read
    for place in (OPERATIONS, (ROOT / ".env.example").read_text()):
        assert set(re.findall(r"BILLING_[A-Z]+", place)) == read


def test_the_example_of_accounts_loads_with_the_variables_of_the_example_of_env() -> None:
    configuration = accounts.read(EXAMPLE, "accounts.example.toml", NAMED, providers())
    assert {settings.provider for settings in configuration.accounts} == set(providers())
    blocks = tomllib.loads(EXAMPLE)["account"]
    assert {v["env"] for block in blocks for v in block.values() if isinstance(v, dict) and "env" in v} == set(NAMED)


def test_the_optional_lines_of_the_example_load_too() -> None:
    lines = re.sub(r"^# ([a-z_]+ = |\[alerts\])", r"\1", EXAMPLE, flags=re.MULTILINE)
    assert lines != EXAMPLE
    optional = re.findall(r"^# (ALERTS_\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    named = NAMED | dict.fromkeys(optional, "https://hooks.example.com/services/T0/B0")
    found = accounts.read(lines, "accounts.example.toml", named, providers())
    assert found.alerts
    assert set(tomllib.loads(lines)["alerts"]) == set(accounts.AlertSettings.model_fields)


def test_every_key_of_an_account_is_in_the_example_and_on_a_page() -> None:
    for provider in providers().values():
        for key in provider.settings.model_fields:
            assert re.search(rf"\b{key}\b", EXAMPLE), f"{provider.name}: {key}"
            page = ROOT / "docs" / "providers" / f"{provider.name}.md"
            assert f"`{key}`" in README + page.read_text(), f"{provider.name}: {key}"
    for key in accounts.AlertSettings.model_fields:
        assert f"`{key}`" in OPERATIONS, f"alerts: {key}"


def errors() -> dict[str, type[Exception]]:
    """Every exception of the package, by its name."""
    found = {}
    for module in PACKAGE.rglob("*.py"):
        if "sandbox" in module.relative_to(PACKAGE).parts:
            continue
        for name in re.findall(r"^class ([A-Z]\w+)\(Exception\)", module.read_text(), re.MULTILINE):
            path = ".".join(module.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = getattr(importlib.import_module(path), name)
    return {name: kind for name, kind in found.items() if name not in ONLY_INSIDE}


def test_every_error_says_whether_a_rerun_helps_and_has_its_chapter_that_says_the_same() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    chapters = re.findall(r"^### (.*)\n\n`(\w+)` · a rerun helps: \*\*(\w+)\*\*$", page, re.MULTILINE)
    told = {kind: (title, rerun) for title, kind, rerun in chapters}
    assert len(errors()) > 15
    for name, kind in errors().items():
        failure = Failure.of("plivo/main 2026-05", kind.__new__(kind))
        title, rerun = told.pop(name)
        assert failure.rerun == rerun, name
        assert failure.chapter == title.lower().replace(" ", "-"), name
        assert str(failure).startswith("plivo/main 2026-05: "), name
        assert str(failure).endswith(f" See docs/errors.md#{failure.chapter}"), name
        row = next(line for line in README.splitlines() if f"`{name}`" in line and line.startswith("| *"))
        assert RERUN[failure.rerun].startswith(row.split("*")[1]), name
    assert not set(told) - {"OSError"}, "a chapter about an exception that is no more"


def test_an_error_of_the_machine_and_one_that_nobody_expected_have_chapters_too() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    for error in (OSError(28, "No space left on device"), KeyError("total")):
        failure = Failure.of("plivo/main 2026-05", error)
        title = failure.chapter.replace("-", " ").capitalize()
        assert f"### {title}\n" in page


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            file, _, anchor = target.partition("#")
            linked = page.parent / file if file else page
            assert linked.exists(), f"{page.name}: {target}"
            heads = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert not anchor or anchor in slugs, f"{page.name}: {target}"


def test_the_map_names_every_module_and_each_imports_only_those_above_it() -> None:
    order = re.findall(r"^    (\w+)/? {2,}\S", str(billing_pipeline.__doc__).partition("inside out")[2], re.MULTILINE)
    place = {name: number for number, name in enumerate(order)}
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).parts
        name = own[0].removesuffix(".py")
        if name == "__init__":
            continue
        assert name in place, f"{name} is not in the map, the docstring of billing_pipeline/__init__.py"
        for other in _imported(file, own):
            outward = name == "sandbox" or (other == "sandbox" and name != "commands")
            assert place[other] < place[name] and not outward, (  # noqa: PT018  one sentence
                f"{'/'.join(own)} imports {other}, and the map in billing_pipeline/__init__.py does not let it"
            )


def _imported(file: Path, own: tuple[str, ...]) -> set[str]:
    """Modules and folders directly below the package that a file imports, its own folder left out."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level == len(own):  # `from .x` in the package, `from ..x` in one of its folders
                found |= {module.partition(".")[0]} if module else {name.name for name in node.names}
            elif module.startswith("billing_pipeline."):
                found.add(module.split(".")[1])
    return found - {own[0].removesuffix(".py")}


def test_the_example_of_a_fifth_provider_needs_nothing_but_its_module(tmp_path: Path, httpserver: HTTPServer) -> None:
    shutil.copytree(PACKAGE, tmp_path / "billing_pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    (module,) = fenced("python", PAGES[1].read_text())
    (tmp_path / "billing_pipeline" / "providers" / "fivetel.py").write_text(module)
    (tmp_path / "accounts.toml").write_text(
        f'history_from = "2026-05"\n[[account]]\nprovider = "fivetel"\nname = "main"\n'
        f'base_url = "{httpserver.url_for("")}"\napi_key = {{ env = "FIVETEL_KEY" }}\n'
    )
    bill = {"month": "2026-05", "total": 0.3, "rows": []}
    bill["rows"] = [{"product": "fax", "currency": "EUR", "amount": amount} for amount in (0.1, 0.2)]
    httpserver.expect_request("/bill", query_string="month=2026-05", headers={"X-Key": "k"}).respond_with_json(bill)
    # PYTHONPATH is for the copy: without it the folder of the installed package might be found first.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    environment = {**clean, "FIVETEL_KEY": "k", "BILLING_NOW": "2026-06-10T06:00:00Z", "PYTHONPATH": str(tmp_path)}

    def run(*command: str, status: int = 0) -> str:
        done = subprocess.run(  # noqa: S603
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    assert "2 rows, 0.3 EUR, final" in run("-m", "billing_pipeline", "refresh", "--period", "2026-05")
    with duckdb.connect(str(tmp_path / "data" / "warehouse.duckdb"), read_only=True) as db:
        assert db.execute("SELECT x_Provider, BilledCost::VARCHAR FROM monthly_cost").fetchall() == [
            ("fivetel", "0.300000000000000000")
        ]
        assert db.execute("SELECT DISTINCT BillingAccountId FROM charges").fetchall() == [("main",)]
        assert db.execute("SELECT DISTINCT x_Coverage FROM coverage WHERE x_BillingPeriod = '2026-05'").fetchall() == [
            ("seen",)
        ]
    httpserver.expect_request("/bill", query_string="month=2026-06").respond_with_json({"month": "2026-06", "rows": []})
    told = run("-m", "billing_pipeline", "refresh", "--period", "2026-06", status=1)
    assert "page 1 is not what Fivetel documents" in told
    assert "docs/errors.md#unexpected-shape" in " ".join(told.split())
    assets = "from billing_pipeline.definitions import defs; print([str(a.key) for a in defs.load_fn().assets])"
    assert "fivetel" in run("-c", assets)
