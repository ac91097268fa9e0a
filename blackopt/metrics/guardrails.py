"""Guardrails: bounds that a candidate must not cross, and what its readings say about them.

A bound is a number, or a multiple of the control's value in the same window; the multiple is the margin
of harm that is put up with. There are two ways to be beyond it:

* A metric of units is **proved** to be beyond: the lower end of a one-sided asymptotic confidence sequence of
  the harm is above zero (:mod:`blackopt.metrics.sequential`). It may be looked at after every poll without
  withdrawing sound candidates more often than the level says, and without a plan of looks.
* An operational metric (an error rate, a 99th percentile) **stays** beyond for a given time, reading after
  reading. There are no independent units to count; what is asked is that it is no passing moment.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from blackopt.errors import UsageError
from blackopt.metrics.sequential import boundary
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


def sharpest_at(min_units: float, expected_units: float | None) -> float:
    """N*: the size of an arm at which its test is made sharpest, a quarter of the units that are expected.

    It must be fixed before the data. Whatever is estimated while the window is open (the units so far, the
    control's size) follows the data, and then the sequence no longer keeps its level; so where nobody
    says how many units to expect, 4 · max(``min_units``, 1000) are. The width is not sensitive to that:
    between a tenth of N* and a hundred times N* it is at most a third above its least.

    Raises:
        UsageError: a number that is not above 0.
    """
    expected = 4.0 * max(min_units, 1_000.0) if expected_units is None else expected_units
    if not 0.0 < expected < math.inf:
        raise UsageError(f"expected_units: expected a number above 0, got {expected_units!r}")
    return expected / 4.0


def judge(
    bound: Bound,
    treatment: Estimate,
    control: Estimate | None,
    *,
    alpha: float = 0.05,
    expected_units: float | None = None,
    min_units: float = 1,
    min_events: float = 0,
    events: tuple[float, float | None] | None = None,
    percent: bool = False,
) -> Verdict:
    """Whether an arm is proved to be beyond a bound, however often this is asked while its units arrive.

    With d = T − kC (or kC − T) it is breached when d − b(n)·SE(d) > 0, where b is the half-width of the
    one-sided asymptotic confidence sequence in standard errors
    (:func:`~blackopt.metrics.sequential.boundary`) at the arm's n units: the control grows in proportion.
    An arm that is not beyond the bound is ever withdrawn with probability ``alpha`` at most.

    SE(d) pools the variance of one unit over both arms, V = (n_T·V_T + n_C·V_C)/(n_T + n_C) with
    V_i = n_i·se_i², and is √(V·(1/n_T + k²/n_C)): with a small arm beside a large control, unpooled variances
    raise false alarms several times as often as they should for skewed metrics, and an arm without a single
    event would look certain. Against a plain number p, a proportion has at least the variance p(1 − p).

    An estimate without a standard error is taken at its word. One that does not say of how many units it is
    (n = 1, and a standard error) is tested as if it had N* of them, which keeps the level while its units
    grow about eightyfold.

    Args:
        bound: what must hold.
        treatment: the arm's estimate.
        control: the control's; only a relative bound looks at its value.
        alpha: in (0, 0.5).
        expected_units: that the arm will have when it is complete; see :func:`sharpest_at`.
        min_units: fewer in the arm decide nothing.
        min_events: fewer events in the arm (and fewer than the control's rate would give it) decide nothing:
            below about ten, sums are not normal.
        events: the units that had an event, in the arm and in the control; None where that is not known.
        percent: write values in per cent.

    Raises:
        UsageError: a level outside its range.
    """
    sharpest = sharpest_at(min_units, expected_units)
    if treatment.n <= 0.0 or treatment.n < min_units:
        return Verdict(Outcome.UNDECIDED, f"{treatment.n:g} of at least {min_units:g} units")
    if bound.relative and control is None:
        return Verdict(Outcome.UNDECIDED, f"no control to compare with ({bound})")
    if events is not None and (seen := expected_events(bound, treatment, control, events)) < min_events:
        return Verdict(Outcome.UNDECIDED, f"{seen:.3g} of at least {min_events:g} events")
    limit, _ = _beyond(bound, treatment, control)
    harm = excess(bound, treatment, control, percent=percent)
    reach = 0.0
    if harm.se is not None:
        n = treatment.n if treatment.n > 1.0 else sharpest
        reach = harm.se * boundary(n, alpha=alpha, sharpest=sharpest)
    outcome = Outcome.BREACHED if harm.value > reach else Outcome.OK
    return Verdict(outcome, _text(bound, treatment.value, limit, percent=percent))


def look(bound: Bound, treatment: Estimate, control: Estimate | None, *, percent: bool = False) -> Verdict:
    """Whether an operational metric is beyond its bound in one reading, taken at its word.

    Args:
        bound: what must hold.
        treatment: the arm's estimate.
        control: the control's; only a relative bound looks at it.
        percent: write values in per cent.
    """
    if bound.relative and control is None:
        return Verdict(Outcome.UNDECIDED, f"no control to compare with ({bound})")
    limit, beyond = _beyond(bound, treatment, control)
    outcome = Outcome.BREACHED if beyond > 0.0 else Outcome.OK
    return Verdict(outcome, _text(bound, treatment.value, limit, percent=percent))


def beyond_since(looks: Iterable[tuple[int, bool]]) -> int | None:
    """When the last unbroken run of readings beyond a bound began; None if the last one is not beyond it.

    Args:
        looks: (as_of in microseconds, beyond) of successive readings, in the order of their times.
    """
    since: int | None = None
    for as_of_us, beyond in looks:
        since = (as_of_us if since is None else since) if beyond else None
    return since


def excess(bound: Bound, treatment: Estimate, control: Estimate | None, *, percent: bool = False) -> Estimate:
    """How far an arm is beyond its bound, d = T − kC or kC − T, with the SE(d) of :func:`judge`.

    Args:
        bound: what must hold.
        treatment: the arm's estimate.
        control: the control's; only a relative bound looks at it.
        percent: the metric is a proportion, whose variance at a bound is known.

    Raises:
        UsageError: a relative bound without a control.
    """
    if bound.relative and control is None:
        raise UsageError(f"control: expected its estimate, got none to compare with ({bound})")
    _, beyond = _beyond(bound, treatment, control)
    return Estimate(beyond, _error(bound, treatment, control, percent=percent), treatment.n)


def expected_events(
    bound: Bound, treatment: Estimate, control: Estimate | None, events: tuple[float, float | None]
) -> float:
    """The units of an arm that had an event, or that would have at the control's rate, whichever is more.

    Without a control, at the rate of the bound: an arm without a single event has shown something where there
    should have been fifty, and nothing where there should have been two.
    """
    mine, theirs = events
    if theirs is None or control is None or control.n <= 0.0:
        expected = 0.0 if bound.relative else treatment.n * bound.number
    else:
        expected = treatment.n * theirs / control.n
    return max(mine, expected)


def _beyond(bound: Bound, treatment: Estimate, control: Estimate | None) -> tuple[float, float]:
    """The limit, and how far the arm is beyond it."""
    limit = bound.number * control.value if bound.relative and control is not None else bound.number
    return limit, treatment.value - limit if bound.side is Side.AT_MOST else limit - treatment.value


def _error(bound: Bound, treatment: Estimate, control: Estimate | None, *, percent: bool) -> float | None:
    """SE of the difference between the arm and its limit."""
    if treatment.se is None or (bound.relative and (control is None or control.se is None)):
        return None
    if bound.relative and control is not None and control.se is not None:
        squares = (treatment.n * treatment.se) ** 2 + (control.n * control.se) ** 2
        variance = squares / (treatment.n + control.n)
        return math.sqrt(variance * (1.0 / treatment.n + bound.number**2 / control.n))
    at_limit = bound.number * (1.0 - bound.number) if percent and 0.0 < bound.number < 1.0 else 0.0
    return max(treatment.se, math.sqrt(at_limit / treatment.n))


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
