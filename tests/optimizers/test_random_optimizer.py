"""Random search: the conformance suite, and what it recommends."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from blackopt.optimizers.random import Random, RandomOptions
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance
from blackopt.types import Evaluation, Status


class TestRandomConformance(OptimizerConformance):
    optimizer = Random
    options: ClassVar[dict[str, Any]] = {"remember": 200}


def make() -> Random:
    space = Space.from_spec({"x": {"float": [0, 1]}, "w": {"weights": 1}})
    return Random(space, np.array([0.5, 3.0]), RandomOptions(sigma=0.5))


def test_bounded_coordinates_are_uniform_and_unbounded_ones_gaussian_about_the_start() -> None:
    x, w = np.array([c.vector for c in make().ask(20_000)]).T
    np.testing.assert_allclose(np.quantile(x, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    np.testing.assert_allclose([w.mean(), w.std()], [3.0, 0.5], atol=0.02)


def test_the_luckiest_sample_is_not_what_it_recommends() -> None:
    search = make()
    batch = search.ask(200)
    lucky = batch[int(np.argmax([c.vector[0] for c in batch]))]  # at the far end from the optimum, x = 0
    search.tell([Evaluation(c.number, -3.0 if c is lucky else float(c.vector[0])) for c in batch])
    assert search.recommend()[0] < 0.4


def test_what_is_known_better_counts_more() -> None:
    """One end looks better, and is known to a hundredth of the precision of the other."""
    search = make()
    batch = search.ask(100)
    for c in batch:
        far = c.vector[0] > 0.5
        search.tell(
            [Evaluation(c.number, -1.0 if far and c.number % 4 == 0 else 0.1 * far, se=10.0 if far else 0.1)]
        )
    assert search.recommend()[0] < 0.7


def test_a_handful_of_results_recommends_the_start() -> None:
    search = make()
    search.tell([Evaluation(c.number, float(c.vector[0])) for c in search.ask(7)])
    search.tell([Evaluation(c.number, None, status=Status.INFEASIBLE) for c in search.ask(20)])
    np.testing.assert_array_equal(search.recommend(), [0.5, 3.0])
