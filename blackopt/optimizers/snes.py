"""Separable natural evolution strategies (SNES): Wierstra, Schaul, Glasmachers, Sun, Peters and Schmidhuber,
"Natural evolution strategies" (JMLR 15, 2014), algorithm 6.

Notation: m the centre, sigma one standard deviation for each coordinate, eps ~ N(0, I), x = m + sigma eps,
u the utilities of :func:`blackopt.optimizers.shaping.utilities`.

When an update is due, and how a result from an older distribution takes part in it, is in
:mod:`blackopt.optimizers.gaussian`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt.optimizers.base import Result
from blackopt.optimizers.gaussian import GaussianSearch, limited
from blackopt.optimizers.shaping import utilities
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space


class NESOptions(OptimizerOptions):
    """Options of ``snes`` and ``xnes``.

    Attributes:
        population: finished results for each update; None takes the paper's 4 + 3 ln n.
        sigma: initial standard deviation, in the space's coordinates (bounded ones are scaled to [0, 1]).
        learning_rate: eta_m, of the centre; the paper's 1.
        sigma_rate: eta_sigma, of the standard deviations (of ``xnes``: and of the shape); None takes the
            paper's.
    """

    population: int | None = Field(default=None, ge=2)
    sigma: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    learning_rate: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    sigma_rate: float | None = Field(default=None, ge=0, allow_inf_nan=False)


def population(options: NESOptions, n: int) -> int:
    """lambda = 4 + 3 ln n, or what the options say."""
    return options.population or 4 + math.floor(3 * math.log(n))


class SNES(GaussianSearch):
    """``use: snes``."""

    Options: ClassVar[type[OptimizerOptions]] = NESOptions
    version: ClassVar[str] = "snes/1"
    stream: ClassVar[str] = "snes"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, NESOptions)
        n = space.size
        self._rate = options.learning_rate
        self._sigma_rate = (3 + math.log(n)) / (5 * math.sqrt(n))
        if options.sigma_rate is not None:
            self._sigma_rate = options.sigma_rate
        self._begin(population(options, n), limited(np.full(n, options.sigma), space))

    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[np.float64]]:
        """Follow the natural gradient.

        g_m = sum_i u_i eps_i            m     <-  m + eta_m sigma g_m
        g_s = sum_i u_i (eps_i^2 - 1)    sigma <-  sigma exp(eta_sigma / 2  g_s)
        """
        now = self._now
        u, epsilon = self._weigh(results, utilities)
        centre = now.centre + self._rate * now.scale * (u @ epsilon)
        scale = now.scale * np.exp(self._sigma_rate / 2 * (u @ (epsilon**2 - 1)))
        return centre, limited(scale, self.space)
