"""Guardrails: bounds that a candidate must not cross, and what its estimate says about them.

A bound is a number, or a multiple of the control's value in the same window. It is breached only when the
estimate is beyond it by more than ``sigmas`` standard errors, so that looking often does not withdraw sound
candidates.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from blackopt.errors import UsageError
from blackopt.types import Estimate

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_BOUND = re.compile(
    rf"\s*(?:(?P<a>{_NUMBER})\s*\*\s*control|control(?:\s*\*\s*(?P<b>{_NUMBER}))?|(?P<c>{_NUMBER}))\s*"
)


class Side(StrEnum):
    """Which way a bound holds; the values are the keys in ``campaign.yaml``."""

    AT_MOST = "at_most"
    AT_LEAST = "at_least"


class Outcome(StrEnum):
    """What is known of a guardrail."""

    OK = "ok"  # inside, or not provably outside
    BREACHED = "breached"
    UNDECIDED = "undecided"  # too few units, or no control to compare with


@dataclass(frozen=True, slots=True)
class Bound:
    """``at_most: "1.05 * control"`` as a value.

    Attributes:
        side: which way it holds.
        number: the limit itself, or the factor of the control's value.
        relative: True where ``number`` is such a factor.
    """

    side: Side
    number: float
    relative: bool

    def __str__(self) -> str:
        return f"{self.number:g} * control" if self.relative else f"{self.number:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome, and the reason in words: ``3.1 % against at most 2.6 % (1.05 * control)``."""

    outcome: Outcome
    text: str


def parse_bound(*, at_most: str | float | None = None, at_least: str | float | None = None) -> Bound:
    """Read a bound: a number, or ``<number> * control``.

    Raises:
        UsageError: not one side, neither form, a number that is not finite, a factor of 0 or less.
    """
    given = [
        (side, raw) for side, raw in ((Side.AT_MOST, at_most), (Side.AT_LEAST, at_least)) if raw is not None
    ]
    if len(given) != 1:
        raise UsageError(
            f"expected exactly one of at_most and at_least, got {'both' if given else 'neither'}"
        )
    side, raw = given[0]
    match = None if isinstance(raw, bool) else _BOUND.fullmatch(str(raw))
    if match is None:
        raise UsageError(f'{side}: expected a number or "1.05 * control", got {raw!r}')
    relative = match["c"] is None
    number = float(match["a"] or match["b"] or match["c"] or 1.0)
    if not math.isfinite(number) or (relative and number <= 0.0):
        raise UsageError(f"{side}: expected a finite number{', above 0,' if relative else ','} got {raw!r}")
    return Bound(side, number, relative)


def judge(
    bound: Bound,
    treatment: Estimate,
    control: Estimate | None,
    *,
    min_units: float = 1,
    sigmas: float = 3.0,
    percent: bool = False,
) -> Verdict:
    """Whether an arm has crossed a bound.

    Against a multiple k of the control, the standard error of T − kC pools the variance of one unit over both
    arms, V = (n_T·V_T + n_C·V_C)/(n_T + n_C) with V_i = n_i·se_i², and is √(V·(1/n_T + k²/n_C)): with a small
    arm beside a large control, unpooled variances raise false alarms several times as often as they should
    for skewed metrics, and an arm without a single event would look certain. An estimate without a standard
    error is taken at its word.

    Args:
        bound: what must hold.
        treatment: the arm's estimate.
        control: the control's; only a relative bound looks at it.
        min_units: fewer in the arm decide nothing.
        sigmas: how many standard errors beyond the bound prove a breach, at least 0.
        percent: write values in per cent.
    """
    if treatment.n <= 0.0 or treatment.n < min_units:
        return Verdict(Outcome.UNDECIDED, f"{treatment.n:g} of at least {min_units:g} units")
    if bound.relative and control is None:
        return Verdict(Outcome.UNDECIDED, f"no control to compare with ({bound})")
    limit = bound.number * control.value if bound.relative and control is not None else bound.number
    beyond = treatment.value - limit if bound.side is Side.AT_MOST else limit - treatment.value
    se = (
        _joint_se(treatment, control, bound.number)
        if bound.relative and control is not None
        else treatment.se
    )
    breached = beyond > sigmas * (se or 0.0)
    return Verdict(
        Outcome.BREACHED if breached else Outcome.OK, _text(bound, treatment.value, limit, percent=percent)
    )


def _joint_se(treatment: Estimate, control: Estimate, factor: float) -> float | None:
    if treatment.se is None or control.se is None:
        return treatment.se
    squares = (treatment.n * treatment.se) ** 2 + (control.n * control.se) ** 2
    variance = squares / (treatment.n + control.n)
    return math.sqrt(variance * (1.0 / treatment.n + factor**2 / control.n))


def _text(bound: Bound, value: float, limit: float, *, percent: bool) -> str:
    scale, unit = (100.0, " %") if percent else (1.0, "")
    digits = 2
    # As few digits as tell the two apart.
    while digits < 9 and value != limit and f"{scale * value:.{digits}g}" == f"{scale * limit:.{digits}g}":
        digits += 1
    side = "at most" if bound.side is Side.AT_MOST else "at least"
    source = f" ({bound})" if bound.relative else ""
    return (
        f"{_plain(scale * value, digits)}{unit} against {side} {_plain(scale * limit, digits)}{unit}{source}"
    )


def _plain(number: float, digits: int) -> str:
    """At least that many significant digits, and all of those before the point."""
    whole = f"{number:.0f}"
    return whole if len(whole.lstrip("-")) > digits and abs(number) < 1e12 else f"{number:.{digits}g}"
