"""Noise from a shared table: read instead of drawn, for directions of any length.

A table of 2^22 normal numbers is made from the seed, once per process. A direction is cut into blocks of
2^14: block b of a key is the table from a place on that one word of Philox gives, times a sign of that word.
So directions may be longer than the table. (Salimans et al. 2017, section 2.1, share such a table, and take
one stretch of it for a whole direction.)

The numbers have 12 significant bits (:func:`short`), so that their product with a weight of 12 bits is exact
in float32. To multiply and to add is then one rounding, whether a processor fuses them or not, and a sum of
directions may be left to the fastest routine there is: :mod:`blackopt.artifacts.fold`. A number is changed by
2^-12 of itself at most, up as often as down.

Over keys, each number has the mean 0, for the sign is even; numbers of different blocks are uncorrelated, and
numbers of one block, d positions apart, are correlated as those of the table are: by about 2^-11. Two blocks
are the same stretch once in 2^22 times: directions of one block may repeat, those of 10^5 numbers do not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts.normal import normals
from blackopt.artifacts.words import Kind, words

LENGTH = 1 << 22
"""Numbers of a table."""

BLOCK = 1 << 14
"""Numbers that are taken from one place of it."""

BITS = 12
"""Significant bits of its numbers, and of the weights that they are multiplied by."""

_STREAM = 1  # of the words of the table, in the counter; those of a key have 0
_CHUNK = 1 << 11  # Philox blocks at a time: 16,384 numbers of the table, places of 8,192 blocks
_KEPT = 4  # seeds; a table takes 16 MB
_MAKING = threading.Lock()


def table(seed: int) -> NDArray[np.float32]:
    """(LENGTH + BLOCK,) float32, read-only: the table and once more its beginning, so that blocks are slices.

    Those of the last four seeds are kept; threads share them.
    """
    with _MAKING:  # lru_cache alone would let each of several threads make it
        return _made(seed)


@lru_cache(maxsize=_KEPT)
def _made(seed: int) -> NDArray[np.float32]:
    made = np.empty(LENGTH + BLOCK, np.float32)
    for first in range(0, LENGTH // 8, _CHUNK):
        part = words(seed, 0, Kind.TABLE, first, _CHUNK, stream=_STREAM)
        made[8 * first : 8 * (first + _CHUNK)] = short(normals(part))
    made[LENGTH:] = made[:BLOCK]
    made.flags.writeable = False
    return made


def short(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest numbers of 12 significant bits; of two that are equally near, the one whose last bit is 0.

    In place, on the 64 bits of each as an integer: half of the last bit that stays is added, less one where
    that bit is 0, and what is below it is cleared.
    """
    bits = numbers.view(np.uint64)
    dropped = np.uint64(53 - BITS)
    bits += (bits >> dropped & np.uint64(1)) + np.uint64((1 << 52 - BITS) - 1)
    bits >>= dropped
    bits <<= dropped
    return numbers


def places(
    seed: int, keys: int | Sequence[int], first: int, count: int
) -> tuple[NDArray[np.int32], NDArray[np.int8]]:
    """Of blocks ``first`` to ``first + count - 1``: their places in the table, and their signs, 1 or -1.

    (count,) of a key, and (count, k) of a sequence of k keys.
    """
    lead = first // 4
    size = (first + count + 3) // 4 - lead
    if isinstance(keys, int):
        drawn = words(seed, keys, Kind.TABLE, lead, size)
    else:
        drawn = np.empty((4 * size, len(keys)), np.uint64)
        for i, key in enumerate(keys):
            drawn[:, i] = words(seed, key, Kind.TABLE, lead, size)
    drawn = drawn[first - 4 * lead :][:count]
    starts = (drawn & np.uint64(LENGTH - 1)).astype(np.int32)
    signs = (drawn >> np.uint64(63)).astype(np.int8) * np.int8(2) - np.int8(1)
    return starts, signs


def stretches(seed: int, key: int, n: int, offset: int) -> Iterator[tuple[int, NDArray[np.float32], int]]:
    """Positions ``offset`` to ``offset + n - 1`` of a key: (position relative to ``offset``, table, sign)."""
    whole = table(seed)
    end = -(-(offset + n) // BLOCK)
    at = -(offset % BLOCK)  # where the block begins, relative to offset
    for lead in range(offset // BLOCK, end, 4 * _CHUNK):
        starts, signs = places(seed, key, lead, min(4 * _CHUNK, end - lead))
        for start, sign in zip(starts.tolist(), signs.tolist(), strict=True):
            low, high = max(at, 0), min(at + BLOCK, n)
            yield low, whole[start + low - at : start + high - at], sign
            at += BLOCK
