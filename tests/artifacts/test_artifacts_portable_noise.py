"""Portable noise: its distribution, its exactness, and that no two draws know of each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from blackopt.artifacts.normal import _log, normals
from blackopt.artifacts.portable import Kind, draw

N = 400_000


def test_normals_are_the_quantiles_that_they_claim_to_be() -> None:
    edges = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, int(0.075 * 2**32), int(0.925 * 2**32)]
    halves = np.concatenate([edges, np.linspace(0, 2**32 - 1, 16_375)]).astype("<u4")
    found = normals(halves.view("<u8")) if len(halves) % 2 == 0 else None
    assert found is not None
    expected = ndtri((halves.astype(np.float64) + 0.5) * 2.0**-32)
    np.testing.assert_allclose(found, expected, rtol=1.2e-7, atol=0)
    assert found.min() == -found.max()
    assert found.max() == pytest.approx(6.338, abs=1e-3)


def test_halves_that_mirror_each_other_give_opposite_numbers() -> None:
    halves = np.linspace(0, 2**32 - 1, 1_000).astype("<u4")
    there, back = (normals(part.view("<u8")).copy() for part in (halves, ~halves))
    np.testing.assert_array_equal(there, -back)


def test_the_logarithm() -> None:
    p = np.concatenate([2.0 ** -np.arange(4.0, 34.0), np.linspace(2.0**-33, 0.075, 10_000)])
    np.testing.assert_allclose(_log(p, np), np.log(p), rtol=1e-11)


@pytest.mark.parametrize("seed", [0, 1, 2**64 - 1])
def test_moments_and_distribution_of_normals(seed: int) -> None:
    z = draw(seed, 3, N)
    # Standard errors of the first four moments of a normal sample: 1, sqrt(2), sqrt(15), sqrt(96) by sqrt(N).
    for power, (moment, deviation) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert abs((z**power).mean() - moment) < 4 * np.sqrt(deviation / N)
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert stats.kstest(np.abs(z[np.abs(z) > 2]), stats.halfnorm(0, 1).cdf).pvalue < 1e-3  # a test can fail
    beyond = stats.norm.sf(3.0) * 2 * N
    assert abs((np.abs(z) > 3).sum() - beyond) < 4 * np.sqrt(beyond)


def test_signs_are_even() -> None:
    signs = draw(1, 3, N, kind=Kind.SIGN)
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / np.sqrt(N)
    runs = 1 + int((signs[1:] != signs[:-1]).sum())
    assert abs(runs - N / 2) < 4 * np.sqrt(N / 4)


@pytest.mark.parametrize("kind", Kind)
def test_no_draw_is_correlated_with_another(kind: Kind) -> None:
    n = 50_000
    draws = [(0, 0), (0, 1), (0, 2), (0, 2**63), (1, 0), (1, 1), (2**63, 0), (2**64 - 1, 2**64 - 1)]
    rows = np.array([draw(seed, key, n, kind=kind) for seed, key in draws])
    others = np.corrcoef(rows)[np.triu_indices(len(draws), 1)]
    assert np.abs(others).max() < 4.5 / np.sqrt(n)
    for lag in (1, 2, 7, 8, 64, 256):
        assert abs((rows[0, lag:] * rows[0, :-lag]).mean()) < 4.5 / np.sqrt(n - lag)


def test_the_correlations_of_many_keys_scatter_as_those_of_independent_draws() -> None:
    rows = np.array([draw(7, key, 1_000) for key in range(200)])
    pairs = (rows @ rows.T / 1_000)[np.triu_indices(200, 1)]
    assert stats.kstest(pairs * np.sqrt(1_000), "norm").pvalue > 1e-3
    # The same number of each key: across keys at one position they are normal, too.
    assert stats.kstest([draw(7, key, 1, offset=12_345)[0] for key in range(2_000)], "norm").pvalue > 1e-3


def test_float32_is_the_float64_rounded() -> None:
    np.testing.assert_array_equal(draw(1, 2, 1_000, dtype=np.float32), draw(1, 2, 1_000).astype(np.float32))
