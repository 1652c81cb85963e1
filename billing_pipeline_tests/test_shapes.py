"""JSON becomes structs in several threads at once, and no process dies of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import billing_pipeline

# Three threads read the same new kind of struct at the same instant, a hundred times.
RACE = """
import sys, threading, msgspec
from billing_pipeline import shapes
sys.setswitchinterval(1e-6)
for n in range(100):
    inner = msgspec.defstruct(f"Inner{n}", [(f"g{i}", int | None, None) for i in range(20)])
    kind = msgspec.defstruct(f"Kind{n}", [(f"f{i}", list[inner] | None, None) for i in range(40)])
    text = ("{" + ",".join(f'"f{i}":[{{"g{i % 20}":{i}}}]' for i in range(40)) + "}").encode()
    together, found = threading.Barrier(3), []
    def read():
        together.wait()
        found.append(shapes.read(text, kind))
    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(found) == 3 and found[0] == found[1] == found[2] and found[0].f39[0].g19 == 39
print("survived")
"""


def test_several_threads_may_read_the_same_kind_for_the_first_time() -> None:
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True)  # noqa: S603
    assert (done.returncode, done.stdout) == (0, "survived\n"), done.stderr


def test_nobody_asks_msgspec_itself() -> None:
    package = Path(billing_pipeline.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "msgspec.json.decode(" in path.read_text() and path.parent.name != "sandbox"
    ]
    assert not found, f"{found}: shapes.read does it, for several threads at once"
