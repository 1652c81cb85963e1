"""The path of a new user through the Dagster UI, in a real browser: is May final and why, a backfill, a provider that fails.

Chromium is needed. Where there is none these tests are skipped, unless PROGRAMS_REQUIRED is set: then that is a failure. With
SCREENSHOTS=<folder> the walk leaves its pictures there (`make screenshots`).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, Page, Request, expect, sync_playwright

from .conftest import free_port
from .served import PATIENCE, PROJECT, Ui, prepare, start, until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    "--no-sandbox",  # it sees nothing but our own page, and Chromium's sandbox does not work for root, as CI is
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDTH, HEIGHT = 1400, 900
SHORTEN = """([path, shorter]) => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(path, shorter);
}"""
"""Whoever looks at a picture need not know where it was taken."""
CHARGES = "/assets/plivo/emea/charges"
FINAL = "/assets/plivo/emea/final_months"


def chromium() -> str:
    """Where Chromium is; the test is skipped where it is nowhere, or fails when it is required."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        text = "NO BROWSER: none of " + ", ".join(NAMES) + " is here, so nobody has walked through the Dagster UI"
        if os.environ.get("PROGRAMS_REQUIRED"):
            pytest.fail(f"{text}. PROGRAMS_REQUIRED is set. On Debian: apt-get install chromium")
        pytest.skip(text)
    return found


@dataclass
class Person:
    """Somebody in front of the UI.

    Attributes:
        ui: it.
        page: what they see.
    """

    ui: Ui
    page: Page

    def go(self, path: str) -> None:
        """Type an address; everything else is clicked."""
        self.page.goto(self.ui.url + path)

    def see(self, text: str | re.Pattern[str], within: Locator | None = None) -> Locator:
        """Text that is there, sooner or later."""
        found = (within or self.page).get_by_text(text).first
        expect(found).to_be_visible()
        return found

    def tab(self, name: str) -> None:
        """Open a tab of an asset."""
        self.page.get_by_role("tab", name=name, exact=True).click()

    def partition(self, month: str, status: str) -> None:
        """Choose a month in the list of partitions; what the UI says of it."""
        self.page.get_by_text(month, exact=True).first.click()
        expect(self.page).to_have_url(re.compile(f"partition={month}"))
        expect(self.page.get_by_text(status, exact=True).first).to_be_visible()

    def fact(self, name: str) -> str:
        """A line of the metadata that are shown."""
        row = self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=name, exact=True)).first
        expect(row).to_be_visible()
        return row.get_by_role("cell").nth(1).inner_text().strip()

    def materialize(self, months: str) -> None:
        """Launch `raw` and `charges` for months, in the dialog's own words."""
        self.go(f"{CHARGES}?view=lineage&lineageScope=upstream")
        self.page.get_by_role("button", name="Materialize all").click()
        self.page.get_by_placeholder("ex: ").fill(months)
        self.page.keyboard.press("Tab")
        expect(self.page.get_by_role("button", name=re.compile("^Launch"))).to_be_enabled()
        if "..." in months:
            self.picture("backfill")
        self.page.get_by_role("button", name=re.compile("^Launch")).click()
        self.page.get_by_text("View", exact=True).last.click()

    def picture(self, name: str) -> None:
        """Keep what is seen, where somebody wants the pictures."""
        folder = os.environ.get("SCREENSHOTS")
        if folder:
            self.page.wait_for_load_state("networkidle")
            self.page.wait_for_timeout(1500)  # animations; nothing is asserted on a picture
            for path, shorter in ((sys.prefix, ".venv"), (str(PROJECT), "."), (str(self.ui.folder), ".")):
                self.page.evaluate(SHORTEN, [path, shorter])
            drawn = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
            drawn.quantize(192, kmeans=3, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """The UI on 15 June. On 31 May a refresh fetched what was open: May was not settled then."""
    chromium()
    folder = tmp_path_factory.mktemp("project")
    may = prepare(folder, f"http://127.0.0.1:{free_port()}", "2026-05-31T15:00:00Z")
    command = [sys.executable, "-m", "billing_pipeline", "refresh", "--provider", "plivo", "--account", "emea"]
    subprocess.run(command, cwd=folder, env=may, check=True, capture_output=True, timeout=PATIENCE)  # noqa: S603
    started = start(folder)
    try:
        yield started
    finally:
        started.stop(signal.SIGINT)


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """A browser that never saw the UI before."""
    expect.set_options(timeout=PATIENCE * 1000 / 3)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        yield browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        browser.close()


@pytest.fixture
def person(ui: Ui, browser: BrowserContext) -> Iterator[Person]:
    """A person in front of a page of their own."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE * 1000 / 3)
    strangers: list[str] = []

    def asked(request: Request) -> None:
        if not request.url.startswith((ui.url, "data:", "blob:")):
            strangers.append(request.url)

    page.on("request", asked)
    yield Person(ui, page)
    page.close()
    assert strangers == [], "the UI loads nothing from anywhere else"


def test_the_graph_reads_from_left_to_right_as_the_pipeline(person: Person) -> None:
    person.go("/asset-groups")
    groups = ("infobip", "plivo", "talkdesk", "ycloud")
    warehouse = box(node(person, "warehouse"))
    for name in groups:
        group = box(node(person, name))
        assert group["x"] + group["width"] < warehouse["x"], f"{name} is left of the warehouse"
    expect(person.page.get_by_text("fetching statuses")).to_have_count(0)
    person.picture("graph")
    person.go(f"{CHARGES}?view=lineage&lineageScope=neighbors")
    raw, charges, final = (box(node(person, f"{step}Latest")) for step in ("raw", "charges", "final_months"))
    assert raw["x"] + raw["width"] < charges["x"]
    assert charges["x"] + charges["width"] < final["x"]
    person.picture("an-account")


def node(person: Person, name: str) -> Locator:
    """A box of the graph, not the line of that name in the list beside it."""
    return person.page.locator("foreignObject").filter(has_text=re.compile(f"^{name}")).first


def box(found: Locator) -> dict[str, Any]:
    """Where something is on the screen."""
    expect(found).to_be_visible()
    where = found.bounding_box()
    assert where
    return dict(where)


def test_from_is_may_final_to_a_quarter_that_was_backfilled(person: Person) -> None:
    person.go(f"{FINAL}?view=partitions")
    person.see("Materialized (4)")
    person.see("Missing (2)")
    person.partition("2026-05", "No metadata entries")
    person.go(f"{CHARGES}?view=partitions")
    person.partition("2026-05", "Materialized")
    assert person.fact("finality") == "provisional"
    assert person.fact("reason") == "fetched before the month settles"
    assert person.fact("rule") == "final when fetched at or after 2026-06-05T00:00:00Z"
    before = person.fact("totals")
    person.picture("may-is-provisional")

    person.materialize("[2026-04...2026-06]")
    until(lambda: backfilled(person.ui), "three months and the publication are done")
    person.go(f"{FINAL}?view=partitions")
    person.see("Materialized (5)")
    person.partition("2026-05", "Materialized")
    assert person.fact("finality") == "final"
    person.picture("final-months")
    person.go(f"{CHARGES}?view=partitions")
    person.partition("2026-05", "Materialized")
    assert (person.fact("finality"), person.fact("reason")) == ("final", "settled")
    assert person.fact("fetched at") == "2026-06-15T12:00:00Z"
    assert person.fact("totals") != before
    assert person.fact("totals").endswith(" EUR")
    assert re.fullmatch(r"[+-][0-9]+ rows, [+-][0-9.]+ EUR", person.fact("change since the last fetch"))
    assert int(person.fact("requests")) > 0
    assert int(person.fact("bytes")) > 0
    person.picture("may-is-final")
    row = person.page.get_by_role("row").filter(has_text="how the total developed")
    row.get_by_text("Show Markdown").click()
    drawn = person.page.get_by_alt_text("how the total developed")
    expect(drawn).to_be_visible()
    assert drawn.evaluate("image => image.naturalWidth") > 100, "the browser could draw it"
    person.picture("how-may-developed")
    person.go(f"{CHARGES}?view=partitions")
    person.partition("2026-04", "Materialized")
    assert person.fact("what happened") == "the month is final: it was left as it is"

    person.go("/runs")
    person.see("3 partitions")
    person.go("/assets/warehouse/charges?view=events")
    person.see("months replaced")
    expect(person.page.get_by_text("Unsynced")).to_have_count(0)
    person.see("no longer served")
    person.picture("which-months-are-final")


def backfilled(ui: Ui) -> bool | None:
    """Whether a backfill is over and a run published after it; asked beside the browser, which need not draw again and again."""
    found = ui.ask(
        "{ partitionBackfillsOrError { ... on PartitionBackfills { results { status } } }"
        ' assetOrError(assetKey: {path: ["warehouse", "charges"]}) { ... on Asset { assetMaterializations(limit: 1) {'
        " runId } } } }"
    )
    backfills = [backfill["status"] for backfill in found["partitionBackfillsOrError"]["results"]]
    (published,) = found["assetOrError"]["assetMaterializations"]  # that of a refresh has no run
    return (backfills == ["COMPLETED_SUCCESS"] and bool(published["runId"])) or None


def test_a_provider_that_fails_is_seen_read_and_run_again(person: Person) -> None:
    fault = {"provider": "plivo", "fault": "401", "times": 0}
    httpx.put(f"{person.ui.sandbox}/_sandbox/faults", json=fault).raise_for_status()
    person.materialize("2026-06")
    person.see("Failure")
    person.see("plivo/emea 2026-06: 401 from GET")
    person.picture("run-failed")
    person.page.get_by_text("View full message").first.click()
    error = person.page.get_by_role("dialog")
    person.see("plivo/emea 2026-06: 401 from GET", error)
    for told in (
        "docs/errors.md#refused",
        "can a rerun help",
        "Mend what the answer names (key, scope",
        "the last complete",
    ):
        expect(error).to_contain_text(told)
    person.picture("error")
    failed = person.page.url
    person.go(f"{CHARGES}?view=checks")
    person.page.get_by_text("months_up_to_date").first.click()
    person.see("plivo/emea 2026-06: 401 from GET")
    expect(person.page.get_by_text("Succeeded", exact=True)).to_have_count(5)  # what could not be compared did not fail
    person.picture("check-failed")
    person.go("/runs")
    for tag in ("billing/provider: plivo", "billing/account: emea", "billing/period: 2026-06"):
        person.see(tag)
    person.picture("runs")

    httpx.put(f"{person.ui.sandbox}/_sandbox/faults", json=fault | {"fault": None}).raise_for_status()
    person.page.goto(failed)
    person.page.get_by_role("button", name=re.compile("^Re-execute")).first.click()
    expect(person.page).not_to_have_url(failed)
    expect(person.page.get_by_text("Success", exact=True).first).to_be_visible()
    person.go(f"{CHARGES}?view=checks")
    person.page.get_by_text("months_up_to_date").first.click()
    person.see("The last try of every month succeeded.")
    person.go(CHARGES)
    person.see("Freshness policy")
    person.see("Passing")
    person.see("The row's amount as the provider states it")
    person.picture("asset")
    person.go("/automation")
    person.see("daily_open_months")
    person.see("weekly_watch")
    person.picture("automation")
