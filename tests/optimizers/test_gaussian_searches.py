"""What the searches around a Gaussian share: scores weighed, late results moved, foreign ones shortened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blackopt import noise, plugins
from blackopt.optimizers.base import Result
from blackopt.optimizers.gaussian import Cohort, limited, shortened, weigh
from blackopt.optimizers.shaping import centred_ranks
from blackopt.space import Space
from blackopt.types import Evaluation, Vector

SEARCHES = ("openai-es", "pgpe", "snes", "xnes", "ars")
MATRIX = np.array([[0.3, 0.1], [0.0, 0.2]])


def floats(n: int) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})


def drawn(cohort: Cohort, epsilon: Any, loss: Any) -> list[Result]:
    """Results of a cohort, version 0, that knows their losses."""
    x = [cohort.place(row) for row in epsilon]
    cohort.losses = [loss(row) for row in x]
    return [Result(i, 0, x[i], cohort.losses[i], None, 1.0, False) for i in range(len(x))]


@pytest.mark.parametrize(
    "scale", [np.array([0.2]), np.array([0.2, 0.5]), MATRIX], ids=["one", "each", "full"]
)
def test_standardising_undoes_placing(scale: Any) -> None:
    cohort, epsilon = Cohort(np.array([1.0, -2.0]), scale), np.array([0.3, -1.2])
    np.testing.assert_allclose(cohort.standardise(cohort.place(epsilon)), epsilon, rtol=1e-12)


@pytest.mark.parametrize("full", [False, True], ids=["each", "full"])
def test_late_results_lie_where_the_present_distribution_sees_them(full: bool) -> None:
    """x = m + A z, whichever distribution drew it."""
    old = Cohort(np.zeros(2), MATRIX if full else np.array([0.3, 0.2]))
    now = Cohort(np.array([0.05, -0.05]), 0.9 * MATRIX if full else np.array([0.35, 0.18]))
    epsilon = 0.5 * noise.normal(0, "test/late", 0, 20).reshape(10, 2)  # short enough to be left alone
    results = drawn(old, epsilon, lambda x: float(x[0]))
    _, z = weigh(results, epsilon, {0: old}, now, centred_ranks, twins=False)
    np.testing.assert_allclose(
        np.stack([now.place(row) for row in z]), np.stack([r.vector for r in results]), atol=1e-12
    )


@pytest.mark.parametrize("full", [False, True], ids=["each", "full"])
def test_late_results_estimate_means_of_the_present_distribution(full: bool) -> None:
    """With the importance weights, E[f(z)] over old results is the present one, times the effective share."""
    old = Cohort(np.zeros(2), np.eye(2) if full else np.ones(2))
    stretch = np.array([[0.9, 0.1], [0.1, 0.8]]) if full else np.array([0.9, 1.1])
    now = Cohort(np.array([0.1, -0.1]), stretch)
    epsilon = noise.normal(0, "test/moments", 0, 40_000).reshape(20_000, 2)
    results = drawn(old, epsilon, lambda _: 0.0)
    w, z = weigh(results, epsilon, {0: old}, now, lambda losses, _: np.ones(losses.shape), twins=False)
    share = w.sum()
    assert 0.5 < share < 1.0
    np.testing.assert_allclose(w @ z / share, 0.0, atol=0.03)
    np.testing.assert_allclose((z.T * w) @ z / share, np.eye(2), atol=0.1)  # the longest steps are shortened


def test_steps_are_shortened_only_beyond_what_a_gaussian_draws() -> None:
    """The limit is sqrt(n) + 2n / (n + 2)."""
    limit = np.sqrt(2) + 1.0
    inside, beyond = np.array([limit - 1e-9, 0.0]), np.array([0.0, 100.0])
    np.testing.assert_array_equal(shortened(inside), inside)
    np.testing.assert_allclose(shortened(beyond), [0.0, limit])
    np.testing.assert_allclose(shortened(np.stack([inside, beyond])), np.diag([limit, limit]))


def test_spreads_stay_between_rounding_and_a_third_of_the_range() -> None:
    space = Space.from_spec({"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "w": {"weights": 1}})
    np.testing.assert_allclose(limited(np.array([5.0, 1e-30, 5.0]), space), [1 / 3, 1e-9, 5.0])
    rows = limited(np.array([[3.0, 4.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 7.0]]), space)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1 / 3, 0.1, 7.0])
    np.testing.assert_allclose(rows[0], [0.2, 4 / 15, 0.0])  # its direction stays


@pytest.mark.parametrize("use", SEARCHES)
def test_foreign_points_far_outside_do_not_blow_up_the_spread(use: str) -> None:
    space = Space.from_spec({"w": {"weights": 3}})
    found = plugins.find("optimizers", use)
    search = found(space, np.zeros(3), found.Options(seed=1))
    for _ in range(300):
        (c,) = search.ask(1)
        far = c.vector + 1e6
        search.tell([Evaluation(c.number, float(far @ far), vector=far)])
    assert np.all(np.isfinite(search.ask(1)[0].vector))


@pytest.mark.parametrize("use", SEARCHES)
def test_a_result_from_long_ago_does_not_blow_up_the_spread(use: str) -> None:
    """It was drawn by a distribution a thousand times as wide."""
    found = plugins.find("optimizers", use)
    search = found(floats(2), np.full(2, 0.4), found.Options(seed=1))
    stragglers = search.ask(6)
    for _ in range(600):
        (c,) = search.ask(1)
        search.tell([Evaluation(c.number, float(np.sum((c.vector - 0.5) ** 2)))])
    before = search.recommend()
    search.tell([Evaluation(c.number, 0.0) for c in [*stragglers, *search.ask(40)]])
    assert np.all(np.isfinite(search.ask(1)[0].vector))
    np.testing.assert_allclose(search.recommend(), before, atol=0.1)


def excess(use: str, scales: Vector, seed: int, in_flight: int) -> float:
    """What 400 results leave of a quadratic loss, its optimum 0.3 from the start in each coordinate."""
    n = scales.size
    found = plugins.find("optimizers", use)
    search = found(floats(n), np.full(n, 0.3), found.Options(seed=seed))
    flying: list[Any] = []
    for turn in range(400):
        flying += search.ask(in_flight - len(flying))
        candidate = flying.pop(turn * 7 % in_flight)
        search.tell([Evaluation(candidate.number, float(scales @ (candidate.vector - 0.6) ** 2))])
    return float(scales @ (search.recommend() - 0.6) ** 2)


@pytest.mark.parametrize("use", SEARCHES)
@pytest.mark.parametrize("in_flight", [1, 16])
@pytest.mark.parametrize("condition", [1.0, 100.0], ids=["sphere", "ellipsoid"])
def test_they_get_closer_than_random_search(use: str, in_flight: int, condition: float) -> None:
    scales = condition ** np.linspace(0.0, 1.0, 8)
    ours, random = (
        float(np.median([excess(name, scales, seed, in_flight) for seed in (1, 2, 3)]))
        for name in (use, "random")
    )
    assert ours < 0.6 * random
