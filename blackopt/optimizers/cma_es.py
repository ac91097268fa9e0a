"""CMA-ES: Hansen and Ostermeier, "Completely derandomized self-adaptation in evolution strategies" (2001);
the update is ``cma.CMAEvolutionStrategy`` of Hansen's own library, and this file only feeds it.

The library wants its generations whole and keeps much of its state in passing. So here the state is ten
explicit arrays and numbers (:class:`Distribution`), and every update builds a fresh strategy from them, calls
its ``tell`` once and reads them back: nothing hidden survives an update, hence nothing is lost by a dump.
Building costs about as much as an update does.

An update is due when ``population`` informative results are there, from whatever generation. A late one is a
foreign solution for the present distribution: it is ranked with the others, and its step from the mean is
shortened to sqrt(n) + 2n / (n + 2) standard deviations where it is longer, as in Hansen, "Injecting external
solutions into CMA-ES" (2011, arXiv 1110.4181). So every result is used, and none throws the step
size off by much.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt import noise
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space


@cache
def library() -> Any:
    """The ``cma`` package, imported on first use: it takes a second, which naming this optimizer must not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns when matplotlib, which it uses for its plots, is not there
        import cma
        import cma.boundary_handler
        import cma.transformations
    return cma


class CMAESOptions(OptimizerOptions):
    """Options of ``cma-es``.

    Attributes:
        population: informative results for each update; None takes the library's 4 + 3 ln n. More of them
            average more noise: raise it before anything else where the metric is noisy.
        sigma: initial standard deviation, in the space's coordinates (bounded ones are scaled to [0, 1]).
    """

    population: int | None = Field(default=None, ge=4)
    sigma: float = Field(default=0.2, gt=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """The search distribution N(mean, (sigma S)^2 C) and its evolution paths, in unbounded coordinates.

    Attributes:
        mean: (n,) m.
        sigma: step size.
        scaling: (n,) diagonal of S: holds standard deviations within limits.
        covariance: (n, n) C.
        axes: (n, n) B, columns are the eigenvectors of C.
        lengths: (n,) D, square roots of its eigenvalues.
        path_sigma: (n,) p_sigma.
        path_c: (n,) p_c.
        count: updates made.
    """

    mean: Vector
    sigma: float
    scaling: Vector
    covariance: NDArray[np.float64]
    axes: NDArray[np.float64]
    lengths: Vector
    path_sigma: Vector
    path_c: Vector
    count: int


class CMAES(BaseOptimizer):
    """``use: cma-es``. Weights and standard errors are not used: the algorithm's recombination weights are
    its own."""

    Options: ClassVar[type[OptimizerOptions]] = CMAESOptions
    version: ClassVar[str] = f"cma-es/1 cma/{metadata.version('cma')}"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, CMAESOptions)
        self.options = options
        bounds = [_or_none(space.lower), _or_none(space.upper)]
        self._bounds = library().boundary_handler.BoundTransform(bounds)
        # A standard deviation of a third of the range is as good as uniform. Unbounded coordinates have no
        # limit.
        self._max_std = (space.upper - space.lower) / 3
        self._drawing = 0  # number of the candidate that the strategy draws noise for
        self._strategy = self._fresh()
        self.population = int(self._strategy.sp.popsize)
        self._distribution = _read(self._strategy)
        self._pool: list[Result] = []  # informative, and not used yet; vectors are genotypes, see _draw
        self._genotypes: dict[int, Vector] = {}  # of candidates in flight

    def _fresh(self) -> Any:
        """The library's strategy at the start, quiet, and with our noise for randomness."""
        options: dict[str, Any] = {
            "randn": self._noise,
            "seed": np.nan,  # "do nothing": it would seed numpy's global generator
            "AdaptSigma": library().sigma_adaptation.CMAAdaptSigmaCSA,
            "CMA_mirrors": 0,  # pairs would need a whole generation at once
            "conditioncov_alleviate": False,  # changes coordinates in passing
            "updatecovwait": 0,  # C is decomposed at every update, so B and D always belong to it
            "minstd": 1e-9,
            "maxstd": self._max_std,
            "verbose": -10,
            "verb_log": 0,
        }
        if self.options.population is not None:
            options["popsize"] = self.options.population
        with warnings.catch_warnings():  # it installs warning filters of its own
            return library().CMAEvolutionStrategy(
                np.asarray(self._bounds.inverse(self._start)), self.options.sigma, options
            )

    def _noise(self, rows: int, n: int) -> NDArray[np.float64]:
        """(1, n) the candidate's keyed noise, in the shape the library asks for."""
        assert rows == 1
        return noise.normal(self._seed, "cma-es", self._drawing, n).reshape(1, n)

    def _restored(self) -> Any:
        """A fresh strategy with the present distribution, inside an iteration: it can be asked and told."""
        es, now = self._fresh(), self._distribution
        es.ask(1)  # opens the iteration; what it drew is not used
        es.mean, es.sigma, es.countiter = now.mean.copy(), now.sigma, now.count
        es.mean_old = es.mean  # it is copied once more, for nothing that we use
        es.sigma_vec = library().transformations.DiagonalDecoding(now.scaling)
        es.sm.C, es.sm.B, es.sm.D = now.covariance.copy(), now.axes.copy(), now.lengths.copy()
        es.adapt_sigma.ps, es.pc = now.path_sigma.copy(), now.path_c.copy()
        return es

    def _draw(self, number: int) -> Vector:
        """The library searches without bounds; its points are bent into them by its own smooth
        transformation."""
        self._drawing = number
        genotype = np.array(self._strategy.ask(1)[0], dtype=np.float64)
        self._genotypes[number] = genotype
        return np.array(self._bounds.repair(genotype), dtype=np.float64)

    def _learn(self, result: Result) -> None:
        genotype = self._genotypes.pop(result.number)
        if not result.informative:
            return
        if result.moved:
            genotype = np.array(self._bounds.inverse(self.space.clip(result.vector)), dtype=np.float64)
        self._pool.append(
            Result(result.number, result.version, genotype, result.loss, None, 1.0, result.moved)
        )
        if len(self._pool) == self.population:
            self._update()

    def _update(self) -> None:
        """One generation of the library, with ranks for losses: infinities and scales no longer matter."""
        pool, self._pool = sorted(self._pool, key=lambda result: result.number), []
        losses = np.array([result.loss for result in pool])
        if np.all(losses == losses[0]):  # nothing can be selected: a drift by chance would look like progress
            return
        ranks = np.argsort(np.argsort(losses, kind="stable"), kind="stable").astype(np.float64)
        foreign = [i for i, result in enumerate(pool) if result.moved or result.version != self._updates]
        es = self._restored()
        with warnings.catch_warnings():
            es.tell([result.vector.copy() for result in pool], ranks.tolist(), check_points=foreign)
        es.sm.update_now()
        self._distribution = _read(es)
        self._updates += 1
        self._strategy = self._restored()

    def recommend(self) -> Vector:
        """(n,) the mean of the distribution, inside the bounds."""
        return self.space.clip(np.asarray(self._bounds.repair(self._distribution.mean)))

    def _memory(self) -> State:
        now = self._distribution
        return {
            "distribution": {field.name: getattr(now, field.name) for field in fields(now)},
            "pool": dump_results(self._pool, self.space.size),
            "genotypes": stack(
                list(self._genotypes.values()), self.space.size
            ),  # in the order of those pending
        }

    def _recall(self, memory: State) -> None:
        self._distribution = Distribution(**memory["distribution"])
        self._pool = load_results(memory["pool"])
        self._genotypes = dict(zip(self._pending, memory["genotypes"], strict=True))
        self._strategy = self._restored()


def _read(es: Any) -> Distribution:
    """What a strategy has become, copied; the common factor of S goes into sigma, so that neither drifts
    away."""
    scaling = np.ones(es.N) * es.sigma_vec.scaling
    common = float(np.exp(np.mean(np.log(scaling))))
    return Distribution(
        mean=np.array(es.mean),
        sigma=float(es.sigma) * common,
        scaling=scaling / common,
        covariance=np.array(es.sm.C),
        axes=np.array(es.sm.B),
        lengths=np.array(es.sm.D),
        path_sigma=np.array(es.adapt_sigma.ps),
        path_c=np.array(es.pc),
        count=int(es.countiter),
    )


def _or_none(bounds: Vector) -> list[float | None]:
    """Bounds as the library wants them: None for infinite."""
    return [float(bound) if np.isfinite(bound) else None for bound in bounds]
