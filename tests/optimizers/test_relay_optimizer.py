"""Relay: the conformance suite before, across and after the handover, and what is handed over."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import pytest

from blackopt.errors import UsageError
from blackopt.optimizers.cma_es import CMAES, CMAESOptions
from blackopt.optimizers.relay import Relay, RelayOptions
from blackopt.optimizers.surrogate import Surrogate, SurrogateOptions
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance, fingerprint, through_json
from blackopt.types import Candidate, Evaluation, Status, Vector


class TestRelayBeforeTheHandoverConformance(OptimizerConformance):
    optimizer = Relay
    options: ClassVar[dict[str, Any]] = {"first": 10_000}

    @pytest.mark.skip(reason="the surrogate's state grows until the handover; the next suite holds that")
    def test_a_dump_does_not_grow_with_what_was_told(self) -> None:
        """See :class:`TestRelayConformance`."""


class TestRelayConformance(OptimizerConformance):
    optimizer = Relay
    options: ClassVar[dict[str, Any]] = {"first": 17}


class TestRelayWithoutRestartsConformance(OptimizerConformance):
    optimizer = Relay
    options: ClassVar[dict[str, Any]] = {"first": 40, "restarts": "none"}


def space(n: int) -> Space:
    return Space.from_spec({"w": {"weights": n}})


def relay(n: int = 3, **options: Any) -> Relay:
    return Relay(space(n), np.zeros(n), RelayOptions(sigma=0.5, seed=9, **options))


def ellipsoid(x: Vector) -> float:
    return float(np.sum(10.0 ** np.arange(x.size) * (x - 1) ** 2))


def told(candidate: Candidate) -> Evaluation:
    return Evaluation(candidate.number, ellipsoid(candidate.vector))


def test_it_is_the_surrogate_up_to_the_handover_and_cma_es_from_there() -> None:
    both, alone = relay(first=60), Surrogate(space(3), np.zeros(3), SurrogateOptions(sigma=0.5, seed=9))
    best = min((candidate.vector for candidate in _run_side_by_side(both, alone, 60)), key=ellipsoid)
    then = CMAES(space(3), best, CMAESOptions(sigma=0.5, seed=9, restarts="bipop"))
    then.reshape(alone.spread)
    _run_side_by_side(both, then, 300)
    assert both.recommend().tobytes() == then.recommend().tobytes()
    assert ellipsoid(both.recommend()) < 1e-6


def _run_side_by_side(both: Relay, alone: Surrogate | CMAES, results: int) -> list[Candidate]:
    asked = []
    for _ in range(results):
        [mine], [other] = both.ask(1), alone.ask(1)
        assert mine.vector.tobytes() == other.vector.tobytes()
        both.tell([told(mine)])
        alone.tell([told(other)])
        asked.append(mine)
    return asked


@pytest.mark.parametrize(("n", "first"), [(1, 20), (20, 400), (30, 400), (40, 400), (41, 410)])
def test_the_surrogate_has_twenty_results_for_each_coordinate_and_ten_of_many(n: int, first: int) -> None:
    one = relay(n)
    rng = np.random.default_rng(0)
    for number, left in ((first - 1, True), (1, False)):
        one.tell([Evaluation(c.number, float(rng.normal()) + 100.0) for c in one.ask(number)])
        assert (one.belief() is not None) is left


def test_failures_do_not_count_and_the_infeasible_do() -> None:
    one = relay(first=4)
    asked = one.ask(10)
    for candidate in asked[:5]:
        one.tell([Evaluation(candidate.number, None, status=Status.FAILED)])
    one.tell([told(candidate) for candidate in asked[5:8]])
    assert one.belief() is not None
    one.tell([Evaluation(asked[8].number, None, status=Status.INFEASIBLE)])
    assert one.belief() is None


def test_where_everything_is_infeasible_cma_es_begins_at_the_start() -> None:
    one = relay(first=4)
    one.tell([Evaluation(c.number, None, status=Status.INFEASIBLE) for c in one.ask(4)])
    assert one.recommend().tobytes() == np.zeros(3).tobytes()


def test_what_was_in_flight_at_the_handover_has_an_effect() -> None:
    """Each of eight late results changes what CMA-ES draws next; a late failure changes nothing."""

    def after(late: float, which: int) -> bytes:
        one = relay(first=20)
        asked = one.ask(28)
        one.tell([told(candidate) for candidate in asked[:20]])
        for i, candidate in enumerate(asked[20:]):
            one.tell([Evaluation(candidate.number, late) if i == which else told(candidate)])
        one.tell([told(candidate) for candidate in one.ask(7)])
        return one.recommend().tobytes()

    assert all(after(-1e3, which) != after(1e3, which) for which in range(8))
    one = relay(first=1)
    late = one.ask(2)
    one.tell([told(late[0])])
    before = fingerprint(one.dump()["memory"])
    one.tell([Evaluation(late[1].number, None, status=Status.FAILED)])
    assert fingerprint(one.dump()["memory"]) == before


def test_it_goes_on_bit_for_bit_across_the_handover() -> None:
    one = relay(first=30)
    flying = one.ask(16)
    rng = np.random.default_rng(3)
    for _ in range(80):
        two = Relay.load(one.space, RelayOptions(sigma=0.5, seed=9, first=30), through_json(one.dump()))
        candidate = flying.pop(int(rng.integers(len(flying))))
        for each in (one, two):
            each.tell([told(candidate)])
        flying += one.ask(1)
        two.ask(1)
        assert fingerprint(one.dump()) == fingerprint(two.dump())


def test_only_a_full_covariance_that_nothing_was_drawn_from_takes_a_spread() -> None:
    es = CMAES(space(2), np.zeros(2), CMAESOptions(covariance="diagonal"))
    with pytest.raises(UsageError, match="full covariance"):
        es.reshape(np.eye(2))
    es = CMAES(space(2), np.zeros(2), CMAESOptions())
    es.ask(1)
    with pytest.raises(UsageError, match="nothing was drawn"):
        es.reshape(np.eye(2))


def test_cma_es_draws_with_the_spread_that_it_is_given() -> None:
    es = CMAES(space(2), np.ones(2), CMAESOptions(sigma=0.1))
    spread = np.array([[2.0, 0.0], [1.5, 0.5]])
    es.reshape(spread)
    x = np.array([candidate.vector for candidate in es.ask(4000)])
    np.testing.assert_allclose(x.mean(axis=0), 1.0, atol=0.15)
    np.testing.assert_allclose(np.cov(x.T), spread @ spread.T, rtol=0.1, atol=0.1)
    assert math.isclose(np.linalg.det(np.cov(x.T)), 1.0, rel_tol=0.15)
