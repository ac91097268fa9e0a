"""Augmented random search: Mania, Guy and Recht, "Simple random search of static linear policies is
competitive for reinforcement learning" (NeurIPS 2018, arXiv 1803.07055), algorithm 1, versions V1 and V1-t.

Notation: m the centre, nu (here ``sigma``) the size of perturbations, d ~ N(0, I) a direction, and L+ and L-
the losses at m + nu d and m - nu d.

An update is due when both results of ``directions`` directions have finished, failures among them; a
direction of which one result says nothing says nothing. How a direction from an older centre takes part is in
:mod:`blackopt.optimizers.gaussian`. V2 is the same to an optimizer: it normalises the states that a policy
sees, which are known where the policy runs, see :class:`blackopt.serving.mlp.RunningNorm`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from blackopt.optimizers.base import Result
from blackopt.optimizers.gaussian import GaussianOptions, GaussianSearch
from blackopt.optimizers.shaping import finite
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space


class ARSOptions(GaussianOptions):
    """Options of ``ars``.

    Attributes:
        directions: N, pairs for each update.
        top: b, how many of them are used, the best; None uses all (V1).
        sigma: nu, the size of perturbations, in the space's coordinates (bounded ones are scaled to [0, 1]).
        learning_rate: alpha; along a slope, a step is twice as long. None takes 0.3 sigma.
    """

    directions: int = Field(default=8, ge=1)
    top: int | None = Field(default=None, ge=1)
    sigma: float = Field(default=0.15, gt=0, allow_inf_nan=False)
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_of_all(self) -> Self:
        if self.top is not None and self.top > self.directions:
            raise ValueError(f"top must be at most directions ({self.directions}), got {self.top}")
        return self


class ARS(GaussianSearch):
    """``use: ars``."""

    Options: ClassVar[type[OptimizerOptions]] = ARSOptions
    version: ClassVar[str] = "ars/5"
    twins: ClassVar[bool] = True
    group = 2

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, ARSOptions)
        self.options = options
        self._rate = options.learning_rate or 0.3 * options.sigma
        self._begin(2 * options.directions, np.array([options.sigma]))

    def _due(self) -> list[Result]:
        """Whole directions; a result whose twin is still out waits in the pool."""
        if len(self._pool) < self.population:
            return []
        finished = Counter(result.number // 2 for result in self._pool)
        whole = {direction for direction, results in finished.items() if results == 2}
        if len(whole) < self.options.directions:
            return []
        due = [result for result in self._pool if result.number // 2 in whole]
        self._pool = [result for result in self._pool if result.number // 2 not in whole]
        return due

    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[Any]]:
        """Descend along the differences of the best directions, in units of their losses' spread.

        Mania et al. 2018, algorithm 1, line 7, with s the standard deviation of the 2b losses used:

            m <- m - alpha / (b s)  sum over the b best of  (L+ - L-) d
        """
        now = self._now
        used = best(results, self.options.top or self.options.directions)
        spread = float(np.std([result.loss for result in used])) if used else 0.0
        if spread == 0:  # nothing came in pairs, or all the same
            return now.centre, now.scale
        w, d = self._weigh(used, _deviations)
        # the mean over 2b results of +-(L - their mean) d, in which the mean cancels out
        return d.added(-2 * self._rate / spread * w, now.centre), now.scale


def best(results: list[Result], top: int) -> list[Result]:
    """Both results of the ``top`` directions with the largest max(r+, r-), which is the smallest min(L+, L-).

    Infeasible ones lie a range above the worst loss, and a direction without two losses is left out.
    """
    known = Counter(result.number // 2 for result in results)
    whole = [result for result in results if known[result.number // 2] == 2]
    if not np.any(np.isfinite([result.loss for result in whole])):
        return []
    losses = finite(np.array([result.loss for result in whole]))
    whole = [replace(result, loss=float(loss)) for result, loss in zip(whole, losses, strict=True)]
    smallest: dict[int, float] = {}
    for result in whole:
        direction = result.number // 2
        smallest[direction] = min(result.loss, smallest.get(direction, np.inf))
    kept = set(sorted(smallest, key=lambda direction: (smallest[direction], direction))[:top])
    return [result for result in whole if result.number // 2 in kept]


def _deviations(losses: Vector, _: Vector) -> Vector:
    """(k,) losses from their mean, as scores."""
    deviations: Vector = losses - losses.mean()
    return deviations
