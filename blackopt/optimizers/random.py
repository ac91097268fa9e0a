"""Random search: the baseline that everything else has to beat.

Bounded coordinates are uniform, unbounded ones Gaussian about the start. What it recommends is in
:mod:`blackopt.optimizers.filling`.
"""

from __future__ import annotations

from typing import ClassVar

from blackopt import noise
from blackopt.optimizers.filling import FillingOptions, FillingSearch
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector


class RandomOptions(FillingOptions):
    """Options of ``random``: those of :class:`blackopt.optimizers.filling.FillingOptions`."""


class Random(FillingSearch):
    """``use: random``."""

    Options: ClassVar[type[OptimizerOptions]] = RandomOptions
    version: ClassVar[str] = "random/1"

    def _uniform(self, number: int) -> Vector:
        return noise.uniform(self._seed, "random/uniform", number, self.space.size)

    def _normal(self, number: int) -> Vector:
        return noise.normal(self._seed, "random/normal", number, self.space.size)
