"""Means and covariances from sums, and linear functions of them: exactly for one arm, in float64 for many.

A part is a variable of a unit: its numerator ``num`` (columns ``sum``, ``sum_sq``), denominator ``den``
(``den_sum``, ``den_sum_sq``), covariate ``cov`` and the covariate's denominator ``cov_den``. Products of two
are columns ``num_den``, ``num_cov``, ``num_cov_den``, ``den_cov``, ``den_cov_den``, ``cov_cov_den``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from blackopt.metrics.effects import Array
from blackopt.metrics.kinds.base import Columns, Stats

Number = TypeVar("Number", Fraction, Array)
"""A fraction for one arm, an array of shape (k,) for many."""

Parts: TypeAlias = tuple[str, ...]

ROUNDING = 1e-9
"""Part of Σy² by which a source that adds naively may miss the bounds that sums of squares have."""


def sum_of(part: str) -> str:
    """The column with Σ of a part."""
    return "sum" if part == "num" else f"{part}_sum"


def product_of(first: str, second: str) -> str:
    """The column with Σ of the product of two parts, in the order num, den, cov, cov_den."""
    return f"{sum_of(first)}_sq" if first == second else f"{first}_{second}"


def columns_of(parts: Parts) -> frozenset[str]:
    """Every column that the moments of these parts need."""
    pairs = itertools.combinations_with_replacement(parts, 2)
    return frozenset({"n", *map(sum_of, parts), *(product_of(a, b) for a, b in pairs)})


@dataclass(frozen=True, slots=True, eq=False)
class Moments(Generic[Number]):
    """Moments of p parts over the units of an arm.

    Attributes:
        n: units.
        means: p of them.
        covariance: p x p, of one unit, unbiased: (Σab − ΣaΣb/n)/(n − 1); of a single unit 0.
        rounding: p of them: half a unit in the last place of Σa², over n − 1, what float64 can tell from 0.
        squares: p of them: Σa²/(n − 1), what a variance would be about 0.
    """

    n: Number
    means: tuple[Number, ...]
    covariance: tuple[tuple[Number, ...], ...]
    rounding: tuple[Number, ...]
    squares: tuple[Number, ...]


def exact(stats: Stats, parts: Parts) -> Moments[Fraction]:
    """Moments without any rounding of their own."""
    n = Fraction(stats["n"])
    sums = [Fraction(stats[sum_of(part)]) for part in parts]
    rest = n - 1 if n > 1 else Fraction(1)

    def covariance(i: int, j: int) -> Fraction:
        product = product_of(*(parts[k] for k in sorted((i, j))))
        return (Fraction(stats[product]) - sums[i] * sums[j] / n) / rest

    squares = [stats[product_of(part, part)] for part in parts]
    return Moments(
        n,
        tuple(total / n for total in sums),
        _symmetric(len(parts), covariance),
        tuple(Fraction(math.ulp(square)) / 2 / rest if square else Fraction(0) for square in squares),
        tuple(Fraction(square) / rest for square in squares),
    )


def bulk(table: Columns, parts: Parts) -> Moments[Array]:
    """The same in float64, row by row; rows of a single unit are not numbers."""
    n = table["n"]
    sums = [table[sum_of(part)] for part in parts]
    means = tuple(total / n for total in sums)

    def covariance(i: int, j: int) -> Array:
        product: Array = (table[product_of(*(parts[k] for k in sorted((i, j))))] - sums[i] * means[j]) / (
            n - 1
        )
        return product

    squares = tuple(table[product_of(part, part)] / (n - 1) for part in parts)
    return Moments(
        n, means, _symmetric(len(parts), covariance), tuple(np.spacing(s) / 2 for s in squares), squares
    )


def _symmetric(size: int, entry: Callable[[int, int], Number]) -> tuple[tuple[Number, ...], ...]:
    """A symmetric matrix, every entry computed once."""
    found = {pair: entry(*pair) for pair in itertools.combinations_with_replacement(range(size), 2)}
    return tuple(tuple(found[min(i, j), max(i, j)] for j in range(size)) for i in range(size))


@dataclass(frozen=True, slots=True, eq=False)
class Linear(Generic[Number]):
    """A function of the means of a :class:`Moments`, near them: its value and its gradient (p of them)."""

    value: Number
    gradient: tuple[Number, ...]


def level(means: Sequence[Number]) -> Linear[Number]:
    """A mean, or the ratio of two: R = M/D, gradient (1/D, −R/D) (Deng, Knoblich & Lu 2018, section 3.1)."""
    one = means[0] * 0 + 1
    if len(means) == 1:
        return Linear(means[0], (one,))
    ratio = means[0] / means[1]
    return Linear(ratio, (one / means[1], -ratio / means[1]))


def spread(moments: Moments[Number], first: Sequence[Number], second: Sequence[Number]) -> Number:
    """The covariance of one unit in two directions: Σᵢⱼ gᵢhⱼΛᵢⱼ."""
    total = moments.n * 0
    for i, g in enumerate(first):
        for j, h in enumerate(second):
            total = total + g * h * moments.covariance[i][j]
    return total


def weighed(parts: Sequence[Number], gradient: Sequence[Number]) -> Number:
    """Σ gᵢ²·partᵢ: of ``rounding`` the least variance that is not taken for 0, of ``squares`` its scale."""
    total = parts[0] * 0
    for part, g in zip(parts, gradient, strict=True):
        total = total + g * g * part
    return total


def covariate(moments: Moments[Number]) -> Linear[Number]:
    """The covariate's own level: the second half of the parts, which are as many as the outcome's."""
    half = len(moments.means) // 2
    own = level(moments.means[half:])
    return Linear(own.value, _times(own.gradient, moments.n * 0) + own.gradient)


def adjusted(moments: Moments[Number], theta: Number, centre: Number) -> Linear[Number]:
    """The outcome's level less what the covariate explains, Y − θ(X − centre) (Deng et al., WSDM 2013)."""
    half = len(moments.means) // 2
    outcome = level(moments.means[:half])
    given = level(moments.means[half:])
    value = outcome.value - theta * (given.value - centre)
    return Linear(value, outcome.gradient + _times(given.gradient, -theta))


def slope(pool: Moments[Number]) -> tuple[Number, Number]:
    """θ = Cov(Y, X)/Var(X) as (numerator, denominator), where Y and X are levels near the means."""
    half = len(pool.means) // 2
    outcome = level(pool.means[:half]).gradient
    given = covariate(pool).gradient
    return spread(pool, outcome + _times(outcome, pool.n * 0), given), spread(pool, given, given)


def _times(gradient: tuple[Number, ...], factor: Number) -> tuple[Number, ...]:
    return tuple(g * factor for g in gradient)
