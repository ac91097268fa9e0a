"""A fast metric in place of a slow one: what its effect says of the other's, and how well it has said it.

A surrogate ranks, it never promotes. The model: an arm's true effect on the objective is y = slope·x + u,
where x is its true effect on the surrogate, through the origin (an arm that changes nothing changes nothing),
and u has the standard deviation ``error``. Both effects are measured with sampling noise.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from blackopt.errors import UsageError
from blackopt.types import Estimate

FEWEST_PAIRS = 8
FEWEST_WINDOWS = 3
"""With fewer, nothing is said of a slope."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One arm whose both effects are known; arms of one window share a control.

    Attributes:
        window: number of the window.
        surrogate, objective: effects with standard errors.
    """

    window: int
    surrogate: Estimate
    objective: Estimate


@dataclass(frozen=True, slots=True)
class Fit:
    """What matured pairs say of a surrogate.

    Attributes:
        slope, se: the objective's effect for each unit of the surrogate's, and its standard error.
        error: standard deviation of what the slope misses, sampling noise apart; 0 where noise explains all.
        pairs: how many it comes from.
    """

    slope: float
    se: float
    error: float
    pairs: int


def expected(effect: Estimate, *, slope: float, error: float) -> Estimate:
    """The objective's effect that a surrogate's effect stands for: slope·x, SE² = slope²·SE_x² + error².

    Without a standard error of its own the result has none either.
    """
    se = None if effect.se is None else math.hypot(slope * effect.se, error)
    return Estimate(slope * effect.value, se, effect.n)


def fit(pairs: Sequence[Pair]) -> Fit | None:
    """The slope and the error that pairs show, corrected for the noise in the surrogate.

    Least squares through the origin would take noise in x for effect and flatten the slope, so the noise is
    subtracted: slope = Σxy / Σ(x² − SE_x²), the errors-in-variables estimate (Fuller, Measurement Error
    Models, 1987, section 2.2), with error² = mean((y − slope·x)² − SE_y² − slope²·SE_x²). Arms of a window
    share a control, so the standard error sums the moments window by window (Liang & Zeger, Biometrika 73,
    1986) and is widened by G/(G − 1) for G windows. Noise of the two metrics is taken as independent: where
    the same units make both, the slope leans towards their correlation as far as noise is left in x.

    Returns:
        None with fewer than 8 pairs or 3 windows, and where the surrogate's effects cannot be told from
        noise.

    Raises:
        UsageError: an effect without a standard error.
    """
    if len(pairs) < FEWEST_PAIRS or len({pair.window for pair in pairs}) < FEWEST_WINDOWS:
        return None
    points: list[tuple[int, float, float, float, float]] = []
    for pair in pairs:
        fast, slow = pair.surrogate, pair.objective
        if fast.se is None or slow.se is None:
            raise UsageError(f"pairs: expected effects with standard errors, got {pair}")
        points.append((pair.window, fast.value, fast.se**2, slow.value, slow.se**2))
    signal = math.fsum(x * x - vx for _, x, vx, _, _ in points)
    if signal <= 2 * math.sqrt(math.fsum(2 * vx * vx for _, _, vx, _, _ in points)):
        return None  # within two standard deviations of what noise alone gives Σ(x² − SE_x²)
    slope = math.fsum(x * y for _, x, _, y, _ in points) / signal
    moments: defaultdict[int, float] = defaultdict(float)
    for window, x, vx, y, _ in points:
        moments[window] += x * (y - slope * x) + slope * vx
    groups = len(moments)
    variance = math.fsum(m * m for m in moments.values()) / signal**2 * groups / (groups - 1)
    missed = math.fsum((y - slope * x) ** 2 - vy - slope**2 * vx for _, x, vx, y, vy in points)
    return Fit(slope, math.sqrt(variance), math.sqrt(max(missed / len(points), 0.0)), len(points))
