"""OpenAI-ES: Salimans, Ho, Chen, Sidor and Sutskever, "Evolution strategies as a scalable alternative to
reinforcement learning" (2017, arXiv 1703.03864), with antithetic twins, centred ranks and a choice of step
rule, for results that come late, out of order, or never.

Notation: m the centre, sigma the search radius, eps ~ N(0, I), x = m + s sigma eps with s = +1 and -1 for
twins.

When an update is due, and how a result from an older centre takes part in it, is in
:mod:`blackopt.optimizers.gaussian`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from blackopt.optimizers.base import Result
from blackopt.optimizers.gaussian import GaussianSearch, TwinOptions
from blackopt.optimizers.shaping import centred_ranks
from blackopt.optimizers.steps import SGD, Adam, ClipUp, Momentum, StepRule
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space


class OpenAIESOptions(TwinOptions):
    """Options of ``openai-es``.

    Attributes:
        sigma: standard deviation of the perturbations, in the space's coordinates (bounded ones are scaled to
            [0, 1]).
        step: the step rule.
        learning_rate: of the step rule; None takes the default of :func:`step_rule`, in proportion to sigma.
        max_speed: ``clipup`` only: the longest step; None takes twice the learning rate.
        momentum: ``clipup`` and ``momentum``: share of the old velocity.
        weight_decay: added to the gradient as ``weight_decay * m`` in unbounded coordinates; bounded ones
            have no origin.
    """

    sigma: float = Field(default=0.15, gt=0, allow_inf_nan=False)
    step: Literal["sgd", "momentum", "adam", "clipup"] = "sgd"
    learning_rate: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_speed: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)


def step_rule(options: OpenAIESOptions, n: int, dtype: type[Any] = np.float64) -> StepRule:
    """The step rule that the options name, for n parameters, its default speeds measured in sigma.

    A perturbation is sigma sqrt(n) long. ClipUp's longest step is a tenth of that, so late results stay
    useful for several updates. The others' steps are of the same order: campaigns have hundreds of
    evaluations, and not millions, to arrive with.
    """
    radius = options.sigma * math.sqrt(n)
    rate = options.learning_rate
    if options.step == "clipup":
        rate = rate or 0.05 * radius
        return ClipUp(n, rate, options.max_speed or 2 * rate, options.momentum, dtype=dtype)
    if options.step == "adam":
        return Adam(n, rate or 0.2 * options.sigma, dtype=dtype)
    # Along a slope, ranks make the gradient 1 / (2 sqrt(pi) sigma) long, whatever the loss: this rate makes
    # the step 0.56 sigma.
    rate = rate or 2 * options.sigma**2
    return SGD(rate) if options.step == "sgd" else Momentum(n, rate, options.momentum, dtype)


class OpenAIES(GaussianSearch):
    """``use: openai-es``."""

    Options: ClassVar[type[OptimizerOptions]] = OpenAIESOptions
    version: ClassVar[str] = "openai-es/6"
    twins: ClassVar[bool] = True
    group = 2

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, OpenAIESOptions)
        self.options = options
        self._begin(options.population, np.array([options.sigma]))
        self._rule = step_rule(options, space.size, self._dtype)

    def _step(self, results: list[Result]) -> tuple[Vector, NDArray[Any]]:
        """Estimate the gradient at m of the ranked loss, smoothed with N(0, sigma^2 I), and descend.

        Salimans et al. 2017, section 2, with scores u for losses:  g = 1 / (k sigma)  sum_i  u_i eps_i
        """
        now = self._now
        w, epsilon = self._weigh(results, centred_ranks)
        w /= self.options.sigma
        if isinstance(self._rule, SGD) and self.options.weight_decay == 0:
            return epsilon.added(-self._rule.rate * w, now.centre), now.scale  # its step is g times a number
        g = epsilon.sum(w)
        if self.options.weight_decay > 0:
            unbounded = ~np.isfinite(self.space.lower) & ~np.isfinite(self.space.upper)
            g += np.where(unbounded, self.options.weight_decay * now.centre, 0.0)
        centre = self._rule.step(g)
        centre += now.centre
        return centre, now.scale

    def _memory(self) -> State:
        return {**super()._memory(), "rule": self._rule.dump()}

    def _recall(self, memory: State) -> None:
        super()._recall(memory)
        self._rule.load(memory["rule"])
