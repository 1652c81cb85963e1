"""Imports point one way; who may know what is a rule, and this says it with a sentence when it is broken."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "billing_pipeline"

ORDER = [
    {"answers", "beside", "deadline", "drafts", "misconfigured", "period", "progress", "redaction", "schema", "shapes"},
    {"mailbox", "pace", "terminal"},
    {"transport"},
    {"finality", "reconcile", "callbacks"},
    {"charges"},
    {"rows"},
    {"provider"},
    {"providers", "accounts", "leftovers"},
    {"bodies", "invoices", "scratch"},
    {"landing"},
    {"failures", "following", "ledger", "lake", "matching", "together"},
    {"history", "making", "stored"},
    {"coverage", "layout", "lifecycle", "overlap"},
    {"warehouse"},
    {"comparing"},
    {"loading"},
    {"corrections", "invoice_lists", "snapshot"},
    {"line"},
    {"alerts"},
    {"delivery"},
    {"equality", "replay"},
    {"verify"},
    {"asking"},
    {"invoiced", "month_facts"},
    {"month_plots", "month_tables"},
    {"month_page"},
    {"month_files"},
    {"development_plot", "environment", "focus", "importing"},
    {"reports"},
    {"untold"},
    {"telling"},
    {"child", "status", "under_way"},
    {"ahead"},
    {"account_work", "alert_sensors", "as_of", "assets", "export", "restatements"},
    {"account_process"},
    {"refresh"},
    {"completion", "definitions", "ui"},
    {"commands"},
    {"__main__"},
]
"""Each layer may import the ones above it. Within a layer only what BESIDE allows."""

BESIDE = {("warehouse", "layout")}
PURE = {"development_plot", "focus", "period", "redaction", "schema", "finality", "reconcile", "charges", "rows"}
IMPURE = {
    "httpx",
    "duckdb",
    "dagster",
    "os",
    "pathlib",
    "socket",
    "time",
    "subprocess",
    "random",
    "logging",
    "tempfile",
}
COMMANDS = ("arguments", "deciding", "exporting", "fetching", "looking", "proving", "serving")
ONLY_IN = {
    "httpx": {"transport"},
    "dagster": {
        "alert_sensors",
        "assets",
        "definitions",
        "reports",
        "telling",
        "ui",
        "under_way",
    },
    "duckdb": {"asking", "equality", "export", "history", "layout", "matching", "scratch", "stored", "warehouse"},
    "matplotlib": {"month_plots"},  # takes a second to import: only while something is drawn
    "jinja2": {"month_page"},
    "typer": {"__main__", *(f"commands.{name}" for name in COMMANDS)},
    "dotenv": {"environment"},
    "h11": {"callbacks"},
}
LAYER = {name: number for number, names in enumerate(ORDER) for name in names}


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the product, as `line` or `providers.plivo.pages`; the sandbox is not the product's."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] != "sandbox" and parts != ("__init__",):
            yield ".".join(part for part in parts if part != "__init__") or "providers", path


def imported(path: Path) -> Iterator[str]:
    """Absolute names of what a file imports, at its top or inside a function; what only types need is left out."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = ("billing_pipeline", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                if node.level
                else [node.module]
            )
            name = ".".join(filter(None, base))
            yield name
            if name in ("billing_pipeline", "billing_pipeline.providers") or node.module is None:
                yield from (f"{name}.{alias.name}" for alias in node.names)


def ours(path: Path) -> Iterator[str]:
    """What a file imports of this package, without the package's name."""
    for name in imported(path):
        if name.startswith("billing_pipeline."):
            yield name.removeprefix("billing_pipeline.")


MODULES = dict(modules())


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name: str) -> None:
    top = name.partition(".")[0]
    assert top in LAYER, f"{name} is new: say in ORDER which modules may import it"
    for other in ours(MODULES[name]):
        theirs = other.partition(".")[0]
        if theirs == top:
            continue
        if theirs == "sandbox":
            assert top == "commands", f"{name} imports the sandbox; only the commands that start it may"
            continue
        assert theirs in LAYER, f"{name} imports {other}, which ORDER does not know"
        assert LAYER[theirs] < LAYER[top] or (top, theirs) in BESIDE, (
            f"{name} imports {theirs}, which is further out or beside it: move what both need further in, or pass it in"
        )


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("providers.")])
def test_a_provider_knows_no_other_provider(name: str) -> None:
    own = name.split(".")[1].removeprefix("_")
    for other in ours(MODULES[name]):
        if other.startswith("providers."):
            theirs = other.split(".")[1].removeprefix("_")
            assert theirs.partition("_")[0] == own.partition("_")[0], (
                f"{name} imports {other}: what two providers share belongs further in, or to neither"
            )
        assert other.partition(".")[0] not in {"accounts", "landing", "lake", "ledger", "warehouse", "line"}, (
            f"{name} imports {other}: a provider fetches and reads, and knows nothing of where it is kept"
        )


def test_the_sandbox_imports_nothing_of_the_product() -> None:
    for path in (PACKAGE / "sandbox").rglob("*.py"):
        for other in ours(path):
            assert other.partition(".")[0] == "sandbox", (
                f"sandbox/{path.name} imports {other}: a test partner that shares our code shares our mistakes"
            )


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_core_touches_no_network_disk_or_clock(name: str) -> None:
    for other in imported(MODULES[name]):
        assert other.partition(".")[0] not in IMPURE, (
            f"{name} imports {other}: the core is told everything it needs to know"
        )


@pytest.mark.parametrize("name", MODULES)
def test_only_the_environment_reads_variables_and_the_clock(name: str) -> None:
    if name == "environment":
        return
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        text = ast.unparse(node)
        allowed = {"os.environ"} if name == "ui" else set()
        assert text not in {"os.getenv", "os.putenv", "os.environ"} - allowed, (
            f"{name} reads {text}: variables are read in environment.py alone (ui hands them on to its children)"
        )
        assert text not in {
            "datetime.now",
            "datetime.utcnow",
            "datetime.today",
            "date.today",
            "time.time",
            "time.time_ns",
        }, f"{name} calls {text}: the clock is passed in, so that a month's end can be rehearsed"


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_with_effects_is_known_where_it_belongs_and_nowhere_else(library: str) -> None:
    users = {name for name, path in MODULES.items() if library in {other.partition(".")[0] for other in imported(path)}}
    assert users <= ONLY_IN[library], (
        f"{library} is imported by {users - ONLY_IN[library]}; it belongs to {ONLY_IN[library]}"
    )


def test_no_module_says_that_nobody_knew_what_it_is() -> None:
    assert not {"utils", "helpers", "common", "base", "manager", "data", "misc"} & {
        name.split(".")[-1] for name in MODULES
    }
