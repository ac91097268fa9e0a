"""Ten thousand arms at once give the numbers, and the errors, of one arm at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from blackopt.errors import UsageError
from blackopt.metrics.errors import ConstantMetric, ImpossibleStatistics, ZeroControlError, ZeroDenominator
from blackopt.metrics.kinds import Kind, kind

Array = np.ndarray[Any, Any]
Sums = Callable[[dict[str, Array]], dict[str, Array]]

ARMS, UNITS = 40, 60


def samples(seed: int, lift: float = 0.0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    keen = rng.gamma(2.0, 0.5, (ARMS, UNITS))
    cov_den = 1.0 + rng.poisson(3 * keen)
    den = 1.0 + rng.poisson(3 * keen)
    return {
        "num": rng.gamma(2.0, keen * den * (1 + lift)), "den": den,
        "cov": rng.gamma(2.0, keen * cov_den), "cov_den": cov_den,
    }  # fmt: skip


def table(name: str, cuped: bool, sums: Sums, seed: int, lift: float = 0.0) -> tuple[Kind, dict[str, Array]]:
    drawn = samples(seed, lift)
    if name in ("proportion", "retention"):
        column = {"n": np.full(ARMS, 60.0), "sum": np.random.default_rng(seed).binomial(60, 0.3, ARMS) * 1.0}
        return kind(name), column
    if name == "quantile":
        low, mid, high = np.sort(np.random.default_rng(seed).gamma(3.0, size=(3, ARMS)), axis=0)
        column = {"n": np.full(ARMS, 60.0), "q": mid, "q_lower": low, "q_upper": high}
        return kind(name, quantile=0.9), {**column, "cluster": np.linspace(1, 3, ARMS)}
    if name == "value":
        rng = np.random.default_rng(seed)
        return kind(name), {"value": rng.normal(size=ARMS), "se": rng.gamma(1.0, size=ARMS)}
    if name == "revenue":
        capped = sums({"num": np.minimum(drawn["num"], 9.0), "cov": drawn["cov"]})
        raw = sums({"num": drawn["num"]})
        return kind(name, cuped=cuped, cap=9.0), {
            **capped, "raw_sum": raw["sum"], "raw_sum_sq": raw["sum_sq"]
        }  # fmt: skip
    parts = {"mean": ("num", "cov"), "ratio": ("num", "den", "cov", "cov_den")}[name]
    return kind(name, cuped=cuped), sums({part: drawn[part] for part in parts})


KINDS = [
    ("proportion", False), ("retention", False), ("mean", False), ("mean", True), ("revenue", False),
    ("revenue", True), ("ratio", False), ("ratio", True), ("quantile", False), ("value", False),
]  # fmt: skip


def row(columns: dict[str, Array], i: int) -> dict[str, float]:
    return {name: float(column[i]) for name, column in columns.items()}


@pytest.mark.parametrize(("name", "cuped"), KINDS)
def test_many_estimates_are_single_ones(sums: Sums, name: str, cuped: bool) -> None:
    own, columns = table(name, cuped, sums, seed=1)
    many = own.estimates(columns)
    for i in range(ARMS):
        one = own.estimate(row(columns, i))
        assert many.value[i] == pytest.approx(one.value, rel=1e-12)
        assert many.se[i] == pytest.approx(one.se, rel=1e-10)
        assert many.n[i] == one.n


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize(("name", "cuped"), KINDS)
def test_many_effects_are_single_ones(
    sums: Sums, name: str, cuped: bool, relative: bool, pooled: bool
) -> None:
    own, treatments = table(name, cuped, sums, seed=2, lift=0.3)
    controls = {column: values[:1] for column, values in table(name, cuped, sums, seed=3)[1].items()}
    many = own.effects(treatments, controls, relative=relative, pooled=pooled)
    for i in range(ARMS):
        one = own.effect(row(treatments, i), row(controls, 0), relative=relative, pooled=pooled)
        assert many.value[i] == pytest.approx(one.value, rel=1e-9, abs=1e-12)
        assert many.se[i] == pytest.approx(one.se, rel=1e-9)
        assert many.n[i] == one.n


def test_rows_that_cancel_are_computed_exactly(sums: Sums) -> None:
    # The variance is 1e-14 of Σy²: in float64 two digits of it would be left.
    sample = 2.0**23 + np.random.default_rng(4).integers(-3, 4, (ARMS, UNITS)).astype(float)
    columns = sums({"num": sample})  # whole numbers below 2⁵³: these sums are exact
    many = kind("mean").estimates(columns)
    assert many.se == pytest.approx(sample.std(axis=1, ddof=1) / math.sqrt(UNITS), rel=1e-12)


def test_unknown_errors_are_not_numbers() -> None:
    found = kind("value").estimates({"value": np.array([1.0, 2.0])})
    assert found.value.tolist() == [1.0, 2.0]
    assert np.isnan(found.se).all()
    single = {"n": np.array([1.0]), "sum": np.array([5.0]), "sum_sq": np.array([25.0])}
    assert kind("mean").estimates(single).value.tolist() == [5.0]
    assert np.isnan(kind("mean").estimates(single).se).all()


def test_the_first_row_that_is_wrong_is_named(sums: Sums) -> None:
    mean, columns = table("mean", False, sums, seed=5)
    columns["sum_sq"][17] = 0.5
    with pytest.raises(ImpossibleStatistics, match=r"sum_sq is 0\.5, less than sum²/n") as caught:
        mean.estimates(columns)
    assert caught.value.where == "row 17"
    columns["n"][3] = math.nan
    with pytest.raises(ImpossibleStatistics, match="n is nan") as caught:
        mean.estimates(columns)
    assert caught.value.where == "row 3"


def test_products_that_no_numbers_have_are_found(sums: Sums) -> None:
    ratio, columns = table("ratio", False, sums, seed=6)
    columns["num_den"][5] *= -3
    with pytest.raises(ImpossibleStatistics, match=r"num_den is .*: no numbers with these sums"):
        ratio.estimates(columns)


@pytest.mark.parametrize(
    ("column", "bad", "said"),
    [
        ("sum", 1e9, "sum is 1000000000.0, more than"),
        ("raw_sum", 1.0, "raw_sum is 1.0, less than"),
        ("raw_sum_sq", 1.0, "without the cap, sum_sq is 1.0, less than"),
        ("events", 61.0, "events is 61.0, not between 0 and n"),
    ],
)
def test_revenue_is_checked_row_by_row(sums: Sums, column: str, bad: float, said: str) -> None:
    revenue, columns = table("revenue", False, sums, seed=7)
    columns["events"] = columns["n"] / 2
    revenue.estimates(columns)
    columns[column][8] = bad
    with pytest.raises(ImpossibleStatistics, match=said) as caught:
        revenue.estimates(columns)
    assert caught.value.where == "row 8"


def test_effects_name_what_single_ones_name(sums: Sums) -> None:
    own, columns = table("proportion", False, sums, seed=8)
    nothing = {"n": np.array([60.0]), "sum": np.array([0.0])}
    with pytest.raises(ZeroControlError) as caught:
        own.effects(columns, nothing, relative=True)
    assert caught.value.where == "row 0"
    columns["sum"][4] = 0.0
    with pytest.raises(ConstantMetric) as constant:
        own.effects(columns, nothing, relative=False)
    assert constant.value.where == "row 4"
    ratio, columns = table("ratio", False, sums, seed=8)
    columns["sum"][2] = columns["sum_sq"][2] = 0.0
    for column in ("den_sum", "den_sum_sq", "num_den"):
        columns[column][2] = 0.0
    with pytest.raises(ZeroDenominator, match="den_sum is 0 in 60 units"):
        ratio.estimates(columns)


def test_an_arm_without_events_is_settled_as_alone(sums: Sums) -> None:
    own, columns = table("proportion", False, sums, seed=9)
    columns["sum"][3] = 0.0
    control = {"n": np.array([600.0]), "sum": np.array([60.0])}
    many = own.effects(columns, control, relative=True)
    one = own.effect({"n": 60, "sum": 0}, {"n": 600, "sum": 60}, relative=True)
    assert (many.value[3], many.se[3]) == (one.value, one.se)
    assert one.se is not None
    assert one.se > 0.3


def test_columns_must_fit() -> None:
    with pytest.raises(UsageError, match="columns: a mean needs n, sum, sum_sq; missing: sum_sq"):
        kind("mean").estimates({"n": np.ones(2), "sum": np.ones(2)})
    with pytest.raises(UsageError, match=r"columns: expected arrays of one length.* n \(2,\), sum \(3,\)"):
        kind("proportion").estimates({"n": np.ones(2), "sum": np.ones(3)})
