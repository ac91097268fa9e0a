"""``blackopt promote`` and ``blackopt rollback``: the recommendation becomes the incumbent, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import typer

from blackopt.cli.ending import end_driver
from blackopt.cli.output import Output, as_json, as_list
from blackopt.cli.progress import Progress
from blackopt.errors import BlackoptError, GuardrailStop, RetriableError
from blackopt.ledger.rows import PromotionState
from blackopt.runner.guard import BREACH, SILENT
from blackopt.runner.standing import Standing, as_data
from blackopt.runner.wording import per_cent
from blackopt.sdk import Campaign


def promote(path: Path, *, once: bool, resume: bool, output: Output, quiet: bool, verbose: bool) -> None:
    """Start the promotion, or go on with it; print where it stands."""
    campaign = Campaign.load(path)
    objective = campaign.spec.objective
    percent = objective.relative_to is not None and objective.effect == "relative"
    progress = Progress(quiet=quiet, verbose=verbose, percent=percent)
    try:
        found = campaign.promote(notify=progress, once=once, resume=resume)
    finally:
        progress.close()
    show(campaign, found, output)
    _verdict(found)


def rollback(path: Path, output: Output) -> None:
    """Take the promotion back; a driver at work is ended first."""
    campaign = Campaign.load(path)
    end_driver(campaign.ledger)
    found = campaign.rollback(notify=Progress(quiet=False, verbose=True))
    if found is None:
        typer.echo("nothing to take back: production serves the incumbent that it had", err=True)
        return
    show(campaign, found, output)
    if found.state is not PromotionState.REVERTED:
        raise RetriableError(
            "production has not answered yet",
            where=f"promotion {found.number} is {found.state}",
            safe="nothing new is served; what is live ends with its lease",
            next_step="run the same command again",
        )


def show(campaign: Campaign, found: Standing, output: Output) -> None:
    """Print a standing."""
    if output is Output.JSON:
        as_json(as_data(found))
    else:
        as_list(for_people(campaign, found))


def for_people(campaign: Campaign, found: Standing) -> Mapping[str, object]:
    """One line a fact."""
    relative = campaign.spec.objective.effect == "relative"
    facts: dict[str, object] = {
        "promotion": found.number,
        "state": found.text,
        "test": f"{found.looks} of at most {found.of_looks} looks{_decided(found)}",
    }
    if decision := found.decision:
        low, high = (_effect(bound, relative=relative) for bound in decision.interval)
        metric = campaign.spec.objective.metric
        facts["test"] = f"{facts['test']}, z {decision.z:.2f} (needed {decision.bound:.2f})"
        value = _effect(decision.effect.value, relative=relative)
        facts[metric] = f"{value}, repeated confidence interval {low} to {high} (level {found.level:.3g})"
        if found.corrected is not None and found.looks > 1:
            facts["corrected"] = f"{_effect(found.corrected, relative=relative)} (median-unbiased)"
        for guardrail in decision.guardrails:
            facts[f"guardrail {guardrail.metric}"] = guardrail.text
        if decision.enough is not None:
            facts["would be enough"] = decision.enough.text
    facts["ramp"] = f"{found.steps} of {found.of_steps} steps served"
    facts["now served to"] = f"{found.share:.0%} of all units"
    if found.holdback is not None:
        facts["holdback"] = f"the former incumbent: {_effect(found.holdback.value, relative=relative)}"
    return facts


def _decided(found: Standing) -> str:
    later = found.decided is not None and found.decided < found.looks
    return f" (decided after {found.decided}, the rest came in later)" if later else ""


def _effect(value: float, *, relative: bool) -> str:
    return per_cent(value, sign=True) if relative else f"{value:+.6g}"


def _verdict(found: Standing) -> None:
    """Exit codes: 0 while it goes on and when it is done, 1 refused or taken back, 3 by a guardrail."""
    ended = found.state in (PromotionState.REFUSED, PromotionState.REVERTED)
    if found.cause.startswith((BREACH, SILENT)) and (ended or found.state is PromotionState.REVERTING):
        raise GuardrailStop(
            f"a guardrail stopped promotion {found.number}",
            why=found.cause,
            safe="production serves the incumbent that it had, or goes back to it",
            next_step="look at `blackopt trials`",
        )
    if ended:
        refused = found.state is PromotionState.REFUSED
        raise BlackoptError(
            "no proven improvement: nothing was promoted" if refused else "the promotion was taken back",
            why=found.cause,
            safe="production serves the incumbent that it had",
            next_step="search on (raise budget.trials), then promote what is found" if refused else "",
        )
