"""Search distributions, and sums over the directions of results without a direction: each is a key, and is
drawn where it is summed.

A result of cohort c was tried at m_c + A_c eps, with eps = sign * noise(key), or, where something else was
tried than was drawn, eps from what was tried. The sums over eps are folds of keyed noise,
:mod:`blackopt.artifacts.fold`: one for all results, whatever their cohorts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts.fold import fold, fold_squares
from blackopt.optimizers.base import Result
from blackopt.optimizers.keyed import Noise
from blackopt.optimizers.steps import blocks
from blackopt.types import Vector

_BLOCK = 1 << 20  # coordinates at a time: small beside a model, and what a cache holds


@dataclass(slots=True, eq=False)
class Cohort:
    """One search distribution: what a result of it was drawn from.

    Attributes:
        centre: (n,) m.
        scale: A, as (1,) one standard deviation for all coordinates, (n,) one for each, or (n, n).
    """

    centre: Vector
    scale: NDArray[np.float64]

    def place(self, epsilon: Vector) -> Vector:
        """(n,) m + A eps."""
        return self.centre + (self.scale @ epsilon if self.scale.ndim == 2 else self.scale * epsilon)

    def standardise(self, vector: Vector) -> Vector:
        """(n,) the inverse of :meth:`place`."""
        offset = vector - self.centre
        if self.scale.ndim == 1:
            return offset / self.scale
        epsilon: Vector = np.linalg.solve(self.scale, offset).astype(np.float64, copy=False)
        return epsilon

    def distance(self, centre: Vector) -> float:
        """|A^-1 (centre - m)|: how far away it is, in standard deviations over all coordinates together."""
        if centre is self.centre:
            return 0.0  # the usual case: no pass over n for it
        if self.scale.ndim == 2:
            return math.sqrt(_squared(self.standardise(centre)))
        steps = ((centre[at] - self.centre[at]) / _part(self.scale, at) for at in blocks(centre.size, _BLOCK))
        return math.sqrt(sum(map(_squared, steps)))


def shortening(length: float, n: int) -> float:
    """What to multiply a step of this length by, so that it is sqrt(n) + 2n / (n + 2) long at most.

    A foreign point far out would say of the spread what it says of itself: Hansen, "Injecting external
    solutions into CMA-ES" (2011, arXiv 1110.4181), section 3.
    """
    longest = math.sqrt(n) + 2 * n / (n + 2)
    return longest / max(length, longest)


def shortened(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., n) steps, those longer than a Gaussian would draw cut as in :func:`shortening`."""
    lengths = np.linalg.norm(z, axis=-1, keepdims=True)
    short: NDArray[np.float64] = z * np.vectorize(shortening, otypes=[float])(lengths, z.shape[-1])
    return short


class Directions:
    """eps_1 .. eps_k of k results, for diagonal A.

    Args:
        results: k of them.
        cohorts: by version; those of the results at least.
        noise: what the results were drawn from.
    """

    def __init__(self, results: Sequence[Result], cohorts: Mapping[int, Cohort], noise: Noise) -> None:
        self._noise, self._like = noise, next(iter(cohorts.values())).centre
        self._drawn = np.array([i for i, result in enumerate(results) if not result.moved], dtype=np.intp)
        self._keys = [noise.key(results[i].number) for i in self._drawn]
        self._signs = np.array([noise.sign(results[i].number) for i in self._drawn], dtype=np.float64)
        self._foreign = [
            (i, _Foreign(result.vector, cohorts[result.version]))
            for i, result in enumerate(results)
            if result.moved
        ]

    def sum(self, w: Vector, at: slice | None = None) -> Vector:
        """(n,) sum_i w_i eps_i, for (k,) w; or a block of its coordinates."""
        noise, (begin, total) = self._noise, self._zeros(at)
        signed = w[self._drawn] * self._signs
        fold(noise.seed, self._keys, signed, total, kind=noise.kind, offset=begin)
        for i, foreign in self._foreign:
            for part in blocks(total.size, _BLOCK):
                total[part] += w[i] * foreign.epsilon(slice(begin + part.start, begin + part.stop))
        return total

    def added(self, w: Vector, to: Vector) -> Vector:
        """(n,) to + sum_i w_i eps_i, for (k,) w, each sum added while the cache holds it."""
        if to.size <= _BLOCK:
            total = self.sum(w)
            total += to
            return total
        made = np.empty_like(to)
        for at in blocks(to.size, _BLOCK):
            np.add(self.sum(w, at), to[at], out=made[at])
        return made

    def _zeros(self, at: slice | None) -> tuple[int, Vector]:
        """Where a block of coordinates, or all of them, begins, and zeros for it."""
        whole = at or slice(0, self._like.size)
        return whole.start, np.zeros(whole.stop - whole.start, self._like.dtype)

    def squares(self, w: Vector, at: slice | None = None) -> Vector:
        """(n,) sum_i w_i (eps_i^2 - 1), for (k,) w; or a block of its coordinates."""
        noise, (begin, total) = self._noise, self._zeros(at)
        fold_squares(noise.seed, self._keys, w[self._drawn], total, kind=noise.kind, offset=begin)
        for i, foreign in self._foreign:
            for part in blocks(total.size, _BLOCK):
                epsilon = foreign.epsilon(slice(begin + part.start, begin + part.stop))
                total[part] += w[i] * (epsilon**2 - 1)
        return total


def by_version(results: Sequence[Result]) -> dict[int, list[int]]:
    """Indices of the results by the version of their cohort, in order."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        members[result.version].append(i)
    return members


class _Foreign:
    """The direction of what was tried and not drawn: it may be of any length, see :func:`shortening`."""

    def __init__(self, vector: Vector, cohort: Cohort) -> None:
        self._vector, self._cohort = vector, cohort
        self._factor = shortening(cohort.distance(vector), vector.size)

    def epsilon(self, at: slice) -> Vector:
        """A block of coordinates."""
        offset = self._vector[at] - self._cohort.centre[at]
        epsilon: Vector = self._factor * offset / _part(self._cohort.scale, at)
        return epsilon


def _part(scale: NDArray[np.float64], at: slice) -> NDArray[np.float64]:
    """The (1,) or (n,) scale of a block of coordinates."""
    return scale if scale.size == 1 else scale[at]


def _squared(a: Vector) -> float:
    """|a|^2, summed in float64."""
    return float(np.sum(np.multiply(a, a, dtype=np.float64)))
