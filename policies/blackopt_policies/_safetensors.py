"""Where the tensors of a safetensors file stand: eight bytes of length, a JSON header, and all numbers.

Written from the format's description at https://github.com/huggingface/safetensors#format. Unlike
:mod:`blackopt.artifacts.safetensors`, which reads arrays, this finds places, so that some numbers can be
replaced and the rest stays to the byte, also of types that numpy does not have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from blackopt.errors import UsageError
from blackopt.types import Vector
from blackopt_policies._floats import numbers

FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""The format's names of the types that can be tuned."""

_WIDTHS = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
_PREFIX = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its type as the format names it, its shape, and where in the file its bytes are."""

    dtype: str
    shape: tuple[int, ...]
    place: slice


def entries(body: bytes) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of a file by name, in the order of their bytes; and its metadata.

    Raises:
        UsageError: not a safetensors file, or a damaged one.
    """
    end = _PREFIX + int.from_bytes(body[:_PREFIX], "little")
    if len(body) < _PREFIX or end > len(body):
        raise UsageError(f"expected a safetensors file, got {len(body)} bytes that begin with {body[:16]!r}")
    try:
        header = json.loads(body[_PREFIX:end])
        metadata = dict(header.pop("__metadata__", {}))
        found = {name: _entry(value, end) for name, value in header.items()}
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
        raise UsageError(f"expected a safetensors file, and cannot read its header: {error!r}") from error
    for name, entry in found.items():
        width = _WIDTHS.get(FLOATS.get(entry.dtype, ""), 0)
        size = entry.place.stop - entry.place.start
        if not end <= entry.place.start <= entry.place.stop <= len(body) or (
            width and size != width * math.prod(entry.shape)
        ):
            raise UsageError(f"damaged safetensors file: the bytes of {name!r} are not where its header says")
    return dict(sorted(found.items(), key=lambda item: item[1].place.start)), metadata


def floats(body: bytes, found: Mapping[str, Entry]) -> Iterator[tuple[str, str, Vector]]:
    """Name, type and numbers of every tensor of a floating type."""
    for name, entry in found.items():
        if entry.dtype in FLOATS:
            dtype = FLOATS[entry.dtype]
            yield name, dtype, numbers(body[entry.place], dtype)


def _entry(value: Mapping[str, Any], end: int) -> Entry:
    first, last = value["data_offsets"]
    return Entry(
        str(value["dtype"]), tuple(map(int, value["shape"])), slice(end + int(first), end + int(last))
    )
