"""Losses with heavy tails: what an outlier says of its own is bounded, by the shape of the noise itself."""

from __future__ import annotations

import numpy as np

from blackopt.types import Vector

_FEWEST = 40  # residuals whose distribution can be told
_DISTINCT = 0.7  # share of different losses: rates take few values, and are left alone
_HEAVY = 1.5  # ratio of standard deviation and robust spread (1 for a Gaussian) from which tails are heavy
_GRID = 512
_HUBER = 2.5
_FENCE = 10.0  # Tukey's "far out" is 3 ("Exploratory data analysis", 1977)


def fenced(losses: Vector) -> Vector:
    """(N,) finite losses drawn back to ten interquartile ranges outside the quartiles, where those differ.

    A single typing error of a million would otherwise be the whole regression.
    """
    known = losses[np.isfinite(losses)]
    low, high = np.percentile(known, [25, 75])
    width = _FENCE * (high - low)
    if width <= 0:
        return losses
    drawn: Vector = np.where(np.isfinite(losses), np.clip(losses, low - width, high + width), losses)
    return drawn


def robust_spread(residuals: Vector) -> float:
    """Interquartile range over that of a standard normal."""
    low, high = np.percentile(residuals, [25, 75])
    return float(high - low) / 1.349


def spread(residuals: Vector) -> float:
    """The robust spread; but where most residuals are the same, those that differ are no outliers yet."""
    return max(robust_spread(residuals), float(residuals.std()) / _HEAVY)


def downweighted(residuals: Vector, spread: float) -> Vector:
    """(N,) Huber's weights min(1, 2.5 / |u|), u in units of the spread ("Robust statistics", 1981)."""
    if spread <= 0:
        return np.ones(len(residuals))
    weights: Vector = np.minimum(1.0, _HUBER / np.maximum(np.abs(residuals) / spread, 1e-12))
    return weights


def heavy(losses: Vector, residuals: Vector) -> bool:
    """Whether residuals of continuous losses have tails far heavier than a Gaussian's."""
    if len(residuals) < _FEWEST or len(np.unique(losses)) <= _DISTINCT * len(losses):
        return False
    spread = robust_spread(residuals)
    return spread > 0 and float(residuals.std()) > _HEAVY * spread


def scores(residuals: Vector) -> Vector:
    """(N,) one-step efficient pseudo-residuals psi(u) / I, clipped at 3 / sqrt(I).

    psi = -f'/f is the score of location and I = E psi^2 its Fisher information (Bickel, "On adaptive
    estimation", Annals of Statistics 10, 1982); f is a Gaussian kernel estimate with Silverman's bandwidth. A
    regression on them is to first order the maximum-likelihood fit under f.
    """
    u = residuals - np.median(residuals)
    width = 0.9 * (robust_spread(u) * 1.349 / 1.34) * len(u) ** -0.2
    reach = 8 * robust_spread(u)
    grid = np.linspace(-reach, reach, _GRID)
    kernel = np.exp(-0.5 * ((grid[:, None] - u[None, :]) / width) ** 2)
    density = kernel.sum(axis=1)
    slope = -(kernel * (grid[:, None] - u[None, :])).sum(axis=1) / width**2
    psi = -slope / np.maximum(density, 1e-3 * density.max())
    at = np.interp(u, grid, psi)
    information = float((at**2).mean())
    limit = 3 / np.sqrt(information)
    pseudo: Vector = np.clip(at / information, -limit, limit)
    return pseudo
