"""Boundaries for repeated looks, against the martingale behind them, published tables, and simulation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from blackopt.errors import UsageError
from blackopt.metrics.sequential import (
    Spending,
    bonferroni_bound,
    boundary,
    mixture_precision,
    spending_bounds,
    spent,
)

LEVELS = st.floats(1e-4, 0.4)
FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


# -- confidence sequence -----------------------------------------------------------------------------------


@given(alpha=LEVELS, n=st.floats(1.0, 1e7), sharpest=st.floats(1.0, 1e7))
def test_the_boundary_is_where_the_mixture_martingale_has_grown_to_one_over_alpha(
    alpha: float, n: float, sharpest: float
) -> None:
    # Ville's inequality: 2/√(Nρ²+1) · exp(S²ρ²/(2(Nρ²+1))) · Φ(Sρ/√(Nρ²+1)), the mixture of exp(λS − λ²N/2)
    # over a half-normal λ of scale ρ, ever reaches 1/α with probability α at most.
    rho = mixture_precision(alpha, sharpest)
    s = boundary(n, alpha=alpha, sharpest=sharpest) * math.sqrt(n)
    grown = n * rho**2 + 1.0
    log_martingale = (
        math.log(2.0 / math.sqrt(grown))
        + (s * rho) ** 2 / (2.0 * grown)
        + math.log(NormalDist().cdf(s * rho / math.sqrt(grown)))
    )
    assert log_martingale >= -math.log(alpha) - 1e-9  # never too narrow
    assert log_martingale <= -math.log(alpha) + 2.0 * alpha + 1e-9  # and hardly too wide


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_it_is_sharpest_about_where_it_is_asked_to_be(alpha: float) -> None:
    def width(log_n: float) -> float:
        return boundary(1_000.0, alpha=alpha, sharpest=math.exp(log_n))

    found = minimize_scalar(width, bounds=(0.0, 20.0), method="bounded")
    # The closed form is that of the two-sided sequence at 2α: an approximation, best at small levels.
    assert width(math.log(1_000.0)) <= (1.0 + alpha / 15.0) * found.fun


@given(alpha=LEVELS, n=st.floats(1.0, 1e6), sharpest=st.floats(1.0, 1e6), unit=st.floats(0.01, 100.0))
def test_only_the_ratio_of_sizes_counts(alpha: float, n: float, sharpest: float, unit: float) -> None:
    one = boundary(n, alpha=alpha, sharpest=sharpest)
    assert boundary(n * unit, alpha=alpha, sharpest=sharpest * unit) == pytest.approx(one, rel=1e-9)


@given(low=st.floats(1e-4, 0.2), high=st.floats(1e-4, 0.2), n=st.floats(300.0, 1e6))
def test_a_stricter_level_has_a_wider_boundary(low: float, high: float, n: float) -> None:
    # Not so far below N*, where a looser level is made for a larger sample.
    low, high = sorted([low, high])
    assert boundary(n, alpha=low, sharpest=1_000.0) >= boundary(n, alpha=high, sharpest=1_000.0) - 1e-12


@given(alpha=LEVELS, n=st.floats(1.0, 1e6))
def test_it_is_wider_than_a_single_test(alpha: float, n: float) -> None:
    assert boundary(n, alpha=alpha, sharpest=1_000.0) > NormalDist().inv_cdf(1.0 - alpha)


def test_numbers_that_make_no_boundary_are_refused() -> None:
    for alpha in (0.0, 0.5, -1.0, math.nan):
        with pytest.raises(UsageError, match="alpha: expected"):
            boundary(10, alpha=alpha, sharpest=10)
    for n in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="n: expected"):
            boundary(n, alpha=0.05, sharpest=10)
        with pytest.raises(UsageError, match="sharpest: expected"):
            boundary(10, alpha=0.05, sharpest=n)


# -- alpha spending ----------------------------------------------------------------------------------------

# Five equal looks, one-sided 2.5 %: as printed by ldbounds (R), gsDesign (sfLDOF, sfLDPocock) and PASS.
PUBLISHED = [
    (Spending.OBRIEN_FLEMING, [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
    (Spending.POCOCK, [2.4380, 2.4268, 2.4102, 2.3966, 2.3860]),
]
# Linear spending at 5 %, of one side and of both, as spotify-confidence 4.1.0 gives it (`bounds`, rho=1).
UNEQUAL = [0.1, 0.35, 0.4, 0.9, 1.0]
FOREIGN = [
    (UNEQUAL, False, [2.57583, 2.20861, 2.33575, 1.86004, 1.95411]),
    (UNEQUAL, True, [2.80703, 2.47413, 2.61096, 2.16862, 2.27458]),
]


@pytest.mark.parametrize(("rule", "bounds"), PUBLISHED)
def test_bounds_are_those_of_published_tables(rule: Spending, bounds: list[float]) -> None:
    assert spending_bounds(FIFTHS, alpha=0.025, rule=rule) == pytest.approx(bounds, abs=1.5e-4)
    # With both sides at once, crossing the other one first is too rare to show.
    assert spending_bounds(FIFTHS, alpha=0.05, rule=rule, two_sided=True) == pytest.approx(bounds, abs=1.5e-3)


@pytest.mark.parametrize(("parts", "two_sided", "bounds"), FOREIGN)
def test_bounds_are_those_of_another_implementation(
    parts: list[float], two_sided: bool, bounds: list[float]
) -> None:
    found = spending_bounds(parts, alpha=0.05, rule=Spending.LINEAR, two_sided=two_sided)
    assert found == pytest.approx(bounds, abs=2e-4)


def test_one_look_at_the_end_is_the_ordinary_test() -> None:
    for rule in Spending:
        assert spending_bounds([1.0], alpha=0.05, rule=rule) == pytest.approx([1.6448536], abs=1e-6)
        two = spending_bounds([1.0], alpha=0.05, rule=rule, two_sided=True)
        assert two == pytest.approx([1.9599640], abs=1e-6)


@pytest.mark.parametrize("rule", list(Spending))
@given(alpha=LEVELS, a=st.floats(0.0, 1.0), b=st.floats(0.0, 1.0))
def test_spending_rises_from_nothing_to_the_whole_level(
    rule: Spending, alpha: float, a: float, b: float
) -> None:
    a, b = sorted([a, b])
    assert 0.0 <= spent(rule, a, alpha) <= spent(rule, b, alpha) + 1e-15
    assert spent(rule, 0.0, alpha) == 0.0
    assert spent(rule, 1.0, alpha) == pytest.approx(alpha, rel=1e-9)


@given(alpha=st.floats(0.001, 0.2), a=st.floats(0.01, 0.99))
def test_obrien_fleming_keeps_more_for_the_end_than_pocock(alpha: float, a: float) -> None:
    early = spent(Spending.OBRIEN_FLEMING, a, alpha)
    assert early <= spent(Spending.LINEAR, a, alpha) <= spent(Spending.POCOCK, a, alpha)


@pytest.mark.parametrize("rule", list(Spending))
@pytest.mark.parametrize("two_sided", [False, True])
def test_brownian_paths_cross_as_often_as_the_level_says(rule: Spending, two_sided: bool) -> None:
    parts = [0.07, 0.2, 0.21, 0.5, 0.8, 1.0]
    bounds = np.array(spending_bounds(parts, alpha=0.1, rule=rule, two_sided=two_sided))
    steps = np.sqrt(np.diff([0.0, *parts]))
    paths = np.cumsum(np.random.default_rng(5).standard_normal((40_000, len(parts))) * steps, axis=1)
    z = paths / np.sqrt(parts)
    crossed = ((np.abs(z) if two_sided else z) > bounds).any(axis=1).mean()
    assert crossed == pytest.approx(0.1, abs=0.005)  # 3.3 standard errors


def test_a_look_at_next_to_nothing_has_no_bound_to_cross() -> None:
    first, last = spending_bounds([1e-4, 1.0], alpha=0.05, rule=Spending.OBRIEN_FLEMING)
    assert first == math.inf
    assert last == pytest.approx(1.6448536, abs=1e-6)


@given(looks=st.integers(1, 1_000), alpha=LEVELS)
def test_bonferroni_divides_the_level(looks: int, alpha: float) -> None:
    bound = bonferroni_bound(looks, alpha)
    assert looks * (1.0 - NormalDist().cdf(bound)) == pytest.approx(alpha, rel=1e-6)
    assert bonferroni_bound(looks + 1, alpha) > bound


@pytest.mark.parametrize("parts", [[], [0.0, 1.0], [0.5, 0.5], [0.6, 0.5], [0.5, 1.1], [math.nan]])
def test_parts_that_do_not_rise_are_refused(parts: list[float]) -> None:
    with pytest.raises(UsageError, match="parts: expected"):
        spending_bounds(parts, alpha=0.05, rule=Spending.POCOCK)


def test_other_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="looks: expected"):
        bonferroni_bound(0, 0.05)
    with pytest.raises(UsageError, match="part: expected"):
        spent(Spending.POCOCK, 1.1, 0.05)
    with pytest.raises(UsageError, match="alpha: expected"):
        spending_bounds([1.0], alpha=0.6, rule=Spending.POCOCK)
