"""Sums over many directions, none of which is ever a vector: what an update of an evolution strategy needs.

The directions of a population of 256 in a model of 10^8 numbers are 100 GB. Here they are made block by block
of 2^14 positions, and added while they are in the cache: memory is that of the sum, however many they are.

Equal keys are one direction with the sum of their weights, and directions are added in the order of their
keys: the result depends neither on the order in which they are given nor on the number of threads, each of
which has blocks of its own. For each position j,

    normal, sign    out[j] = round(float64(out[j]) + sum of w_i x_i[j]), in float64, rounded once
    table           out[j] = out[j] + sum of w_i x_i[j], each product and each sum rounded to the type of out

Source: Salimans et al., Evolution Strategies as a Scalable Alternative to Reinforcement Learning, 2017,
algorithm 2, where each worker sums what all of them drew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blackopt.artifacts.portable import Kind, check, chunks
from blackopt.artifacts.table import BLOCK, places, table
from blackopt.errors import UsageError

_SEGMENT = 64 * BLOCK  # positions of one piece of work: 4 MB of float32
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

Work = Callable[[int, int], None]
"""Does positions ``first`` to ``end - 1``."""


def fold(
    seed: int,
    keys: ArrayLike,
    weights: ArrayLike,
    out: NDArray[Any],
    *,
    kind: Kind = Kind.NORMAL,
    offset: int = 0,
    threads: int | None = None,
) -> None:
    """Add to ``out`` the weighted sum of directions: ``out[j] += sum_i weights[i] * noise_i[offset + j]``.

    Args:
        seed: of the campaign, 0 <= seed < 2^64.
        keys: (k,) integers, 0 <= key < 2^64; one may come several times.
        weights: (k,) finite; a candidate of sign -1 has its weight negative.
        out: (n,) contiguous float32 or float64.
        kind: of the noise.
        offset: position of ``out[0]`` in the model.
        threads: at most so many; None for as many as there are processors, if the sum is long enough.

    Raises:
        UsageError: a type, a shape or a number is out of its range. ``out`` is as it was.
    """
    unique, summed = _directions("fold", keys, weights)
    _ready("fold", seed, unique, out, offset)
    source = table(seed) if kind is Kind.TABLE else None
    _run(_adder(seed, unique, summed, out, kind, offset, source), out.size, offset, threads)


def fold_squares(
    seed: int,
    keys: ArrayLike,
    weights: ArrayLike,
    out: NDArray[Any],
    *,
    kind: Kind = Kind.NORMAL,
    offset: int = 0,
    threads: int | None = None,
) -> None:
    """Add to ``out`` what moves a spread: ``out[j] += sum_i weights[i] * (noise_i[offset + j] ** 2 - 1)``.

    A key and its twin have the same squares, so weights carry no sign here. The squares of signs are 1, and
    add nothing. Each difference is rounded to float64, with a table to float32.

    Arguments and errors are those of :func:`fold`.
    """
    unique, summed = _directions("fold_squares", keys, weights)
    _ready("fold_squares", seed, unique, out, offset)
    if kind is Kind.SIGN:
        return
    source = _squared(table(seed)) if kind is Kind.TABLE else None
    _run(_adder(seed, unique, summed, out, kind, offset, source, squared=True), out.size, offset, threads)


def dots(
    seed: int, keys: ArrayLike, vector: NDArray[Any], *, kind: Kind = Kind.NORMAL, offset: int = 0
) -> NDArray[np.float64]:
    """(k,) the products of directions and a vector: ``sum_j noise_i[offset + j] * vector[j]``.

    Products are summed in the type of the noise and the vector, block by block, and the blocks in float64;
    the last bits depend on the processor.

    Args:
        seed: of the campaign, 0 <= seed < 2^64.
        keys: (k,) integers, 0 <= key < 2^64.
        vector: (n,) float32 or float64.
        kind: of the noise.
        offset: position of ``vector[0]`` in the model.

    Raises:
        UsageError: a type, a shape or a number is out of its range.
    """
    given = _keys("dots", keys)
    _ready("dots", seed, given, vector, offset)
    unique, inverse = np.unique(given, return_inverse=True)
    found = np.zeros(len(unique))
    for i, key in enumerate(unique.tolist()):
        for first, part in chunks(seed, key, vector.size, offset=offset, kind=kind):
            found[i] += sum(
                float(part[at : at + _DOT].dot(vector[first + at : first + at + _DOT][: len(part) - at]))
                for at in range(0, len(part), _DOT)
            )
    return found[inverse.reshape(-1)]


_DOT = 1 << 13  # below what the BLAS of numpy shares among threads, whose number would change the last bit


def _keys(what: str, keys: ArrayLike) -> NDArray[np.uint64]:
    given = np.asarray(keys)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iuO"):
        raise UsageError(f"{what}: keys must be (k,) integers, got {given.dtype} {given.shape}")
    for key in given.tolist():
        if not (isinstance(key, int) and 0 <= key < 1 << 64):
            raise UsageError(f"{what}: keys must be integers in 0 .. 2^64 - 1, got {key!r}")
    return given.astype(np.uint64)


def _directions(
    what: str, keys: ArrayLike, weights: ArrayLike
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Each key once, ascending, and the sum of its weights, in the order in which they are given."""
    given, heavy = _keys(what, keys), np.asarray(weights, np.float64)
    if heavy.shape != given.shape:
        raise UsageError(f"{what}: {given.size} keys need weights ({given.size},), got {heavy.shape}")
    [wrong] = np.nonzero(~np.isfinite(heavy))
    if wrong.size:
        raise UsageError(f"{what}: weights must be finite, got {heavy[wrong[0]]} at {wrong[0]}")
    unique, inverse = np.unique(given, return_inverse=True)
    summed: NDArray[np.float64] = np.zeros(len(unique))
    np.add.at(summed, inverse.reshape(-1), heavy)
    return unique, summed


def _ready(what: str, seed: int, keys: NDArray[np.uint64], vector: NDArray[Any], offset: int) -> None:
    if vector.dtype not in _FLOATS or vector.ndim != 1 or not vector.flags.c_contiguous:
        raise UsageError(
            f"{what}: out must be contiguous float32 or float64 (n,), got {vector.dtype} {vector.shape}"
        )
    check(seed, int(keys.max(initial=0)), vector.size, offset)


def _squared(whole: NDArray[np.float32]) -> NDArray[np.float32]:
    return whole * whole - np.float32(1)


def _run(work: Work, n: int, offset: int, threads: int | None) -> None:
    """All positions, in segments that begin where a block does."""
    ends = [*range(_SEGMENT - offset % BLOCK, n, _SEGMENT), n]
    pieces = list(zip([0, *ends], ends, strict=False))
    count = min(len(pieces), threads or len(os.sched_getaffinity(0)))
    if count < 2:
        for first, end in pieces:
            work(first, end)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="blackopt-fold") as pool:
        for _ in pool.map(lambda piece: work(*piece), pieces):
            pass


def _adder(
    seed: int,
    keys: NDArray[np.uint64],
    weights: NDArray[np.float64],
    out: NDArray[Any],
    kind: Kind,
    offset: int,
    source: NDArray[np.float32] | None,
    *,
    squared: bool = False,
) -> Work:
    listed: Sequence[int] = keys.tolist()
    if source is None:

        def add(first: int, end: int) -> None:
            for low, high in _blocks(first, end, offset):
                total = np.zeros(high - low)
                for key, weight in zip(listed, weights.tolist(), strict=True):
                    for _, part in chunks(seed, key, high - low, offset=offset + low, kind=kind):
                        if squared:
                            np.multiply(part, part, out=part)
                            np.subtract(part, 1.0, out=part)
                        np.multiply(part, weight, out=part)
                        np.add(total, part, out=total)
                out[low:high] = total + out[low:high]

        return add

    # 0-d arrays: numpy would make them of floats in each call, which takes as long as a quarter of a block.
    heavy = [np.array(weight, out.dtype) for weight in weights]
    pairs = [{1: weight, -1: weight if squared else -weight} for weight in heavy]

    def add_from_table(first: int, end: int) -> None:
        spans = list(_blocks(first, end, offset))
        lead = (offset + first) // BLOCK
        found = [places(seed, key, lead, len(spans)) for key in listed]
        total, moved = np.empty((2, BLOCK), out.dtype)
        for block, (low, high) in enumerate(spans):
            within, size = (offset + low) % BLOCK, high - low
            part, sum_ = moved[:size], total[:size]
            sum_[...] = 0
            for (starts, signs), pair in zip(found, pairs, strict=True):
                begin = starts[block] + within
                np.multiply(source[begin : begin + size], pair[signs[block]], part)
                np.add(sum_, part, sum_)
            out[low:high] += sum_

    return add_from_table


def _blocks(first: int, end: int, offset: int) -> Iterator[tuple[int, int]]:
    """Positions ``first`` to ``end - 1`` cut where a block of the model ends."""
    while first < end:
        high = min(end, first + BLOCK - (offset + first) % BLOCK)
        yield first, high
        first = high
