"""``blackopt run``: start or go on; ``--once`` is one turn, for cron."""

from __future__ import annotations

from pathlib import Path

import typer

from blackopt.cli import best
from blackopt.cli.output import Output, plural, utc
from blackopt.cli.progress import Progress
from blackopt.errors import LockHeld, RetriableError
from blackopt.runner.notices import Notice
from blackopt.sdk import Campaign


def run(path: Path, *, once: bool, resume: bool, output: Output, quiet: bool, verbose: bool) -> None:
    """Drive the campaign until it is done, or for one turn."""
    campaign = Campaign.load(path)
    objective = campaign.spec.objective
    percent = objective.relative_to is not None and objective.effect == "relative"
    progress = Progress(quiet=quiet, verbose=verbose, percent=percent)
    try:
        if once:
            _once(campaign, progress, resume=resume, quiet=quiet)
            return
        found = campaign.run(notify=progress, resume=resume)
    finally:
        progress.close()
    best.show(campaign, found, output)


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
            f"{plural(turn.troubles, 'step')} of this turn failed for now",
            safe="the ledger has everything; the steps are due again",
            next_step="run the same command again",
        )
    if turn.done:
        progress(Notice("done", "nothing is left to do: see `blackopt best`"))
    elif turn.next_us is not None:
        progress(Notice("next", f"the next step is due {utc(turn.next_us)}"))
