"""Rounds of killing and healing on one data folder, against the sandbox's own totals."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pyarrow.parquet as pq

from billing_pipeline import environment
from billing_pipeline.accounts import read
from billing_pipeline.corrections import Restatement
from billing_pipeline.landing import Landing, Partition
from billing_pipeline.line import Line
from billing_pipeline.period import BillingPeriod
from billing_pipeline.providers import providers
from billing_pipeline.sandbox.app import PROVIDERS, running
from billing_pipeline.sandbox.world import Clock, World

from ..conftest import free_port
from .books import Amounts, Books, Shown, require, shown
from .processes import PATIENCE, Kill, Processes

PROJECT = Path(__file__).parents[2]
HISTORY = "2026-04"
START = datetime(2026, 5, 25, 6, tzinfo=UTC)
UNFINISHED = re.compile(r"^\.|\.tmp$|\.wal$")
STAYS = re.compile(r"^(locks|limits|dagster|alerts)/|^mailbox/[0-9a-f]{64}/\.")  # drafts go with their ticket
WHATS = {"refresh": 10, "refresh --watch": 4, "approve": 4, "dismiss": 1, "replay": 3, "verify": 2, "dagster": 2}
"""What is killed, and how often."""


class Soak:
    """One company, one data folder, and many processes.

    Args:
        folder: where everything is kept.
        seed: of chance.
        say: told what happens.
        providers: of the sandbox; fewer are quicker.
    """

    def __init__(
        self, folder: Path, seed: int, say: Callable[[str], None], providers: Collection[str] = PROVIDERS
    ) -> None:
        self.providers = providers
        self.folder = folder
        self.data = folder / "data"
        self.random = random.Random(seed)  # noqa: S311  chance, not a secret
        self.say = say
        self.world = World(Clock(START), scale=0.02)
        self.world.enforce_limits = False
        self.before = Shown()
        self.seen: set[Path] = set()
        self.processes = Processes(folder, self.environ, self.random, say)

    @contextmanager
    def company(self) -> Iterator[None]:
        """The sandbox, the accounts, and a receiver of callbacks that runs all the time."""
        with ExitStack() as stack:
            port = free_port()
            self.address = stack.enter_context(running(port=port, world=self.world))
            text = files("billing_pipeline").joinpath("sandbox", "accounts.toml").read_text()
            text = re.sub(r"^rate_limit.*\n", "", text, flags=re.MULTILINE)
            for hole, value in {
                "@HISTORY@": HISTORY,
                "@SANDBOX@": self.address,
                "@CALLBACKS@": f"127.0.0.1:{port + 1}",
                "[[account]]": "[[account]]\nrate_limit = { requests = 100000, seconds = 1 }",
                'provider = "infobip"': 'provider = "infobip"\nwait_seconds = 60',
            }.items():
                text = text.replace(hole, value)
            top, *accounts = re.split(r"^(?=\[\[account\]\])", text, flags=re.MULTILINE)
            text = top + "".join(
                each for each in accounts if re.findall('provider = "(.*)"', each)[0] in self.providers
            )
            self.world.infobip_delay = 0.02  # type: ignore[attr-defined]
            (self.folder / "accounts.toml").write_text(text)
            for name in ("dagster.yaml", "workspace.yaml"):
                shutil.copy(PROJECT / name, self.folder)
            self.secrets = {name: name.lower().replace("_", "-") for name in re.findall(r'env = "(\w+)"', text)}
            if "infobip" in self.providers:
                receiver, self._kept = self.processes.start(["callbacks"], Kill())
                stack.callback(receiver.kill)
            self.line = Line(
                self.data, read(text, "soak", self.secrets, providers()), providers(), self.world.now, "soak"
            )
            while "infobip" in self.providers and not environment.listens(f"http://127.0.0.1:{port + 1}"):
                time.sleep(0.05)
            yield

    def environ(self) -> dict[str, str]:
        """The variables of a process."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "TMPDIR") if name in os.environ}
        return kept | self.secrets | {
            "BILLING_ACCOUNTS": str(self.folder / "accounts.toml"),
            "BILLING_DATA": str(self.data),
            "BILLING_NOW": f"{self.world.now():%Y-%m-%dT%H:%M:%S.%fZ}",
            "DAGSTER_HOME": str(self.folder),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "PYTHONWARNINGS": "ignore",
            "NO_COLOR": "1",
            "COLUMNS": "500",
        }  # fmt: skip

    # What must be true.

    def stated(self, partition: Partition) -> tuple[int, Amounts]:
        """What the provider would bill for the month if asked now, by the sandbox's own account."""
        settings = self.line.configuration.account(partition.provider, partition.account)
        rows, totals = 0, dict[str, Decimal]()
        for scope in (partition.account, *getattr(settings, "managed_accounts", ())):
            asked = f"totals?provider={partition.provider}&account={scope}&period={partition.period}"
            with urllib.request.urlopen(f"{self.address}/_sandbox/{asked}") as answer:  # noqa: S310  loopback
                found = json.loads(answer.read())
            rows += found["rows"]
            for currency, amount in found["totals"].items():
                totals[currency] = totals.get(currency, Decimal(0)) + Decimal(amount)
        return rows, totals

    def now(self) -> Books:
        """What the providers state now for every month that may be asked for."""
        now = self.world.now()
        wanted = set(self.line.open(now)) | {entry.partition for entry in self.line.ledger.all()}
        current = {p for p in wanted if p.period <= BillingPeriod.of(now + timedelta(days=1), UTC)}
        return {partition.path: self.stated(partition) for partition in current}

    def nothing_is_mixed(self, *news: Books, corrections: dict[str, Amounts]) -> None:
        """Every file opens, and each month shows its old numbers, or whole new ones; a closed one its old ones."""
        for path in [*self.data.glob("charges/*/*.parquet"), *self.data.glob("history/*/*/*.parquet")]:
            if not path.name.startswith("."):
                require(b"billing_pipeline" in pq.read_metadata(path).metadata, f"{path} has no footer")
        for path in self.data.glob("raw/*/*/[0-9]*/[0-9]*"):
            if path not in self.seen:
                provider, account, month = path.parts[-4:-1]
                for page in Landing(Partition(provider, account, BillingPeriod.parse(month)), path):
                    with page.open() as stream:
                        stream.read()
                self.seen.add(path)
        list(self.line.ledger.all())
        if not self.line.warehouse.path.exists():
            require(not self.before.own, "the published warehouse is gone")
            return
        found = shown(self.line.warehouse.path)
        for key in {*found.own, *self.before.own}:
            old, got = self.before.own.get(key), found.own.get(key)
            allowed = [old, *([] if key in self.before.final else [new.get(key) for new in news])]
            require(got in allowed, f"{key} shows {got}, which is none of {allowed}")
        require(self.before.final <= found.final, f"{self.before.final - found.final} were reopened")
        for key in {*found.corrections, *self.before.corrections}:
            got = found.corrections.get(key, {})
            allowed_corrections = [self.before.corrections.get(key, {}), corrections.get(key)]
            require(got in allowed_corrections, f"corrections of {key}: {got}, none of {allowed_corrections}")

    def healed(self, *mids: Books) -> None:
        """The next run, without help: exact numbers, `verify` finds nothing, nothing unfinished lies about."""
        status = self.processes.run(["refresh"])
        if status and "no letter came within" in self.processes.log():
            # It was on its way to the very process that was killed, and no one sends it again: the run after asks anew.
            self.say("  a letter was lost with the process that listened for it")
            self.world.clock.set(self.world.now() + timedelta(minutes=5))
            status = self.processes.run(["refresh"])
        require(status == 0, f"the next run failed: {self.processes.log()}")
        found, new = shown(self.line.warehouse.path), self.now()
        for key in {*new, *found.own, *self.before.own}:
            got = found.own.get(key)
            if key in self.before.final:
                allowed = [self.before.own[key]]
            elif key in found.final:  # closed by the run that was killed, or by this one
                allowed = [new.get(key), *(mid.get(key) for mid in mids)]
            elif any(str(p.path) == key for p in self.line.open()):
                # A letter that the killed run had asked for, and nobody landed, is an answer for half a day.
                asked = [mid.get(key) for mid in mids if key.startswith("infobip/")]
                allowed = [new.get(key), *asked]
            else:
                allowed = [self.before.own.get(key)]
            require(got in allowed, f"healed, {key} shows {got}, which is none of {allowed}")
        booked: dict[str, Amounts] = {}
        for entry in self.line.ledger.all():
            if entry.decision == "approved":
                amounts = booked.setdefault(entry.partition.path, {})
                for currency, amount in entry.evidence["difference"].items():
                    amounts[currency] = amounts.get(currency, Decimal(0)) + Decimal(amount)
        for key in {*booked, *found.corrections}:
            got = found.corrections.get(key, {})
            require(
                {c: a for c, a in got.items() if a} == {c: a for c, a in booked.get(key, {}).items() if a},
                f"healed, the corrections of {key} are {got}, and {booked.get(key)} was approved",
            )
        require(self.processes.run(["verify"]) == 0, f"verify found something: {self.processes.log()}")
        left = [
            name
            for path in self.data.rglob("*")
            for name in [str(path.relative_to(self.data))]
            if UNFINISHED.search(path.name) and not STAYS.search(name)
        ]
        require(not left, f"left for ever: {left}")
        self.before = found

    # The rounds.

    def move(self) -> None:
        """Time goes on, and sometimes the providers state other numbers."""
        hours = self.random.choice([1, 6, 24, 24, 72, 120])
        self.world.clock.set(self.world.now() + timedelta(hours=hours))
        if self.random.random() < 0.5:
            self.world.seed = f"company {self.random.random()}"

    def undecided(self) -> list[Restatement]:
        """What waits for a person."""
        return [each for each in self.line.restatements() if each.outcome == "undecided"]

    def round(self, what: str) -> bool:
        """One kill and its healing; whether anything was killed."""
        self.move()
        corrections: dict[str, Amounts] = {}
        if what in ("approve", "dismiss") and not self.undecided():
            require(self.processes.run(["refresh", "--watch"]) == 0, f"the watch failed: {self.processes.log()}")
            require(self.processes.run(["refresh"]) == 0, f"the refresh failed: {self.processes.log()}")
            self.before = shown(self.line.warehouse.path)
        self.say(f"{self.world.now():%Y-%m-%d %H:%M} {self.world.seed}: {what}")
        mid = self.now()
        if what == "dagster":
            account = self.random.choice(self.line.configuration.accounts)
            whose, month = f"{account.provider}/{account.name}", f"{self.world.now():%Y-%m}"
            killed = self.processes.killed_dagster(whose, month)
            if killed and self.random.random() < 0.5:
                self.nothing_is_mixed(mid, corrections=corrections)
                again = self.processes.dagster(whose, month)
                require(again.wait(PATIENCE) == 0, f"Dagster's next run failed: {self.processes.log()}")
        elif what in ("approve", "dismiss"):
            waiting = self.undecided()
            if not waiting:
                return False
            chosen = self.random.choice(waiting)
            partition = chosen.restated.partition
            whose = f"{partition.provider}/{partition.account}"
            if what == "approve":
                amounts = dict(self.before.corrections.get(partition.path, {}))
                for currency, amount in chosen.difference.items():
                    amounts[currency] = amounts.get(currency, Decimal(0)) + amount
                corrections[partition.path] = amounts
            killed = self.processes.killed([what, whose, str(partition.period), "--why", "soak"])
        elif what == "replay":
            # As after a backup was restored: there is nothing but data/raw, and the warehouse that people look at.
            for name in ("charges", "history"):
                if self.random.random() < 0.7:
                    shutil.rmtree(self.data / name, ignore_errors=True)
            killed = self.processes.killed(["replay"])
        else:
            killed = self.processes.killed(what.split())
        self.nothing_is_mixed(mid, corrections=corrections)
        mids = [mid]
        while killed and self.random.random() < 0.2:  # and the next one is killed too
            if not self.processes.killed(["refresh"]):
                break
            self.nothing_is_mixed(*mids, corrections=corrections)
        if self.random.random() < 0.5:
            self.move()
        self.healed(*mids)
        return killed


def soak(
    kills: int,
    seed: int,
    folder: Path,
    whats: dict[str, int],
    say: Callable[[str], None],
    providers: Collection[str] = PROVIDERS,
) -> tuple[Counter[str], Counter[str]]:
    """Kill that often; how often of each kind, and how many were started."""
    work = Soak(folder, seed, say, providers)
    with work.company():
        work.healed()
        while sum(work.processes.kills.values()) < kills:
            # Each kind in turn at first, then as chance will have it.
            due = [what for what in whats if not work.processes.runs[what]]
            work.round(due[0] if due else work.random.choices([*whats], [*whats.values()])[0])
    return work.processes.kills, work.processes.runs
