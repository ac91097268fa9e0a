"""PGPE: Sehnke, Osendorfer, Rückstieß, Graves, Peters and Schmidhuber, "Parameter-exploring policy gradients"
(Neural Networks 23, 2010), with symmetric sampling and a standard deviation that adapts; ranks for losses,
and ClipUp for steps, as in Toklu, Liskowski and Srivastava, "ClipUp: a simple and powerful optimizer for
distribution-based policy evolution" (PPSN 2020).

Notation: m the centre, sigma one standard deviation for each coordinate, eps ~ N(0, I), x = m + s sigma eps
with s = +1 and -1 for twins. Losses take the place of -r, and centred ranks that of r - b: their mean, the
baseline, is 0.

When an update is due, and how a result from an older distribution takes part in it, is in
:mod:`blackopt.optimizers.gaussian`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from blackopt.optimizers.base import Result
from blackopt.optimizers.gaussian import PART, GaussianSearch, TwinOptions, limited, refuse_signs
from blackopt.optimizers.shaping import centred_ranks
from blackopt.optimizers.steps import ClipUp, blocks
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

MOST = 0.2
"""Largest relative change of a standard deviation in one update, as in Toklu et al.'s PGPE."""


class PGPEOptions(TwinOptions):
    """Options of ``pgpe``.

    Attributes:
        sigma: initial standard deviation, in the space's coordinates (bounded ones are scaled to [0, 1]).
        sigma_rate: learning rate of the standard deviations; 0 keeps them.
        max_speed: longest step of the centre; None takes a tenth of the length of a perturbation.
        learning_rate: of ClipUp; None takes half of ``max_speed``, the paper's rule of thumb.
        momentum: of ClipUp: share of the old velocity.
    """

    sigma: float = Field(default=0.15, gt=0, allow_inf_nan=False)
    sigma_rate: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    max_speed: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)

    @model_validator(mode="after")
    def _spread_is_learnt(self) -> Self:
        refuse_signs(self, self.sigma_rate)
        return self


class PGPE(GaussianSearch):
    """``use: pgpe``."""

    Options: ClassVar[type[OptimizerOptions]] = PGPEOptions
    version: ClassVar[str] = "pgpe/6"
    twins: ClassVar[bool] = True
    group = 2

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, PGPEOptions)
        n = space.size
        self.options = options
        speed = options.max_speed or 0.1 * options.sigma * math.sqrt(n)
        self._rule = ClipUp(n, options.learning_rate or speed / 2, speed, options.momentum, dtype=self._dtype)
        self._begin(options.population, limited(np.full(n, options.sigma, self._dtype), space))

    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[Any]]:
        """Descend in m and in sigma.

        Symmetric sampling (Sehnke et al. 2010): for the losses L+ and L- of a perturbation d = sigma eps,

            g_m     = mean of  (L+ - L-) / 2  d
            g_sigma = mean of  ((L+ + L-) / 2 - b)  (d^2 - sigma^2) / sigma

        which are the means over single results of u s d and u (d^2 - sigma^2) / sigma, so that a result
        whose twin never comes still counts.

        Late gradients are a momentum of their own (Mitliagkas, Zhang, Hadjis and Re, "Asynchrony begets
        momentum", Allerton 2016, arXiv 1605.09774), and ClipUp gives a step its length whatever they count
        for. So of its momentum as much is kept as they count for, on average.
        """
        now, parts = self._now, [*blocks(self.space.size, PART)]
        u, epsilon = self._weigh(results, centred_ranks)

        def g_m(at: slice) -> Vector:
            part = epsilon.sum(u, at)
            part *= now.scale[at]
            return part

        self._rule.accelerate(g_m, parts, keep=float(np.mean(self._counts(results))))
        centre, sigma = self._room()
        for at in parts:
            change = epsilon.squares(u, at)  # g_sigma / sigma
            change *= -self.options.sigma_rate
            np.clip(change, -MOST, MOST, out=change)
            change += 1
            np.multiply(change, now.scale[at], out=sigma[at])
            np.subtract(now.centre[at], self._rule.velocity[at], out=centre[at])
            del change  # before the next is made
        return centre, limited(sigma, self.space)

    def _memory(self) -> State:
        return {**super()._memory(), "rule": self._rule.dump()}

    def _recall(self, memory: State) -> None:
        super()._recall(memory)
        self._rule.load(memory["rule"])
