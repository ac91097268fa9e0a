"""PGPE: the conformance suite, one update held to its equations, and the limits of a step."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt.optimizers.pgpe import MOST, PGPE, PGPEOptions
from blackopt.optimizers.shaping import centred_ranks
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance
from blackopt.types import Evaluation, Status

SIGMA = 0.2


class TestPGPEConformance(OptimizerConformance):
    optimizer = PGPE


class TestPGPEWithFixedSpreadConformance(OptimizerConformance):
    optimizer = PGPE
    options: ClassVar[dict[str, Any]] = {"sigma_rate": 0.0, "population": 8}


def make(**options: Any) -> PGPE:
    return PGPE(Space.from_spec({"w": {"weights": 3}}), np.zeros(3), PGPEOptions(sigma=SIGMA, **options))


def spread(search: PGPE) -> Any:
    return search.dump()["memory"]["cohorts"]["scale"][-1]


def told(search: PGPE, loss: Any) -> tuple[Any, Any]:
    """(k, n) perturbations and (k,) ranks of one update."""
    batch = search.ask(search.population)
    losses = np.array([loss(c.vector) for c in batch])
    search.tell([Evaluation(c.number, value) for c, value in zip(batch, losses, strict=True)])
    return np.stack([c.vector for c in batch]), centred_ranks(losses)


def bowl(x: Any) -> float:
    return float((x - 0.3) @ (np.array([1.0, 5.0, 25.0]) * (x - 0.3)))


def test_twins_lie_on_opposite_sides() -> None:
    a, b = make().ask(2)
    np.testing.assert_array_equal(a.vector, -b.vector)


def test_one_update_is_the_papers_pair_by_pair() -> None:
    """Symmetric sampling in Sehnke et al. 2010, with ranks; then ClipUp's first step, and sigma's."""
    search = make(learning_rate=0.01, max_speed=1.0, sigma_rate=0.4)
    x, u = told(search, bowl)
    d, up, down = x[::2], u[::2], u[1::2]
    g_m = ((up - down) / 2) @ d / len(d)
    g_sigma = ((up + down) / 2) @ ((d**2 - SIGMA**2) / SIGMA) / len(d)
    np.testing.assert_allclose(search.recommend(), -0.01 * g_m / np.linalg.norm(g_m), rtol=1e-10)
    np.testing.assert_allclose(spread(search), SIGMA - 0.4 * g_sigma, rtol=1e-10)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_spread_changes_by_a_fifth_at_most(sign: int) -> None:
    search = make(sigma_rate=1e3)
    told(search, lambda x: sign * float(x @ x))
    change = spread(search) / SIGMA - 1
    np.testing.assert_allclose(np.abs(change), MOST)
    assert change.sum() * sign < 0  # a valley narrows it, a hill widens it


def test_a_step_is_as_long_as_the_speed_limit_at_most() -> None:
    search = make(learning_rate=10.0, max_speed=0.05)
    told(search, lambda x: 1e9 * float(x[0]))
    np.testing.assert_allclose(np.linalg.norm(search.recommend()), 0.05)


def test_the_speed_limit_is_a_tenth_of_a_perturbation_and_the_rate_half_of_it() -> None:
    search = make()
    told(search, lambda x: float(x[0]))
    np.testing.assert_allclose(np.linalg.norm(search.recommend()), 0.05 * SIGMA * np.sqrt(3))


def test_a_rate_of_zero_keeps_the_spread() -> None:
    search = make(sigma_rate=0.0)
    told(search, bowl)
    np.testing.assert_array_equal(spread(search), SIGMA)


def test_a_result_without_its_twin_still_counts() -> None:
    search = make(population=4)
    batch = search.ask(4)
    search.tell([Evaluation(c.number, float(c.vector[0]), status=Status.OK if i % 2 else Status.FAILED)
                 for i, c in enumerate(batch)])  # fmt: skip
    assert np.linalg.norm(search.recommend()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"population": 5}, "try 6"), ({"sigma_rate": -1}, "greater than or equal to 0"),
     ({"max_speed": 0.0}, "greater than 0"), ({"momentum": 1.0}, "less than 1")],
)  # fmt: skip
def test_impossible_options_of_pgpe_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PGPEOptions(**options)
