"""One spelling for every fact that is hashed, so that equal facts have equal hashes on every machine."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import UsageError
from blackopt.types import Vector

quoted = encode_basestring_ascii
"""A JSON string, ASCII only; the C function, without an encoder around it."""

_FLOAT64 = np.dtype("<f8")
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"), sort_keys=True)

EMPTY_SHA = hashlib.sha256(b"[]").hexdigest()
"""The hash of no readings at all."""


def sha256(text: str | bytes) -> str:
    """Hex digest; text is hashed as UTF-8 (lone surrogates kept)."""
    return hashlib.sha256(
        text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    ).hexdigest()


def canonical_json(data: Mapping[str, object]) -> str:
    """Sorted keys, no spaces, ASCII.

    Raises:
        UsageError: it holds NaN, an infinity, or something JSON has no word for.
    """
    try:
        return _ENCODER.encode(data)
    except (TypeError, ValueError) as error:
        raise UsageError(f"expected plain JSON with finite numbers, got {data!r}: {error}") from error


def order_key(uuid: str, trial: int, kind: str) -> str:
    """Idempotency key of an order: the same on every try, by every driver."""
    return sha256(f"{uuid}|{trial}|{kind}")


def vector_bodies(vectors: Sequence[Vector]) -> list[bytes]:
    """Each vector as little-endian float64.

    Raises:
        UsageError: a vector is not one-dimensional, is empty, or has a NaN or an infinity.
    """
    arrays = [np.ascontiguousarray(vector, dtype=_FLOAT64) for vector in vectors]
    for array in arrays:
        if array.ndim != 1 or not array.size:
            raise UsageError(f"vector: expected shape (n,) with n >= 1, got {array.shape}")
    # One test for the whole batch; a second pass names the culprit.
    if arrays and not np.isfinite(arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).all():
        bad = next(i for i, array in enumerate(arrays) if not np.isfinite(array).all())
        raise UsageError(f"vector: expected finite numbers, got {arrays[bad]} at position {bad}")
    return [array.tobytes() for array in arrays]


def vector_of(body: bytes) -> NDArray[np.float64]:
    """Shape (n,), writable, native byte order."""
    return np.frombuffer(body, _FLOAT64).astype(np.float64)


def stats_text(stats: Mapping[str, float]) -> str:
    """Finite statistics as JSON: sorted keys, every number a float, so that 57 and 57.0 are the same
    reading."""
    if len(stats) == 1:
        (item,) = stats.items()
        return f"{{{quoted(item[0])}:{float(item[1])!r}}}"
    return "{" + ",".join(f"{quoted(key)}:{float(stats[key])!r}" for key in sorted(stats)) + "}"


Place: TypeAlias = tuple[str, int, str, str, int]
"""Metric, window, arm, cohort and as_of_us: which reading it is."""


def reading_text(place: Place, stats: str) -> str:
    """One reading, as it enters an ``obs_sha``."""
    metric, window, arm, cohort, as_of_us = place
    return f"[{quoted(metric)},{window},{quoted(arm)},{quoted(cohort)},{as_of_us},{stats}]"


def observations_sha(texts: Iterable[str]) -> str:
    """The hash of readings in a fixed order, whatever order they came in."""
    return sha256("[" + ",".join(sorted(texts)) + "]")


def ask_line(
    number: int,
    candidate: int | None,
    role: str,
    version: int,
    told_before: int,
    window: int | None,
    lower: int | None,
    upper: int | None,
    vector_sha: str,
) -> str:
    """One trial, as it enters the event of its ask. Times are left out: a resumed run asks the same,
    later."""
    return f"{number}|{candidate}|{role}|{version}|{told_before}|{window}|{lower}|{upper}|{vector_sha}\n"


def tell_line(
    seq: int, trial: int, status: str, value: float | None, se: float | None, obs_sha: str, cause: str
) -> str:
    """One tell, as it enters its event."""
    return f"{seq}|{trial}|{status}|{value!r}|{se!r}|{obs_sha}|{quoted(cause)}\n"


def members(numbers: Sequence[int]) -> dict[str, object]:
    """Trials of one event: one by its number, several by first, count and hash of all."""
    if len(numbers) == 1:
        return {"trial": numbers[0]}
    return {"first": numbers[0], "count": len(numbers), "sha": sha256(",".join(map(str, numbers)))}


def finite_or_none(name: str, value: float | None) -> float | None:
    """A float or None.

    Raises:
        UsageError: NaN, infinite, or not a number.
    """
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        raise UsageError(f"{name}: expected a finite number or None, got {value!r}")
    if not math.isfinite(value):
        raise UsageError(f"{name}: expected a finite number or None, got {value!r}")
    return float(value)
