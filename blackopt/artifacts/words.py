"""Random words by counter: the same 64 bits for the same numbers, in every language, in any order.

Philox4x64-10 (Salmon, Moraes, Dror and Shaw, SC 2011) with cipher key (seed, "blackopt") and counter
(block, stream, key, kind), block = 1, 2, 3, ...: four words from each block.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAG = int.from_bytes(b"blackopt", "little")
"""The second word of the cipher key: these numbers are no one else's use of Philox."""


class Kind(IntEnum):
    """What the numbers of a key are; its value stands in the cipher's counter."""

    NORMAL = 0
    SIGN = 1
    TABLE = 2


class _Cipher(threading.local):
    """A generator for each thread: to set its counter takes a tenth of the time of making one."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)
        self.state: Any = self.generator.state


_CIPHER = _Cipher()


def words(seed: int, key: int, kind: Kind, first: int, count: int, *, stream: int = 0) -> NDArray[np.uint64]:
    """(4 * count,) words: blocks ``first + 1`` to ``first + count``, little-endian."""
    state = _CIPHER.state
    # numpy adds one to the counter before its first block: blocks are numbered from 1.
    state["state"]["counter"][:] = (first, stream, key, kind)
    state["state"]["key"][:] = (seed, TAG)
    _CIPHER.generator.state = state
    return _CIPHER.generator.random_raw(4 * count).astype("<u8", copy=False)
