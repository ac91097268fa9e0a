"""An optimizer's state comes back from bytes bit for bit, or not at all."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blackopt.errors import LedgerError, UsageError
from blackopt.ledger import dump_state, load_state

DTYPES = st.sampled_from(["?", "<i1", "<i8", ">i4", "<u8", "<u2", "<f8", "<f4", ">f8", "<f2"])
ARRAYS = DTYPES.flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | ARRAYS
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
)
STATES = st.dictionaries(
    st.text(max_size=5) | st.sampled_from(["$array", "$float", "$dict"]), VALUES, max_size=4
)


def same(a: Any, b: Any) -> bool:
    """Equal bit for bit, and of the same type."""
    if isinstance(a, np.ndarray):
        plain = a.astype(a.dtype.newbyteorder("="))
        return a.shape == b.shape and plain.dtype == b.dtype and plain.tobytes() == b.tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (a != a and b != b) or (a == b and np.signbit(a) == np.signbit(b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


@settings(max_examples=200, deadline=None)
@given(STATES)
def test_a_state_comes_back_bit_for_bit_and_always_as_the_same_bytes(state: dict[str, Any]) -> None:
    body = dump_state(state)
    assert same(state, load_state(body))
    assert dump_state(load_state(body)) == body


def test_arrays_of_64_bit_integers_keep_every_bit() -> None:
    state = {"u": np.array([2**64 - 1, 0], np.uint64), "i": np.array([-(2**63), 2**63 - 1]), "big": 2**127}
    back = load_state(dump_state(state))
    assert back["u"].dtype == np.uint64
    assert back["u"].tolist() == [2**64 - 1, 0]
    assert back["i"].tolist() == [-(2**63), 2**63 - 1]
    assert back["big"] == 2**127


def test_what_comes_back_shares_nothing() -> None:
    array = np.zeros(3)
    body = dump_state({"a": array})
    load_state(body)["a"][0] = 1.0
    assert load_state(body)["a"][0] == 0.0
    array[0] = 2.0
    assert load_state(body)["a"][0] == 0.0


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ((1, 2), r"state\['k'\]"),
        ({1: 2}, r"state\['k'\]"),
        ([object()], r"state\['k'\]\[0\]"),
        (np.array([object()]), "dtype object"),
        (np.array(["a"]), "dtype <U1"),
        (np.zeros(1, np.complex128), "dtype complex128"),
    ],
)
def test_what_cannot_come_back_is_refused_by_name(value: object, place: str) -> None:
    with pytest.raises(UsageError, match=place):
        dump_state({"k": value})


def test_every_cut_and_every_pickle_is_refused() -> None:
    body = dump_state({"a": np.arange(4.0), "b": "text"})
    for cut in range(len(body)):
        with pytest.raises(LedgerError):
            load_state(body[:cut])
    with pytest.raises(LedgerError):
        load_state(body + b"x")
    with pytest.raises(LedgerError):
        load_state(pickle.dumps({"a": 1}))
