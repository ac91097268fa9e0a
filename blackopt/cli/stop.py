"""``blackopt stop``: production back to the incumbent, now."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import typer

from blackopt.cli.output import plural
from blackopt.cli.progress import Progress
from blackopt.errors import LockHeld, RetriableError
from blackopt.ledger.lock import holder
from blackopt.ledger.rows import Mode, TrialState
from blackopt.runner.assembly import Parts, drive
from blackopt.runner.production import ProductionLane
from blackopt.sdk import Campaign

PATIENCE_S = 30.0
"""How long a driver may take to finish its transaction and leave."""


def stop(path: Path) -> None:
    """Withdraw everything that is live and mark the campaign as stopped; a driver at work is ended first."""
    spec = Campaign.load(path).spec
    _end_driver(spec.ledger)
    progress = Progress(quiet=False, verbose=True)
    with Parts(spec) as parts, drive(parts, progress, create=False) as runner:
        now_us = parts.clock.now_us()
        if runner.driver.ledger.campaign.mode not in (Mode.STOPPED, Mode.DONE):
            runner.driver.set_mode(Mode.STOPPED, cause="stopped by a person", at_us=now_us)
        if isinstance(runner.lane, ProductionLane):
            runner.lane.reconcile(now_us)
            runner.lane.clear("stopped by a person", now_us)
        left = runner.driver.ledger.trials(states=[TrialState.WITHDRAWING])
    if left:
        raise RetriableError(
            f"{plural(len(left), 'arm')} could not be withdrawn for now",
            where=", ".join(t.arm for t in left[:10]),
            safe="the module stops serving them by itself when their leases end",
            next_step="run the same command again",
        )
    typer.echo("nothing is live: production serves the incumbent", err=True)


def _end_driver(ledger: Path) -> None:
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
