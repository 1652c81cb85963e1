"""What a person sees: sentences that fit the terminal, and bars while something takes long.

Results go to stdout, notices and whatever moves to stderr. With --json stdout has the one document and nothing else.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from .progress import Tell

# Markup is off: what a provider calls something may look like it.
out = Console(markup=False)
err = Console(stderr=True, markup=False)


def say(console: Console, text: str, style: str = "") -> None:
    """Sentences, one line each; a terminal gets them wrapped between words, with every amount beside its currency."""
    if console.is_terminal:
        text = "\n".join(wrapped(line, console.width) for line in text.split("\n"))
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def wrapped(line: str, width: int) -> str:
    """One line in several of at most `width`, unless one word is longer: an address or a path stays whole, to be copied."""
    start = line[: len(line) - len(line.lstrip())]
    held = re.sub(r"(?<=\d) (?=[A-Z]{3}\b)", "\N{NO-BREAK SPACE}", line)  # textwrap breaks at ASCII's white space alone
    pieces = textwrap.wrap(
        held, width, subsequent_indent=start + "    ", break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(pieces).replace("\N{NO-BREAK SPACE}", " ")


def document(value: Any) -> None:
    """One JSON document on stdout. Characters beyond ASCII are escaped, so that no name can steer a terminal."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def bars(*, watched: bool) -> Progress:
    """A bar for each thing that goes on beside the others, with what it does (`doing`) behind it.

    It draws only when `watched`, and where somebody looks: stderr is a terminal that can move its cursor. It leaves nothing
    behind. What is printed meanwhile to `console` of it stands above the bars.
    """
    # Where stdout is the same terminal the bars are there too, so that lines printed to it come above them.
    console = out if sys.stdout.isatty() else err
    return Progress(
        SpinnerColumn(),
        TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", max_width=24),
        ),
        BarColumn(bar_width=8),
        MofNCompleteColumn(),
        TextColumn(
            "{task.fields[doing]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")
        ),
        console=console,
        disable=not (watched and sys.stderr.isatty() and not console.is_dumb_terminal),
        expand=True,
        transient=True,
        redirect_stdout=False,  # into a file it must stay there
        refresh_per_second=4,
    )


@contextmanager
def steps(what: str, *, watched: bool) -> Iterator[Tell]:
    """One bar for work in steps; whoever works calls what this gives as each step begins. Ctrl-C is answered."""
    try:
        with bars(watched=watched) as shown:
            task = shown.add_task(what, doing="", total=None)
            yield lambda done, of, text: shown.update(task, completed=done, total=of, doing=text)
    except KeyboardInterrupt:
        say(err, f"Stopped while {what}. Nothing is half; what was not done is done by the same command.")
        raise
