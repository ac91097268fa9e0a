"""What kinds of metric there are: the statistics each needs, and the estimate they give.

Sources report sufficient statistics per arm and cohort; pooling adds them with correctly rounded sums
(``math.fsum``), so that readings in another order give the same bits.
"""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import ClassVar, TypeAlias

from blackopt.errors import UsageError
from blackopt.metrics.effects import combine
from blackopt.types import Estimate

Stats: TypeAlias = Mapping[str, float]

LARGEST = 1e150
"""Largest magnitude of a statistic: squares of sums must stay inside float64."""

_ROUNDING = 1e-9  # part of Σy² by which a source that adds naively may miss the Cauchy-Schwarz bound


class Kind(ABC):
    """One kind of metric.

    Attributes:
        name: as in ``campaign.yaml``.
        required: names of the statistics that every reading must have.
        percent: True where people read the value in per cent.
    """

    name: ClassVar[str]
    required: ClassVar[frozenset[str]]
    percent: ClassVar[bool] = False

    def validate(self, stats: Stats) -> str | None:
        """What is wrong with a reading's statistics, for people; None if nothing is.

        No units at all (n = 0, sums 0) is a reading too: a cohort that nobody has entered yet.
        """
        missing = sorted(self.required - stats.keys())
        if missing:
            return f"a {self.name} needs {', '.join(sorted(self.required))}; missing: {', '.join(missing)}"
        for key in sorted(stats):
            value = stats[key]
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{key} is {value!r}, not a number"
            if not abs(value) <= LARGEST:
                return f"{key} is {value!r}, not a finite number of at most {LARGEST:g}"
        return self._problem(stats)

    def pool(self, stats: Sequence[Stats]) -> dict[str, float]:
        """The statistics of several readings together, in any order; no readings are no units."""
        return {key: math.fsum(s[key] for s in stats) for key in sorted(self.required)}

    def units(self, stats: Stats) -> float:
        """How many units the statistics come from."""
        return stats["n"]

    def estimate(self, stats: Stats) -> Estimate:
        """The metric's value and standard error.

        Raises:
            UsageError: the statistics are impossible, or come from no unit.
        """
        problem = self.validate(stats)
        if problem is not None:
            raise UsageError(f"stats: {problem}")
        if self.units(stats) <= 0:
            raise UsageError(f"stats: expected at least one unit for a {self.name}, got none")
        return self._estimate(stats)

    @abstractmethod
    def _problem(self, stats: Stats) -> str | None: ...

    @abstractmethod
    def _estimate(self, stats: Stats) -> Estimate: ...


class Proportion(Kind):
    """The part of the units that did something: p = Σy/n, SE² = p(1 − p)/n."""

    name = "proportion"
    required = frozenset({"n", "sum"})
    percent = True

    def _problem(self, stats: Stats) -> str | None:
        if stats["n"] < 0:
            return f"n is {stats['n']!r}, below 0"
        if not 0 <= stats["sum"] <= stats["n"]:
            return f"sum is {stats['sum']!r}, not between 0 and n = {stats['n']!r}"
        return None

    def _estimate(self, stats: Stats) -> Estimate:
        n = float(stats["n"])
        p = stats["sum"] / n
        return Estimate(p, math.sqrt(p * ((n - stats["sum"]) / n) / n), n)


class Mean(Kind):
    """The mean of a number per unit: Ȳ = Σy/n, SE² = V/n with the unbiased V = (Σy² − (Σy)²/n)/(n − 1).

    V is formed exactly from the given sums, and is never taken for smaller than the half unit in the last
    place to which float64 can hold Σy²: with large means the difference cancels, and a variance that has
    vanished in rounding must not pass for certainty. One unit has no standard error.
    """

    name = "mean"
    required = frozenset({"n", "sum", "sum_sq"})

    def _problem(self, stats: Stats) -> str | None:
        n, total, squares = stats["n"], stats["sum"], stats["sum_sq"]
        if n < 0:
            return f"n is {n!r}, below 0"
        if squares < 0:
            return f"sum_sq is {squares!r}, below 0"
        if n == 0:
            return (
                None
                if total == 0 and squares == 0
                else f"n is 0, but sum is {total!r} and sum_sq {squares!r}"
            )
        if _squares_about_mean(stats) < -_ROUNDING * Fraction(squares):
            return (
                f"sum_sq is {squares!r}, less than sum²/n = {total * total / n!r}: no numbers have such sums"
            )
        return None

    def _estimate(self, stats: Stats) -> Estimate:
        n = float(stats["n"])
        mean = stats["sum"] / n
        if n <= 1:
            return Estimate(mean, None, n)
        floor = math.ulp(stats["sum_sq"]) / 2 if stats["sum_sq"] else 0.0
        variance = max(float(_squares_about_mean(stats)), floor) / (n - 1)
        return Estimate(mean, math.sqrt(variance / n), n)


class Value(Kind):
    """A value that was computed elsewhere, with its standard error ``se`` where that is known.

    Several readings of one arm are combined as in :func:`blackopt.metrics.effects.combine`. ``n``, the units
    behind a value, is 1 unless it is given.
    """

    name = "value"
    required = frozenset({"value"})

    def _problem(self, stats: Stats) -> str | None:
        for key in ("n", "se"):
            if stats.get(key, 0) < 0:
                return f"{key} is {stats[key]!r}, below 0"
        return None

    def pool(self, stats: Sequence[Stats]) -> dict[str, float]:
        """One value for several, the same bits in any order; no readings are no units."""
        counted = [self._estimate(s) for s in stats if self.units(s) > 0]
        if not counted:
            return {"value": 0.0, "n": 0.0}
        pooled = combine(counted)
        known = {"value": pooled.value, "n": pooled.n}
        return known if pooled.se is None else {**known, "se": pooled.se}

    def units(self, stats: Stats) -> float:
        """``n`` where it is given, else 1."""
        return stats.get("n", 1.0)

    def _estimate(self, stats: Stats) -> Estimate:
        se = stats.get("se")
        return Estimate(float(stats["value"]), None if se is None else float(se), float(self.units(stats)))


_KINDS: dict[str, Kind] = {k.name: k for k in (Proportion(), Mean(), Value())}

KIND_NAMES: tuple[str, ...] = tuple(_KINDS)
"""Names that :func:`kind` knows."""


def kind(name: str) -> Kind:
    """The kind of this name.

    Raises:
        UsageError: there is none.
    """
    found = _KINDS.get(name)
    if found is None:
        close = difflib.get_close_matches(name, KIND_NAMES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UsageError(f"kind: expected one of {', '.join(KIND_NAMES)}, got {name!r}{hint}")
    return found


def _squares_about_mean(stats: Stats) -> Fraction:
    """Σ(y − Ȳ)² = Σy² − (Σy)²/n, exactly."""
    return Fraction(stats["sum_sq"]) - Fraction(stats["sum"]) ** 2 / Fraction(stats["n"])
