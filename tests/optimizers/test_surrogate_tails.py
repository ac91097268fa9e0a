"""Outliers: when tails count as heavy, and what becomes of them."""

from __future__ import annotations

import numpy as np
import pytest

from blackopt.optimizers import tails


def t2(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(2, size)


def test_gaussian_residuals_are_not_heavy_and_those_of_a_t_are() -> None:
    gaussian = np.random.default_rng(0).normal(size=400)
    assert not tails.heavy(gaussian, gaussian)
    assert tails.heavy(t2(400), t2(400))


def test_tails_are_told_from_forty_residuals_on() -> None:
    residuals = np.append(np.random.default_rng(0).normal(size=38), [40.0, -40.0])
    assert tails.heavy(residuals, residuals)
    assert not tails.heavy(residuals[1:], residuals[1:])


def test_rates_of_few_values_are_left_alone() -> None:
    residuals = t2(400)
    assert not tails.heavy(np.round(residuals), residuals)


def test_weights_are_hubers_at_their_threshold() -> None:
    np.testing.assert_allclose(tails.downweighted(np.array([0.0, 2.4, -2.5, 5.0]), 1.0), [1, 1, 1, 0.5])
    np.testing.assert_array_equal(tails.downweighted(np.array([1.0, 2.0]), 0.0), [1, 1])


def test_scores_of_a_gaussian_are_nearly_the_residuals() -> None:
    u = np.random.default_rng(1).normal(size=2000)
    middle = np.abs(u) < 1.5
    slope = np.polyfit(u[middle], tails.scores(u)[middle], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.2)


def test_scores_bound_an_outlier_and_sharpen_the_location() -> None:
    """The mean of the scores estimates a shift with less variance than the mean does."""
    u = t2(2000)
    assert np.abs(tails.scores(u)).max() < np.abs(u).max() / 3
    means, scored = [], []
    for seed in range(40):
        sample = t2(200, seed)
        means.append(sample.mean())
        scored.append(np.median(sample) + tails.scores(sample).mean())
    assert np.std(scored) < 0.7 * np.std(means)


def test_where_most_residuals_are_equal_the_others_are_no_outliers() -> None:
    residuals = np.append(np.zeros(90), np.full(10, -1.0))
    assert tails.robust_spread(residuals) == 0.0
    assert tails.downweighted(residuals, tails.spread(residuals)).min() > 0.4


def test_fences_stand_ten_ranges_outside_the_quartiles_and_let_infeasible_results_pass() -> None:
    losses = np.append(np.arange(101.0), [1e6, -1e6, np.inf])
    low, high = np.percentile(losses[:-1], [25, 75])
    fenced = tails.fenced(losses)
    np.testing.assert_array_equal(fenced[:101], losses[:101])
    np.testing.assert_allclose(fenced[101:], [high + 10 * (high - low), low - 10 * (high - low), np.inf])
    equal = np.append(np.zeros(10), 5.0)
    np.testing.assert_array_equal(tails.fenced(equal), equal)
