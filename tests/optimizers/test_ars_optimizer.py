"""Augmented random search: the conformance suite, and one update of V1 and V1-t held to its equations."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt.optimizers.ars import ARS, ARSOptions, best
from blackopt.optimizers.base import Result
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance
from blackopt.types import Evaluation, Status

NU = 0.2


class TestARSConformance(OptimizerConformance):
    optimizer = ARS


class TestARSWithTopDirectionsConformance(OptimizerConformance):
    optimizer = ARS
    options: ClassVar[dict[str, Any]] = {"directions": 6, "top": 3}


def make(**options: Any) -> ARS:
    return ARS(Space.from_spec({"w": {"weights": 3}}), np.zeros(3), ARSOptions(sigma=NU, **options))


def curved(x: Any) -> float:
    return float(x @ np.array([1.0, 2.0, -3.0]) + 4 * x @ x)


@pytest.mark.parametrize("top", [None, 1, 3])
def test_one_update_is_the_papers(top: int | None) -> None:
    """Algorithm 1, lines 5 to 7: sort by max(r+, r-), divide by the deviation of the 2b rewards used."""
    search = make(directions=6, top=top, learning_rate=0.05)
    batch = search.ask(12)
    losses = np.array([curved(c.vector) for c in batch])
    search.tell([Evaluation(c.number, value) for c, value in zip(batch, losses, strict=True)])
    plus, minus, d = losses[::2], losses[1::2], np.stack([c.vector for c in batch[::2]]) / NU
    b = top or 6
    used = np.argsort(-np.maximum(-plus, -minus))[:b]
    spread = np.std(np.concatenate([plus[used], minus[used]]))
    step = -0.05 / (b * spread) * ((plus - minus)[used] @ d[used])
    np.testing.assert_allclose(search.recommend(), step, rtol=1e-10)


def test_the_difference_along_a_slope_has_its_closed_form() -> None:
    """E[(L+ - L-) d] = 2 nu g, and the losses' deviation is nu |g|: a step is 2 alpha along -g."""
    g = np.array([3.0, 0.0, -4.0])
    search = make(directions=20_000, learning_rate=0.5)
    search.tell([Evaluation(c.number, float(g @ c.vector)) for c in search.ask(40_000)])
    np.testing.assert_allclose(search.recommend(), -g / 5, atol=0.03)


def test_the_scale_and_the_level_of_the_losses_do_not_matter() -> None:
    centres = []
    for scale, level in ((1.0, 0.0), (1e6, -3.0)):
        search = make()
        search.tell([Evaluation(c.number, level + scale * curved(c.vector)) for c in search.ask(16)])
        centres.append(search.recommend())
    np.testing.assert_allclose(centres[0], centres[1], rtol=1e-6)


def test_an_update_is_due_when_both_results_of_all_directions_are_there() -> None:
    search = make(directions=2)
    batch = search.ask(10)
    plus, minus = batch[::2], batch[1::2]
    search.tell([Evaluation(c.number, curved(c.vector)) for c in [*plus, minus[0]]])
    assert search.ask(1)[0].version == 0
    search.tell([Evaluation(minus[1].number, curved(minus[1].vector))])
    assert search.ask(1)[0].version == 1
    before = search.recommend()
    search.tell([Evaluation(c.number, curved(c.vector)) for c in minus[2:4]])
    assert not np.array_equal(search.recommend(), before)  # late, from where the centre was


def test_a_direction_whose_twin_failed_says_nothing() -> None:
    with_half, without = make(directions=3), make(directions=3)
    for search in (with_half, without):
        *rest, half, other = search.ask(6)
        search.tell([Evaluation(c.number, curved(c.vector)) for c in rest])
        failed = [half, other] if search is without else [other]
        search.tell([Evaluation(c.number, None, status=Status.FAILED) for c in failed])
        if search is with_half:
            search.tell([Evaluation(half.number, -1e9)])
    np.testing.assert_array_equal(with_half.recommend(), without.recommend())


def test_the_best_directions_are_those_with_the_best_of_their_two_results() -> None:
    losses = [5.0, 1.0, 2.0, 2.0, np.inf, 0.0, np.nan, -9.0]
    results = [Result(i, 0, np.zeros(1), loss, None, 1.0, False) for i, loss in enumerate(losses)]
    told = [result for result in results if result.informative]
    assert [r.number for r in best(told, 1)] == [4, 5]
    assert [r.number for r in best(told, 2)] == [0, 1, 4, 5]
    assert best(told, 1)[0].loss == 10.0  # infeasible: a range above the worst
    assert best(told[6:], 1) == []


def test_directions_that_are_infeasible_on_both_sides_move_nothing() -> None:
    search = make(directions=2)
    search.tell([Evaluation(c.number, None, status=Status.INFEASIBLE) for c in search.ask(4)])
    np.testing.assert_array_equal(search.recommend(), 0.0)


def test_equal_losses_move_nothing() -> None:
    search = make(directions=2)
    search.tell([Evaluation(c.number, 0.1) for c in search.ask(4)])
    np.testing.assert_array_equal(search.recommend(), 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"directions": 0}, "greater than or equal to 1"), ({"directions": 2, "top": 3}, "at most directions"),
     ({"top": 0}, "greater than or equal to 1"), ({"learning_rate": 0.0}, "greater than 0")],
)  # fmt: skip
def test_impossible_options_of_ars_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ARSOptions(**options)
