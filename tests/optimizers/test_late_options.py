"""The option ``late`` of the searches around a Gaussian: weights, shift, discard."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt import plugins
from blackopt.optimizers.gaussian import SHIFT_FROM
from blackopt.space import Space
from blackopt.types import Evaluation, Vector

SEARCHES = ("openai-es", "pgpe", "snes", "xnes", "ars")
WAYS = ("weights", "shift", "discard")
N = 20  # where rates are small: a single update does not make what is in flight worthless


def search(use: str, n: int = N, **options: Any) -> Any:
    found = plugins.find("optimizers", use)
    size = {"directions": 4} if use == "ars" else {"population": 8}
    return found(Space.from_spec({"w": {"weights": n}}), np.zeros(n), found.Options(**size, **options))


def loss(vector: Vector) -> float:
    return float(np.sum((vector - 1.0) ** 2))


def tell(made: Any, candidates: Any) -> None:
    made.tell([Evaluation(c.number, loss(c.vector)) for c in candidates])


def after_a_late_cohort(use: str, late: str | None, **options: Any) -> tuple[Vector, Vector, Any]:
    """Two cohorts from the start; the second is told when the first has moved the centre."""
    made = search(use, late=late, **options)
    first, second = made.ask(8), made.ask(8)
    tell(made, first)
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


@pytest.mark.parametrize("use", SEARCHES)
def test_one_update_ago_is_late(use: str) -> None:
    moved = {}
    for late in WAYS:
        before, after, _ = after_a_late_cohort(use, late)
        moved[late] = after - before
    assert np.linalg.norm(moved["weights"]) > 0
    assert np.linalg.norm(moved["shift"]) > 0
    assert not np.allclose(moved["weights"], moved["shift"], rtol=1e-3)
    np.testing.assert_array_equal(moved["discard"], 0.0)


def test_shift_is_a_plain_mean_of_steps_seen_from_the_present_centre() -> None:
    """eps + (m0 - m) / sigma, each with its full score."""
    made = search("openai-es", late="shift", sigma=0.2)
    first, second = made.ask(8), made.ask(8)
    tell(made, first)
    m = made.recommend()
    losses = np.array([loss(c.vector) for c in second])
    cohort = np.sort(np.concatenate([[loss(c.vector) for c in first], losses]))
    scores = np.searchsorted(cohort, losses) / (cohort.size - 1) - 0.5
    z = np.array([(c.vector - m) / 0.2 for c in second])
    tell(made, second)
    expected = m - 2 * 0.2**2 * (scores @ z) / (8 * 0.2)
    np.testing.assert_allclose(made.recommend(), expected, rtol=1e-9)


@pytest.mark.parametrize("use", SEARCHES)
def test_an_update_of_discarded_results_alone_is_none(use: str) -> None:
    """Otherwise what is in flight would be late for ever, and nothing would ever be learnt."""
    _, still, made = after_a_late_cohort(use, "discard")
    assert made.ask(1)[0].version == 1
    fresh = made.ask(9)
    tell(made, fresh[-8:] if fresh[1].number % 2 == 0 else fresh[:8])
    assert made.ask(1)[0].version == 2
    assert np.linalg.norm(made.recommend() - still) > 0


def test_where_some_are_late_the_others_say_what_they_would_among_as_many() -> None:
    """Discarded results count as finished: half a population moves the centre half as far."""
    made = search("openai-es", late="discard")
    first, late = made.ask(8), made.ask(4)
    tell(made, first)
    m, fresh = made.recommend(), made.ask(4)
    losses = np.array([loss(c.vector) for c in fresh])
    scores = np.argsort(np.argsort(losses)) / 3 - 0.5
    tell(made, late)
    tell(made, fresh)
    z = np.array([(c.vector - m) / 0.15 for c in fresh])
    np.testing.assert_allclose(made.recommend(), m - 2 * 0.15**2 * (scores @ z) / (8 * 0.15), rtol=1e-9)


def test_there_are_no_other_ways() -> None:
    with pytest.raises(ValidationError, match="weights"):
        search("openai-es", late="drop")


@pytest.mark.parametrize(("n", "way"), [(SHIFT_FROM - 1, "weights"), (SHIFT_FROM, "shift")])
def test_what_is_taken_without_a_word_depends_on_the_number_of_coordinates(n: int, way: str) -> None:
    reached = {
        late: after_a_late_cohort("openai-es", late, n=n, sigma=0.2, learning_rate=0.01)[1].tobytes()
        for late in (None, *WAYS)
    }
    assert [late for late in WAYS if reached[late] == reached[None]] == [way]
