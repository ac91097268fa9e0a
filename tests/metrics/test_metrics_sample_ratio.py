"""Sample ratios, against scipy and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from blackopt.errors import UsageError
from blackopt.metrics.sample_ratio import chi_squared_tail, sample_ratio


@given(x=st.floats(0.0, 600.0), degrees=st.integers(1, 300))
def test_the_tail_is_scipys(x: float, degrees: int) -> None:
    assert chi_squared_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-300)


def test_the_ends_of_the_tail() -> None:
    assert chi_squared_tail(0.0, 3) == 1.0
    assert chi_squared_tail(math.inf, 3) == 0.0
    for x, degrees in ((-1.0, 3), (math.nan, 3), (1.0, 0)):
        with pytest.raises(UsageError, match="expected x"):
            chi_squared_tail(x, degrees)


@given(
    st.lists(st.tuples(st.integers(50, 5_000), st.integers(1_000, 200_000)), min_size=2, max_size=20).filter(
        lambda pairs: min(w for _, w in pairs) / sum(w for _, w in pairs) * sum(n for n, _ in pairs) >= 5
    )
)
def test_the_test_is_pearsons(pairs: list[tuple[int, int]]) -> None:
    units = {f"t{i}": float(n) for i, (n, _) in enumerate(pairs)}
    widths = {f"t{i}": float(w) for i, (_, w) in enumerate(pairs)}
    total, whole = sum(units.values()), sum(widths.values())
    oracle = stats.chisquare([*units.values()], [w / whole * total for w in widths.values()])
    found = sample_ratio(units, widths)
    assert found is not None
    assert found.chi_squared == pytest.approx(oracle.statistic, rel=1e-9)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9, abs=1e-300)
    assert found.flagged == (oracle.pvalue < 0.001)


def test_a_mismatch_names_the_arm_that_is_farthest_off() -> None:
    units = {"control": 20_000.0, "t1": 10_000.0, "t2": 9_400.0}
    widths = {"control": 200_000.0, "t1": 100_000.0, "t2": 100_000.0}
    found = sample_ratio(units, widths)
    assert found is not None
    assert found.flagged
    assert str(found) == "t2 has 9400 units where its slice gives 9850 (p = 1e-06)"


def test_more_looks_ask_for_more_proof() -> None:
    units, widths = {"a": 10_000.0, "b": 10_500.0}, {"a": 1.0, "b": 1.0}
    once, often = sample_ratio(units, widths), sample_ratio(units, widths, looks=10)
    assert once is not None
    assert often is not None
    assert 1e-4 < once.p < 1e-3
    assert (once.flagged, often.flagged) == (True, False)


def test_sound_windows_are_flagged_once_in_a_thousand() -> None:
    rng, widths = np.random.default_rng(11), {"control": 2.0, "t0": 1.0, "t1": 1.0, "t2": 1.0}
    shares = [w / 5.0 for w in widths.values()]
    flagged = 0
    for counts in rng.multinomial(3_000, shares, size=20_000).tolist():
        found = sample_ratio(dict(zip(widths, map(float, counts), strict=True)), widths)
        assert found is not None
        flagged += found.flagged
    assert flagged <= 36  # expected 20; 99.95 % quantile of the Poisson


def test_an_arm_that_loses_a_tenth_is_found() -> None:
    rng, found = np.random.default_rng(12), 0
    for counts in rng.multinomial(60_000, [0.2, 0.2, 0.2, 0.2, 0.2], size=100).tolist():
        units = dict(zip("abcde", map(float, counts), strict=True)) | {"e": counts[4] * 0.9}
        result = sample_ratio(units, dict.fromkeys("abcde", 1.0))
        found += result is not None and result.flagged and result.farthest == "e"
    assert found == 100


def test_too_little_says_nothing() -> None:
    assert sample_ratio({"a": 5.0}, {"a": 1.0}) is None
    assert sample_ratio({}, {}) is None
    assert sample_ratio({"a": 1.0, "b": 8.0}, {"a": 1.0, "b": 1.0}) is None
    assert sample_ratio({"a": 0.0, "b": 10.0}, {"a": 1.0, "b": 1.0}) is not None


@pytest.mark.parametrize(
    ("units", "widths", "looks", "message"),
    [
        ({"a": 1.0}, {"b": 1.0}, 1, "widths: expected those of"),
        ({"a": -1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, 1, "units: expected"),
        ({"a": math.nan, "b": 1.0}, {"a": 1.0, "b": 1.0}, 1, "units: expected"),
        ({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, 1, "widths above 0"),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, 0, "at least one look"),
    ],
)
def test_impossible_numbers_are_refused(
    units: dict[str, float], widths: dict[str, float], looks: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        sample_ratio(units, widths, looks=looks)
