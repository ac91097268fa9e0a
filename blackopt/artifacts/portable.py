"""Keyed noise that is equal to the last bit in every language and on every processor.

:mod:`blackopt.noise` takes the logarithm and the cosine from the platform, which differ in the last bit from
one C library to the next. Here every step is an operation on integers, or one of + - * / and the square root,
which IEEE 754 rounds in one way only. docs/artifacts.md gives the steps for other languages, and
docs/protocol/keyed.json test vectors.

    words     Philox4x64-10 (Salmon, Moraes, Dror and Shaw, SC 2011) with cipher key (seed, "blackopt") and
              counter (block, 0, key, kind), block = 1, 2, 3, ...
    normal    the inverse of the normal distribution at (k + 1/2) / 2^32 for each 32-bit half k of a word, by
              PPND7 of algorithm AS 241 (Wichura, Applied Statistics 37, 1988), within 1.2e-7 relatively
    sign      one bit of a word: +1 where it is set, -1 where it is not

Numbers reach 6.34 standard deviations. Any slice is drawn without the numbers before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import UsageError

TAG = int.from_bytes(b"blackopt", "little")
"""The second word of the cipher key: these numbers are no one else's use of Philox."""

LONGEST = 1 << 60
"""Positions go up to here."""

_CHUNK = 1 << 14  # numbers at a time: a multiple of both blocks below, and what a cache holds
_A = (3.3871327179, 50.434271938, 159.29113202, 59.109374720)
_B = (17.895169469, 78.757757664, 67.187563600)
_C = (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103)
_D = (0.73700164250, 0.12021132975)
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476


class Kind(IntEnum):
    """What the numbers are; its value stands in the cipher's counter."""

    NORMAL = 0
    SIGN = 1


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
        kind: normal, or a sign.
        dtype: float64, or float32: the float64 rounded once.

    Raises:
        UsageError: a value is out of its range, or ``dtype`` is another.
    """
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
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

    A part is overwritten by the next, so that memory stays at a few hundred KB, whatever n.

    Raises:
        UsageError: a value is out of its range.
    """
    for name, value, limit in (
        ("seed", seed, 1 << 64),
        ("key", key, 1 << 64),
        ("offset + n", offset + n, LONGEST),
    ):
        if not 0 <= value < limit:
            raise UsageError(
                f"keyed noise: {name} must be in 0 .. 2^{limit.bit_length() - 1} - 1, got {value}"
            )
    if offset < 0:
        raise UsageError(f"keyed noise: offset must be >= 0, got {offset}")
    per = _PER_BLOCK[kind]
    skip = offset % per
    # numpy adds one to the counter before its first block: blocks are numbered from 1.
    counter = np.array([offset // per, 0, key, kind], dtype=np.uint64)
    generator = np.random.Philox(counter=counter, key=np.array([seed, TAG], dtype=np.uint64))
    convert = _Normals() if kind is Kind.NORMAL else _signs
    for start in range(0, skip + n, _CHUNK):
        count = min(_CHUNK, skip + n - start)
        words = generator.random_raw(4 * -(-count // per)).astype("<u8", copy=False)
        numbers = convert(words)[:count]
        yield max(0, start - skip), numbers[skip if start == 0 else 0 :]


def _signs(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return bits.astype(np.float64) * 2.0 - 1.0


class _Normals:
    """PPND7 on arrays, in place: scratch memory is kept from one chunk to the next."""

    def __init__(self) -> None:
        self._scratch = np.empty((4, _CHUNK))

    def __call__(self, words: NDArray[np.uint64]) -> NDArray[np.float64]:
        """(2 n,) normal numbers from (n,) words, the lower half of each first."""
        halves = words.view("<u4")
        scratch: list[NDArray[np.float64]] = list(self._scratch[:, : len(halves)])
        q, r, above, below = scratch
        # q = (k + 1/2) / 2^32 - 1/2, and every step of it is exact.
        np.subtract(halves, 2147483647.5, out=q)
        np.multiply(q, 2.0**-32, out=q)
        np.multiply(q, q, out=r)
        np.subtract(0.180625, r, out=r)
        _horner(_A, r, above)
        np.multiply(above, q, out=above)
        _horner((1.0, *_B), r, below)
        np.divide(above, below, out=above)
        np.abs(q, out=r)
        [far] = np.nonzero(r > 0.425)
        above[far] = np.copysign(_tail(0.5 - r[far]), q[far])
        return above


def _tail(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """-(the quantile of p), for 0 < p < 0.075."""
    r = np.sqrt(-_log(p)) - 1.6
    above, below = np.empty(len(r)), np.empty(len(r))
    _horner(_C, r, above)
    _horner((1.0, *_D), r, below)
    np.divide(above, below, out=above)
    return above


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm within 2e-11: ln(m 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)), by its series."""
    mantissa, exponent = np.frexp(p)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, 2.0 * mantissa, mantissa)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    series = np.empty(len(s))
    _horner((2.0, 2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0), s * s, series)
    np.multiply(series, s, out=series)
    np.add(series, (exponent - low) * _LN2, out=series)
    return series


def _horner(coefficients: tuple[float, ...], x: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """c0 + x (c1 + x (c2 + ...)), every product and every sum rounded: never fused."""
    *rest, last = coefficients
    out[...] = last
    for coefficient in reversed(rest):
        np.multiply(out, x, out=out)
        np.add(out, coefficient, out=out)
