"""Proof that a guardrail holds, from several looks: non-inferiority with a margin.

The harm beyond the bound is d = T − kC (or kC − T) as guardrails judge it while candidates are served
(:func:`blackopt.metrics.guardrails.excess`). There, a candidate stays unless d > 0 is proved. Here it is the
other way round: the bound holds once d < 0 is proved. Each look gives z_i = −d_i/SE(d_i), and they are
combined and compared as those of the objective are (:mod:`blackopt.metrics.combination`): the test is looked
at several times as well, so its level is spent over the looks as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from blackopt.errors import UsageError
from blackopt.metrics.combination import bounds, combined, looks_needed
from blackopt.metrics.guardrails import Bound, Side, excess, expected_events, look
from blackopt.types import Estimate

_DOUBLINGS = 60  # of the way from a bound to the strictest one that holds
_HALVINGS = 40


class Standing(StrEnum):
    """What is known of a guardrail."""

    HOLDS = "holds"  # proved to be inside its bound
    OPEN = "open"  # neither
    BROKEN = "broken"  # proved to be outside


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A bound that must be proved to hold.

    Attributes:
        metric: its name in :attr:`Look.guardrails`; several bounds may share one.
        bound: what must hold.
        alpha: one-sided level of the proof, in (0, 0.5).
        percent: the metric is a proportion: read in per cent, and of known variance at a bound.
        lasting: an operational metric (``for``): its last look is taken at its word.
        exact: a metric that may come without a standard error (kind ``value``): the mean of its looks is then
            taken at its word. Any other metric without a standard error proves nothing.
        min_units: fewer in the arm, over all looks, prove nothing.
        min_events: likewise, of :func:`~blackopt.metrics.guardrails.expected_events`.
    """

    metric: str
    bound: Bound
    alpha: float = 0.05
    percent: bool = False
    lasting: bool = False
    exact: bool = False
    min_units: float = 1
    min_events: float = 0


@dataclass(frozen=True, slots=True)
class GuardrailLook:
    """What one look measured of a guarded metric: each arm as ``Kind.estimate`` gives it.

    Attributes:
        treatment: the recommendation.
        control: the incumbent beside it; only a relative bound needs it.
        events: the units that had an event in both arms; None where that is not known.
    """

    treatment: Estimate
    control: Estimate | None = None
    events: tuple[float, float | None] | None = None


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """What the looks so far say of one guardrail.

    Attributes:
        metric, bound: as planned.
        standing: what is known.
        z: Zₖ of being inside the bound; None where values are taken at their word, or too few are there.
        critical: what it must exceed at this look; None as ``z``.
        limit: the strictest bound that would hold at this look, as a number or a factor like the bound's;
            None where none would.
        needed: looks like these, in a test from the beginning, that would prove it with 80 % power if it is
            as it was observed; None where none would.
        text: for people.
    """

    metric: str
    bound: Bound
    standing: Standing
    z: float | None
    critical: float | None
    limit: float | None
    needed: int | None
    text: str


def judge(rule: Guardrail, looks: Sequence[GuardrailLook], planned: int) -> NonInferiority:
    """What the looks so far say of one guardrail.

    Args:
        rule: the guardrail.
        looks: so far, at least one.
        planned: K, how many there are at most.

    Raises:
        UsageError: no look, or a level outside (0, 0.5).
    """
    if not looks:
        raise UsageError("looks: expected at least one, got none")
    looks = looks[-1:] if rule.lasting else looks
    levels = _levels(rule, looks)
    if rule.bound.relative and any(one.control is None for one in looks):
        return _open(rule, f"{rule.metric} in some look: no control to compare with ({rule.bound})")
    harms = _excesses(rule, looks, rule.bound)
    if rule.lasting or (rule.exact and not all(_known(harm) for harm in harms)):
        return _at_its_word(rule, harms, levels)
    lack = _lack(rule, looks, harms)
    if lack is not None:
        return _open(rule, f"{levels}; {lack}")
    z, critical = _inside(harms), bounds(planned, rule.alpha)[len(looks) - 1]
    standing = Standing.HOLDS if z > critical else Standing.BROKEN if -z > critical else Standing.OPEN
    spread = max(harm.se for harm in harms if harm.se is not None)
    limit = _limit(rule, looks, critical, spread)
    strictest = "no bound yet" if limit is None else _written(rule, limit)
    text = {
        Standing.HOLDS: f"{levels}; proved to be {strictest}",
        Standing.OPEN: f"{levels}; not proved yet, only {strictest}",
        Standing.BROKEN: f"{levels}; proved to be beyond it",
    }[standing]
    needed = looks_needed(z / math.sqrt(len(looks)), rule.alpha)
    return NonInferiority(rule.metric, rule.bound, standing, z, critical, limit, needed, text)


def _open(rule: Guardrail, text: str) -> NonInferiority:
    """Nothing can be proved from these looks."""
    return NonInferiority(rule.metric, rule.bound, Standing.OPEN, None, None, None, None, text)


def _at_its_word(rule: Guardrail, harms: Sequence[Estimate], levels: str) -> NonInferiority:
    """The last look of what is operational, the mean of those without standard errors.

    Being outside is not proved either, and may pass: it is never a reason to stop early.
    """
    inside = math.fsum(harm.value for harm in harms) <= 0.0
    standing = Standing.HOLDS if inside else Standing.OPEN
    text = f"{levels}; taken at its word"
    return NonInferiority(rule.metric, rule.bound, standing, None, None, None, 1 if inside else None, text)


def _lack(rule: Guardrail, looks: Sequence[GuardrailLook], harms: Sequence[Estimate]) -> str | None:
    """Why nothing can be proved from these looks, or None."""
    units = math.fsum(one.treatment.n for one in looks)
    if units <= 0.0 or units < rule.min_units:
        return f"only {units:g} of at least {rule.min_units:g} units"
    counted = [
        expected_events(rule.bound, one.treatment, one.control, one.events)
        for one in looks
        if one.events is not None
    ]
    if len(counted) == len(looks) and math.fsum(counted) < rule.min_events:
        return f"only {math.fsum(counted):.3g} of at least {rule.min_events:g} events"
    if not all(_known(harm) for harm in harms):
        return "without a spread of its units in every look, it proves nothing"
    return None


def _known(harm: Estimate) -> bool:
    return harm.se is not None and harm.se > 0.0


def _excesses(rule: Guardrail, looks: Sequence[GuardrailLook], bound: Bound) -> list[Estimate]:
    return [excess(bound, one.treatment, one.control, percent=rule.percent) for one in looks]


def _inside(harms: Sequence[Estimate]) -> float:
    """Zₖ of being inside the bound."""
    return combined([-harm.value / harm.se for harm in harms if harm.se])


def _limit(rule: Guardrail, looks: Sequence[GuardrailLook], critical: float, spread: float) -> float | None:
    """The strictest number at which the bound would be proved: the end of a repeated confidence interval.

    For a multiple of the control this is Fieller's (1954) interval of the ratio, without his closed form,
    which does not exist for several looks.
    """
    if not math.isfinite(critical):
        return None
    sign = 1.0 if rule.bound.side is Side.AT_MOST else -1.0

    def number(steps: float) -> float:
        """The bound moved by so many steps towards the lenient side; factors stay above 0."""
        if rule.bound.relative:
            return rule.bound.number * math.exp(sign * steps / 16.0)
        return rule.bound.number + sign * steps * spread

    def holds(steps: float) -> bool:
        # Beyond 0 and 1 a share without an event has no spread, and nothing is proved there.
        bound = Bound(rule.bound.side, number(steps), rule.bound.relative)
        harms = _excesses(rule, looks, bound)
        return all(_known(harm) for harm in harms) and _inside(harms) > critical

    direction = -1.0 if holds(0.0) else 1.0
    inner, outer = 0.0, direction
    for _ in range(_DOUBLINGS):
        if abs(outer) > 4_000.0 or not math.isfinite(number(outer)):
            return None
        if holds(outer) is (direction > 0.0):
            break
        inner, outer = outer, 2.0 * outer
    lenient, strict = max(inner, outer), min(inner, outer)
    for _ in range(_HALVINGS):
        middle = (lenient + strict) / 2.0
        lenient, strict = (middle, strict) if holds(middle) else (lenient, middle)
    return number(lenient)


def _levels(rule: Guardrail, looks: Sequence[GuardrailLook]) -> str:
    """``complaints 3.1 % against at most 2.6 % (1.05 * control)``, over all looks by their units."""
    controls = [one.control for one in looks if one.control is not None]
    control = _mean(controls) if len(controls) == len(looks) else None
    arm = _mean([one.treatment for one in looks])
    return f"{rule.metric} {look(rule.bound, arm, control, percent=rule.percent).text}"


def _mean(levels: Sequence[Estimate]) -> Estimate:
    units = math.fsum(level.n for level in levels)
    if not units > 0.0:
        return Estimate(math.fsum(level.value for level in levels) / len(levels), None, units)
    return Estimate(math.fsum(level.n * level.value for level in levels) / units, None, units)


def _written(rule: Guardrail, number: float) -> str:
    side = "at most" if rule.bound.side is Side.AT_MOST else "at least"
    if rule.bound.relative:
        return f"{side} {number:.4g} * control"
    return f"{side} {100.0 * number:.3g} %" if rule.percent else f"{side} {number:.4g}"
