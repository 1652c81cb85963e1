"""Every fault that the sandbox knows against every provider, what must become of it, and the tables of them in the pages.

python -m billing_pipeline_tests.fault_matrix      writes the tables (`make faults`)
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from billing_pipeline import environment
from billing_pipeline.landing import Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.provider import RateLimit
from billing_pipeline.providers import providers
from billing_pipeline.sandbox.app import running
from billing_pipeline.sandbox.faults import MOVES
from billing_pipeline.sandbox.world import Clock, World
from billing_pipeline.transport import Patience

from .conftest import Company, free_port

PROVIDERS = ("infobip", "plivo", "talkdesk", "ycloud")
SCALES = {"infobip": 0.2, "plivo": 5.0, "talkdesk": 1.0, "ycloud": 1.0}  # several pages each, and no more
SEEDS = 3  # other numbers in every run, and yet some that the sandbox still knows
JUNE = BillingPeriod(2026, 6)
PATIENT = Patience(retries=2, backoff=0.001, longest=0.01, budget=5, answer=30)
HURRIED = replace(PATIENT, retries=1, answer=1.0)  # for answers that never end


@dataclass(frozen=True)
class Case:
    """One fault as the table has it.

    Attributes:
        told: the row's title.
        fault: as the sandbox calls it.
        outcomes: what must become of it, by provider: a word of OUTCOMES and what the error or note must say.
        order: further keys for the sandbox.
        beside: further faults that are on at the same time.
        patience: of the pipeline.
    """

    told: str
    fault: str
    outcomes: dict[str, tuple[str, str]]
    order: dict[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    patience: Patience = PATIENT


OUTCOMES = {
    "healed": "the same run asks again and ends with the exact numbers",
    "harmless": "the numbers are exact all the same",
    "noted": "the numbers are exact, and `x_Notes` and the check `nothing_undocumented` tell of it",
    "refused": "an error says what to do, and the month shows the exact numbers of the fetch before",
    "stated": "the month shows the row as it came, in its own currency: currencies are never added",
    "unseen": "the answer contradicts nothing, so the month shows exactly what it states: see below",
}


@dataclass
class Rehearsal:
    """A company of one provider, fetched once, and its sandbox's switches."""

    company: Company
    month: Partition
    fetches: int = 0
    usual: dict[str, tuple[set[str], int]] = field(default_factory=dict)  # by seed: notes and requests of a good day

    def anew(self) -> tuple[int, dict[str, Decimal]]:
        """Time goes on and the provider's numbers change; what it would bill now."""
        self.fetches += 1
        self.company.world.clock.set(self.company.world.now() + timedelta(minutes=1))
        self.company.world.seed = f"company {self.fetches % SEEDS}"  # never that of the run before
        return self.company.stated(self.month)

    def put(self, **order: Any) -> None:
        """A fault on, or (`fault=None`) all off."""
        body = json.dumps({"provider": self.month.provider, **order}).encode()
        request = urllib.request.Request(f"{self.company.address}/_sandbox/faults", body, method="PUT")  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310  loopback

    def on(self) -> list[dict[str, Any]]:
        """The faults that are on, and what they did."""
        with urllib.request.urlopen(f"{self.company.address}/_sandbox/faults") as answer:  # noqa: S310  loopback
            found: list[dict[str, Any]] = json.loads(answer.read(), parse_float=Decimal)["on"]
        return found

    def run(self) -> tuple[Exception | None, set[str], int]:
        """The whole line once: what went wrong, what was noted, and how many requests it took."""
        before, wrong, notes = len(self.company.world.requests()), None, set()
        try:
            notes = set(self.company.do(self.month).held.footer["notes"])
        except Exception as error:  # noqa: BLE001  judged by the caller
            wrong = error
        self.company.line.publish()
        return wrong, notes, len(self.company.world.requests()) - before


@contextmanager
def rehearsal(provider: str, folder: Path, scale: float | None = None) -> Iterator[Rehearsal]:
    """One provider's company on 15 June 2026, its June fetched and published."""
    world = World(Clock(datetime(2026, 6, 15, 12, tzinfo=UTC)), scale or SCALES[provider])
    world.enforce_limits = False
    world.infobip_delay = 0.01  # type: ignore[attr-defined]
    with running(port=free_port(), world=world) as address:
        configuration = environment.sandbox_configuration(address, world.now())
        only = {"rate_limit": RateLimit(requests=1000, seconds=1)}
        if provider == "ycloud":
            only["managed_accounts"] = ()  # type: ignore[assignment]
        accounts = [
            s.model_copy(update=only) for s in configuration.accounts if (s.provider, s.name) == (provider, "main")
        ]
        line = Line(
            folder / "data", replace(configuration, accounts=tuple(accounts)), providers(), world.now, "test", PATIENT
        )
        prepared = Rehearsal(Company(world, address, line), Partition(provider, "main", JUNE))
        for _ in range(SEEDS):
            stated = prepared.anew()
            wrong, *usual = prepared.run()
            assert wrong is None
            assert prepared.company.shown(prepared.month) == stated
            prepared.usual[world.seed] = (usual[0], usual[1])
        yield prepared


def rehearse(prepared: Rehearsal, case: Case) -> tuple[str, str]:
    """Do the fault; what became of it, and what was said. Asserts the promise, and that the run after a refusal is exact."""
    company, month = prepared.company, prepared.month
    before = company.shown(month)
    rows, totals = prepared.anew()
    company.line.patience = case.patience
    for fault in (*case.beside, case.fault):
        prepared.put(fault=fault, **(case.order if fault == case.fault else {"times": 0}))
    wrong, notes, asked = prepared.run()
    done = prepared.on()
    prepared.put(fault=None)
    assert done[-1]["hits"], "the fault never happened"
    shown = company.shown(month)
    moved = {currency: Decimal(amount) for currency, amount in done[-1]["moved"].items() if Decimal(amount)}
    if wrong is None:
        sums = {
            currency: totals.get(currency, Decimal(0)) + moved.get(currency, Decimal(0))
            for currency in {*totals, *moved}
        }
        stated = ((rows, totals), (rows + done[-1]["rows"], sums))
        exchanged = case.outcomes[month.provider][0] == "unseen" and case.fault in MOVES  # what came is in no total
        elsewhere = (
            case.fault == "another currency" and shown[0] == rows and sum(shown[1].values()) == sum(totals.values())
        )
        assert shown in stated or exchanged or elsewhere, (
            f"a third thing: {shown} is neither what was charged nor stated: {stated}"
        )
    else:
        assert shown == before, "a third thing: an error, and yet other numbers"
        assert not [secret for secret in secrets(company) if secret in str(wrong)]
    company.line.patience = PATIENT
    if wrong:
        after = prepared.anew()
        later = prepared.run()[0]
        assert later is None, later
        assert company.shown(month) == after, "the run after the fault is not exact"
        failure = company.line.failure(month, wrong)
        assert failure.chapter != "anything-else", f"no error of ours, with no word on what to do: {failure}"
        assert failure.remedy
        return "refused", f"{failure.kind}: {failure.what} (rerun: {failure.rerun})"
    if shown != (rows, totals):
        return ("stated" if case.fault == "another currency" else "unseen"), ""
    usual, needed = prepared.usual[company.world.seed]
    told = "; ".join(sorted(notes - usual))
    if told and month.provider != "infobip":  # Infobip's is that the letter of a try that failed was set aside
        return "noted", told
    return ("healed" if told or asked > needed else "harmless"), ""


def secrets(company: Company) -> list[str]:
    """What no error may tell."""
    return [secret for settings in company.line.configuration.accounts for secret in settings.secrets()]


def _all(word: str, says: str = "", *providers: str) -> dict[str, tuple[str, str]]:
    return dict.fromkeys(providers or PROVIDERS, (word, says))


_LISTS = ("plivo", "talkdesk", "ycloud")  # whose bills come in pages; Infobip's comes as a letter
_FOR_EVER = {"times": 0}
_FROM_PAGE_2 = {"times": 0, "after": 1}
_TOKEN = {"path": "/oauth/token"}
_FAILS = "also after all retries.*rerun: yes"

CASES = [
    # Answers that are none.
    *(
        Case(f"{status}, twice", status, _all("healed"), {"times": 2}) for status in ("429", "500", "502", "503")
    ),
    *(
        Case(f"{status}, for ever", status, _all("refused", f"still {status} after all retries.*rerun: yes"), _FOR_EVER)
        for status in ("429", "500", "502", "503")
    ),
    Case("503 from page 2 on", "503", _all("refused", "still 503.*rerun: yes", *_LISTS), _FROM_PAGE_2),
    Case("429, Retry-After in seconds", "429 with seconds", _all("healed"), {"seconds": 1}),
    Case("429, Retry-After as a date", "429 with a date", _all("healed"), {"seconds": 2}),
    Case("429, Retry-After longer than a run waits", "429 with seconds",
         _all("refused", "not to be asked again for 50 sec"), {"seconds": 50}),
    Case("503, Retry-After in seconds", "503 with seconds", _all("healed"), {"seconds": 1}),
    Case("401, once", "401", {**_all("refused", "401 from.*rerun: no"), "talkdesk": ("healed", "")}),
    Case("401 from page 2 on (a token that died)", "401",
         _all("refused", "401 from.*rerun: no", *_LISTS), _FROM_PAGE_2),
    Case("401 once on page 2 (a token that died)", "401",
         {**_all("refused", "401 from", "plivo", "ycloud"), "talkdesk": ("healed", "")}, {"after": 1}),
    Case("403", "403", _all("refused", "403 from.*rerun: no")),
    Case("redirect to another host", "redirect", _all("refused", "302 from.*rerun: no")),
    Case("an HTML page with status 200", "HTML page", _all("refused", "status 200, but no JSON .text/html")),
    Case("the same from page 2 on", "HTML page", _all("refused", "status 200, but no JSON .text/html", *_LISTS), _FROM_PAGE_2),
    Case("an empty body with status 200", "empty body", _all("refused", "status 200, but no JSON .*empty body")),
    Case("the right body with a wrong content type", "wrong content type", _all("harmless")),
    Case("a gzip bomb", "gzip bomb", _all("refused", "larger than 67,108,864 bytes")),
    Case("a body without end", "body without end", _all("refused", "larger than 67,108,864 bytes")),
    # The wire.
    Case("connection reset, once", "connection reset", _all("healed")),
    Case("connection reset, for ever", "connection reset", _all("refused", f"the connection failed, {_FAILS}"), _FOR_EVER),
    Case("truncated body, once", "truncated body", _all("healed")),
    Case("truncated body, for ever", "truncated body", _all("refused", f"the connection failed, {_FAILS}"), _FOR_EVER),
    Case("truncated body from page 2 on", "truncated body", _all("refused", _FAILS, *_LISTS), _FROM_PAGE_2),
    *(
        case
        for fault in ("slow body", "slow headers", "hanging socket")
        for case in (
            Case(f"{fault}, once", fault, _all("healed"), {"seconds": 0.2}, patience=HURRIED),
            Case(f"{fault}, for ever", fault, _all("refused", f"no complete answer in time, {_FAILS}"),
                 {"seconds": 0.2, **_FOR_EVER}, patience=HURRIED),
        )
    ),
    # Talkdesk's token.
    Case("token endpoint: 500, once", "500", _all("healed", "", "talkdesk"), _TOKEN),
    Case("token endpoint: 500, for ever", "500",
         _all("refused", "token.*still 500 after all retries", "talkdesk"), {**_TOKEN, **_FOR_EVER}),
    Case("token endpoint: 429, once", "429", _all("healed", "", "talkdesk"), _TOKEN),
    Case("token endpoint: 401", "401", _all("refused", "check token_url, client_id", "talkdesk"), _TOKEN),
    Case("token endpoint: an HTML page", "HTML page",
         _all("refused", "no access_token; is it the token endpoint", "talkdesk"), _TOKEN),
    Case("token endpoint: hanging, once", "hanging socket", _all("healed", "", "talkdesk"), _TOKEN, patience=HURRIED),
    # Pages.
    Case("a page comes again", "repeated page", {
        "plivo": ("refused", "page 2 has other_charges, which belong to page 1"),
        "talkdesk": ("refused", "page 1 followed page 1"),
        "ycloud": ("refused", "page 2: offset should be 100, the answer says 0"),
    }, {"times": 2}),
    Case("the rows of a page come again in the next", "repeated rows", {
        "plivo": ("healed", ""),
        "talkdesk": ("refused", "page 2 has the very rows of an earlier page"),
        "ycloud": ("healed", ""),
    }, {"times": 2}),
    Case("the same in every walk", "repeated rows", {
        "plivo": ("refused", "had come twice by|billed cost stated by the provider"),
        "talkdesk": ("refused", "page 2 has the very rows of an earlier page"),
        "ycloud": ("refused", "repeat the date, channel, wabaId|length should be"),
    }, _FOR_EVER),
    Case("a cursor that loops", "looping cursor", {
        "plivo": ("refused", "next_page_token for the second time"),
        "talkdesk": ("refused", "leads back to a page that was read before"),
    }, {"after": 1}),
    Case("`next` on a foreign host", "foreign next",
         _all("refused", "another address .*the token was not sent there", "talkdesk")),
    Case("a row leaves the list between two pages", "row removed between pages", _all("healed", "", *_LISTS)),
    Case("the same, and no counts are stated", "row removed between pages",
         _all("healed", "", "talkdesk", "ycloud"), beside=("missing counts",)),
    Case("the same in every walk", "row removed between pages", {
        "plivo": ("refused", "billed cost stated by the provider"),
        "talkdesk": ("refused", "walked 4 times, and the list moved every time"),
        "ycloud": ("refused", "walked 4 times, and the rows never added up"),
    }, _FOR_EVER),
    Case("a row enters the list between two pages", "row inserted between pages", _all("healed", "", *_LISTS)),
    Case("the same in every walk", "row inserted between pages", {
        "plivo": ("refused", "1 usage buckets had come twice by page 2"),
        "talkdesk": ("refused", "walked 4 times, and the list moved every time"),
        "ycloud": ("refused", "walked 4 times, and the rows never added up"),
    }, _FOR_EVER),
    Case("a row leaves and another enters between two pages", "row exchanged between pages",
         {**_all("healed", "", "plivo", "talkdesk"), "ycloud": ("unseen", "")}),
    # Rows and totals.
    Case("a row twice on a page, totals agree, once", "duplicate row", _all("healed", "", *_LISTS)),
    Case("a row twice on a page, totals agree, for ever", "duplicate row", {
        "plivo": ("refused", "1 usage buckets had come twice by page 1"),
        "talkdesk": ("refused", "rows stated by the provider"),
        "ycloud": ("refused", "repeat the date, channel, wabaId"),
    }, _FOR_EVER),
    Case("wrong totals, once", "wrong totals", _all("healed", "", *_LISTS)),
    Case("wrong totals, for ever", "wrong totals", {
        "plivo": ("refused", "billed cost stated by the provider"),
        "talkdesk": ("refused", "rows stated by the provider"),
        "ycloud": ("refused", "walked 4 times, and the rows never added up"),
    }, _FOR_EVER),
    Case("a row is missing, the totals have it", "row lost", {
        "plivo": ("refused", "billed cost stated by the provider"),
        "talkdesk": ("refused", "states count 50, but has 49 rows"),
        "ycloud": ("refused", "length should be 99, the answer says 100"),
    }, _FOR_EVER),
    Case("the same, a row below a cent", "cheap row lost", {
        "plivo": ("unseen", ""),
        "talkdesk": ("refused", "states count 50, but has 49 rows"),
        "ycloud": ("refused", "length should be 99, the answer says 100"),
    }),
    Case("a row is missing, totals too", "row lost, totals too", {
        "plivo": ("unseen", ""), "talkdesk": ("healed", ""), "ycloud": ("healed", ""),
    }),
    Case("the same in a list of one page", "row lost, totals too", _all("unseen", "", "ycloud"), {"after": 5}),
    # Fields and amounts.
    Case("unknown fields", "unknown fields",
         {**_all("noted", "rows have fields that", *_LISTS), "infobip": ("harmless", "")}, _FOR_EVER),
    Case("an unknown product", "unknown value", {
        "plivo": ("noted", "unknown product 'fax'"), "talkdesk": ("noted", "'HOLOGRAM' is not documented"),
        "ycloud": ("noted", "undocumented channel 'fax'"),
    }, _FOR_EVER),
    Case("optional fields are missing", "missing optional fields", {
        "plivo": ("harmless", ""), "talkdesk": ("noted", "rows have no id"), "ycloud": ("noted", "without isTransient"),
    }, _FOR_EVER),
    Case("an amount is missing (Infobip: the requestId)", "missing amount", {
        **_all("refused", "missing required field", *_LISTS), "infobip": ("refused", "no requestId in the answer")}),
    Case("an amount is null (Infobip: the requestId)", "null amount", _all("refused", "got `null`", *_LISTS)),
    Case("the requestId is null", "requestId is null", _all("refused", "no requestId in the answer", "infobip")),
    Case("the requestId is empty", "requestId is empty", _all("refused", "the requestId is empty", "infobip")),
    Case("the list of rows is missing", "missing rows", _all("refused", "missing required field", *_LISTS)),
    Case("a row's list of costs is missing", "missing cost items", _all("refused", "what is missing is not zero", "ycloud")),
    Case("an amount is NaN", "NaN amount", _all("refused", "no whole JSON document", *_LISTS)),
    Case("amounts in quotes", "text amounts", _all("harmless", "", *_LISTS), _FOR_EVER),
    Case("an amount in words", "amount in words", _all("refused", "Invalid decimal string", *_LISTS)),
    Case("17 digits behind the point", "17-digit amounts", _all("harmless", "", *_LISTS)),
    Case("19 digits behind the point (float noise)", "19-digit amounts",
         _all("refused", "refused, not rounded.*the landing keeps every digit", *_LISTS)),
    Case("amounts with an exponent", "exponent amounts", _all("harmless", "", *_LISTS), _FOR_EVER),
    Case("an amount of 1E400", "huge amount", {
        "plivo": ("refused", "cannot be held exactly|billed cost stated"), **_all("refused", "refused, not rounded",
        "talkdesk", "ycloud")}, _FOR_EVER),
    Case("negative amounts", "negative amounts", _all("harmless", "", *_LISTS)),
    Case("mixed currencies", "another currency", {
        "plivo": ("refused", "currency is USD, expected GBP|currency is GBP, expected USD"), "talkdesk": ("healed", "")}),
    Case("mixed currencies in every walk", "another currency", _all("stated", "", "talkdesk"), _FOR_EVER),
    Case("a currency that is none", "no currency", _all("refused", "'dollars' .*no ISO 4217 code", "plivo", "talkdesk"),
         _FOR_EVER),
]  # fmt: skip


def cases(provider: str) -> list[Case]:
    """Those that apply to a provider."""
    return [case for case in CASES if provider in case.outcomes]


ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"


def table() -> str:
    """The table of docs/faults.md."""
    lines = [
        "| the provider sends | " + " | ".join(providers()[name].title for name in PROVIDERS) + " |",
        "| --- |" + " --- |" * len(PROVIDERS),
    ]
    for case in CASES:
        words = [case.outcomes[name][0] if name in case.outcomes else "" for name in PROVIDERS]
        lines.append(f"| {case.told} | " + " | ".join(words) + " |")
    return "\n".join([*lines, "", *(f"- *{word}*: {meaning}." for word, meaning in OUTCOMES.items())])


def summary() -> str:
    """The table of README.md: how many faults ended how."""
    lines = [
        f"{len(CASES)} faults, {sum(len(case.outcomes) for case in CASES)} pairs of a fault and a provider:",
        "",
        "| so many ended so | " + " | ".join(providers()[name].title for name in PROVIDERS) + " |",
        "| --- |" + " ---: |" * len(PROVIDERS),
    ]
    for word, meaning in OUTCOMES.items():
        ended = [sum(case.outcomes.get(name, ("",))[0] == word for case in CASES) for name in PROVIDERS]
        lines.append(f"| *{word}*: {meaning} | " + " | ".join(map(str, ended)) + " |")
    return "\n".join(lines)


PAGES = {ROOT / "docs" / "faults.md": table, ROOT / "README.md": summary}


def written(page: Path) -> str:
    """A page with its table as it should be."""
    before, _, rest = page.read_text().partition(BEGIN)
    return f"{before}{BEGIN}\n{PAGES[page]()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page))
