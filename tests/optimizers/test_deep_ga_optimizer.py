"""The genetic algorithm of noise keys: the conformance suite, its genomes, and how little it remembers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import plugins
from blackopt.artifacts.portable import draw
from blackopt.optimizers.deep_ga import DeepGA, DeepGAOptions
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, sphere, through_json
from blackopt.types import Evaluation, Status, Vector


class TestDeepGAConformance(OptimizerConformance):
    optimizer = DeepGA
    options: ClassVar[dict[str, Any]] = {"population": 24, "parents": 6}


def make(n: int = 3, **options: Any) -> DeepGA:
    space = Space.from_spec({"w": {"weights": n}})
    return DeepGA(space, space.start(), DeepGAOptions(seed=2, **options))


def turn(ga: DeepGA, count: int, loss: Any = sphere) -> None:
    ga.tell([Evaluation(c.number, loss(c.vector)) for c in ga.ask(count)])


def test_a_candidate_is_its_parent_and_one_noise_vector() -> None:
    """Theta_n = theta_(n-1) + sigma eps(tau_n), from the start on."""
    ga = make(population=6, parents=2, sigma=0.3)
    vectors: dict[int, Vector] = {}
    for _ in range(10):
        batch = ga.ask(6)
        for c in batch:
            parent = ga._parents[c.number]
            base = np.zeros(3) if parent < 0 else vectors[parent]
            step = 0.3 * draw(2, c.number, 3) * (c.number > 0)
            np.testing.assert_allclose(c.vector, base + step, rtol=0, atol=1e-15)
            vectors[c.number] = c.vector
        ga.tell([Evaluation(c.number, sphere(c.vector)) for c in batch])
    assert max(ga._parents.values()) > 6


def test_parents_are_the_best_of_the_latest() -> None:
    ga = make(population=4, parents=2)
    for loss in (-9.0, 5.0, 1.0, 3.0, 2.0):  # the first is too old
        turn(ga, 1, lambda _, loss=loss: loss)
    assert {ga._parents[c.number] for c in ga.ask(30)} == {2, 4}


def test_the_first_candidate_is_the_incumbent() -> None:
    np.testing.assert_array_equal(make().ask(1)[0].vector, np.zeros(3))


def test_the_state_does_not_grow_with_the_model_but_for_the_start() -> None:
    """Candidates in flight and the population are numbers; the start is the only vector."""
    sizes = {}
    for n in (10, 10_000):
        ga = make(n, population=20, parents=5)
        for _ in range(3):
            turn(ga, 20)
        ga.ask(50)
        state = ga.dump()
        assert state["start"].size == n
        sizes[n] = len(fingerprint({**state, "start": np.zeros(0)}))
    assert abs(sizes[10] - sizes[10_000]) < 0.2 * sizes[10]


def test_ancestors_without_living_descendants_are_forgotten() -> None:
    ga = make(population=20, parents=4)
    for _ in range(100):
        turn(ga, 20)
    assert len(ga._parents) < 350  # of 2,000: the living, and a trunk of about one for each generation


def test_what_was_tried_elsewhere_is_the_root_of_its_descendants() -> None:
    ga = make(population=4, parents=1, sigma=0.01)
    turn(ga, 3)
    [moved] = ga.ask(1)
    ga.tell([Evaluation(moved.number, -1.0, vector=np.full(3, 2.0))])
    again = DeepGA.load(ga.space, ga.options, through_json(ga.dump()))
    for one in (ga, again):
        np.testing.assert_allclose(np.stack([c.vector for c in one.ask(5)]), 2.0, atol=0.05)


def test_the_infeasible_does_not_breed_and_is_forgotten() -> None:
    ga = make(population=4, parents=2)
    ga.tell([Evaluation(c.number, None, status=Status.INFEASIBLE) for c in ga.ask(10)])
    assert ga._parents == {}


def test_it_trains_a_model_of_a_thousand_weights() -> None:
    ga = make(1000, population=50, parents=10, sigma=0.05)
    before = sphere(ga.recommend())
    for _ in range(60):
        turn(ga, 25)
    assert sphere(ga.recommend()) < 0.97 * before


def test_it_is_found_by_name() -> None:
    assert plugins.find("optimizers", "deep-ga") is DeepGA


@pytest.mark.parametrize("options", [{"parents": 50}, {"parents": 0}, {"population": 3}, {"sigma": 0}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DeepGAOptions.model_validate(options)
