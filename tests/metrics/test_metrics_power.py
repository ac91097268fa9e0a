"""Forecasts against other libraries, and against what simulated traffic and searches do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.power import NormalIndPower

from blackopt.errors import UsageError
from blackopt.metrics import power
from blackopt.optimizers.openai_es import OpenAIES, OpenAIESOptions
from blackopt.space import Space
from blackopt.types import Evaluation, Status


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.7])
@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_power_is_that_of_statsmodels(rate: float, ratio: float) -> None:
    n, lift = 3000.0, 0.05
    cv = power.proportion_cv(rate)
    found = power.power_of(lift, power.relative_se(cv, n, ratio * n))
    expected = NormalIndPower().power(lift / cv, n, 0.05, ratio=ratio)
    assert found == pytest.approx(expected, rel=1e-9)


def test_the_detectable_effect_is_found_with_its_power() -> None:
    cv, n = power.proportion_cv(0.08), 4500.0
    found = power.detectable(power.relative_se(cv, n, 2 * n))
    expected = NormalIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8, ratio=2.0)
    assert found == pytest.approx(cv * expected, rel=1e-5)
    se = 0.03
    assert power.power_of(power.detectable(se, power=0.9, alpha=0.01), se, alpha=0.01) == pytest.approx(0.9)


def test_power_without_an_effect_is_the_level() -> None:
    assert power.power_of(0.0, 0.1) == pytest.approx(0.05)
    assert power.power_of(0.0, 0.0) == 0.05
    assert power.power_of(0.1, 0.0) == 1.0
    assert power.power_of(-0.05, 0.02) == power.power_of(0.05, 0.02)


@pytest.mark.parametrize(
    ("rate", "arm", "control"), [(0.08, 4500, 9000), (0.3, 1000, 1000), (0.05, 2000, 20000)]
)
def test_the_standard_error_is_that_of_simulated_traffic(rate: float, arm: int, control: int) -> None:
    rng = np.random.default_rng(5)
    t, c = rng.binomial(arm, rate, 40_000) / arm, rng.binomial(control, rate, 40_000) / control
    simulated = float(np.std(t / c - 1.0))
    forecast = power.relative_se(power.proportion_cv(rate), arm, control)
    assert forecast == pytest.approx(simulated, rel=0.05)


def test_the_power_is_that_of_simulated_traffic() -> None:
    rng = np.random.default_rng(6)
    rate, lift, n, runs = 0.1, 0.06, 20_000, 20_000
    t, c = rng.binomial(n, rate * (1 + lift), runs), rng.binomial(n, rate, runs)
    pooled = (t + c) / (2 * n)
    z = (t - c) / n / np.sqrt(2 * pooled * (1 - pooled) / n)
    found = float(np.mean(np.abs(z) > stats.norm.ppf(0.975)))
    assert power.power_of(lift, power.relative_se(power.proportion_cv(rate), n, n)) == pytest.approx(
        found, abs=0.03
    )


def test_an_arm_without_a_control_has_its_own_error() -> None:
    rng = np.random.default_rng(7)
    simulated = float(np.std(rng.exponential(3.0, (5000, 400)).mean(axis=1) / 3.0))
    assert power.relative_se(1.0, 400, None) == pytest.approx(simulated, rel=0.05)


@pytest.mark.parametrize("arms", [1, 4, 16, 33])
def test_the_best_control_has_the_least_variance(arms: int) -> None:
    found = optimize.minimize_scalar(
        lambda share: arms * (1 / share + arms / (1 - share)), bounds=(1e-3, 1 - 1e-3), method="bounded"
    )
    assert power.best_control(arms) == pytest.approx(found.x, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: power.proportion_cv(0.0), "rate"),
        (lambda: power.proportion_cv(math.nan), "rate"),
        (lambda: power.relative_se(1.0, 0, 5), "units"),
        (lambda: power.relative_se(1.0, 5, 0), "units"),
        (lambda: power.relative_se(math.inf, 5, 5), "cv"),
    ],
)
def test_impossible_arguments_are_named(call: object, says: str) -> None:
    assert callable(call)
    with pytest.raises(UsageError, match=says):
        call()


def climb(se: float, *, n: int, population: int, runs: int) -> np.ndarray:
    """(runs,) how far up a slope of 1 a real `openai-es` has gone after one update."""
    space = Space.from_spec({"w": {"weights": n}})
    slope = np.ones(n) / math.sqrt(n)
    rng = np.random.default_rng(8)
    ends = []
    for seed in range(runs):
        options = OpenAIESOptions(population=population, sigma=SIGMA, seed=seed)
        optimizer = OpenAIES(space, np.zeros(n), options)
        asked = optimizer.ask(population)
        noise = rng.normal(0.0, se, population)
        optimizer.tell(
            [
                Evaluation(c.number, float(-c.vector @ slope + e), se=None, status=Status.OK)
                for c, e in zip(asked, noise, strict=True)
            ]
        )
        ends.append(float(optimizer.recommend() @ slope))
    return np.array(ends)


SIGMA = 0.2


@pytest.mark.parametrize("se", [0.02, 0.2, 1.0])
def test_an_update_of_the_real_optimizer_gains_what_is_forecast(se: float) -> None:
    ends = climb(se, n=5, population=16, runs=1500)
    # sixteen ranks are a little coarser than infinitely many, and twins a little better than independent ones
    error = 3 * float(np.std(ends)) / math.sqrt(ends.size)
    assert float(np.mean(ends)) == pytest.approx(power.gain(SIGMA, se), rel=0.1, abs=error)


def test_the_signal_of_an_update_is_forecast_where_noise_rules() -> None:
    ends = climb(1.0, n=5, population=16, runs=3000)
    found = float(np.mean(ends) / np.std(ends))
    assert power.signal_to_noise(SIGMA, 1.0, 16) == pytest.approx(found, rel=0.15)


def test_without_differences_there_is_no_signal() -> None:
    assert power.reliability(0.0, 0.0) == 0.0
    assert power.signal_to_noise(0.0, 0.1, 100) == 0.0
    assert power.reliability(0.1, 0.0) == 1.0


def test_the_spread_is_sigma_times_the_mean_slope() -> None:
    assert power.slope_spread(0.03, 0.16, 2.0) == pytest.approx(0.0024)
