"""Scrambled Halton points: the conformance suite, and how evenly they fill the space."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from blackopt.optimizers.halton import Halton, HaltonOptions, primes, scrambled
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance


class TestHaltonConformance(OptimizerConformance):
    optimizer = Halton
    options: ClassVar[dict[str, Any]] = {"remember": 200}


def test_the_bases_are_the_first_primes() -> None:
    assert primes(10) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]


@pytest.mark.parametrize("base", [2, 3, 5, 7919])
def test_every_block_of_a_base_has_one_point_in_each_interval(base: int) -> None:
    """What makes the sequence even: b^1 points from a multiple of b on, one in each of b intervals."""
    wanted = min(base, 50)
    for first in (0, 3 * base):
        block = [scrambled(first + i, base, seed=1, coordinate=2) for i in range(wanted)]
        assert len({int(u * base) for u in block}) == wanted


def test_points_are_inside_and_differ_by_seed_and_coordinate() -> None:
    points = [[scrambled(i, 3, seed, j) for i in range(40)] for seed in (1, 2) for j in (0, 1)]
    assert all(0 < u < 1 for row in points for u in row)
    assert len({tuple(row) for row in points}) == 4


def test_means_are_nearer_to_the_integral_than_those_of_random_points() -> None:
    space = Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(4)})
    errors = []
    for seed in range(6):
        search = Halton(space, space.start(), HaltonOptions(seed=seed))
        x = np.stack([c.vector for c in search.ask(128)])
        errors.append(float(np.mean(x.sum(axis=1))) - 2.0)
    assert np.sqrt(np.mean(np.square(errors))) < 0.3 * np.sqrt(4 / 12 / 128)


def test_unbounded_coordinates_are_gaussian_about_the_start() -> None:
    search = Halton(Space.from_spec({"w": {"weights": 1}}), np.array([3.0]), HaltonOptions(sigma=0.5))
    w = np.array([c.vector[0] for c in search.ask(512)])
    np.testing.assert_allclose(np.quantile(w, [0.16, 0.5, 0.84]), [2.5, 3.0, 3.5], atol=0.02)
