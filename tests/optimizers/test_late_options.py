"""The option ``late`` of the searches around a Gaussian: weights, shift, discard."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import plugins
from blackopt.optimizers.directions import Cohort
from blackopt.space import Space
from blackopt.types import Evaluation, Status, Vector

SEARCHES = ("openai-es", "pgpe", "snes", "xnes", "ars")
WAYS = ("weights", "shift", "discard")
N = 20
NEAR = 0.25 * math.sqrt(N)  # standard deviations that the centre may go


def search(use: str, n: int = N, **options: Any) -> Any:
    found = plugins.find("optimizers", use)
    size = {"directions": 4} if use == "ars" else {"population": 8}
    return found(Space.from_spec({"w": {"weights": n}}), np.zeros(n), found.Options(**size, **options))


def loss(vector: Vector) -> float:
    return float(np.sum((vector - 1.0) ** 2))


def tell(made: Any, candidates: Any) -> None:
    made.tell([Evaluation(c.number, loss(c.vector)) for c in candidates])


def after_a_late_cohort(use: str, late: str, gone: float = 1.0) -> tuple[Vector, Vector, Any]:
    """Eight results are told, and eight more of the same cohort when the centre has gone this many standard
    deviations."""
    made = search(use, late=late)
    first, second = made.ask(8), made.ask(8)
    tell(made, first)
    scale = made._now.scale
    along = np.full(N, gone / math.sqrt(N))
    made._cohorts[1] = Cohort(Cohort(made._cohorts[0].centre, scale).place(along), scale)
    before = made.recommend()
    tell(made, second)
    return before, made.recommend(), made


@pytest.mark.parametrize("use", SEARCHES)
def test_what_is_not_late_counts_the_same_in_all_three_ways(use: str) -> None:
    found = []
    for late in WAYS:
        made = search(use, late=late)
        for _ in range(3):
            tell(made, made.ask(8))
        found.append(made.recommend())
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("use", [use for use in SEARCHES if use != "pgpe"])
def test_a_late_step_is_whole_while_the_centre_is_near_and_then_as_much_shorter_as_it_is_further(
    use: str,
) -> None:
    for gone, count in ((0.999 * NEAR, 1.0), (2 * NEAR, 0.5), (10 * NEAR, 0.1)):
        moved = {}
        for late in WAYS:
            before, after, _ = after_a_late_cohort(use, late, gone)
            moved[late] = after - before
        assert np.linalg.norm(moved["shift"]) > 0
        np.testing.assert_allclose(moved["weights"], count * moved["shift"], rtol=1e-6, atol=1e-12)
        np.testing.assert_array_equal(moved["discard"], 0.0)


def test_beside_present_results_late_ones_turn_the_step_of_pgpe_less() -> None:
    """Its steps have one length, so what its results count for shows in their direction."""
    turned = {}
    for late in WAYS:
        made = search("pgpe", late=late)
        first, second = made.ask(8), made.ask(4)
        tell(made, first)
        made._cohorts[1].centre += 4 * NEAR / math.sqrt(N) * made._now.scale
        fresh, before = made.ask(4), made.recommend()
        tell(made, [*second, *fresh])
        step = made.recommend() - before
        turned[late] = step / np.linalg.norm(step)
    assert turned["discard"] @ turned["shift"] < turned["discard"] @ turned["weights"] < 1 - 1e-6


def test_pgpe_keeps_as_much_of_its_momentum_as_its_results_count_for() -> None:
    """Four times as far as is near: a quarter of it."""
    made = search("pgpe", momentum=0.8, max_speed=1e3, learning_rate=1e-9)
    first, second = made.ask(8), made.ask(8)
    tell(made, first)
    made._cohorts[1].centre += 4 * NEAR / math.sqrt(N) * made._now.scale
    made._rule.velocity = np.linspace(1.0, 2.0, N)
    before = made.recommend()
    tell(made, second)
    np.testing.assert_allclose(before - made.recommend(), 0.2 * np.linspace(1.0, 2.0, N), rtol=1e-6)


def test_a_late_step_is_taken_with_the_present_spread() -> None:
    """However wide the distribution was that drew it."""
    made = search("snes")
    first, second = made.ask(8), made.ask(8)
    tell(made, first)
    made._cohorts[1] = Cohort(made._cohorts[0].centre, made._cohorts[0].scale / 1000)
    before, spread = made.recommend(), made._now.scale
    tell(made, second)
    assert 0 < np.linalg.norm((made.recommend() - before) / spread) < 3 * math.sqrt(N)


def test_a_late_result_is_scored_among_its_own_cohort() -> None:
    """The step is that of its rank among all of those that are known, used ones included."""
    made = search("openai-es", sigma=0.2, learning_rate=0.04)
    first, second = made.ask(8), made.ask(8)
    tell(made, first)
    m = made.recommend()
    losses = np.array([loss(c.vector) for c in second])
    cohort = np.sort(np.concatenate([[loss(c.vector) for c in first], losses]))
    scores = np.searchsorted(cohort, losses) / (cohort.size - 1) - 0.5
    epsilon = np.array([c.vector / 0.2 for c in second])
    tell(made, second)
    expected = m - 0.04 * (scores @ epsilon) / (8 * 0.2)
    np.testing.assert_allclose(made.recommend(), expected, rtol=1e-9)


@pytest.mark.parametrize("use", ["openai-es", "pgpe", "snes", "xnes"])
def test_the_only_known_result_of_a_cohort_has_an_effect(use: str) -> None:
    """It is scored among the losses of the cohort before it."""
    found = []
    for value in (-1e3, 1e3):
        made = search(use)
        first = made.ask(8)
        tell(made, first[:8])
        alone, failing = made.ask(1), made.ask(7)
        made.tell([Evaluation(alone[0].number, value)])
        made.tell([Evaluation(c.number, None, status=Status.FAILED) for c in failing])
        found.append(made.recommend())
    assert np.linalg.norm(found[0] - found[1]) > 1e-3


@pytest.mark.parametrize("use", SEARCHES)
def test_an_update_of_discarded_results_alone_is_none(use: str) -> None:
    """Otherwise what is in flight would be late for ever, and nothing would ever be learnt."""
    _, still, made = after_a_late_cohort(use, "discard")
    assert made.ask(1)[0].version == 1
    fresh = made.ask(9)
    tell(made, fresh[-8:] if fresh[1].number % 2 == 0 else fresh[:8])
    assert made.ask(1)[0].version == 2
    assert np.linalg.norm(made.recommend() - still) > 0


def test_discarded_results_count_as_finished() -> None:
    """Half a population moves the centre half as far; its ranks are those among its own and the last."""
    made = search("openai-es", late="discard")
    first, late = made.ask(8), made.ask(4)
    tell(made, first)
    m, fresh = made.recommend(), made.ask(4)
    losses = np.array([loss(c.vector) for c in fresh])
    among = np.sort([loss(c.vector) for c in [*first, *late, *fresh]])
    scores = np.searchsorted(among, losses) / 15 - 0.5
    tell(made, late)
    tell(made, fresh)
    z = np.array([(c.vector - m) / 0.15 for c in fresh])
    np.testing.assert_allclose(made.recommend(), m - 2 * 0.15**2 * (scores @ z) / (8 * 0.15), rtol=1e-9)


def test_there_are_no_other_ways() -> None:
    with pytest.raises(ValidationError, match="weights"):
        search("openai-es", late="drop")
