"""What has no value or no effect says so, with its numbers; what only looks certain does not pass for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from blackopt.metrics.errors import (
    ConstantMetric,
    ImpossibleStatistics,
    MetricError,
    NegativeVariance,
    TooFewEvents,
    TooFewUnits,
    ZeroControlError,
    ZeroDenominator,
)
from blackopt.metrics.kinds import kind

Array = np.ndarray[Any, Any]
Sums = Callable[[dict[str, Array]], dict[str, Array]]


def scalars(columns: dict[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in columns.items()}


def test_a_minimum_of_units_and_events_holds_at_its_threshold() -> None:
    proportion = kind("proportion")
    proportion.require({"n": 100, "sum": 10}, min_units=100, min_events=10)
    with pytest.raises(TooFewUnits, match="too few units: 99 of at least 100"):
        proportion.require({"n": 99, "sum": 99}, min_units=100)
    with pytest.raises(TooFewEvents, match="too few events: 9 of at least 10, among 100 units"):
        proportion.require({"n": 100, "sum": 9}, min_events=10)
    with pytest.raises(TooFewUnits, match="0 of at least 1"):
        proportion.require(proportion.pool([]))


def test_events_of_other_kinds_are_a_column_of_their_own() -> None:
    mean = kind("mean")
    readings = [
        {"n": 50, "sum": 9, "sum_sq": 30, "events": 3},
        {"n": 50, "sum": 7, "sum_sq": 20, "events": 4},
    ]
    pooled = mean.pool(readings)
    assert pooled["events"] == 7
    mean.require(pooled, min_events=7)
    with pytest.raises(TooFewEvents, match="7 of at least 8"):
        mean.require(pooled, min_events=8)
    without = mean.pool([readings[0], {"n": 50, "sum": 7, "sum_sq": 20}])
    with pytest.raises(ImpossibleStatistics, match="does not say how many units had an event") as caught:
        mean.require(without, min_events=1)
    assert "`events`" in caught.value.next_step
    with pytest.raises(ImpossibleStatistics, match="a value does not say"):
        kind("value").require({"value": 1.0}, min_events=1)


def test_a_lift_over_nothing() -> None:
    t, c = {"n": 100, "sum": 9}, {"n": 100, "sum": 0}
    with pytest.raises(ZeroControlError, match=r"the control is 0\.0"):
        kind("proportion").effect(t, c, relative=True)
    assert kind("proportion").effect(t, c, relative=False).value == 0.09


def test_a_ratio_over_nothing(sums: Sums) -> None:
    empty = scalars(sums({"num": np.zeros(9), "den": np.zeros(9)}))
    assert kind("ratio").validate(empty) is None
    with pytest.raises(ZeroDenominator, match="no ratio: den_sum is 0 in 9 units"):
        kind("ratio").estimate(empty)
    tiny = {**empty, "sum": 1e100, "sum_sq": 1e120, "den_sum": 5e-324, "den_sum_sq": 5e-324, "num_den": 0.0}
    with pytest.raises(MetricError):
        kind("ratio").estimate(tiny)


@pytest.mark.parametrize("relative", [True, False])
def test_arms_without_any_spread_have_no_effect(relative: bool) -> None:
    with pytest.raises(
        ConstantMetric, match="all 30 units of the arm have 1, all 50 of the control 1"
    ) as caught:
        kind("proportion").effect({"n": 30, "sum": 30}, {"n": 50, "sum": 50}, relative=relative)
    assert "subtract a constant" in caught.value.next_step
    with pytest.raises(ConstantMetric):
        kind("mean").effect(
            {"n": 30, "sum": 60, "sum_sq": 120}, {"n": 50, "sum": 150, "sum_sq": 450}, relative=relative
        )
    flat = {"n": 90, "q": 3, "q_lower": 3, "q_upper": 3}
    with pytest.raises(ConstantMetric):
        kind("quantile", quantile=0.5).effect(flat, flat, relative=relative)


@pytest.mark.parametrize("n", [3, 30, 1_000, 100_000])
@pytest.mark.parametrize("y", [0.1, 1 / 3, 19.99, 1e6 + 0.7])
def test_rounding_of_a_source_is_no_spread(n: int, y: float) -> None:
    added, squared = 0.0, 0.0
    for _ in range(n):
        added, squared = added + y, squared + y * y
    stats = {"n": n, "sum": added, "sum_sq": squared}
    with pytest.raises(ConstantMetric):
        kind("mean").effect(stats, {"n": 2 * n, "sum": 2 * added, "sum_sq": 2 * squared}, relative=True)


def test_a_small_spread_of_large_numbers_is_one(sums: Sums) -> None:
    rng = np.random.default_rng(4)
    t, c = (scalars(sums({"num": 1e4 + rng.normal(size=n)})) for n in (5_000, 20_000))
    found = kind("mean").effect(t, c, relative=False)
    assert found.se == pytest.approx(math.sqrt(1 / 5_000 + 1 / 20_000), rel=0.03)


@pytest.mark.parametrize("name", ["proportion", "mean"])
def test_one_arm_without_spread_takes_that_of_both_together(name: str) -> None:
    t, c = {"n": 300, "sum": 0, "sum_sq": 0}, {"n": 20_000, "sum": 1_600, "sum_sq": 1_600}
    found = kind(name).effect(t, c, relative=False)
    p = 1_600 / 20_300
    own = 0.08 * 0.92 / 20_000
    assert found.value == -0.08
    assert found.se == pytest.approx(math.sqrt(p * (1 - p) / 300 + own), rel=1e-4)
    mirrored = kind(name).effect(c, t, relative=False)
    assert (mirrored.value, mirrored.se) == (0.08, found.se)


def test_a_certain_value_stays_certain() -> None:
    found = kind("value").effect({"value": 3, "se": 0}, {"value": 2, "se": 0}, relative=True)
    assert (found.value, found.se) == (0.5, 0.0)


def test_sums_that_only_together_are_impossible() -> None:
    # Correlations of 0.9, 0.9 and -0.9 fit in pairs; no three variables have all of them.
    stats = {
        "n": 101.0, "sum": 101.0, "den_sum": 101.0, "cov_sum": 101.0, "cov_den_sum": 101.0,
        "sum_sq": 201.0, "den_sum_sq": 201.0, "cov_sum_sq": 201.0, "cov_den_sum_sq": 201.0,
        "num_den": 191.0, "num_cov": 191.0, "den_cov": 11.0, "num_cov_den": 11.0, "den_cov_den": 191.0,
        "cov_cov_den": 191.0,
    }  # fmt: skip
    ratio = kind("ratio", cuped=True)
    assert ratio.validate(stats) is None
    with pytest.raises(NegativeVariance, match=r"a variance of -\d\S* from 101 units") as caught:
        ratio.effect(stats, stats, relative=True)
    assert "products of sums" in caught.value.next_step


@pytest.mark.parametrize("name", ["mean", "ratio"])
def test_a_covariate_that_does_not_vary_changes_nothing(sums: Sums, name: str) -> None:
    rng = np.random.default_rng(1)
    arms = []
    for n, past in ((50, 1.0), (70, 1.0)):
        y, d = rng.gamma(2.0, size=n), 1.0 + rng.poisson(2.0, n)
        parts = {"num": y, "cov": np.full(n, past)}
        if name == "ratio":
            parts = {"num": y, "den": d, "cov": np.full(n, past), "cov_den": np.full(n, 2.0)}
        arms.append(scalars(sums(parts)))
    adjusted = kind(name, cuped=True).effect(arms[0], arms[1], relative=True)
    assert adjusted == kind(name).effect(arms[0], arms[1], relative=True)
    nothing = [{key: 0.0 if "cov" in key else value for key, value in arm.items()} for arm in arms]
    assert kind(name, cuped=True).effect(nothing[0], nothing[1], relative=True) == adjusted


def test_a_past_without_a_denominator_in_one_arm_is_named(sums: Sums) -> None:
    rng = np.random.default_rng(2)

    def arm(past: float) -> dict[str, float]:
        y, x = rng.gamma(2.0, size=40), rng.gamma(2.0, size=40)
        return scalars(sums({"num": y, "den": x + 1, "cov": past * x * y, "cov_den": past * x}))

    with pytest.raises(ZeroDenominator, match="no ratio: cov_den_sum is 0 in 40 units"):
        kind("ratio", cuped=True).effect(arm(0.0), arm(1.0), relative=True)


@pytest.mark.parametrize(("level", "least"), [(0.5, 4.0), (0.9, 36.0), (0.1, 36.0)])
def test_a_quantile_needs_its_ranks(level: float, least: float) -> None:
    quantile = kind("quantile", quantile=level)
    stats = {"n": least + 1, "q": 2.0, "q_lower": 1.0, "q_upper": 4.0}
    assert quantile.estimate(stats).se == pytest.approx(3.0 / (2 * 1.959963984540054))
    with pytest.raises(
        TooFewUnits, match=f"too few units: {least:g}, the {level:g} quantile needs more than"
    ):
        quantile.estimate({**stats, "n": least - 1e-9})


def test_events_that_nest_in_units_widen_a_quantile() -> None:
    quantile = kind("quantile", quantile=0.5)
    stats = {"n": 400.0, "q": 2.0, "q_lower": 1.0, "q_upper": 4.0}
    wide, plain = quantile.estimate({**stats, "cluster": 4.0}), quantile.estimate(stats)
    assert wide.se == pytest.approx(2 * (plain.se or math.nan), rel=1e-12)


def test_cohorts_of_a_quantile_are_averaged_by_their_units() -> None:
    quantile = kind("quantile", quantile=0.5)
    days = [
        {"n": 100.0, "q": 2.0, "q_lower": 1.5, "q_upper": 3.0, "cluster": 4.0},
        {"n": 300.0, "q": 4.0, "q_lower": 3.0, "q_upper": 5.0},
        {"n": 0.0, "q": 0.0, "q_lower": 0.0, "q_upper": 0.0},
    ]
    found = quantile.estimate(quantile.pool(days))
    errors = [quantile.estimate(day).se or math.nan for day in days[:2]]
    assert found.value == pytest.approx((100 * 2.0 + 300 * 4.0) / 400, rel=1e-12)
    assert found.se == pytest.approx(math.hypot(100 * errors[0], 300 * errors[1]) / 400, rel=1e-12)
    assert found.n == 400
    assert quantile.pool(days[::-1]) == quantile.pool(days)
    assert quantile.pool(days[:1]) == days[0]
    few = quantile.pool([{**days[0], "n": 3.0}, days[1]])
    with pytest.raises(TooFewUnits, match="too few units: 3, "):
        quantile.estimate(quantile.pool([few, days[1]]))
