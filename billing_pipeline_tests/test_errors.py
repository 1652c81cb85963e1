"""What a tired person is told when something fails: who, which month, what came, whether a rerun helps, what to do."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console

from billing_pipeline import definitions, refresh, reports, telling
from billing_pipeline.answers import Refused
from billing_pipeline.failures import Failure, printable
from billing_pipeline.landing import Partition
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.world import Clock, World

from .conftest import Company, free_port
from .test_cli import NOW, PLIVO, Desk

PROJECT = Path(__file__).parent.parent
CHARGES = dg.AssetKey(["plivo", "main", "charges"])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """An empty folder, and a sandbox on a free port, on 15 June 2026."""
    world = World(Clock(datetime.fromisoformat(NOW).astimezone(UTC)))
    world.enforce_limits = False
    with running(port=free_port(), world=world) as address:
        yield Desk(tmp_path, world, address, {"BILLING_SANDBOX": address, "BILLING_NOW": NOW})


def test_refresh_says_what_failed_and_why_what_is_shown_instead_and_what_is_up_to_date(desk: Desk) -> None:
    other = PLIVO.split("\n", 1)[1].replace('"main"', '"other"').replace("MAACMERETAILSANDBOX1", "MAACMEEMEASANDBOX002")
    desk.configure(PLIVO + other.replace("PLIVO_TOKEN", "PLIVO_OTHER"))
    desk.variables |= {"PLIVO_OTHER": "sandbox-plivo-emea-token"}
    assert desk.type("refresh", "--account", "main", "--period", "2026-06")[0] == 0
    rows = desk.months()["plivo", "main", "2026-06"]["x_Totals"]["USD"]
    desk.variables |= {"PLIVO_TOKEN": "sandbox-plivo-emea-token"}  # main has another's credentials
    status, said = desk.type("refresh", COLUMNS="1000")
    assert status == 1
    summary = said.partition("2 of 4 failed: ")[2]
    assert "✗ plivo/main 2026-05, 2026-06: 401 from GET 127.0.0.1/plivo/" in summary, said
    assert summary.count("401 from") == 1, "the same reason is told once"
    assert "2026-05 shows nothing yet: it was never fetched completely" in summary
    assert f"2026-06 shows what it showed before: {rows} USD, provisional, fetched 2026-06-15T12:00:00Z" in summary
    assert "A rerun cannot help before a person has done something. Mend what the answer names" in summary
    assert "See docs/errors.md#refused" in summary
    assert "2 of 4 are up to date: plivo/other 2026-05, 2026-06 Warehouse:" in summary
    assert "sandbox-plivo" not in said


def test_status_shows_a_month_whose_last_try_failed_until_one_succeeds(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh", "--period", "2026-06")[0] == 0
    desk.world.fail("plivo", [403] * 2)
    assert desk.type("refresh")[0] == 1
    months = desk.months()
    for period, finality in (("2026-05", "not fetched yet"), ("2026-06", "provisional")):
        month = months["plivo", "main", period]
        assert month["x_Finality"] == finality
        assert month["x_Failure"]["kind"] == "Refused"
        assert month["x_Failure"]["since"] == "2026-06-15T12:00:00Z"
        assert month["x_Failure"]["advice"].endswith("See docs/errors.md#refused")
    assert "provisional, FAILED (Refused)" in desk.type("status", COLUMNS="200")[1]
    desk.world.fail("plivo", [403])
    assert desk.type("refresh", "--period", "2026-06", BILLING_NOW="2026-06-16T06:00:00Z")[0] == 1
    assert desk.months()["plivo", "main", "2026-06"]["x_Failure"]["since"] == "2026-06-15T12:00:00Z"
    assert desk.type("refresh")[0] == 0
    assert {month["x_Failure"] for month in desk.months().values()} == {None}
    assert "FAILED" not in desk.type("status")[1]
    assert list((desk.folder / "data" / "failures").iterdir()) == []


def test_a_month_that_nobody_would_ask_for_again_does_not_stay_failed(desk: Desk) -> None:
    desk.configure()
    status, said = desk.type("refresh", "--period", "2026-08", COLUMNS="1000")
    assert status == 1
    assert "plivo/main 2026-08: it has not begun: on Plivo's clock the running month is 2026-06" in said
    assert "docs/errors.md#not-begun" in said
    assert desk.months() == {}


def test_a_name_that_is_not_configured_is_told_as_a_failure_of_the_command(desk: Desk) -> None:
    desk.configure()
    status, said = desk.type("refresh", "--account", "nobody", COLUMNS="1000")
    assert status == 1
    assert "✗ refresh: no account matches" in said
    assert "See docs/errors.md#wrong-configuration" in said


def test_a_decision_that_cannot_be_made_says_what_to_do(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh", "--period", "2026-05")[0] == 0
    status, said = desk.type("approve", "plivo/main", "2026-05", COLUMNS="1000")
    assert status == 1
    assert "✗ plivo/main 2026-05: " in said
    assert said.endswith("See docs/errors.md#nothing-to-decide")


def test_a_damaged_file_is_told_in_a_sentence_and_not_as_a_traceback(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh", "--period", "2026-06")[0] == 0
    (desk.folder / "data" / "locks").rename(desk.folder / "elsewhere")
    (desk.folder / "data" / "locks").write_text("a file where a folder should be")
    status, said = desk.type("refresh", "--period", "2026-06", COLUMNS="1000")  # `type` fails on a traceback
    assert status == 1
    assert "See docs/errors.md#the-machine" in said


def up_to_date(instance: dg.DagsterInstance) -> tuple[bool, str]:
    """What the UI shows of the check `months_up_to_date` on plivo/main."""
    key = dg.AssetCheckKey(CHARGES, "months_up_to_date")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.evaluation
    return record.evaluation.passed, str(record.evaluation.description)


def test_the_ui_shows_a_month_that_refresh_could_not_do_until_it_is_done(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    months = [company.month("plivo", "main", text).period for text in ("2026-05", "2026-06")]

    def refreshed() -> None:
        refresh.refresh(
            company.line, Console(file=io.StringIO()), providers=["plivo"], accounts=["main"], periods=months
        )

    company.world.fail("plivo", [401])
    refreshed()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        telling.pass_on(instance, company.line)
        passed, text = up_to_date(instance)
        assert not passed
        assert "plivo/main 2026-05: 401 from GET" in text
        assert "See docs/errors.md#refused" in text
        assert "plivo/main 2026-06" not in text
        refreshed()
        telling.pass_on(instance, company.line)
        assert up_to_date(instance) == (True, "The last try of every month succeeded.")
        keys = [dg.AssetCheckKey(CHARGES, name) for name in reports.CHECKS]
        told = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
        assert set(told) == set(keys), "every check of the account is told of a refresh too"


def test_a_failed_run_fails_the_check_of_its_account_and_its_metadata_say_what_to_do(company: Company) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        built = definitions.build(company.line)

        def run() -> dg.ExecuteInProcessResult:
            return built.resolve_job_def("account_month").execute_in_process(
                partition_key="2026-05",
                asset_selection=[dg.AssetKey(["plivo", "main", "raw"]), CHARGES],
                instance=instance,
                raise_on_error=False,
            )

        company.world.fail("plivo", [401])
        result = run()
        data = result.failure_data_for_node("plivo__main__raw")
        assert data
        assert data.user_failure_data
        shown = {name: value.value for name, value in data.user_failure_data.metadata.items()}
        assert shown["kind of error"] == "Refused"
        assert shown["can a rerun help"] == "no"
        assert shown["see"] == "docs/errors.md#refused"
        assert str(data.user_failure_data.description).endswith("See docs/errors.md#refused")
        assert not up_to_date(instance)[0]
        company.do(company.month("plivo", "main", "2026-06"))  # another month of the account does not make it good
        assert [str(failure.subject) for failure in company.line.failing()] == ["plivo/main 2026-05"]
        assert run().success
        assert up_to_date(instance)[0]


def test_loading_what_was_fetched_before_does_not_make_a_failed_fetch_good(company: Company) -> None:
    june = company.month("plivo", "main", "2026-06")
    company.do(june)
    company.world.fail("plivo", [401])
    with pytest.raises(Refused):
        company.line.fetch(june)
    company.line.load(june)  # as a click on `charges` alone does
    assert [failure.kind for failure in company.line.failing()] == ["Refused"]
    company.line.fetch(june)
    assert company.line.failing() == []


def test_a_month_that_could_be_final_and_is_not_is_late_when_the_fifth_is_over(company: Company) -> None:
    company.at("2026-06-03T06:00")
    company.do(company.month("plivo", "main", "2026-05"))
    for moment, late in (("2026-06-05T23:59", False), ("2026-06-06T00:00", True)):
        company.at(moment)
        assert (company.month("plivo", "main", "2026-05") in company.line.late()) == late
    company.do(company.month("plivo", "main", "2026-05"))
    assert company.month("plivo", "main", "2026-05") not in company.line.late()
    assert company.month("talkdesk", "main", "2026-05") not in company.line.late(), "an account that was never fetched"


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J", r"\x9b2J"),
        ("a\rb", r"a\rb"),
        ("nul\x00", r"nul\x00"),
        ("moc.live\u202egood.com", r"moc.live\u202egood.com"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("é 東京 😀 [red]", "é 東京 😀 [red]"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_and_not_done(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown
    assert shown in str(Failure.of("plivo/main 2026-05", Refused(hostile, 400)))


def test_a_failure_tells_no_secret_however_it_is_written() -> None:
    may = Partition("plivo", "main", definitions.BillingPeriod.parse("2026-05"))
    secret = "k/ey+with=odd"
    for form in (secret, "k%2Fey%2Bwith%3Dodd", "ay9leSt3aXRoPW9kZA==", "Basic ay9leS"):
        failure = Failure.of(may, Refused(f"they said {form}", 401), [secret])
        assert "they said " in str(failure)
        assert form not in str(failure), form
