"""A quantile of a number per unit, or per event of a unit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from blackopt.errors import UsageError
from blackopt.metrics.effects import Array, Estimates
from blackopt.metrics.errors import TooFewUnits
from blackopt.metrics.kinds.base import Columns, Doubt, Kind, Stats
from blackopt.types import Estimate

Z = NormalDist().inv_cdf(0.975)
"""The ranks of ``q_lower`` and ``q_upper`` are n(ν ± Z√(ν(1 − ν)/n)): an interval of 95 %."""


class Quantile(Kind):
    """The quantile ν: ``q``, SE = (``q_upper`` − ``q_lower``)/(2Z) from the values at the ranks beside it.

    The ranks n(ν ± Z√(ν(1 − ν)/n)) exist only where n > 4ν/(1 − ν), and n > 4(1 − ν)/ν for the lower one.
    Where the numbers are of events that nest in units (latencies of requests, n of them), ``cluster`` is the
    factor Var_cluster(Ī)/Var_iid(Ī) of the indicator I = (y ≤ q), and multiplies SE² (Deng, Knoblich & Lu
    2018, section 4).

    Quantiles do not add up: several readings of one arm (cohorts) are averaged by their units, which is the
    mean of daily quantiles. A source that returns one row for each arm gives the quantile of all days.

    Attributes:
        level: ν, between 0 and 1.
        least: the n that must be exceeded.

    Raises:
        UsageError: a level outside.
    """

    name = "quantile"
    required = frozenset({"n", "q", "q_lower", "q_upper"})
    optional = frozenset({"cluster", "n_least"})

    def __init__(self, *, level: float) -> None:
        if not 0.0 < level < 1.0:
            raise UsageError(f"quantile: expected a number between 0 and 1, got {level!r}")
        self.level = level
        self.least = 4.0 * max(level / (1.0 - level), (1.0 - level) / level)

    def pool(self, stats: Sequence[Stats]) -> dict[str, float]:
        """The mean of the readings' quantiles by their units, the same bits in any order."""
        self._complete(stats)
        some = [s for s in stats if s["n"] > 0]
        if len(some) <= 1:
            own = self.required | (self.optional & (some[0].keys() if some else set()))
            return {key: float(some[0][key]) if some else 0.0 for key in sorted(own)}
        n = math.fsum(s["n"] for s in some)
        centre = math.fsum(s["n"] * s["q"] for s in some) / n
        # Var(Σ nᵢqᵢ/N) = Σ nᵢ²seᵢ²/N²; the ranks of such a mean lie evenly around it.
        half = Z * math.sqrt(math.fsum((s["n"] * _error(s)) ** 2 for s in some)) / n
        least = min(s.get("n_least", s["n"]) for s in some)
        return {"n": n, "n_least": least, "q": centre, "q_lower": centre - half, "q_upper": centre + half}

    def require(self, stats: Stats, *, min_units: float = 1, min_events: float = 0) -> None:
        """As for every kind, and that the ranks beside the quantile exist in each reading."""
        super().require(stats, min_units=min_units, min_events=min_events)
        least = stats.get("n_least", stats["n"])
        if not least > self.least:
            raise TooFewUnits(
                f"too few units: {least:g}, the {self.level:g} quantile needs more than {self.least:.4g}",
                why="the ranks that its standard error is read from do not exist",
                next_step="wait for more units, or return one row for each arm instead of one for each day",
            )

    def _problem(self, stats: Stats) -> str | None:
        if stats["n"] > 0 and not stats["q_lower"] <= stats["q"] <= stats["q_upper"]:
            given = f"{stats['q_lower']!r}, {stats['q']!r}, {stats['q_upper']!r}"
            return f"q_lower, q and q_upper are {given}, not in ascending order"
        for key in ("cluster", "n_least"):
            if stats.get(key, 1) <= 0:
                return f"{key} is {stats[key]!r}, not above 0"
        return None

    def _estimate(self, stats: Stats) -> Estimate:
        self.require(stats)
        return Estimate(float(stats["q"]), _error(stats), float(stats["n"]))

    def _constant(self, stats: Stats) -> bool:
        return stats["q_lower"] == stats["q_upper"]

    def _bulk(self, table: Columns) -> tuple[Estimates, Doubt]:
        n, q = table["n"], table["q"]
        factor: Array = np.sqrt(table["cluster"]) if "cluster" in table else np.ones_like(n)
        width = table["q_upper"] - table["q_lower"]
        doubt = ~(n > self.least) | ~(table["q_lower"] <= q) | ~(q <= table["q_upper"]) | ~(factor > 0)
        if "n_least" in table:
            doubt |= ~(table["n_least"] > self.least)
        return Estimates(q, width / (2.0 * Z) * factor, n), doubt

    def _bulk_arms(self, t: Columns, c: Columns) -> tuple[Estimates, Estimates, Doubt]:
        first, second, doubt = super()._bulk_arms(t, c)
        return first, second, doubt | (first.se == 0) | (second.se == 0)


def _error(stats: Stats) -> float:
    return (stats["q_upper"] - stats["q_lower"]) / (2.0 * Z) * math.sqrt(stats.get("cluster", 1.0))
