"""Whatever becomes of Infobip's letters: the provider's exact numbers, or those of before and an error that says what to do.

The table in docs/faults.md is made of CASES. When this file says that it is out of date:

    WRITE_TABLE=1 python -m pytest billing_pipeline_tests/test_faults_callbacks.py
"""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from billing_pipeline.callbacks import listening
from billing_pipeline.landing import Partition
from billing_pipeline.mailbox import Mailbox
from billing_pipeline.period import BillingPeriod
from billing_pipeline.refresh import Outcome, refresh
from billing_pipeline.sandbox.infobip_post import FAULTS
from billing_pipeline.verify import verify

from .conftest import Company

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
BEGIN, END = "<!-- callback faults -->", "<!-- callback faults: end -->"
MAY = BillingPeriod(2026, 5)
EXACT = "the exact numbers"


@dataclass(frozen=True)
class Case:
    """What must come of a fault.

    Attributes:
        outcome: for the page; that the numbers are exact, or how the error begins to differ.
        error: what the error says; None: there is none, and the numbers are exact at once.
        letters: how the receiver answers what is sent.
    """

    outcome: str
    error: str | None
    letters: list[int | None]


CASES = {
    "late": Case("`NoAnswer`; the letter is landed by the next run", "no letter came within", []),
    "never": Case("`NoAnswer`; the next run asks again", "no letter came within", []),
    "FAILED": Case("`Failed`, with Infobip's reason", "could not answer request .* Could not load data", [200]),
    "twice": Case(f"{EXACT}: the same letter is one letter", None, [200, 200]),
    "out of order": Case(
        "`NoAnswer`; the newest query's letter counts, the older one is refused", "no letter came", []
    ),
    "forged ids": Case(
        f"{EXACT}: what was not issued is answered 404, an invented id is set aside", None, [404] * 6 + [200, 200]
    ),
    "wrong id": Case("`NoAnswer`, which names both ids", "no letter came .* it answers request .*, not ours", [200]),
    "not JSON": Case("`NoAnswer`, which says why the letter was set aside", "no letter came .* is not the JSON", [200]),
    "hundreds of megabytes": Case("`NoAnswer`: more than 16 MB beside the rows", "more than 16 MB|hold neither", [200]),
    "too large": Case("`NoAnswer`: answered 413 before it was sent", "no letter came within", [413]),
    "truncated": Case("`NoAnswer`: the letter breaks off", "no letter came .* set aside: the letter", [200]),
    "broken off": Case("`NoAnswer`: nothing was kept", "no letter came within", [None]),
    "short row": Case("`UnexpectedShape`, which names the row", "row \\d+ does not have a value for each", [200]),
    "wrong totalRows": Case("`DoesNotReconcile`: rows stated, rows counted", "rows stated by the provider", [200]),
    "shuffled columns": Case(f"{EXACT}: columns are read by name", None, [200]),
    "two results": Case("`TwoResults`, which names both letters", "twice, and differently", [200, 200]),
    "second result later": Case(
        f"{EXACT} of the first; the second is refused, and the month's next fetch stops with `TwoResults`", None, [200]
    ),
}
CLOSE = (
    "computed before the close, delivered after it",
    "A query is sent before the 5th, its letter is held, and delivered after the 5th.",
    "asked again and closed by the new answer; when none comes, the old letter's numbers, provisional",
)


class Infobip:
    """The company's Infobip account: its month of May, the sandbox's switches, and the daemon that receives."""

    def __init__(self, company: Company) -> None:
        self.company = company
        self.may = Partition("infobip", "main", MAY)
        self.settings: Any = company.line.configuration.account("infobip", "main")

    def admin(self, path: str = "", said: object = None, method: str = "GET") -> dict[str, Any]:
        """What a person does with curl."""
        body = None if said is None else json.dumps(said).encode()
        asked = urllib.request.Request(f"{self.company.address}/_sandbox/infobip{path}", body, method=method)  # noqa: S310
        with urllib.request.urlopen(asked) as answer:  # noqa: S310  loopback
            return dict(json.loads(answer.read()))

    def fault(self, name: str | None) -> None:
        assert self.admin(said={"fault": name}, method="PUT")["fault"] == name

    def deliver(self) -> list[int | None]:
        """Deliver what is held; how that was answered."""
        before = len(self.statuses())
        self.admin("/letters", method="POST")
        return self.statuses()[before:]

    def statuses(self) -> list[int | None]:
        return [each["status"] for each in self.admin("/letters")["delivered"]]

    def refresh(self) -> Outcome:
        """`billing-pipeline refresh --provider infobip --period 2026-05`."""
        (outcome,) = refresh(self.company.line, Console(file=StringIO()), providers=["infobip"], periods=[MAY])
        return outcome

    def refreshed(self) -> None:
        """A run without an error, after which the view shows what the provider states now."""
        outcome = self.refresh()
        assert outcome.failure is None, outcome.failure
        assert self.company.shown(self.may) == self.company.stated(self.may)

    def shown(self) -> tuple[int, dict[str, Any], str]:
        ((finality,),) = self.company.ask(
            "SELECT x_Finality FROM billing_periods WHERE x_Provider = 'infobip' AND x_BillingPeriod = '2026-05'"
        )
        return (*self.company.shown(self.may), finality)


@pytest.fixture
def infobip(company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Infobip]:
    """May has been fetched on the 3rd; now it is the 5th, and other numbers are stated. A daemon receives.

    Runs do not wait, and letters come before their query is answered: what has not come by then does not come.
    """
    monkeypatch.chdir(tmp_path)  # where there is no Dagster to tell
    company.world.scale = 0.2
    line = company.line
    accounts = tuple(
        settings.model_copy(update={"wait_seconds": 0}) if settings.provider == "infobip" else settings
        for settings in line.configuration.accounts
    )
    line.configuration = replace(line.configuration, accounts=accounts)
    found = Infobip(company)
    found.admin(said={"delay": None}, method="PUT")
    with listening(Mailbox(line.data / "mailbox", company.world.now), found.settings.callback_listen):
        company.at("2026-06-03T06:00")
        found.refreshed()
        company.at("2026-06-05T06:00")
        yield found
    assert list((line.data / "mailbox").rglob(".*.tmp")) == []


def test_every_fault_of_the_sandbox_has_its_case() -> None:
    assert list(CASES) == list(FAULTS)


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_leaves_the_exact_numbers_or_those_of_before_and_the_next_run_is_right(
    infobip: Infobip, fault: str
) -> None:
    case, before, sent = CASES[fault], infobip.shown(), len(infobip.statuses())
    assert infobip.company.shown(infobip.may) != infobip.company.stated(infobip.may)  # there is something to get wrong
    infobip.fault(fault)
    outcome = infobip.refresh()
    assert infobip.statuses()[sent:] == case.letters
    if case.error is None:
        assert outcome.failure is None, outcome.failure
        assert infobip.company.shown(infobip.may) == infobip.company.stated(infobip.may)
    else:
        assert re.search(case.error, str(outcome.failure), re.DOTALL)
        assert infobip.shown() == before
    if fault == "second result later":
        return  # its end has tests of its own
    infobip.fault(None)
    infobip.refreshed()
    assert infobip.shown()[2] == "final"
    assert verify(infobip.company.line).findings == []


def test_a_late_letter_is_landed_by_the_next_run_without_another_question(infobip: Infobip) -> None:
    asked = len(infobip.company.world.requests("infobip"))
    infobip.fault("late")
    assert "no letter came" in str(infobip.refresh().failure)
    assert infobip.deliver() == [200]
    infobip.refreshed()
    assert len(infobip.company.world.requests("infobip")) == asked + 1


def test_letters_out_of_order_leave_the_newest_querys_numbers(infobip: Infobip) -> None:
    infobip.company.at("2026-06-04T06:00")
    infobip.fault("out of order")
    assert infobip.refresh().failure
    infobip.company.at("2026-06-04T16:00")  # rows were waived meanwhile
    assert infobip.refresh().failure
    assert infobip.deliver() == [200, 200]
    infobip.refreshed()
    assert infobip.deliver() == []
    infobip.fault(None)
    infobip.refreshed()  # nothing is left that an older letter could bring


def test_a_letter_of_an_older_query_that_comes_after_a_newer_ones_was_landed_is_refused(infobip: Infobip) -> None:
    infobip.company.at("2026-06-04T06:00")
    infobip.fault("late")
    assert infobip.refresh().failure
    infobip.company.at("2026-06-04T16:00")
    infobip.fault(None)
    infobip.refreshed()
    shown = infobip.shown()
    assert infobip.deliver() == [404]
    assert infobip.shown() == shown
    infobip.refreshed()


def test_a_letter_computed_before_the_close_and_delivered_after_it_closes_nothing(infobip: Infobip) -> None:
    infobip.company.at("2026-06-04T16:00")
    infobip.fault("late")
    assert infobip.refresh().failure
    waived = infobip.company.stated(infobip.may)
    infobip.company.at("2026-06-05T06:00")
    assert infobip.deliver() == [200]
    infobip.fault("never")
    assert infobip.refresh().failure is None
    assert infobip.shown() == (*waived, "provisional")
    infobip.fault(None)
    infobip.refreshed()
    assert infobip.shown()[2] == "final"


def test_where_a_letter_computed_before_the_close_came_after_it_the_month_is_asked_for_again(infobip: Infobip) -> None:
    infobip.company.at("2026-06-04T22:00")  # hours ago, so it would be fresh enough otherwise
    infobip.fault("late")
    assert infobip.refresh().failure
    infobip.company.at("2026-06-05T06:00")
    assert infobip.deliver() == [200]
    infobip.fault(None)
    infobip.refreshed()
    assert infobip.shown()[2] == "final"


def test_a_second_result_after_the_landing_is_refused_and_stops_the_months_next_fetch(infobip: Infobip) -> None:
    infobip.fault("second result later")
    infobip.refreshed()
    shown = infobip.shown()
    assert infobip.deliver() == [404]
    infobip.fault(None)
    error = str(infobip.refresh().failure)
    assert re.search("got another letter of \\d+ bytes", error)
    assert "The next run asks again" in error
    assert infobip.shown() == shown
    infobip.refreshed()  # told once


def test_a_month_that_a_forged_first_letter_closed_is_stopped_when_the_right_one_comes_and_then_compared(
    infobip: Infobip,
) -> None:
    """Who knows address and id and is quicker than Infobip gets his numbers in, and is found out."""
    infobip.fault("late")
    assert infobip.refresh().failure
    mailbox = Mailbox(infobip.company.line.data / "mailbox", infobip.company.world.now)
    (ticket,) = mailbox.pending("infobip", "main", "2026-05")
    forged = letter_with_other_money(infobip, str(ticket.request_id))
    with mailbox.draft(ticket) as draft:
        draft.write(forged)
        mailbox.keep(ticket, draft)
    assert infobip.refresh().failure is None
    assert infobip.company.shown(infobip.may) != infobip.company.stated(infobip.may)
    assert infobip.deliver() == [404]
    infobip.fault(None)
    assert "got another letter" in str(infobip.refresh().failure)
    outcome = infobip.refresh()
    assert outcome.loaded
    assert outcome.loaded.action == "restated"


def letter_with_other_money(infobip: Infobip, request_id: str) -> bytes:
    """A month's letter as the sandbox would write it for that request, with the money of the 3rd."""
    (landing, *_) = infobip.company.line.landings.all(infobip.may)
    page = list(landing)[-1]
    return page.read().replace(page.facts["requestId"].encode(), request_id.encode()).replace(
        b'"volumeFinalized":false', b'"volumeFinalized":true'
    )  # fmt: skip


def test_a_letter_that_does_not_come_delays_and_changes_nobody_elses_numbers(infobip: Infobip) -> None:
    infobip.fault("never")
    outcomes = refresh(infobip.company.line, Console(file=StringIO()), periods=[MAY])
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert [str(outcome.partition) for outcome in failed] == ["infobip/main 2026-05"]
    for outcome in outcomes:
        assert isinstance(outcome.partition, Partition)
        if outcome not in failed:
            assert infobip.company.shown(outcome.partition) == infobip.company.stated(outcome.partition)


def table() -> str:
    """The table of docs/faults.md."""
    rows = [(fault, FAULTS[fault][0], case.outcome) for fault, case in CASES.items()] + [CLOSE]
    lines = ["| fault | what happens | provider(s) |", "| --- | --- | --- |"]
    lines += [f"| {fault} | {does} → {outcome} | Infobip |" for fault, does, outcome in rows]
    return "\n".join(lines)


def test_the_table_of_the_page_is_up_to_date() -> None:
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    written = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if os.environ.get("WRITE_TABLE"):
        PAGE.write_text(written)
    assert written == PAGE.read_text(), f"type: WRITE_TABLE=1 python -m pytest {Path(__file__).name}"
