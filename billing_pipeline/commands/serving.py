"""What runs until it is stopped: `ui`, `callbacks`, `sandbox`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from .. import environment
from ..period import aware


def ui(port: Annotated[int, typer.Option(help="Port of the Dagster UI.")] = 3000) -> None:
    """The Dagster UI with schedule and sensors, and the sandbox beside it when there is no accounts.toml.

    Examples:
      billing-pipeline ui
      billing-pipeline ui --port 3001

    It runs until Ctrl-C, in the folder that has workspace.yaml.

    Exit status: 0 it was stopped; 2 it was not started, and says why;
    otherwise Dagster's own.
    """
    from .. import ui as work

    environment.line()  # a wrong accounts.toml is told here, in one line, rather than in Dagster's log
    raise typer.Exit(work.run(port))


def callbacks(
    listen: Annotated[str | None, typer.Option(help="host:port; default: callback_listen of accounts.toml.")] = None,
) -> None:
    """Receive answers that come by callback (Infobip), store them, and let the next run find them.

    Example:
      billing-pipeline callbacks --listen 127.0.0.1:8765

    It runs until Ctrl-C. A refresh listens by itself while it waits; this
    is for a receiver that is always there.

    Exit status: 0 stopped by Ctrl-C; 1 nobody can listen there; 2 wrong
    arguments or configuration.
    """
    from .. import terminal
    from ..callbacks import serve
    from ..mailbox import Mailbox

    line = environment.line()
    found = {getattr(s, "callback_listen", None) for s in line.configuration.accounts} - {None}
    addresses = [listen] if listen else sorted(str(address) for address in found)
    if len(addresses) != 1:
        raise typer.BadParameter(
            f"say which address: --listen HOST:PORT (accounts.toml has {', '.join(addresses) or 'none'})"
        )
    host, _, port = addresses[0].rpartition(":")
    if not host or not port.isdecimal():
        raise typer.BadParameter(f"{addresses[0]!r} is not HOST:PORT, such as 127.0.0.1:8765")
    terminal.say(terminal.out, f"Receiving on {addresses[0]}; letters are kept in {line.data / 'mailbox'}.")
    try:
        serve(Mailbox(line.data / "mailbox", line.now), host, int(port))
    except OSError as error:
        terminal.say(terminal.err, f"✗ {error}", "red")
        raise typer.Exit(1) from error


def sandbox(
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8642,
    now: Annotated[str | None, typer.Option(help="Pretend it is this instant, such as 2026-06-03T06:00:00Z.")] = None,
    scale: Annotated[float, typer.Option(help="How much more data than a mid-sized company has.")] = 1.0,
    seed: Annotated[str, typer.Option(help="Another word bills other numbers: to rehearse a restatement.")] = "acme",
) -> None:
    """A stand-in for the four providers' APIs, with made-up data; for a first look, rehearsals and tests.

    Examples:
      billing-pipeline sandbox
      billing-pipeline sandbox --port 9000 --now 2026-06-03T06:00:00Z

    It runs until Ctrl-C. A refresh without accounts.toml uses one that
    listens, or starts its own.

    Exit status: 1 nobody can listen there; 2 wrong arguments; 130
    stopped by Ctrl-C.
    """
    from .. import terminal
    from ..sandbox.app import serve
    from ..sandbox.world import Clock

    clock = Clock()
    if now:
        try:
            clock.set(aware(datetime.fromisoformat(now)))
        except ValueError as error:
            raise typer.BadParameter(f"--now: {error}; write it with its zone") from error
    address = f"http://{host}:{port}"
    terminal.say(terminal.out, f"The sandbox listens on {address} ({address}/_sandbox/accounts shows what it knows).")
    try:
        serve(host, port, clock, scale, seed)
    except ValueError as error:
        raise typer.BadParameter(f"--host: {error}") from error
