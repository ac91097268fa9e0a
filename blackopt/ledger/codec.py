r"""An optimizer's state as bytes and back: a JSON tree, then raw little-endian arrays. No pickle.

    b"BLACKOPT STATE 1\n" | uint64 length of the tree | tree (ASCII JSON) | arrays, one after the other

numpy's own ``npz`` was tried and left: a zip member carries the time it was written, so that equal states
gave unequal bytes. Equal states give equal bytes here, and a state that comes back is equal bit for bit, NaN
payloads included.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import LedgerError, UsageError
from blackopt.types import State

MAGIC = b"BLACKOPT STATE 1\n"
_NUMBERS = "biuf"
_LONGEST_ITEM = 8


def dump_state(state: State) -> bytes:
    """Encode a state.

    Raises:
        UsageError: a value is of no supported type; the message names its place.
    """
    if not isinstance(state, dict):
        raise UsageError(f"state: expected a dict, got {type(state).__name__}")
    arrays: list[NDArray[Any]] = []
    tree = json.dumps(_pack(state, "state", arrays), allow_nan=False, separators=(",", ":")).encode("ascii")
    return b"".join([MAGIC, len(tree).to_bytes(8, "little"), tree, *(array.tobytes() for array in arrays)])


def load_state(body: bytes) -> State:
    """Decode a state. Its arrays are writable and share nothing with ``body``.

    Raises:
        LedgerError: the bytes are not a whole state.
    """
    start = len(MAGIC) + 8
    if body[: len(MAGIC)] != MAGIC or len(body) < start:
        raise _damaged("it does not begin as a state of this version")
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    try:
        tree = json.loads(body[start:end].decode("ascii"))
        reader = _ArrayReader(body, end)
        state = _unpack(tree, reader)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error
    if reader.at != len(body) or not isinstance(state, dict):
        raise _damaged("its length does not fit its contents")
    return state


def _damaged(why: str) -> LedgerError:
    return LedgerError(
        "An optimizer's state cannot be read",
        why=why,
        safe="snapshots are a cache: every tell is still in the ledger",
        next_step="run again; the state is rebuilt from the tells",
    )


def _pack(value: object, place: str, arrays: list[NDArray[Any]]) -> object:
    """JSON for a value; what JSON lacks becomes an object with one key that starts with ``$``."""
    if (
        isinstance(value, np.generic)
        and value.dtype.kind in _NUMBERS
        and value.dtype.itemsize <= _LONGEST_ITEM
    ):
        value = value.item()
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": str(float(value))}
    if isinstance(value, np.ndarray):
        return _pack_array(value, place, arrays)
    if isinstance(value, list):
        return [_pack(item, f"{place}[{i}]", arrays) for i, item in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise UsageError(f"{place}: expected str keys, got {key!r}")
        packed = {str(key): _pack(item, f"{place}[{key!r}]", arrays) for key, item in value.items()}
        if any(key.startswith("$") for key in packed):
            return {"$dict": [[key, item] for key, item in packed.items()]}
        return packed
    raise UsageError(
        f"{place}: expected None, bool, int, float, str, ndarray, or lists and dicts of these, "
        f"got {type(value).__name__}"
    )


def _pack_array(array: NDArray[Any], place: str, arrays: list[NDArray[Any]]) -> object:
    if array.dtype.kind not in _NUMBERS or array.dtype.itemsize > _LONGEST_ITEM:
        raise UsageError(f"{place}: expected an array of bool, int, uint or float64, got dtype {array.dtype}")
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    arrays.append(plain)
    return {"$array": [plain.dtype.str, list(array.shape)]}


class _ArrayReader:
    """Hands out the raw arrays in the order in which the tree names them."""

    def __init__(self, body: bytes, at: int) -> None:
        self.body, self.at = body, at

    def take(self, name: str, shape: list[int]) -> NDArray[Any]:
        dtype = np.dtype(name)
        if dtype.kind not in _NUMBERS or any(type(side) is not int or side < 0 for side in shape):
            raise ValueError(f"array of {name!r}, shape {shape!r}")
        size = math.prod(shape) * dtype.itemsize
        raw = self.body[self.at : self.at + size]
        if len(raw) != size:
            raise ValueError("an array is cut off")
        self.at += size
        return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=True)


def _unpack(value: Any, reader: _ArrayReader) -> Any:
    if isinstance(value, list):
        return [_unpack(item, reader) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return reader.take(*value["$array"])
    if "$float" in value:
        return float(value["$float"])
    if "$dict" in value:
        return {key: _unpack(item, reader) for key, item in value["$dict"]}
    return {key: _unpack(item, reader) for key, item in value.items()}
