"""Estimates put together: a treatment against its control, several measurements of one thing, intervals.

Relative lifts use the delta method (Deng, Knoblich & Lu, KDD 2018, section 3): with means T and C of
independent arms, Var[T/C] ≈ Var[T]/C² + Var[C]·T²/C⁴.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import UsageError
from blackopt.metrics.errors import ZeroControlError
from blackopt.types import Estimate

Array: TypeAlias = NDArray[np.float64]
"""Shape (k,): one number for each of k arms."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """Many estimates at once.

    Attributes:
        value: (k,) the values.
        se: (k,) their standard errors; NaN where unknown.
        n: (k,) the units behind them.
    """

    value: Array
    se: Array
    n: Array


def effect(treatment: Estimate, control: Estimate, *, relative: bool, pooled: bool = False) -> Estimate:
    """Treatment against control, as a lift (T − C)/|C| or as a difference T − C.

    The lift is T/C − 1 wherever C > 0; dividing by |C| keeps "more" positive for metrics below zero too. Its
    standard error is unknown if one of theirs is; ``n`` counts the units of both.

    Args:
        treatment: the candidate's estimate.
        control: the control's.
        relative: as a lift.
        pooled: with errors from :func:`pool_errors`, for a test of no difference between unequal arms;
            without, each arm has its own variance (Welch), for an interval around an effect.

    Raises:
        ZeroControlError: a lift over nothing.
    """
    if pooled:
        treatment, control = pool_errors(treatment, control)
    n = treatment.n + control.n
    if not relative:
        return Estimate(treatment.value - control.value, _joint(treatment.se, control.se), n)
    if control.value == 0.0:
        raise _zero_control(control)
    ratio = treatment.value / control.value
    se = None
    if treatment.se is not None and control.se is not None:
        # sqrt(se_T²/C² + se_C²·T²/C⁴), without forming the powers
        se = math.hypot(treatment.se / control.value, control.se / control.value * ratio)
    if not math.isfinite(ratio) or (se is not None and not math.isfinite(se)):
        raise _zero_control(control)
    return Estimate(math.copysign(1.0, control.value) * (ratio - 1.0), se, n)


def effects(treatments: Estimates, controls: Estimates, *, relative: bool, pooled: bool = False) -> Estimates:
    """:func:`effect` for many pairs, or for many treatments beside one control.

    A lift over nothing is NaN or infinite here.
    """
    t, c = treatments, controls
    with np.errstate(all="ignore"):
        t_se, c_se = t.se, c.se
        if pooled:
            spread = np.sqrt(((t.n * t.se) ** 2 + (c.n * c.se) ** 2) / (t.n + c.n))
            t_se, c_se = spread / np.sqrt(t.n), spread / np.sqrt(c.n)
        if not relative:
            return Estimates(t.value - c.value, np.hypot(t_se, c_se), t.n + c.n)
        ratio = t.value / c.value
        se = np.hypot(t_se / c.value, c_se / c.value * ratio)
        return Estimates(np.copysign(1.0, c.value) * (ratio - 1.0), se, t.n + c.n)


def pool_errors(treatment: Estimate, control: Estimate) -> tuple[Estimate, Estimate]:
    """Both estimates with standard errors √(V/nᵢ) from one variance of a unit, V = Σ nᵢ²seᵢ²/Σ nᵢ.

    A small arm of a skewed metric that happens to miss the tail has a small mean and a small variance at the
    same time, so Welch's error finds it worse far too often; one V for both arms holds the level. Unknown
    errors stay as they are.
    """
    if treatment.se is None or control.se is None or not treatment.n > 0.0 or not control.n > 0.0:
        return treatment, control
    spread = math.hypot(treatment.n * treatment.se, control.n * control.se) / math.sqrt(
        treatment.n + control.n
    )
    return (
        replace(treatment, se=spread / math.sqrt(treatment.n)),
        replace(control, se=spread / math.sqrt(control.n)),
    )


def interval(estimate: Estimate, level: float = 0.95) -> tuple[float, float]:
    """Two-sided normal confidence interval (lower, upper).

    Raises:
        UsageError: the standard error is unknown, or the level is not between 0 and 1.
    """
    if estimate.se is None:
        raise UsageError("estimate: expected a standard error, got none; an interval needs one")
    if not 0.0 < level < 1.0:
        raise UsageError(f"level: expected a number between 0 and 1, got {level!r}")
    half = NormalDist().inv_cdf(0.5 + level / 2.0) * estimate.se
    return estimate.value - half, estimate.value + half


def combine(estimates: Sequence[Estimate]) -> Estimate:
    """Several measurements of one thing as one: the same bits in any order.

    Weighted by inverse variance, 1/se² with se² = 1/Σ(1/seᵢ²), if every standard error is known and above 0;
    else the plain mean, with the standard error of its spread (unknown for a single one, whose own is kept).
    ``n`` is summed.

    Raises:
        UsageError: no estimates.
    """
    if not estimates:
        raise UsageError("estimates: expected at least one, got none")
    n = math.fsum(e.n for e in estimates)
    if len(estimates) == 1:
        return Estimate(estimates[0].value, estimates[0].se, n)
    errors = [e.se for e in estimates if e.se is not None and e.se > 0.0]
    if len(errors) == len(estimates):
        least = min(errors)
        weights = [(least / se) ** 2 for se in errors]  # relative, so that no 1/se² overflows
        total = math.fsum(weights)
        value = math.fsum(w * e.value for w, e in zip(weights, estimates, strict=True)) / total
        return Estimate(value, least / math.sqrt(total), n)
    mean = math.fsum(e.value for e in estimates) / len(estimates)
    squares = math.fsum((e.value - mean) ** 2 for e in estimates)
    return Estimate(mean, math.sqrt(squares / (len(estimates) - 1) / len(estimates)), n)


def _joint(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else math.hypot(first, second)


def _zero_control(control: Estimate) -> ZeroControlError:
    return ZeroControlError(
        f"no relative effect: the control is {control.value!r}",
        why="a lift is a part of the control's value, and there is none",
        next_step="compare by difference, or choose a metric that is not zero",
    )
