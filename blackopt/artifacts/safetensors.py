"""The safetensors container: eight bytes of length, a JSON header, and the numbers of every tensor.

Written from the format's description at https://github.com/huggingface/safetensors#format. What is
written is what the library of that name writes, byte for byte; what it refuses is refused here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import ArtifactError, UsageError

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays by name."""

MEDIA_TYPE = "application/vnd.safetensors"

# In the order in which tensors are stored: wide types first, so that every number is aligned.
_TYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4",
    "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}
_PLACES = {name: place for place, name in enumerate(_TYPES)}
_PREFIX = 8
_LONGEST_HEADER = 100_000_000  # as in the library
_MOST_DIMENSIONS = 32  # of an array of numpy 1


def write(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """A file that holds the tensors, and texts beside them in the order in which they are given.

    Raises:
        UsageError: a name is reserved, or a type has no place in the format.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        code = tensor.dtype.newbyteorder("<")
        if name == "__metadata__" or code not in _NAMES or tensor.ndim > _MOST_DIMENSIONS:
            raise UsageError(
                f"safetensors: cannot hold a tensor {name!r} of {tensor.dtype}, shape {tensor.shape}"
            )
        arrays[name] = tensor.astype(code, order="C", copy=False)
    at = 0
    ordered = sorted(arrays, key=lambda name: (_PLACES[_NAMES[arrays[name].dtype]], name.encode()))
    for name in ordered:
        array = arrays[name]
        end = at + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _PREFIX)
    parts = [len(text).to_bytes(_PREFIX, "little"), text]
    return b"".join([*parts, *(arrays[name].reshape(-1).view(np.uint8).data for name in ordered)])


def read(body: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors by name, in the order of their bytes, and the texts beside them.

    The arrays are read-only views of ``body``: nothing is allocated for a size that a header claims.

    Raises:
        ArtifactError: not a safetensors file, a damaged one, or one with a type that numpy does not have.
    """
    try:
        start = _PREFIX + int.from_bytes(body[:_PREFIX], "little")
        if len(body) < _PREFIX or start > len(body):
            raise ValueError(f"its header ends at byte {start}")
        if start > _PREFIX + _LONGEST_HEADER or body[_PREFIX : _PREFIX + 1] != b"{":
            raise ValueError("its header is too long, or does not begin with {")
        header = json.loads(
            body[_PREFIX:start].decode(), object_pairs_hook=_once, parse_constant=_no_constant
        )
        texts = header.pop("__metadata__", {})
        if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise ValueError("__metadata__ is not a mapping from texts to texts")
        return _arrays(memoryview(body)[start:].toreadonly(), header), texts
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise ArtifactError(
            "this is not a whole safetensors file",
            where=f"{len(body)} bytes that begin with {body[:16]!r}",
            why=f"{type(error).__name__}: {error}",
            safe="nothing was made of it",
            next_step="fetch or write the file again",
        ) from error


def _arrays(data: memoryview, header: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """The tensors; they cover the data without a hole or an overlap."""
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if set(entry) != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{name!r} is described by {sorted(entry)}")
        code, shape, (first, last) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if not all(type(value) is int and value >= 0 for value in (*shape, first, last)):
            raise ValueError(f"{name!r} has sizes that are not whole numbers from 0")
        width = np.dtype(code).itemsize
        if len(shape) > _MOST_DIMENSIONS or math.prod(max(1, side) for side in shape) * width >= 1 << 62:
            raise ValueError(f"{name!r} has the impossible shape {shape}")
        if first != at or last - first != math.prod(shape) * width or last > len(data):
            raise ValueError(
                f"{name!r} of shape {shape} has bytes {first} to {last} of {len(data)}, after {at}"
            )
        if code == "|b1" and (np.frombuffer(data[first:last], np.uint8) > 1).any():
            raise ValueError(f"{name!r} has truth values that are neither 0 nor 1")
        found[name] = np.frombuffer(data[first:last], dtype=code).reshape(shape)
        at = last
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes belong to no tensor")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no name stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in its header")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
