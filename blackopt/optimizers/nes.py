"""What natural evolution strategies share: their options, and the learning rates and population of Wierstra,
Schaul, Glasmachers, Sun, Peters and Schmidhuber, "Natural evolution strategies" (JMLR 15, 2014), table 1.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Self

from numpy.typing import NDArray
from pydantic import Field, model_validator

from blackopt.optimizers.gaussian import GaussianOptions, GaussianSearch, limited, refuse_signs
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space


class NESOptions(GaussianOptions):
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

    @model_validator(mode="after")
    def _spread_is_learnt(self) -> Self:
        refuse_signs(self, self.sigma_rate)
        return self


class NES(GaussianSearch):
    """A search that follows the natural gradient of its distribution."""

    Options: ClassVar[type[OptimizerOptions]] = NESOptions

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, NESOptions)
        n = space.size
        self._rate = options.learning_rate
        self._sigma_rate = self._default_rate(n) if options.sigma_rate is None else options.sigma_rate
        population = options.population or 4 + math.floor(3 * math.log(n))
        unit = self._unit(n, self._dtype)
        unit *= options.sigma
        self._begin(population, limited(unit, space))

    @staticmethod
    @abstractmethod
    def _default_rate(n: int) -> float:
        """The paper's eta_sigma."""

    @staticmethod
    @abstractmethod
    def _unit(n: int, dtype: type[Any]) -> NDArray[Any]:
        """The scale of N(0, I), see :class:`blackopt.optimizers.directions.Cohort`; a new array."""
