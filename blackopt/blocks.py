"""The kinds of block a space is made of: each maps a named value to coordinates of the optimizer and back.

Bounded coordinates lie in [0, 1], so that one step size suits all of them; weights are unbounded. For all
coordinates ``c`` inside the bounds, ``decode(encode(decode(c))) == decode(c)`` bit for bit, and the
coordinates of the start decode to exactly the start: what was rendered can be parsed, and rounding never
moves the incumbent.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, TypeAlias, overload

import numpy as np

from blackopt.errors import UsageError
from blackopt.types import Vector

Option: TypeAlias = str | bool | int | float

MAX_INTEGERS = 2**40
"""Most integers one block can tell apart: the middle of a bin must survive a float64 product."""

_SEARCH_ULPS = 64  # the inverse formulas are a few ulps off at most; past this the value has no preimage


class Block(ABC):
    """One named value of a space.

    Attributes:
        name: of the value.
        size: how many coordinates it takes.
        coordinates: their names, ``size`` of them.
        lower, upper: bounds of every coordinate of the block (infinite for weights).
        discrete: True where coordinates between two values mean one of them (int, choice).
    """

    kind: ClassVar[str]
    discrete: ClassVar[bool] = False
    lower: ClassVar[float] = 0.0
    upper: ClassVar[float] = 1.0

    def __init__(self, name: str, coordinates: Sequence[str]) -> None:
        self.name = name
        self.coordinates = coordinates
        self.size = len(coordinates)

    @abstractmethod
    def start(self) -> Vector:
        """(size,) coordinates of the start."""

    @abstractmethod
    def decode(self, coordinates: Vector) -> object:
        """The natural value of (size,) coordinates that are inside the bounds."""

    @abstractmethod
    def encode(self, value: object) -> Vector:
        """(size,) coordinates of a natural value.

        Raises:
            UsageError: the value is of another type, out of bounds, or not finite.
        """

    @abstractmethod
    def spec(self) -> dict[str, object]:
        """The block in the grammar of ``campaign.yaml``, start included."""

    def refuse(self, expected: str, value: object) -> UsageError:
        """The error for a value that this block cannot hold."""
        shown = repr(value)
        return UsageError(
            f"{self.name}: expected {expected}, got {shown if len(shown) <= 80 else shown[:77] + '...'}"
        )


class _Numbered(Sequence[str]):
    """``w[0]``, ``w[1]``, ..., each spelt when it is asked for: there may be a billion."""

    def __init__(self, name: str, count: int) -> None:
        self._name, self._range = name, range(count)

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [f"{self._name}[{i}]" for i in self._range[index]]
        return f"{self._name}[{self._range[index]}]"


class FloatBlock(Block):
    """A float in [lo, hi], linear or logarithmic: ``lo + c (hi − lo)`` or ``exp(ln lo + c (ln hi − ln lo))``.

    Args:
        start: the middle (of the scale in use) unless given.

    Raises:
        UsageError: empty, infinite, too wide or (log) too narrow bounds, a logarithm of zero or less, a start
            outside.
    """

    kind = "float"

    def __init__(
        self, name: str, lo: float, hi: float, *, log: bool = False, start: float | None = None
    ) -> None:
        super().__init__(name, (name,))
        self.lo, self.hi, self.log = float(lo), float(hi), log
        _check_bounds(name, self.lo, self.hi)
        if log and self.lo <= 0.0:
            raise UsageError(f"{name}: a log scale needs a lower bound above 0, got {lo!r}")
        self._origin = math.log(self.lo) if log else self.lo
        self._width = math.log(self.hi) - self._origin if log else self.hi - self.lo
        if self._width == 0.0:  # different floats may have the same logarithm
            raise UsageError(f"{name}: [{lo!r}, {hi!r}] is too narrow for a log scale in float64")
        # The start decodes to itself even where no coordinate would: see decode.
        self._start = math.nan
        self._start_at = math.nan
        value = self._scale(0.5) if start is None else self._check(start)
        self._start_at = self._invert(value)
        self._start = value

    def _check(self, value: object) -> float:
        number = _number(value)
        if number is None or not self.lo <= number <= self.hi:
            raise self.refuse(f"a number in [{self.lo!r}, {self.hi!r}]", value)
        return number

    def _scale(self, c: float) -> float:
        if c == self._start_at:
            return self._start
        if c <= 0.0:
            return self.lo
        if c >= 1.0:
            return self.hi
        x = self._origin + c * self._width
        return min(max(math.exp(x) if self.log else x, self.lo), self.hi)

    def _invert(self, x: float) -> float:
        if x == self._start:
            return self._start_at
        guess = ((math.log(x) if self.log else x) - self._origin) / self._width
        return _preimage(self._scale, x, min(max(guess, 0.0), 1.0))

    def start(self) -> Vector:
        """(1,) see :class:`Block`."""
        return np.array([self._start_at])

    def decode(self, coordinates: Vector) -> float:
        """The float; exactly ``lo`` at 0 and ``hi`` at 1, and never outside them by rounding."""
        return self._scale(float(coordinates[0]))

    def encode(self, value: object) -> Vector:
        """(1,) see :class:`Block`."""
        return np.array([self._invert(self._check(value))])

    def spec(self) -> dict[str, object]:
        """See :class:`Block`."""
        return {"float": [self.lo, self.hi], "log": self.log, "start": self._start}


class IntBlock(Block):
    """An integer in [lo, hi], relaxed to one coordinate.

    Linear: each integer owns a bin of equal width. Logarithmic: the bin of k is [k − ½, k + ½) on the log
    scale of [lo − ½, hi + ½]. A value is encoded as the middle of its bin.

    Args:
        start: what the coordinate ½ means, unless given.

    Raises:
        UsageError: empty bounds, more than ``MAX_INTEGERS`` integers, a log scale below 1, a start outside.
    """

    kind = "int"
    discrete = True

    def __init__(self, name: str, lo: int, hi: int, *, log: bool = False, start: int | None = None) -> None:
        super().__init__(name, (name,))
        self.lo, self.hi, self.log = int(lo), int(hi), log
        if self.lo >= self.hi:
            raise UsageError(f"{name}: the lower bound must be below the upper, got [{lo!r}, {hi!r}]")
        if self.hi - self.lo >= MAX_INTEGERS or (log and self.hi >= MAX_INTEGERS):
            raise UsageError(f"{name}: [{lo!r}, {hi!r}] is too wide; at most {MAX_INTEGERS} integers fit")
        if log and self.lo < 1:
            raise UsageError(f"{name}: a log scale needs a lower bound of at least 1, got {lo!r}")
        if log:
            self._origin = math.log(self.lo - 0.5)
            self._width = math.log(self.hi + 0.5) - self._origin
        self._start = self._scale(0.5) if start is None else self._check(start)

    def _check(self, value: object) -> int:
        number = _number(value)
        if number is None or number != math.floor(number):
            raise self.refuse(f"an integer in [{self.lo}, {self.hi}]", value)
        k = operator.index(value) if isinstance(value, int | np.integer) else int(number)
        if not self.lo <= k <= self.hi:
            raise self.refuse(f"an integer in [{self.lo}, {self.hi}]", value)
        return k

    def _scale(self, c: float) -> int:
        if self.log:
            k = math.floor(math.exp(self._origin + c * self._width) + 0.5)
        else:
            k = self.lo + math.floor(c * (self.hi - self.lo + 1))
        return min(max(k, self.lo), self.hi)

    def start(self) -> Vector:
        """(1,) see :class:`Block`."""
        return self.encode(self._start)

    def decode(self, coordinates: Vector) -> int:
        """The integer whose bin the coordinate lies in."""
        return self._scale(float(coordinates[0]))

    def encode(self, value: object) -> Vector:
        """(1,) the middle of the value's bin."""
        k = self._check(value)
        if self.log:
            middle = (math.log(k - 0.5) + math.log(k + 0.5)) / 2
            return np.array([(middle - self._origin) / self._width])
        return np.array([(k - self.lo + 0.5) / (self.hi - self.lo + 1)])

    def spec(self) -> dict[str, object]:
        """See :class:`Block`."""
        return {"int": [self.lo, self.hi], "log": self.log, "start": self._start}


class ChoiceBlock(Block):
    """One of several options: a coordinate for each, the largest wins, ties go to the first.

    A value is encoded as ¾ for itself and ¼ for the rest: clear of the bounds, so that noise which is clipped
    there favours nobody.

    Args:
        start: the first option unless given.

    Raises:
        UsageError: fewer than two options, two alike, or a start that is none of them.
    """

    kind = "choice"
    discrete = True

    def __init__(self, name: str, options: Sequence[Option], *, start: Option | None = None) -> None:
        super().__init__(name, tuple(f"{name}={option}" for option in options))
        self.options = tuple(options)
        if len(self.options) < 2:
            raise UsageError(f"{name}: a choice needs at least two options, got {list(options)!r}")
        if len(set(self.coordinates)) < len(self.coordinates):
            raise UsageError(f"{name}: the options of a choice must differ, got {list(options)!r}")
        self._start = self.options[0] if start is None else self.options[self._index(start)]

    def _index(self, value: object) -> int:
        for index, option in enumerate(self.options):
            if type(option) is type(value) and option == value:  # True is not 1 here
                return index
        raise self.refuse(f"one of {list(self.options)!r}", value)

    def start(self) -> Vector:
        """(number of options,) see :class:`Block`."""
        return self.encode(self._start)

    def decode(self, coordinates: Vector) -> Option:
        """The option with the largest coordinate; the first of several."""
        return self.options[int(np.argmax(coordinates))]

    def encode(self, value: object) -> Vector:
        """(number of options,) ¾ for the value, ¼ for the others."""
        coordinates = np.full(self.size, 0.25)
        coordinates[self._index(value)] = 0.75
        return coordinates

    def spec(self) -> dict[str, object]:
        """See :class:`Block`."""
        return {"choice": list(self.options), "start": self._start}


class SimplexBlock(Block):
    """Shares of at least 0 that add up to 1: coordinates divided by their sum; all zero means equal shares.

    A value is encoded as itself times the power of two that brings its largest share into (⅜, ¾]: exact, and
    off the bounds. Coordinates whose sum is a power of two up to rounding are divided by that power, which
    undoes it exactly.

    Args:
        parts: how many, or their names (values are then mappings by name, else lists).
        start: equal shares unless given; must add up to 1 within 1e-6, and is normalised.

    Raises:
        UsageError: fewer than two parts, two of one name, or an impossible start.
    """

    kind = "simplex"

    def __init__(self, name: str, parts: int | Sequence[str], *, start: object = None) -> None:
        self.labels = None if isinstance(parts, int) else tuple(parts)
        keys = tuple(str(i) for i in range(parts)) if isinstance(parts, int) else tuple(parts)
        super().__init__(name, tuple(f"{name}[{key}]" for key in keys))
        if self.size < 2:
            raise UsageError(f"{name}: a simplex needs at least two parts, got {parts!r}")
        if len(set(keys)) < len(keys):
            raise UsageError(f"{name}: the parts of a simplex must have different names, got {list(keys)!r}")
        self._start_at = self.encode([1.0 / self.size] * self.size if start is None else start)

    def _shares(self, coordinates: Vector) -> list[float]:
        values: list[float] = coordinates.tolist()
        largest = max(values)
        if largest == 0.0:
            return [1.0 / self.size] * self.size
        if largest < 2.0**-500:  # keep sums of subnormal coordinates exact
            values = [math.ldexp(v, 500) for v in values]
        total = math.fsum(values)
        power = math.ldexp(1.0, round(math.log2(total)))
        divisor = power if abs(total / power - 1.0) <= self.size * 2.0**-52 else total
        # A share that cannot be halved exactly would not survive encode: it counts as none.
        return [share if share >= 2.0**-1000 else 0.0 for share in (v / divisor for v in values)]

    def start(self) -> Vector:
        """(parts,) see :class:`Block`."""
        return self._start_at.copy()

    def decode(self, coordinates: Vector) -> list[float] | dict[str, float]:
        """The shares: a mapping where the parts have names, else a list."""
        shares = self._shares(coordinates)
        return shares if self.labels is None else dict(zip(self.labels, shares, strict=True))

    def encode(self, value: object) -> Vector:
        """(parts,) see :class:`Block`; lists are accepted for named parts too."""
        expected = f"{self.size} shares of at least 0 that add up to 1"
        if self.labels is not None and isinstance(value, Mapping):
            if set(value) != set(self.labels):
                raise self.refuse(f"shares for {', '.join(self.labels)}", value)
            value = [value[label] for label in self.labels]
        shares = _numbers(value, self.size)
        if shares is None or min(shares) < 0.0 or abs(math.fsum(shares) - 1.0) > 1e-6:
            raise self.refuse(expected, value)
        return np.array(shares) * 2.0 ** math.floor(math.log2(0.75 / max(shares)))

    def spec(self) -> dict[str, object]:
        """See :class:`Block`."""
        parts: object = self.size if self.labels is None else list(self.labels)
        return {"simplex": parts, "start": self._shares(self._start_at)}


class WeightsBlock(Block):
    """Unbounded weights: value = coordinate times ``scale``.

    Args:
        count: how many.
        scale: what one unit of the optimizer's step means, > 0.
        start: zeros unless given.

    Raises:
        UsageError: no weights, an impossible scale, a start of another length or not finite.
    """

    kind = "weights"
    lower = -math.inf
    upper = math.inf

    def __init__(self, name: str, count: int, *, scale: float = 1.0, start: object = None) -> None:
        super().__init__(name, _Numbered(name, count))
        if count < 1:
            raise UsageError(f"{name}: expected at least one weight, got {count!r}")
        if not (math.isfinite(scale) and scale > 0.0):
            raise UsageError(f"{name}: scale must be a finite number above 0, got {scale!r}")
        self.scale = float(scale)
        if start is None:  # as large as one number, however many weights there are
            self._start = self._start_at = np.broadcast_to(0.0, (count,))
            return
        self._start = self._start_at = np.broadcast_to(np.nan, (count,))  # equal to nothing in what follows
        value = self._check(start)
        self._start_at = self._invert(value)
        self._start = value

    def _check(self, value: object) -> Vector:
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":  # a model's: not number by number
            if value.shape == (self.size,) and bool(np.isfinite(value).all()):
                return value.astype(np.float64)
            raise self.refuse(f"{self.size} finite numbers", value)
        numbers = _numbers(value, self.size)
        if numbers is None:
            raise self.refuse(f"{self.size} finite numbers", value)
        return np.array(numbers)

    def _scaled(self, coordinates: Vector) -> Vector:
        with np.errstate(over="ignore", under="ignore"):
            return np.where(coordinates == self._start_at, self._start, coordinates * self.scale)

    def _invert(self, values: Vector) -> Vector:
        # No search as for floats: (c·s)/s·s rounds to c·s again, which held for 6 million random pairs.
        with np.errstate(over="ignore", under="ignore"):
            found = np.where(values == self._start, self._start_at, values / self.scale)
        if not np.isfinite(found).all():
            raise self.refuse(
                f"values that stay finite when divided by the scale {self.scale!r}", values.tolist()
            )
        return found

    def start(self) -> Vector:
        """(count,) see :class:`Block`."""
        return self._start_at.copy()

    def decode(self, coordinates: Vector) -> list[float]:
        """The weights.

        Raises:
            UsageError: a weight overflows float64.
        """
        values = self._scaled(coordinates)
        if not np.isfinite(values).all():
            raise self.refuse(
                f"coordinates that stay finite when multiplied by {self.scale!r}", coordinates.tolist()
            )
        listed: list[float] = values.tolist()
        return listed

    def encode(self, value: object) -> Vector:
        """(count,) see :class:`Block`."""
        return self._invert(self._check(value))

    def spec(self) -> dict[str, object]:
        """See :class:`Block`."""
        return {"weights": self.size, "scale": self.scale, "start": self._start.tolist()}


def _check_bounds(name: str, lo: float, hi: float) -> None:
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise UsageError(
            f"{name}: the lower bound must be below the upper and both finite, got [{lo!r}, {hi!r}]"
        )
    if not math.isfinite(hi - lo):
        raise UsageError(f"{name}: [{lo!r}, {hi!r}] is too wide for float64")


def _number(value: object) -> float | None:
    """A finite float, or None: booleans, NaN, infinities and integers past float64 are no numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _numbers(value: object, count: int) -> list[float] | None:
    """``count`` finite floats from a list, tuple or one-dimensional array, or None."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or len(value) != count:
        return None
    numbers = [_number(v) for v in value]
    return None if None in numbers else [v for v in numbers if v is not None]


def _preimage(forward: Callable[[float], float], x: float, guess: float) -> float:
    """The coordinate in [0, 1] near ``guess`` that ``forward`` maps to x, or closest to it."""
    best, gap = guess, abs(forward(guess) - x)
    up = down = guess
    for _ in range(_SEARCH_ULPS):
        if gap == 0.0:
            break
        up, down = min(math.nextafter(up, 2.0), 1.0), max(math.nextafter(down, -1.0), 0.0)
        for near in (up, down):
            distance = abs(forward(near) - x)
            if distance < gap:
                best, gap = near, distance
    return best
