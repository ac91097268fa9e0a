"""Keyed noise: ``(seed, stream, key) -> numbers``, the same in any process, never stored, never in sequence.

The generator is Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011): a block cipher run over a counter, so any block can be computed without the ones before it. Here

    cipher key = BLAKE2b-128(seed, stream)        one cipher per seed and purpose: streams never overlap
    counter    = key * 2^128 + position           2^130 words for each key

Only the raw 64-bit words are taken from numpy, because it promises those for ever and does not promise the
distributions built on them (NEP 19). What is built on them below is exact (uniform, integers) or as exact as
the platform's logarithm and cosine (normal).
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import UsageError
from blackopt.types import Vector

_WORD = 0xFFFF_FFFF_FFFF_FFFF


def normal(seed: int, stream: str, key: int, n: int) -> Vector:
    """(n,) independent standard normal numbers; a longer draw begins with a shorter one.

    Box and Muller (1958): for u, v uniform in (0, 1), ``sqrt(-2 ln u) * (cos 2 pi v, sin 2 pi v)`` are two
    of them.

    Args:
        seed: of the run; any integer.
        stream: the purpose, e.g. ``"openai-es"``; other names give independent numbers.
        key: which draw, 0 <= key < 2^128.
        n: how many, >= 0.

    Raises:
        UsageError: ``key`` or ``n`` is out of range.
    """
    u = uniform(seed, stream, key, n + n % 2)
    radius, angle = np.sqrt(-2.0 * np.log(u[0::2])), 2.0 * np.pi * u[1::2]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return np.ascontiguousarray(pairs.reshape(-1)[:n])


def uniform(seed: int, stream: str, key: int, n: int) -> Vector:
    """(n,) odd multiples of 2^-53 from the open interval (0, 1). Otherwise as :func:`normal`."""
    # 52 bits and a half: the midpoints are exact in float64 and reach neither 0 (no logarithm) nor 1.
    return ((_words(seed, stream, key, n) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def integers(seed: int, stream: str, key: int, n: int, high: int) -> NDArray[np.int64]:
    """(n,) integers from 0 to ``high - 1``, equally likely up to high * 2^-52. Otherwise as :func:`normal`.

    Raises:
        UsageError: ``high`` is not in 1 .. 2^32, or as in :func:`normal`.
    """
    if not 1 <= high <= 1 << 32:
        raise UsageError(f"integers: high must be in 1 .. 2^32, got {high}")
    return np.floor(uniform(seed, stream, key, n) * high).astype(np.int64)


def _words(seed: int, stream: str, key: int, n: int) -> NDArray[np.uint64]:
    """(n,) raw words of the cipher of (seed, stream), from the counter of ``key`` on."""
    if not 0 <= key < 1 << 128:
        raise UsageError(f"noise: key must be in 0 .. 2^128 - 1, got {key}")
    if n < 0:
        raise UsageError(f"noise: n must be >= 0, got {n}")
    digest = hashlib.blake2b(f"{seed}\0{stream}".encode(), digest_size=16).digest()
    cipher = np.frombuffer(digest, dtype="<u8").astype(np.uint64)
    counter = np.array([0, 0, key & _WORD, key >> 64], dtype=np.uint64)
    words: NDArray[np.uint64] = np.random.Philox(counter=counter, key=cipher).random_raw(n)
    return words
