"""A thread beside that does one thing after another: hashing, compressing and Arrow need no interpreter meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

AHEAD = 2  # steps that may wait, and hold their memory


class Beside:
    """Steps in the order in which they were given. As a context manager it is left when all are done, or one has failed.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: deque[Future[Any]] = deque()
        self._failed: BaseException | None = None

    def do(self, step: Callable[..., Any], *arguments: Any) -> None:
        """Before long. What an earlier step raised is raised here, or by `wait`; what was given after it is not done."""
        while len(self._waiting) >= AHEAD:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._do, step, *arguments))

    def wait(self) -> None:
        """Until everything given so far is done."""
        while self._waiting:
            self._waiting.popleft().result()
        if self._failed:
            raise self._failed

    def _do(self, step: Callable[..., Any], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            step(*arguments)
        except BaseException as error:
            self._failed = error
            raise

    def close(self) -> None:
        """End the thread when it has done what waits, whatever comes of it."""
        self._thread.shutdown()

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if not error:
            self.wait()
