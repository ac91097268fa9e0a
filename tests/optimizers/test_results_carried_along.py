"""Late results in searches that recombine points."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest

from blackopt.optimizers import carried
from blackopt.optimizers.carried import Origins
from blackopt.optimizers.cma_es import CMAES
from blackopt.optimizers.cmaes_variants import LRACMAES, SepCMAES
from blackopt.space import Space
from blackopt.testing.optimizers import fingerprint
from blackopt.types import Evaluation, Status, Vector

SEARCHES: list[type[Any]] = [CMAES, LRACMAES, SepCMAES]


def make(cls: type[Any], n: int = 10) -> Any:
    return cls(Space.from_spec({"w": {"weights": n}}), np.zeros(n), cls.Options(seed=3, sigma=1.0))


def bowl(x: Vector) -> float:
    return float(np.sum((x - 2.0) ** 2))


def flown(search: Any, in_flight: int, results: int) -> float:
    """Loss of what is recommended after so many results, each told when so many others are in flight."""
    flying = deque(search.ask(in_flight))
    for _ in range(results):
        candidate = flying.popleft()
        search.tell([Evaluation(candidate.number, bowl(candidate.vector))])
        flying += search.ask(1)
    return bowl(search.recommend())


def test_a_point_goes_half_of_the_way_that_its_centre_went() -> None:
    origins = Origins()
    origins.keep(7, np.array([1.0, 0.0]))
    point = np.array([5.0, 5.0])
    np.testing.assert_array_equal(origins.carried(7, point, np.array([3.0, -2.0])), [6.0, 4.0])
    np.testing.assert_array_equal(origins.carried(7, point, np.array([1.0, 0.0])), point)


@pytest.mark.parametrize("cls", [CMAES, SepCMAES])
def test_with_many_in_flight_being_carried_beats_standing_still(
    cls: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_along = flown(make(cls), 48, 500)
    monkeypatch.setattr(carried, "SHARE", 0.0)
    standing = flown(make(cls), 48, 500)
    assert carried_along < 0.1 * bowl(np.zeros(10))
    assert carried_along < standing / 2


@pytest.mark.parametrize("cls", SEARCHES)
def test_what_was_used_or_said_nothing_is_forgotten(cls: type[Any]) -> None:
    search = make(cls, 3)
    for _ in range(4):
        candidates = search.ask(search.population + 2)
        search.tell([Evaluation(c.number, bowl(c.vector)) for c in candidates[2:]])
        search.tell([Evaluation(c.number, None, status=Status.FAILED) for c in candidates[:2]])
    assert search.ask(1)[0].version == 4
    assert len(search.dump()["memory"]["origins"]["number"]) == 1


@pytest.mark.parametrize("cls", SEARCHES)
def test_a_search_that_is_resumed_carries_as_one_that_was_not(cls: type[Any]) -> None:
    search = make(cls, 3)
    flying = search.ask(30)
    search.tell([Evaluation(c.number, bowl(c.vector)) for c in flying[:12]])
    resumed = cls.load(search.space, search.options, search.dump())
    for one in (search, resumed):
        one.tell([Evaluation(c.number, bowl(c.vector)) for c in flying[12:]])
    assert fingerprint(search.dump()) == fingerprint(resumed.dump())
