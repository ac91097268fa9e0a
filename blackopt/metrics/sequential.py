"""Tests that may be looked at while their data arrives.

A test at a fixed level that is repeated at every poll raises a false alarm in one of five sound candidates
after 14 looks. Two kinds of boundary keep the promised level:

* The **asymptotic confidence sequence** (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, *Time-uniform central
  limit theory and asymptotic confidence sequences*, arXiv 2103.06476) holds at all sizes of the sample at
  once. When and how often anybody looks does not matter, so it suits guardrails: polls are late, missed and
  irregular.
* **Alpha spending** (Lan & DeMets, Biometrika 1983) gives the level away bit by bit, by a function of the
  part of the planned information that is there. It needs a plan and an end, and has more power there: it
  suits the comparison at a promotion. Bonferroni's bound is there to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import UsageError

_NORMAL = NormalDist()
_FAR = 8.0  # standard deviations beyond which a normal density is nothing: 6e-16 in all
_ROOTS, _WEIGHTS = np.polynomial.legendre.leggauss(12)  # on each panel
_PANELS = 400  # at most, where looks are very close


# -- confidence sequence -----------------------------------------------------------------------------------


def mixture_precision(alpha: float, sharpest: float) -> float:
    """ρ, which makes the sequence sharpest at a sample of ``sharpest`` units.

    ρ = √((−2 ln 2α + ln(1 − 2 ln 2α))/N*), for the one-sided sequence: equation 10 of the paper at level 2α.

    Args:
        alpha: one-sided level, in (0, 0.5).
        sharpest: N*, more than 0 units.

    Raises:
        UsageError: a number outside its range.
    """
    _level(alpha)
    if not 0.0 < sharpest < math.inf:
        raise UsageError(f"sharpest: expected a finite number of units above 0, got {sharpest!r}")
    twice = -2.0 * math.log(2.0 * alpha)
    return math.sqrt((twice + math.log1p(twice)) / sharpest)


def boundary(n: float, *, alpha: float, sharpest: float) -> float:
    """Half-width of the one-sided asymptotic confidence sequence at n units, in standard errors.

    √N · √(2(Nρ² + 1)/(Nρ)² · ln(1 + √(Nρ² + 1)/(2α))), with ρ from :func:`mixture_precision`. It depends on N
    and N* through N/N* alone, so both may count the units of one arm as well as those of two whose sizes grow
    in proportion.

    Args:
        n: units so far, above 0.
        alpha: probability that a harmless arm is ever beyond the boundary, at most, in (0, 0.5).
        sharpest: N*, fixed before the data; a wrong guess by ten costs a third of the width, and no level.

    Raises:
        UsageError: a number outside its range.
    """
    if not 0.0 < n < math.inf:
        raise UsageError(f"n: expected a finite number of units above 0, got {n!r}")
    information = n * mixture_precision(alpha, sharpest) ** 2  # Nρ²
    grown = math.sqrt(information + 1.0)
    return grown * math.sqrt(2.0 / information * math.log1p(grown / (2.0 * alpha)))


# -- alpha spending ------------------------------------------------------------------------------------------


class Spending(StrEnum):
    """How much of the level may be gone when a part t of the planned information is there."""

    OBRIEN_FLEMING = "obrien-fleming"  # 2 − 2Φ(z/√t), z = Φ⁻¹(1 − α/2): almost nothing early
    POCOCK = "pocock"  # α ln(1 + (e − 1)t): about the same bound at every look
    LINEAR = "linear"  # αt


def spent(rule: Spending, part: float, alpha: float) -> float:
    """α*(t): the one-sided level that may be gone at a part t of the planned information (Lan & DeMets 1983).

    Raises:
        UsageError: a level outside (0, 0.5), or a part outside [0, 1].
    """
    _level(alpha)
    if not 0.0 <= part <= 1.0:
        raise UsageError(f"part: expected a number in [0, 1], got {part!r}")
    if part == 0.0:
        return 0.0
    if rule is Spending.OBRIEN_FLEMING:
        return math.erfc(_NORMAL.inv_cdf(1.0 - alpha / 2.0) / math.sqrt(2.0 * part))
    return alpha * (math.log1p((math.e - 1.0) * part) if rule is Spending.POCOCK else part)


def bonferroni_bound(looks: int, alpha: float) -> float:
    """Φ⁻¹(1 − α/k): exceeded at some of k looks with probability α at most, whatever joins them.

    Raises:
        UsageError: no look, or a level outside (0, 0.5).
    """
    _level(alpha)
    if looks < 1:
        raise UsageError(f"looks: expected at least 1, got {looks!r}")
    return -_NORMAL.inv_cdf(alpha / looks)


def spending_bounds(
    parts: Sequence[float], *, alpha: float, rule: Spending, two_sided: bool = False
) -> list[float]:
    """Bounds for z at each look, such that the level is gone as the rule says, and never sooner.

    Brownian motion B(t) = z√t crosses b₁√t₁ with probability α*(t₁), and bₖ√tₖ for the first time with
    probability α*(tₖ) − α*(tₖ₋₁): its density on the paths that have not crossed is integrated from look to
    look (Armitage, McPherson & Rowe 1969). So a look may come at any time, as long as *when* does not depend
    on what was seen.

    Args:
        parts: of the planned information at each look so far, rising, in (0, 1].
        alpha: the level; of one side, or of both together.
        rule: how it is spent. Two sides spend half of it each.
        two_sided: bounds hold for |z|.

    Returns:
        A bound for each look; infinite where nothing may be spent that float64 could tell from nothing.

    Raises:
        UsageError: parts that do not rise within (0, 1], or a level outside its range.
    """
    rising = all(a < b for a, b in pairwise([0.0, *parts]))
    if not parts or not rising or not parts[-1] <= 1.0:
        raise UsageError(f"parts: expected rising numbers in (0, 1], at least one, got {list(parts)!r}")
    one_side = alpha / 2.0 if two_sided else alpha
    bounds: list[float] = []
    points, mass = np.zeros(1), np.ones(1)  # B(0) = 0, certainly
    before, gone = 0.0, 0.0
    for part in parts:
        width = math.sqrt(part - before)
        due = spent(rule, part, one_side)
        edge = _edge(points, mass, width, due - gone, math.sqrt(part), two_sided=two_sided)
        bounds.append(edge / math.sqrt(part))
        points, mass = _survivors(points, mass, width, edge, math.sqrt(part), two_sided=two_sided)
        before, gone = part, due
    return bounds


def crossing(bounds: Sequence[float], drifts: Sequence[float]) -> list[float]:
    """Probability that Z is beyond its bound for the first time at each look, where there is an effect.

    Looks of their own fresh data have independent z_i ~ N(θ_i, 1), and Zₖ = Σ z_i/√k is compared with
    bounds[k]. What drifts is taken off the bounds, B = Σ(z_i − θ_i), and integrated as in
    :func:`spending_bounds`. Their sum is the power of the plan.

    Args:
        bounds: on Zₖ; infinite where a look cannot end it.
        drifts: θ_i, the expected z of each look alone: its effect over its standard error.

    Raises:
        UsageError: no looks, not a drift for each bound, or one that is not finite.
    """
    if not bounds or len(bounds) != len(drifts) or not all(math.isfinite(drift) for drift in drifts):
        raise UsageError(f"expected a bound and a finite drift for each look, got {bounds!r} and {drifts!r}")
    first: list[float] = []
    points, mass = np.zeros(1), np.ones(1)
    moved = 0.0
    for look, (bound, drift) in enumerate(zip(bounds, drifts, strict=True), start=1):
        moved += drift
        scale = math.sqrt(look)
        # No path is further down than that: beyond an edge there, all of them are.
        edge = max(bound * scale - moved, -_FAR * scale)
        beyond = ((edge - points) / math.sqrt(2.0)).tolist()
        first.append(math.fsum(0.5 * math.erfc(x) * m for x, m in zip(beyond, mass.tolist(), strict=True)))
        if edge == -_FAR * scale:
            return first + [0.0] * (len(bounds) - look)
        points, mass = _survivors(points, mass, 1.0, edge, scale, two_sided=False)
    return first


def _edge(
    points: NDArray[np.float64],
    mass: NDArray[np.float64],
    width: float,
    due: float,
    scale: float,
    *,
    two_sided: bool,
) -> float:
    """Where B must be for the probability of being beyond to be ``due``; by bisection."""

    def beyond(edge: float) -> float:
        return math.fsum(
            m * _upper((edge - u) / width) for u, m in zip(points.tolist(), mass.tolist(), strict=True)
        )

    low, high = (0.0 if two_sided else -_FAR * scale), _FAR * scale
    if beyond(high) >= due:
        return math.inf
    while high - low > 1e-10 * scale:
        middle = (low + high) / 2.0
        low, high = (middle, high) if beyond(middle) > due else (low, middle)
    return (low + high) / 2.0


def _survivors(
    points: NDArray[np.float64],
    mass: NDArray[np.float64],
    width: float,
    edge: float,
    scale: float,
    *,
    two_sided: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights of the density of B on the paths that are still inside."""
    upper = min(edge, _FAR * scale)
    lower = -upper if two_sided else -_FAR * scale
    panels = min(_PANELS, math.ceil((upper - lower) / width))
    half = (upper - lower) / panels / 2.0
    middles = lower + half * (2.0 * np.arange(panels) + 1.0)
    nodes = (middles[:, None] + half * _ROOTS).ravel()
    density = (
        np.exp(-0.5 * ((nodes[:, None] - points) / width) ** 2) @ mass / (width * math.sqrt(2.0 * math.pi))
    )
    return nodes, density * np.tile(half * _WEIGHTS, panels)


def _upper(z: float) -> float:
    """1 − Φ(z)."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))


def _level(alpha: float) -> None:
    if not 0.0 < alpha < 0.5:
        raise UsageError(f"alpha: expected a level in (0, 0.5), got {alpha!r}")
