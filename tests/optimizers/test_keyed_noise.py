"""Keyed noise: the same numbers everywhere, with the moments of a normal distribution."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackopt import noise
from blackopt.errors import UsageError

seeds, keys = st.integers(-(2**80), 2**80), st.integers(0, 2**128 - 1)


def test_golden_numbers() -> None:
    """A change here changes every campaign that was ever recorded."""
    np.testing.assert_allclose(
        noise.normal(7, "golden", 3, 5),
        [
            -0.34291674224655694,
            0.3994973994903371,
            1.060170978398421,
            0.005181942831907725,
            -0.557304279025064,
        ],
        rtol=1e-14,
    )
    assert noise.uniform(-1, "u", 2**70, 2).tolist() == [0.32478343635049567, 0.22583209892632417]
    assert noise.integers(0, "i", 1, 6, 10).tolist() == [1, 3, 9, 8, 9, 8]


def test_another_process_draws_the_same() -> None:
    code = "from blackopt import noise; print(noise.normal(-3, 'process', 2**100, 9).tobytes().hex())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == noise.normal(-3, "process", 2**100, 9).tobytes().hex()


@given(seeds, keys, st.integers(0, 40), st.integers(0, 40))
def test_a_longer_draw_begins_with_a_shorter_one(seed: int, key: int, a: int, b: int) -> None:
    short, long = noise.normal(seed, "s", key, min(a, b)), noise.normal(seed, "s", key, max(a, b))
    assert long[: len(short)].tobytes() == short.tobytes()


@given(seeds, keys)
def test_seed_stream_and_key_each_matter(seed: int, key: int) -> None:
    other = (key + 1) % 2**128
    draws = [
        noise.normal(*which, 4).tobytes()
        for which in ((seed, "a", key), (seed + 1, "a", key), (seed, "b", key), (seed, "a", other))
    ]
    assert len(set(draws)) == 4


def test_neighbouring_keys_do_not_overlap() -> None:
    a, b = noise.uniform(0, "overlap", 0, 50_000), noise.uniform(0, "overlap", 1, 50_000)
    assert np.intersect1d(a, b).size == 0
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_normal_numbers_are_normal() -> None:
    x = noise.normal(11, "moments", 0, 400_000)
    np.testing.assert_allclose([x.mean(), x.var(), (x**3).mean(), (x**4).mean()], [0, 1, 0, 3], atol=0.03)
    np.testing.assert_allclose(
        np.mean(x[:, None] < [-1.959964, 0.0, 1.0], axis=0), [0.025, 0.5, 0.841345], atol=0.003
    )
    assert abs(np.corrcoef(x[0::2], x[1::2])[0, 1]) < 0.01


def test_uniform_and_integers_fill_their_range_evenly_and_no_more() -> None:
    u = noise.uniform(3, "range", 0, 100_000)
    assert u.min() > 0
    assert u.max() < 1
    counts = np.bincount(noise.integers(3, "range", 1, 60_000, 6), minlength=6)
    assert counts.size == 6
    np.testing.assert_allclose(counts, 10_000, rtol=0.05)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: noise.normal(0, "s", -1, 3), "key must be"),
        (lambda: noise.normal(0, "s", 2**128, 3), "key must be"),
        (lambda: noise.uniform(0, "s", 0, -1), "n must be"),
        (lambda: noise.integers(0, "s", 0, 3, 0), "high must be"),
    ],
)
def test_impossible_arguments_are_refused(draw: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        draw()
