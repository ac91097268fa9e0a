"""What the searches around a Gaussian share: distributions, sums over directions, foreign steps shortened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from blackopt import plugins
from blackopt.optimizers import directions
from blackopt.optimizers.base import NOWHERE, Result
from blackopt.optimizers.directions import Cohort, Directions, shortened
from blackopt.optimizers.gaussian import limited
from blackopt.space import Space
from blackopt.types import Evaluation, Vector

SEARCHES = ("openai-es", "pgpe", "snes", "xnes", "ars")
MATRIX = np.array([[0.3, 0.1], [0.0, 0.2]])


def floats(n: int) -> Space:
    return Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})


def searching(use: str, n: int = 2, **options: Any) -> Any:
    """A search over weights whose present cohort a test may replace."""
    found = plugins.find("optimizers", use)
    return found(Space.from_spec({"w": {"weights": n}}), np.zeros(n), found.Options(**options))


def late_results(search: Any, old: Cohort, now: Cohort, count: int) -> list[Result]:
    """The first ``count`` results, drawn around ``old`` and finished while ``now`` is the distribution."""
    search._cohorts, search._updates = {0: old, 1: now}, 1
    return [Result(i, 0, NOWHERE, float(i), None, 1.0, False) for i in range(count)]


@pytest.mark.parametrize(
    "scale", [np.array([0.2]), np.array([0.2, 0.5]), MATRIX], ids=["one", "each", "full"]
)
def test_standardising_undoes_placing(scale: Any) -> None:
    cohort, epsilon = Cohort(np.array([1.0, -2.0]), scale), np.array([0.3, -1.2])
    np.testing.assert_allclose(cohort.standardise(cohort.place(epsilon)), epsilon, rtol=1e-12)


@pytest.mark.parametrize(
    "scale", [np.array([0.2]), np.array([0.2, 0.5]), MATRIX], ids=["one", "each", "full"]
)
def test_distances_are_in_standard_deviations(scale: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the sum over all coordinates, however they are cut."""
    monkeypatch.setattr(directions, "_BLOCK", 1)
    cohort = Cohort(np.array([1.0, -2.0]), scale)
    np.testing.assert_allclose(cohort.distance(cohort.place(np.array([3.0, -4.0]))), 5.0, rtol=1e-12)
    assert cohort.distance(cohort.centre) == 0.0


@pytest.mark.parametrize(
    ("use", "old", "now"),
    [
        ("openai-es", np.array([0.3]), np.array([0.3])),
        ("snes", np.array([0.3, 0.2]), np.array([0.35, 0.18])),
        ("xnes", MATRIX, 0.9 * MATRIX),
    ],
    ids=["one", "each", "full"],
)
def test_late_results_say_what_they_said_of_the_distribution_that_drew_them(
    use: str, old: Any, now: Any
) -> None:
    """eps, drawn or from what was tried, and shortened there alone; sums are those of the rows."""
    search, k = searching(use), 10
    before, after = Cohort(np.zeros(2), old), Cohort(np.array([5.0, -5.0]), now)
    results = late_results(search, before, after, k)
    expected = np.stack([search._noise.draw(number, 2) for number in range(k)])
    results[3] = replace(results[3], moved=True, vector=np.array([0.1, 0.2]))
    results[4] = replace(results[4], moved=True, vector=np.array([50.0, 0.0]))
    expected[3:5] = shortened(np.stack([before.standardise(results[i].vector) for i in (3, 4)]))
    if use == "xnes":
        np.testing.assert_allclose(search._perturbations(results), expected, rtol=1e-12)
        return
    z, w = Directions(results, search._cohorts, search._noise), np.linspace(-1.0, 2.0, k)
    np.testing.assert_allclose(z.sum(w), w @ expected, atol=1e-12)
    np.testing.assert_allclose(z.squares(w), w @ (expected**2 - 1), atol=1e-12)


@pytest.mark.parametrize("use", ["openai-es", "pgpe", "snes"])
def test_sums_do_not_depend_on_how_coordinates_are_cut(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late ones, foreign ones and ones of today, in blocks of 7 coordinates and in one."""
    n, k, found = 40, 6, []
    for block in (7, 1000):
        monkeypatch.setattr(directions, "_BLOCK", block)
        search = searching(use, n)
        scale = search._now.scale
        old, now = Cohort(np.zeros(n), scale), Cohort(np.full(n, 0.01), 0.95 * scale)
        results = late_results(search, old, now, k)
        results[2] = replace(results[2], moved=True, vector=np.linspace(-0.2, 0.1, n))
        results[4:] = [replace(result, version=1) for result in results[4:]]
        z, w = Directions(results, search._cohorts, search._noise), np.arange(1.0, k + 1)
        found.append(np.concatenate([z.sum(w), z.squares(w)]))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10, atol=1e-13)


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
        float(np.median([excess(name, scales, seed, in_flight) for seed in range(1, 6)]))
        for name in (use, "random")
    )
    assert ours < 0.6 * random
