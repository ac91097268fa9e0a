"""What a loss is scored among: its own cohort, and where that is small the nearest ones in age."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blackopt.optimizers.known import KnownLosses


def known(least: int, losses: dict[int, list[float]]) -> KnownLosses:
    made = KnownLosses(least)
    for version, each in losses.items():
        for loss in each:
            made.add(version, loss)
    return made


def test_a_cohort_that_is_a_population_is_enough() -> None:
    made = known(3, {0: [1.0], 1: [2.0, 3.0, 4.0], 2: [5.0]})
    assert made.among(1).tolist() == [2.0, 3.0, 4.0]


def test_one_less_is_completed_by_the_nearest_in_age_and_the_older_first() -> None:
    made = known(4, {0: [1.0, 1.5], 1: [2.0, 3.0, 4.0], 2: [5.0], 7: [6.0]})
    assert made.among(1).tolist() == [2.0, 3.0, 4.0, 1.0, 1.5]
    assert made.among(2).tolist() == [5.0, 2.0, 3.0, 4.0]
    assert made.among(6).tolist() == [6.0, 5.0, 2.0, 3.0, 4.0]


def test_where_too_few_are_known_all_of_them_are_taken() -> None:
    assert known(9, {3: [1.0], 1: [2.0]}).among(3).tolist() == [1.0, 2.0]


def test_dumped_and_loaded_it_is_the_same() -> None:
    made, again = known(3, {4: [1.0, np.inf], 2: [2.0]}), KnownLosses(3)
    again.load(made.dump())
    assert again.among(4).tolist() == made.among(4).tolist() == [1.0, np.inf, 2.0]


@given(
    least=st.integers(1, 6),
    told=st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60),
)
def test_what_is_forgotten_would_not_have_been_looked_at(least: int, told: list[tuple[int, bool]]) -> None:
    """Results of the latest five versions come in any order; now and then a version begins."""
    forgetting, remembering, now = KnownLosses(least), KnownLosses(least), 0
    for i, (age, begins) in enumerate(told):
        version = max(0, now - age)
        for made in (forgetting, remembering):
            made.add(version, float(i))
        assert forgetting.among(version).tolist() == remembering.among(version).tolist()
        now += begins
        forgetting.keep(range(max(0, now - 4), now + 1))
    assert len(forgetting.dump()["version"]) <= 5 + 2 * least
