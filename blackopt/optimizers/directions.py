"""Sums over the directions of results, without a direction: each is a key, and is drawn where it is summed.

A result of cohort c lies at m_c + A_c eps, with eps = sign * noise(key), or, where something else was tried
than was drawn, eps from what was tried. Seen from the present distribution (m, A) that is m + A z with

    z = f (eps - shift) / stretch,        shift = (m - m_c) / A_c,        stretch = A / A_c,

for diagonal A, with f <= 1 shortening a step that the present distribution would hardly draw
(:func:`shortening`). So for weights w, v = w f and u = w f^2,

    sum w z         =  (sum v eps  -  shift sum v) / stretch
    sum w (z^2 - 1) =  (sum u eps^2  +  shift (shift sum u  -  2 sum u eps)) / stretch^2  -  sum w,

and the sums over eps are folds of keyed noise, :mod:`blackopt.artifacts.fold`. Results of the present cohort
have shift = 0 and stretch = f = 1.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts.fold import dots, fold, fold_squares
from blackopt.optimizers.base import Result
from blackopt.optimizers.keyed import Noise
from blackopt.optimizers.shaping import late_weights, log_effective
from blackopt.optimizers.steps import blocks
from blackopt.types import Vector

_BLOCK = 1 << 22  # coordinates at a time: small beside a model, and long enough for the fold's threads


@dataclass(slots=True, eq=False)
class Cohort:
    """One search distribution, and the candidates drawn from it: what a late one is scored among and moved
    from.

    Attributes:
        centre: (n,) m.
        scale: A, as (1,) one standard deviation for all coordinates, (n,) one for each, or (n, n).
        losses: those known so far.
    """

    centre: Vector
    scale: NDArray[np.float64]
    losses: list[float] = field(default_factory=list)

    def place(self, epsilon: Vector) -> Vector:
        """(n,) m + A eps."""
        return self.centre + (self.scale @ epsilon if self.scale.ndim == 2 else self.scale * epsilon)

    def standardise(self, vector: Vector) -> Vector:
        """(n,) the inverse of :meth:`place`."""
        offset = vector - self.centre
        return solve(self.scale, offset) if self.scale.ndim == 2 else offset / self.scale


def solve(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """A^-1 b."""
    solution: NDArray[np.float64] = np.linalg.solve(a, b).astype(np.float64, copy=False)
    return solution


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
    """z_1 .. z_k of k results, for diagonal A.

    Args:
        results: k of them.
        cohorts: by version; those of the results at least.
        now: the present distribution.
        noise: what the results were drawn from.

    Attributes:
        late: (k,) importance weights of the results in the present distribution, see
            :func:`blackopt.optimizers.shaping.late_weights`.
    """

    def __init__(
        self, results: Sequence[Result], cohorts: Mapping[int, Cohort], now: Cohort, noise: Noise
    ) -> None:
        self._like = now.centre
        self._parts = [
            (members, _Part([results[i] for i in members], cohorts[version], now, noise))
            for version, members in by_version(results).items()
        ]
        self.late = np.ones(len(results))
        for members, part in self._parts:
            self.late[members] = part.late

    def sum(self, w: Vector) -> Vector:
        """(n,) sum_i w_i z_i, for (k,) w."""
        total = np.zeros_like(self._like)
        for members, part in self._parts:
            part.add(w[members], total)
        return total

    def squares(self, w: Vector) -> Vector:
        """(n,) sum_i w_i (z_i^2 - 1), for (k,) w."""
        total = np.zeros_like(self._like)
        for members, part in self._parts:
            part.add_squares(w[members], total)
        return total


def by_version(results: Sequence[Result]) -> dict[int, list[int]]:
    """Indices of the results by the version of their cohort, in order."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        members[result.version].append(i)
    return members


class _Part:
    """The directions of one cohort's results."""

    def __init__(self, results: list[Result], cohort: Cohort, now: Cohort, noise: Noise) -> None:
        self._results, self._cohort, self._now, self._noise = results, cohort, now, noise
        self._n = now.centre.size
        self._drawn = np.array([i for i, result in enumerate(results) if not result.moved], dtype=np.intp)
        self._keys = [noise.key(results[i].number) for i in self._drawn]
        self._signs = np.array([noise.sign(results[i].number) for i in self._drawn], dtype=np.float64)
        self._foreign = {i: self._foreign_shortening(r) for i, r in enumerate(results) if r.moved}
        self._stretched = not np.array_equal(cohort.scale, now.scale)
        self._f = np.ones(len(results))
        self.late = np.ones(len(results))
        if self._stretched:
            self._see_stretched()
        elif cohort is not now:
            self._see_shifted()

    # ------------------------------------------------------------------ sums

    def add(self, w: Vector, total: Vector) -> None:
        """Add sum w z to (n,) ``total``."""
        if self._cohort is self._now:
            self._fold(w, total, slice(0, self._n))
            return
        v = w * self._f
        sum_v = float(v.sum())
        for at in blocks(self._n, _BLOCK):
            part = np.zeros_like(total[at])
            self._fold(v, part, at)
            part -= sum_v * self._shift(at)
            total[at] += part / self._stretch(at)

    def add_squares(self, w: Vector, total: Vector) -> None:
        """Add sum w (z^2 - 1) to (n,) ``total``."""
        if self._cohort is self._now:
            self._fold_squares(w, total, slice(0, self._n))
            return
        u = w * self._f**2
        sum_u, sum_w = float(u.sum()), float(w.sum())
        for at in blocks(self._n, _BLOCK):
            first, second, shift = np.zeros_like(total[at]), np.zeros_like(total[at]), self._shift(at)
            self._fold(u, first, at)
            self._fold_squares(u, second, at)
            second += sum_u + shift * (sum_u * shift - 2 * first)
            total[at] += second / self._stretch(at) ** 2 - sum_w

    def _fold(self, w: Vector, out: Vector, at: slice) -> None:
        """Add sum w eps."""
        noise = self._noise
        fold(noise.seed, self._keys, w[self._drawn] * self._signs, out, kind=noise.kind, offset=at.start)
        for i in self._foreign:
            out += w[i] * self._epsilon(i, at)

    def _fold_squares(self, w: Vector, out: Vector, at: slice) -> None:
        """Add sum w (eps^2 - 1)."""
        noise = self._noise
        fold_squares(noise.seed, self._keys, w[self._drawn], out, kind=noise.kind, offset=at.start)
        for i in self._foreign:
            out += w[i] * (self._epsilon(i, at) ** 2 - 1)

    # ------------------------------------------------------------------ one block of coordinates

    def _shift(self, at: slice) -> Vector:
        return (self._now.centre[at] - self._cohort.centre[at]) / _part(self._cohort.scale, at)

    def _stretch(self, at: slice) -> Vector | float:
        return _part(self._now.scale, at) / _part(self._cohort.scale, at) if self._stretched else 1.0

    def _epsilon(self, i: int, at: slice) -> Vector:
        result, cohort = self._results[i], self._cohort
        if i not in self._foreign:
            size, dtype = at.stop - at.start, cohort.centre.dtype.type
            return self._noise.draw(result.number, size, offset=at.start, dtype=dtype)
        return self._foreign[i] * self._step(result, at)

    def _step(self, result: Result, at: slice) -> Vector:
        """What was tried, in standard deviations from where it was to be drawn."""
        return (result.vector[at] - self._cohort.centre[at]) / _part(self._cohort.scale, at)

    # ------------------------------------------------------------------ how far away it is

    def _foreign_shortening(self, result: Result) -> float:
        """:func:`shortening` of a step that was tried and not drawn: it may be of any length."""
        squared = sum(_squared(self._step(result, at)) for at in blocks(self._n, _BLOCK))
        return shortening(math.sqrt(squared), self._n)

    def _see_shifted(self) -> None:
        """Importance weights where only the centre has moved: log w = shift . eps - |shift|^2 / 2."""
        noise, along, squared = self._noise, np.zeros(len(self._results)), 0.0
        for at in blocks(self._n, _BLOCK):
            shift = self._shift(at)
            squared += _squared(shift)
            drawn = dots(noise.seed, self._keys, shift, kind=noise.kind, offset=at.start)
            along[self._drawn] += self._signs * drawn
            for i in self._foreign:
                along[i] += _dot(shift, self._epsilon(i, at))
        self.late = late_weights(along - 0.5 * squared, -squared)

    def _see_stretched(self) -> None:
        """Importance weights and shortenings where the spread has changed, too: with z not yet shortened,
        log w = (|eps|^2 - |z|^2) / 2."""
        k, n = len(self._results), self._n
        old, new, effective = np.zeros(k), np.zeros(k), 0.0
        for at in blocks(n, _BLOCK):
            shift, stretch = self._shift(at), np.asarray(self._stretch(at))
            effective += log_effective(shift, stretch**2)
            for i in range(k):
                epsilon = self._epsilon(i, at)
                old[i] += _squared(epsilon)
                new[i] += _squared((epsilon - shift) / stretch)
        self.late = late_weights(0.5 * (old - new), effective)
        self._f = np.array([shortening(math.sqrt(length), n) for length in new])


def _part(scale: NDArray[np.float64], at: slice) -> NDArray[np.float64]:
    """The (1,) or (n,) scale of a block of coordinates."""
    return scale if scale.size == 1 else scale[at]


def _dot(a: Vector, b: Vector) -> float:
    return float(np.sum(np.multiply(a, b, dtype=np.float64)))


def _squared(a: Vector) -> float:
    """|a|^2, summed in float64."""
    return _dot(a, a)
