"""Scrambled Sobol points: the conformance suite, and how evenly they fill the space."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import qmc

from blackopt import plugins
from blackopt.errors import UsageError
from blackopt.optimizers import sobol
from blackopt.optimizers.sobol import INITIAL, Sobol, SobolOptions
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance


class TestSobolConformance(OptimizerConformance):
    optimizer = Sobol
    options: ClassVar[dict[str, Any]] = {"remember": 200}


def floats(n: int) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})


def points(n: int, k: int, seed: int = 0) -> Any:
    search = Sobol(floats(n), floats(n).start(), SobolOptions(seed=seed))
    return np.stack([c.vector for c in search.ask(k)])


def test_polynomials_are_the_primitive_ones() -> None:
    """Peterson and Weldon's counts: phi(2^s - 1) / s of degree s."""
    assert [len(sobol._polynomials(s)) for s in range(1, 9)] == [1, 1, 2, 2, 6, 6, 18, 16]
    assert sobol._polynomials(3) == [0b1011, 0b1101]
    assert sobol.polynomial(52)[1] == 8


def test_initial_numbers_are_odd_and_small_enough_and_one_for_each_degree() -> None:
    for coordinate, initial in enumerate(INITIAL, start=1):
        assert len(initial) == sobol.polynomial(coordinate)[1]
        assert all(m % 2 == 1 and m < 2**k for k, m in enumerate(initial, start=1))


def test_the_table_is_what_its_rule_gives() -> None:
    for coordinate in range(1, 9):
        assert sobol.best_initial(INITIAL[: coordinate - 1]) == INITIAL[coordinate - 1]


@pytest.mark.parametrize("coordinate", [0, 1, 7, 52])
def test_every_block_of_a_power_of_two_has_one_point_in_each_interval(coordinate: int) -> None:
    x = points(53, 64, seed=3)[:, coordinate]
    for size in (2, 8, 64):
        for first in range(0, 64, size):
            assert sorted(np.floor(x[first : first + size] * size)) == list(range(size))


def test_the_quality_of_two_coordinates_is_counted_right() -> None:
    """By counting points in boxes, for unscrambled and scrambled ones."""
    for a, b in ((0, 1), (1, 2), (5, 9)):
        for m in (3, 6):
            t = sobol.quality(sobol.directions(a, bits=m), sobol.directions(b, bits=m), m)
            raw = [[sobol.combine(sobol.directions(j), i) / 2**52 for j in (a, b)] for i in range(2**m)]
            assert t == boxed(np.array(raw), m)
            assert t >= boxed(points(10, 2**m)[:, [a, b]], m)


def boxed(x: Any, m: int) -> int:
    """The smallest t for which every elementary box of area 2^(t-m) holds 2^t points."""
    for t in range(m + 1):
        counts = set()
        for k in range(m - t + 1):
            cells = np.floor(x * [2**k, 2 ** (m - t - k)]).astype(int)
            counts |= set(np.unique(cells, axis=0, return_counts=True)[1].tolist())
        if counts == {2**t}:
            return t
    raise AssertionError("t = m always holds")


def test_points_are_as_even_as_scipys() -> None:
    """Centred discrepancy of 256 points, in two coordinates and in ten."""
    for n in (2, 10):
        mine = np.mean([qmc.discrepancy(points(n, 256, seed)) for seed in range(4)])
        theirs = np.mean([qmc.discrepancy(qmc.Sobol(n, rng=seed).random(256)) for seed in range(4)])
        chance = np.mean([qmc.discrepancy(np.random.default_rng(s).random((256, n))) for s in range(4)])
        assert mine < 1.3 * theirs
        assert mine < 0.7 * chance


def test_no_pair_of_coordinates_falls_into_stripes() -> None:
    """The worst t of any pair, of 2^10 points."""
    columns = [sobol.directions(j, bits=10) for j in range(24)]
    assert max(sobol.quality(a, b, 10) for a, b in itertools.combinations(columns, 2)) <= 6


def test_points_are_reached_by_number_alone_and_differ_by_seed() -> None:
    search = Sobol(floats(3), floats(3).start(), SobolOptions(seed=1))
    np.testing.assert_array_equal(search._uniform(37), points(3, 38, seed=1)[37])
    assert np.all((search._uniform(2**40) > 0) & (search._uniform(2**40) < 1))
    assert not np.any(points(3, 4, seed=1) == points(3, 4, seed=2))


def test_unbounded_coordinates_are_gaussian_about_the_start() -> None:
    search = Sobol(Space.from_spec({"w": {"weights": 1}}), np.array([3.0]), SobolOptions(sigma=0.5))
    w = np.array([c.vector[0] for c in search.ask(512)])
    np.testing.assert_allclose(np.quantile(w, [0.16, 0.5, 0.84]), [2.5, 3.0, 3.5], atol=0.02)


def test_too_many_coordinates_are_refused() -> None:
    with pytest.raises(UsageError, match="53 coordinates, got 54"):
        Sobol(floats(54), floats(54).start(), SobolOptions())


def test_it_is_found_by_name() -> None:
    assert plugins.find("optimizers", "sobol") is Sobol
