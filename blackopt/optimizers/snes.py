"""Separable natural evolution strategies (SNES): Wierstra, Schaul, Glasmachers, Sun, Peters and Schmidhuber,
"Natural evolution strategies" (JMLR 15, 2014), algorithm 6.

Notation: m the centre, sigma one standard deviation for each coordinate, eps ~ N(0, I), x = m + sigma eps,
u the utilities of :func:`blackopt.optimizers.shaping.utilities`.

When an update is due, and how a result from an older distribution takes part in it, is in
:mod:`blackopt.optimizers.gaussian`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from blackopt.optimizers.base import Result
from blackopt.optimizers.gaussian import PART, limited
from blackopt.optimizers.nes import NES
from blackopt.optimizers.shaping import utilities
from blackopt.optimizers.steps import blocks
from blackopt.types import Vector


class SNES(NES):
    """``use: snes``."""

    version: ClassVar[str] = "snes/5"

    @staticmethod
    def _default_rate(n: int) -> float:
        return (3 + math.log(n)) / (5 * math.sqrt(n))

    @staticmethod
    def _unit(n: int, dtype: type[Any]) -> NDArray[Any]:
        return np.ones(n, dtype)

    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[Any]]:
        """Follow the natural gradient.

        g_m = sum_i u_i eps_i            m     <-  m + eta_m sigma g_m
        g_s = sum_i u_i (eps_i^2 - 1)    sigma <-  sigma exp(eta_sigma / 2  g_s)
        """
        now = self._now
        u, epsilon = self._weigh(results, utilities)
        centre, scale = self._room()
        for at in blocks(centre.size, PART):
            step, growth = epsilon.sum(u, at), epsilon.squares(u, at)
            step *= self._rate
            step *= now.scale[at]
            np.add(step, now.centre[at], out=centre[at])
            growth *= self._sigma_rate / 2
            np.exp(growth, out=growth)
            np.multiply(growth, now.scale[at], out=scale[at])
            del step, growth  # before the next are made
        return centre, limited(scale, self.space)
