"""Numbers of the widths that models are stored in: rounded to them, written as bytes, read back exactly.

bfloat16 is the upper half of a float32; numpy has no type for it, so its bits are made here.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from blackopt.types import Vector

TYPES: Final = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}
"""Each floating type and the numpy type of its bytes."""

_LARGEST: Final = {
    "float16": 65504.0,
    "bfloat16": math.ldexp(255.0, 120),
    "float32": float(np.finfo(np.float32).max),
    "float64": float(np.finfo(np.float64).max),
}


def rounded(values: Vector, dtype: str) -> Vector:
    """(n,) the nearest numbers that ``dtype`` holds, ties to even; beyond its largest, the largest.

    Args:
        values: (n,) finite.
        dtype: one of :data:`TYPES`.
    """
    if dtype == "float64":
        return values
    limit = _LARGEST[dtype]
    return numbers(raw(np.clip(values, -limit, limit), dtype), dtype)


def raw(values: Vector, dtype: str) -> bytes:
    """The little-endian bytes of (n,) values, which ``dtype`` must be able to hold."""
    if dtype == "bfloat16":
        bits = values.astype("<f4").view("<u4").astype(np.uint64)
        # Half an ulp less one, and one more where the kept part is odd: to nearest, ties to even.
        return (
            ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16))
            .astype("<u2")
            .tobytes()
        )
    return values.astype(TYPES[dtype]).tobytes()


def numbers(data: bytes, dtype: str) -> Vector:
    """(n,) float64: the numbers of little-endian bytes."""
    array = np.frombuffer(data, dtype=TYPES[dtype])
    if dtype == "bfloat16":
        return (array.astype("<u4") << np.uint32(16)).view("<f4").astype(np.float64)
    return array.astype(np.float64)


def shortest(values: Vector, dtype: str) -> list[float]:
    """Floats that JSON writes with the fewest digits that still mean the same number of ``dtype``."""
    if dtype == "float64":
        listed: list[float] = values.tolist()
        return listed
    short = [float(str(number)) for number in values.astype(np.float32)]
    # Near the middle of two float32, a short decimal is rounded twice, to the wrong one: all digits then.
    kept = np.array(short).astype(np.float32) == values
    return [few if same else many for few, same, many in zip(short, kept, values.tolist(), strict=True)]
