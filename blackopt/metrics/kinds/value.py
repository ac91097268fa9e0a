"""A value that was computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blackopt.metrics.effects import Estimates, combine
from blackopt.metrics.kinds.base import Columns, Doubt, Kind, Stats
from blackopt.types import Estimate


class Value(Kind):
    """A value that was computed elsewhere, with its standard error ``se`` where that is known.

    Several readings of one arm are combined as in :func:`blackopt.metrics.effects.combine`. ``n``, the units
    behind a value, is 1 unless it is given. A standard error of 0 is taken at its word.
    """

    name = "value"
    required = frozenset({"value"})
    optional = frozenset({"n", "se"})

    def pool(self, stats: Sequence[Stats]) -> dict[str, float]:
        """One value for several, the same bits in any order; no readings are no units."""
        self._complete(stats)
        counted = [self._estimate(s) for s in stats if self.units(s) > 0]
        if not counted:
            return {"value": 0.0, "n": 0.0}
        pooled = combine(counted)
        known = {"value": pooled.value, "n": pooled.n}
        return known if pooled.se is None else {**known, "se": pooled.se}

    def units(self, stats: Stats) -> float:
        """``n`` where it is given, else 1."""
        return stats.get("n", 1.0)

    def _problem(self, stats: Stats) -> str | None:
        return f"se is {stats['se']!r}, below 0" if stats.get("se", 0) < 0 else None

    def _estimate(self, stats: Stats) -> Estimate:
        se = stats.get("se")
        return Estimate(float(stats["value"]), None if se is None else float(se), float(self.units(stats)))

    def _constant(self, _stats: Stats) -> bool:
        return False

    def _bulk(self, table: Columns) -> tuple[Estimates, Doubt]:
        value = table["value"]
        se, n = (
            table.get("se", np.full_like(value, np.nan)),
            table.get("n", np.ones_like(value)),
        )
        return Estimates(value, se, n), ~(se >= 0)
