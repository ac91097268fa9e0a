"""What the searches share that fill the space and learn nothing while they do: the recommendation.

It is not the best sample, which under noise is the luckiest: it is the centre of the best *neighbourhood*.
Bounded coordinates are filled evenly, unbounded ones Gaussian about the start.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.shaping import finite, trust
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_FEWEST = 8  # results before anything but the start is recommended


class FillingOptions(OptimizerOptions):
    """Options of searches that fill the space.

    Attributes:
        sigma: standard deviation of unbounded coordinates about the start.
        remember: how many of the latest results the recommendation is made from.
    """

    sigma: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    remember: int = Field(default=1000, ge=_FEWEST)


class FillingSearch(BaseOptimizer):
    """Its version is always 0: nothing that it is told changes what it draws.

    A subclass implements :meth:`_uniform` and :meth:`_normal`.
    """

    Options: ClassVar[type[OptimizerOptions]] = FillingOptions

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, FillingOptions)
        self.options = options
        self._told: list[Result] = []
        self._bounded = np.isfinite(space.lower) & np.isfinite(space.upper)

    @abstractmethod
    def _uniform(self, number: int) -> Vector:
        """(n,) point ``number`` in the open unit cube, for bounded coordinates."""

    @abstractmethod
    def _normal(self, number: int) -> Vector:
        """(n,) point ``number`` of a standard Gaussian, for unbounded coordinates."""

    def _draw(self, number: int) -> Vector:
        space = self.space
        lower = np.where(self._bounded, space.lower, 0.0)
        width = np.where(self._bounded, space.upper, 0.0) - lower
        inside = lower + width * self._uniform(number)
        about = self._start + self.options.sigma * self._normal(number)
        return np.where(self._bounded, inside, about)

    def _learn(self, result: Result) -> None:
        if result.informative:
            self._told.append(result)
            del self._told[: -self.options.remember]

    def recommend(self) -> Vector:
        """(n,) centre of the best neighbourhood, see :func:`best_neighbourhood`."""
        return best_neighbourhood(self._told, self._start, self.space)

    def _memory(self) -> State:
        return {"told": dump_results(self._told, self.space.size)}

    def _recall(self, memory: State) -> None:
        self._told = load_results(memory["told"])


def best_neighbourhood(told: Sequence[Result], start: Vector, space: Space) -> Vector:
    """(n,) centre of the best neighbourhood of k informative results; the start with fewer than 8 losses.

    Every result has a neighbourhood, itself and its nearest, sqrt(k) of the k in all. The best one has
    the smallest weighted mean loss plus the standard error of that mean: what looks good and is hardly
    known is passed over. Distances are in the coordinates of the space.
    """
    k = len(told)
    if sum(np.isfinite(result.loss) for result in told) < _FEWEST:
        return start.copy()
    x = stack([result.vector for result in told], space.size)
    losses = finite(np.array([result.loss for result in told]))
    weights = trust(losses, [r.se for r in told], np.array([r.weight for r in told]))
    norms = np.einsum("ij,ij->i", x, x)
    distances = norms[:, None] + norms[None, :] - 2 * x @ x.T
    near = np.argsort(distances, axis=1, kind="stable")[:, : math.ceil(math.sqrt(k))]
    w, y = weights[near] / weights[near].sum(axis=1, keepdims=True), losses[near]
    means = (w * y).sum(axis=1, keepdims=True)
    known = np.array([math.nan if r.se is None else r.se**2 for r in told])[near]
    variances = np.where(np.isnan(known), np.var(y, axis=1, ddof=1, keepdims=True), known)
    bound = means[:, 0] + np.sqrt((w**2 * variances).sum(axis=1))
    best = near[int(np.argmin(bound))]
    return space.clip(weights[best] @ x[best] / weights[best].sum())
