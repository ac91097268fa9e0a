"""Three algorithms of the library ``cmaes``: learning-rate adaptation, a diagonal covariance, and a margin
for integers. What they share is in :mod:`blackopt.optimizers.cmaes_search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from blackopt.blocks import IntBlock
from blackopt.optimizers.base import Result
from blackopt.optimizers.cmaes_search import CmaesOptions, CmaesSearch, library, versions
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_FULL = ("_mean", "_sigma", "_C", "_B", "_D", "_p_sigma", "_pc", "_g")


class _Coordinates(CmaesSearch):
    """Genotypes are the coordinates themselves; what falls outside the bounds is drawn again, and clipped
    after a hundred times."""

    def _bounds(self) -> NDArray[np.float64]:
        """(n, 2) lower and upper."""
        return np.stack([self.space.lower, self.space.upper], axis=1)

    def _sample(self) -> tuple[Vector, Vector]:
        x = self._strategy.ask()
        return x, x

    def _genotype(self, vector: Vector) -> Vector:
        return vector

    def _solutions(self, pool: list[Result]) -> list[Any]:
        return [self.space.clip(result.vector) for result in pool]  # carried along, one may lie outside

    def _centre(self) -> Vector:
        return np.array(self._strategy.mean)  # a copy: the library updates it in place

    def _gaussian(self) -> tuple[Vector, NDArray[np.float64]]:
        es = getattr(self._strategy, "_cma", self._strategy)
        axes, lengths = es._eigen_decomposition()  # noqa: SLF001
        return es.mean, es._sigma * axes * lengths  # noqa: SLF001


class LRACMAESOptions(CmaesOptions):
    """Options of ``cma-es-lra``: those of :class:`~blackopt.optimizers.cmaes_search.CmaesOptions`."""


class LRACMAES(_Coordinates):
    """``use: cma-es-lra``. CMA-ES that lowers its learning rates until the signal of an update stands out of
    its noise: Nomura, Akimoto and Ono, "CMA-ES with learning rate adaptation" (GECCO 2023, arXiv 2304.03473).
    """

    Options: ClassVar[type[OptimizerOptions]] = LRACMAESOptions
    version: ClassVar[str] = f"cma-es-lra/2 {versions()}"
    stream: ClassVar[str] = "cma-es-lra"
    memory: ClassVar[tuple[str, ...]] = (
        *_FULL, "_Emean", "_ESigma", "_Vmean", "_VSigma", "_eta_mean", "_eta_Sigma",
    )  # fmt: skip

    def _fresh(self, start: Vector) -> Any:
        return library().CMA(
            mean=start,
            sigma=self.options.sigma,
            bounds=self._bounds(),
            population_size=self.options.population,
            lr_adapt=True,
        )


class SepCMAESOptions(CmaesOptions):
    """Options of ``sep-cma-es``: those of :class:`~blackopt.optimizers.cmaes_search.CmaesOptions`."""


class SepCMAES(_Coordinates):
    """``use: sep-cma-es``. CMA-ES with a diagonal covariance, linear in time and memory: Ros and Hansen, "A
    simple modification in CMA-ES achieving linear time and space complexity" (PPSN 2008)."""

    Options: ClassVar[type[OptimizerOptions]] = SepCMAESOptions
    version: ClassVar[str] = f"sep-cma-es/2 {versions()}"
    stream: ClassVar[str] = "sep-cma-es"
    memory: ClassVar[tuple[str, ...]] = ("_mean", "_sigma", "_C", "_D", "_p_sigma", "_pc", "_g")

    def _fresh(self, start: Vector) -> Any:
        return library().SepCMA(
            mean=start,
            sigma=self.options.sigma,
            bounds=self._bounds(),
            population_size=self.options.population,
        )

    def _gaussian(self) -> tuple[Vector, NDArray[np.float64]]:
        es = self._strategy
        return es.mean, es._sigma * es._eigen_decomposition()  # noqa: SLF001


class MarginCMAESOptions(CmaesOptions):
    """Options of ``cma-es-margin``: those of :class:`~blackopt.optimizers.cmaes_search.CmaesOptions`."""


class MarginCMAES(_Coordinates):
    """``use: cma-es-margin``. CMA-ES that keeps trying the neighbours of an integer, however small its spread
    has become: Hamano, Saito, Nomura and Shirakawa, "CMA-ES with margin" (GECCO 2022, arXiv 2205.13482).

    Integers on a logarithmic scale, whose bins are not of one width, and choices are searched as real
    coordinates.
    """

    Options: ClassVar[type[OptimizerOptions]] = MarginCMAESOptions
    version: ClassVar[str] = f"cma-es-margin/2 {versions()}"
    stream: ClassVar[str] = "cma-es-margin"
    memory: ClassVar[tuple[str, ...]] = (*(f"_cma.{name}" for name in _FULL), "_A")

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        self._integers = [
            (space.slices[block.name].start, block.hi - block.lo + 1)
            for block in space.blocks
            if isinstance(block, IntBlock) and not block.log
        ]
        super().__init__(space, start, options)

    def _fresh(self, start: Vector) -> Any:
        bounds, steps = self._bounds(), np.zeros(self.space.size)
        for i, count in self._integers:  # an integer's coordinate is the middle of its bin
            bounds[i], steps[i] = (0.5 / count, 1 - 0.5 / count), 1 / count
        return library().CMAwM(
            mean=np.clip(start, bounds[:, 0], bounds[:, 1]),
            sigma=self.options.sigma,
            bounds=bounds,
            steps=steps,
            population_size=self.options.population,
        )

    def _sample(self) -> tuple[Vector, Vector]:
        evaluated, drawn = self._strategy.ask()
        return evaluated, drawn
