"""Kinds of metric: pooled cohorts equal the whole sample in any order; impossible ones are refused."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from blackopt.campaign import schema
from blackopt.campaign.schema import Metric
from blackopt.errors import UsageError
from blackopt.metrics.errors import ImpossibleStatistics, MetricError, TooFewUnits
from blackopt.metrics.kinds import KIND_NAMES, Kind, Revenue, kind
from blackopt_connectors._rows import STATS

RNG = np.random.default_rng(20240501)


RATIO = {"n": 3, "sum": 3, "sum_sq": 5, "den_sum": 6, "den_sum_sq": 14, "num_den": 7}
REVENUE = {"n": 3, "sum": 12, "sum_sq": 104, "raw_sum": 22, "raw_sum_sq": 404}


def declared(name: str, *, cuped: bool = False) -> Kind:
    """A kind with the options that it must have."""
    cap, quantile = 10.0 if name == "revenue" else None, 0.9 if name == "quantile" else None
    return kind(name, cuped=cuped, cap=cap, quantile=quantile)


def sums(sample: np.ndarray[Any, Any]) -> dict[str, float]:
    return {"n": len(sample), "sum": math.fsum(sample), "sum_sq": math.fsum(y * y for y in sample.tolist())}


@pytest.mark.parametrize("n", [2, 17, 5_000])
def test_mean_equals_the_raw_sample(n: int) -> None:
    sample = RNG.lognormal(3.0, 1.5, size=n)
    estimate = kind("mean").estimate(sums(sample))
    assert estimate.value == pytest.approx(statistics.fmean(sample), rel=1e-12)
    assert estimate.se == pytest.approx(scipy_stats.sem(sample), rel=1e-9)
    assert estimate.n == n


@pytest.mark.parametrize("n", [1, 40, 5_000])
def test_proportion_equals_the_raw_sample(n: int) -> None:
    sample = (RNG.random(n) < 0.2).astype(float)
    estimate = kind("proportion").estimate({"n": n, "sum": sample.sum()})
    assert estimate.value == pytest.approx(statistics.fmean(sample), rel=1e-12)
    assert estimate.se == pytest.approx(statistics.pstdev(sample) / math.sqrt(n), rel=1e-9)


@pytest.mark.parametrize("name", ["proportion", "mean"])
def test_pooled_cohorts_equal_the_whole_sample(name: str) -> None:
    sample = (RNG.random(3_000) < 0.1).astype(float)
    cohorts = [sums(part) for part in np.split(sample, [100, 101, 1_500])]
    metric = kind(name)
    assert metric.estimate(metric.pool(cohorts)) == metric.estimate(sums(sample))


number = st.floats(-1e9, 1e9)


@settings(deadline=None)
@given(st.lists(number, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_f44_the_order_of_readings_does_not_change_a_bit(values: list[float], order: random.Random) -> None:
    readings: dict[str, list[dict[str, float]]] = {
        "mean": [{"n": 3, "sum": v, "sum_sq": v * v} for v in values],
        "proportion": [{"n": abs(v), "sum": abs(v) / 3} for v in values],
        "value": [{"value": v, "se": abs(v) + 1e-3, "n": 2} for v in values],
    }
    readings["spread"] = [{"value": v} for v in values]
    readings["ratio"] = [{key: v + i for i, key in enumerate(RATIO)} for v in values]
    readings["quantile"] = [{"n": abs(v), "q": v, "q_lower": v - 1, "q_upper": v + 2} for v in values]
    for name, given_order in readings.items():
        metric = declared("value" if name == "spread" else name)
        shuffled = given_order.copy()
        order.shuffle(shuffled)
        assert metric.pool(shuffled) == metric.pool(given_order)


def test_a_large_mean_keeps_its_variance() -> None:
    sample = 1e6 + RNG.normal(size=4_000)
    exact = kind("mean").estimate(sums(sample)).se
    # Σy² near 4e15 is known to half a unit, SS is near 4e3: about four digits of it are left.
    assert exact == pytest.approx(scipy_stats.sem(sample), rel=1e-3)


def test_a_variance_lost_in_rounding_does_not_pass_for_certainty() -> None:
    sample = 1e9 + RNG.normal(size=100)
    estimate = kind("mean").estimate({"n": 100, "sum": sample.sum(), "sum_sq": sample.sum() ** 2 / 100})
    assert estimate.se is not None
    assert estimate.se >= math.sqrt(math.ulp(1e20) / 2 / 99 / 100) * 0.7 > 0.1


def test_one_unit_has_a_mean_but_no_standard_error() -> None:
    estimate = kind("mean").estimate({"n": 1, "sum": 5, "sum_sq": 25})
    assert (estimate.value, estimate.se, estimate.n) == (5.0, None, 1.0)


def test_a_value_is_taken_as_it_is() -> None:
    metric = kind("value")
    alone = metric.estimate(metric.pool([{"value": -2.5, "se": 0.5}]))
    assert (alone.value, alone.se, alone.n) == (-2.5, 0.5, 1.0)
    assert metric.estimate({"value": 3}).se is None


def test_values_with_standard_errors_are_weighted_by_inverse_variance() -> None:
    metric = kind("value")
    pooled = metric.pool([{"value": 1.0, "se": 1.0, "n": 10}, {"value": 4.0, "se": 2.0, "n": 5}])
    estimate = metric.estimate(pooled)
    assert estimate.value == pytest.approx((1.0 / 1 + 4.0 / 4) / (1 + 1 / 4), rel=1e-14)
    assert estimate.se == pytest.approx(math.sqrt(1 / (1 + 1 / 4)), rel=1e-14)
    assert estimate.n == metric.units(pooled) == 15.0


def test_values_without_standard_errors_get_that_of_their_spread() -> None:
    metric = kind("value")
    values = [3.0, 4.5, 7.0, 1.25]
    estimate = metric.estimate(metric.pool([{"value": v} for v in values]))
    assert estimate.value == statistics.fmean(values)
    assert estimate.se == pytest.approx(scipy_stats.sem(values), rel=1e-12)
    some = metric.estimate(metric.pool([{"value": 3.0, "se": 0.1}, {"value": 4.0}]))
    assert some.se == pytest.approx(0.5)


@pytest.mark.parametrize("name", KIND_NAMES)
def test_no_readings_are_no_units(name: str) -> None:
    metric = declared(name)
    empty = metric.pool([])
    assert metric.units(empty) == 0
    assert metric.validate(empty) is None
    with pytest.raises(TooFewUnits, match="at least one unit, got none"):
        metric.estimate(empty)


@pytest.mark.parametrize(
    ("name", "stats", "problem"),
    [
        ("proportion", {"n": 3}, "a proportion needs n, sum; missing: sum"),
        ("proportion", {"n": -1, "sum": 0}, "n is -1, below 0"),
        ("proportion", {"n": 3, "sum": 4}, "sum is 4, not between 0 and n = 3"),
        ("proportion", {"n": 3, "sum": -1}, "not between"),
        ("proportion", {"n": 0, "sum": 1}, "not between 0 and n = 0"),
        ("mean", {"n": 3, "sum": 1}, "missing: sum_sq"),
        ("mean", {"n": -3, "sum": 1, "sum_sq": 1}, "below 0"),
        ("mean", {"n": 3, "sum": 0, "sum_sq": -1}, "sum_sq is -1, below 0"),
        ("mean", {"n": 0, "sum": 1, "sum_sq": 1}, "n is 0, but sum is 1"),
        ("mean", {"n": 2, "sum": 4, "sum_sq": 7.9}, "less than sum²/n = 8.0"),
        ("retention", {"n": 3, "sum": 4}, "sum is 4, not between 0 and n = 3"),
        ("mean", {"n": 3, "sum": 1, "sum_sq": 1, "events": 4}, "events is 4, not between 0 and n = 3"),
        ("ratio", {**RATIO, "den_sum_sq": -1}, "den_sum_sq is -1, below 0"),
        ("ratio", {**RATIO, "den_sum_sq": 8.9}, "den_sum_sq is 8.9, less than den_sum²/n = 12.0"),
        ("ratio", {**RATIO, "num_den": 9}, "num_den is 9: no numbers with these sums and squares have it"),
        ("ratio", {**RATIO, "n": 0}, "n is 0, but den_sum is 6 and den_sum_sq is 14"),
        (
            "ratio",
            {"n": 3, "sum": 1},
            "a ratio needs den_sum, den_sum_sq, n, num_den, sum, sum_sq; missing: den",
        ),
        ("revenue", {**REVENUE, "sum": 31}, "sum is 31, more than 3 units of at most 10 can have"),
        ("revenue", {**REVENUE, "raw_sum": 11}, "raw_sum is 11, less than the capped sum, 12"),
        ("revenue", {**REVENUE, "raw_sum_sq": 1}, "without the cap, sum_sq is 1, less than sum²/n"),
        ("quantile", {"n": 90, "q": 2, "q_lower": 3, "q_upper": 4}, "3, 2, 4, not in ascending order"),
        (
            "quantile",
            {"n": 90, "q": 2, "q_lower": 1, "q_upper": 4, "cluster": 0},
            "cluster is 0, not above 0",
        ),
        ("value", {}, "a value needs value; missing: value"),
        ("value", {"value": 1, "se": -0.1}, "se is -0.1, below 0"),
        ("value", {"value": 1, "n": -1}, "n is -1, below 0"),
    ],
)
def test_impossible_statistics_are_named(name: str, stats: dict[str, float], problem: str) -> None:
    found = declared(name).validate(stats)
    assert found is not None
    assert problem in found
    with pytest.raises(ImpossibleStatistics, match="impossible statistics: ") as caught:
        declared(name).estimate(stats)
    assert isinstance(caught.value, MetricError)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "1", True, None, 1e200])
def test_f48_what_is_no_finite_number_is_rejected(bad: object) -> None:
    for name, stats in (
        ("value", {"value": bad}),
        ("value", {"value": 1.0, "se": bad}),
        ("mean", {"n": 2, "sum": bad, "sum_sq": 4}),
        ("proportion", {"n": bad, "sum": 0}),
    ):
        problem = kind(name).validate(stats)  # type: ignore[arg-type]
        assert problem is not None
        assert "number" in problem


def test_further_statistics_are_ignored() -> None:
    metric = kind("proportion")
    reading = {"n": 310, "sum": 57, "sum_sq": 57}
    assert metric.validate(reading) is None
    assert metric.pool([reading]) == {"n": 310, "sum": 57}


def test_rounding_of_a_source_that_adds_naively_is_no_error() -> None:
    n, y = 1_000, 0.1
    assert kind("mean").validate({"n": n, "sum": n * y, "sum_sq": n * y * y * (1 - 1e-13)}) is None


CUPED = ("mean", "revenue", "ratio")
COLUMNS = {key for name in KIND_NAMES for key in declared(name).required | declared(name).optional}
COLUMNS |= {key for name in CUPED for key in declared(name, cuped=True).required}


def test_the_campaign_knows_the_same_kinds() -> None:
    assert get_args(Metric.model_fields["kind"].annotation) == KIND_NAMES
    assert schema.CUPED == CUPED


def test_sources_know_every_column_and_the_page_explains_it() -> None:
    made_by_pooling = {"n_least"}
    assert set(STATS) == COLUMNS - made_by_pooling
    page = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert [name for name in (*STATS, *KIND_NAMES) if f"`{name}`" not in page] == []


def test_an_unknown_kind_is_named_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"expected one of proportion, .*, got 'proprotion'; did you mean proportion"
    ):
        kind("proprotion")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("quantile", {}, "quantile: expected for a quantile and only there, got None for a quantile"),
        ("mean", {"quantile": 0.5}, "quantile: expected for a quantile and only there, got 0.5 for a mean"),
        ("revenue", {}, "cap: expected for a revenue"),
        ("mean", {"cap": 3.0}, "cap: expected for a revenue and only there, got 3.0 for a mean"),
        ("proportion", {"cuped": True}, "cuped: expected for mean, revenue, ratio only, got a proportion"),
        ("quantile", {"quantile": 1.0}, "quantile: expected a number between 0 and 1, got 1.0"),
    ],
)
def test_a_kind_takes_its_own_options_only(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        kind(name, **options)


def test_a_reading_that_lacks_a_statistic_is_named_when_it_is_pooled() -> None:
    for name in KIND_NAMES:
        with pytest.raises(ImpossibleStatistics, match=f"a {name} needs .*; missing: "):
            declared(name).pool([{"x": 1.0}])


def test_revenue_is_tested_with_the_cap_and_reported_without() -> None:
    paid = RNG.lognormal(3.0, 1.5, size=4_000) * (RNG.random(4_000) < 0.03)
    capped = np.minimum(paid, 30.0)
    raw = sums(paid)
    revenue = kind("revenue", cap=30.0)
    stats = {**sums(capped), "raw_sum": raw["sum"], "raw_sum_sq": raw["sum_sq"]}
    assert revenue.estimate(stats) == kind("mean").estimate(sums(capped))
    assert isinstance(revenue, Revenue)
    assert revenue.raw(stats) == kind("mean").estimate(raw)
    assert revenue.raw(revenue.pool([stats, stats])).n == 8_000


def test_a_ratio_whose_numerator_is_a_multiple_is_certain_and_no_rounding_is() -> None:
    views = RNG.integers(1, 9, size=500)
    stats = {
        "n": 500, "sum": 2 * views.sum(), "sum_sq": 4 * (views**2).sum(), "den_sum": views.sum(),
        "den_sum_sq": (views**2).sum(), "num_den": 2 * (views**2).sum(),
    }  # fmt: skip
    estimate = kind("ratio").estimate({key: float(value) for key, value in stats.items()})
    assert estimate.value == 2.0
    assert estimate.se is not None
    assert 0 < estimate.se < 1e-7
