"""Any optimizer of Meta's library Nevergrad, by its name in ``nevergrad.optimizers.registry``.

What the library searches is a dictionary: one array of all real coordinates with bounds, one of those
without, a scalar with integer casting for each integer, a choice for each choice. How its log is kept is in
:mod:`blackopt.optimizers.replayed`.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeGuard

import numpy as np
from pydantic import Field

from blackopt import noise
from blackopt.blocks import Block, ChoiceBlock, IntBlock
from blackopt.errors import ConfigurationError
from blackopt.optimizers.base import Result
from blackopt.optimizers.replayed import ReplayedOptions, ReplayedSearch
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space


_BOUNDED, _FREE = "real coordinates, bounded", "real coordinates, free"  # no block is called that


@cache
def library() -> Any:
    """The ``nevergrad`` package, imported on first use: it takes seconds."""
    import nevergrad

    return nevergrad


class NevergradOptions(ReplayedOptions):
    """Options of ``nevergrad``.

    Attributes:
        name: in the library's registry: ``TBPSA``, ``NGOpt``, ``DE``, ...
        budget: candidates in all, which some of its optimizers plan with; None where they need not.
        workers: candidates in flight, which some of them plan with.
        recommendation: ``neighbourhood``: the centre of the best neighbourhood of results; ``own``: the
            library's, which is the middle of its distribution for some (TBPSA), its luckiest sample for most.
    """

    name: str = "TBPSA"
    budget: int | None = Field(default=None, ge=1)
    workers: int = Field(default=1, ge=1)
    recommendation: Literal["neighbourhood", "own"] = "neighbourhood"


class Nevergrad(ReplayedSearch):
    """``use: nevergrad``. Standard errors and weights are used by the recommendation alone."""

    Options: ClassVar[type[OptimizerOptions]] = NevergradOptions
    version: ClassVar[str] = f"nevergrad/1 nevergrad/{metadata.version('nevergrad')}"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        assert isinstance(options, NevergradOptions)
        self._ours = options
        self._candidates: dict[int, Any] = {}  # of the library, in flight
        super().__init__(space, start, options)

    def _build(self) -> None:
        registry = library().optimizers.registry
        name = self._ours.name
        if name not in registry:
            close = difflib.get_close_matches(name, list(registry), n=3, cutoff=0.4)
            raise ConfigurationError(
                f"Nevergrad has no optimizer called `{name}`",
                where="optimizer.name",
                next_step=f"did you mean {', '.join(close)}?" if close else
                "list them with: python -c 'import nevergrad; print(*sorted(nevergrad.optimizers.registry))'",
            )  # fmt: skip
        parameters = library().p.Dict(**self._parameters())
        seed = int(noise.integers(self._seed, "nevergrad", 0, 1, 1 << 32)[0])
        parameters.random_state = np.random.RandomState(seed)  # what the library takes
        self._optimizer = registry[name](
            parametrization=parameters, budget=self._ours.budget, num_workers=self._ours.workers
        )

    def _parameters(self) -> dict[str, Any]:
        """The library's parameters, at the start: all real coordinates with bounds, all without, and one for
        each integer and choice. Of a choice the library draws the first option itself."""
        p, parameters = library().p, {}
        for block in self.space.blocks:
            if isinstance(block, ChoiceBlock):
                parameters[block.name] = p.Choice(list(range(block.size)))
            elif _counts(block):
                init = int(str(block.decode(self._start[self.space.slices[block.name]])))
                parameters[block.name] = p.Scalar(
                    init=init, lower=block.lo, upper=block.hi
                ).set_integer_casting()
        discrete = np.zeros(self.space.size, dtype=np.bool_)
        for name in parameters:
            discrete[self.space.slices[name]] = True
        finite = np.isfinite(self.space.lower)
        self._bounded, self._free = np.flatnonzero(finite & ~discrete), np.flatnonzero(~finite)
        if self._bounded.size:
            parameters[_BOUNDED] = p.Array(init=self._start[self._bounded], lower=0.0, upper=1.0)
        if self._free.size:
            parameters[_FREE] = p.Array(init=self._start[self._free]).set_mutation(sigma=self.options.sigma)
        return parameters

    def _ask_library(self, number: int) -> Vector:
        candidate = self._optimizer.ask()
        self._candidates[number] = candidate
        return self._vector_of(candidate)

    def _vector_of(self, candidate: Any) -> Vector:
        """(n,) coordinates of the library's candidate."""
        vector, values = self._start.copy(), candidate.value
        for block in self.space.blocks:
            at = self.space.slices[block.name]
            if isinstance(block, ChoiceBlock):
                vector[at] = block.encode(block.options[int(values[block.name])])
            elif _counts(block):
                vector[at] = block.encode(int(values[block.name]))
        for name, indices in ((_BOUNDED, self._bounded), (_FREE, self._free)):
            if indices.size:
                vector[indices] = values[name]
        return vector

    def _values_of(self, vector: Vector) -> dict[str, Any]:
        """What the library calls (n,) coordinates."""
        values: dict[str, Any] = {}
        for block in self.space.blocks:
            at = vector[self.space.slices[block.name]]
            if isinstance(block, ChoiceBlock):
                values[block.name] = int(np.argmax(at))
            elif _counts(block):
                values[block.name] = block.decode(at)
        for name, indices in ((_BOUNDED, self._bounded), (_FREE, self._free)):
            if indices.size:
                values[name] = vector[indices]
        return values

    def _tell_library(self, result: Result) -> None:
        candidate = self._candidates.pop(result.number)
        if result.moved:
            values = self._values_of(self.space.clip(result.vector))
            candidate = self._optimizer.parametrization.spawn_child(new_value=values)
        self._optimizer.tell(candidate, result.loss)

    def _fail_library(self, number: int) -> None:
        """The library is not told: it has no word for it."""
        del self._candidates[number]

    def recommend(self) -> Vector:
        """(n,) see the option ``recommendation``; the start until there is a loss."""
        if self._ours.recommendation == "neighbourhood":
            return super().recommend()
        if not np.isfinite(self._most):
            return self._start.copy()
        with self._keyed():
            return self.space.clip(self._vector_of(self._optimizer.provide_recommendation()))


def _counts(block: Block) -> TypeGuard[IntBlock]:
    """Whether the library searches it as an integer: on a logarithmic scale it is searched as real."""
    return isinstance(block, IntBlock) and not block.log
