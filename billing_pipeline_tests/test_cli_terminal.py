"""What a person sees in a terminal of 80 columns, and that nothing of what moves gets into a pipe."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.text import Text

from billing_pipeline import replay, restatements, verify
from billing_pipeline.corrections import Restatement
from billing_pipeline.landing import Partition
from billing_pipeline.period import BillingPeriod
from billing_pipeline.reconcile import Tally
from billing_pipeline.sandbox.faults import Order
from billing_pipeline.terminal import wrapped

from .conftest import Company
from .test_cli import CLEAN, PLIVO, Desk, desk
from .test_questions import MAY, bill, hold

__all__ = ["desk"]  # the fixture

CTRL_C = b"\x03"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HUGE = "-12345678901234567890.123456789012345678"
SLOW = PLIVO.replace("requests = 1000, seconds = 1", "requests = 1, seconds = 60")


@dataclass
class Terminal:
    """A command in a terminal of its own.

    Attributes:
        process: the command.
        descriptor: the terminal.
        raw: everything that it showed, with what moves the cursor.
    """

    process: subprocess.Popen[bytes]
    descriptor: int
    raw: str = ""

    def read(self, until: Callable[[str], bool] = lambda shown: False, seconds: float = 120) -> str:
        """What is shown until `until`, or to the end."""
        end = time.monotonic() + seconds
        while not until(self.raw):
            assert time.monotonic() < end, self.raw[-2000:]
            if not select.select([self.descriptor], [], [], 0.1)[0]:
                continue
            try:
                came = os.read(self.descriptor, 1 << 16)
            except OSError:  # its end
                break
            self.raw += came.decode(errors="replace")
        return self.raw

    def ended(self) -> int:
        """The exit status, once it has ended."""
        self.read()
        os.close(self.descriptor)
        return self.process.wait(60)

    @property
    def lines(self) -> list[str]:
        """Everything that was ever shown, in lines, without colours and movements."""
        return re.split(r"[\r\n]+", ESCAPE.sub("", self.raw))


def terminal(desk: Desk, *arguments: str, stdout: int | None = None) -> Terminal:
    """Type a command in a terminal of 80 columns; `stdout` may go elsewhere."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "billing_pipeline", *arguments],
        cwd=desk.folder,
        env=CLEAN | desk.variables | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs if stdout is None else stdout,
        stderr=theirs,
        preexec_fn=lambda: _own(theirs),
    )
    os.close(theirs)
    return Terminal(process, ours)


def _own(descriptor: int) -> None:
    """Make it the process's controlling terminal, so that Ctrl-C reaches it."""
    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def test_a_refresh_shows_a_bar_with_pages_rows_and_requests_left_and_leaves_a_clean_terminal(desk: Desk) -> None:
    desk.configure(PLIVO.replace("seconds = 1", "seconds = 3600"))
    desk.world.scale = 4  # so that a month has more than one page
    desk.world.faults.arm(Order(provider="plivo", fault="slow body", after=1, seconds=0.05))  # page 2 takes 3 s
    shown = terminal(desk, "refresh")
    assert shown.ended() == 0, shown.raw[-2000:]
    bar = r"plivo/main\s+\S+ 0/2 2026-05 1 page, [1-9]\d* rows, 999 of 1000 requests left"
    assert any(re.search(bar, line) for line in shown.lines), shown.lines
    assert [line for line in shown.lines if len(line) > 80] == []
    # The bars are wiped out, and the cursor is there again.
    left = shown.raw.rpartition("\x1b[?25h")[2]
    assert "\x1b[?25l" not in left
    assert "━" not in left
    assert ESCAPE.sub("", left).strip().startswith("Reports: data/reports/index.html")
    said = [line for line in shown.lines if line.strip() and " reporting " not in line]
    assert said[-2].endswith(
        "make ui"
    )  # said after the bars of the accounts were wiped out, before that of the reports


def test_bars_do_not_follow_results_into_a_file_and_json_draws_none(desk: Desk, tmp_path: Path) -> None:
    desk.configure()
    desk.world.faults.arm(Order(provider="plivo", fault="slow body", after=1, seconds=0.02))
    with (tmp_path / "said.txt").open("wb") as file:
        shown = terminal(desk, "refresh", stdout=file.fileno())
        assert shown.ended() == 0
    said = (tmp_path / "said.txt").read_text()
    assert "✓ plivo/main 2026-05: loaded" in said
    assert "\x1b" not in said
    assert "requests left" in shown.raw
    assert "✓" not in shown.raw
    for arguments in (("refresh", "--json"), ("verify", "--json")):
        with (tmp_path / "said.json").open("wb") as file:
            shown = terminal(desk, *arguments, stdout=file.fileno())
            assert shown.ended() == 0
        assert "━" not in shown.raw
        assert "\x1b[?25l" not in shown.raw


def test_a_pipe_gets_whole_sentences_and_nothing_that_moves(desk: Desk) -> None:
    desk.configure()
    with desk.start("refresh", "--period", "2026-05") as process:
        output, errors = process.communicate(timeout=120)
    assert errors == ""
    assert "\x1b" not in output
    assert re.search(r"^✓ plivo/main 2026-05: loaded; \d+ rows, [0-9.]+ USD, final$", output, re.MULTILINE)


def test_a_wait_says_why_and_ctrl_c_ends_it_at_once_with_what_was_published(desk: Desk) -> None:
    desk.configure(SLOW)
    shown = terminal(desk, "refresh")
    shown.read(lambda raw: "waiting" in raw)
    waits = [line for line in shown.lines if "waiting" in line]
    assert re.search(r"2026-0[56] waiting (60|5\d) s \(1 request a minute\)", waits[0])
    os.write(shown.descriptor, CTRL_C)
    shown.read(seconds=40)  # it would have waited for 50 s more
    assert shown.ended() == 130
    left = ESCAPE.sub("", shown.raw.rpartition("\x1b[?25h")[2])
    said = " ".join(left.split())
    assert "Stopped. Published: nothing new." in said
    assert "Traceback" not in shown.raw
    loaded = re.findall(r"✓ plivo/main (2026-0[56]): loaded", ESCAPE.sub("", shown.raw))
    for month in loaded:
        assert f"Loaded, and published by the next refresh: plivo/main {month}" in said
    desk.configure()
    (desk.folder / "data" / "limits").rename(desk.folder / "limits-of-yesterday")
    assert desk.type("refresh")[0] == 0
    assert {key[2] for key in desk.months()} == {"2026-05", "2026-06"}
    assert desk.ask("SELECT count(DISTINCT x_BillingPeriod) FROM charges") == [(2,)]


def test_lines_are_wrapped_between_words_and_an_amount_stays_beside_its_currency() -> None:
    line = "✓ talkdesk/main 2026-02: loaded; 59 rows, 5809.55944 EUR + 19695.81586 USD, final"
    for width in range(30, 90):
        pieces = wrapped(line, width).split("\n")
        assert all(len(piece) <= width for piece in pieces)
        assert " ".join(piece.strip() for piece in pieces) == line
        for amount in ("5809.55944 EUR", "19695.81586 USD"):
            assert any(amount in piece for piece in pieces)
    path = "/a/" + "long-" * 30 + "path"
    assert path in wrapped(f"See {path} for more", 40).split("\n    ")


def narrow() -> Console:
    """A terminal of 80 columns that remembers."""
    return Console(width=80, force_terminal=True, color_system=None, record=True, file=io.StringIO())


def shown(console: Console) -> str:
    """What stands in it; every line fits."""
    text = console.export_text()
    assert [line for line in text.splitlines() if Text(line).cell_len > 80] == []
    return text


def test_the_status_of_huge_amounts_and_long_names_fits_80_columns_with_every_digit(desk: Desk) -> None:
    name = "the-account-of-the-subsidiary-with-the-longest-name-of-them"
    hold(desk.folder / "data", MAY, [bill(HUGE), bill(HUGE, "EUR")])
    long = Partition(MAY.provider, name, MAY.period)
    hold(desk.folder / "data", long, [bill("0.1")])
    desk.configure()
    status = terminal(desk, "status")
    assert status.ended() == 0, status.raw
    assert [line for line in status.lines if len(line) > 80] == []
    assert sum(f"{HUGE} USD" in line for line in status.lines) == 1
    assert sum(f"{HUGE} EUR" in line for line in status.lines) == 1
    assert "0.1 USD" in " ".join(status.lines)


def test_a_restatement_of_huge_amounts_fits_80_columns_with_every_digit(company: Company) -> None:
    may = company.month("plivo", "main", "2026-05")
    company.do(may)
    company.world.seed = "another company"
    company.do(may, explicit=True)
    found: list[Restatement] = company.line.restatements()
    console = narrow()
    restatements.show(found, console)
    text = shown(console)
    (row,) = restatements.rows(found)
    for name in ("x_HeldTotals", "x_StatedTotals", "x_Difference"):
        assert f"{row[name]['USD']} USD\n" in text
    assert "    billing-pipeline approve plivo/main 2026-05\n" in text


def test_what_replay_and_verify_say_fits_80_columns_with_every_digit() -> None:
    totals = {"EUR": Decimal(HUGE), "USD": Decimal(HUGE)}
    month = replay.Month(
        partition=Partition("talkdesk", "the-account-of-the-subsidiary", BillingPeriod(2026, 5)),
        final=True,
        file="damaged",
        made="moves",
        held=Tally(rows=1, totals={"EUR": Decimal(1)}),
        replayed=Tally(rows=2, totals=totals),
        why="it is closed, and this version reads other money in its bytes; it stays as it was closed",
    )
    console = narrow()
    replay.show(replay.Replayed([month]), console)
    text = shown(console)
    for amount in (f"{HUGE} EUR", f"{HUGE} USD", "-12345678901234567891.123456789012345678 EUR"):
        assert amount in text
    console = narrow()
    finding = verify.Finding("raw/talkdesk/main/2026-05/20260615T120000.000000Z", "was changed " * 9, "restore it")
    verify.show(verify.Verified(months=1, findings=[finding]), console)
    assert "To do: restore it" in " ".join(shown(console).split())


def test_the_views_fit_80_columns(desk: Desk) -> None:
    desk.configure()
    assert desk.type("refresh", "--period", "2026-05")[0] == 0
    for arguments in (["--tables"], ["FROM charges LIMIT 1"], ["FROM monthly_cost"]):
        sql = terminal(desk, "sql", *arguments)
        assert sql.ended() == 0, sql.raw
        assert [line for line in sql.lines if len(line) > 80] == []
