"""Intervals that say 95 % hold the truth in 94 to 96 % of simulated experiments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from blackopt.metrics.effects import Estimates
from blackopt.metrics.kinds import kind

Array = np.ndarray[Any, Any]
Sums = Callable[[dict[str, Array]], dict[str, Array]]

RUNS = 8_000  # the coverage's own standard error is 0.24 points
Z = scipy_stats.norm.ppf(0.975)


def coverage(found: Estimates, truth: float) -> float:
    return float((np.abs(found.value - truth) <= Z * found.se).mean())


def draw(rng: np.random.Generator, n: int, lift: float) -> dict[str, Array]:
    """Sessions (den after, cov_den before) of more or less active units, and what they spend in them."""
    keen = rng.gamma(4.0, 0.25, (RUNS, n)).astype(np.float32)
    cov_den, den = 2.0 + rng.poisson(3 * keen), 2.0 + rng.poisson(3 * keen)
    spent = rng.standard_gamma(4.0, (2, RUNS, n), dtype=np.float32).astype(float)
    # Means: E[den] = 5 and E[keen · den] = 2 + 3·E[keen²] = 5.75 with E[keen²] = 1.25, times E[gamma] = 4.
    return {
        "num": spent[0] * keen * den * (1 + lift), "den": den, "cov": spent[1] * keen * cov_den,
        "cov_den": cov_den,
    }  # fmt: skip


@pytest.fixture(scope="module")
def arms() -> tuple[dict[str, Array], dict[str, Array]]:
    rng = np.random.default_rng(20)
    return draw(rng, 250, 0.2), draw(rng, 300, 0.0)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize(
    ("name", "cuped"), [("mean", False), ("mean", True), ("ratio", False), ("ratio", True)]
)
def test_of_means_and_ratios(
    arms: tuple[dict[str, Array], dict[str, Array]], sums: Sums, name: str, cuped: bool, relative: bool
) -> None:
    parts = {"mean": ("num", "cov"), "ratio": ("num", "den", "cov", "cov_den")}[name]
    t, c = (sums({part: arm[part] for part in parts}) for arm in arms)
    control = {"mean": 23.0, "ratio": 23.0 / 5.0}[name]
    truth = 0.2 if relative else 0.2 * control
    found = kind(name, cuped=cuped).effects(t, c, relative=relative)
    assert 0.94 <= coverage(found, truth) <= 0.96
    plain = kind(name).effects(t, c, relative=relative)
    if cuped:
        assert float(np.median(found.se / plain.se)) < 0.97


@pytest.mark.parametrize("relative", [True, False])
def test_of_proportions(relative: bool) -> None:
    rng = np.random.default_rng(21)
    t, c = (
        {"n": np.full(RUNS, float(n)), "sum": rng.binomial(n, p, RUNS).astype(float)}
        for n, p in ((4_000, 0.11), (5_000, 0.10))
    )
    found = kind("retention").effects(t, c, relative=relative)
    assert 0.94 <= coverage(found, 0.1 if relative else 0.01) <= 0.96


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_of_quantiles(level: float) -> None:
    rng = np.random.default_rng(22)
    n = 600

    def arm(scale: float) -> dict[str, Array]:
        # The k-th smallest of n uniform numbers is the quantile at k/(n + 1): only three ranks are needed.
        half = Z * math.sqrt(level * (1 - level) / n)
        ranks = [round(n * (level + side * half)) for side in (-1, 0, 1)]
        gaps = rng.standard_gamma(np.diff([0, *ranks, n + 1]), (RUNS, 4))
        places = np.cumsum(gaps, axis=1)[:, :3] / gaps.sum(axis=1, keepdims=True)
        low, mid, high = scale * scipy_stats.expon.ppf(places).T
        return {"n": np.full(RUNS, float(n)), "q": mid, "q_lower": low, "q_upper": high}

    found = kind("quantile", quantile=level).effects(arm(1.1), arm(1.0), relative=False)
    truth = 0.1 * scipy_stats.expon.ppf(level)
    assert 0.94 <= coverage(found, truth) <= 0.96
