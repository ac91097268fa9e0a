"""SNES and xNES: the conformance suite, and one update of each held to its equations."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from blackopt.optimizers.nes import NESOptions
from blackopt.optimizers.snes import SNES
from blackopt.optimizers.xnes import XNES, exponential
from blackopt.space import Space
from blackopt.testing.optimizers import OptimizerConformance
from blackopt.types import Evaluation

SIGMA = 0.3


class TestSNESConformance(OptimizerConformance):
    optimizer = SNES


class TestXNESConformance(OptimizerConformance):
    optimizer = XNES


class TestXNESWithLargePopulationConformance(OptimizerConformance):
    optimizer = XNES
    options: ClassVar[dict[str, Any]] = {"population": 16, "learning_rate": 0.7, "sigma_rate": 0.2}


def make(kind: Any, n: int, **options: Any) -> Any:
    space = Space.from_spec({"w": {"weights": n}})
    return kind(space, np.zeros(n), kind.Options(sigma=SIGMA, **options))


def updated(search: Any, loss: Any) -> tuple[Any, Any]:
    """(k, n) perturbations and (k,) textbook utilities of one update, the search told of them."""
    batch = search.ask(search.population)
    epsilon = np.stack([c.vector for c in batch]) / SIGMA
    losses = np.array([loss(c.vector) for c in batch])
    search.tell([Evaluation(c.number, value) for c, value in zip(batch, losses, strict=True)])
    k = len(batch)
    raw = [max(0.0, math.log(k / 2 + 1) - math.log(i)) for i in range(1, k + 1)]
    u = np.empty(k)
    u[np.argsort(losses)] = np.array(raw) / sum(raw) - 1 / k
    return epsilon, u


def slope(x: Any) -> float:
    return float(x @ np.arange(1.0, x.size + 1))


def test_the_population_is_the_papers() -> None:
    assert [make(SNES, n).population for n in (1, 2, 10, 100)] == [4, 6, 10, 17]


def test_one_update_of_snes_is_the_papers() -> None:
    """Algorithm 6: eta_m = 1, eta_sigma = (3 + ln n) / (5 sqrt n)."""
    snes = make(SNES, 4)
    epsilon, u = updated(snes, slope)
    np.testing.assert_allclose(snes.recommend(), SIGMA * (u @ epsilon), rtol=1e-10)
    rate = (3 + math.log(4)) / 10
    sigma = SIGMA * np.exp(rate / 2 * (u @ (epsilon**2 - 1)))
    np.testing.assert_allclose(snes.dump()["memory"]["cohorts"]["scale"][-1], sigma, rtol=1e-10)


def test_one_update_of_xnes_is_the_papers() -> None:
    """Algorithm 5, sigma and B each for itself: eta_sigma = eta_B = (9 + 3 ln n) / (5 n sqrt n)."""
    xnes = make(XNES, 4)
    epsilon, u = updated(xnes, slope)
    np.testing.assert_allclose(xnes.recommend(), SIGMA * (u @ epsilon), rtol=1e-10)
    rate = (9 + 3 * math.log(4)) / (5 * 4 * 2)
    g_m = sum(u[i] * (np.outer(epsilon[i], epsilon[i]) - np.eye(4)) for i in range(len(u)))
    g_sigma = np.trace(g_m) / 4
    root = SIGMA * math.exp(rate / 2 * g_sigma) * exponential(rate / 2 * (g_m - g_sigma * np.eye(4)))
    np.testing.assert_allclose(xnes.dump()["memory"]["cohorts"]["scale"][-1], root, rtol=1e-8, atol=1e-12)


def test_the_exponential_is_its_series() -> None:
    g = np.array([[0.2, -0.1], [-0.1, 0.4]])
    series, term = np.eye(2), np.eye(2)
    for i in range(1, 20):
        term = term @ g / i
        series = series + term
    np.testing.assert_allclose(exponential(g), series, rtol=1e-12)


@pytest.mark.parametrize("kind", [SNES, XNES])
def test_a_linear_loss_gives_the_closed_form_of_the_natural_gradient(kind: Any) -> None:
    """Along a slope the natural gradient is E[u z] for z = Phi^-1(rank): the same for every direction.

    With q the rank from 0 (best) to 1, u is max(0, -ln 2q) over its mean, minus 1, and z is Phi^-1(q).
    """
    search = make(kind, 2, population=20_000, sigma_rate=0.0)
    updated(search, lambda x: float(3 * x[0] - 4 * x[1]))
    q = (np.arange(10_000) + 0.5) / 10_000
    raw = np.maximum(0.0, -np.log(2 * q))
    length = -float(np.mean(raw / raw.mean() * [NormalDist().inv_cdf(float(rank)) for rank in q]))
    np.testing.assert_allclose(search.recommend(), SIGMA * length * np.array([-0.6, 0.8]), atol=0.03 * SIGMA)


def test_snes_learns_a_spread_for_each_coordinate_and_xnes_a_rotated_one() -> None:
    """Of a quadratic that is narrow along (1, 1), and of one that is narrow along the first axis."""

    def spread(search: Any, loss: Any) -> Any:
        for _ in range(60):
            batch = search.ask(search.population)
            search.tell([Evaluation(c.number, loss(c.vector)) for c in batch])
        scale = search.dump()["memory"]["cohorts"]["scale"][-1]
        return scale if scale.ndim == 1 else scale @ scale.T

    sigma = spread(make(SNES, 2), lambda x: float(1e4 * x[0] ** 2 + x[1] ** 2))
    assert sigma[0] < 0.1 * sigma[1]
    covariance = spread(make(XNES, 2), lambda x: float(1e4 * (x[0] + x[1]) ** 2 + (x[0] - x[1]) ** 2))
    assert covariance[0, 1] < -0.9 * math.sqrt(covariance[0, 0] * covariance[1, 1])


@pytest.mark.parametrize("kind", [SNES, XNES])
def test_a_constant_loss_changes_nothing(kind: Any) -> None:
    search = make(kind, 3, population=8)
    search.tell([Evaluation(c.number, 1.0) for c in search.ask(8)])
    np.testing.assert_allclose(search.recommend(), 0.0, atol=1e-15)
    np.testing.assert_allclose(
        search.dump()["memory"]["cohorts"]["scale"][-1],
        np.full(3, SIGMA) if kind is SNES else SIGMA * np.eye(3),
        atol=1e-14,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [({"population": 1}, "greater than or equal to 2"), ({"sigma": 0.0}, "greater than 0"),
     ({"learning_rate": 0.0}, "greater than 0"), ({"sigma_rate": -0.1}, "greater than or equal to 0")],
)  # fmt: skip
def test_impossible_options_of_the_strategies_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NESOptions(**options)
