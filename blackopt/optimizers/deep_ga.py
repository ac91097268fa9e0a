"""A genetic algorithm for large models, whose genomes are chains of noise keys.

Such, Madhavan, Conti, Lehman, Stanley and Clune, "Deep neuroevolution: genetic algorithms are a competitive
alternative for training deep neural networks for reinforcement learning" (2017, arXiv 1712.06567), algorithm
1 and its compact encoding,

    theta_n = theta_(n-1) + sigma eps(tau_n),

with tau_n the key of the n-th mutation, which here is the candidate's own number. So a candidate is
remembered as one number, its parent's, whatever the size of the model; nothing of n numbers is kept but the
start. Parents are drawn evenly from the ``parents`` best of the last ``population`` results (truncation
selection); there is no crossover.

Results enter as they come, and the oldest leave, as in ``ga``: nothing is late, and no lucky measurement
lives for ever. A candidate that was tried elsewhere than drawn keeps the vector that was tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from blackopt import noise
from blackopt.optimizers.base import BaseOptimizer, Result, stack
from blackopt.protocols import OptimizerOptions
from blackopt.types import Candidate, State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_NOWHERE: Vector = np.zeros(0)  # stands for a vector that its ancestors can rebuild
_START = -1  # parent of those that descend from the start


class DeepGAOptions(OptimizerOptions):
    """Options of ``deep-ga``.

    Attributes:
        population: latest results that parents are selected from.
        parents: T, the best of them, that breed.
        sigma: standard deviation of a mutation, in every coordinate.
    """

    population: int = Field(default=40, ge=4)
    parents: int = Field(default=10, ge=1)
    sigma: float = Field(default=0.1, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _some_of_all(self) -> Self:
        if self.parents > self.population:
            raise ValueError(f"parents ({self.parents}) must be at most population ({self.population})")
        return self


class DeepGA(BaseOptimizer):
    """``use: deep-ga``. Weights and standard errors are not used. Its version counts results that entered."""

    Options: ClassVar[type[OptimizerOptions]] = DeepGAOptions
    version: ClassVar[str] = "deep-ga/1"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, DeepGAOptions)
        self.options = options
        self._population: list[tuple[float, int]] = []  # losses and numbers, the oldest first
        self._parents: dict[int, int] = {}  # by number, of all that live or have living descendants
        self._tried: dict[int, Vector] = {}  # by number, of those that were tried elsewhere than drawn

    def place(self, number: int) -> Vector:
        """(n,) the vector of a candidate, not clipped; as many draws of n numbers as it has ancestors."""
        keys = []
        while number != _START and number not in self._tried:
            keys.append(number)
            number = self._parents[number]
        vector = (self._start if number == _START else self._tried[number]).copy()
        for key in reversed(keys):
            if key > 0:  # the first candidate is the incumbent
                vector += self.options.sigma * noise.normal(self._seed, "deep-ga", key, vector.size)
        return vector

    def _best(self) -> list[int]:
        """The parents, the first to come first among equals."""
        ranked = sorted(self._population, key=lambda member: member[0])
        return [number for _, number in ranked[: self.options.parents]]

    @property
    def _full(self) -> bool:
        return len(self._population) == self.options.population

    def _ask_one(self) -> Candidate:
        candidate = super()._ask_one()
        self._pending[candidate.number] = (candidate.version, _NOWHERE)
        return candidate

    def _draw(self, number: int) -> Vector:
        parents = self._best() if self._full and number > 0 else [_START]
        chosen = int(noise.integers(self._seed, "deep-ga/parent", number, 1, len(parents))[0])
        self._parents[number] = parents[chosen]
        return self.place(number)

    def _learn(self, result: Result) -> None:
        """What measured worse than everything, or not at all, does not breed."""
        if np.isfinite(result.loss):
            if result.moved:
                self._tried[result.number] = result.vector
            self._population.append((result.loss, result.number))
            del self._population[: -self.options.population]
            self._updates += 1
        self._forget()

    def _forget(self) -> None:
        """Keep those that live or are in flight, and their ancestors."""
        kept: set[int] = {_START}
        for number in [*(number for _, number in self._population), *self._pending]:
            while number not in kept:
                kept.add(number)
                number = _START if number in self._tried else self._parents[number]
        self._parents = {number: parent for number, parent in self._parents.items() if number in kept}
        self._tried = {number: vector for number, vector in self._tried.items() if number in kept}

    def recommend(self) -> Vector:
        """(n,) the mean of the parents of a full population; the start before that."""
        if not self._full:
            return self._start.copy()
        parents = self._best()
        total = np.zeros(self.space.size)
        for number in parents:
            total += self.space.clip(self.place(number))
        return self.space.clip(total / len(parents))

    # ------------------------------------------------------------------ dump and load, without vectors

    def dump(self) -> State:
        """See :meth:`blackopt.optimizers.base.BaseOptimizer.dump`; without the vectors of those in flight."""
        pending, self._pending = self._pending, {}
        try:
            state = super().dump()
        finally:
            self._pending = pending
        state["pending"]["number"] = np.array(list(pending), dtype=np.int64)
        state["pending"]["version"] = np.array([version for version, _ in pending.values()], dtype=np.int64)
        return state

    @classmethod
    def load(cls, space: Space, options: OptimizerOptions, state: State) -> Self:
        """See :meth:`blackopt.optimizers.base.BaseOptimizer.load`."""
        pending = state["pending"]
        vectors = np.zeros((len(pending["number"]), 0))
        return super().load(space, options, {**state, "pending": {**pending, "vector": vectors}})

    def _memory(self) -> State:
        return {
            "loss": np.array([loss for loss, _ in self._population], dtype=np.float64),
            "number": np.array([number for _, number in self._population], dtype=np.int64),
            "child": np.array(list(self._parents), dtype=np.int64),
            "parent": np.array(list(self._parents.values()), dtype=np.int64),
            "tried": np.array(list(self._tried), dtype=np.int64),
            "vector": stack(list(self._tried.values()), self.space.size),
        }

    def _recall(self, memory: State) -> None:
        self._population = list(zip(memory["loss"].tolist(), memory["number"].tolist(), strict=True))
        self._parents = dict(zip(memory["child"].tolist(), memory["parent"].tolist(), strict=True))
        self._tried = dict(zip(memory["tried"].tolist(), memory["vector"], strict=True))
