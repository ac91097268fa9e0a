"""OpenAI-ES: the conformance suite, twins, and the weights of late results."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import noise
from blackopt.optimizers.base import NOWHERE, Result
from blackopt.optimizers.directions import Cohort
from blackopt.optimizers.openai_es import OpenAIES, OpenAIESOptions
from blackopt.optimizers.shaping import centred_ranks
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, sphere
from blackopt.types import Evaluation, Status, Vector

SIGMA = 0.1


class TestOpenAIESConformance(OptimizerConformance):
    optimizer = OpenAIES


class TestOpenAIESWithAdamConformance(OptimizerConformance):
    optimizer = OpenAIES
    options: ClassVar[dict[str, Any]] = {"step": "adam", "population": 12, "learning_rate": 0.03}


class TestOpenAIESWithMomentumConformance(OptimizerConformance):
    optimizer = OpenAIES
    options: ClassVar[dict[str, Any]] = {"step": "momentum", "population": 8}


class TestOpenAIESWithClipUpConformance(OptimizerConformance):
    optimizer = OpenAIES
    options: ClassVar[dict[str, Any]] = {"step": "clipup", "population": 10}


def weights_space(n: int) -> Space:
    return Space.from_spec({"w": {"weights": n}})


def make(n: int = 3, **options: Any) -> OpenAIES:
    return OpenAIES(weights_space(n), np.zeros(n), OpenAIESOptions(**options))


def estimate(loss: Any, count: int, drawn_at: Vector, now: Vector, se: Any = None) -> Vector:
    """The gradient that is followed from ``now``, of a loss that was evaluated at ``count`` candidates around
    ``drawn_at``."""
    n = drawn_at.size
    es = make(n, sigma=SIGMA)
    old = Cohort(drawn_at, np.array([SIGMA]))
    fresh = np.array_equal(drawn_at, now)
    es._cohorts = {0: old} if fresh else {0: old, 1: Cohort(now, old.scale)}
    es._updates = 0 if fresh else 1
    losses = [loss(old.place(es._noise.draw(number, n))) for number in range(count)]
    for each in losses:
        es._known.add(0, each)
    results = [Result(i, 0, NOWHERE, losses[i], se and se[i], 1.0, False) for i in range(count)]
    w, epsilon = es._weigh(results, centred_ranks)
    return epsilon.sum(w) / SIGMA


def test_the_gradient_of_a_linear_loss_has_its_closed_form() -> None:
    """With ranks, u = Phi(z) - 1/2 for z along the slope, and by Stein's lemma E[u z] = E[phi(z)] = 1 / (2
    sqrt(pi))."""
    slope = np.array([3.0, 0.0, -4.0])
    g = estimate(lambda x: float(slope @ x), 20_000, np.ones(3), np.ones(3))
    np.testing.assert_allclose(g * SIGMA, slope / 5 / (2 * np.sqrt(np.pi)), atol=0.006)


def test_the_gradient_at_the_bottom_of_a_quadratic_is_exactly_zero() -> None:
    """Twins tie there, whatever the perturbations: what one pushes the other pulls."""
    g = estimate(lambda x: float(x @ x), 16, np.zeros(3), np.zeros(3))
    np.testing.assert_allclose(g, 0.0, atol=1e-15)


def test_late_results_give_the_gradient_where_they_were_drawn_times_what_they_count_for() -> None:
    """In four coordinates, half a standard deviation away is near, and two are four times as far."""
    at = np.array([0.2, 0.0, -0.1, 0.0])
    fresh, near, far = (
        estimate(lambda x: float(x @ x), 100, at, at + d * SIGMA * np.array([0.6, 0.0, 0.0, 0.8]))
        for d in (0.0, 0.5, 2.0)
    )
    np.testing.assert_array_equal(near, fresh)
    np.testing.assert_allclose(far, fresh / 4, rtol=1e-9)


def test_noise_that_twins_share_cancels_even_where_their_errors_differ() -> None:
    """Four results, of two pairs, with the same loss within a pair."""
    losses = iter([1.0, 1.0, 0.0, 0.0])
    g = estimate(lambda _: next(losses), 4, np.zeros(3), np.zeros(3), se=(0.1, 5.0, 0.3, 0.2))
    np.testing.assert_allclose(g, 0.0, atol=1e-14)


def test_twins_are_antithetic_and_other_pairs_differ() -> None:
    a, b, c, _ = (candidate.vector for candidate in make().ask(4))
    np.testing.assert_array_equal(a, -b)
    assert not np.any(a == c)


def test_a_constant_loss_moves_nothing() -> None:
    es = make(population=8)
    for _ in range(5):
        es.tell([Evaluation(c.number, 1.0) for c in es.ask(8)])
    np.testing.assert_allclose(es.recommend(), 0.0, atol=1e-15)


def test_one_result_in_an_update_moves_nothing() -> None:
    """A rank among one is no rank; it does not divide by zero either."""
    es = make(population=2)
    first, second = es.ask(2)
    es.tell([Evaluation(first.number, 1.0), Evaluation(second.number, None, status=Status.FAILED)])
    assert np.all(es.recommend() == 0)


def test_an_update_is_due_when_a_population_has_finished_whatever_is_still_out() -> None:
    es = make(population=8)
    candidates = es.ask(40)
    for done, candidate in enumerate(candidates[::-1][:32], start=1):
        failed = done % 4 == 0  # failures count as finished
        es.tell([Evaluation(candidate.number, None if failed else sphere(candidate.vector),
                            status=Status.FAILED if failed else Status.OK)])  # fmt: skip
        assert es.ask(1)[0].version == done // 8


def test_a_result_that_comes_after_its_cohort_was_used_still_counts() -> None:
    without, within = make(population=4), make(population=4)
    for es in (without, within):
        first = es.ask(6)
        es.tell([Evaluation(c.number, sphere(c.vector)) for c in first[:4]])
        second = es.ask(2)
        late = Status.OK if es is within else Status.VOID
        es.tell([Evaluation(c.number, sphere(c.vector), status=late) for c in first[4:]])
        es.tell([Evaluation(c.number, sphere(c.vector)) for c in second])
    assert not np.array_equal(without.recommend(), within.recommend())


def test_old_cohorts_are_forgotten_when_nothing_of_theirs_is_out() -> None:
    es = make(population=4)
    (straggler,) = es.ask(1)
    for _ in range(50):
        es.tell([Evaluation(c.number, sphere(c.vector)) for c in es.ask(4)])
    assert es.dump()["memory"]["cohorts"]["version"].tolist() == [0, 50]
    es.tell([Evaluation(c.number, sphere(c.vector)) for c in [straggler, *es.ask(7)]])
    assert 0 not in es.dump()["memory"]["cohorts"]["version"]


def test_a_noisier_result_counts_less() -> None:
    """The pair that disagrees loses when its errors are large."""

    def first_step(se: float) -> Vector:
        es = make(n=1, population=4)
        pairs = es.ask(4)
        up, other = pairs[:2], pairs[2:]
        es.tell([Evaluation(c.number, float(c.vector[0]), se=0.01) for c in up])
        es.tell([Evaluation(c.number, -float(c.vector[0]), se=se) for c in other])
        return es.recommend()

    assert first_step(1.0)[0] < first_step(0.01)[0]


def test_weight_decay_pulls_unbounded_coordinates_to_zero_and_leaves_bounded_ones() -> None:
    space = Space.from_spec({"x": {"float": [0, 1]}, "w": {"weights": 1}})
    es = OpenAIES(
        space, np.array([0.4, 2.0]), OpenAIESOptions(weight_decay=0.5, learning_rate=0.1, population=4)
    )
    es.tell([Evaluation(c.number, 1.0) for c in es.ask(4)])
    np.testing.assert_allclose(es.recommend(), [0.4, 2.0 - 0.1 * 0.5 * 2.0], rtol=1e-12)


def test_a_restart_neither_repeats_perturbations_nor_restarts_the_step_rule() -> None:
    """A process for every update takes the path of one process for all."""
    options = OpenAIESOptions(population=4, step="adam", seed=18)
    running = OpenAIES(weights_space(3), np.zeros(3), options)
    state = running.dump()
    seen: set[bytes] = set()
    for _ in range(12):
        fresh = OpenAIES.load(weights_space(3), options, state)
        centre = fresh.recommend()
        for es in (running, fresh):
            candidates = es.ask(4)
            es.tell([Evaluation(c.number, sphere(c.vector)) for c in candidates])
        seen |= {np.round(c.vector - centre, 9).tobytes() for c in candidates}
        state = fresh.dump()
        assert fingerprint(state) == fingerprint(running.dump())
    assert len(seen) == 48


def test_more_parameters_than_any_table_of_noise() -> None:
    n = 200_000
    es = make(n=n, population=2)
    a, b = es.ask(2)
    assert len(np.unique(a.vector.reshape(-1, 2), axis=0)) > 0.99 * n / 2  # nothing comes twice
    es.tell([Evaluation(a.number, 1.0), Evaluation(b.number, 2.0)])
    assert es.recommend() @ a.vector > 0


@pytest.mark.parametrize("n", [2, 10, 30])
def test_the_defaults_converge_under_noise(n: int) -> None:
    """From a quarter of the range off in each coordinate, with noise a tenth of what the start loses."""
    space = Space.from_spec({f"x{i}": {"float": [0, 1]} for i in range(n)})
    target = 0.5 + 0.25 * np.sign(noise.normal(1, "test/target", 0, n))
    es = OpenAIES(space, space.start(), OpenAIESOptions(seed=5))
    for _ in range(50):
        batch = es.ask(16)
        error = [float(noise.normal(2, "test/error", c.number, 1)[0]) for c in batch]
        es.tell([Evaluation(c.number, float(np.mean((c.vector - target) ** 2)) / 0.25**2 + 0.1 * e)
                 for c, e in zip(batch, error, strict=True)])  # fmt: skip
    assert float(np.mean((es.recommend() - target) ** 2)) / 0.25**2 < 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "greater than 0"),
        ({"sigma": float("nan")}, "sigma"),
        ({"population": 7}, "population must be even, because candidates come in twins: try 8"),
        ({"population": 0}, "greater than or equal to 2"),
        ({"momentum": 1.0}, "less than 1"),
        ({"step": "rmsprop"}, "'sgd', 'momentum', 'adam' or 'clipup'"),
        ({"lr": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OpenAIESOptions(**options)
