"""A covariate that a candidate moved is found; one from before the exposure is not, whatever its tail."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blackopt.errors import UsageError
from blackopt.metrics.covariate import FEWEST, LIMIT, imbalance, limit
from blackopt.metrics.kinds import Average, Mean, Ratio, Stats

CUPED = Mean(cuped=True)
ARMS = 16


def stats(y: np.ndarray, x: np.ndarray) -> Stats:
    return {
        "n": float(len(y)),
        "sum": float(y.sum()),
        "sum_sq": float((y * y).sum()),
        "cov_sum": float(x.sum()),
        "cov_sum_sq": float((x * x).sum()),
        "num_cov": float((x * y).sum()),
    }


def of_sums(n: float, total: float, squares: float) -> Stats:
    """Statistics whose outcome nobody looks at."""
    return {
        "n": n,
        "sum": 0.0,
        "sum_sq": 0.0,
        "cov_sum": float(total),
        "cov_sum_sq": float(squares),
        "num_cov": 0.0,
    }


def test_the_statistic_is_a_difference_of_means_in_standard_errors_of_the_wider_arm() -> None:
    rng = np.random.default_rng(1)
    t, c = rng.normal(1.2, 2.0, 400), rng.normal(1.0, 1.0, 900)
    z = imbalance(CUPED, stats(t, t), stats(c, c))
    assert z == pytest.approx((t.mean() - c.mean()) / (t.std(ddof=1) * math.sqrt(1 / 400 + 1 / 900)))


def test_a_covariate_from_after_the_exposure_is_found() -> None:
    rng = np.random.default_rng(2)
    n, found = 4_000, []
    for _ in range(50):
        before = rng.gamma(2.0, size=n)
        arm = rng.gamma(2.0, size=n)
        after = arm + 0.6 * rng.random(n)  # what the candidate itself has added
        found.append(imbalance(CUPED, stats(after, after), stats(before, before)))
    assert sum(z is not None and z > limit(ARMS) for z in found) >= 40


VALUES = np.array([0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0])
TAILS = {
    "a rare yes": np.array([0.97, 0.03, 0, 0, 0, 0]),
    "spending": np.array([0.95, 0.02, 0.02, 0.009, 0.0009, 0.0001]),
    "one unit in two thousand": np.array([0.9995, 0, 0, 0.0005, 0, 0]),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("sizes", [(1_000, 4_000), (300, 20_000), (FEWEST, FEWEST)])
def test_ten_thousand_windows_of_honest_covariates_are_not_flagged(tail: str, sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    windows, chance = 10_000, TAILS[tail] / TAILS[tail].sum()
    arms = rng.multinomial(sizes[0], chance, size=(windows, ARMS))
    controls = rng.multinomial(sizes[1], chance, size=(windows, 1))
    (ta, qa), (tc, qc) = ((counts @ VALUES, counts @ VALUES**2) for counts in (arms, controls))
    va = (qa - ta**2 / sizes[0]) / (sizes[0] - 1)
    vc = (qc - tc**2 / sizes[1]) / (sizes[1] - 1)
    with np.errstate(all="ignore"):
        se = np.sqrt(np.maximum(va, vc) * (1 / sizes[0] + 1 / sizes[1]))
        z = np.nan_to_num((ta / sizes[0] - tc / sizes[1]) / se)
    assert np.abs(z).max() <= limit(ARMS)
    # The formula above is that of the function, checked where it is largest.
    w, a = np.unravel_index(np.abs(z).argmax(), z.shape)
    found = imbalance(CUPED, of_sums(sizes[0], ta[w, a], qa[w, a]), of_sums(sizes[1], tc[w, 0], qc[w, 0]))
    assert found == pytest.approx(z[w, a])


def test_the_variance_of_each_arm_alone_would_flag_heavy_tails() -> None:
    rng = np.random.default_rng(4)
    chance = TAILS["spending"] / TAILS["spending"].sum()
    arms = rng.multinomial(300, chance, size=(10_000, ARMS))
    controls = rng.multinomial(20_000, chance, size=(10_000, 1))
    means = arms @ VALUES / 300 - controls @ VALUES / 20_000
    va = (arms @ VALUES**2 - (arms @ VALUES) ** 2 / 300) / 299
    vc = (controls @ VALUES**2 - (controls @ VALUES) ** 2 / 20_000) / 19_999
    welch = means / np.sqrt(va / 300 + vc / 20_000)
    assert np.abs(welch).max() > limit(ARMS), "or the larger variance protects from nothing"


def test_a_ratio_has_a_covariate_that_is_a_ratio() -> None:
    rng = np.random.default_rng(5)
    kind = Ratio(cuped=True)

    def arm(rate: float, n: int) -> Stats:
        d = rng.poisson(5.0, n) + 1.0
        x = d * rate + rng.normal(0, 1, n)
        parts = {"num": x, "den": d, "cov": x, "cov_den": d}
        names = list(parts)
        found = {"n": float(n)}
        for i, a in enumerate(names):
            base = "sum" if a == "num" else f"{a}_sum"
            found[base] = float(parts[a].sum())
            found[f"{base}_sq"] = float((parts[a] ** 2).sum())
            found |= {f"{a}_{b}": float((parts[a] * parts[b]).sum()) for b in names[i + 1 :]}
        return found

    same = imbalance(kind, arm(0.5, 2_000), arm(0.5, 5_000))
    other = imbalance(kind, arm(0.7, 2_000), arm(0.5, 5_000))
    assert same is not None
    assert other is not None
    assert abs(same) < 4
    assert other > 8


@pytest.mark.parametrize(
    ("treatment", "control"),
    [
        (of_sums(FEWEST - 1, 50, 50), of_sums(1_000, 100, 100)),
        (of_sums(1_000, 50, 50), of_sums(FEWEST - 1, 10, 10)),
        (of_sums(1_000, 0, 0), of_sums(1_000, 0, 0)),
    ],
    ids=["small arm", "small control", "new units only"],
)
def test_what_cannot_be_told_is_not(treatment: Stats, control: Stats) -> None:
    assert imbalance(CUPED, treatment, control) is None


def test_just_enough_units_are_compared() -> None:
    assert imbalance(CUPED, of_sums(FEWEST, 90, 90), of_sums(FEWEST, 10, 10)) is not None


def test_a_kind_without_a_covariate_is_refused() -> None:
    plain: Average = Mean()
    with pytest.raises(UsageError, match="plain mean"):
        imbalance(plain, of_sums(1, 1, 1), of_sums(1, 1, 1))


def test_the_limit_grows_with_the_comparisons() -> None:
    assert limit(1) == pytest.approx(LIMIT)
    assert LIMIT < limit(16) < limit(100) < 6
    with pytest.raises(UsageError, match="at least 1"):
        limit(0)
