"""Each fault is one that a third party could make; the suite must fail on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from blackopt import noise
from blackopt.optimizers.ga import GA
from blackopt.optimizers.random import Random
from blackopt.testing.optimizers import OptimizerConformance, through_json
from blackopt.types import Evaluation, State, Vector


class GloballyRandom(Random):
    def _draw(self, number: int) -> Vector:
        return np.random.rand(self.space.size)  # noqa: NPY002  (the fault)


class DeafToTheSeed(Random):
    def _draw(self, number: int) -> Vector:
        return noise.uniform(0, "fault", number, self.space.size)


class PartlyApplied(Random):
    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in evaluations:
            super().tell([evaluation])


class Forgetful(GA):
    def _memory(self) -> State:
        memory = super()._memory()
        memory["population"] = {column: rows[:3] for column, rows in memory["population"].items()}
        return memory


class SharedCentre(GA):
    def recommend(self) -> Vector:
        return self._start


class Hoarding(Random):
    def _learn(self, result: Any) -> None:
        self._told.append(result)


class Stuck(Random):
    def recommend(self) -> Vector:
        return self._start.copy()


class OutOfBounds(Random):
    def recommend(self) -> Vector:
        return self._start + 1.0


class LearnsFromFailures(Random):
    def _learn(self, result: Any) -> None:
        self._start = np.clip(self._start + 0.01, self.space.lower, self.space.upper)


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        (GloballyRandom, "test_global_random_state_is_neither_read_nor_written"),
        (GloballyRandom, "test_a_dump_continues_bit_for_bit"),
        (DeafToTheSeed, "test_the_seed_decides"),
        (PartlyApplied, "test_what_was_never_asked_is_refused"),
        (PartlyApplied, "test_what_was_told_before_is_refused"),
        (PartlyApplied, "test_impossible_numbers_are_refused"),
        (Forgetful, "test_a_dump_continues_bit_for_bit"),
        (SharedCentre, "test_nothing_is_shared_with_the_outside"),
        (Hoarding, "test_a_dump_does_not_grow_with_what_was_told"),
        (Stuck, "test_it_minimises"),
        (Stuck, "test_infeasible_is_worse_than_everything"),
        (OutOfBounds, "test_everything_stays_inside_the_bounds"),
        (LearnsFromFailures, "test_failures_say_nothing"),
    ],
)
def test_the_suite_fails_on(fault: type[Any], test: str) -> None:
    suite = OptimizerConformance()
    suite.__class__ = type("Suite", (OptimizerConformance,), {"optimizer": fault})
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(suite, test)()


@pytest.mark.parametrize("value", [np.float64(1.0), (1, 2), np.array([None]), {1: 2}, object(), b"bytes"])
def test_a_state_holds_nothing_but_plain_values_and_numeric_arrays(value: object) -> None:
    with pytest.raises(TypeError):
        through_json({"memory": value})
