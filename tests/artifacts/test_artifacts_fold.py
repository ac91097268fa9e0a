"""Sums over keys: to the last bit what the vectors would give, whatever the order, the cuts, the threads."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blackopt.artifacts import fold as folds
from blackopt.artifacts.fold import fold, fold_squares
from blackopt.artifacts.portable import Kind, draw
from blackopt.artifacts.table import BLOCK
from blackopt.errors import UsageError

SEED = 7
TYPES: list[type[Any]] = [np.float32, np.float64]


def twelve_bits(number: float) -> float:
    """Python's round() takes the even one of two that are equally near."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(round(mantissa * 4096), exponent - 12)


def expected(kind: Kind, terms: list[tuple[float, NDArray[np.float64]]], out: NDArray[Any]) -> NDArray[Any]:
    """The sum as blackopt/artifacts/fold.py states it, from vectors; terms in the order of their keys."""
    dtype = out.dtype
    if kind is Kind.NORMAL:
        total = np.zeros(len(out))
        for weight, x in terms:
            total = total + weight * x
        return (total + out).astype(dtype)
    if kind is Kind.TABLE:
        made = out
        for weight, x in terms:
            heavy = twelve_bits(weight) if dtype == np.float32 else weight
            made = made + dtype.type(heavy) * x.astype(dtype)
        return made
    made = out.copy()
    for at in range(0, len(terms), 16):
        total = np.zeros(len(out))
        for weight, x in terms[at : at + 16]:
            total = total + weight * x
        made = made + total.astype(dtype)
    return made


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=15, deadline=None)
@given(
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=0, max_size=40, unique=True),
    n=st.integers(0, 40_000),
    offset=st.integers(0, 70_000) | st.integers(2**40, 2**40 + 1000),
    rest=st.integers(0, 2**32 - 1),
)
def test_a_fold_is_the_sum_of_weights_times_draws(
    kind: Kind, dtype: type[Any], keys: list[int], n: int, offset: int, rest: int
) -> None:
    rng = np.random.default_rng(rest)
    weights = rng.standard_normal(len(keys))
    out = rng.standard_normal(n).astype(dtype)
    terms = [
        (weight, draw(SEED, key, n, offset=offset, kind=kind))
        for key, weight in sorted(zip(keys, weights.tolist(), strict=True))
    ]
    should = expected(kind, terms, out)
    fold(SEED, np.array(keys, np.uint64), weights, out, kind=kind, offset=offset)
    np.testing.assert_array_equal(out, should)
    assert out.dtype == dtype


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("dtype", TYPES)
def test_neither_threads_nor_order_nor_cuts_change_a_bit(kind: Kind, dtype: type[Any]) -> None:
    n, offset = 64 * BLOCK * 2 + 12_345, 3 * BLOCK + 17
    rng = np.random.default_rng(1)
    keys, weights = rng.integers(0, 2**63, 3), rng.standard_normal(3)
    one, many, cut = (np.full(n, 0.1, dtype) for _ in range(3))
    fold(SEED, keys, weights, one, kind=kind, offset=offset, threads=1)
    fold(SEED, keys[::-1], weights[::-1], many, kind=kind, offset=offset, threads=3)
    for first, end in ((0, 5), (5, BLOCK), (BLOCK, 70 * BLOCK), (70 * BLOCK, n)):
        fold(SEED, keys, weights, cut[first:end], kind=kind, offset=offset + first)
    np.testing.assert_array_equal(many, one)
    np.testing.assert_array_equal(cut, one)


@pytest.mark.parametrize("kind", Kind)
def test_a_key_that_comes_twice_is_folded_once(kind: Kind) -> None:
    """Twins: the same key with opposite signs, whose weights are f(+) and -f(-)."""
    twice, once = np.zeros(5_000), np.zeros(5_000)
    fold(SEED, [4, 9, 4], [0.1, 2.0, -0.3], twice, kind=kind)
    fold(SEED, [4, 9], [0.1 - 0.3, 2.0], once, kind=kind)
    np.testing.assert_array_equal(twice, once)
    fold(SEED, [4, 4], [1.0, -1.0], once, kind=kind)
    np.testing.assert_array_equal(twice, once)


AWKWARD = st.one_of(
    st.floats(-1.0, 1.0),
    st.floats(-(2.0**123), 2.0**123, width=32),
    st.floats(-(2.0**-126), 2.0**-126, width=32),  # below the normal numbers of float32
    st.sampled_from([0.0, -0.0, 2.0**-90, -(2.0**120), 1 + 2.0**-12, -1 - 3 * 2.0**-12, 5e-324, 3.0000001]),
)


@settings(max_examples=60, deadline=None)
@given(
    terms=st.lists(st.tuples(st.integers(0, 5) | st.integers(0, 2**64 - 1), AWKWARD), min_size=1, max_size=9),
    n=st.sampled_from([1, 17, BLOCK - 1, BLOCK + 1, 3 * BLOCK + 5]),
    offset=st.integers(0, 2 * BLOCK),
    squared=st.booleans(),
)
def test_one_pass_for_each_direction_gives_the_bits_of_two(
    terms: list[tuple[int, float]], n: int, offset: int, squared: bool
) -> None:
    assert folds.saxpy() is not None, "without scipy the two are the same"
    keys, weights = np.array([key for key, _ in terms], np.uint64), [weight for _, weight in terms]
    found = []
    for saxpy in (folds.saxpy, lambda: None):
        out = np.linspace(-1, 1, n, dtype=np.float32)
        with pytest.MonkeyPatch.context() as patch, np.errstate(over="ignore", invalid="ignore"):
            patch.setattr(folds, "saxpy", saxpy)
            (fold_squares if squared else fold)(SEED, keys, weights, out, kind=Kind.TABLE, offset=offset)
        found.append(out)
    np.testing.assert_array_equal(found[0].view(np.uint32), found[1].view(np.uint32))


@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(
        st.floats(2.0**-90, 2.0**120, width=32) | st.floats(-10.0, -0.125, width=32), min_size=1, max_size=12
    )
)
def test_products_of_a_weight_and_the_table_are_exact_in_float32(weights: list[float]) -> None:
    """So that a processor that fuses and one that does not can only agree: each sum is rounded once."""
    n = 40
    out = np.full(n, 0.1, np.float32)
    fold(SEED, range(len(weights)), weights, out, kind=Kind.TABLE)
    exact = [np.float32(0.1)] * n
    for key, weight in enumerate(weights):
        x = draw(SEED, key, n, kind=Kind.TABLE)
        for j in range(n):
            product = Fraction(twelve_bits(weight)) * Fraction(x[j])
            assert product == Fraction(float(np.float32(product)))
            # A float64 holds twice the bits of a float32 and two more: rounding through it rounds once.
            exact[j] = np.float32(float(Fraction(float(exact[j])) + product))
    np.testing.assert_array_equal(out, np.array(exact))


@pytest.mark.parametrize("dtype", TYPES)
def test_squares(dtype: type[Any]) -> None:
    n, offset, weights = 40_000, 1_234, {3: 1.5, 8: -0.25}
    for kind in Kind:
        out = np.full(n, 0.5, dtype)
        fold_squares(SEED, list(weights), list(weights.values()), out, kind=kind, offset=offset)
        terms = []
        for key, weight in weights.items():
            x = draw(SEED, key, n, offset=offset, kind=kind)
            squares = x * x - 1
            terms.append((weight, np.vectorize(twelve_bits)(squares) if kind is Kind.TABLE else squares))
        np.testing.assert_array_equal(out, expected(kind, terms, np.full(n, 0.5, dtype)))


def test_a_list_of_keys_may_be_of_any_size() -> None:
    one, other = np.zeros((2, 100))
    fold(SEED, [5, 2**64 - 1], [1.0, 2.0], one)
    fold(SEED, np.array([5, 2**64 - 1], np.uint64), [1.0, 2.0], other)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", Kind)
def test_memory_does_not_grow_with_the_number_of_keys(kind: Kind) -> None:
    n, peaks = 200_000, []
    out = np.zeros(n, np.float32)
    for k in (4, 64):
        keys, weights = np.arange(k), np.full(k, 0.1)
        fold(SEED, keys[:1], weights[:1], out, kind=kind)  # the table is there
        tracemalloc.start()
        fold(SEED, keys, weights, out, kind=kind)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        peaks.append(peak)
    assert peaks[1] < 2_500_000, peaks  # 64 directions are 51 MB; 2^16 sums of signs are half a MB
    assert kind is Kind.SIGN or peaks[1] < peaks[0] + 60 * 1_000, peaks


NARROW = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be in"),
        ({"keys": [-1, 2]}, "keys must be integers in 0"),
        ({"keys": [2**64, 2]}, "keys must be"),
        ({"keys": [0.5, 2]}, "keys must be"),
        ({"keys": [[1, 2]]}, "keys must be"),
        ({"weights": [1.0]}, "2 keys need weights"),
        ({"weights": [1.0, np.nan]}, "weights must be finite in float32, key 2 has nan"),
        ({"weights": [np.inf, 1.0]}, "weights must be finite"),
        ({"weights": [1e39, 1.0]}, "weights must be finite in float32, key 1 has 1e"),
        ({"out": np.zeros(3, np.int64)}, "out must be contiguous float32 or float64"),
        ({"out": np.zeros((3, 3))}, "out must be contiguous"),
        ({"out": np.zeros(6)[::2]}, "out must be contiguous"),
        ({"offset": -1}, "offset must be in"),
        ({"threads": 0}, "threads must be"),
    ],
)
def test_impossible_sums(change: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"seed": 0, "keys": [1, 2], "weights": [1.0, 1.0], "out": NARROW, "offset": 0}
    for function in (fold, fold_squares):
        with pytest.raises(UsageError, match=message):
            function(**(usual | change))
    assert not NARROW.any()


def test_a_sum_that_cannot_be_written_is_refused() -> None:
    out = np.zeros(3)
    out.flags.writeable = False
    with pytest.raises(UsageError, match="writeable"):
        fold(0, [1], [1.0], out)
