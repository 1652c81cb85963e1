"""The report of a month: its numbers are the warehouse's, it is text whatever is in it, and it says what it does not know."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from filelock import FileLock
from playwright.sync_api import Browser, sync_playwright
from typer.testing import CliRunner

from billing_pipeline import definitions, month_files, refresh
from billing_pipeline.__main__ import app
from billing_pipeline.invoices import said
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod

from .test_questions import APRIL, MAY, bill, hold, publish
from .year import example, line

__all__ = ["example", "line"]  # fixtures

HOSTILE = r"""$\bad{$ <script>alert("x")</script>'"><img src=x onerror=alert(1)> & {{ 7*7 }} """ + "\x1b[31m"


class Page(HTMLParser):
    """What a reader finds in a report: tags with their attributes, text, and tables by caption."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self.sums: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._into: str | None = None
        self._caption = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "caption":
            self._rows, self._caption = [], ""
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append("")
        if tag in ("caption", "th", "td", "style"):
            self._into = tag

    def handle_endtag(self, tag: str) -> None:
        if tag in ("caption", "th", "td", "style"):
            self._into = None
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if self._into == "style":
            return
        self.text += data
        if self._into == "caption":
            self._caption += data
        elif self._into:
            self._rows[-1][-1] += data.strip()

    def column(self, caption: str, head: str) -> dict[str, str]:
        """The cells of a column, by what stands first in their rows."""
        heads, *rows = self.tables[caption]
        return {row[0]: row[heads.index(head)] for row in rows}


def read(path: Path) -> Page:
    return Page(path.read_text())


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def reported(data: Path, period: str = "2026-05") -> Page:
    return read(month_files.write(data, BillingPeriod.parse(period), None))


def ask(data: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(data / "warehouse.duckdb"), read_only=True) as db:
        return db.execute(sql).fetchall()


def test_the_movers_are_those_of_the_view_in_its_order_to_the_last_digit(line: Line) -> None:
    page = reported(line.data, "2026-06")
    for currency in ("EUR", "USD"):
        moved = ask(
            line.data,
            "SELECT x_CostBefore, EffectiveCost, x_Change FROM movers "
            f"WHERE x_IncurredPeriod = '2026-06' AND BillingCurrency = '{currency}' ORDER BY x_Rank LIMIT 12",
        )
        assert len(moved) == 12
        _, *rows = page.tables[f"The 12 largest changes, {currency}"]
        assert [tuple(number(cell.replace("−", "-")) for cell in row[2:]) for row in rows] == moved


@pytest.mark.parametrize("period", ["2026-05", "2026-06"])
def test_the_amounts_are_those_of_the_warehouse_to_the_last_digit(line: Line, period: str) -> None:
    page = reported(line.data, period)
    name = {"2026-05": "May 2026", "2026-06": "June 2026"}[period]
    services = ask(
        line.data,
        f"SELECT BillingCurrency, ServiceName, sum(BilledCost) FROM charges WHERE x_BillingPeriod = '{period}' "
        "GROUP BY x_Provider, ServiceName, BillingCurrency",
    )
    totals = dict(
        ask(
            line.data,
            f"SELECT BillingCurrency, sum(BilledCost) FROM charges WHERE x_BillingPeriod = '{period}' GROUP BY ALL",
        )
    )
    assert len(totals) == 2
    for currency, total in totals.items():
        cells = page.tables[f"Billed in {name}, {currency}"][1:]
        shown = sorted((row[0].partition(" (")[0], number(row[-1])) for row in cells)
        expected = {(str(service), cost) for c, service, cost in services if c == currency}
        assert expected <= set(shown)
        (whole,) = (cost for what, cost in shown if what == "All providers")
        assert whole == total
        # Every provider's sum is in it once: services twice, then the total.
        assert sum(cost for _, cost in shown) == 3 * total
        assert f"{currency} " in page.text


def test_every_amount_says_exactly_what_it_is_to_machines_too(line: Line) -> None:
    html = month_files.write(line.data, BillingPeriod.parse("2026-05"), None).read_text()
    found = re.findall(r'<data value="([^"]*)">(.*?)</data>', html)
    assert len(found) > 100
    for value, shown in found:
        assert number(re.sub("<[^>]*>", "", shown)) == Decimal(value)


def test_what_is_final_what_is_not_and_what_waits_for_a_person_stands_at_the_top(line: Line) -> None:
    may, june = reported(line.data), reported(line.data, "2026-06")
    assert "Restated: a person must decide" in may.text
    assert "plivo/emea is closed, and the provider now states other numbers" in may.text
    assert june.text.index("Provisional: it may still change") < june.text.index("Billed in")
    (sentence,) = re.findall(r"May 2026: (.*?)\.\n", may.text)
    assert re.match(r"Infobip EUR [\d,.]+ and USD [\d,.]+ final; Plivo EUR [\d,.]+ and USD [\d,.]+ final; ", sentence)
    assert sentence.count(" final") == 4
    outcomes = {
        row[0]: row[5] for caption, rows in may.tables.items() if caption.startswith("Stated anew") for row in rows[1:]
    }
    assert outcomes == {"plivo/emea": "OPEN: waits for a person", "talkdesk/main": "approved"}
    assert any(caption.startswith("Corrections of earlier months") for caption in june.tables)


def test_finality_is_shown_with_its_evidence(line: Line) -> None:
    page = reported(line.data)
    rows = ask(
        line.data,
        "SELECT x_FinalityRule, x_FinalityEvidence->>'reason', p.x_Landing, x_Sha256 FROM billing_periods p JOIN fetches f "
        "USING (x_Provider, x_Account, x_BillingPeriod, x_Landing) WHERE x_BillingPeriod = '2026-05'",
    )
    assert len(rows) >= 5
    for row in rows:
        for fact in row:
            assert str(fact) in page.text


def test_no_table_and_no_plot_has_two_currencies(tmp_path: Path) -> None:
    hold(tmp_path, APRIL, [bill("1", "USD"), bill("2", "EUR")])
    hold(tmp_path, MAY, [bill("10.5", "USD", ServiceName="sms"), bill("20.25", "EUR", ServiceName="sms")])
    publish(tmp_path)
    page = reported(tmp_path)
    for currency, cost in (("USD", "10.5"), ("EUR", "20.25")):
        assert set(page.column(f"Billed in May 2026, {currency}", f"Billed, {currency}").values()) == {cost}
        assert f"Billed in {currency}" in page.text
    assert all(caption.endswith((", USD", ", EUR")) for caption in page.tables)
    assert "30.75" not in page.text
    titles = re.findall(r"<title id=.*?>(.*?)</title>", (tmp_path / "reports/2026-05.html").read_text())
    assert len(titles) >= 4
    assert all(("USD" in title) != ("EUR" in title) for title in titles)


def test_what_a_provider_calls_things_is_text_and_nothing_else(tmp_path: Path) -> None:
    rows = [bill("3", ServiceName=HOSTILE, ChargeDescription=HOSTILE, x_DestinationCountry=HOSTILE)]
    hold(tmp_path, APRIL, [bill("1", ServiceName=HOSTILE)])
    hold(tmp_path, MAY, rows)
    publish(tmp_path)
    page = reported(tmp_path)
    assert not {"script", "img", "a"} & {tag for tag, attrs in page.tags if attrs != {"href": "index.html"}}
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert page.text.count('<script>alert("x")</script>') >= 3  # the tables, the plots' words
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in page.text
    assert page.text.count(r"$\bad{$") >= 5  # in the plots too, where it is no formula


def test_what_is_not_known_says_so_and_is_no_0(tmp_path: Path) -> None:
    hold(tmp_path, MAY, [bill("7.125")], "provisional")
    publish(tmp_path)
    may, april = reported(tmp_path), reported(tmp_path, "2026-04")
    assert page_cells(may, "May 2026 against April 2026, USD") == {
        "never fetched",
        "7.125",
        "–",
        "not known",
    }
    assert "There is nothing to compare with: April 2026 was never fetched." in may.text
    assert "No invoice is known of: plivo/main (USD)" in may.text
    assert "Never fetched for this month: plivo/main." in april.text
    assert "no day, never fetched" in april.text
    assert "Incomplete" in april.text
    assert "No day of this month is there as a whole" in april.text
    assert not april.tables
    assert not re.search(r"(?<![\w-])0(?![\w-])", april.text.partition("Is it final")[0])


def page_cells(page: Page, caption: str) -> set[str]:
    return {cell for row in page.tables[caption][1:] for cell in row[1:]}


def test_what_runs_out_and_invoices_that_disagree_are_said_before_the_numbers(line: Line) -> None:
    line.invoices = lambda: [said("plivo/main", "2026-05", "9000", "USD", "R-7", ["tax=10"], "0.01", None)]
    line.now = lambda: datetime(2026, 8, 25, 6, tzinfo=UTC)
    line.publish()
    may, june = reported(line.data), reported(line.data, "2026-06")
    top = may.text.partition("Billed in")[0]
    assert "plivo/main: invoice R-7 and the closed month do not agree: disagrees, unexplained +1,305.28441 USD." in top
    assert page_cells(may, "Invoices, USD") == {
        *("R-7", "9,000", "7,684.71559", "+1,315.28441", "tax 10", "+1,305.28441", "disagrees")
    }  # fmt: skip
    assert "plivo/main (USD)" not in may.text.partition("No invoice is known of: ")[2].partition(".")[0]
    top = june.text.partition("Billed in")[0]
    assert "infobip/main is not final, and the provider serves this month for 6 more days only." in top
    assert "infobip/main: 8 June 2026 to 30 June 2026 should be covered by a complete fetch, and is not." in top


def test_how_a_month_moved_and_what_may_still_come_are_those_of_the_views(line: Line) -> None:
    may, june = reported(line.data), reported(line.data, "2026-06")
    (drift,) = ask(
        line.data,
        "SELECT x_Drift FROM drift WHERE (x_Provider, x_BillingPeriod) = ('ycloud', '2026-05') AND BillingCurrency = 'USD'",
    )
    assert number(may.column("From the first fetch to the newest, USD", "Drift")["ycloud/main"]) == drift[0]
    assert not [caption for caption in may.tables if caption.startswith("ESTIMATE")]
    held = dict(
        ask(
            line.data,
            "SELECT x_Provider || '/' || x_Account, BilledCost FROM accrual_estimate WHERE BillingCurrency = 'USD'",
        )
    )
    shown = june.column("ESTIMATE of what is still to come, USD", "Held so far")
    assert {account: number(cost) for account, cost in shown.items()} == held
    assert set(june.column("ESTIMATE of what is still to come, USD", "Estimated final").values()) == {
        "no past month to go by"
    }
    days = ask(
        line.data,
        "SELECT sum(EffectiveCost) FROM daily_cost WHERE strftime(x_UsageDate, '%Y-%m') = '2026-05' AND x_Provider = 'ycloud'",
    )
    curve = may.column("ycloud/main by day, USD", "Used")
    assert len(curve) == 31
    assert sum(map(number, curve.values())) == days[0][0]
    assert "not there as a whole" in june.column("ycloud/main by day, USD", "Used").values()


def test_a_month_in_which_nothing_was_billed_says_that_it_is_known(tmp_path: Path) -> None:
    hold(tmp_path, MAY, [])
    publish(tmp_path)
    assert "May 2026: plivo/main billed nothing, final." in reported(tmp_path).text


def test_the_same_warehouse_gives_the_same_bytes(line: Line, tmp_path: Path) -> None:
    may = BillingPeriod.parse("2026-05")
    once = month_files.write(line.data, may, tmp_path / "one.html").read_bytes()
    assert month_files.write(line.data, may, tmp_path / "two.html").read_bytes() == once
    ids = re.findall(rb' id="([^"]+)"', once)
    assert len(ids) == len(set(ids)) > 5


def test_nothing_in_it_leads_out_of_the_file(line: Line) -> None:
    month_files.bring_up_to_date(line.data)
    for path in (line.data / "reports").iterdir():
        html = path.read_text()
        assert not re.search(r"https?:|//\w|@import|url\((?!#)|<script|<link(?! rel=\"icon\" href=\"data:,\")", html), (
            path
        )
        page = Page(html)
        assert {attrs.get("href") for tag, attrs in page.tags if tag == "a"} <= {
            "index.html", *(f"2026-0{month}.html" for month in range(1, 7))
        }  # fmt: skip
        assert not [attrs for _, attrs in page.tags if "src" in attrs or "srcset" in attrs]


def test_a_page_is_made_again_when_what_it_says_has_changed_and_only_then(line: Line) -> None:
    first = month_files.bring_up_to_date(line.data)
    assert {"2026-05", "2026-06"} <= {str(period) for period in first.written}
    assert first.kept == []
    line.publish()
    assert month_files.bring_up_to_date(line.data).written == []
    before = (line.data / "reports" / "2026-06.html").read_bytes()
    line.dismiss(next(r.restated.partition for r in line.restatements() if r.outcome == "undecided"), "a person", "no")
    line.publish()
    second = month_files.bring_up_to_date(line.data)
    assert [str(period) for period in second.written] == ["2026-05"]
    assert (line.data / "reports" / "2026-06.html").read_bytes() == before
    assert "dismissed" in (line.data / "reports" / "2026-05.html").read_text()
    (line.data / "reports" / "2026-06.html").write_text("somebody's")
    assert [str(period) for period in month_files.bring_up_to_date(line.data).written] == ["2026-06"]


def test_the_list_of_months_leads_to_each_of_them(line: Line) -> None:
    made = month_files.bring_up_to_date(line.data)
    page = read(made.index)
    linked = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert linked == [f"{period}.html" for period in sorted(made.written, reverse=True)]
    assert all((made.index.parent / str(name)).exists() for name in linked)


def test_reports_are_for_their_owner_alone_or_as_a_person_has_opened_them(line: Line) -> None:
    made = month_files.bring_up_to_date(line.data)
    assert made.index.parent.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in made.index.parent.iterdir()} == {0o600}
    made.index.chmod(0o644)
    assert month_files.bring_up_to_date(line.data).index.stat().st_mode & 0o777 == 0o644


def test_what_a_killed_run_left_is_swept_and_what_somebody_is_writing_is_not(line: Line, tmp_path: Path) -> None:
    folder = line.data / "reports"
    folder.mkdir()
    (folder / ".2026-05.html.0123456789abcdef.tmp").write_text("half")
    (tmp_path / ".may.html.0123456789abcdef.tmp").write_text("half")
    (tmp_path / ".somebody.tmp").write_text("not ours")
    month_files.bring_up_to_date(line.data)
    month_files.write(line.data, BillingPeriod.parse("2026-05"), tmp_path / "may.html")
    assert not list(folder.glob(".*"))
    assert [path.name for path in tmp_path.glob(".*")] == [".somebody.tmp"]


@pytest.fixture
def here(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is the one that has data/, as for a person who types the command."""
    monkeypatch.chdir(tmp_path)
    assert line.data == tmp_path / "data"
    return tmp_path


def typed(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["report", *words])
    return done.exit_code, done.output


def test_the_command_writes_one_month_or_all_that_changed_and_says_where(here: Path) -> None:
    assert typed("--period", "2026-05") == (0, f"{here}/data/reports/2026-05.html\n")
    assert typed("--period", "2026-05", "--out", "new/may.html") == (0, f"{here}/new/may.html\n")
    assert (here / "new/may.html").read_text() == (here / "data/reports/2026-05.html").read_text()
    status, told = typed()
    assert status == 0
    assert told.startswith(f"{here}/data/reports/index.html  (made: 2026-")
    assert "; 1 as they were)" in told


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--period", "2019-01"], 1, "neither holds 2019-01 nor expects it"),
        (["--period", "2026-5"], 2, "2026-5"),
        (["--out", "x.html"], 2, "--period"),
        (["--period", "2026-05", "--out", "."], 2, "is a folder"),
    ],
)
def test_a_report_that_cannot_be_says_why_and_writes_nothing(
    here: Path, words: list[str], status: int, told: str
) -> None:
    found, text = typed(*words)
    assert found == status
    assert told in " ".join(text.replace("│", " ").split())
    assert not list(here.rglob("*.html"))


def test_without_a_warehouse_it_says_what_to_type(here: Path) -> None:
    shutil.rmtree(here / "data")
    assert typed()[0] == 1
    assert "billing-pipeline refresh" in typed("--period", "2026-05")[1]


def test_a_run_waits_while_another_one_makes_the_reports(line: Line) -> None:
    """Else an older publication's page could replace a newer one's."""
    (line.data / "locks").mkdir(exist_ok=True)
    with ThreadPoolExecutor() as pool:
        with FileLock(line.data / "locks" / "reports.lock"):
            making = pool.submit(month_files.bring_up_to_date, line.data)
            with pytest.raises(TimeoutError):
                making.result(timeout=0.2)
            assert not (line.data / "reports").exists()
        assert making.result().written


def test_a_refresh_makes_the_reports_last_and_their_trouble_is_told_and_fails_nothing(line: Line) -> None:
    assert "reports/index.html  (made: 2026-" in refresh.reported(line)
    shutil.rmtree(line.data / "reports")
    (line.data / "reports").write_text("a file where the folder should be")
    told = refresh.reported(line)
    assert told.startswith("✗ reports: ")
    assert told.endswith("The numbers are published all the same.")


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")  # of Dagster about itself
def test_the_asset_behind_the_warehouse_makes_them_and_shows_where_they_are(line: Line) -> None:
    job = definitions.build(line).resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(["warehouse", name]) for name in ("charges", "report")]
    with dg.DagsterInstance.ephemeral() as instance:
        (made,) = job.execute_in_process(asset_selection=keys, instance=instance).asset_materializations_for_node(
            "warehouse__report"
        )
        assert Path(str(made.metadata["index"].value)) == line.data / "reports" / "index.html"
        assert "2026-05" in str(made.metadata["months made"].value)
        shutil.rmtree(line.data / "reports")
        (line.data / "reports").write_text("a file where the folder should be")
        broken = job.execute_in_process(asset_selection=keys, instance=instance, raise_on_error=False)
        assert not broken.success
        assert broken.asset_materializations_for_node("warehouse__charges")  # the numbers are published all the same


NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
A4 = 688  # pixels between the margins of the page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; the tests are skipped where there is none, or fail when it is required."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        text = f"NO BROWSER: none of {', '.join(NAMES)} is here, so nobody has looked at the report"
        if os.environ.get("BROWSER_REQUIRED"):
            pytest.fail(f"{text}. BROWSER_REQUIRED is set. On Debian: apt-get install chromium")
        pytest.skip(text)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with reports of an ordinary company, and one of a month in which everything has a terrible name."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(example, folder / "data")
    month_files.bring_up_to_date(folder / "data")
    terrible = folder / "terrible"
    names = {"ServiceName": "W" * 300 + HOSTILE, "ChargeDescription": "w" * 300, "x_DestinationCountry": HOSTILE}
    cost = "-12345678901234567890.123456789012345678"
    hold(terrible, APRIL, [bill("1", **names)])
    hold(terrible, MAY, [bill(cost, **names), bill("0.000000000000000001", **names | {"ServiceName": "sms"})])
    publish(terrible)
    month_files.bring_up_to_date(terrible)
    return folder


REPORTS = [
    "data/reports/2026-05.html",
    "data/reports/2026-06.html",
    "data/reports/index.html",
    "terrible/reports/2026-05.html",
]


@pytest.mark.parametrize("report", REPORTS)
def test_a_browser_asks_for_nothing_but_the_file_and_complains_about_nothing(
    browser: Browser, pages: Path, report: str
) -> None:
    page = browser.new_page()
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto((pages / report).as_uri())
    page.wait_for_load_state("networkidle")
    assert ([url for url in asked if url != "data:,"], said) == ([(pages / report).as_uri()], [])
    page.close()


@pytest.mark.parametrize("width", [360, 390, 1200])
@pytest.mark.parametrize("report", REPORTS)
def test_the_page_never_scrolls_sideways(browser: Browser, pages: Path, report: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((pages / report).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if report.startswith("data"):  # nor need any of its tables
        cut = (
            "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.ariaLabel)"
        )
        assert page.evaluate(cut) == []
    page.close()


@pytest.mark.parametrize("report", REPORTS[:2])
def test_it_prints_on_a_few_pages_and_nothing_is_cut_off(browser: Browser, pages: Path, report: str) -> None:
    page = browser.new_page(viewport={"width": A4, "height": 1000})
    page.goto((pages / report).as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    assert 4 <= len(re.findall(rb"/Type /Page\b(?!s)", printed)) <= 10
    page.emulate_media(media="print")
    right = f"e.getBoundingClientRect().right > {A4 + 1}"
    outside = f"[...document.querySelectorAll('body *')].filter(e => {right}).map(e => e.outerHTML)"
    assert page.evaluate(outside) == []
    assert page.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    page.close()


@pytest.mark.parametrize("width", [360, 1200])
def test_who_cannot_see_hears_what_tables_and_plots_are_of(browser: Browser, pages: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((pages / REPORTS[0]).as_uri())
    assert page.get_by_role("table", name="Billed in May 2026, EUR").count() == 1
    assert page.get_by_role("columnheader", name="Change").count() >= 2
    assert page.get_by_role("rowheader", name="plivo/emea").count() >= 2
    plots = page.get_by_role("img")
    assert plots.count() == page.locator("svg").count() > 5
    assert page.get_by_role("img", name="Used or bought by service, EUR: SMS · Infobip").count() == 1
    page.close()


def test_on_dark_paper_letters_are_light(browser: Browser, pages: Path) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto((pages / REPORTS[0]).as_uri())
    for what in ("body", "svg text"):
        drawn = f"getComputedStyle(document.querySelector('{what}')).{'fill' if 'svg' in what else 'color'}"
        colour = page.evaluate(drawn)
        assert all(int(part) > 200 for part in re.findall(r"\d+", colour)), what
    page.close()
