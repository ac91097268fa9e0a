"""What the searches share whose candidates are keys: a number, from which the noise is drawn again.

Candidate c is drawn from key c of the portable generator, or from key c // 2 where candidates come in twins,
with the sign of its parity; see :mod:`blackopt.artifacts.portable`. So nothing of it is kept while it is in
flight, and the module that tries it can draw it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt.artifacts.portable import Kind, draw
from blackopt.optimizers.base import BaseOptimizer
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space

TABLE_FROM = 100_000
"""Coordinates from which ``noise`` is by default ``table``. Below, a direction takes well under a millisecond
to draw afresh; from here on drawing would take longer than all else, and reading a table does not."""

KINDS = {"normal": Kind.NORMAL, "table": Kind.TABLE, "signs": Kind.SIGN}
"""What the option ``noise`` calls them."""


class KeyedOptions(OptimizerOptions):
    """Options of searches whose candidates are keys.

    Attributes:
        seed: 0 to 2^64 - 1: a word of the cipher that draws the noise, here and in the module.
        noise: ``normal`` numbers, each drawn afresh; ``table``, normal numbers out of a table that all
            directions share; ``signs``, which need neither; None takes ``normal`` below
            :data:`TABLE_FROM` coordinates and ``table`` from there on.
        precision: of the vectors: ``float64``, or ``float32`` in half the memory.
    """

    seed: int = Field(default=0, ge=0, lt=1 << 64)
    noise: Literal["normal", "table", "signs"] | None = None
    precision: Literal["float64", "float32"] = "float64"

    def kind(self, n: int) -> Kind:
        """The kind of noise for n coordinates."""
        return KINDS[self.noise or ("normal" if n < TABLE_FROM else "table")]


@dataclass(frozen=True, slots=True)
class Noise:
    """(n,) standardised perturbations by the candidate's number.

    Attributes:
        seed: of the run.
        kind: of the numbers.
        twins: whether candidates 2j and 2j + 1 are drawn on opposite sides.
    """

    seed: int
    kind: Kind
    twins: bool

    def key(self, number: int) -> int:
        """Of the portable generator."""
        return number // 2 if self.twins else number

    def sign(self, number: int) -> int:
        """+1 or -1."""
        return -1 if self.twins and number % 2 else 1

    def draw(self, number: int, n: int, *, offset: int = 0, dtype: type[Any] = np.float64) -> NDArray[Any]:
        """(n,) numbers from ``offset`` on, the sign included."""
        numbers = draw(self.seed, self.key(number), n, offset=offset, kind=self.kind, dtype=dtype)
        return np.negative(numbers, out=numbers) if self.sign(number) < 0 else numbers


class KeyedSearch(BaseOptimizer):
    """Draws again what it drew."""

    Options: ClassVar[type[OptimizerOptions]] = KeyedOptions
    twins: ClassVar[bool] = False
    """Whether candidates 2j and 2j + 1 are drawn on opposite sides of the centre."""

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, KeyedOptions)
        self._noise = Noise(options.seed, options.kind(space.size), self.twins)

    @property
    def _dtype(self) -> type[Any]:
        assert isinstance(self._options, KeyedOptions)
        return np.float32 if self._options.precision == "float32" else np.float64
