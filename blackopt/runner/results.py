"""What a campaign knows so far, for people: the recommendation, its worth, and how well that is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from blackopt.campaign import CampaignSpec
from blackopt.ledger import Ledger
from blackopt.ledger.rows import Mode, TellRow, TrialState
from blackopt.metrics.effects import combine, interval
from blackopt.runner.assembly import Parts
from blackopt.runner.judge import Judge
from blackopt.runner.standing import Standing, standing
from blackopt.types import CONTROL, Belief, Estimate, Role, Status, Vector

AROUND = 16
"""How many of the last search trials describe the neighbourhood of the recommendation."""


class Evidence(StrEnum):
    """How the recommendation's worth is known."""

    FRESH = "fresh"  # measured again after the search, on fresh units
    # The mean of the last candidates drawn around it: optimistic or pessimistic, never a proof.
    SEARCH = "search"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Results:
    """A campaign at one moment.

    Attributes:
        name, mode: of the campaign.
        counts: trials by state and by how they ended.
        metric, maximize: the objective.
        compared: values are effects against the control of the same window; ``relative``: as lifts.
        percent: levels of the metric are shares, shown in per cent.
        recommendation: (n,) the optimizer's centre; None before anything was told.
        parameters, incumbent: natural values of the recommendation and of the start.
        evidence: how ``estimate`` is known.
        estimate: the objective at the recommendation, in the user's direction.
        interval: its 95 % confidence interval.
        treatment, control: levels of the metric behind a fresh estimate.
        stopped: a guardrail stopped the recommendation itself when it was measured again.
        promotion: where the newest one stands; None where none was started.
        foretold: the surrogate that an estimate from the search was told from; "" for the metric itself.
        believed: what the optimizer's own model says of the recommendation, as losses; None where that was
            measured again, and where the optimizer has no model.
    """

    name: str
    mode: Mode
    counts: Mapping[str, int]
    metric: str
    maximize: bool
    compared: bool
    relative: bool
    percent: bool
    recommendation: Vector
    parameters: Mapping[str, object]
    incumbent: Mapping[str, object]
    evidence: Evidence
    estimate: Estimate | None
    interval: tuple[float, float] | None
    treatment: Estimate | None
    control: Estimate | None
    stopped: bool
    promotion: Standing | None = None
    foretold: str = ""
    believed: Belief | None = None

    @property
    def proven(self) -> bool:
        """Whether fresh evidence excludes that the incumbent is as good; only relative to control."""
        fresh = self.evidence is Evidence.FRESH and self.compared and not self.stopped
        if not fresh or self.interval is None:
            return False
        return self.interval[0] > 0.0 if self.maximize else self.interval[1] < 0.0


def results(parts: Parts, ledger: Ledger) -> Results:
    """Read everything from the ledger; the optimizer is restored in memory, nothing is written."""
    spec = parts.spec
    learner = parts.learner()
    learner.restore(ledger)
    recommendation, tells = learner.recommend(), ledger.tells()
    promotion = standing(spec, ledger)
    again = _last_confirmations(ledger, tells)
    fresh = [tell for tell in again if tell.status is Status.OK]
    treatment = control = estimate = limits = None
    if promotion is not None and promotion.decision is not None:
        evidence = Evidence.FRESH
        # The test was fixed before its first look; the confirmations before it were not part of it.
        estimate, limits = promotion.decision.effect, promotion.decision.interval
        fresh = [tell for tell in tells if tell.trial in promotion.tests]
        again = [tell for tell in tells if tell.role is Role.TEST]
    elif fresh:
        evidence = Evidence.FRESH
        estimate = combine([Estimate(t.value, t.se, 1.0) for t in fresh if t.value is not None])
    else:
        search = [t for t in tells if t.role is Role.SEARCH and t.status is Status.OK]
        # With `explore` a search's control serves the centre: nothing was compared with the incumbent.
        estimate = _around(search[-AROUND:]) if spec.explore is None else None
        evidence = Evidence.NONE if estimate is None else Evidence.SEARCH
    if fresh:
        recommendation = ledger.trial(fresh[-1].trial).vector
        if spec.measure is not None:
            treatment, control = _levels(spec, ledger, fresh)
    if limits is None and estimate is not None and estimate.se is not None:
        limits = interval(estimate)
    space, surrogate = parts.policy.space, spec.objective.surrogate
    return Results(
        name=spec.name,
        mode=ledger.campaign.mode,
        counts=ledger.counts(),
        metric=spec.objective.metric,
        maximize=spec.objective.maximizes,
        compared=spec.objective.relative_to is not None,
        relative=spec.objective.relative_to is not None and spec.objective.effect == "relative",
        percent=spec.measure is not None and Judge(spec).metrics[spec.objective.metric].kind.percent,
        recommendation=recommendation,
        parameters=space.decode(recommendation),
        incumbent=space.decode(parts.policy.start()),
        evidence=evidence,
        estimate=estimate,
        interval=limits,
        treatment=treatment,
        control=control,
        stopped=any(tell.status is Status.INFEASIBLE for tell in again),
        promotion=promotion,
        foretold=surrogate.metric if evidence is Evidence.SEARCH and surrogate is not None else "",
        believed=learner.belief() if evidence is Evidence.SEARCH else None,
    )


def _last_confirmations(ledger: Ledger, tells: Sequence[TellRow]) -> list[TellRow]:
    """Confirmations that no search trial follows."""
    last_search = max((t.trial for t in tells if t.role is Role.SEARCH), default=-1)
    asked_after = any(
        t.role is Role.SEARCH
        for t in ledger.trials(states=[s for s in TrialState if s is not TrialState.TOLD])
    )
    if asked_after:
        return []
    return [t for t in tells if t.role is Role.CONFIRM and t.trial > last_search]


def _levels(
    spec: CampaignSpec, ledger: Ledger, fresh: Sequence[TellRow]
) -> tuple[Estimate | None, Estimate | None]:
    """The metric itself, pooled over the confirmation windows: (recommendation, control)."""
    judge = Judge(spec)
    kind = judge.metrics[spec.objective.metric].kind
    pools: dict[bool, list[Mapping[str, float]]] = {True: [], False: []}
    for tell in fresh:
        trial = ledger.trial(tell.trial)
        for row in ledger.latest(trial.window or 0):
            if row.reading.metric == spec.objective.metric and row.reading.arm in (CONTROL, trial.arm):
                pools[row.reading.arm == trial.arm].append(row.reading.stats)
    levels = [kind.estimate(kind.pool(stats)) if stats else None for stats in (pools[True], pools[False])]
    return levels[0], levels[1]


def _around(tells: Sequence[TellRow]) -> Estimate | None:
    """Mean of the last candidates and the standard error of that mean, from their spread."""
    values = [t.value for t in tells if t.value is not None]
    if not values:
        return None
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, None, len(values))
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return Estimate(mean, math.sqrt(variance / len(values)), len(values))
