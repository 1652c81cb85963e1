"""A process of this program's own: starting it, and speaking to it through its pipes. What is said is pickled."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from . import environment, importing

GONE = False
"""Instead of an answer, of a process that has died."""

_SERVE = f"""
from {importing.__name__} import sparingly, undisturbed
sparingly()
with undisturbed():
    from %s import serve
serve()
"""


def started(module: str) -> subprocess.Popen[bytes] | None:
    """A process that runs `serve` of a module; None: the system has none left."""
    command = [sys.executable, "-P", "-c", _SERVE % module]
    pipe = subprocess.PIPE
    try:
        # Not of the terminal's group: Ctrl-C is for this process, which ends it.
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, process_group=0)  # noqa: S603  ourselves
    except OSError:
        return None


def told(process: subprocess.Popen[bytes], message: object) -> None:
    """Tell a process something; OSError when it has died."""
    assert process.stdin  # noqa: S101  a pipe
    pickle.dump(message, process.stdin)
    process.stdin.flush()


def answered(process: subprocess.Popen[bytes], question: object = None) -> Any:
    """What a process tells next, asked something or not; GONE when it has died, or cannot be understood."""
    assert process.stdout  # noqa: S101  a pipe
    try:
        if question:
            told(process, question)
        return pickle.load(process.stdout)  # noqa: S301  ourselves
    except Exception:  # noqa: BLE001  also what another version says, when the program was replaced meanwhile
        return GONE


def served() -> tuple[Any, Callable[[object], None]]:
    """In the process: the first question, and how to tell something."""
    environment.private()
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever is printed must not stand between the answers

    def tell(message: object) -> None:
        try:
            pickle.dump(message, target)
            target.flush()
        except OSError:  # in the middle of a month: nobody listens is no failure of it
            os._exit(1)

    return pickle.load(sys.stdin.buffer), tell  # noqa: S301  of the process that started this one


def outlived(heard: Callable[[], object] = lambda: None) -> None:
    """In a thread of the process: ends it when whoever started it is gone, or closes its input.

    Then nobody is told, and the accounts are somebody else's. `heard` is called for every byte that comes before.
    """
    # Not of sys.stdin, whose lock a thread that waits would keep: the interpreter aborts when it finds it so at its end.
    while os.read(sys.stdin.fileno(), 1):
        heard()
    os._exit(1)
