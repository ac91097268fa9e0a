"""Looks combined: against published bounds, closed forms, scipy's integrals and simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from blackopt.errors import UsageError
from blackopt.metrics.combination import (
    bounds,
    combined,
    looks_needed,
    median_unbiased,
    power,
    repeated_interval,
    standard_error,
)
from blackopt.metrics.effects import interval
from blackopt.metrics.sequential import Spending, crossing, spent
from blackopt.types import Estimate

NORMAL = NormalDist()
VALUES = st.floats(-1.0, 1.0)
ERRORS = st.floats(0.01, 1.0)
EFFECTS = st.lists(st.builds(lambda v, s: Estimate(v, s, 1.0), VALUES, ERRORS), min_size=1, max_size=5)

# One-sided 2.5 %, as gsDesign (sfLDOF) and ldbounds print them.
PUBLISHED = {
    1: [1.9600],
    2: [2.9626, 1.9686],
    3: [3.7103, 2.5114, 1.9930],
    5: [4.8769, 3.3569, 2.6803, 2.2898, 2.0310],
}


# -- bounds --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", PUBLISHED)
def test_bounds_are_those_of_published_tables(looks: int) -> None:
    assert list(bounds(looks, 0.025)) == pytest.approx(PUBLISHED[looks], abs=1.5e-4)


def test_a_plan_without_looks_or_level_is_refused() -> None:
    with pytest.raises(UsageError, match="looks: expected at least 1, got 0"):
        bounds(0, 0.025)
    with pytest.raises(UsageError, match="alpha: expected"):
        bounds(3, 0.5)


# -- first crossings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("alpha", [0.005, 0.025, 0.1])
def test_without_an_effect_each_look_spends_what_the_rule_gives_it(looks: int, alpha: float) -> None:
    gone = [spent(Spending.OBRIEN_FLEMING, k / looks, alpha) for k in range(looks + 1)]
    found = crossing(bounds(looks, alpha), [0.0] * looks)
    assert found == pytest.approx(np.diff(gone).tolist(), abs=1e-8)


def test_crossings_with_unequal_drifts_are_those_of_a_multivariate_normal() -> None:
    drifts, limits = [0.4, 1.7, -0.3], [2.2, 1.9, 1.4]
    covariance = [[min(i, j) / math.sqrt(i * j) for j in (1, 2, 3)] for i in (1, 2, 3)]
    means = np.cumsum(drifts) / np.sqrt([1, 2, 3])
    below = [multivariate_normal(means[:k], np.array(covariance)[:k, :k]).cdf(limits[:k]) for k in (1, 2, 3)]
    expected = [1.0 - below[0], below[0] - below[1], below[1] - below[2]]
    assert crossing(limits, drifts) == pytest.approx(expected, abs=1e-4)


def test_certain_crossings_and_impossible_ones() -> None:
    assert crossing([2.0, 2.0], [50.0, 0.0]) == pytest.approx([1.0, 0.0], abs=1e-15)
    assert crossing([2.0, 2.0], [-50.0, -50.0]) == pytest.approx([0.0, 0.0], abs=1e-15)
    assert crossing([math.inf, 0.0], [0.0, 0.0]) == pytest.approx([0.0, 0.5], abs=1e-12)


@pytest.mark.parametrize(("limits", "drifts"), [([], []), ([1.0], []), ([1.0], [math.nan])])
def test_crossings_need_a_drift_for_each_bound(limits: list[float], drifts: list[float]) -> None:
    with pytest.raises(UsageError, match="expected a bound and a finite drift for each look"):
        crossing(limits, drifts)


# -- combination ---------------------------------------------------------------------------------------------


@given(zs=st.lists(st.floats(-10, 10), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_looks_count_the_same_in_any_order(zs: list[float], seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(zs).tolist()
    assert combined(shuffled) == combined(zs) == pytest.approx(sum(zs) / math.sqrt(len(zs)), abs=1e-9)


@pytest.mark.parametrize("zs", [[], [math.nan], [1.0, math.inf]])
def test_a_look_without_a_finite_z_is_refused(zs: list[float]) -> None:
    with pytest.raises(UsageError, match="expected a finite z"):
        combined(zs)


@pytest.mark.parametrize("se", [None, 0.0, -1.0, math.inf, math.nan])
def test_a_look_without_a_standard_error_is_no_evidence(se: float | None) -> None:
    with pytest.raises(UsageError, match="effect: expected a finite value with a standard error above 0"):
        standard_error(Estimate(0.1, se, 10.0))


# -- intervals -----------------------------------------------------------------------------------------------


@given(effects=EFFECTS, bound=st.floats(1.0, 5.0))
def test_the_interval_excludes_zero_exactly_where_the_bound_is_crossed(
    effects: list[Estimate], bound: float
) -> None:
    z = combined([e.value / standard_error(e) for e in effects])
    lower, upper = repeated_interval(effects, bound)
    if abs(abs(z) - bound) > 1e-9:  # on the bound itself, rounding decides
        assert (lower > 0.0) is (z > bound)
        assert (upper < 0.0) is (-z > bound)


@given(value=VALUES, se=ERRORS, alpha=st.floats(0.001, 0.2))
@settings(deadline=None)
def test_with_one_look_it_is_the_ordinary_interval(value: float, se: float, alpha: float) -> None:
    found = repeated_interval([Estimate(value, se, 1.0)], bounds(1, alpha)[0])
    assert found == pytest.approx(interval(Estimate(value, se, 1.0), 1.0 - 2.0 * alpha), abs=1e-8)


def test_all_intervals_of_a_test_hold_the_truth_together_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    errors, truth, limits = [0.02, 0.005, 0.03, 0.01], 0.01, bounds(4, 0.05)
    drawn = rng.normal(truth, errors, (20_000, 4)).tolist()
    missed = naive = 0
    for values in drawn:
        looks = [Estimate(v, s, 1.0) for v, s in zip(values, errors, strict=True)]
        found = [repeated_interval(looks[:k], limits[k - 1]) for k in (1, 2, 3, 4)]
        missed += not all(low <= truth <= high for low, high in found)
        found = [repeated_interval(looks[:k], 1.6448536) for k in (1, 2, 3, 4)]
        naive += not all(low <= truth <= high for low, high in found)
    assert missed / 20_000 == pytest.approx(0.1, abs=0.007)  # 3.3 standard errors
    assert naive / 20_000 > 0.2


# -- the estimate after an early stop ------------------------------------------------------------------------


def at_least_as_good(delta: float, errors: list[float], passed: float, z: float) -> float:
    """P(Z₁ > passed) + P(Z₁ ≤ passed, Z₂ ≥ z), by scipy."""
    first, second = delta / errors[0], delta / errors[1]
    root = math.sqrt(0.5)
    pair = multivariate_normal([first, (first + second) * root], [[1.0, root], [root, 1.0]])
    return float(1.0 - pair.cdf([passed, z]))


@pytest.mark.parametrize("values", [(0.02, 0.05), (0.03, 0.01), (-0.02, 0.01)])
def test_half_of_the_results_are_better_under_the_estimate(values: tuple[float, float]) -> None:
    errors = [0.012, 0.02]
    looks = [Estimate(v, s, 1.0) for v, s in zip(values, errors, strict=True)]
    z = combined([v / s for v, s in zip(values, errors, strict=True)])
    found = median_unbiased(looks, [2.9626])
    assert at_least_as_good(found, errors, 2.9626, z) == pytest.approx(0.5, abs=1e-5)
    # What might have stopped before and did not is worse than the plain estimate says.
    middle = sum(repeated_interval(looks, 1.0)) / 2.0
    assert found <= middle + 1e-9


@given(effects=EFFECTS)
@settings(max_examples=20, deadline=None)  # an integral for each step of a bisection
def test_without_stops_it_is_the_middle_of_the_interval(effects: list[Estimate]) -> None:
    found = median_unbiased(effects, [math.inf] * (len(effects) - 1))
    assert found == pytest.approx(sum(repeated_interval(effects, 1.0)) / 2.0, abs=1e-6)


def test_it_is_too_high_as_often_as_too_low() -> None:
    rng = np.random.default_rng(8)
    limits, truth, above, plain, runs = bounds(2, 0.025), 2.2, 0, 0, 250
    for zs in rng.normal(truth, 1.0, (runs, 2)).tolist():
        stop = 1 if zs[0] > limits[0] else 2
        looks = [Estimate(z, 1.0, 1.0) for z in zs[:stop]]
        above += median_unbiased(looks, limits[: stop - 1]) > truth
        plain += sum(zs[:stop]) / stop > truth
    assert above / runs == pytest.approx(0.5, abs=0.1)  # 3.2 standard errors
    assert plain > above


def test_a_bound_is_needed_for_every_look_but_the_last() -> None:
    with pytest.raises(UsageError, match="passed: expected 0 bounds, got 1"):
        median_unbiased([Estimate(0.1, 0.1, 1.0)], [2.0])


# -- power, and what would be enough -------------------------------------------------------------------------


def test_power_and_traffic_are_those_of_a_simulation() -> None:
    z = np.random.default_rng(4).normal(1.4, 1.0, (40_000, 4)).cumsum(axis=1) / np.sqrt([1, 2, 3, 4])
    beyond = z > np.array(bounds(4, 0.025))
    stopped = np.where(beyond.any(axis=1), beyond.argmax(axis=1) + 1, 4)
    proof, used = power(4, 0.025, 1.4)
    assert proof == pytest.approx(beyond.any(axis=1).mean(), abs=0.007)
    assert used == pytest.approx(stopped.mean(), abs=0.02)
    assert power(4, 0.025, 0.0)[0] == pytest.approx(0.025, abs=1e-8)


@pytest.mark.parametrize("alpha", [0.005, 0.025, 0.1])
@pytest.mark.parametrize("z", [0.95, 1.1, 1.5, 2.0, 4.0])
def test_it_is_the_smallest_plan_with_the_power(alpha: float, z: float) -> None:
    looks = looks_needed(z, alpha)
    assert looks is not None
    exact = looks if looks <= 12 else None
    if exact is not None:
        assert power(exact, alpha, z)[0] >= 0.8 - 1e-6
    if looks > 1:
        assert power(looks - 1, alpha, z)[0] < 0.8


@pytest.mark.parametrize("z", [0.7, 0.5])
def test_for_many_looks_the_count_is_close(z: float) -> None:
    looks = looks_needed(z, 0.025)
    assert looks is not None
    assert power(looks, 0.025, z)[0] == pytest.approx(0.8, abs=0.01)


def test_no_number_of_looks_proves_nothing() -> None:
    for z in (0.0, -1.0, math.nan, 1e-7):
        assert looks_needed(z, 0.025) is None
    assert looks_needed(50.0, 0.025) == 1


@given(a=st.floats(0.05, 5.0), b=st.floats(0.05, 5.0))
@settings(deadline=None)  # the first of its kind integrates
def test_a_smaller_effect_never_takes_fewer_looks(a: float, b: float) -> None:
    fewer, more = looks_needed(max(a, b), 0.025), looks_needed(min(a, b), 0.025)
    assert fewer is not None
    assert more is not None
    assert fewer <= more
