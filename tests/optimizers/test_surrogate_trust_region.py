"""Steps of the trust region, held to a general-purpose minimiser; reflection, and the rounding of the
spread."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from blackopt.optimizers import trust


@pytest.mark.parametrize("seed", range(6))
def test_steps_have_the_radius_and_are_optimal(seed: int) -> None:
    """|z| = radius and (H + mu I) z = -g with H + mu I positive definite (Conn, Gould, Toint, corollary
    7.2.2)."""
    rng = np.random.default_rng(seed)
    h, g, radii = rng.normal(size=(4, 4)), rng.normal(size=4), np.array([0.1, 0.5, 2.0])
    h = h + h.T - 0.5 * np.eye(4)  # indefinite: the minimum lies on the sphere
    mus = trust.multipliers(g, h, radii)
    for mu, radius in zip(mus, radii, strict=True):
        assert np.linalg.eigvalsh(h + mu * np.eye(4))[0] > 0
        assert np.linalg.norm(np.linalg.solve(h + mu * np.eye(4), -g)) == pytest.approx(radius, rel=1e-6)


def test_a_minimum_inside_is_taken() -> None:
    g, h = np.array([0.1, -0.2]), np.diag([1.0, 2.0])
    z = trust.steps(g, h, np.eye(2), np.full(2, -9.0), np.full(2, 9.0), np.array([5.0]))
    np.testing.assert_allclose(z, [[0.0, 0.0], [-0.1, 0.1]], atol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_steps_in_a_box_are_the_best(seed: int) -> None:
    rng = np.random.default_rng(seed)
    root, g = rng.normal(size=(5, 5)), 3 * rng.normal(size=5)
    h, lower, upper = root @ root.T + np.eye(5), -rng.uniform(0, 1, 5), rng.uniform(0, 1, 5)

    def value(d: np.ndarray) -> float:
        return float(g @ d + 0.5 * d @ h @ d)

    found = trust.step_in_box(g, h, lower, upper)
    best = minimize(value, np.zeros(5), bounds=list(zip(lower, upper, strict=True))).fun
    assert np.all((found >= lower) & (found <= upper))
    assert value(found) == pytest.approx(best, rel=1e-5)


def test_bounds_are_met_in_the_coordinates_of_the_space() -> None:
    scale = np.array([[1.0, 0.5], [0.0, 0.3]])
    z = trust.steps(
        np.array([-4.0, -3.0]), np.eye(2), scale, np.full(2, -0.2), np.full(2, 0.2), np.array([0.1, 3.0])
    )
    d = z @ scale.T
    assert np.all(np.abs(d) <= 0.2 + 1e-12)
    assert np.abs(d[-1]).max() == pytest.approx(0.2)


@given(st.floats(-50, 50))
def test_reflection_folds_back_and_leaves_the_inside_alone(x: float) -> None:
    lower, upper = np.array([0.0, -math.inf]), np.array([1.0, math.inf])
    (a, b) = trust.reflected(np.array([x, x]), lower, upper)
    assert b == x
    assert 0 <= a <= 1
    assert a == (x if 0 <= x <= 1 else pytest.approx(abs((x + 1) % 2 - 1), abs=1e-9))


def test_the_rounder_keeps_the_volume_and_lengthens_flat_axes() -> None:
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rounder = trust.rounder(axes, np.array([0.1, 1.0, 10.0]))
    assert np.linalg.det(rounder) == pytest.approx(1.0)
    lengths = np.linalg.norm(rounder @ axes, axis=0)
    assert lengths[0] > lengths[1] > lengths[2]
    np.testing.assert_allclose(lengths[0] / lengths[2], (3 / (1 / 3)) ** 0.15)  # both at their limits
    np.testing.assert_array_equal(trust.rounder(axes, np.zeros(3)), np.eye(3))
