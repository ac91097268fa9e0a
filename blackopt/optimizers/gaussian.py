"""What the searches around a Gaussian share: x = m + A eps with eps ~ N(0, I), and results that come late,
out of order, or never.

An update is due when ``population`` results have finished since the last one, failures among them, whatever
they belong to: nothing is waited for, so nothing that never comes can stall it. A result from an older
distribution is

  * scored among the losses of its own cohort (all that are known, those used by earlier updates included),
    and
  * moved to the present distribution by its importance weight, see
    :func:`blackopt.optimizers.shaping.late_weights`; where the spread has changed too, or something else
    was tried than was drawn, its step is shortened to what the present distribution would draw.

The algorithms differ in how they score (:data:`Scores`), and in what they make of the weighed results.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from blackopt import noise
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.shaping import late_weights, trust
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

Scores = Callable[[Vector, Vector], Vector]
"""``(losses, among) -> scores``: of k losses, ranked among the m >= k that are known of their cohort."""

_LEAST_SPREAD = 1e-9  # a standard deviation that rounding does not swallow


class TwinOptions(OptimizerOptions):
    """Options of searches that draw twins.

    Attributes:
        population: finished results for each update; even, because candidates come in twins.
    """

    population: int = Field(default=16, ge=2)

    @field_validator("population")
    @classmethod
    def _twins(cls, population: int) -> int:
        if population % 2:
            raise ValueError(
                f"population must be even, because candidates come in twins: try {population + 1}"
            )
        return population


@dataclass(slots=True, eq=False)
class Cohort:
    """One search distribution, and the candidates drawn from it: what a late one is scored among and moved
    from.

    Attributes:
        centre: (n,) m.
        scale: A, as (1,) one standard deviation for all coordinates, (n,) one for each, or (n, n).
        losses: those known so far.
    """

    centre: Vector
    scale: NDArray[np.float64]
    losses: list[float] = field(default_factory=list)

    def place(self, epsilon: Vector) -> Vector:
        """(n,) m + A eps."""
        return self.centre + (self.scale @ epsilon if self.scale.ndim == 2 else self.scale * epsilon)

    def standardise(self, vector: Vector) -> Vector:
        """(n,) the inverse of :meth:`place`."""
        offset = vector - self.centre
        return _solve(self.scale, offset) if self.scale.ndim == 2 else offset / self.scale


def _solve(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """A^-1 b."""
    solution: NDArray[np.float64] = np.linalg.solve(a, b).astype(np.float64, copy=False)
    return solution


def weigh(
    results: Sequence[Result],
    epsilon: NDArray[np.float64],
    cohorts: Mapping[int, Cohort],
    now: Cohort,
    scores: Scores,
    *,
    twins: bool,
) -> tuple[Vector, NDArray[np.float64]]:
    """Scores of results, weighed, and where the results lie in the present distribution.

    For scores u and the weight a of each of k results, an estimator ``1/k sum_i a_i u_i f(z_i)`` is then
    ``w @ f(z)``, with E[u f(z)] as its limit where nothing is late and all is known equally well.

    Args:
        results: k >= 1 informative ones.
        epsilon: (k, n) standardised perturbations of the results, signs included, in their own cohorts, and
            before clipping at the bounds: that makes the loss one of the clipped vector, and estimates exact.
        cohorts: by version; those of the results at least, with the results' losses in them.
        now: the present distribution.
        scores: how losses are scored.
        twins: whether candidates 2j and 2j + 1 are opposite: those then share their trust.

    Returns:
        ``w``: (k,) a_i u_i / k. ``z``: (k, n) with x_i = m + A z_i.
    """
    weights, z = _trust(results, twins=twins) / len(results), np.empty_like(epsilon)
    by_version: dict[int, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        by_version[result.version].append(i)
    for version, members in by_version.items():
        cohort = cohorts[version]
        losses = np.array([results[i].loss for i in members])
        z[members], late = _seen_from(now, cohort, epsilon[members])
        weights[members] *= late * scores(losses, np.array(cohort.losses))
    return weights, z


def _trust(results: Sequence[Result], *, twins: bool) -> Vector:
    """(k,) trust, shared by twins that are both here: what they have in common cancels only with equal
    weights."""
    weights = trust(
        np.array([r.loss for r in results]), [r.se for r in results], np.array([r.weight for r in results])
    )
    first: dict[tuple[int, int], int] = {}
    for i, result in enumerate(results if twins else ()):
        j = first.setdefault((result.version, result.number // 2), i)
        if j != i:
            weights[i] = weights[j] = (weights[i] + weights[j]) / 2
    return weights


def _seen_from(
    now: Cohort, cohort: Cohort, epsilon: NDArray[np.float64]
) -> tuple[NDArray[np.float64], Vector]:
    """(k, n) perturbations as the present distribution would have drawn them, and their (k,) late weights."""
    if cohort is now:
        return epsilon, np.ones(len(epsilon))
    shift = cohort.standardise(now.centre)
    if now.scale.ndim == 1:
        stretch = now.scale / cohort.scale
        if np.all(stretch == 1):
            return epsilon - shift, late_weights(epsilon, shift)
        return shortened((epsilon - shift) / stretch), late_weights(epsilon, shift, stretch**2)
    stretch = _solve(cohort.scale, now.scale)
    variances, axes = np.linalg.eigh(stretch @ stretch.T)  # along these axes the two differ by scale alone
    z = shortened(_solve(stretch, (epsilon - shift).T).T)
    return z, late_weights(epsilon @ axes, shift @ axes, variances)


def shortened(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., n) steps, those longer than a Gaussian would draw cut to sqrt(n) + 2n / (n + 2).

    A foreign point far out would say of the spread what it says of itself: Hansen, "Injecting external
    solutions into CMA-ES" (2011, arXiv 1110.4181), section 3.
    """
    n = z.shape[-1]
    longest = math.sqrt(n) + 2 * n / (n + 2)
    lengths = np.linalg.norm(z, axis=-1, keepdims=True)
    short: NDArray[np.float64] = z * (longest / np.maximum(lengths, longest))
    return short


class GaussianSearch(BaseOptimizer):
    """Draws around a centre, pools what finishes, and asks the algorithm for a step.

    A subclass names its ``stream`` of noise, says where it begins (:meth:`_begin`), and implements
    :meth:`_step`.
    """

    stream: ClassVar[str]
    twins: ClassVar[bool] = False
    """Whether candidates 2j and 2j + 1 are drawn on opposite sides of the centre."""

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        self._pool: list[Result] = []  # finished, and not used yet
        self._cohorts: dict[int, Cohort] = {}

    def _begin(self, population: int, scale: NDArray[np.float64]) -> None:
        """Begin at the start, with this many finished results for each update, and this A."""
        self.population = population
        self._cohorts[0] = Cohort(self._start, scale)

    @abstractmethod
    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[np.float64]]:
        """The next centre and scale, from k >= 1 informative results."""

    @property
    def _now(self) -> Cohort:
        """The present distribution."""
        return self._cohorts[self._updates]

    def _weigh(self, results: list[Result], scores: Scores) -> tuple[Vector, NDArray[np.float64]]:
        """:func:`weigh`, with what this search knows."""
        epsilon = stack([self._epsilon(result) for result in results], self.space.size)
        return weigh(results, epsilon, self._cohorts, self._now, scores, twins=self.twins)

    def _draw(self, number: int) -> Vector:
        return self._now.place(self._perturbation(number))

    def _perturbation(self, number: int) -> Vector:
        """(n,) eps; twins share the noise of one key, with opposite signs."""
        if not self.twins:
            return noise.normal(self._seed, self.stream, number, self.space.size)
        epsilon = noise.normal(self._seed, self.stream, number // 2, self.space.size)
        return -epsilon if number % 2 else epsilon

    def _epsilon(self, result: Result) -> Vector:
        """(n,) the perturbation of what was tried, in the cohort that it was drawn from."""
        if result.moved:
            return shortened(self._cohorts[result.version].standardise(result.vector))
        return self._perturbation(result.number)

    def _learn(self, result: Result) -> None:
        self._pool.append(result)
        if result.informative:
            self._cohorts[result.version].losses.append(result.loss)
        if due := self._due():
            self._update(due)

    def _due(self) -> list[Result]:
        """The results of the update that is due, taken from the pool; none while it is not."""
        if len(self._pool) < self.population:
            return []
        due, self._pool = self._pool, []
        return due

    def _update(self, results: list[Result]) -> None:
        """Move by what has finished, and forget the cohorts that nobody will refer to again."""
        informative = [result for result in results if result.informative]
        if informative:  # otherwise everything failed, and the centre has no reason to move
            centre, scale = self._step(informative)
            self._updates += 1
            self._cohorts[self._updates] = Cohort(self.space.clip(centre), scale)
        needed = {version for version, _ in self._pending.values()} | {self._updates}
        needed |= {result.version for result in self._pool}
        self._cohorts = {version: cohort for version, cohort in self._cohorts.items() if version in needed}

    def recommend(self) -> Vector:
        """(n,) the centre."""
        return self._now.centre.copy()

    def _memory(self) -> State:
        cohorts = self._cohorts
        return {
            "pool": dump_results(self._pool, self.space.size),
            "cohorts": {
                "version": np.array(list(cohorts), dtype=np.int64),
                "centre": stack([cohort.centre for cohort in cohorts.values()], self.space.size),
                "scale": [cohort.scale for cohort in cohorts.values()],
                "losses": [np.array(cohort.losses, dtype=np.float64) for cohort in cohorts.values()],
            },
        }

    def _recall(self, memory: State) -> None:
        self._pool = load_results(memory["pool"])
        rows = memory["cohorts"]
        self._cohorts = {
            int(version): Cohort(centre, scale, [float(loss) for loss in losses])
            for version, centre, scale, losses in zip(
                rows["version"], rows["centre"], rows["scale"], rows["losses"], strict=True
            )
        }


def limited(scale: NDArray[np.float64], space: Space) -> NDArray[np.float64]:
    """(n,) or (n, n) scale whose standard deviations, coordinate by coordinate, are neither lost to rounding
    nor longer than a third of the range, which is as good as uniform. Unbounded coordinates have no upper
    limit."""
    deviations = np.abs(scale) if scale.ndim == 1 else np.linalg.norm(scale, axis=1)
    factor = np.clip(deviations, _LEAST_SPREAD, (space.upper - space.lower) / 3) / deviations
    return scale * (factor if scale.ndim == 1 else factor[:, None])
