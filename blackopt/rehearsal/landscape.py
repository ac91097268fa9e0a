"""The truth of a rehearsal: where the optimum lies, what it is worth, and where a guardrail is crossed.

The optimum x* is drawn from the campaign's own space. With D = |x − x*|²/|x₀ − x*|², where x₀ is where
production stands, the true improvement is δ·(2·2⁻ᴰ − 1): δ at the optimum, 0 where production stands, and
falling to −δ far away, so that as much can be lost as can be won. Beside it each guarded metric rises
around a point of its own, drawn likewise, to ``harm`` there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from blackopt.clock import SECOND_US
from blackopt.errors import ConfigurationError
from blackopt.protocols import Policy
from blackopt.types import Vector

WEEK_US = 7 * 86_400 * SECOND_US
_TRIES = 100
_TOUCHING = 1e-9
_REACH = 2.0
"""A region of harm is as wide as half the way from its middle to the optimum."""


class Landscape:
    """True relative effects over a policy's space.

    Args:
        policy: of the campaign.
        improve: δ, the most that can be won, as a fraction of the objective; 0 for none.
        harms: relative change of each guarded metric where it is worst.
        wander: part of the way to another optimum that this one goes a week.
        seed: of the rehearsal.
        start_us: when the optimum begins to move.

    Attributes:
        improve: δ.
        optimum: (n,) x* at the start.

    Raises:
        ConfigurationError: every vector of the space gives what production has.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        improve: float,
        harms: Mapping[str, float],
        wander: float,
        seed: int,
        start_us: int,
    ) -> None:
        self._policy, self.improve, self._wander, self._start_us = policy, improve, wander, start_us
        self._rng = np.random.default_rng([seed, 0])
        self.start = policy.parse(policy.render(policy.start()))
        self.optimum = self._point()
        self._later = self._point()
        self._far = float(np.sum((self.start - self.optimum) ** 2))
        self._harms = {name: (worst, self._point()) for name, worst in sorted(harms.items())}

    def at(self, now_us: int) -> Vector:
        """(n,) the optimum at this time."""
        gone = min(1.0, self._wander * (now_us - self._start_us) / WEEK_US)
        return self.optimum + gone * (self._later - self.optimum)

    def lift(self, vector: Vector, now_us: int) -> float:
        """True improvement of a vector over what production had at the start, as a fraction; never random."""
        if self.improve == 0.0:
            return 0.0
        distance = float(np.sum((vector - self.at(now_us)) ** 2)) / self._far
        return self.improve * (2.0 * math.exp2(-distance) - 1.0)

    def effect(self, vector: Vector, now_us: int) -> float:
        """True improvement of a vector over the control of the same time, as a fraction."""
        return (1.0 + self.lift(vector, now_us)) / (1.0 + self.lift(self.start, now_us)) - 1.0

    def possible(self, now_us: int) -> float:
        """The largest :meth:`effect` of this time."""
        return (1.0 + self.improve) / (1.0 + self.lift(self.start, now_us)) - 1.0

    def harm(self, metric: str, vector: Vector) -> float:
        """True relative change of a guarded metric; 0 for others and where production stands."""
        if metric not in self._harms:
            return 0.0
        worst, middle = self._harms[metric]
        wide = float(np.sum((middle - self.optimum) ** 2)) / _REACH**2 or 1.0
        here, today = (math.exp2(-float(np.sum((x - middle) ** 2)) / wide) for x in (vector, self.start))
        return worst * max(0.0, here - today) / (1.0 - today) if today < 1.0 else 0.0

    def _point(self) -> Vector:
        """(n,) what production would run for a random point: uniform in bounds, normal where there are none.

        One unit of a weight's own scale is what its options call a step, so that is how far its optimum lies.
        """
        space = self._policy.space
        bounded = np.isfinite(space.lower) & np.isfinite(space.upper)
        for _ in range(_TRIES):
            drawn = self.start + self._rng.standard_normal(space.size)
            uniform = self._rng.random(space.size)
            low, high = np.where(bounded, space.lower, 0.0), np.where(bounded, space.upper, 1.0)
            drawn = np.where(bounded, low + uniform * (high - low), drawn)
            point = self._policy.parse(self._policy.render(space.clip(drawn)))
            if float(np.sum((point - self.start) ** 2)) > _TOUCHING:
                return point
        raise ConfigurationError(
            "there is nothing to find",
            where="policy",
            why=f"{_TRIES} random points of the space all give what production serves already",
            safe="nothing was contacted",
            next_step="widen the bounds, then rehearse again",
        )
