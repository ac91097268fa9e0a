"""The part of the units that did something."""

from __future__ import annotations

import math

import numpy as np

from blackopt.metrics.effects import Estimates
from blackopt.metrics.kinds.base import Columns, Doubt, Kind, Stats
from blackopt.types import Estimate


class Proportion(Kind):
    """The part of the units that did something: p = Σy/n, SE² = p(1 − p)/n. Its events are Σy."""

    name = "proportion"
    required = frozenset({"n", "sum"})
    percent = True

    def events(self, stats: Stats) -> float:
        """The units that did it: ``sum``."""
        return stats["sum"]

    def _problem(self, stats: Stats) -> str | None:
        if not 0 <= stats["sum"] <= stats["n"]:
            return f"sum is {stats['sum']!r}, not between 0 and n = {stats['n']!r}"
        return None

    def _estimate(self, stats: Stats) -> Estimate:
        n = float(stats["n"])
        p = stats["sum"] / n
        return Estimate(p, math.sqrt(p * ((n - stats["sum"]) / n) / n), n)

    def _constant(self, stats: Stats) -> bool:
        return stats["sum"] in (0, stats["n"])

    def _bulk(self, table: Columns) -> tuple[Estimates, Doubt]:
        n, total = table["n"], table["sum"]
        p = total / n
        se = np.sqrt(p * ((n - total) / n) / n)
        return Estimates(p, se, n), ~((total >= 0) & (total <= n))

    def _bulk_arms(self, t: Columns, c: Columns) -> tuple[Estimates, Estimates, Doubt]:
        first, second, doubt = super()._bulk_arms(t, c)
        return first, second, doubt | (first.se == 0) | (second.se == 0)


class Retention(Proportion):
    """A proportion of units that came back on day k exactly: ``sum`` counts the active on that day.

    What came back *within* k days is a plain proportion.
    """

    name = "retention"
