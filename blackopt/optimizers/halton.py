"""Halton's points, scrambled: a baseline that fills the space more evenly than random points do.

Coordinate j of point i is the radical inverse of i in the j-th prime b: the digits of i, mirrored at the
point (Halton, "On the efficiency of certain quasi-random sequences of points in evaluating multi-dimensional
integrals", Numerische Mathematik 2, 1960). Here every digit first goes through a random permutation, one for
each position of each coordinate, leading zeros included (Owen, "A randomized Halton algorithm in R", 2017,
arXiv 1706.02808): that breaks the stripes which large primes draw, and makes each point by itself uniform.

The evenness is that of the first coordinates: with more than a dozen or so, it takes more points than a
campaign has.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from blackopt import noise
from blackopt.optimizers.filling import FillingOptions, FillingSearch
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_BITS = 52  # a digit further on would be lost in a float64
_POSITIONS = 64  # more than the 52 digits of base 2


class HaltonOptions(FillingOptions):
    """Options of ``halton``: those of :class:`blackopt.optimizers.filling.FillingOptions`."""


class Halton(FillingSearch):
    """``use: halton``."""

    Options: ClassVar[type[OptimizerOptions]] = HaltonOptions
    version: ClassVar[str] = "halton/1"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        self._bases = primes(space.size)

    def _uniform(self, number: int) -> Vector:
        return np.array([scrambled(number, base, self._seed, j) for j, base in enumerate(self._bases)])

    def _normal(self, number: int) -> Vector:
        """The Gaussian quantiles of the uniform point."""
        return np.array([NormalDist().inv_cdf(u) for u in self._uniform(number).tolist()])


def primes(n: int) -> list[int]:
    """The first n primes."""
    found: list[int] = []
    candidate = 2
    while len(found) < n:
        if all(candidate % p for p in found if p * p <= candidate):
            found.append(candidate)
        candidate += 1
    return found


def scrambled(number: int, base: int, seed: int, coordinate: int) -> float:
    """The scrambled radical inverse of ``number`` in (0, 1), in the middle of its last digit's interval."""
    digits = int(_BITS / math.log2(base))
    value = 0
    for position in range(digits):
        number, digit = divmod(number, base)
        shuffled = np.argsort(
            noise.uniform(seed, "halton", coordinate * _POSITIONS + position, base), kind="stable"
        )
        value = value * base + int(shuffled[digit])
    return float((value + 0.5) / base**digits)
