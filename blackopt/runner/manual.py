"""Experiments by hand: a person, or another program, asks and tells; the ledger remembers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec, Form
from blackopt.errors import UsageError
from blackopt.ledger import Ledger
from blackopt.ledger.rows import NewTell, TrialState
from blackopt.runner.assembly import Parts
from blackopt.runner.budget import Left, trials_asked
from blackopt.types import Reading, Status


@dataclass(frozen=True, slots=True)
class Asked:
    """A candidate to be tried by hand."""

    number: int
    params: Mapping[str, object]


def ask(parts: Parts, ledger: Ledger, n: int) -> list[Asked]:
    """Draw n candidates within the budget and write them before they are shown.

    Raises:
        UsageError: the campaign runs by itself, or its budget has no room for n more.
    """
    require_manual(parts.spec)
    now_us = parts.clock.now_us()
    with ledger.drive(at_us=now_us) as driver:
        left = Left.of(ledger, parts.spec.budget)
        if n > min(left.search, left.room):
            raise UsageError(
                f"cannot ask for {n}: {left.search} of the budget's trials are left, "
                f"and {left.in_flight} of at most {parts.spec.budget.max_in_flight} are in flight: tell those"
            )
        learner = parts.learner()
        learner.restore(ledger)
        trials = learner.ask(n, left.next_number)
        driver.ask(trials, at_us=now_us)
        asked = [ledger.trial(trial.number) for trial in trials]
    return [Asked(trial.number, parts.policy.space.decode(trial.vector)) for trial in asked]


def tell(
    parts: Parts, ledger: Ledger, number: int, value: float | None, *, se: float | None, failed: str
) -> None:
    """Write one result. The same result twice is one result; another one for the same trial is refused.

    Raises:
        UsageError: no such trial, a value that is not a finite number, or a second, different result.
    """
    require_manual(parts.spec)
    if value is not None and not math.isfinite(value):
        raise UsageError(f"value must be a finite number, got {value}; report a failure as failed")
    if se is not None and not (math.isfinite(se) and se >= 0.0):
        raise UsageError(f"se must be a finite number >= 0, got {se}")
    now_us = parts.clock.now_us()
    with ledger.drive(at_us=now_us) as driver:
        total = trials_asked(ledger.counts())
        if not 0 <= number < total:
            raise UsageError(
                f"no trial {number}: {total} were asked (0 to {total - 1})"
                if total
                else "nothing was asked yet"
            )
        trial = ledger.trial(number)
        if trial.state is TrialState.TOLD:
            [told] = [row for row in ledger.tells() if row.trial == number]
            if (told.value, told.se) == (value, se):
                return
            raise UsageError(
                f"trial {number} was already told: {told.status}, value {told.value}, se {told.se}"
            )
        if value is None:
            driver.tell([NewTell(number, Status.FAILED, cause=failed or "reported as failed")], at_us=now_us)
            return
        stats = {"value": value} if se is None else {"value": value, "se": se}
        reading = Reading(parts.spec.objective.metric, 0, trial.arm, "", now_us, stats)
        driver.tell([NewTell(number, Status.OK, value=value, se=se, readings=(reading,))], at_us=now_us)


def require_manual(spec: CampaignSpec) -> None:
    """Before anything is created or written.

    Raises:
        UsageError: the campaign runs by itself.
    """
    if spec.mode is not Form.MANUAL:
        raise UsageError(f"campaign {spec.name} asks and tells by itself: use `blackopt run`")
