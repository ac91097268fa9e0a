"""The quadratic regression, held to the covariance form of the same Gaussian model, and to exact
quadratics."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from blackopt.optimizers.evidence import tuned
from blackopt.optimizers.quadratic import Data, Floors, Hyper, Regression, features

HYPER = Hyper(linear=-0.7, quadratic=-1.2, isotropic=-0.4, drift=-2.0, anchor=-1.5, misfit=-1.0, span=0.5)


def data(rows: int, n: int, *, seed: int = 0, noise: float = 1.0) -> Data:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, n))
    y = z[:, 0] - 0.5 * z[:, 1] + 0.3 * z[:, 0] * z[:, 1] + 0.2 * z[:, 1] ** 2 + noise * rng.normal(size=rows)
    return Data(z=z, y=y, base=rng.uniform(0.5, 2.0, rows), r=(z**2).sum(axis=1), centre=-1.0, span=0.0)


def covariance(d: Data, hyper: Hyper) -> tuple[Any, Any]:
    """(N, N) K and the target, straight from the model's definition."""
    prior, phi = np.diag(d.prior(hyper)), enveloped(d, hyper)
    return phi @ prior @ phi.T + np.diag(d.variance(hyper)), d.target(hyper)


def enveloped(d: Data, hyper: Hyper) -> Any:
    """(N, p) features as the equation has them: what is constant in z does not level off."""
    rows, n = d.z.shape
    w = 1 / (1 + (d.z**2).sum(axis=1) / n / math.exp(hyper.span) ** 2)
    phi = d.phi.copy()
    still = 2 + n + n * (n + 1) // 2
    constant = [0, *range(still, phi.shape[1], n + 1)]
    for column in range(phi.shape[1]):
        phi[:, column] *= 1.0 if column in constant else w
    assert phi.shape[0] == rows
    return phi


@pytest.mark.parametrize(("rows", "n"), [(12, 4), (40, 4), (70, 4), (200, 4)], ids=lambda v: str(v))
def test_both_forms_of_the_system_are_the_same_gaussian_model(rows: int, n: int) -> None:
    d = data(rows, n)
    fit = Regression(d, HYPER)
    k, y = covariance(d, HYPER)
    assert fit.dual == (rows <= d.phi.shape[1])

    s2 = (y @ np.linalg.solve(k, y) + d.slack) / (rows + 0.02)
    assert fit.s2 == pytest.approx(s2, rel=1e-6)
    theta = d.prior(HYPER) * (enveloped(d, HYPER).T @ np.linalg.solve(k, y))
    np.testing.assert_allclose(fit.theta, theta, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("rows", [12, 70, 200])
def test_differences_of_the_evidence_are_those_of_the_likelihood_and_the_hyper_priors(rows: int) -> None:
    d = data(rows, 4)
    other = replace(HYPER, quadratic=-3.0, misfit=0.5)

    def log_density(hyper: Hyper) -> float:
        k, y = covariance(d, hyper)
        s2 = (y @ np.linalg.solve(k, y) + d.slack) / (rows + 0.02)
        usual = Hyper.initial(4)
        prior = sum(
            ((getattr(hyper, name) - getattr(usual, name)) / 3) ** 2 for name in ("quadratic", "misfit")
        )
        return float(-rows / 2 * math.log(s2) - 0.5 * np.linalg.slogdet(k)[1] - 0.5 * prior)

    found = Regression(d, HYPER).evidence - Regression(d, other).evidence
    assert found == pytest.approx(log_density(HYPER) - log_density(other), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("rows", [12, 70])
def test_deviations_are_those_of_the_posterior(rows: int) -> None:
    d = data(rows, 3)
    level = replace(HYPER, span=20.0)
    fit = Regression(d, level)
    k, _ = covariance(d, level)
    z, other = np.array([[1.0, 0.0, -1.0], [0.3, 0.2, 0.1]]), np.array([0.5, 0.5, 0.0])
    delta = np.zeros((2, d.phi.shape[1]))
    still = features(z) - features(other[None])
    delta[:, : still.shape[1]] = still
    prior = np.diag(d.prior(level))
    posterior = prior - prior @ d.phi.T @ np.linalg.solve(k, d.phi @ prior)
    expected = np.sqrt(fit.s2 * np.diag(delta @ posterior @ delta.T))
    np.testing.assert_allclose(fit.deviations(z, other), expected, rtol=1e-3)
    assert fit.deviations(other[None], other)[0] == 0.0


def test_an_exact_quadratic_is_found_exactly() -> None:
    rng = np.random.default_rng(1)
    n, z = 3, rng.normal(size=(50, 3))
    h = rng.normal(size=(n, n))
    h, b = h + h.T, rng.normal(size=n)
    y = z @ b + 0.5 * ((z @ h) * z).sum(axis=1)
    d = Data(z=z, y=y, base=np.ones(50), r=np.zeros(50), centre=0.0, span=0.0)
    loose = Hyper(12.0, 12.0, 12.0, -5.0, -50.0, -20.0, 20.0)
    gradient, hessian = Regression(d, loose).gradient_and_hessian()
    np.testing.assert_allclose(gradient, b, atol=1e-3)
    np.testing.assert_allclose(hessian, h, atol=1e-3)


def test_the_features_are_those_of_the_equation() -> None:
    (row,) = features(np.array([[2.0, 3.0, 5.0]]))
    root = math.sqrt(2)
    expected = [1, 2, 3, 5, 38 / math.sqrt(3), 4, 9, 25, 6 * root, 10 * root, 15 * root]
    np.testing.assert_allclose(row, expected)


def test_drift_is_modelled_from_sixty_results_on_and_is_zero_now() -> None:
    assert data(59, 3).phi.shape[1] == features(np.zeros((1, 3))).shape[1]
    d = data(60, 3)
    still = features(np.zeros((1, 3))).shape[1]
    assert d.phi.shape[1] == still + 4 * 4
    np.testing.assert_array_equal(d.phi[-1, still:], 0.0)


def test_beliefs_survive_a_change_of_units() -> None:
    """The same losses in coordinates half as long have the same evidence but for the hyper-priors."""
    d = data(50, 3)
    half = replace(d, z=d.z / 2)
    same, other = Regression(d, HYPER), Regression(half, HYPER.rescaled(2.0))
    assert other.s2 == pytest.approx(same.s2, rel=1e-9)
    np.testing.assert_allclose(other.residuals, same.residuals, atol=1e-9)


def test_tuning_never_lowers_the_evidence_and_finds_what_is_there() -> None:
    d = data(200, 4, noise=0.1)
    begun = Regression(d, Hyper.initial(4))
    fit, hyper = begun, begun.hyper
    for turn in range(8):
        fit, before = tuned(d, hyper, turn), fit
        hyper = fit.hyper
        assert fit.evidence >= before.evidence
    assert hyper.linear > begun.hyper.linear  # slopes of ten noises are not a prior of 1 / n
    assert math.sqrt(fit.s2) == pytest.approx(0.1 / math.sqrt(np.mean(d.base)), rel=0.3)


def test_floors_hold_at_their_threshold() -> None:
    n, floors = 10, Floors(linear=0.3, quadratic=0.1)
    low = replace(HYPER, linear=-20.0, quadratic=-20.0, isotropic=-20.0).floored(n, floors)
    assert (low.linear, low.isotropic) == (math.log(0.03), math.log(0.03))
    assert low.quadratic == math.log(0.001)
    assert low.floored(n, floors) == low
    high = replace(HYPER, linear=5.0, quadratic=5.0, isotropic=5.0)
    assert high.floored(n, floors) == high


def test_results_of_very_different_scale_do_not_break_the_factorisation() -> None:
    rng = np.random.default_rng(2)
    for rows in (12, 120):
        z = rng.normal(size=(rows, 4)) * 10.0 ** rng.uniform(-3, 4, (rows, 1))
        d = Data(
            z=z, y=rng.normal(size=rows), base=np.ones(rows), r=(z**2).sum(axis=1), centre=-30.0, span=0.0
        )
        fit = Regression(d, replace(Hyper.initial(4), anchor=-30.0, misfit=-20.0))
        assert math.isfinite(fit.evidence)
        assert np.all(np.isfinite(fit.theta))


@pytest.mark.parametrize("levels_off", [True, False])
def test_the_evidence_tells_losses_that_level_off_from_those_that_do_not(levels_off: bool) -> None:
    rng = np.random.default_rng(3)
    n, rows = 4, 300
    z = rng.normal(size=(rows, n)) * rng.uniform(0.2, 3.0, (rows, 1))
    rho2 = (z**2).mean(axis=1)
    y = z[:, 0] + 2 * rho2
    y = (y / (1 + rho2 / 0.5) if levels_off else y) + 0.1 * rng.normal(size=rows)
    d = Data(z=z, y=y, base=np.ones(rows), r=(z**2).sum(axis=1), centre=-3.0, span=math.log(3))
    hyper = replace(Hyper.initial(n), anchor=-3.0, span=math.log(3))
    for turn in range(12):
        fit = tuned(d, hyper, turn)
        hyper = fit.hyper
    c = math.exp(hyper.span)
    assert (0.4 < c < 1.2) if levels_off else c > 6
    np.testing.assert_allclose(fit.gradient_and_hessian()[0], [1, 0, 0, 0], atol=0.15)


@pytest.mark.parametrize("too_small", [True, False])
def test_the_evidence_tells_a_spread_that_was_too_small_from_losses_that_level_off(too_small: bool) -> None:
    """Where the bowl expects the optimum within a spread, losses at six times that are alike: either because
    the optimum is far away, which a slope shows, or because they have levelled off, as those within show."""
    rng = np.random.default_rng(6)
    n, rows = 3, 300
    z = rng.normal(size=(rows, n)) * rng.uniform(0.1, 6.0, (rows, 1))
    rho2 = (z**2).mean(axis=1)
    truth = 0.4 * z[:, 0] if too_small else 4 * rho2 / (1 + rho2)
    d = Data(
        z=z,
        y=truth + rng.normal(size=rows),
        base=np.ones(rows),
        r=(z**2).sum(axis=1),
        centre=0.0,
        span=math.log(6),
    )
    hyper = Hyper.initial(n)
    for turn in range(12):
        hyper = tuned(d, hyper, turn).hyper
    assert (hyper.reach > 0) == too_small
    assert (math.exp(hyper.span) > 20) == too_small


def test_an_optimum_that_is_further_away_needs_proof() -> None:
    d = data(30, 3)
    flat = replace(d, y=np.zeros(30), r=np.zeros(30), span=1.0)
    low = replace(HYPER, linear=-50.0, quadratic=-50.0, isotropic=-50.0, span=9.0)
    near, far = Regression(flat, low), Regression(flat, low.reaching(2.0))
    assert far.evidence == pytest.approx(near.evidence - 0.5 * 2.0**2)
    assert far.hyper.bowl == pytest.approx(near.hyper.bowl * math.exp(-2.0))


def test_a_span_that_levels_nothing_off_does_not_grow_for_ever() -> None:
    d, hyper = data(100, 3), Hyper.initial(3)
    for turn in range(40):
        hyper = tuned(d, hyper, turn).hyper
    assert hyper.span - d.span - hyper.reach <= math.log(1e3)


def test_a_span_beyond_its_median_costs_nothing_and_a_shorter_one_needs_proof() -> None:
    d = data(30, 3)
    flat = replace(d, y=np.zeros(30), r=np.zeros(30), span=1.0)
    at = {
        span: Regression(flat, replace(HYPER, linear=-50.0, quadratic=-50.0, isotropic=-50.0, span=span))
        for span in (0.0, 1.0, 9.0)
    }
    assert at[9.0].evidence == pytest.approx(at[1.0].evidence)
    assert at[0.0].evidence == pytest.approx(at[1.0].evidence - 0.5 / 0.45**2)


@pytest.mark.parametrize(("rows", "slope"), [(12, 3.0), (200, 1.0), (12, 0.0), (200, 0.0)])
def test_the_odds_tell_whether_losses_depend_on_the_candidate_at_all(rows: int, slope: float) -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(rows, 3))
    d = Data(
        z=z,
        y=slope * z[:, 0] + rng.normal(size=rows),
        base=np.ones(rows),
        r=(z**2).sum(axis=1),
        centre=-6.0,
        span=3.0,
    )
    fit = tuned(d, replace(Hyper.initial(3), anchor=-6.0, span=3.0), 0)
    assert fit.log_odds() > 2 if slope else fit.log_odds() < 1
