"""How far a month is: what provider, HTTP client and loading say of it, put together for a terminal's bar or Dagster's log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

T = TypeVar("T")

Tell = Callable[[int, int, str], None]
"""Called as each step of long work begins: how many are done, how many there are, and what this one is."""


class Saying(Protocol):
    """How `fetch` says where it is."""

    def __call__(self, text: str, *, rows: int | None = None) -> None:
        """What is done now ("page 12"), and how many rows were counted so far, where they are counted on the way."""


def silent(text: str, *, rows: int | None = None) -> None:
    """Nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rate limit as it stands at this instant, requests of other processes included.

    Attributes:
        requests, seconds: so many are allowed in any such time.
        left: how many may be sent now.
        wait: seconds until the next may be sent; 0 unless none is left.
    """

    requests: int
    seconds: float
    left: int
    wait: float = 0

    def __str__(self) -> str:
        return f"{self.left} of {self.requests} requests left"

    @property
    def limit(self) -> str:
        """As a person says it: `20 requests a minute`."""
        named: dict[float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86400: "a day"}
        count = f"{self.requests} request{'s' if self.requests > 1 else ''}"
        return f"{count} {named.get(self.seconds, f'in {self.seconds:g} s')}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One month of one account, on its way.

    Attributes:
        doing: what is done now.
        pages: how many came.
        rows: how many were counted; None: nobody counts them on the way.
        look: how `window` is found.
        waits: `doing` is a wait.
    """

    doing: str
    pages: int = 0
    rows: int | None = None
    look: Callable[[], Window | None] = lambda: None
    waits: bool = False

    @property
    def window(self) -> Window | None:
        """The rate limit of which the fewest requests are left; None: nothing was asked yet.

        To be asked for while this is told, and only when somebody sees it: looking takes a tenth of what a request takes.
        """
        return self.look()

    def __str__(self) -> str:
        told = [f"{self.pages} page{'s' if self.pages != 1 else ''}"] if self.pages else []
        told += [f"{self.rows} rows"] if self.rows is not None else []
        window = self.window
        told += [str(window)] if window else []
        return self.doing + (f" ({', '.join(told)})" if told else "")


class Walk:
    """Listens to one month's fetch and loading, and tells each step once.

    A provider that never says where it is is heard all the same: its pages are counted as they come.

    Args:
        tell: called with every step.
        window: the client's tightest rate limit as it stands; None as long as there is no client.
    """

    def __init__(self, tell: Callable[[Progress], None], window: Callable[[], Window | None] = lambda: None) -> None:
        self.window = window
        self._tell = tell
        self._now = Progress(doing="asking")
        self._said = False

    def __call__(self, text: str, *, rows: int | None = None) -> None:
        """What the provider says, see `Saying`."""
        self._said = True
        # A walk that begins anew, or is repeated to be compared, counts from 0 again; the number shown does not go back.
        most = self._now.rows if rows is None else max(rows, self._now.rows or 0)
        self._say(replace(self._now, doing=text, rows=most))

    def waiting(self, seconds: float, why: str) -> None:
        """The client waits."""
        self._say(replace(self._now, doing=f"waiting {seconds:.0f} s ({why})", waits=True))

    def counted(self, answers: Iterable[T], counts: Callable[[T], bool]) -> Iterator[T]:
        """The answers as they come, those that `counts` counted as pages."""
        for answer in answers:
            yield answer
            if counts(answer):
                self._now = replace(self._now, pages=self._now.pages + 1)
                if not self._said:
                    self._say(replace(self._now, doing=f"page {self._now.pages}"))

    def _say(self, now: Progress) -> None:
        self._now = replace(now, look=self.window)
        self._tell(self._now)
        self._now = replace(self._now, waits=False)
