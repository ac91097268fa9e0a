"""The quadratic trust region: the conformance suite, and what it is for: noise, lateness, a wrong sigma,
bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from blackopt.optimizers.surrogate import Surrogate, SurrogateOptions
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance
from blackopt.types import Candidate, Evaluation, Status


class TestSurrogateConformance(OptimizerConformance):
    optimizer = Surrogate
    options: ClassVar[dict[str, Any]] = {"remember": 100}


class TestSurrogateThatRemembersAllConformance(OptimizerConformance):
    optimizer = Surrogate
    options: ClassVar[dict[str, Any]] = {"remember": 300}


def space(n: int) -> Space:
    return Space.from_spec({"w": {"weights": n}})


def search(where: Space, *, start: np.ndarray | None = None, **options: Any) -> Surrogate:
    return Surrogate(where, where.start() if start is None else start, SurrogateOptions(**options))


def regret(
    optimizer: Surrogate, loss: Callable[[np.ndarray], float], noise: float, budget: int, *, flying: int = 1
) -> float:
    """Loss of the recommendation, as a part of the start's, after so many noisy results in random order."""
    rng = np.random.default_rng(1)
    waiting: list[Candidate] = []
    start = loss(optimizer.recommend())
    for _ in range(budget):
        waiting += optimizer.ask(flying - len(waiting))
        one = waiting.pop(int(rng.integers(len(waiting))))
        optimizer.tell([Evaluation(one.number, loss(one.vector) + noise * start * rng.normal())])
    return loss(optimizer.recommend()) / start


def bowl(x: np.ndarray) -> float:
    return float(((x - 1.0) ** 2 * np.linspace(1.0, 5.0, x.size)).sum())


def test_noise_as_large_as_the_signal_and_sixteen_in_flight() -> None:
    assert regret(search(space(5), sigma=1.0), bowl, 1.0, 300, flying=16) < 0.1


@pytest.mark.parametrize("sigma", [0.1, 10.0])
def test_a_sigma_that_is_wrong_by_ten_is_put_right(sigma: float) -> None:
    assert regret(search(space(5), sigma=sigma), bowl, 0.3, 300, flying=16) < 0.1


def test_a_sigma_ten_times_too_small_is_put_right_under_noise_as_large_as_the_signal() -> None:
    """Within the first spread a candidate differs from the start by a tenth of the noise."""
    reached = [regret(search(space(5), sigma=0.1, seed=seed), bowl, 1.0, 400, flying=16) for seed in range(5)]
    assert sorted(reached)[2] < 0.2


def test_a_bent_ridge_is_followed() -> None:
    def ridge(x: np.ndarray) -> float:
        bent = x[1:] - 0.3 * x[:-1] ** 2
        return float((x[0] - 1.5) ** 2 + 10 * (bent**2).sum() + 1e-9)

    assert regret(search(space(3), sigma=1.0), ridge, 0.1, 300) < 0.2


def test_what_only_the_noise_recommends_is_not_recommended() -> None:
    """Seven of eight searches of nothing at least stay where they are."""
    moved = 0
    for seed in range(8):
        optimizer, rng = search(space(4), sigma=1.0, seed=seed), np.random.default_rng(seed)
        for _ in range(60):
            (one,) = optimizer.ask(1)
            optimizer.tell([Evaluation(one.number, float(rng.normal()))])
        moved += bool(np.any(optimizer.recommend() != 0))
    assert moved <= 1


def test_twins_lie_on_opposite_sides_and_pairs_are_orthogonal() -> None:
    optimizer = search(space(4), sigma=1.0)
    x = np.stack([c.vector for c in optimizer.ask(16)])
    np.testing.assert_array_equal(x[::2], -x[1::2])
    np.testing.assert_array_equal(x[0], 0.0)  # the start itself
    directions = x[8::2] / np.linalg.norm(x[8::2], axis=1, keepdims=True)
    np.testing.assert_allclose(directions @ directions.T, np.eye(4), atol=1e-12)


def test_a_start_on_a_bound_gets_candidates_inside_and_not_on_it() -> None:
    box = Space.from_spec({f"x{j}": {"float": [0, 1], "start": 0.0} for j in range(3)})
    x = np.stack([c.vector for c in search(box).ask(60)[2:]])
    drawn = x[np.any(x != 0, axis=1)]
    assert len(drawn) > 50
    assert np.all((drawn > 0) & (drawn < 1))


def test_an_optimum_on_the_bounds_is_recommended_there() -> None:
    box = Space.from_spec({f"x{j}": {"float": [0, 1]} for j in range(4)})
    optimizer = search(box, seed=3)
    for _ in range(120):
        (one,) = optimizer.ask(1)
        optimizer.tell([Evaluation(one.number, float(one.vector.sum()))])
    np.testing.assert_allclose(optimizer.recommend(), 0.0, atol=1e-9)


def test_integers_and_choices_are_learnt_from_what_was_really_tried() -> None:
    mixed = Space.from_spec(
        {"k": {"int": [1, 6]}, "mode": {"choice": ["a", "b", "c"]}, "x": {"float": [0, 1]}}
    )
    optimizer, rng = search(mixed), np.random.default_rng(0)

    def loss(vector: np.ndarray) -> float:
        values = mixed.decode(vector)
        k, mode, x = values["k"], values["mode"], values["x"]
        assert isinstance(k, int)
        assert isinstance(x, float)
        return 0.1 * (k - 5) ** 2 + (mode != "c") + (x - 0.2) ** 2

    for _ in range(200):
        (one,) = optimizer.ask(1)
        optimizer.tell([Evaluation(one.number, loss(one.vector) + 0.1 * rng.normal())])
    values = mixed.decode(optimizer.recommend())
    assert (values["k"], values["mode"]) in {(5, "c"), (4, "c"), (6, "c")}


def test_the_narrowest_spread_still_changes_an_integer() -> None:
    ints = Space.from_spec({f"k{j}": {"int": [1, 4]} for j in range(3)})
    tried = {c.vector.tobytes() for c in search(ints, sigma=1e-4).ask(40)}
    assert len({str(ints.decode(np.frombuffer(v))) for v in tried}) > 3


def test_reported_standard_errors_weigh_the_results() -> None:
    """Results that say of themselves how bad they are do less harm: the start's share of the loss that
    remains is smaller with them than without, over ten searches."""
    remaining = []
    for known in (True, False):
        logs = []
        for seed in range(10):
            optimizer, rng = search(space(4), sigma=1.0, seed=seed), np.random.default_rng(seed)
            for _ in range(80):
                (one,) = optimizer.ask(1)
                se = float(10 ** rng.uniform(-1, 1)) * 4
                value = bowl(one.vector) + se * rng.normal()
                optimizer.tell([Evaluation(one.number, value, se=se if known else None)])
            logs.append(np.log(bowl(optimizer.recommend())))
        remaining.append(np.mean(logs))
    assert remaining[0] < remaining[1] - 0.3


def test_infeasible_results_are_avoided_and_not_taken_for_outliers() -> None:
    optimizer = search(space(2), sigma=1.0)
    for _ in range(150):
        (one,) = optimizer.ask(1)
        bad = one.vector[0] > 0.8
        loss = None if bad else bowl(one.vector)
        optimizer.tell([Evaluation(one.number, loss, status=Status.INFEASIBLE if bad else Status.OK)])
    found = optimizer.recommend()
    assert found[0] < 0.8
    assert bowl(found) < 0.5 * bowl(np.zeros(2))


def test_equal_losses_far_out_draw_the_search_in() -> None:
    optimizer = search(space(3), sigma=1.0)
    first = np.abs([c.vector for c in optimizer.ask(40)]).max()
    optimizer.tell([Evaluation(number, 1.0) for number in range(40)])
    assert np.abs([c.vector for c in optimizer.ask(40)]).max() < 0.5 * first


def test_losses_that_stay_equal_do_not_draw_it_in_for_ever() -> None:
    optimizer = search(space(3), sigma=1.0)
    for _ in range(60):
        optimizer.tell([Evaluation(c.number, 1.0) for c in optimizer.ask(8)])
    assert np.abs([c.vector for c in optimizer.ask(8)]).max() > 1e-4
    np.testing.assert_array_equal(optimizer.recommend(), 0.0)


def test_a_loss_without_a_minimum_is_followed_and_breaks_nothing() -> None:
    optimizer = search(space(2), sigma=1.0)
    for _ in range(120):
        optimizer.tell([Evaluation(c.number, -float(c.vector[0])) for c in optimizer.ask(8)])
    assert 1e3 < optimizer.recommend()[0] < 1e9


def test_a_heavy_outlier_moves_the_recommendation_by_little() -> None:
    recommended = []
    for outlier in (0.0, 1e6):
        optimizer = search(space(3), sigma=1.0)
        rng = np.random.default_rng(0)
        for turn in range(100):
            (one,) = optimizer.ask(1)
            value = bowl(one.vector) + 0.3 * rng.normal() + (outlier if turn == 70 else 0.0)
            optimizer.tell([Evaluation(one.number, value)])
        recommended.append(bowl(optimizer.recommend()))
    assert max(recommended) < 0.15 * bowl(np.zeros(3))


def plateau(x: np.ndarray) -> float:
    """1 far out; the start, at two squared units from the optimum, lies on its shoulder."""
    return 1.0 - float(np.exp(-((x - 1.0) ** 2).mean() * 2))


def test_on_a_plateau_the_search_does_not_run_away() -> None:
    """Ten weights without bounds, noise a third of the signal: the start is on an edge, all else is flat."""
    optimizer = search(space(10), sigma=1.0)
    assert regret(optimizer, plateau, 0.3, 400, flying=16) < 0.6
    assert np.abs(optimizer.recommend()).max() < 4
    assert np.abs([c.vector for c in optimizer.ask(32)]).max() < 12


def test_it_says_what_its_recommendation_is_worth() -> None:
    """Ten searches of a bowl: what is stated as 95 % holds nine times or more; the start is worth nothing."""
    inside = 0
    for seed in range(10):
        optimizer, rng = search(space(3), sigma=1.0, seed=seed), np.random.default_rng(seed)
        assert optimizer.belief().improvement.value == 0.0
        assert optimizer.belief().probability == 1.0
        for _ in range(80):
            (one,) = optimizer.ask(1)
            optimizer.tell([Evaluation(one.number, bowl(one.vector) + 3 * rng.normal())])
        belief = optimizer.belief()
        gain, se = belief.improvement.value, belief.improvement.se
        assert se is not None
        assert gain >= se >= gain / 4
        assert 0.84 < belief.probability <= 1
        better = bowl(np.zeros(3)) - bowl(optimizer.recommend())
        inside += abs(gain - better) <= 1.96 * se
    assert inside >= 9


def bent(x: np.ndarray) -> float:
    """A bent ridge: far from the start no quadratic at all."""
    return float((x[0] - 1.5) ** 2 + 10 * ((x[1:] - 0.3 * x[:-1] ** 2) ** 2).sum())


@pytest.mark.parametrize(("loss", "n", "noise", "sigma"), [(bent, 5, 10.0, 1.0), (plateau, 10, 0.1, 0.3)])
def test_what_it_says_holds_where_losses_are_no_quadratic(
    loss: Callable[[np.ndarray], float], n: int, noise: float, sigma: float
) -> None:
    """A quadratic is too low in the middle of a bent ridge, and too high in a plateau's hollow."""
    inside = stated = 0
    for seed in range(10):
        optimizer, rng = search(space(n), sigma=sigma, seed=seed), np.random.default_rng(seed)
        for _ in range(200):
            (one,) = optimizer.ask(1)
            optimizer.tell([Evaluation(one.number, loss(one.vector) + noise * rng.normal())])
        improvement = optimizer.belief().improvement
        better = loss(np.zeros(n)) - loss(optimizer.recommend())
        assert improvement.se is not None
        stated += improvement.se > 0
        inside += 0 < abs(improvement.value - better) <= 1.96 * improvement.se
    assert stated >= 8
    assert inside >= stated - 1
