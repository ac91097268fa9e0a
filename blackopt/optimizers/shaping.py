"""From losses to scores: what a gradient estimate is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from blackopt.types import Vector

NEAR = 0.25
"""Of a perturbation's length: the way that the centre may go until what it has left counts for less. Between
0.2 and 0.4, ``benchmarks/delay.py`` hardly tells them apart."""


def centred_ranks(losses: Vector, among: Vector | None = None) -> Vector:
    """(k,) scores in [-1/2, 1/2], rising with the loss; ties share their mean rank, a single loss scores 0.

    The fitness shaping of Salimans et al. 2017, section 2.1 (with the sign of a loss): the result no longer
    depends on the scale of the loss, nor on how bad the worst is (infinity included).

    Args:
        losses: (k,) to score; no NaN.
        among: (m,) the losses they are ranked among, ``losses`` included; by default ``losses`` alone.
    """
    among = np.sort(losses if among is None else among)
    if among.size < 2:
        return np.zeros(losses.shape)
    below, up_to = np.searchsorted(among, losses, side="left"), np.searchsorted(among, losses, side="right")
    return (below + up_to - 1) / 2 / (among.size - 1) - 0.5


def utilities(losses: Vector, among: Vector) -> Vector:
    """(k,) utilities of natural evolution strategies, falling with the loss; their mean over ``among`` is 0.

    Of m losses, the i-th best (i = 1 .. m) gets

        u_i = max(0, ln(m/2 + 1) - ln i) / sum_j max(0, ln(m/2 + 1) - ln j) - 1/m

    (Wierstra et al. 2014, section 3.1), here times m, so that a mean over results takes the place of their
    sum and a part of the cohort can stand for all of it. Ties share the mean of theirs.

    Args:
        losses: (k,) to score; no NaN.
        among: (m,) the losses they are ranked among, ``losses`` included.
    """
    m = among.size
    raw = np.maximum(0.0, math.log(m / 2 + 1) - np.log(np.arange(1, m + 1)))
    summed = np.concatenate([[0.0], np.cumsum(m * raw / raw.sum() - 1)])
    among = np.sort(among)
    below, up_to = np.searchsorted(among, losses, side="left"), np.searchsorted(among, losses, side="right")
    mean: Vector = (summed[up_to] - summed[below]) / (up_to - below)
    return mean


def finite(losses: Vector) -> Vector:
    """(k,) with every +inf (infeasible) a range, or 1 where there is none, above the worst finite loss, of
    which there is one at least."""
    known = losses[np.isfinite(losses)]
    return np.where(np.isfinite(losses), losses, known.max() + (float(np.ptp(known)) or 1.0))


def trust(losses: Vector, ses: Sequence[float | None], weights: Vector) -> Vector:
    """(k,) weights with mean 1, smaller for noisier losses.

    A loss differs from the others by what its vector is worth (variance tau^2) and by its own noise (se^2),
    so it counts as ``weight / (tau^2 + se^2)``, with tau^2 = max(0, var(losses) - mean(se^2)) by the method
    of moments, after the random-effects weights of DerSimonian and Laird (1986). An unknown se is taken as
    the mean of the known ones.

    Args:
        losses: (k,), infinities allowed: they do not enter tau^2.
        ses: (k,) standard errors, None where unknown.
        weights: (k,) > 0.
    """
    known = np.array([se for se in ses if se is not None], dtype=np.float64)
    if known.size and np.ptp(known) > 0:  # equal errors cancel out
        variance = np.array([known.mean() if se is None else se for se in ses]) ** 2
        finite = losses[np.isfinite(losses)]
        spread = float(np.var(finite, ddof=1)) if finite.size > 1 else 0.0
        tau2 = max(0.0, spread - float(variance.mean()))
        # an exact measurement among noisy ones would count infinitely where tau2 is 0: bound it
        weights = weights / np.maximum(tau2 + variance, 1e-2 * float(variance.mean()))
    normalised: Vector = weights / weights.mean()
    return normalised


def late_weight(distance: float, n: int) -> float:
    """What a result counts for, of a distribution that the centre has since left: min(1, NEAR sqrt(n) / d).

    What it says of the gradient was true where it was drawn; how wrong it is by now grows with the way that
    the centre has gone, and not with the time or the number of updates that it took. So it counts in inverse
    proportion to that way: Barkai, Hakimi and Schuster, "Gap-aware mitigation of gradient staleness" (ICLR
    2020, arXiv 1909.10802), there with the usual step, here with a part of a perturbation for the unit. No
    result counts for nothing, and what is in flight together holds itself back: the longer its steps, the
    less each of them counts.

    Args:
        distance: d, from the present centre to the one it was drawn around, in present standard deviations
            over all coordinates together.
        n: coordinates; a perturbation is sqrt(n) standard deviations long.
    """
    near = NEAR * math.sqrt(n)
    return near / max(distance, near)
