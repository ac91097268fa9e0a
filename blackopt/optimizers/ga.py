"""A genetic algorithm for mixed spaces.

Selection by tournament (Goldberg and Deb 1991), blend crossover BLX-alpha (Eshelman and Schaffer 1993) or
uniform crossover (Syswerda 1989), and a mutation for each kind of gene, see :mod:`blackopt.optimizers.genes`.

``steady-state``: every result enters the population at once, so nothing is ever late, and death is by age
rather than by rank: "regularized evolution" (Real, Aggarwal, Huang and Le, AAAI 2019). Under noise, a lucky
measurement that could not die would breed for ever. ``generational``: as many results as the population has
replace it as one, whatever generation they were drawn in (Holland, "Adaptation in natural and artificial
systems", 1975).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from blackopt import noise
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.genes import Genes
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_ALPHA = 0.5  # of BLX-alpha: children also fall outside their parents, so the population does not collapse


class GAOptions(OptimizerOptions):
    """Options of ``ga``.

    Attributes:
        mode: ``steady-state``, where every result replaces the oldest, or ``generational``, where a whole
            population replaces the last one.
        population: results that breed.
        tournament: how many compete for each parenthood; more select harder.
        crossover: ``blend`` draws each real coordinate between and around the parents', ``uniform`` takes one
            parent's. Integers and choices are always taken from one parent.
        spread: standard deviation of the first population around the start, in the space's coordinates.
        sigma: standard deviation of a mutation.
        mutation: probability that a gene mutates; None takes two genes on average.
        elites: how many of the best do not age, or survive a generation. 0 where the metric is noisy.
    """

    mode: Literal["steady-state", "generational"] = "steady-state"
    population: int = Field(default=30, ge=4)
    tournament: int = Field(default=5, ge=1)
    crossover: Literal["blend", "uniform"] = "blend"
    spread: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    sigma: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    mutation: float | None = Field(default=None, gt=0, le=1)
    elites: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.elites >= self.population:
            raise ValueError(f"elites ({self.elites}) must be fewer than population ({self.population})")
        if self.tournament > self.population:
            raise ValueError(f"tournament ({self.tournament}) must be at most population ({self.population})")
        return self


class GA(BaseOptimizer):
    """``use: ga``. Weights and standard errors are not used. Its version counts the results that entered, or
    generations."""

    Options: ClassVar[type[OptimizerOptions]] = GAOptions
    version: ClassVar[str] = "ga/2"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, GAOptions)
        self.options = options
        self._population: list[Result] = []  # in the order of arrival, the oldest first
        self._next: list[Result] = []  # of the generation that is not complete
        self._genes = Genes(space)
        self._rate = min(1.0, 2 / self._genes.count) if options.mutation is None else options.mutation

    def _draw(self, number: int) -> Vector:
        if number == 0:
            return self._start
        if len(self._population) < self.options.population:
            return self._mutate(self._start, number, rate=1.0, sigma=self.options.spread)
        first, second = self._parents(number)
        return self._mutate(
            self._cross(first, second, number), number, rate=self._rate, sigma=self.options.sigma
        )

    def _parents(self, number: int) -> tuple[Vector, Vector]:
        """Two winners of tournaments; the first in the population wins a tie."""
        size, rounds = len(self._population), self.options.tournament
        entrants = noise.integers(self._seed, "ga/tournament", number, 2 * rounds, size).reshape(2, rounds)
        losses = np.array([result.loss for result in self._population])
        winners = [int(row[np.argmin(losses[row])]) for row in np.sort(entrants, axis=1)]
        return self._population[winners[0]].vector, self._population[winners[1]].vector

    def _cross(self, first: Vector, second: Vector, number: int) -> Vector:
        """A child of two parents."""
        u = noise.uniform(self._seed, "ga/crossover", number, first.size)
        one_of_two = np.where(u[self._genes.of] < 0.5, first, second)
        if self.options.crossover == "uniform":
            return one_of_two
        # Eshelman and Schaffer 1993: uniform on [min - alpha I, max + alpha I], with I the distance of the
        # parents
        blend = first + (u * (1 + 2 * _ALPHA) - _ALPHA) * (second - first)
        return np.where(self.space.discrete, one_of_two, blend)

    def _mutate(self, vector: Vector, number: int, *, rate: float, sigma: float) -> Vector:
        """A mutant, with keyed noise."""
        n = self.space.size
        u = noise.uniform(self._seed, "ga/mutation", number, 2 * n)
        steps = sigma * noise.normal(self._seed, "ga/mutation/step", number, n)
        return self._genes.mutated(vector, u[:n] < rate, steps, u[n:])

    def _learn(self, result: Result) -> None:
        """What measured worse than everything, or not at all, does not breed."""
        if not np.isfinite(result.loss):
            return
        size = self.options.population
        if self.options.mode == "steady-state":
            self._population.append(result)
            self._updates += 1
            if len(self._population) > size:
                del self._population[self._oldest()]
            return
        self._next.append(result)
        if len(self._next) == size:
            best = sorted(self._population, key=lambda result: result.loss)[: self.options.elites]
            born = sorted(self._next, key=lambda result: result.loss)[: size - len(best)]
            self._population, self._next = [*best, *born], []
            self._updates += 1

    def _oldest(self) -> int:
        """Position of the oldest that is no elite."""
        ranked = sorted(range(len(self._population)), key=lambda i: self._population[i].loss)
        return min(ranked[self.options.elites :])

    def recommend(self) -> Vector:
        """(n,) the mean of the better half of a full population, weighted by rank; the start before that.

        Weights ``ln(mu + 1/2) - ln(i)`` for the i-th best of mu, as CMA-ES recombines (Hansen, "The CMA
        evolution strategy: a tutorial", arXiv 1604.00772, equation 49). For a choice, whose options are
        coordinates each, the mean is a vote.
        """
        if len(self._population) < self.options.population:
            return self._start.copy()
        mu = self.options.population // 2
        best = sorted(self._population, key=lambda result: result.loss)[:mu]
        weights = np.log(mu + 0.5) - np.log(np.arange(1, mu + 1))
        return self.space.clip(weights @ stack([r.vector for r in best], self.space.size) / weights.sum())

    def _memory(self) -> State:
        n = self.space.size
        return {"population": dump_results(self._population, n), "next": dump_results(self._next, n)}

    def _recall(self, memory: State) -> None:
        self._population, self._next = load_results(memory["population"]), load_results(memory["next"])
