"""Normal numbers from words, by steps that IEEE 754 rounds in one way only.

PPND7 of algorithm AS 241 (Wichura, Applied Statistics 37, 1988) gives the quantile of (k + 1/2) / 2^32 for
each 32-bit half k of a word, within 1.2e-7 relatively. Only + - * / and the square root are used, and the
split of a number into mantissa and exponent; no step is fused. The same lines compute a float or an array: an
operation that is in place for an array makes a new float.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_A = (3.3871327179, 50.434271938, 159.29113202, 59.109374720)
_B = (1.0, 17.895169469, 78.757757664, 67.187563600)
_C = (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103)
_D = (1.0, 0.73700164250, 0.12021132975)
_L = (2.0, 2.0 / 3.0, 2.0 / 5.0, 2.0 / 7.0, 2.0 / 9.0, 2.0 / 11.0)
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476
_FEW = 24  # numbers up to which Python's floats are faster than numpy's calls


def normals(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """(2 n,) normal numbers from (n,) words, the lower half of each first."""
    halves = words.view("<u4")
    q = np.subtract(halves, 2147483647.5)
    q *= 2.0**-32
    found: NDArray[np.float64] = _middle(q)
    size = np.abs(q)
    [far] = np.nonzero(size > 0.425)
    found[far] = np.copysign(_tail(0.5 - size[far], np), q[far])
    return found


def few_normals(words: NDArray[np.uint64], skip: int, n: int) -> NDArray[np.float64]:
    """The same numbers, ``skip`` to ``skip + n - 1`` of them."""
    if n > _FEW:
        return normals(words)[skip : skip + n]
    found = []
    for half in words.view("<u4")[skip : skip + n].tolist():
        q = (half - 2147483647.5) * 2.0**-32  # (half + 1/2) / 2^32 - 1/2, and every step of it is exact
        size = abs(q)
        found.append(_middle(q) if size <= 0.425 else math.copysign(_tail(0.5 - size, math), q))
    return np.array(found)


def _middle(q: Any) -> Any:
    """The quantile of 1/2 + q, for abs(q) <= 0.425."""
    r = q * q
    r = 0.180625 - r
    above = _horner(_A, r)
    above *= q
    above /= _horner(_B, r)
    return above


def _tail(p: Any, lib: Any) -> Any:
    """-(the quantile of p), for 0 < p < 0.075."""
    r = lib.sqrt(-_log(p, lib))
    r -= 1.6
    above = _horner(_C, r)
    above /= _horner(_D, r)
    return above


def _log(p: Any, lib: Any) -> Any:
    """The natural logarithm within 2e-11: ln(m 2^e) = e ln 2 + 2 artanh((m - 1) / (m + 1)), by its series."""
    m, exponent = lib.frexp(p)
    low = m < _SQRT_HALF
    m = m + low * m  # twice m where it is low
    s = (m - 1.0) / (m + 1.0)
    return _horner(_L, s * s) * s + (exponent - low) * _LN2


def _horner(coefficients: tuple[float, ...], x: Any) -> Any:
    """c0 + x (c1 + x (c2 + ...)), every product and every sum rounded: never fused."""
    total = x * coefficients[-1]
    for coefficient in coefficients[-2:0:-1]:
        total += coefficient
        total *= x
    total += coefficients[0]
    return total
