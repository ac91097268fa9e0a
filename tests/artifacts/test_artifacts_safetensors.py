"""The safetensors container beside the library of that name: what it writes, reads and refuses."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from blackopt.artifacts.safetensors import read, write
from blackopt.errors import ArtifactError, UsageError

TYPES = "u8 i8 f8 f4 u4 i4 f2 u2 i2 i1 u1 b1".split()
ARRAYS = st.sampled_from(TYPES).flatmap(
    lambda code: arrays.arrays(code, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
MODELS = st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), ARRAYS, max_size=6)


def same(ours: dict[str, NDArray[Any]], theirs: dict[str, NDArray[Any]]) -> bool:
    return ours.keys() == theirs.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((ours[name], theirs[name]) for name in ours)
    )


@settings(deadline=None)
@given(MODELS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=1))
def test_files_are_those_of_the_library_byte_for_byte(
    model: dict[str, NDArray[Any]], metadata: dict[str, str]
) -> None:
    body = write(model, metadata)
    assert body == safetensors.numpy.save(model, metadata or None)
    found, texts = read(body)
    assert same(found, model)
    assert texts == metadata


@settings(deadline=None)
@given(MODELS, st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=2, max_size=4))
def test_files_with_several_texts_are_read_by_the_library(
    model: dict[str, NDArray[Any]], metadata: dict[str, str]
) -> None:
    body = write(model, metadata)  # the library writes texts in an order of chance
    assert same(safetensors.numpy.load(body), model)
    assert read(body)[1] == metadata
    assert read(safetensors.numpy.save(model, metadata))[1] == metadata


def file(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 7,
        file({}, length=50),
        file({}, length=2**64 - 1),
        file(b" {}"),
        file(b"{"),
        file(b"[]"),
        file(b'{"a": \xff}'),
        file(b"{" * 5_000),
        file({"a": entry()}, b"\0\0\0"),
        file({"a": entry()}, b"\0\0\0\0\0"),
        file({"a": entry(), "b": entry()}, bytes(4)),
        file({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
        file({"a": entry(offsets=(4, 8))}, bytes(8)),
        file({"a": entry(shape=[2])}, bytes(4)),
        file({"a": entry(shape=[-1])}, bytes(4)),
        file({"a": entry(shape=[1.0])}, bytes(4)),
        file({"a": entry(shape=[True])}, bytes(4)),
        file({"a": entry(shape=[2**62, 4])}, bytes(4)),
        file({"a": entry(shape=[0, 2**61], offsets=(0, 0))}),
        file({"a": entry(shape=[1] * 33)}, bytes(4)),
        file({"a": entry(offsets=(0, "4"))}, bytes(4)),
        file({"a": entry(dtype="F128")}, bytes(4)),
        file({"a": entry(dtype=None)}, bytes(4)),
        file({"a": {**entry(), "more": 1}}, bytes(4)),
        file({"a": 3}),
        file({"__metadata__": {"a": 1}}),
        file({"__metadata__": "a"}),
        file(
            b'{"a":' + json.dumps(entry()).encode() + b',"a":' + json.dumps(entry()).encode() + b"}", bytes(4)
        ),
        file({"a": entry(dtype="BOOL", shape=[4])}, b"\0\1\2\1"),
    ],
)
def test_what_is_no_whole_file_is_refused(body: bytes) -> None:
    with pytest.raises(ArtifactError, match="not a whole safetensors file") as raised:
        read(body)
    assert raised.value.why


@settings(deadline=None)
@given(st.data())
def test_a_file_that_is_cut_or_changed_is_refused_or_read_and_never_anything_else(
    data: st.DataObject,
) -> None:
    body = write({"a": np.arange(3.0), "b": np.ones((2, 2), np.float16)}, {"k": "v"})
    with pytest.raises(ArtifactError):
        read(body[: data.draw(st.integers(0, len(body) - 1))])
    place = data.draw(st.integers(0, len(body) - 1))
    changed = body[:place] + bytes([data.draw(st.integers(0, 255))]) + body[place + 1 :]
    try:
        found, _ = read(changed)
    except ArtifactError:
        return
    # What we read, the library reads in the same way.
    assert same(found, safetensors.numpy.load(changed))


@pytest.mark.parametrize("array", [np.zeros(2, "c16"), np.array(["x"]), np.zeros(2, "M8[s]")])
def test_types_without_a_place_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(UsageError, match="cannot hold a tensor 'a'"):
        write({"a": array})
    with pytest.raises(UsageError, match="__metadata__"):
        write({"__metadata__": np.zeros(2)})


def test_other_orders_of_bytes_and_rows() -> None:
    turned = np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3))
    found, _ = read(write({"a": turned}))
    np.testing.assert_array_equal(found["a"], turned)
    assert not found["a"].flags.writeable
