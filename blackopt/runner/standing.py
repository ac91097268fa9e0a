"""Where a promotion stands, for people and programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec
from blackopt.ledger import Ledger
from blackopt.ledger.rows import PromotionRow, PromotionState, PushState, TrialRow, TrialState
from blackopt.metrics.effects import interval
from blackopt.metrics.promotion import Decision
from blackopt.runner.judge import Judge
from blackopt.runner.outbox import WORDS
from blackopt.runner.promoting import current, served
from blackopt.runner.proof import plan_of, proof, trials_of
from blackopt.types import Estimate, Role, Status

MILLIONTH = 1e-6


@dataclass(frozen=True, slots=True)
class Standing:
    """The newest promotion at one moment.

    Attributes:
        number, state, cause: as in the ledger.
        looks, of_looks: that count, and at most.
        level: of the interval, 1 − 2α as it was declared when it started.
        decided: the look at which the test ended; None while it goes on.
        decision: what they prove; None before the first.
        steps, of_steps: of the ramp.
        share: of all units that get the recommendation now.
        incumbent: number of the incumbent that production was told; 0 for the one that it had.
        holdback: the former incumbent against the new one, once that is measured.
        tests: the trials that were looks with a value, in order.
        corrected: the median-unbiased effect of a test that has ended; None before.
    """

    number: int
    state: PromotionState
    cause: str
    looks: int
    of_looks: int
    level: float
    decided: int | None
    decision: Decision | None
    steps: int
    of_steps: int
    share: float
    incumbent: int
    holdback: Estimate | None
    tests: tuple[int, ...]
    corrected: float | None

    @property
    def text(self) -> str:
        """The state in words, with why."""
        return f"{WORDS[self.state]}: {self.cause}" if self.cause else WORDS[self.state]


def standing(spec: CampaignSpec, ledger: Ledger) -> Standing | None:
    """Where the newest promotion stands; None where there was none."""
    row = current(ledger)
    if row is None:
        return None
    plan, found = plan_of(row), proof(spec, Judge(spec), ledger, row)
    acked = [order.number for order in ledger.incumbents() if order.state is PushState.ACKED]
    steps = len(served(ledger, row))
    tells = {tell.trial: tell for tell in ledger.tells() if tell.status is Status.OK}
    after = [tells[t.number] for t in trials_of(ledger, row, Role.HOLDBACK) if t.number in tells]
    holdback = next((Estimate(t.value, t.se, 0.0) for t in after if t.value is not None), None)
    tests = tuple(t.number for t in trials_of(ledger, row, Role.TEST) if t.number in tells)
    return Standing(
        number=row.number,
        state=row.state,
        cause=row.cause,
        looks=found.valid,
        of_looks=plan.looks,
        level=1.0 - 2.0 * plan.alpha,
        decided=None if found.ruling is None else found.ruling.looks,
        decision=found.decision,
        steps=steps,
        of_steps=len(plan.ramp),
        share=_share(row, plan.holdback, trials_of(ledger, row, Role.TEST, Role.RAMP)),
        incumbent=acked[-1] if acked else 0,
        holdback=holdback,
        tests=tests,
        corrected=found.corrected,
    )


def as_data(found: Standing) -> Mapping[str, object]:
    """A standing as JSON-able data."""
    decision = found.decision
    return {
        "number": found.number,
        "state": str(found.state),
        "cause": found.cause,
        "looks": {"of": found.of_looks, "valid": found.looks, "decided": found.decided},
        "z": decision.z if decision else None,
        "bound": decision.bound if decision else None,
        "value": decision.effect.value if decision else None,
        "se": decision.effect.se if decision else None,
        "interval": list(decision.interval) if decision else None,
        "level": found.level,
        "guardrails": (
            [
                {"metric": g.metric, "bound": f"{g.bound.side} {g.bound}", "standing": str(g.standing)}
                for g in decision.guardrails
            ]
            if decision
            else []
        ),
        "corrected": found.corrected,
        "enough": decision.enough.text if decision and decision.enough else None,
        "ramp": {"of": found.of_steps, "served": found.steps},
        "share": found.share,
        "incumbent": found.incumbent,
        "holdback": (
            {
                "value": found.holdback.value,
                "se": found.holdback.se,
                "interval_95": list(interval(found.holdback)),
            }
            if found.holdback
            else None
        ),
    }


def _share(row: PromotionRow, holdback: int, trials: list[TrialRow]) -> float:
    if row.state.adopted:
        return 1.0 - MILLIONTH * (holdback if row.state is PromotionState.HOLDING else 0)
    live = [t.slice for t in trials if t.state is TrialState.LIVE and t.slice is not None]
    return MILLIONTH * sum(part.upper - part.lower for part in live)
