"""From losses to scores: what a gradient estimate is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from blackopt.types import Vector

CLIP = 2.0
"""Largest self-normalised importance weight: no late result counts for more than two."""


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


def late_weights(log_ratios: Vector, log_effective: float) -> Vector:
    """(k,) weights of results from a Gaussian that has since moved and stretched.

    In coordinates where the old one is N(0, I) and the new one N(shift, diag v), the density ratio of the new
    and the old at eps is ``log w = (|eps|^2 - sum (eps - shift)^2 / v) / 2``, up to a constant; for v = 1,
    ``shift . eps - |shift|^2 / 2``. It is self-normalised over the k results and clipped, and all of them are
    scaled by the fraction of effective samples, see :func:`log_effective`: what is far away says little,
    however old it is. Where nothing has moved, a weight is exactly 1.

    Args:
        log_ratios: (k,) log w, k >= 1.
        log_effective: logarithm of the fraction of effective samples, <= 0.
    """
    w = np.exp(log_ratios - log_ratios.max())
    weights: Vector = math.exp(log_effective) * np.minimum(w / w.mean(), CLIP)
    return weights


def log_effective(shift: Vector, variances: Vector) -> float:
    """Logarithm of 1 / E[w^2], the fraction of effective samples (Kong 1992).

    It is a sum over the (n,) coordinates,

        log( prod sqrt(v (2 - v))  exp(-sum shift^2 / (2 - v)) ),    -|shift|^2 for v = 1.

    Where v >= 2 the ratio's variance is infinite, and the old says nothing of the new.

    Args:
        shift: (n,) how far the centre has moved, in old standard deviations.
        variances: (n,) v, of the new distribution in units of the old.
    """
    if np.any(variances >= 2):
        return -math.inf
    left = 2.0 - variances
    return float(0.5 * np.log(variances * left).sum() - (shift**2 / left).sum())
