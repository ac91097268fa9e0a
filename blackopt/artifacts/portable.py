"""Keyed noise that is equal to the last bit in every language and on every processor.

:mod:`blackopt.noise` takes the logarithm and the cosine from the platform, which differ in the last bit from
one C library to the next. Here every step is an operation on integers, or one of + - * / and the square root,
which IEEE 754 rounds in one way only. docs/artifacts.md gives the steps for other languages, and
docs/protocol/keyed.json test vectors.

    words     of :mod:`blackopt.artifacts.words`, by seed, key and kind
    normal    two from each word, by :mod:`blackopt.artifacts.normal`; they reach 6.34 standard deviations
    sign      one bit of a word: +1 where it is set, -1 where it is not
    table     stretches of 2^14 normal numbers of float32 from a table, by :mod:`blackopt.artifacts.table`

Any slice is drawn without the numbers before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blackopt.artifacts.normal import few_normals
from blackopt.artifacts.table import stretches
from blackopt.artifacts.words import Kind, words
from blackopt.errors import UsageError

__all__ = ["Kind", "check", "chunks", "draw"]

LONGEST = 1 << 60
"""Positions go up to here."""

_CHUNK = 1 << 14  # numbers at a time: a multiple of all blocks, and what a cache holds
_PER_BLOCK = {Kind.NORMAL: 8, Kind.SIGN: 256}  # numbers from one block of four words


def draw(
    seed: int, key: int, n: int, *, offset: int = 0, kind: Kind = Kind.NORMAL, dtype: type[Any] = np.float64
) -> NDArray[Any]:
    """(n,) independent numbers of mean 0 and variance 1: positions ``offset`` to ``offset + n - 1`` of a key.

    Args:
        seed: of the run, 0 <= seed < 2^64.
        key: which draw, 0 <= key < 2^64.
        n: how many, >= 0.
        offset: how many to leave out at the beginning, >= 0.
        kind: normal, a sign, or normal from the table.
        dtype: float64, or float32: the float64 rounded once.

    Raises:
        UsageError: a value is out of its range, or ``dtype`` is another.
    """
    if dtype not in (np.float64, np.float32) and np.dtype(dtype) not in (np.float32, np.float64):
        raise UsageError(f"draw: dtype must be float32 or float64, got {np.dtype(dtype)}")
    if n < 0:
        raise UsageError(f"draw: n must be >= 0, got {n}")
    numbers = np.empty(n, dtype)
    for first, part in chunks(seed, key, n, offset=offset, kind=kind):
        numbers[first : first + len(part)] = part
    return numbers


def chunks(
    seed: int, key: int, n: int, *, offset: int = 0, kind: Kind = Kind.NORMAL
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The same numbers as :func:`draw`, in parts: (position relative to ``offset``, the numbers from there).

    A part is the caller's to write on. Memory stays at a few hundred KB, whatever n, and the table's 16 MB.

    Raises:
        UsageError: a value is out of its range.
    """
    check(seed, key, n, offset)
    if kind is Kind.TABLE:
        for first, stretch, sign in stretches(seed, key, n, offset):
            yield first, np.multiply(stretch, sign, dtype=np.float64)
        return
    per = _PER_BLOCK[kind]
    skip = offset % per
    for start in range(0, skip + n, _CHUNK):
        count = min(_CHUNK, skip + n - start)
        begin = skip if start == 0 else 0
        drawn = words(seed, key, kind, (offset + start) // per, -(-count // per))
        convert = few_normals if kind is Kind.NORMAL else _signs
        yield start + begin - skip, convert(drawn, begin, count - begin)


def check(seed: int, key: int, n: int, offset: int) -> None:
    """Refuse what no draw has.

    Raises:
        UsageError: a value is out of its range.
    """
    for name, value, limit in (
        ("seed", seed, 1 << 64),
        ("key", key, 1 << 64),
        ("offset + n", offset + n, LONGEST),
        ("offset", offset, LONGEST),
    ):
        if not 0 <= value < limit:
            raise UsageError(
                f"keyed noise: {name} must be in 0 .. 2^{limit.bit_length() - 1} - 1, got {value}"
            )


def _signs(drawn: NDArray[np.uint64], skip: int, n: int) -> NDArray[np.float64]:
    bits = np.unpackbits(drawn.view(np.uint8), bitorder="little", count=skip + n)[skip:]
    return bits.astype(np.float64) * 2.0 - 1.0
