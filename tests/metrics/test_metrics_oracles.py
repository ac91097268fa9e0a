"""The same numbers as tea-tasting, statsmodels and scipy, from sums alone, to 1e-9."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm
import tea_tasting as tt  # type: ignore[import-untyped]  # it publishes no type hints
from scipy import stats as scipy_stats
from scipy.stats import mstats
from statsmodels.stats.proportion import proportions_ztest
from tea_tasting.aggr import Aggregates  # type: ignore[import-untyped]

from blackopt.metrics.kinds import kind
from blackopt.types import Estimate

Array = np.ndarray[Any, Any]
Sample = dict[str, Array]
Sums = Callable[[Sample], dict[str, Array]]

NAMES = ("num", "den", "cov", "cov_den")


def arm(seed: int, n: int, lift: float) -> Sample:
    """Orders over sessions after and before the exposure, all of them correlated."""
    rng = np.random.default_rng(seed)
    keen = rng.gamma(2.0, 0.5, n)
    cov_den = 1.0 + rng.poisson(3 * keen)
    den = 1.0 + rng.poisson(3 * keen)
    cov = rng.poisson(0.3 * keen * cov_den).astype(float)
    num = rng.poisson(0.3 * keen * den * (1 + lift)) + rng.normal(0.0, 0.1, n)
    return {"num": num, "den": den, "cov": cov, "cov_den": cov_den}


T, C = arm(1, 700, 0.2), arm(2, 1_900, 0.0)


def aggregates(sample: Sample) -> Aggregates:
    pairs = [(a, b) for a in NAMES for b in NAMES if a < b]
    return Aggregates(
        count_=len(sample["num"]),
        mean_={name: float(sample[name].mean()) for name in NAMES},
        var_={name: float(sample[name].var(ddof=1)) for name in NAMES},
        cov_={(a, b): float(np.cov(sample[a], sample[b])[0, 1]) for a, b in pairs},
    )


def scalars(columns: dict[str, Array]) -> dict[str, float]:
    return {name: float(value) for name, value in columns.items()}


def same(found: Estimate, value: float, se: float) -> None:
    assert found.value == pytest.approx(value, rel=1e-9)
    assert found.se == pytest.approx(se, rel=1e-9)


Z = scipy_stats.norm.ppf(0.975)


@pytest.mark.parametrize(
    ("name", "cuped", "metric"),
    [
        ("mean", False, tt.Mean("num", use_t=False)),
        ("mean", True, tt.Mean("num", "cov", use_t=False)),
        ("ratio", False, tt.RatioOfMeans("num", "den", use_t=False)),
        ("ratio", True, tt.RatioOfMeans("num", "den", "cov", "cov_den", use_t=False)),
    ],
    ids=["mean", "mean-cuped", "ratio", "ratio-cuped"],
)
def test_effects_equal_tea_tasting(sums: Sums, name: str, cuped: bool, metric: tt.Mean) -> None:
    parts = {"mean": ("num", "cov"), "ratio": NAMES}[name]
    own = kind(name, cuped=cuped)
    t, c = (scalars(sums({part: sample[part] for part in parts})) for sample in (T, C))
    theirs = metric.analyze_aggregates(aggregates(C), aggregates(T))
    first, second = own.arms(t, c)
    assert first.value == pytest.approx(theirs.treatment, rel=1e-9)
    assert second.value == pytest.approx(theirs.control, rel=1e-9)
    half = (theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / 2
    same(own.effect(t, c, relative=False), theirs.effect_size, half / Z)
    # Their interval of the lift is that of log(T/C); its width on that scale is the lift's error over T/C.
    lift = own.effect(t, c, relative=True)
    assert lift.value == pytest.approx(theirs.rel_effect_size, rel=1e-9)
    upper, lower = (1 + bound for bound in (theirs.rel_effect_size_ci_upper, theirs.rel_effect_size_ci_lower))
    assert lift.se is not None
    assert lift.se / (1 + lift.value) == pytest.approx(math.log(upper / lower) / 2 / Z, rel=1e-9)


def test_a_covariate_that_is_a_mean_equals_cuped_of_the_mean(sums: Sums) -> None:
    ones = [{**sample, "den": np.ones(len(sample["num"]))} for sample in (T, C)]
    ratio = [
        scalars(sums({"num": s["num"], "den": s["den"], "cov": s["cov"], "cov_den": s["den"]})) for s in ones
    ]
    mean = [scalars(sums({"num": s["num"], "cov": s["cov"]})) for s in ones]
    for relative in (True, False):
        found = kind("ratio", cuped=True).effect(ratio[0], ratio[1], relative=relative)
        expected = kind("mean", cuped=True).effect(mean[0], mean[1], relative=relative)
        same(found, expected.value, expected.se or math.nan)


def test_cuped_equals_regression_where_both_arms_have_the_same_past(sums: Sums) -> None:
    # With X̄ alike in both arms, θ is the slope of Y on X and the arm (Deng et al. 2013, section 3).
    past = C["cov"][:700]
    rng = np.random.default_rng(5)
    t, c = 0.3 + 0.8 * past + rng.normal(size=700), 0.8 * past + rng.normal(size=700)
    found = kind("mean", cuped=True).effect(
        *(scalars(sums({"num": y, "cov": past})) for y in (t, c)), relative=False
    )
    design = np.column_stack(
        [np.repeat([1.0, 0.0], 700), np.ones(1_400), np.concatenate([past, past]) - past.mean()]
    )
    fit = sm.OLS(np.concatenate([t, c]), design).fit()
    assert found.value == pytest.approx(fit.params[0], rel=1e-9)
    # Its residual variance is pooled over the arms and has one more degree of freedom gone.
    assert found.se == pytest.approx(fit.bse[0] * math.sqrt(1_397 / 1_398), rel=1e-9)


def test_the_difference_of_means_is_welchs_and_pooled_nearly_students(sums: Sums) -> None:
    t, c = (scalars(sums({"num": sample["num"]})) for sample in (T, C))
    mean = kind("mean")
    welch = mean.effect(t, c, relative=False)
    theirs = scipy_stats.ttest_ind(T["num"], C["num"], equal_var=False)
    assert welch.value / (welch.se or math.nan) == pytest.approx(theirs.statistic, rel=1e-9)
    pooled = mean.effect(t, c, relative=False, pooled=True)
    student = scipy_stats.ttest_ind(T["num"], C["num"])
    assert pooled.value / (pooled.se or math.nan) == pytest.approx(student.statistic, rel=1e-3)


def test_proportions_equal_statsmodels_and_tea_tasting(sums: Sums) -> None:
    t, c = {"n": 700, "sum": 91}, {"n": 1_900, "sum": 190}
    proportion = kind("proportion")
    found = proportion.effect(t, c, relative=False)
    z, _ = proportions_ztest([91, 190], [700, 1_900], prop_var=False)
    assert found.value / (found.se or math.nan) != pytest.approx(z, rel=1e-6)  # unpooled is another test
    unpooled = tt.Proportion("y", method="norm", correction=False, equal_var=False)
    theirs = unpooled.analyze_aggregates(
        *(Aggregates(count_=n, mean_={"y": y / n}, var_={}, cov_={}) for y, n in ((190, 1_900), (91, 700)))
    )
    assert found.value == pytest.approx(theirs.effect_size, rel=1e-9)
    assert 2 * scipy_stats.norm.sf(abs(found.value / (found.se or math.nan))) == pytest.approx(
        theirs.pvalue, rel=1e-9
    )
    # One variance for both arms is that of the score test, but for the part between the arms.
    pooled = proportion.effect(t, c, relative=False, pooled=True)
    between = 700 * 1_900 / 2_600**2 * found.value**2
    score = math.sqrt(((pooled.se or math.nan) ** 2) + between * (1 / 700 + 1 / 1_900))
    assert pooled.value / score == pytest.approx(z, rel=1e-9)


def test_the_delta_method_equals_the_jackknife(sums: Sums) -> None:
    m, d = C["num"], C["den"]
    left_out = (m.sum() - m) / (d.sum() - d)
    n = len(m)
    jackknife = math.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    found = kind("ratio").estimate(scalars(sums({"num": m, "den": d})))
    assert found.value == pytest.approx(m.sum() / d.sum(), rel=1e-12)
    assert found.se == pytest.approx(jackknife, rel=2e-3)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_a_quantiles_error_agrees_with_the_asymptotic_one(level: float) -> None:
    sample = np.random.default_rng(3).normal(size=200_000)
    half = Z * math.sqrt(level * (1 - level) / len(sample))
    q_lower, q, q_upper = np.quantile(sample, [level - half, level, level + half]).tolist()
    stats = {"n": len(sample), "q": q, "q_lower": q_lower, "q_upper": q_upper}
    found = kind("quantile", quantile=level).estimate(stats)
    density = scipy_stats.norm.pdf(scipy_stats.norm.ppf(level))
    assert found.se == pytest.approx(math.sqrt(level * (1 - level) / len(sample)) / density, rel=0.05)
    maritz_jarrett = float(mstats.mjci(sample[:2_000], prob=[level])[0])
    small = math.sqrt(level * (1 - level) / 2_000)
    q_lower, q, q_upper = np.quantile(sample[:2_000], [level - Z * small, level, level + Z * small]).tolist()
    found = kind("quantile", quantile=level).estimate(
        {"n": 2_000, "q": q, "q_lower": q_lower, "q_upper": q_upper}
    )
    assert found.se == pytest.approx(maritz_jarrett, rel=0.2)
