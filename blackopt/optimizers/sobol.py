"""Sobol's points, scrambled: a baseline that fills the space evenly, in two coordinates at a time too.

Point i has in coordinate j the bits of the sum modulo 2 of direction numbers v_jk over the bits k that are
set in i (Sobol, "On the distribution of points in a cube and the approximate evaluation of integrals", USSR
Computational Mathematics and Mathematical Physics 7, 1967). The direction numbers follow a primitive
polynomial x^s + a_1 x^(s-1) + ... + 1 over GF(2) from s initial numbers m_1 ... m_s on,

    m_k = 2 a_1 m_(k-1) + ... + 2^(s-1) a_(s-1) m_(k-s+1) + 2^s m_(k-s) + m_(k-s)    modulo 2, bit by bit,

with v_k = m_k / 2^k. The initial numbers in :data:`INITIAL` were chosen as Joe and Kuo choose theirs
("Constructing Sobol sequences with better two-dimensional projections", SIAM Journal on Scientific Computing
30, 2008): by the quality t of the projections on two coordinates, see :func:`best_initial`.

Scrambling multiplies each coordinate's bits by a random lower triangular matrix and adds random bits
(Matousek, "On the L2-discrepancy for anchored boxes", Journal of Complexity 14, 1998): every point by itself
is uniform, and blocks of 2^k points stay as even as they were.
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from blackopt import noise
from blackopt.errors import UsageError
from blackopt.optimizers.filling import FillingOptions, FillingSearch
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space

BITS = 52
"""Of a coordinate and of an index: a float64 holds no more."""

INITIAL: tuple[tuple[int, ...], ...] = (
    (1,), (1, 1), (1, 3, 1), (1, 1, 5), (1, 3, 3, 11), (1, 3, 5, 15), (1, 1, 3, 13, 17), (1, 3, 3, 3, 13),
    (1, 1, 3, 1, 17), (1, 1, 7, 7, 15), (1, 1, 3, 3, 21), (1, 1, 1, 9, 3), (1, 3, 7, 7, 7, 29),
    (1, 3, 7, 5, 13, 57), (1, 3, 1, 3, 5, 7), (1, 1, 3, 7, 9, 35), (1, 1, 7, 3, 19, 27),
    (1, 1, 3, 9, 27, 1), (1, 1, 7, 13, 9, 17, 37), (1, 3, 5, 11, 15, 51, 87), (1, 1, 1, 9, 11, 49, 57),
    (1, 1, 1, 15, 21, 45, 37), (1, 1, 5, 3, 3, 51, 61), (1, 3, 3, 15, 21, 15, 37), (1, 3, 5, 5, 27, 49, 5),
    (1, 3, 7, 7, 19, 13, 7), (1, 1, 3, 3, 31, 9, 51), (1, 1, 3, 7, 23, 43, 51), (1, 1, 3, 7, 9, 7, 101),
    (1, 1, 7, 5, 27, 63, 95), (1, 3, 3, 11, 1, 39, 103), (1, 1, 5, 3, 17, 7, 81), (1, 1, 7, 9, 1, 5, 89),
    (1, 3, 5, 13, 5, 5, 81), (1, 1, 7, 1, 7, 17, 19), (1, 1, 5, 9, 23, 53, 43),
    (1, 1, 5, 13, 27, 41, 65, 45), (1, 1, 5, 9, 19, 9, 97, 27), (1, 1, 7, 9, 19, 25, 57, 31),
    (1, 3, 1, 3, 3, 45, 27, 119), (1, 3, 1, 7, 21, 41, 71, 253), (1, 3, 5, 13, 15, 17, 23, 165),
    (1, 3, 7, 9, 27, 63, 17, 215), (1, 1, 3, 15, 29, 49, 49, 229), (1, 3, 1, 7, 11, 9, 57, 61),
    (1, 3, 1, 11, 27, 63, 81, 27), (1, 3, 1, 11, 1, 29, 21, 139), (1, 3, 5, 1, 11, 17, 43, 229),
    (1, 1, 3, 3, 11, 37, 85, 193), (1, 1, 3, 1, 27, 35, 111, 59), (1, 3, 5, 5, 5, 47, 115, 139),
    (1, 1, 7, 5, 3, 33, 5, 211),
)  # fmt: skip
"""m_1 ... m_s of the second coordinate and the following; that of the first is all ones."""


class SobolOptions(FillingOptions):
    """Options of ``sobol``: those of :class:`blackopt.optimizers.filling.FillingOptions`."""


class Sobol(FillingSearch):
    """``use: sobol``. For up to 53 coordinates."""

    Options: ClassVar[type[OptimizerOptions]] = SobolOptions
    version: ClassVar[str] = "sobol/1"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        most = len(INITIAL) + 1
        if space.size > most:
            raise UsageError(
                f"Sobol: has direction numbers for {most} coordinates, got {space.size}; "
                "use random, which is as even in so many"
            )
        self._directions = [scrambled(directions(j), self._seed, j) for j in range(space.size)]
        bits = noise.integers(self._seed, "sobol/shift", 0, space.size * BITS, 2).reshape(space.size, BITS)
        self._shifts = [int("".join(map(str, row)), 2) for row in bits.tolist()]

    def _uniform(self, number: int) -> Vector:
        """The middle of the point's interval, so that it is neither 0 nor 1."""
        point = [
            combine(columns, number) ^ shift
            for columns, shift in zip(self._directions, self._shifts, strict=True)
        ]
        return (np.array(point, dtype=np.float64) + 0.5) / 2.0**BITS

    def _normal(self, number: int) -> Vector:
        """The Gaussian quantiles of the uniform point."""
        return np.array([NormalDist().inv_cdf(u) for u in self._uniform(number).tolist()])


def combine(columns: list[int], bits: int) -> int:
    """The sum modulo 2 of the columns whose bits are set; the lowest bit belongs to the first."""
    total = 0
    for k, column in enumerate(columns):
        if bits >> k & 1:
            total ^= column
    return total


@cache
def _polynomials(degree: int) -> list[int]:
    """Primitive polynomials over GF(2) of a degree, as bits from x^degree down to 1, in rising order.

    One is primitive where x has order 2^degree - 1 modulo it.
    """
    order = (1 << degree) - 1
    found = []
    for polynomial in range((1 << degree) + 1, 2 << degree, 2):
        power, steps = 1, 0
        while True:
            power <<= 1
            power ^= polynomial if power >> degree else 0
            steps += 1
            if power == 1 or steps > order:
                break
        if steps == order:
            found.append(polynomial)
    return found


def polynomial(coordinate: int) -> tuple[int, int]:
    """The polynomial of a coordinate from 1 on, and its degree."""
    degree, left = 1, coordinate - 1
    while left >= len(_polynomials(degree)):
        left -= len(_polynomials(degree))
        degree += 1
    return _polynomials(degree)[left], degree


def directions(coordinate: int, initial: tuple[int, ...] | None = None, bits: int = BITS) -> list[int]:
    """v_1 ... v_bits of a coordinate, as integers of so many bits, the first bit being a half."""
    if coordinate == 0:
        return [1 << (bits - k) for k in range(1, bits + 1)]
    p, s = polynomial(coordinate)
    m = list(initial or INITIAL[coordinate - 1])
    for k in range(s, bits):
        following = m[k - s] ^ (m[k - s] << s)
        for i in range(1, s):
            if p >> (s - i) & 1:
                following ^= m[k - i] << i
        m.append(following)
    return [m[k] << (bits - 1 - k) for k in range(bits)]


def scrambled(columns: list[int], seed: int, coordinate: int) -> list[int]:
    """Direction numbers times a random lower triangular matrix with ones on its diagonal."""
    below = noise.integers(seed, "sobol/matrix", coordinate, BITS * BITS, 2).reshape(BITS, BITS)
    matrix = np.tril(below, -1) + np.eye(BITS, dtype=np.int64)
    # column p of the matrix: what the p-th bit of a number turns into; the first row is the first bit
    parts = [int("".join(map(str, matrix[:, p].tolist())), 2) for p in range(BITS)]
    return [combine(parts[::-1], column) for column in columns]


def quality(first: list[int], second: list[int], m: int) -> int:
    """t of 2^m points in two coordinates: every box of 2^(t-m) of the square has 2^t of them, 0 being best.

    t = m - q for the largest q such that the first k rows of one matrix of direction numbers and the first
    q - k of the other are independent for every k (Niederreiter,
    "Point sets and sequences with small discrepancy", Monatshefte fuer Mathematik 104, 1987).
    """
    rows = [
        [sum((column >> (m - 1 - r) & 1) << k for k, column in enumerate(c)) for r in range(m)]
        for c in (first, second)
    ]
    for q in range(m, 0, -1):
        if all(_independent(rows[0][:k] + rows[1][: q - k]) for k in range(q + 1)):
            return m - q
    return m


def _independent(rows: list[int]) -> bool:
    """Whether bit vectors are linearly independent modulo 2."""
    pivots: list[int] = []
    for row in rows:
        for pivot in pivots:
            row = min(row, row ^ pivot)
        if row == 0:
            return False
        pivots.append(row)
    return True


def best_initial(chosen: tuple[tuple[int, ...], ...], tries: int = 48) -> tuple[int, ...]:
    """The initial numbers of the coordinate after the chosen ones: of so many random ones, those with the
    smallest sum of t^6 over the pairs with the coordinates before it and 2^2 to 2^10 points."""
    coordinate = len(chosen) + 1
    _, s = polynomial(coordinate)
    draws = noise.integers(0, "sobol/initial", coordinate, tries * s, 1 << 30).reshape(tries, s)
    candidates = {tuple(int(u) % (1 << k) * 2 + 1 for k, u in enumerate(row)) for row in draws}
    before = [(0, None), *((j + 1, initial) for j, initial in enumerate(chosen))]

    def badness(candidate: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
        total = 0
        for m in range(2, 11):
            own = directions(coordinate, candidate, m)
            total += sum(quality(own, directions(j, initial, m), m) ** 6 for j, initial in before)
        return total, candidate

    return min(map(badness, candidates))[1]
