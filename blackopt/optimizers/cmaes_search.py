"""What the algorithms of CyberAgent's library ``cmaes`` share here: when they update, what a late result is
to them, and how they are dumped.

The library wants whole generations, draws from a generator of its own, and is stored by pickling. Here it
draws keyed noise, so a candidate depends on its number and on the distribution alone; and what an update
changes is named (:attr:`CmaesSearch.memory`), dumped as arrays and numbers, and put back into a strategy that
was built afresh.

An update is due when ``population`` informative results are there, from whatever generation. A late one is
carried along with the mean (:mod:`blackopt.optimizers.carried`), and then a foreign solution for the present
distribution: it is ranked with the others, and its step from the mean is shortened to sqrt(n) + 2n / (n + 2)
standard deviations where it is longer (Hansen, "Injecting external solutions into CMA-ES", 2011, arXiv
1110.4181).

A distribution that rounding has spoilt, by a condition number above 1e14 or standard deviations below 1e-9,
begins anew at its mean, with the first spread.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from functools import cache
from importlib import metadata, util
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt import noise
from blackopt.errors import UsageError
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.carried import Origins
from blackopt.optimizers.directions import shortened
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_LEAST_SPREAD = 1e-9
_LARGEST_CONDITION = 1e14
_DRAWS = 1 << 20  # keys of noise for one candidate: it is drawn again, at most 101 times, while out of bounds


@cache
def library() -> Any:
    """The ``cmaes`` package, imported on first use: it brings scipy along where that is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of its algorithms call themselves experimental
        import cmaes
    return cmaes


def versions() -> str:
    """Of the library, and of what computes quantiles for it: its own approximation, or scipy."""
    scipy = f" scipy/{metadata.version('scipy')}" if util.find_spec("scipy") else ""
    return f"cmaes/{metadata.version('cmaes')}{scipy}"


class CmaesOptions(OptimizerOptions):
    """Options of the algorithms of ``cmaes``.

    Attributes:
        population: informative results for each update; None takes the library's 4 + 3 ln n.
        sigma: initial standard deviation, in the space's coordinates (bounded ones are scaled to [0, 1]).
    """

    population: int | None = Field(default=None, ge=4)
    sigma: float = Field(default=0.2, gt=0, allow_inf_nan=False)


class Keyed:
    """The part of ``numpy.random.RandomState`` that the library draws from, out of keyed noise.

    Attributes:
        number: of the candidate that is drawn; setting it begins with its first noise.
    """

    def __init__(self, seed: int, stream: str) -> None:
        self._seed, self._stream = seed, stream
        self._key = 0

    def begin(self, number: int) -> None:
        """Draw for this candidate next."""
        self._key = number * _DRAWS

    def randn(self, n: int) -> Vector:
        """(n,) standard normal numbers."""
        self._key += 1
        return noise.normal(self._seed, self._stream, self._key, n)

    def rand(self, rows: int, columns: int) -> NDArray[np.float64]:
        """(rows, columns) uniform numbers."""
        self._key += 1
        return noise.uniform(self._seed, self._stream, self._key, rows * columns).reshape(rows, columns)


class CmaesSearch(BaseOptimizer):
    """Pools what has come, and tells the library. Weights and standard errors are not used.

    A genotype is what the library was told of a candidate: (m,) numbers, m >= 1.

    A subclass implements :meth:`_fresh`, :meth:`_sample`, :meth:`_genotype`, :meth:`_solutions`,
    :meth:`_gaussian` and :meth:`_centre`, and names its :attr:`stream` and :attr:`memory`.
    """

    Options: ClassVar[type[OptimizerOptions]] = CmaesOptions
    stream: ClassVar[str]
    memory: ClassVar[tuple[str, ...]]
    """Attributes of the library's object that an update changes; dotted where it holds another one."""
    least: ClassVar[int] = 2
    """Coordinates that the algorithm needs."""

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, CmaesOptions)
        if space.size < self.least:
            raise UsageError(
                f"{type(self).__name__}: needs at least {self.least} coordinates, got {space.size}; "
                "use cma-es, which takes one"
            )
        self.options = options
        self._strategy = self._built(self._start)
        self.population = int(self._strategy.population_size)
        self._pool: list[Result] = []  # informative, and not used yet; vectors are genotypes
        self._genotypes: dict[int, Vector] = {}  # of candidates in flight
        self._origins = Origins()

    # ------------------------------------------------------------------ the algorithm

    @abstractmethod
    def _fresh(self, start: Vector) -> Any:
        """The library's object about (n,) ``start``."""

    @abstractmethod
    def _sample(self) -> tuple[Vector, Vector]:
        """(n,) coordinates to evaluate and (m,) genotype of the library's next candidate."""

    @abstractmethod
    def _genotype(self, vector: Vector) -> Vector:
        """(m,) genotype of (n,) coordinates that the library did not draw."""

    @abstractmethod
    def _solutions(self, pool: list[Result]) -> list[Any]:
        """What the library takes for the results' genotypes."""

    @abstractmethod
    def _gaussian(self) -> tuple[Vector, NDArray[np.float64]] | None:
        """(d,) mean and (d,) or (d, d) scale of what the first d numbers of a genotype are drawn from."""

    @abstractmethod
    def _centre(self) -> Vector:
        """(n,) coordinates of the distribution's middle."""

    def _values(self, losses: Vector) -> Vector:
        """(k,) what the library is told: ranks, so that infinities and scales do not matter."""
        return np.argsort(np.argsort(losses, kind="stable"), kind="stable").astype(np.float64)

    # ------------------------------------------------------------------ ask and tell

    def _built(self, start: Vector) -> Any:
        """A fresh object with keyed noise."""
        strategy = self._fresh(start.copy())
        self._noise = Keyed(self._seed, self.stream)
        (getattr(strategy, "_cma", strategy))._rng = self._noise  # noqa: SLF001  (it takes no generator)
        return strategy

    def _draw(self, number: int) -> Vector:
        self._noise.begin(number)
        vector, genotype = self._sample()
        self._genotypes[number] = genotype
        if (gaussian := self._gaussian()) is not None:
            self._origins.keep(number, gaussian[0].copy())  # the library moves its mean in place
        return vector

    def _learn(self, result: Result) -> None:
        genotype = self._genotypes.pop(result.number)
        if not result.informative:
            self._origins.forget(result.number)
            return
        if result.moved:
            genotype = self._genotype(self.space.clip(result.vector))
        self._pool.append(
            Result(result.number, result.version, genotype, result.loss, None, 1.0, result.moved)
        )
        if len(self._pool) == self.population:
            self._update()

    def _update(self) -> None:
        """Learn from the pool, and empty it."""
        pool, self._pool = sorted(self._pool, key=lambda result: result.number), []
        self._advance(pool)
        for result in pool:
            self._origins.forget(result.number)

    def _advance(self, pool: list[Result]) -> None:
        """One generation of the library."""
        losses = np.array([result.loss for result in pool])
        if np.all(losses == losses[0]):  # nothing can be selected: a drift by chance would look like progress
            return
        pool = [self._near(r) if r.moved or r.version != self._updates else r for r in pool]
        values = self._values(losses).tolist()
        centre = self._centre()
        with np.errstate(all="ignore"):  # what rounding spoils is found below
            self._strategy.tell(list(zip(self._solutions(pool), values, strict=True)))
        self._updates += 1
        if not self._sound():
            after = self._centre()
            self._strategy = self._built(after if np.all(np.isfinite(after)) else centre)

    def _near(self, result: Result) -> Result:
        """A result from elsewhere, carried along with the mean, no further from it than the distribution
        would draw."""
        if (gaussian := self._gaussian()) is None:
            return result
        mean, scale = gaussian
        d = mean.size
        point = result.vector[:d]
        if not result.moved:
            point = self._origins.carried(result.number, point, mean)
        offset = point - mean
        solved = np.linalg.solve(scale, offset) if scale.ndim == 2 else offset / scale
        z: Vector = np.asarray(solved, dtype=np.float64)
        short = shortened(z)
        moved = point
        if not np.array_equal(short, z):
            moved = mean + (scale @ short if scale.ndim == 2 else scale * short)
        genotype = np.concatenate([moved, result.vector[d:]])
        return Result(result.number, result.version, genotype, result.loss, None, 1.0, result.moved)

    def _sound(self) -> bool:
        """Whether the distribution is one that can be drawn from."""
        known = [value for value in self._remembered().values() if value is not None]
        if not all(np.all(np.isfinite(np.asarray(value))) for value in known):
            return False
        if (gaussian := self._gaussian()) is None:
            return True
        scale = gaussian[1]
        lengths = np.linalg.norm(scale, axis=0) if scale.ndim == 2 else np.abs(scale)  # of the axes
        longest, shortest = float(lengths.max()), float(lengths.min())
        return longest > _LEAST_SPREAD and longest**2 < _LARGEST_CONDITION * shortest**2

    def recommend(self) -> Vector:
        """(n,) the middle of the distribution, inside the bounds."""
        return self.space.clip(self._centre())

    # ------------------------------------------------------------------ dump and load

    def _remembered(self) -> dict[str, Any]:
        """The present values of :attr:`memory`, as far as the algorithm has them in this space."""
        found = {}
        for name in self.memory:
            holder, attribute = self._holder(name)
            if hasattr(holder, attribute):
                found[name] = _plain(getattr(holder, attribute))
        return found

    def _holder(self, name: str) -> tuple[Any, str]:
        """The object that has the attribute, and what it is called there."""
        outer, _, attribute = name.rpartition(".")
        return (getattr(self._strategy, outer) if outer else self._strategy), attribute

    def _memory(self) -> State:
        genotypes = list(self._genotypes.values())  # in the order of those pending
        width = genotypes[0].size if genotypes else self.space.size
        pooled = self._pool[0].vector.size if self._pool else self.space.size
        return {
            "strategy": self._remembered(),
            "pool": dump_results(self._pool, pooled),
            "origins": self._origins.dump(0 if (gaussian := self._gaussian()) is None else gaussian[0].size),
            "genotypes": stack(genotypes, width),
        }

    def _recall(self, memory: State) -> None:
        for name, value in memory["strategy"].items():
            holder, attribute = self._holder(name)
            setattr(holder, attribute, value)
        self._pool = load_results(memory["pool"])
        self._origins = Origins.load(memory["origins"])
        self._genotypes = dict(zip(self._pending, memory["genotypes"], strict=True))


def _plain(value: Any) -> Any:
    """None, a number, an array, or a list of numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
