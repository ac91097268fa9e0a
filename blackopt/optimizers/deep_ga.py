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

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from blackopt import noise
from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.optimizers.base import Result, stack
from blackopt.optimizers.keyed import KeyedOptions, KeyedSearch
from blackopt.protocols import OptimizerOptions
from blackopt.types import Candidate, LazyCandidate, State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_START = -1  # parent of those that descend from the start


class DeepGAOptions(KeyedOptions):
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


class DeepGA(KeyedSearch):
    """``use: deep-ga``. Weights and standard errors are not used. Its version counts results that entered."""

    Options: ClassVar[type[OptimizerOptions]] = DeepGAOptions
    version: ClassVar[str] = "deep-ga/3"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, DeepGAOptions)
        self.options = options
        self._population: list[tuple[float, int]] = []  # losses and numbers, the oldest first
        self._parents: dict[int, int] = {}  # by number, of all that live or have living descendants
        self._tried: dict[int, Vector] = {}  # by number, of those that were tried elsewhere than drawn

    def place(self, number: int) -> Vector:
        """(n,) the vector of a candidate; as many draws of n numbers as it has ancestors."""
        return self._grown(*self._lineage(number))

    def _lineage(self, number: int) -> tuple[Vector, list[int]]:
        """The (n,) vector that a candidate descends from, and the keys of the mutations since, in order."""
        keys = []
        while number != _START and number not in self._tried:
            if number > 0:  # the first candidate is the incumbent
                keys.append(number)
            number = self._parents[number]
        return self._start if number == _START else self._tried[number], keys[::-1]

    def _grown(self, root: Vector, keys: list[int]) -> Vector:
        """(n,) theta_n = theta_(n-1) + sigma eps(tau_n), each a candidate by key of the one before."""
        vector = root.copy()
        for key in keys:
            mutation = Keyed(0, key, 1, self.options.sigma, self._noise.kind)
            perturb(vector, mutation, self._noise.seed, out=vector)
        return self._inside(vector)

    def _best(self) -> list[int]:
        """The parents, the first to come first among equals."""
        ranked = sorted(self._population, key=lambda member: member[0])
        return [number for _, number in ranked[: self.options.parents]]

    @property
    def _full(self) -> bool:
        return len(self._population) == self.options.population

    def _draw(self, number: int) -> Vector:
        return self._candidate(number).vector

    def _candidate(self, number: int) -> Candidate:
        parents = self._best() if self._full and number > 0 else [_START]
        chosen = int(noise.integers(self._seed, "deep-ga/parent", number, 1, len(parents))[0])
        self._parents[number] = parents[chosen]
        return LazyCandidate(number, self._updates, partial(self._grown, *self._lineage(number)))

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
        total = np.zeros(self.space.size, self._dtype)
        for number in parents:
            total += self.place(number)
        total /= len(parents)
        return self._inside(total)

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
