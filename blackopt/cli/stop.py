"""``blackopt stop``: production back to the incumbent, now."""

from __future__ import annotations

from pathlib import Path

import typer

from blackopt.cli.ending import end_driver
from blackopt.cli.output import plural
from blackopt.cli.progress import Progress
from blackopt.errors import RetriableError
from blackopt.ledger.rows import Mode, TrialState
from blackopt.runner.assembly import Parts, drive
from blackopt.runner.production import ProductionLane
from blackopt.sdk import Campaign


def stop(path: Path) -> None:
    """Withdraw everything that is live and mark the campaign as stopped; a driver at work is ended first."""
    spec = Campaign.load(path).spec
    end_driver(spec.ledger)
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
