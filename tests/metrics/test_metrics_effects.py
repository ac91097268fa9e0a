"""Effects against the control, their intervals, and how they combine."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from blackopt.errors import TrialError, UsageError
from blackopt.metrics.effects import combine, effect, interval, pool_errors
from blackopt.metrics.errors import ZeroControlError
from blackopt.metrics.kinds import kind
from blackopt.types import Estimate

RUNS = 4_000


def test_the_lift_is_the_delta_method_on_raw_samples() -> None:
    rng = np.random.default_rng(7)
    t, c = rng.lognormal(0.2, 1.0, 900), rng.lognormal(0.0, 1.0, 2_100)
    mean = kind("mean")
    arms = [
        mean.estimate({"n": len(y), "sum": math.fsum(y), "sum_sq": math.fsum(v * v for v in y.tolist())})
        for y in (t, c)
    ]
    tm, cm = statistics.fmean(t), statistics.fmean(c)
    tv, cv = statistics.variance(t.tolist()), statistics.variance(c.tolist())
    lift = effect(arms[0], arms[1], relative=True)
    assert lift.value == pytest.approx(tm / cm - 1, rel=1e-9)
    assert lift.se == pytest.approx(math.sqrt(tv / (900 * cm**2) + cv * tm**2 / (2_100 * cm**4)), rel=1e-9)
    assert lift.n == 3_000
    difference = effect(arms[0], arms[1], relative=False)
    assert difference.value == pytest.approx(tm - cm, rel=1e-9)
    welch = scipy_stats.ttest_ind(t, c, equal_var=False)
    assert difference.value / (difference.se or math.nan) == pytest.approx(welch.statistic, rel=1e-9)


def test_more_is_positive_for_a_metric_below_zero_too() -> None:
    lift = effect(Estimate(-4.0, 0.1, 10), Estimate(-5.0, 0.1, 10), relative=True)
    assert lift.value == pytest.approx(0.2)
    assert lift.se == pytest.approx(math.hypot(0.1 / 5, 0.1 * 4 / 25))


@pytest.mark.parametrize("control", [0.0, -0.0, 5e-324])
def test_a_lift_over_nothing_has_a_name(control: float) -> None:
    with pytest.raises(ZeroControlError, match="no relative effect: the control is") as caught:
        effect(Estimate(1.0, 0.1, 10), Estimate(control, 0.1, 10), relative=True)
    assert isinstance(caught.value, TrialError)
    assert effect(Estimate(1.0, 0.1, 10), Estimate(control, 0.1, 10), relative=False).value == 1.0


@pytest.mark.parametrize("relative", [True, False])
def test_an_unknown_standard_error_stays_unknown(relative: bool) -> None:
    for t_se, c_se in ((None, 0.1), (0.1, None), (None, None)):
        assert effect(Estimate(2.0, t_se, 1), Estimate(1.0, c_se, 1), relative=relative).se is None


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.999])
def test_intervals_are_normal(level: float) -> None:
    low, high = interval(Estimate(1.5, 0.3, 10), level)
    expected = scipy_stats.norm.interval(level, loc=1.5, scale=0.3)
    assert (low, high) == pytest.approx(expected, rel=1e-9)


def test_intervals_need_a_standard_error_and_a_level() -> None:
    with pytest.raises(UsageError, match="estimate: expected a standard error"):
        interval(Estimate(1.0, None, 1))
    for level in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(UsageError, match="level: expected a number between 0 and 1"):
            interval(Estimate(1.0, 0.1, 1), level)


def test_pooled_errors_come_from_one_variance_of_a_unit() -> None:
    t, c = pool_errors(Estimate(1.0, 0.5, 100), Estimate(2.0, 0.1, 900))
    variance = (100 * 25.0 + 900 * 9.0) / 1_000  # V = n·se²: 25 and 9
    assert (t.se, c.se) == pytest.approx((math.sqrt(variance / 100), math.sqrt(variance / 900)), rel=1e-12)
    pooled = effect(Estimate(1.0, 0.5, 100), Estimate(2.0, 0.1, 900), relative=False, pooled=True)
    assert pooled.se == pytest.approx(math.sqrt(variance * (1 / 100 + 1 / 900)), rel=1e-12)
    unknown = (Estimate(1.0, None, 100), Estimate(2.0, 0.1, 900))
    assert pool_errors(*unknown) == unknown


errors = st.one_of(st.none(), st.floats(1e-6, 1e6))
estimates = st.builds(Estimate, st.floats(-1e6, 1e6), errors, st.floats(1, 1e6))


@given(st.lists(estimates, min_size=1, max_size=4))
def test_combining_does_not_depend_on_the_order(given_order: list[Estimate]) -> None:
    assert len({combine(order) for order in itertools.permutations(given_order)}) == 1


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(0.01, 100)), min_size=2, max_size=6))
def test_combining_is_inverse_variance(pairs: list[tuple[float, float]]) -> None:
    weights = [1 / se**2 for _, se in pairs]
    found = combine([Estimate(v, se, 1) for v, se in pairs])
    mean = sum(w * v for w, (v, _) in zip(weights, pairs, strict=True)) / sum(weights)
    assert found.value == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert found.se == pytest.approx(1 / math.sqrt(sum(weights)), rel=1e-9)


def test_extreme_standard_errors_combine() -> None:
    found = combine([Estimate(1.0, 1e-200, 1), Estimate(2.0, 1e200, 1)])
    assert (found.value, found.se) == (1.0, 1e-200)
    exact = combine([Estimate(2.0, 0.0, 1), Estimate(2.0, 0.0, 1)])
    assert (exact.value, exact.se, exact.n) == (2.0, 0.0, 2.0)


def test_nothing_combines_to_nothing() -> None:
    with pytest.raises(UsageError, match="at least one"):
        combine([])


def bernoulli(p: float, n: int, rng: np.random.Generator) -> list[Estimate]:
    proportion = kind("proportion")
    return [proportion.estimate({"n": n, "sum": s}) for s in rng.binomial(n, p, RUNS).tolist()]


def lognormal(mu: float, n: int, rng: np.random.Generator) -> list[Estimate]:
    mean = kind("mean")
    y = rng.lognormal(mu, 0.7, (RUNS, n))
    pairs = zip(y.sum(axis=1).tolist(), (y * y).sum(axis=1).tolist(), strict=True)
    return [mean.estimate({"n": n, "sum": s, "sum_sq": ss}) for s, ss in pairs]


def covered(found: list[Estimate], truth: float) -> float:
    bounds = [interval(e) for e in found]
    return sum(low <= truth <= high for low, high in bounds) / len(bounds)


Draw = Callable[[float, int, np.random.Generator], list[Estimate]]


@pytest.mark.parametrize(
    ("draw", "a", "b", "mean_a", "mean_b"),
    [
        (bernoulli, 0.11, 0.10, 0.11, 0.10),
        (lognormal, 0.05, 0.0, math.exp(0.05 + 0.245), math.exp(0.245)),
    ],
)
def test_95_per_cent_intervals_cover_95_per_cent(
    draw: Draw, a: float, b: float, mean_a: float, mean_b: float
) -> None:
    # The coverage of 4,000 runs has a standard error of 0.34 points; the band is four of them.
    rng = np.random.default_rng(11)
    treatment, control = draw(a, 800, rng), draw(b, 1_000, rng)
    pairs = list(zip(treatment, control, strict=True))
    lifts = [effect(t, c, relative=True) for t, c in pairs]
    differences = [effect(t, c, relative=False) for t, c in pairs]
    for found, truth in (
        (treatment, mean_a),
        (lifts, mean_a / mean_b - 1),
        (differences, mean_a - mean_b),
    ):
        assert 0.935 <= covered(found, truth) <= 0.965
