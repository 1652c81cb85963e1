"""Importing is most of what a small command does: less of it, and no garbage collection while it lasts. Not for others' code.

Measured on a daily refresh of four small accounts, which takes 2 to 3 s: benchmarks/NOTES.md.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Without:
    """Keeps libraries from importing what they can do without.

    pandas, which pyarrow asks for with its first array: it asks once and remembers, but accounts in threads may ask at the same
    time. numpy, which pyarrow imports with itself; reports, whose plots need it, import it later. httpx's own command
    line.
    """

    def find_spec(self, name: str, *_: object) -> None:
        """What the import system asks."""
        if name in ("pandas", "httpx._main") or (name == "numpy" and _asking() == "pyarrow"):
            raise ModuleNotFoundError(f"{name} is spared", name=name)


def _asking() -> str:
    """The package whose Python code is importing just now."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_globals is globals() or frame.f_code.co_filename.startswith("<frozen importlib")):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def sparingly() -> None:
    """From now on, in this process. Before pyarrow and httpx are imported."""
    sys.meta_path.insert(0, _Without())


@contextmanager
def undisturbed() -> Iterator[None]:
    """Without the garbage collector, which would look a dozen times through modules that stay, and does not do so afterwards.

    Where the interpreter takes itself apart in the end, it does: DuckDB complains of what is left then.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)
