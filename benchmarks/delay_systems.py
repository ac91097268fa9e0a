"""Optimizers that ``delay.py`` compares, each told one result at a time.

Peers keep the defaults of their libraries and begin where ours begin, with the same spread. To their
advantage each recommends the mean of its distribution where it has one, and not its luckiest sample.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from benchmarks.noise_problems import Problem, Vector
from blackopt import plugins
from blackopt.types import Evaluation

if TYPE_CHECKING:
    from collections.abc import Callable

ANY_BATCH = 16
"""A generation of optimizers that have none."""


class System(Protocol):
    """An optimizer that may be told in any order.

    Attributes:
        batch: candidates of a generation where it is run synchronously.
    """

    batch: int

    def ask(self) -> tuple[Any, Vector]:
        """What :meth:`tell` wants back, and (n,) the candidate."""

    def tell(self, asked: Any, loss: float, se: float | None) -> None: ...

    def recommend(self) -> Vector: ...


class Ours:
    """One of blackopt's, at its defaults; ``population`` where it is given and there is such an option."""

    def __init__(self, name: str, problem: Problem, seed: int, workers: int, population: int | None) -> None:
        cls = plugins.find("optimizers", name)
        given: dict[str, Any] = {"seed": seed, "sigma": problem.sigma}
        if name == "auto":
            given |= {"trials": problem.configuration.budget, "parallel": workers}
        elif population is not None and "population" in cls.Options.model_fields and name != "ga":
            given["population"] = population
        self._optimizer: Any = cls(problem.space, problem.start, cls.Options(**given))
        self.batch = int(getattr(self._optimizer, "population", population or ANY_BATCH))

    def ask(self) -> tuple[Any, Vector]:
        [candidate] = self._optimizer.ask(1)
        return candidate.number, candidate.vector

    def tell(self, asked: Any, loss: float, se: float | None) -> None:
        self._optimizer.tell([Evaluation(asked, loss, se=se)])

    def recommend(self) -> Vector:
        return np.asarray(self._optimizer.recommend())


class Pycma:
    """Hansen's ``cma``, told a generation of whatever has arrived."""

    def __init__(self, problem: Problem, seed: int, workers: int, population: int | None) -> None:
        del workers
        import cma

        options = {"seed": seed + 1, "verbose": -9, "verb_log": 0, "bounds": list(problem.bounds)}
        if population is not None:
            options["popsize"] = population
        self._es = cma.CMAEvolutionStrategy(problem.start, problem.sigma, options)
        self._arrived: list[tuple[Vector, float]] = []
        self.batch = int(self._es.popsize)

    def ask(self) -> tuple[Any, Vector]:
        x = self._es.ask(1)[0]
        return x, x

    def tell(self, asked: Any, loss: float, se: float | None) -> None:
        del se
        self._arrived.append((asked, loss))
        if len(self._arrived) == self.batch:
            points, losses = zip(*self._arrived, strict=True)
            self._es.tell(list(points), list(losses))
            self._arrived.clear()

    def recommend(self) -> Vector:
        return np.asarray(self._es.result.xfavorite)


class Cmaes:
    """``cmaes`` with learning-rate adaptation, told a generation of whatever has arrived."""

    def __init__(self, problem: Problem, seed: int, workers: int, population: int | None) -> None:
        del workers
        from cmaes import CMA

        bounds = np.tile(problem.bounds, (problem.configuration.n, 1))
        self._es = CMA(
            problem.start, problem.sigma, bounds=bounds, seed=seed, lr_adapt=True, population_size=population
        )
        self._arrived: list[tuple[Vector, float]] = []
        self.batch = int(self._es.population_size)

    def ask(self) -> tuple[Any, Vector]:
        x = self._es.ask()
        return x, x

    def tell(self, asked: Any, loss: float, se: float | None) -> None:
        del se
        self._arrived.append((asked, loss))
        if len(self._arrived) == self.batch:
            self._es.tell(self._arrived)
            self._arrived.clear()

    def recommend(self) -> Vector:
        return np.array(self._es.mean)


class Nevergrad:
    """Nevergrad's by name, told one at a time, which it says it supports."""

    scales: ClassVar[dict[str, float]] = {
        "CMA": 0.3,
        "TBPSA": 1.0,
    }  # of the first spread, below 18 parameters

    def __init__(self, name: str, problem: Problem, seed: int, workers: int, population: int | None) -> None:
        import nevergrad

        n = problem.configuration.n
        spread = problem.sigma / (self.scales[name] / (2 if name == "CMA" and n >= 18 else 1))
        array = nevergrad.p.Array(init=problem.start).set_bounds(*problem.bounds).set_mutation(sigma=spread)
        array.random_state.seed(seed)
        self._es = nevergrad.optimizers.registry[name](
            array, budget=problem.configuration.budget, num_workers=population or workers
        )
        self._array, self._name = array, name
        self.batch = 4 * n if name == "TBPSA" else int(self._es.optim.es.popsize)

    def ask(self) -> tuple[Any, Vector]:
        candidate = self._es.ask()
        return candidate, np.asarray(candidate.value)

    def tell(self, asked: Any, loss: float, se: float | None) -> None:
        del se
        self._es.tell(asked, loss)

    def recommend(self) -> Vector:
        if self._name == "TBPSA":
            return np.asarray(self._es.provide_recommendation().value)
        mean = self._es.optim.es.mean  # of the algorithm that "CMA" chose
        return np.asarray(self._array.spawn_child().set_standardized_data(mean, reference=self._array).value)


class Optuna:
    """Optuna's ``CmaEsSampler``."""

    def __init__(self, problem: Problem, seed: int, workers: int, population: int | None) -> None:
        del workers
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        start = {str(j): float(value) for j, value in enumerate(problem.start)}
        self._sampler = optuna.samplers.CmaEsSampler(
            x0=start, sigma0=problem.sigma, seed=seed, popsize=population
        )
        self._study = optuna.create_study(sampler=self._sampler)
        self._names, self._start, self._bounds = list(start), problem.start, problem.bounds
        self._complete = optuna.trial.TrialState.COMPLETE
        self.batch = population or 4 + math.floor(3 * math.log(len(start)))

    def ask(self) -> tuple[Any, Vector]:
        trial = self._study.ask()
        return trial, np.array([trial.suggest_float(name, *self._bounds) for name in self._names])

    def tell(self, asked: Any, loss: float, se: float | None) -> None:
        del se
        self._study.tell(asked, loss)

    def recommend(self) -> Vector:
        """(n,) the mean of its CMA-ES; of its own it would recommend its best trial."""
        trials = self._study.get_trials(deepcopy=False, states=(self._complete,))
        es: Any = self._sampler._restore_optimizer(trials)  # noqa: SLF001  (it has no public name)
        if es is None:
            return self._start
        low, high = self._bounds
        return low + (high - low) * np.asarray(es.mean)


OURS = ("surrogate", "cma-es", "cma-es-lra", "openai-es", "pgpe", "snes", "xnes", "ga", "auto")
PEERS: dict[str, Callable[[Problem, int, int, int | None], System]] = {
    "cma, naive": Pycma,
    "cmaes lr_adapt, naive": Cmaes,
    "Nevergrad CMA": lambda *given: Nevergrad("CMA", *given),
    "Nevergrad TBPSA": lambda *given: Nevergrad("TBPSA", *given),
    "Optuna CMA-ES": Optuna,
}


def make(name: str, problem: Problem, seed: int, workers: int, population: int | None = None) -> System:
    """The optimizer, at the problem's start.

    Args:
        name: a key of ``OURS`` or ``PEERS``.
        workers: candidates in flight, for those that plan with it.
        population: of a generation; None for the default.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pycma and Optuna warn of plots and of experimental features
        if name in PEERS:
            return PEERS[name](problem, seed, workers, population)
        return Ours(name, problem, seed, workers, population)
