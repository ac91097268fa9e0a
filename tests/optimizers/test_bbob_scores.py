"""How benchmarks/bbob.py scores a run, at the ends and in the middle of its scale."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.bbob import TARGETS, Difference, Function, Job, Run, by_instance, difference, lost, table
from benchmarks.noise_peers import Spent


def run_of(function: int = 1, dimension: int = 3, instance: int = 1, budget: int = 300) -> Run:
    return Run(Function(function, dimension, instance, budget))


def test_the_optimum_at_once_scores_one_and_nothing_scores_zero() -> None:
    found, nothing = run_of(), run_of()
    best = (np.asarray(found.problem._function.best_parameter()) + 5) / 10
    assert found.measure(best) == (found.problem.optimal, None)
    assert found.score() == 1.0
    assert nothing.score() == 0.0


def test_a_target_counts_by_the_logarithm_of_the_evaluation_that_reached_it() -> None:
    run = run_of()
    run.reached[:] = math.inf
    run.reached[0] = 30.0  # 10 d of 100 d evaluations: half of the way
    assert run.score() == pytest.approx(0.5 / len(TARGETS))
    run.reached[0] = 2.0  # within the first d: as good as at once
    assert run.score() == pytest.approx(1.0 / len(TARGETS))
    run.reached[0] = 300.0
    assert run.score() == pytest.approx(0.0)


def test_a_run_ends_with_its_budget_and_is_told_values_not_precisions() -> None:
    run = run_of(function=8, budget=2)
    value, se = run.measure(run.problem.start)
    assert se is None
    assert value > run.problem.optimal != 0.0
    run.measure(run.problem.start)
    with pytest.raises(Spent):
        run.measure(run.problem.start)


def test_instances_differ_in_start_and_optimum_and_the_start_lies_inside() -> None:
    one, two = Function(3, 4, 1, 10), Function(3, 4, 2, 10)
    assert not np.array_equal(one.start, two.start)
    assert one.optimal != two.optimal
    assert np.all((one.start >= 0.1) & (one.start <= 0.9))
    assert np.array_equal(one.start, Function(3, 4, 1, 99).start)


def test_differences_compare_only_what_both_ran() -> None:
    def job(name: str, function: int, instance: int) -> Job:
        return Job(name, function, 2, 100, instance)

    found = {
        job("cma-es", 1, 1): 0.5,
        job("cma", 1, 1): 0.4,
        job("cma-es", 2, 1): 0.2,
        job("cma", 2, 1): 0.3,
        job("cma-es", 3, 1): 0.9,
    }
    both = difference(found, "cma-es", "cma", 100)
    assert both is not None
    assert both.mean == pytest.approx(0.0)
    assert both.se == pytest.approx(0.1)
    assert difference(found, "cma-es", "NGOpt", 100) is None
    assert by_instance(list(found.items())) == {1: pytest.approx(0.46)}
    rows = {row.name: row for row in table(found)}
    assert rows["cma-es"].score == pytest.approx(1.6 / 3)
    assert rows["cma-es"].groups == {"separable": pytest.approx(1.6 / 3)}


def test_what_lost_is_said_by_dimension_and_by_group() -> None:
    separable, moderate = 1, 7
    scores = {
        ("auto", separable): 0.5,
        ("cma", separable): 0.4,
        ("auto", moderate): 0.1,
        ("cma", moderate): 0.3,
    }
    rows = table({Job(name, function, 2, 100, 1): score for (name, function), score in scores.items()})
    assert lost(rows, [Difference("auto", "cma", 100, -0.05, None)]) == [
        "`auto` is below cma by 0.050 at 100 d evaluations.",
        "`auto` is below cma by 0.050 in 2 dimensions at 100 d evaluations.",
        "`auto` is below the best peer on some groups: moderate in 2 dimensions (cma, 0.200).",
    ]
    assert not lost([row for row in rows if row.name == "auto"], [])


@pytest.mark.parametrize(
    ("mean", "se", "large"), [(0.019, 0.001, False), (0.05, 0.01, True), (-0.05, 0.02, False)]
)
def test_a_difference_is_too_large_beyond_its_error_and_what_matters(
    mean: float, se: float, large: bool
) -> None:
    assert Difference("cma-es", "cma", 100, mean, se).too_large is large


def test_a_real_run_of_a_peer_and_of_ours_reaches_something() -> None:
    scores = {name: Job(name, 1, 2, 30, 1).run() for name in ("cma", "cma-es", "chance")}
    assert min(scores["cma"], scores["cma-es"]) > scores["chance"] > 0, scores
