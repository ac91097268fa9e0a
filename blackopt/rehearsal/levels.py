"""One unit's moments under the control, and the sufficient statistics that so many units would give.

Sums of thousands of units are normal whatever the units are, so a unit is never simulated: a sum is drawn
from N(nμ, nΛ), the squares about the mean from the Wishart distribution W(Λ, n − 1) that they have for normal
units, and counts from the binomial.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blackopt.metrics.kinds import Average, Kind, Quantile
from blackopt.metrics.kinds.moments import product_of, sum_of
from blackopt.metrics.kinds.quantile import Z
from blackopt.runner.plan import Baseline

Matrix: TypeAlias = NDArray[np.float64]
Stats: TypeAlias = dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """What a metric is today.

    Attributes:
        parts: p variables of a unit, as in :mod:`blackopt.metrics.kinds.moments`; one for a count.
        mean: (p,) of one unit.
        covariance: (p, p) of one unit; unused for a count.
        events: part of the units that pay, order or succeed.
    """

    parts: tuple[str, ...]
    mean: Matrix
    covariance: Matrix
    events: float


def stated(kind: Kind, baseline: Baseline) -> Level:
    """The level that a stated baseline means.

    The covariate of CUPED is taken to be the metric itself, some time earlier; the denominator of a ratio to
    be the same for every unit. ``events`` is the largest part of the units that can have paid: with a mean μ
    and a deviation s, a payment of one size reaches μ²/(μ² + s²) of them.
    """
    mean, sd = baseline.mean, baseline.sd
    parts = _parts(kind)
    if sd is None:
        return Level(parts, np.array([mean]), np.array([[mean * (1.0 - mean)]]), mean)
    means, covariance = np.ones(len(parts)), np.zeros((len(parts), len(parts)))
    own = [i for i, part in enumerate(parts) if part in ("num", "cov")]
    for i, j in itertools.product(own, own):
        means[i] = mean
        covariance[i, j] = sd * sd * (1.0 if i == j else baseline.correlation or 0.0)
    square = mean * mean + sd * sd
    return Level(parts, means, covariance, mean * mean / square if square else 0.0)


def _parts(kind: Kind) -> tuple[str, ...]:
    if not isinstance(kind, Average):
        return ("num",)
    return (*kind.outcome, *kind.covariates) if kind.cuped else kind.outcome


def draw(kind: Kind, level: Level, n: int, factor: float, rng: np.random.Generator) -> Stats:
    """The statistics of n units whose outcome is ``factor`` times the level's.

    Args:
        kind: of the metric.
        level: of the control.
        n: units, at least 0.
        factor: at least 0; a count stays at most all of its units.
        rng: where chance comes from.
    """
    if isinstance(kind, Average):
        return _average(kind, level, n, factor, rng)
    mean, sd = float(level.mean[0]) * factor, math.sqrt(level.covariance[0, 0])
    if isinstance(kind, Quantile):
        half = Z * sd / math.sqrt(n) if n else 0.0
        q = mean + half / Z * rng.standard_normal() if n else 0.0
        return {"n": float(n), "q": q, "q_lower": q - half, "q_upper": q + half}
    if kind.name == "value":
        se = sd / math.sqrt(n) if n else 0.0
        return {"n": float(n), "value": mean + se * rng.standard_normal() if n else 0.0, "se": se}
    return {"n": float(n), "sum": float(rng.binomial(n, min(mean, 1.0)))}


def _average(kind: Average, level: Level, n: int, factor: float, rng: np.random.Generator) -> Stats:
    size = len(level.parts)
    scale = np.array([factor if part == "num" else 1.0 for part in level.parts])
    root = scale[:, None] * _root(level.covariance)
    sums = n * scale * level.mean + math.sqrt(n) * root @ rng.standard_normal(size)
    products = root @ _wishart(n - 1, size, rng) @ root.T + (np.outer(sums, sums) / n if n else 0.0)
    stats = {"n": float(n), "events": float(rng.binomial(n, level.events))}
    for i, part in enumerate(level.parts):
        stats[sum_of(part)] = float(sums[i])
        for j in range(i, size):
            stats[product_of(part, level.parts[j])] = float(products[i, j])
    if kind.name == "revenue":
        stats |= {"raw_sum": stats["sum"], "raw_sum_sq": stats["sum_sq"]}
    return stats


def _wishart(degrees: int, size: int, rng: np.random.Generator) -> Matrix:
    """A draw of W(I, degrees), by Bartlett's decomposition (Proc. R. Soc. Edinburgh 53, 1933)."""
    if degrees < size:
        rows = rng.standard_normal((max(degrees, 0), size))
        few: Matrix = rows.T @ rows
        return few
    lower = np.tril(rng.standard_normal((size, size)), -1)
    lower[np.diag_indices(size)] = np.sqrt(rng.chisquare(degrees - np.arange(size)))
    product: Matrix = lower @ lower.T
    return product


def _root(covariance: Matrix) -> Matrix:
    """A with AAᵀ = covariance, which may be singular: a denominator that never varies."""
    if len(covariance) == 1:
        return np.sqrt(covariance)
    values, vectors = np.linalg.eigh(covariance)
    root: Matrix = vectors * np.sqrt(np.maximum(values, 0.0))
    return root
