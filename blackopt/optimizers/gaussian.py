"""What the searches around a Gaussian share: x = m + A eps with eps ~ N(0, I), and results that come late,
out of order, or never.

An update is due when ``population`` results have finished since the last one, failures among them, whatever
they belong to: nothing is waited for, so nothing that never comes can stall it. A result from an older
distribution is

  * scored among the losses of its own cohort, those used by earlier updates included, and where they are few
    those of its neighbours, see :mod:`blackopt.optimizers.known`;
  * taken for the step that it was, in standard deviations: a late gradient, followed from the present centre
    with the present spread, whatever the spread it was drawn with; and
  * counted the less the further the centre has gone since, see
    :func:`blackopt.optimizers.shaping.late_weight`, or as the option ``late`` says.

Importance weights would take the place of the last two without a bias. But they fade with exp(-d^2), where
d^2 is summed over all coordinates: after a step that is worth its while, hardly one of many results counts.

What it was drawn from is its number (:mod:`blackopt.optimizers.keyed`), so an update holds as many vectors
as the algorithm has equations, whatever the population: :mod:`blackopt.optimizers.directions`.

The algorithms differ in how they score (:data:`Scores`), and in what they make of the weighed results.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from blackopt.artifacts.keyed import Keyed, perturb
from blackopt.errors import UsageError
from blackopt.optimizers.base import Result, dump_results, load_results
from blackopt.optimizers.directions import Cohort, Directions, by_version
from blackopt.optimizers.keyed import TABLE_FROM, KeyedOptions, KeyedSearch
from blackopt.optimizers.known import KnownLosses
from blackopt.optimizers.shaping import late_weight, trust
from blackopt.protocols import OptimizerOptions
from blackopt.types import Candidate, KeyedCandidate, LazyCandidate, State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

Scores = Callable[[Vector, Vector], Vector]
"""``(losses, among) -> scores``: of k losses, ranked among the m >= k that are known of their cohort."""

_LEAST_SPREAD = 1e-9  # a standard deviation that rounding does not swallow

PART = 1 << 18
"""Coordinates that a search which learns a spread for each moves at a time."""


class GaussianOptions(KeyedOptions):
    """Options of searches around a Gaussian.

    Attributes:
        retain: centres that are kept at most, the present one among them; None keeps all that candidates in
            flight were drawn around. A result of one that is no longer kept counts as finished, and says
            nothing.
        late: how much a result of an older distribution counts for: ``weights``, the less the further the
            centre has gone since; ``shift``, as much as a present one; ``discard``, nothing.
    """

    retain: int | None = Field(default=None, ge=1)
    late: Literal["weights", "shift", "discard"] = "weights"


class TwinOptions(GaussianOptions):
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


def refuse_signs(options: KeyedOptions, sigma_rate: float | None) -> None:
    """Of a search that learns its spread.

    Raises:
        ValueError: the squares of signs are 1 whatever the result, so they say nothing of a spread.
    """
    if options.noise == "signs" and sigma_rate != 0:
        raise ValueError("noise: signs cannot teach a spread: set sigma_rate: 0, or noise: table")


def weigh(
    results: Sequence[Result], late: Vector, known: KnownLosses, scores: Scores, *, twins: bool
) -> Vector:
    """(k,) scores of results, weighed.

    For scores u and the weight a of each of k results, an estimator ``1/k sum_i a_i u_i f(eps_i)`` is then
    ``sum_i w_i f(eps_i)``, with E[u f(eps)] as its limit where nothing is late and all is known equally well.

    Args:
        results: k >= 1 informative ones.
        late: (k,) what each counts for by where it was drawn.
        known: what losses are scored among; the results' own are in it.
        scores: how losses are scored.
        twins: whether candidates 2j and 2j + 1 are opposite: those then share their trust.

    Returns:
        w_i = a_i u_i / k.
    """
    weights = late * _trust(results, twins=twins) / len(results)
    for version, members in by_version(results).items():
        losses = np.array([results[i].loss for i in members])
        weights[members] *= scores(losses, known.among(version))
    return weights


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


class GaussianSearch(KeyedSearch):
    """Draws around a centre, pools what finishes, and asks the algorithm for a step.

    A subclass says where it begins (:meth:`_begin`), and implements :meth:`_step`.
    """

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, GaussianOptions)
        self._retain = options.retain
        self._late = options.late
        self._pool: list[Result] = []  # finished, and not used yet
        self._cohorts: dict[int, Cohort] = {}

    def _begin(self, population: int, scale: NDArray[Any]) -> None:
        """Begin at the start, with this many finished results for each update, and this A."""
        self.population = population
        self._known = KnownLosses(population)
        self._cohorts[0] = Cohort(self._start, scale.astype(self._dtype, copy=False))
        del self._start  # a model's worth of memory: the centre is all that is needed from now on

    def _origin(self) -> Vector:
        return self._now.centre

    @abstractmethod
    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[Any]]:
        """The next centre and scale, from k >= 1 informative results."""

    @property
    def _now(self) -> Cohort:
        """The present distribution."""
        return self._cohorts[self._updates]

    def _weigh(self, results: list[Result], scores: Scores) -> tuple[Vector, Directions]:
        """Weighed scores and directions of results, see :func:`weigh`."""
        return self._weighed(results, scores), Directions(results, self._cohorts, self._noise)

    def _weighed(self, results: list[Result], scores: Scores) -> Vector:
        """(k,) weighed scores of results, see :func:`weigh`."""
        return weigh(results, self._counts(results), self._known, scores, twins=self.twins)

    def _counts(self, results: Sequence[Result]) -> Vector:
        """(k,) what results count for by where they were drawn, see the option ``late``."""
        versions = [result.version for result in results]
        if self._late == "shift":
            return np.ones(len(versions))
        if self._late == "discard":
            return np.array([float(version == self._updates) for version in versions])
        now, n = self._now, self.space.size
        count = {
            each: late_weight(now.distance(self._cohorts[each].centre), n)
            for each in set(versions) - {self._updates}
        }
        return np.array([count.get(version, 1.0) for version in versions])

    def _draw(self, number: int) -> Vector:
        return self._candidate(number).vector

    def _candidate(self, number: int) -> Candidate:
        """A key, where the candidate is its centre + sign * sigma * noise and nothing else."""
        now, version = self._now, self._updates
        if self._overwrites:
            return LazyCandidate(number, version, partial(self._placed_if_kept, version, number))
        if now.scale.size > 1 or self.space.bounded:
            return LazyCandidate(number, version, partial(self._placed, now, number))
        noise, sigma = self._noise, float(now.scale[0])
        key = Keyed(version, noise.key(number), noise.sign(number), sigma, noise.kind)
        make = partial(perturb, now.centre, key, noise.seed)
        return KeyedCandidate(number, version, make, key.encode().body)

    def _placed(self, cohort: Cohort, number: int) -> Vector:
        epsilon = self._noise.draw(number, self.space.size, dtype=self._dtype)
        return self._inside(cohort.place(epsilon))

    def _placed_if_kept(self, version: int, number: int) -> Vector:
        if version not in self._cohorts:
            raise UsageError(
                f"candidate {number} can no longer be drawn: all around centre {version} are told, and the "
                "next centre has taken its memory. Nothing else is lost; read a vector before it is told"
            )
        return self._placed(self._cohorts[version], number)

    @property
    def _overwrites(self) -> bool:
        """Whether a model is so large that its next centre and spread take the memory of the present ones."""
        return self._now.scale.size >= TABLE_FROM

    def _room(self) -> tuple[Vector, NDArray[Any]]:
        """Where the next (n,) centre and scale go: over the present ones, where these are large and nothing
        in flight or in the pool refers to them. What is at a coordinate is to be read before it is written.
        """
        now, referred = self._now, {*self._pending.values(), *(result.version for result in self._pool)}
        if self._overwrites and self._updates not in referred:
            return now.centre, now.scale
        return np.empty_like(now.centre), np.empty_like(now.scale)

    def _learn(self, result: Result) -> None:
        self._pool.append(result)
        if result.informative and result.version in self._cohorts:
            self._known.add(result.version, result.loss)
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
        informative = [result for result in results if result.informative and result.version in self._cohorts]
        # Where nothing was learnt, the centre has no reason to move, nor what is in flight to become late.
        if any(result.version == self._updates or self._late != "discard" for result in informative):
            centre, scale = self._step(informative)
            following = Cohort(self._inside(centre), scale)
            self._updates += 1
            self._cohorts[self._updates] = following
        needed = {*self._pending.values(), *(result.version for result in self._pool), self._updates}
        kept = sorted(needed & self._cohorts.keys())[-self._retain if self._retain else 0 :]
        self._cohorts = {version: self._cohorts[version] for version in kept}
        self._known.keep(kept)

    def recommend(self) -> Vector:
        """(n,) the centre."""
        return self._now.centre.copy()

    def _memory(self) -> State:
        cohorts = self._cohorts
        return {
            "pool": dump_results(self._pool, self.space.size),
            "cohorts": {
                "version": np.array(list(cohorts), dtype=np.int64),
                "centre": [cohort.centre for cohort in cohorts.values()],
                "scale": [cohort.scale for cohort in cohorts.values()],
            },
            "losses": self._known.dump(),
        }

    def _recall(self, memory: State) -> None:
        self._pool = load_results(memory["pool"])
        rows = memory["cohorts"]
        self._cohorts = {
            int(version): Cohort(centre, scale)
            for version, centre, scale in zip(rows["version"], rows["centre"], rows["scale"], strict=True)
        }
        self._known.load(memory["losses"])


def limited(scale: NDArray[Any], space: Space) -> NDArray[Any]:
    """(n,) or (n, n) scale whose standard deviations, coordinate by coordinate, are neither lost to rounding
    nor longer than a third of the range, which is as good as uniform. Unbounded coordinates have no upper
    limit. Where none has one, (n,) are limited in place."""
    if scale.ndim == 1 and not space.bounded:
        np.maximum(scale, _LEAST_SPREAD, out=scale)
        return scale
    deviations = np.abs(scale) if scale.ndim == 1 else np.linalg.norm(scale, axis=1)
    factor = np.clip(deviations, _LEAST_SPREAD, (space.upper - space.lower) / 3) / deviations
    inside: NDArray[Any] = scale * (factor if scale.ndim == 1 else factor[:, None])
    return inside.astype(scale.dtype, copy=False)
