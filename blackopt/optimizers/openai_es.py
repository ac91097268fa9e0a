"""OpenAI-ES: Salimans, Ho, Chen, Sidor and Sutskever, "Evolution strategies as a scalable alternative to
reinforcement learning" (2017, arXiv 1703.03864), with antithetic twins, centred ranks and a choice of step
rule, for results that come late, out of order, or never.

Notation: m the centre, sigma the search radius, eps ~ N(0, I), x = m + s sigma eps with s = +1 and -1 for
twins.

An update is due when ``population`` results have finished since the last one, failures among them, whatever
they belong to: nothing is waited for, so nothing that never comes can stall it. A result from an older centre
is

  * ranked among the losses of its own centre (all that are known, those used by earlier updates included),
    and
  * moved to the present centre by its importance weight, see
    :func:`blackopt.optimizers.shaping.late_weights`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from blackopt import noise
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results, stack
from blackopt.optimizers.shaping import centred_ranks, late_weights, trust
from blackopt.optimizers.steps import SGD, Adam, ClipUp, Momentum, StepRule
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space


class OpenAIESOptions(OptimizerOptions):
    """Options of ``openai-es``.

    Attributes:
        population: finished results for each update; even, because candidates come in twins.
        sigma: standard deviation of the perturbations, in the space's coordinates (bounded ones are scaled to
            [0, 1]).
        step: the step rule.
        learning_rate: of the step rule; None takes the default of :func:`step_rule`, in proportion to sigma.
        max_speed: ``clipup`` only: the longest step; None takes twice the learning rate.
        momentum: ``clipup`` and ``momentum``: share of the old velocity.
        weight_decay: added to the gradient as ``weight_decay * m`` in unbounded coordinates; bounded ones
            have no origin.
    """

    population: int = Field(default=16, ge=2)
    sigma: float = Field(default=0.15, gt=0, allow_inf_nan=False)
    step: Literal["sgd", "momentum", "adam", "clipup"] = "sgd"
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_speed: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)

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
    """The candidates of one centre: what a late one is ranked among and measured from.

    Attributes:
        centre: (n,) m at the time they were drawn.
        losses: those known so far.
    """

    centre: Vector
    losses: list[float] = field(default_factory=list)


def step_rule(options: OpenAIESOptions, n: int) -> StepRule:
    """The step rule that the options name, for n parameters, its default speeds measured in sigma.

    A perturbation is sigma sqrt(n) long. ClipUp's longest step is a tenth of that, so late results stay
    useful for several updates. The others' steps are of the same order: campaigns have hundreds of
    evaluations, and not millions, to arrive with.
    """
    radius = options.sigma * math.sqrt(n)
    rate = options.learning_rate
    if options.step == "clipup":
        rate = rate or 0.05 * radius
        return ClipUp(n, rate, options.max_speed or 2 * rate, options.momentum)
    if options.step == "adam":
        return Adam(n, rate or 0.2 * options.sigma)
    # Along a slope, ranks make the gradient 1 / (2 sqrt(pi) sigma) long, whatever the loss: this rate makes
    # the step 0.56 sigma.
    rate = rate or 2 * options.sigma**2
    return SGD(rate) if options.step == "sgd" else Momentum(n, rate, options.momentum)


def gradient(
    results: list[Result],
    epsilon: NDArray[np.float64],
    cohorts: dict[int, Cohort],
    centre: Vector,
    sigma: float,
) -> Vector:
    """(n,) estimate of the gradient at ``centre`` of the ranked loss, smoothed with N(0, sigma^2 I).

    The estimator of Salimans et al. 2017, section 2, with scores u for losses and a weight a for each result
    i:

        g = 1 / (k sigma)  sum_i  a_i u_i (x_i - m) / sigma,    x_i = m_i + sigma eps_i

    The perturbation is the one before clipping at the bounds, which makes the loss that of the clipped
    vector, and the estimate exact.

    Args:
        results: k >= 1 informative ones.
        epsilon: (k, n) standardised perturbations of the results, signs included, from their own centres.
        cohorts: by version; those of the results at least, with the results' losses in them.
        centre: (n,) m.
        sigma: search radius.
    """
    weights = _twin_trust(results)
    by_version: dict[int, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        by_version[result.version].append(i)
    total = np.zeros_like(centre)
    for version, members in by_version.items():
        cohort = cohorts[version]
        shift = (centre - cohort.centre) / sigma
        losses = np.array([results[i].loss for i in members])
        u = centred_ranks(losses, np.array(cohort.losses))
        a = weights[members] * late_weights(epsilon[members], shift)
        total += (a * u) @ (epsilon[members] - shift)
    return total / (len(results) * sigma)


def _twin_trust(results: list[Result]) -> Vector:
    """(k,) trust, shared by twins that are both here: what they have in common cancels only with equal
    weights."""
    weights = trust(
        np.array([r.loss for r in results]), [r.se for r in results], np.array([r.weight for r in results])
    )
    first: dict[tuple[int, int], int] = {}
    for i, result in enumerate(results):
        j = first.setdefault((result.version, result.number // 2), i)
        if j != i:
            weights[i] = weights[j] = (weights[i] + weights[j]) / 2
    return weights


class OpenAIES(BaseOptimizer):
    """``use: openai-es``."""

    Options: ClassVar[type[OptimizerOptions]] = OpenAIESOptions
    version: ClassVar[str] = "openai-es/1"
    group = 2

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, OpenAIESOptions)
        self.options = options
        self._centre = self._start
        self._rule = step_rule(options, space.size)
        self._pool: list[Result] = []  # finished since the last update
        self._cohorts: dict[int, Cohort] = {0: Cohort(self._centre)}
        self._unbounded = ~np.isfinite(space.lower) & ~np.isfinite(space.upper)

    def _draw(self, number: int) -> Vector:
        return self._centre + self.options.sigma * self._perturbation(number)

    def _perturbation(self, number: int) -> Vector:
        """(n,) s eps: twins 2j and 2j + 1 share the noise of key j, with opposite signs."""
        epsilon = noise.normal(self._seed, "openai-es", number // 2, self.space.size)
        return -epsilon if number % 2 else epsilon

    def _epsilon(self, result: Result) -> Vector:
        """(n,) the perturbation of what was tried, from the centre that it was drawn around."""
        if result.moved:
            return (result.vector - self._cohorts[result.version].centre) / self.options.sigma
        return self._perturbation(result.number)

    def _learn(self, result: Result) -> None:
        self._pool.append(result)
        if result.informative:
            self._cohorts[result.version].losses.append(result.loss)
        if len(self._pool) == self.options.population:
            self._update()

    def _update(self) -> None:
        """Move the centre by what has finished, and forget the cohorts that nobody will refer to again."""
        informative = [result for result in self._pool if result.informative]
        self._pool = []
        if informative:  # otherwise everything failed, and the centre has no reason to move
            epsilon = stack([self._epsilon(result) for result in informative], self.space.size)
            g = gradient(informative, epsilon, self._cohorts, self._centre, self.options.sigma)
            g = g + np.where(self._unbounded, self.options.weight_decay * self._centre, 0.0)
            self._centre = self.space.clip(self._centre + self._rule.step(g))
            self._updates += 1
            self._cohorts[self._updates] = Cohort(self._centre)
        needed = {version for version, _ in self._pending.values()} | {self._updates}
        self._cohorts = {version: cohort for version, cohort in self._cohorts.items() if version in needed}

    def recommend(self) -> Vector:
        """(n,) the centre."""
        return self._centre.copy()

    def _memory(self) -> State:
        cohorts = self._cohorts
        return {
            "centre": self._centre,
            "rule": self._rule.dump(),
            "pool": dump_results(self._pool, self.space.size),
            "cohorts": {
                "version": np.array(list(cohorts), dtype=np.int64),
                "centre": stack([cohort.centre for cohort in cohorts.values()], self.space.size),
                "losses": [np.array(cohort.losses, dtype=np.float64) for cohort in cohorts.values()],
            },
        }

    def _recall(self, memory: State) -> None:
        self._centre = memory["centre"]
        self._rule.load(memory["rule"])
        self._pool = load_results(memory["pool"])
        rows = memory["cohorts"]
        self._cohorts = {
            int(version): Cohort(centre, [float(loss) for loss in losses])
            for version, centre, losses in zip(rows["version"], rows["centre"], rows["losses"], strict=True)
        }
