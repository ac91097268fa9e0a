"""Everything that delays a metric adds up, and nothing is known a moment before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt.errors import UsageError
from blackopt.metrics.maturity import Maturity

DURATIONS = st.integers(0, 10**15)


def test_each_delay_counts_once() -> None:
    rule = Maturity(window_us=1_000, lag_us=200, bake_us=30, within_us=4)
    assert rule.mature_at(50_000) == 51_234


@given(DURATIONS, DURATIONS, DURATIONS, DURATIONS, DURATIONS)
def test_it_has_matured_from_that_moment_on(end: int, window: int, lag: int, bake: int, within: int) -> None:
    rule = Maturity(window, lag, bake, within)
    at = rule.mature_at(end)
    assert at >= end + max(window, lag, bake, within)
    assert rule.is_mature(at, end)
    assert not rule.is_mature(at - 1, end)


def test_without_more_a_metric_is_known_after_its_window_and_lag() -> None:
    assert Maturity(7, 2) == Maturity(7, 2, 0, 0)


@pytest.mark.parametrize("field", ["window_us", "lag_us", "bake_us", "within_us"])
def test_no_delay_is_negative(field: str) -> None:
    delays = {"window_us": 1, "lag_us": 1, field: -1}
    with pytest.raises(UsageError, match=f"expected {field} of at least 0"):
        Maturity(**delays)
