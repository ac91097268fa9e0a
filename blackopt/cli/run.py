"""``blackopt run``: start or go on; ``--once`` is one turn, for cron."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import typer

from blackopt.cli import best
from blackopt.cli.main import Output
from blackopt.cli.progress import Progress
from blackopt.errors import LockHeld, RetriableError
from blackopt.runner.notices import Notice
from blackopt.sdk import Campaign


def run(path: Path, *, once: bool, resume: bool, output: Output, quiet: bool, verbose: bool) -> None:
    """Drive the campaign until it is done, or for one turn."""
    campaign = Campaign.load(path)
    progress = Progress(quiet=quiet, verbose=verbose)
    if not campaign.ledger.exists():
        progress(Notice("ledger", f"new: {campaign.ledger}"))
    try:
        if once:
            _once(campaign, progress, resume=resume, quiet=quiet)
            return
        found = campaign.run(notify=progress, resume=resume)
    finally:
        progress.close()
    best.show(found, output)


def _once(campaign: Campaign, progress: Progress, *, resume: bool, quiet: bool) -> None:
    try:
        turn = campaign.turn(notify=progress, resume=resume)
    except LockHeld as held:
        # An overlapping cron tick is normal: the other one does the work.
        if not quiet:
            typer.echo(f"nothing to do: {held.what} ({held.where})", err=True)
        return
    if turn.troubles:
        raise RetriableError(
            f"{turn.troubles} step(s) of this turn failed for now",
            safe="the ledger has everything; the steps are due again",
            next_step="run the same command again",
        )
    if turn.done:
        progress(Notice("done", "nothing is left to do: see `blackopt best`"))
    elif turn.next_us is not None:
        at = datetime.fromtimestamp(turn.next_us / 1e6, UTC)
        progress(Notice("next", f"next step due {at:%Y-%m-%d %H:%M:%S} UTC"))
