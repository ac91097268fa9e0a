"""Exponential natural evolution strategies (xNES): Glasmachers, Schaul, Sun, Wierstra and Schmidhuber,
"Exponential natural evolution strategies" (GECCO 2010); here as in algorithm 5 of Wierstra et al., "Natural
evolution strategies" (JMLR 15, 2014).

Notation: m the centre, A = sigma B with det B = 1 the root of the covariance, eps ~ N(0, I), x = m + A eps,
u the utilities of :func:`blackopt.optimizers.shaping.utilities`.

An update costs n^3, and candidates in flight keep the (n, n) A that they were drawn with. When an update is
due, and how a result from an older distribution takes part in it, is in :mod:`blackopt.optimizers.gaussian`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from blackopt.optimizers.base import Result
from blackopt.optimizers.directions import shortened
from blackopt.optimizers.gaussian import limited
from blackopt.optimizers.nes import NES, NESOptions
from blackopt.optimizers.shaping import utilities
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector


class XNESOptions(NESOptions):
    """Options of ``xnes``: those of ``snes``, in float64."""

    precision: Literal["float64"] = "float64"


class XNES(NES):
    """``use: xnes``."""

    version: ClassVar[str] = "xnes/4"
    Options: ClassVar[type[OptimizerOptions]] = XNESOptions

    @staticmethod
    def _default_rate(n: int) -> float:
        return (9 + 3 * math.log(n)) / (5 * n * math.sqrt(n))

    @staticmethod
    def _unit(n: int, dtype: type[Any]) -> NDArray[Any]:
        return np.eye(n, dtype=dtype)

    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[np.float64]]:
        """Follow the natural gradient, in the exponential coordinates of the present distribution.

        G_delta = sum_i u_i eps_i                      m <-  m + eta_m A G_delta
        G_M     = sum_i u_i (eps_i eps_i^T - I)        A <-  A exp(eta_A / 2  G_M)

        The paper's sigma and B learn at the same rate, eta_sigma = eta_B, so their product is all there is to
        keep: exp(eta / 2  tr(G_M) / n) exp(eta / 2  (G_M - tr(G_M) / n  I)) = exp(eta / 2  G_M).
        """
        now = self._now
        u, epsilon = self._weighed(results, utilities), self._perturbations(results)
        centre = now.centre + self._rate * now.scale @ (u @ epsilon)
        g_m = (epsilon.T * u) @ epsilon - u.sum() * np.eye(self.space.size)
        return centre, limited(now.scale @ exponential(self._sigma_rate / 2 * g_m), self.space)

    def _perturbations(self, results: list[Result]) -> NDArray[np.float64]:
        """(k, n) what :class:`blackopt.optimizers.directions.Directions` is for a diagonal A."""
        return np.stack(
            [
                shortened(self._cohorts[result.version].standardise(result.vector))
                if result.moved
                else self._noise.draw(result.number, self.space.size)
                for result in results
            ]
        )


def exponential(symmetric: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) exp of a symmetric (n, n) matrix."""
    values, vectors = np.linalg.eigh(symmetric)
    result: NDArray[np.float64] = (vectors * np.exp(values)) @ vectors.T
    return result
