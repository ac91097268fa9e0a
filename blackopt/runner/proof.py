"""What the looks of a promotion prove: the ledger's readings and tells as evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from blackopt.campaign import CampaignSpec, PromotionSpec
from blackopt.ledger import Ledger
from blackopt.ledger.rows import PromotionRow, TellRow, TrialRow
from blackopt.metrics.errors import MetricError
from blackopt.metrics.guardrails import parse_bound
from blackopt.metrics.kinds import Stats
from blackopt.metrics.promotion import (
    Decision,
    Guardrail,
    GuardrailLook,
    Look,
    Plan,
    Ruling,
    decide,
    unbiased,
)
from blackopt.runner.guard import events_of
from blackopt.runner.judge import Judge
from blackopt.runner.newest import Newest
from blackopt.types import CONTROL, Estimate, Role, Status


@dataclass(frozen=True, slots=True)
class Proof:
    """The evidence of one promotion so far.

    Attributes:
        valid: the looks that count.
        lost: why each look gave nothing that was told without a value, or without what a guardrail needs.
        waiting: looks that are not told.
        decision: what all valid looks say together, those included that were still maturing when the test was
            decided: the repeated interval holds at every look. None before the first.
        ruling: what followed at the look at which the test ended; None while it goes on. Looks that are told
            together are judged one after the other, as if each had come by itself.
        plan, looks: what it follows from.
    """

    valid: int
    lost: tuple[str, ...]
    waiting: int
    decision: Decision | None
    ruling: Decision | None
    plan: Plan
    looks: tuple[Look, ...]

    @property
    def corrected(self) -> float | None:
        """The median-unbiased effect of a test that has ended; None where looks came after its end."""
        ended = self.ruling is not None and self.ruling.looks == len(self.looks)
        return unbiased(self.plan, self.looks) if ended else None


def plan_of(row: PromotionRow) -> PromotionSpec:
    """What was declared when it started."""
    fields = {**row.plan, "ramp": tuple(cast("Sequence[int]", row.plan["ramp"]))}
    return PromotionSpec(**cast("Any", fields))


def trials_of(ledger: Ledger, row: PromotionRow, *roles: Role) -> list[TrialRow]:
    """The trials of some roles that belong to the newest promotion, role by role."""
    return [trial for role in roles for trial in ledger.trials(role=role, first=row.first_trial)]


def proof(spec: CampaignSpec, judge: Judge, ledger: Ledger, row: PromotionRow) -> Proof:
    """Read the evidence of the newest promotion.

    A look counts when every look before it has been told, so that it does not matter in which order they
    mature. One that gave no value (a sample-ratio mismatch, a deadline) says nothing, whatever it was for.
    """
    tells = {tell.trial: tell for tell in ledger.tells() if tell.role is Role.TEST}
    looks: list[Look] = []
    lost: list[str] = []
    trials = trials_of(ledger, row, Role.TEST)
    for trial in trials:
        tell = tells.get(trial.number)
        if tell is None:
            break
        found = _look(spec, judge, trial, tell, ledger)
        if isinstance(found, Look):
            looks.append(found)
        else:
            lost.append(found)
    asked = plan_of(row)
    plan = Plan(
        looks=asked.looks,
        alpha=asked.alpha,
        maximize=spec.objective.maximizes,
        relative=spec.objective.effect == "relative",
        guardrails=guardrails(spec, judge),
    )
    counted = tuple(looks[: plan.looks])
    steps = [decide(plan, counted[:k]) for k in range(1, len(counted) + 1)]
    return Proof(
        valid=len(looks),
        lost=tuple(lost),
        waiting=len(trials) - len(looks) - len(lost),
        decision=steps[-1] if steps else None,
        ruling=next((step for step in steps if step.outcome is not Ruling.GO_ON), None),
        plan=plan,
        looks=counted,
    )


def guardrails(spec: CampaignSpec, judge: Judge) -> tuple[Guardrail, ...]:
    """The campaign's guardrails as what must be proved."""
    return tuple(
        Guardrail(
            g.metric,
            parse_bound(at_most=g.at_most, at_least=g.at_least),
            alpha=g.alpha,
            percent=judge.kinds[g.metric].percent,
            lasting=g.lasting is not None,
            exact=judge.kinds[g.metric].name == "value",
            min_units=g.min_units,
            min_events=g.min_events,
        )
        for g in spec.guardrails
    )


def _look(spec: CampaignSpec, judge: Judge, trial: TrialRow, tell: TellRow, ledger: Ledger) -> Look | str:
    """The evidence of one look, or why it is none."""
    if tell.status is not Status.OK or tell.value is None:
        return trial.cause
    if not tell.se:
        return "its effect has no standard error"
    rows = Newest(ledger.latest(trial.window or 0))
    try:
        compared = {g.metric: _compared(judge, g.metric, trial, rows) for g in spec.guardrails}
    except MetricError as error:
        return str(error)
    return Look(Estimate(tell.value, tell.se, 0.0), compared)


def _compared(judge: Judge, metric: str, trial: TrialRow, rows: Newest) -> GuardrailLook:
    kind = judge.kinds[metric]
    arms: Mapping[str, Stats] = {
        arm: kind.pool([row.reading.stats for row in rows.of(metric, arm)]) for arm in (trial.arm, CONTROL)
    }
    events = events_of(kind, arms[trial.arm])
    return GuardrailLook(
        kind.estimate(arms[trial.arm]),
        # Only a bound relative to the control needs it, and says so.
        kind.estimate(arms[CONTROL]) if kind.units(arms[CONTROL]) > 0 else None,
        None if events is None else (events, events_of(kind, arms[CONTROL])),
    )
