"""What benchmarks/delay.py reckons with."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.delay import Arrival, Flight, World, ert, had_effect, makespan
from benchmarks.noise_problems import Configuration, Problem, Vector


class Picky:
    """Asks for what it was told last, and uses every other result only."""

    batch = 2

    def __init__(self) -> None:
        self._told, self._last = 0, 0.5

    def ask(self) -> tuple[None, Vector]:
        return None, np.full(2, self._last + 1e-6 * self._told)

    def tell(self, asked: None, loss: float, se: float | None) -> None:
        self._told += 1
        if self._told % 2:
            self._last = float(np.tanh(loss))

    def recommend(self) -> Vector:
        return np.full(2, self._last)


def test_results_are_told_when_they_end_and_lost_ones_never() -> None:
    problem = Problem(Configuration("sphere", 2, 0.1, 4, 1.0, "floats", 40), 0)
    world = World(problem, 0, "log-normal")
    flight = Flight(Picky(), world, 4)
    times = [0.0]
    for _ in range(100):
        flight.step()
        times.append(flight.now)
    assert times == sorted(times)
    assert 0 < flight.finished - flight.told < 20
    assert flight.told == len(flight.losses)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_only_results_that_change_a_candidate_have_an_effect() -> None:
    problem = Problem(Configuration("sphere", 2, 0.1, 1, 1.0, "floats", 40), 0)
    flight = Flight(Picky(), World(problem, 0, "FIFO"), 1)
    found = []
    while flight.told < 30:
        if flight.told >= 10 and not flight.next_is_lost:
            found.append((flight.told % 2 == 0, had_effect(flight, 1)))
        flight.step()
    assert len(found) == 20
    assert all(used == seen for used, seen in found)


def test_tasks_wait_for_the_first_worker_that_is_free() -> None:
    assert makespan(np.array([3.0, 1.0, 1.0, 1.5]), 2) == 3.5
    assert makespan(np.array([3.0, 1.0]), 16) == 3.0


def test_expected_running_time_counts_what_was_spent_in_vain() -> None:
    runs = [Arrival(True, 100, 1.0, 1.0), Arrival(False, 800, 1.0, 1.0)]
    alone, both = ert({"a": runs}, "evaluations"), ert({"a": runs, "b": runs[1:]}, "evaluations")
    assert [alone.value, both.value] == pytest.approx([900.0, (900 * 800) ** 0.5])
    assert [alone.least, both.least] == [False, True]
    assert str(ert({"b": runs[1:]}, "evaluations")) == ">800"
