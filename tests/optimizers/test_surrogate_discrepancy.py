"""What the quadratic leaves out at two points, held to the covariance form of the same Gaussian model."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blackopt.optimizers.discrepancy import corrected
from blackopt.optimizers.quadratic import Data, Hyper, Regression, features

HYPER = Hyper(linear=-0.7, quadratic=-1.2, isotropic=-0.4, drift=-2.0, anchor=-40.0, misfit=-1.0, span=20.0)
LENGTH = 0.3


def data(z: np.ndarray, y: np.ndarray) -> Data:
    return Data(z=z, y=y, base=np.ones(len(y)), r=np.zeros(len(y)), centre=-1.0, span=0.0)


def by_the_quadratic(fit: Regression, first: np.ndarray, other: np.ndarray) -> float:
    columns = features(np.array([first, other]))
    return float((columns[0] - columns[1]) @ fit.theta[: columns.shape[1]])


def shell(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """(rows, n) points at rho = 1."""
    z = rng.normal(size=(rows, n))
    return np.array(z / np.sqrt((z**2).mean(axis=1, keepdims=True)))


@pytest.mark.parametrize("rows", [12, 40], ids=["fewer rows than features", "more"])
def test_it_is_the_same_gaussian_model(rows: int) -> None:
    n, rough = 4, 0.8
    rng = np.random.default_rng(rows)
    z = 0.5 * rng.normal(size=(rows, n))
    d = data(z, z[:, 0] + rng.normal(size=rows))
    fit, points = Regression(d, HYPER), np.array([np.zeros(n), np.full(n, 0.4)])

    def bumps(at: np.ndarray) -> np.ndarray:
        squared = ((at[:, None, :] - points[None, :, :]) ** 2).mean(axis=2)
        return np.exp(-squared / (2 * LENGTH**2))

    prior = np.concatenate([d.prior(HYPER), np.full(2, rough**2 / fit.s2)])
    every = np.hstack([d.phi, bumps(z)])
    there = np.hstack([features(points), bumps(points)])
    contrast = there[0] - there[1]
    k = every * prior @ every.T + np.diag(d.variance(HYPER))
    across = every @ (prior * contrast)
    mean = across @ np.linalg.solve(k, d.target(HYPER))
    variance = fit.s2 * (prior @ contrast**2 - across @ np.linalg.solve(k, across))

    found, added = corrected(fit, points[0], points[1], by_the_quadratic(fit, points[0], points[1]), rough)
    own = float(fit.deviations(points[:1], points[1])[0])
    assert found == pytest.approx(mean, rel=1e-4, abs=1e-5)
    assert math.hypot(own, added) == pytest.approx(math.sqrt(variance), rel=1e-4)


def test_where_nothing_was_measured_the_quadratic_stands_with_the_error_of_the_model() -> None:
    n, rng = 10, np.random.default_rng(0)
    z = shell(200, n, rng)
    fit = Regression(data(z, (z**2).mean(axis=1) + z[:, 0] + 0.1 * rng.normal(size=200)), HYPER)
    points = np.zeros(n), np.full(n, 5.0)
    found, added = corrected(fit, *points, 3.0, 0.5)
    assert found == pytest.approx(3.0, abs=0.05)
    assert added == pytest.approx(0.5 * math.sqrt(2), rel=0.05)


def test_where_much_was_measured_the_difference_is_the_measured_one() -> None:
    """A hollow that no quadratic has: 1 at rho = 1 and at the first point, -1 at the centre."""
    n, rng = 10, np.random.default_rng(0)
    first, centre = shell(1, n, rng)[0], np.zeros(n)
    z = np.vstack([shell(300, n, rng), np.tile(first, (40, 1)), np.tile(centre, (40, 1))])
    truth = np.where(np.arange(380) < 340, 1.0, -1.0)
    flat = Hyper(
        linear=-9.0, quadratic=-9.0, isotropic=-9.0, drift=-9.0, anchor=-40.0, misfit=-9.0, span=20.0
    )
    fit = Regression(data(z, truth + 0.1 * rng.normal(size=380)), flat)
    stated = by_the_quadratic(fit, first, centre)
    assert stated < 1.5
    found, added = corrected(fit, first, centre, stated, 2.0)
    assert found == pytest.approx(2.0, abs=3 * added)
    assert added < 0.25


def test_a_model_without_an_error_is_taken_at_its_word() -> None:
    n, rng = 3, np.random.default_rng(0)
    z = rng.normal(size=(30, n))
    fit = Regression(data(z, rng.normal(size=30)), HYPER)
    assert corrected(fit, np.zeros(n), np.ones(n), 0.7, 0.0) == (0.7, 0.0)
