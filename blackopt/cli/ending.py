"""End the process that drives a campaign, so that another command may."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import typer

from blackopt.errors import LockHeld
from blackopt.ledger.lock import holder

PATIENCE_S = 30.0
"""How long a driver may take to finish its transaction and leave."""


def end_driver(ledger: Path) -> None:
    """Ask the process that drives this campaign to leave, as Ctrl-C would, and wait until it has.

    Raises:
        LockHeld: it is on another machine, belongs to somebody else, or does not leave.
    """
    driver = holder(ledger)
    if driver is None:
        return
    if not driver.pid or driver.host != socket.gethostname():
        raise _held(str(driver), "it cannot be ended from here")
    try:
        os.kill(driver.pid, signal.SIGTERM)
    except PermissionError as error:
        raise _held(str(driver), str(error)) from error
    except ProcessLookupError:
        pass  # it has just left by itself, which is all that was wanted
    else:
        typer.echo(f"ended {driver}", err=True)
    until = time.monotonic() + PATIENCE_S
    while holder(ledger) == driver:
        if time.monotonic() > until:
            raise _held(str(driver), f"it has not left within {PATIENCE_S:g} s")
        time.sleep(0.1)


def _held(driver: str, why: str) -> LockHeld:
    return LockHeld(
        "another process drives this campaign",
        where=driver,
        why=why,
        safe="nothing was changed; what is live stays under its lease",
        next_step="end that process, then run this again",
    )
