"""Whether a recommendation may replace the incumbent: proved to be better, and no guardrail worse.

The search's own best value is the luckiest of many and proves nothing. A promotion tests one recommendation,
fixed before, against the incumbent in up to K looks. Each look is a window of its own: fresh units on a new
salt, half and half, fully matured. After each, :func:`decide` says to promote, to go on, or to refuse.

* The objective must be **superior**: the looks' z, combined with equal weights, beyond the bound that spends
  the level α as O'Brien and Fleming do (:mod:`blackopt.metrics.combination`).
* Each guardrail must be **not inferior**: proved to be inside its bound, whose margin is the harm that is put
  up with, at its own level α_g, spent over the looks in the same way. Not being proved to be outside does
  not suffice.

Everything must be proved at the same look. A recommendation that lacks any one of the properties is promoted
with at most the probability of that one test, so nothing is corrected for their number (the
intersection-union test: Berger, Technometrics 24, 1982); more guardrails cost power, and no level.

A test is refused early only for proved harm: the objective beyond −bₖ, or a guardrail as surely outside its
bound as another is inside. That cannot raise the level. There is no other futility rule.

Only **valid looks** are passed in. One whose sample ratio is off, that has expired, or whose effect has no
standard error is no evidence in either direction; it is measured again by whoever runs the test, up to a
limit, and never because of the value that it found: then the level holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist

from blackopt.errors import UsageError
from blackopt.metrics import combination
from blackopt.metrics.effects import combine, interval
from blackopt.metrics.noninferiority import Guardrail as Guardrail
from blackopt.metrics.noninferiority import GuardrailLook as GuardrailLook
from blackopt.metrics.noninferiority import NonInferiority as NonInferiority
from blackopt.metrics.noninferiority import Standing as Standing
from blackopt.metrics.noninferiority import judge
from blackopt.types import Estimate

_QUARTILE = NormalDist().inv_cdf(0.75)


class Ruling(StrEnum):
    """What to do after a look."""

    PROMOTE = "promote"
    GO_ON = "go-on"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fixed before the first look.

    Attributes:
        looks: K, at most; 1 is a test at a fixed horizon.
        alpha: one-sided level of the objective, in (0, 0.5); its interval has the level 1 − 2α.
        maximize: more of the objective is better.
        relative: effects are lifts, and written in per cent.
        guardrails: all of which must hold.
    """

    looks: int = 3
    alpha: float = 0.025
    maximize: bool = True
    relative: bool = True
    guardrails: tuple[Guardrail, ...] = ()


@dataclass(frozen=True, slots=True)
class Look:
    """One valid look, fully matured.

    Attributes:
        effect: of the objective, against the control of the same window, in the user's direction.
        guardrails: by metric.
    """

    effect: Estimate
    guardrails: Mapping[str, GuardrailLook]


@dataclass(frozen=True, slots=True)
class Enough:
    """What would be enough for a proof, in a new test with windows of this size, with 80 % power.

    Attributes:
        looks: for the objective and every guardrail, if all are as they were observed; None where no number
            would be.
        cautious: for the objective, if its effect is only at the lower quartile of what was observed; None
            where no number would be.
        text: for people.
    """

    looks: int | None
    cautious: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is known after a look, and what follows.

    Attributes:
        outcome: what to do.
        looks: k, how many it is based on.
        z, bound: Zₖ, positive where the recommendation is better, and bₖ.
        effect: all looks together, weighted by inverse variance, in the user's direction. After an early stop
            it is too good on average; :func:`unbiased` is not.
        naive: the interval of level 1 − 2α around ``effect``, as if this look had been the only one.
        interval: the repeated confidence interval of that level, which holds whenever the test is stopped.
        guardrails: in the order of the plan.
        reason: for people.
        enough: what would be enough; None where it is promoted.
    """

    outcome: Ruling
    looks: int
    z: float
    bound: float
    effect: Estimate
    naive: tuple[float, float]
    interval: tuple[float, float]
    guardrails: tuple[NonInferiority, ...]
    reason: str
    enough: Enough | None


def decide(plan: Plan, looks: Sequence[Look]) -> Decision:
    """What follows from the looks so far.

    Args:
        plan: as it was fixed before the first look.
        looks: all valid looks so far, 1 to ``plan.looks``.

    Raises:
        UsageError: no look or too many, a level outside (0, 0.5), an effect without a standard error above 0,
            or a look without a guarded metric.
    """
    if not 1 <= len(looks) <= plan.looks:
        raise UsageError(f"looks: expected 1 to {plan.looks}, got {len(looks)}")
    z = combination.combined(_zs(plan, looks))
    bound = combination.bounds(plan.looks, plan.alpha)[len(looks) - 1]
    effects = [one.effect for one in looks]
    effect = combine(effects)
    found = Decision(
        outcome=Ruling.GO_ON,
        looks=len(looks),
        z=z,
        bound=bound,
        effect=effect,
        naive=interval(effect, 1.0 - 2.0 * plan.alpha),
        interval=combination.repeated_interval(effects, bound),
        guardrails=tuple(judge(rule, _seen(rule, looks), plan.looks) for rule in plan.guardrails),
        reason="",
        enough=None,
    )
    outcome = _outcome(plan, found)
    enough = None if outcome is Ruling.PROMOTE else _enough(plan, found, effects)
    return replace(found, outcome=outcome, reason=_reason(plan, found, outcome), enough=enough)


def unbiased(plan: Plan, looks: Sequence[Look]) -> float:
    """The median-unbiased estimate of the effect (:func:`~blackopt.metrics.combination.median_unbiased`).

    Looks at which the bound was crossed and a guardrail kept the test going could not have ended it.

    Raises:
        UsageError: as :func:`decide`.
    """
    if not 1 <= len(looks) <= plan.looks:
        raise UsageError(f"looks: expected 1 to {plan.looks}, got {len(looks)}")
    zs, sign = _zs(plan, looks), _sign(plan)
    bounds = combination.bounds(plan.looks, plan.alpha)[: len(looks) - 1]
    passed = [b if combination.combined(zs[:k]) <= b else math.inf for k, b in enumerate(bounds, start=1)]
    better = [replace(one.effect, value=sign * one.effect.value) for one in looks]
    return sign * combination.median_unbiased(better, passed)


def _outcome(plan: Plan, found: Decision) -> Ruling:
    standings = {one.standing for one in found.guardrails}
    if Standing.BROKEN in standings or -found.z > found.bound:
        return Ruling.REFUSE
    if found.z > found.bound and standings <= {Standing.HOLDS}:
        return Ruling.PROMOTE
    return Ruling.GO_ON if found.looks < plan.looks else Ruling.REFUSE


def _reason(plan: Plan, found: Decision, outcome: Ruling) -> str:
    """What was observed, and what decided."""
    seen = _observed(plan, found)
    if outcome is Ruling.PROMOTE:
        hold = "; every guardrail is proved to hold" if found.guardrails else ""
        return f"proved to be better: {seen}{hold}"
    broken = [one.text for one in found.guardrails if one.standing is Standing.BROKEN]
    if broken:
        return f"{'; '.join(broken)}. {_capital(seen)}"
    if -found.z > found.bound:
        return f"proved to be worse: {seen}"
    still = [one.text for one in found.guardrails if one.standing is Standing.OPEN]
    if found.z > found.bound:
        return f"better, but not every guardrail is proved to hold: {'; '.join(still)}. {_capital(seen)}"
    return f"not proved to be better: {'. '.join([seen, *still])}"


def _observed(plan: Plan, found: Decision) -> str:
    lower, upper = (_written(plan, end) for end in found.interval)
    windows = "1 window" if found.looks == 1 else f"{found.looks} windows"
    return (
        f"observed {_written(plan, found.effect.value)}"
        f" ({100.0 * (1.0 - 2.0 * plan.alpha):g} % interval {lower} to {upper}) after {windows}"
        f" of at most {plan.looks}"
    )


def _enough(plan: Plan, found: Decision, effects: Sequence[Estimate]) -> Enough:
    """How many looks of this size would prove what is not proved, if it is as it was observed."""
    needed = combination.looks_needed(found.z / math.sqrt(found.looks), plan.alpha)
    quartile = (found.z - _QUARTILE) / math.sqrt(found.looks)
    cautious = combination.looks_needed(quartile, plan.alpha)
    needs, says = [needed], []
    if not found.z > found.bound:
        smaller = quartile * found.looks / math.fsum(1.0 / combination.standard_error(e) for e in effects)
        says.append(_objective(plan, needed, cautious, _sign(plan) * smaller))
    for one in found.guardrails:
        needs.append(one.needed)
        if one.standing is not Standing.HOLDS:
            says.append(_guarded(one))
    counts = [count for count in needs if count is not None]
    return Enough(max(counts) if len(counts) == len(needs) else None, cautious, "; ".join(says))


def _objective(plan: Plan, needed: int | None, cautious: int | None, smaller: float) -> str:
    if needed is None:
        side = "above" if plan.maximize else "below"
        return f"no effect can be proved: the estimate is not {side} zero"
    text = f"to prove an effect of that size takes about {_windows(needed)} of this size"
    if cautious is None:
        return text
    return f"{text}, and about {cautious:,} if it is only {_written(plan, smaller)}"


def _guarded(one: NonInferiority) -> str:
    if one.needed is None:
        return f"{one.metric} was not observed inside its bound: no number of windows proves that it holds"
    return f"to prove that {one.metric} holds takes about {_windows(one.needed)} of this size"


def _windows(count: int) -> str:
    return f"{count:,} window{'' if count == 1 else 's'}"


def _zs(plan: Plan, looks: Sequence[Look]) -> list[float]:
    """z of each look, positive where the recommendation is better."""
    return [_sign(plan) * one.effect.value / combination.standard_error(one.effect) for one in looks]


def _sign(plan: Plan) -> float:
    return 1.0 if plan.maximize else -1.0


def _seen(rule: Guardrail, looks: Sequence[Look]) -> list[GuardrailLook]:
    for k, one in enumerate(looks, start=1):
        if rule.metric not in one.guardrails:
            raise UsageError(
                f"look {k}: expected the guarded metric {rule.metric}, got {sorted(one.guardrails)}"
            )
    return [one.guardrails[rule.metric] for one in looks]


def _written(plan: Plan, value: float) -> str:
    if not math.isfinite(value):
        return "minus infinity" if value < 0.0 else "infinity"
    return f"{100.0 * value:+.2f} %" if plan.relative else f"{value:+.6g}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
