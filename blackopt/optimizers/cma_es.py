"""CMA-ES: Hansen and Ostermeier, "Completely derandomized self-adaptation in evolution strategies" (2001);
the update is ``cma.CMAEvolutionStrategy`` of Hansen's own library, and this file only feeds it.

The library wants its generations whole and keeps much of its state in passing. So here every update builds a
fresh strategy from explicit arrays and numbers, asks it, calls its ``tell`` once and reads them back, see
:mod:`blackopt.optimizers.cma_strategy`.

An update is due when ``population`` informative results are there, from whatever generation. A late one is
carried along with the mean (:mod:`blackopt.optimizers.carried`), and then a foreign solution for the present
distribution: it is ranked with the others, and its step from the mean is shortened to sqrt(n) + 2n / (n + 2)
standard deviations where it is longer, as in Hansen, "Injecting external solutions into CMA-ES" (2011, arXiv
1110.4181). So every result is used, and none throws the step size off by much.

With ``restarts``, a run ends when the library's termination criteria say so, and the next one begins at the
start again (:mod:`blackopt.optimizers.cma_restarts`). What still comes from an ended run is not used: it
would draw the new one to where the old one ended.
"""

from __future__ import annotations

import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt import noise
from blackopt.errors import UsageError
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.carried import Origins
from blackopt.optimizers.cma_restarts import Restarts, Run, following
from blackopt.optimizers.cma_strategy import Covariance, Distribution, History, Settings, library
from blackopt.optimizers.shaping import finite
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_LEVEL = 10  # updates whose medians say how good a run is


class CMAESOptions(OptimizerOptions):
    """Options of ``cma-es``.

    Attributes:
        population: informative results for each update; None takes the library's 4 + 3 ln n. More of them
            average more noise: raise it before anything else where the metric is noisy.
        sigma: initial standard deviation, in the space's coordinates (bounded ones are scaled to [0, 1]).
        covariance: ``full`` learns how parameters depend on one another; ``diagonal`` (sep-CMA-ES) only how
            sensitive each is, and that sooner; ``vkd`` both, with as few directions as it needs.
        active: whether bad candidates shrink the spread along their directions; ``vkd`` never does that.
        restarts: ``none``, ``ipop`` or ``bipop``: what happens when a run has ended.
    """

    population: int | None = Field(default=None, ge=4)
    sigma: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    covariance: Covariance = "full"
    active: bool = True
    restarts: Restarts = "none"


class CMAES(BaseOptimizer):
    """``use: cma-es``. Weights and standard errors are not used: the algorithm's recombination weights are
    its own.

    Attributes:
        population: informative results for each update of the present run.
        runs: how many have begun.
    """

    Options: ClassVar[type[OptimizerOptions]] = CMAESOptions
    version: ClassVar[str] = f"cma-es/4 cma/{metadata.version('cma')}"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, CMAESOptions)
        self.options = options
        bounds = [_or_none(space.lower), _or_none(space.upper)]
        self._bounds = library().boundary_handler.BoundTransform(bounds)
        # A standard deviation of a third of the range is as good as uniform. Unbounded coordinates have no
        # limit.
        self._settings = Settings(
            covariance=options.covariance,
            active=options.active,
            ends=options.restarts != "none",
            max_std=(space.upper - space.lower) / 3,
            randn=self._noise,
        )
        self._drawing = 0  # number of the candidate that the strategy draws noise for
        self._limits: dict[str, float] = {}
        self._run = Run(number=0, small=True, population=options.population, sigma=options.sigma)
        es = self._fresh()
        self._run = Run(0, small=True, population=int(es.sp.popsize), sigma=options.sigma,
                        longest=float(es.opts["maxiter"]))  # fmt: skip
        self._first = self._run
        # as in cma.fmin2: evaluated for the first population, and kept
        self._limits["tolstagnation"] = float(es.opts["tolstagnation"])
        self._ended: list[tuple[float, Vector]] = []  # level and mean of the best run that has ended
        self._pool: list[Result] = []  # informative, and not used yet; vectors are genotypes, see _draw
        self._genotypes: dict[int, Vector] = {}  # of candidates in flight
        self._origins = Origins()
        self._begin(es)

    @property
    def population(self) -> int:
        """Informative results for each update of the present run."""
        assert self._run.population is not None
        return self._run.population

    @property
    def runs(self) -> int:
        """How many have begun."""
        return self._run.number + 1

    def _begin(self, es: Any) -> None:
        """Begin the present run with a fresh strategy."""
        self._began = self._updates
        self._strategy, self._distribution = es, Distribution.read(es, self._settings)
        self._history: History | None = None
        self._medians: list[float] = []  # of the losses of the latest updates

    def reshape(self, spread: NDArray[np.float64]) -> None:
        """Begin with N(start, A A^T) in place of N(start, sigma^2 I); restarts are as wide as ``sigma``.

        Args:
            spread: (n, n) A, not singular.

        Raises:
            UsageError: it has begun, or its covariance is not ``full``.
        """
        if self._asked or self.options.covariance != "full":
            raise UsageError("CMAES.reshape: only a full covariance that nothing was drawn from can be given")
        self._distribution = self._distribution.shaped(spread)
        self._strategy = self._restored()

    def _fresh(self) -> Any:
        """The library's strategy at the start."""
        run = self._run
        limits = self._limits if run.longest is None else {**self._limits, "maxiter": run.longest}
        start = np.asarray(self._bounds.inverse(self._start))
        return self._settings.fresh(start, run.sigma, run.population, **limits)

    def _noise(self, rows: int, n: int) -> NDArray[np.float64]:
        """(1, n) the candidate's keyed noise, in the shape the library asks for."""
        assert rows == 1
        return noise.normal(self._seed, "cma-es", self._drawing, n).reshape(1, n)

    def _restored(self) -> Any:
        """A fresh strategy with the present distribution, inside an iteration: it can be asked and told."""
        es = self._fresh()
        self._distribution.restore(es, self._settings)
        if self._history is not None:
            self._history.restore(es)
        return es

    def _draw(self, number: int) -> Vector:
        """The library searches without bounds; its points are bent into them by its own smooth
        transformation."""
        self._drawing = number
        genotype = np.array(self._strategy.ask(1)[0], dtype=np.float64)
        self._genotypes[number] = genotype
        self._origins.keep(number, self._distribution.mean)
        return np.array(self._bounds.repair(genotype), dtype=np.float64)

    def _learn(self, result: Result) -> None:
        genotype = self._genotypes.pop(result.number)
        if not result.informative or result.version < self._began:
            self._origins.forget(result.number)
            return
        if result.moved:
            genotype = np.array(self._bounds.inverse(self.space.clip(result.vector)), dtype=np.float64)
        self._pool.append(
            Result(result.number, result.version, genotype, result.loss, None, 1.0, result.moved)
        )
        if len(self._pool) == self.population:
            self._update()

    def _here(self, result: Result) -> Vector:
        """(n,) a genotype for the present distribution."""
        if result.moved or result.version == self._updates:
            return result.vector.copy()
        return self._origins.carried(result.number, result.vector, self._distribution.mean)

    def _update(self) -> None:
        """Learn from the pool, and empty it."""
        pool, self._pool = sorted(self._pool, key=lambda result: result.number), []
        self._advance(pool)
        for result in pool:
            self._origins.forget(result.number)

    def _advance(self, pool: list[Result]) -> None:
        """One generation of the library. Its losses are ranks where runs do not end: infinities and scales no
        longer matter; criteria that end a run need the losses themselves."""
        losses = np.array([result.loss for result in pool])
        ends = self._settings.ends
        if not np.any(np.isfinite(losses)) or (not ends and np.all(losses == losses[0])):
            return  # nothing can be selected: a drift by chance would look like progress
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable").astype(np.float64)
        values = finite(losses) if ends else ranks
        foreign = [i for i, result in enumerate(pool) if result.moved or result.version != self._updates]
        es = self._strategy
        es.sent_solutions.clear()  # it would not check those that it remembers, and a loaded one has none
        with warnings.catch_warnings():
            es.tell([self._here(result) for result in pool], values.tolist(), check_points=foreign)
        ended = ends and bool(es.stop())  # before the covariance is decomposed, as in cma.fmin2
        self._distribution = Distribution.read(es, self._settings)
        self._history = History.read(es) if ends else None
        self._medians = [*self._medians, float(np.median(values))][-_LEVEL:]
        self._updates += 1
        if ended:
            self._restart(int(es.countevals))
        else:
            self._strategy = self._restored()

    def _restart(self, used: int) -> None:
        """Keep the better one of the run that has ended and those before it, and begin the next."""
        finished = (float(np.mean(self._medians)), self._distribution.mean)
        self._ended = [min([*self._ended, finished], key=lambda run: run[0])]
        self._run = following(self._run, self._first, used, self.options.restarts, self._seed)
        self._begin(self._fresh())

    def recommend(self) -> Vector:
        """(n,) the mean of the distribution, inside the bounds.

        After a restart, the mean of the run whose latest 10 updates have the smallest median losses on
        average; the present run takes part once it has made as many.
        """
        mean = self._distribution.mean
        if self._ended:
            level, ended = self._ended[0]
            if len(self._medians) < _LEVEL or np.mean(self._medians) > level:
                mean = ended
        return self.space.clip(np.asarray(self._bounds.repair(mean)))

    def _memory(self) -> State:
        return {
            "distribution": self._distribution.dump(),
            "history": None if self._history is None else self._history.dump(),
            "medians": np.array(self._medians, dtype=np.float64),
            "run": self._run.dump(),
            "began": self._began,
            "ended": [{"level": level, "mean": mean} for level, mean in self._ended],
            "pool": dump_results(self._pool, self.space.size),
            "origins": self._origins.dump(self.space.size),
            # in the order of those pending
            "genotypes": stack(list(self._genotypes.values()), self.space.size),
        }

    def _recall(self, memory: State) -> None:
        self._run, self._began = Run(**memory["run"]), memory["began"]
        self._distribution = Distribution(**memory["distribution"])
        self._history = None if memory["history"] is None else History(**memory["history"])
        self._medians = memory["medians"].tolist()
        self._ended = [(run["level"], run["mean"]) for run in memory["ended"]]
        self._pool = load_results(memory["pool"])
        self._origins = Origins.load(memory["origins"])
        self._genotypes = dict(zip(self._pending, memory["genotypes"], strict=True))
        self._strategy = self._restored()


def _or_none(bounds: Vector) -> list[float | None]:
    """Bounds as the library wants them: None for infinite."""
    return [float(bound) if np.isfinite(bound) else None for bound in bounds]
