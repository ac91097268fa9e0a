"""Sums over many directions, none of which is ever a vector: what an update of an evolution strategy needs.

The directions of a population of 256 in a model of 10^8 numbers are 100 GB. Here they are made block by block
of 2^14 positions, and added while they are in the cache: memory is that of the sum, however many they are.

Equal keys are one direction with the sum of their weights, and directions are added in the order of their
keys: the result depends neither on the order in which they are given nor on the number of threads, each of
which has blocks of its own. For each position j,

    normal    out[j] + s, where s is the sum of w_i x_i[j]: all in float64, rounded to the type of out once
    table     out[j] + w_1 x_1[j] + w_2 x_2[j] + ..., from left to right, where weights, products and sums are
              rounded to the type of out, and for float32 the weights to 12 significant bits
    sign      out[j] + s_1 + s_2 + ..., in the type of out; s_g is the sum of w_i x_i[j] over the g-th sixteen
              keys in float64, rounded to that type

No step is fused, so the result is the same on every processor. With noise of a table in float32 it would be
the same fused: the numbers have 12 bits, too, and a product of 24 bits is exact. There scipy's saxpy adds in
one pass where it is installed (``pip install "blackopt[fast]"``), numpy in two where it is not. A weight is
changed by 2^-12 of itself at most. Products near the smallest and the largest numbers are not exact: a sum
with a weight below 2^-90 or above 2^120, which no search has, takes the two passes.

Sixteen signs of a position are an index into the 2^16 sums that sixteen weights can have: a look-up instead
of sixteen additions (the method of the four Russians: Arlazarov, Dinic, Kronrod and Faradzev, 1970).

Source: Salimans et al., Evolution Strategies as a Scalable Alternative to Reinforcement Learning, 2017,
algorithm 2, where each worker sums what all of them drew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blackopt.artifacts.portable import Kind, check, chunks
from blackopt.artifacts.table import BLOCK, places, short, table
from blackopt.artifacts.words import words
from blackopt.errors import UsageError

_SEGMENT = 64 * BLOCK  # positions of one piece of work: 4 MB of float32
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_EXACT = (2.0**-90, 2.0**120)  # weights whose products with the table, 2^-33 to 2^6, are exact in float32

_THREADS = 4  # numpy holds the interpreter's lock for a third of a block: more threads would wait
_TOGETHER = 16  # signs of a position that are looked up at once: 256 KB of sums in float32
_ALONE = 1 << 13  # below what a BLAS shares among threads: they would change the last bit of a dot, and wait

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
        threads: at most so many; None for as many as are of use.

    Raises:
        UsageError: a type, a shape or a number is out of its range. ``out`` is as it was.
    """
    directions = _directions("fold", keys, weights, out)
    _ready("fold", seed, directions[0], out, offset)
    match kind:
        case Kind.NORMAL:
            work = _normal(seed, *directions, out, offset, squared=False)
        case Kind.TABLE:
            work = _table(seed, *directions, out, offset, squared=False)
        case Kind.SIGN:
            work = _sign(seed, *directions, out, offset)
    _run(work, out.size, offset, threads, kind)


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
    add nothing. Each difference is rounded to float64, with a table to 12 significant bits.

    Arguments and errors are those of :func:`fold`.
    """
    directions = _directions("fold_squares", keys, weights, out)
    _ready("fold_squares", seed, directions[0], out, offset)
    if kind is Kind.SIGN:
        return
    make = _normal if kind is Kind.NORMAL else _table
    _run(make(seed, *directions, out, offset, squared=True), out.size, offset, threads, kind)


def _keys(what: str, keys: ArrayLike) -> NDArray[np.uint64]:
    given = np.asarray(keys, None if isinstance(keys, np.ndarray) else object)  # [1, 2**64 - 1] is no float
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iuO"):
        raise UsageError(f"{what}: keys must be (k,) integers, got {given.dtype} {given.shape}")
    for key in given.tolist():
        if not (isinstance(key, int) and 0 <= key < 1 << 64):
            raise UsageError(f"{what}: keys must be integers in 0 .. 2^64 - 1, got {key!r}")
    return given.astype(np.uint64)


def _directions(
    what: str, keys: ArrayLike, weights: ArrayLike, out: NDArray[Any]
) -> tuple[list[int], list[float]]:
    """Each key once, ascending, and the sum of its weights, in the order in which they are given."""
    given, heavy = _keys(what, keys), np.asarray(weights, np.float64)
    if heavy.shape != given.shape:
        raise UsageError(f"{what}: {given.size} keys need weights ({given.size},), got {heavy.shape}")
    if not out.flags.writeable:
        raise UsageError(f"{what}: out must be writeable")
    summed = dict.fromkeys(sorted(given.tolist()), 0.0)
    for key, weight in zip(given.tolist(), heavy.tolist(), strict=True):
        summed[key] += weight
    with np.errstate(over="ignore"):
        finite = np.isfinite(np.array([*summed.values()]).astype(out.dtype))
    if not finite.all():
        key, weight = [*summed.items()][int(np.argmin(finite))]
        raise UsageError(f"{what}: weights must be finite in {out.dtype}, key {key} has {weight}")
    return [*summed], [*summed.values()]


def _ready(what: str, seed: int, keys: Sequence[int], out: NDArray[Any], offset: int) -> None:
    if out.dtype not in _FLOATS or out.ndim != 1 or not out.flags.c_contiguous:
        raise UsageError(
            f"{what}: out must be contiguous float32 or float64 (n,), got {out.dtype} {out.shape}"
        )
    check(seed, max(keys, default=0), out.size, offset)


def _run(work: Work, n: int, offset: int, threads: int | None, kind: Kind) -> None:
    """All positions, in segments that begin where a block does."""
    ends = [*range(_SEGMENT - offset % BLOCK, n, _SEGMENT), n]
    pieces = list(zip([0, *ends], ends, strict=False))
    if threads is not None and threads < 1:
        raise UsageError(f"fold: threads must be >= 1 or None, got {threads}")
    count = min(len(pieces), threads or _most(kind))
    if threads is None and count > 1:
        count = min(count, os.cpu_count() or 1)
    if count < 2:
        for first, end in pieces:
            work(first, end)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="blackopt-fold") as pool:
        for _ in pool.map(lambda piece: work(*piece), pieces):
            pass


def _most(kind: Kind) -> int:
    """Threads that are of use: scipy's saxpy holds the interpreter's lock, and is as fast as the memory."""
    return 1 if kind is Kind.TABLE and saxpy() is not None else _THREADS


def _normal(
    seed: int, keys: list[int], weights: list[float], out: NDArray[Any], offset: int, *, squared: bool
) -> Work:
    def add(first: int, end: int) -> None:
        for low, high in _blocks(first, end, offset):
            total = np.zeros(high - low)
            for key, weight in zip(keys, weights, strict=True):
                for at, part in chunks(seed, key, high - low, offset=offset + low):
                    if squared:
                        np.multiply(part, part, out=part)
                        np.subtract(part, 1.0, out=part)
                    total[at : at + len(part)] += np.multiply(part, weight, out=part)
            out[low:high] = total + out[low:high]

    return add


def _table(
    seed: int, keys: list[int], weights: list[float], out: NDArray[Any], offset: int, *, squared: bool
) -> Work:
    source = _squares(seed) if squared else table(seed)
    heavy = np.array(weights)
    if out.dtype == np.float32:
        heavy = short(heavy)
    plus = _plus(heavy, out)

    def add(first: int, end: int) -> None:
        blocks = list(_blocks(first, end, offset))
        begins, signs = places(seed, keys, (offset + first) // BLOCK, len(blocks))
        begins[:1] += (offset + first) % BLOCK
        signed = np.broadcast_to(heavy, signs.shape) if squared else heavy * signs
        for (low, high), of_block, by in zip(blocks, begins, signed, strict=True):
            plus(source, of_block.tolist(), by.tolist(), out[low:high])

    return add


Plus = Callable[[NDArray[np.float32], list[int], list[float], NDArray[Any]], None]
"""``(source, begins, weights, out)``: add the stretches of the source that begin there, by their weights."""


def _plus(weights: NDArray[np.float64], out: NDArray[Any]) -> Plus:
    """One pass for each stretch where that gives the bits of two."""
    least, most = _EXACT
    sizes = np.abs(weights[weights != 0])
    exact = out.dtype == np.float32 and bool(np.all((sizes >= least) & (sizes <= most)))
    return _in_one_pass if exact and out.flags.aligned and saxpy() is not None else _in_two_passes


def _in_one_pass(
    source: NDArray[np.float32], begins: list[int], weights: list[float], out: NDArray[Any]
) -> None:
    add = saxpy()
    for at in range(0, out.size, _ALONE):
        part = out[at : at + _ALONE]
        for begin, weight in zip(begins, weights, strict=True):
            add(source, part, part.size, weight, begin + at)


def _in_two_passes(
    source: NDArray[np.float32], begins: list[int], weights: list[float], out: NDArray[Any]
) -> None:
    product = np.empty_like(out)
    for begin, weight in zip(begins, weights, strict=True):
        np.multiply(source[begin : begin + out.size], out.dtype.type(weight), product)
        np.add(out, product, out)


@lru_cache(maxsize=1)
def saxpy() -> Any:
    """Of scipy, imported when it is first needed; None where scipy is not installed."""
    try:
        from scipy.linalg.blas import saxpy as of_scipy
    except ImportError:
        return None
    return of_scipy


@lru_cache(maxsize=1)
def _squares(seed: int) -> NDArray[np.float32]:
    """The table's squares less one, rounded as the table is."""
    whole = table(seed)
    made = np.empty_like(whole)
    for at in range(0, len(whole), BLOCK):
        wide = whole[at : at + BLOCK].astype(np.float64)
        made[at : at + BLOCK] = short(wide * wide - 1.0)
    return made


def _sign(seed: int, keys: list[int], weights: list[float], out: NDArray[Any], offset: int) -> Work:
    def add(first: int, end: int) -> None:
        for at in range(0, len(keys), _TOGETHER):
            together = slice(at, at + _TOGETHER)
            sums = _sums(weights[together]).astype(out.dtype)
            for low in range(first, end, 4 * BLOCK):
                high = min(end, low + 4 * BLOCK)
                out[low:high] += sums.take(_codes(seed, keys[together], offset + low, high - low))

    return add


def _sums(weights: list[float]) -> NDArray[np.float64]:
    """(2^k,) what k weights add up to; that of bit i counts as it is where the bit is set, else negative."""
    sums = np.zeros(1 << len(weights))
    for i, weight in enumerate(weights):
        low, high = sums[: 1 << i], sums[1 << i : 2 << i]
        np.add(low, weight, out=high)
        np.subtract(low, weight, out=low)
    return sums


def _codes(seed: int, keys: list[int], position: int, n: int) -> NDArray[np.uint16]:
    """(n,) the signs of up to sixteen keys, those of key i as bit i."""
    lead, skip = divmod(position, 256)
    count = -(-(skip + n) // 256)
    codes = np.empty((256 * count, 2), np.uint8)
    for half in (0, 1):  # of 16 bits: operations on bytes are twice as fast
        code = np.zeros(256 * count, np.uint8)
        for key in reversed(keys[8 * half : 8 * half + 8]):
            drawn = words(seed, key, Kind.SIGN, lead, count)
            np.left_shift(code, 1, out=code)
            np.bitwise_or(code, np.unpackbits(drawn.view(np.uint8), bitorder="little"), out=code)
        codes[:, half] = code
    found: NDArray[np.uint16] = codes.view("<u2")[skip : skip + n, 0]
    return found


def _blocks(first: int, end: int, offset: int) -> Iterator[tuple[int, int]]:
    """Positions ``first`` to ``end - 1`` cut where a block of the model ends."""
    while first < end:
        high = min(end, first + BLOCK - (offset + first) % BLOCK)
        yield first, high
        first = high
