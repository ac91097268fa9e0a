"""What a rehearsal assumes of production: who comes, what they do, and how that moves from day to day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from blackopt.clock import SECOND_US
from blackopt.rehearsal.clock import MONDAY_US
from blackopt.rehearsal.levels import Level

DAY_US = 86_400 * SECOND_US

EVEN = (1.0,) * 7
"""A week without a pattern."""

MEMORY = 0.8
"""Part of a day's deviation from its level that the next day keeps: what lasts for a few days, as news,
weather and campaigns of others do."""


@dataclass(frozen=True, slots=True)
class World:
    """Production, as far as a rehearsal knows it.

    Attributes:
        levels: of each metric that the campaign needs, under the control.
        units_per_day: that arrive in all on an average day.
        weekdays: 7 factors of that, Monday first, of mean 1.
        drift: standard deviation of a metric's level between days, relative; common to all arms.
        improve: the most that can be won, as a fraction of the objective.
        harms: relative change of each guarded metric where it is worst.
        wander: part of the way to another optimum that this one goes in a week.
        faults: probability of a fault in each order, poll and reading.
    """

    levels: Mapping[str, Level]
    units_per_day: float
    weekdays: tuple[float, ...] = EVEN
    drift: Mapping[str, float] = field(default_factory=dict)
    improve: float = 0.0
    harms: Mapping[str, float] = field(default_factory=dict)
    wander: float = 0.0
    faults: float = 0.0

    def units(self, from_us: int, to_us: int, part: float) -> float:
        """Expected units of a part of the traffic between two times of one day."""
        day = (from_us - MONDAY_US) // DAY_US % 7
        return self.units_per_day * self.weekdays[day] * (to_us - from_us) / DAY_US * part


class Drift:
    """The level of each metric, day by day: a stationary autoregression of order 1 around 1."""

    def __init__(self, drift: Mapping[str, float], seed: int) -> None:
        self._drift, self._days = dict(drift), {name: [0.0] for name in drift}
        names = sorted(drift)
        self._rng = {name: np.random.default_rng([seed, 2, i]) for i, name in enumerate(names)}

    def factor(self, metric: str, day: int) -> float:
        """Of the metric's level on the day with this number, from the rehearsal's first; above 0."""
        sd = self._drift.get(metric, 0.0)
        if sd == 0.0:
            return 1.0
        days, rng = self._days[metric], self._rng[metric]
        while len(days) <= day:
            days.append(MEMORY * days[-1] + (1.0 - MEMORY**2) ** 0.5 * sd * rng.standard_normal())
        return float(np.exp(days[day]))
