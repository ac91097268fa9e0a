"""What a surrogate's effect stands for, and what matured pairs say of the slope and the error declared."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blackopt.errors import UsageError
from blackopt.metrics.surrogate import FEWEST_PAIRS, Fit, Pair, expected, fit
from blackopt.types import Estimate


def test_the_error_of_the_slope_is_part_of_the_standard_error() -> None:
    found = expected(Estimate(0.1, 0.03, 500.0), slope=-0.5, error=0.02)
    assert found.value == -0.05
    assert found.se == pytest.approx(math.sqrt(0.25 * 0.03**2 + 0.02**2))
    assert found.n == 500.0


def test_a_perfect_surrogate_only_scales() -> None:
    assert expected(Estimate(0.1, 0.03, 1.0), slope=2.0, error=0.0) == Estimate(0.2, 0.06, 1.0)


def test_no_standard_error_stays_unknown() -> None:
    assert expected(Estimate(0.1, None, 1.0), slope=2.0, error=0.1).se is None


def campaign(
    rng: np.random.Generator,
    *,
    slope: float,
    error: float,
    windows: int = 24,
    arms: int = 8,
    noise: float = 0.02,
) -> list[Pair]:
    """Arms with true effects of about 4 %, whose control's noise they share."""
    pairs = []
    se_x, se_y = math.hypot(noise, noise / 2), math.hypot(1.5 * noise, noise / 2)
    for window in range(1, windows + 1):
        x = rng.normal(0.0, 0.04, arms)
        y = slope * x + rng.normal(0.0, error, arms)
        control_x, control_y = rng.normal(0, noise / 2, 2)
        seen_x = x + rng.normal(0, noise, arms) - control_x
        seen_y = y + rng.normal(0, 1.5 * noise, arms) - control_y
        pairs += [
            Pair(window, Estimate(a, se_x, 1.0), Estimate(b, se_y, 1.0))
            for a, b in zip(seen_x, seen_y, strict=True)
        ]
    return pairs


@pytest.mark.parametrize("slope", [0.4, -1.5])
def test_a_planted_slope_and_error_are_found_without_bias(slope: float) -> None:
    rng = np.random.default_rng(7)
    found = [fit(campaign(rng, slope=slope, error=0.03)) for _ in range(300)]
    fits = [f for f in found if isinstance(f, Fit)]
    assert len(fits) == 300
    assert np.mean([f.slope for f in fits]) == pytest.approx(slope, rel=0.03)
    assert np.mean([f.error for f in fits]) == pytest.approx(0.03, rel=0.05)
    covered = np.mean([abs(f.slope - slope) < 1.96 * f.se for f in fits])
    assert 0.90 < covered < 0.98
    assert np.std([f.slope for f in fits]) == pytest.approx(np.mean([f.se for f in fits]), rel=0.15)


def test_least_squares_would_flatten_the_slope() -> None:
    rng = np.random.default_rng(8)
    pairs = campaign(rng, slope=1.0, error=0.0, windows=400, noise=0.03)
    x, y = (np.array([getattr(p, k).value for p in pairs]) for k in ("surrogate", "objective"))
    assert (x @ y) / (x @ x) < 0.75
    found = fit(pairs)
    assert found is not None
    assert found.slope == pytest.approx(1.0, abs=0.05)


def test_noise_alone_is_no_error() -> None:
    rng = np.random.default_rng(9)
    found = fit(campaign(rng, slope=0.5, error=0.0, windows=200))
    assert found is not None
    assert found.error < 0.01


def test_few_pairs_say_nothing() -> None:
    rng = np.random.default_rng(10)
    pairs = campaign(rng, slope=0.5, error=0.0, windows=4, arms=2)
    assert len(pairs) == FEWEST_PAIRS
    assert fit(pairs) is not None
    assert fit(pairs[:-1]) is None
    assert fit(campaign(rng, slope=0.5, error=0.0, windows=2, arms=8)) is None


def test_a_surrogate_that_never_moved_has_no_slope() -> None:
    rng = np.random.default_rng(11)
    pairs = [
        Pair(w, Estimate(rng.normal(0, 0.02), 0.02, 1.0), Estimate(rng.normal(0, 0.02), 0.02, 1.0))
        for w in range(1, 41)
    ]
    assert fit(pairs) is None


def test_effects_without_standard_errors_are_refused() -> None:
    pairs = [Pair(w, Estimate(0.1, None, 1.0), Estimate(0.1, 0.1, 1.0)) for w in range(1, 11)]
    with pytest.raises(UsageError, match="standard errors"):
        fit(pairs)
