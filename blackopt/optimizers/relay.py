"""A surrogate first, and then CMA-ES where it stands: for metrics without noise.

From few results the regression of :mod:`blackopt.optimizers.surrogate` finds the valley, its width and its
axes, which CMA-ES learns from hundreds. From there on the quadratic is in the way: it is wrong about what is
left, and each fit costs more. CMA-ES goes on to any precision, and begins again elsewhere when it is done.

It begins at the best candidate so far, and its first distribution has the surrogate's spread: a covariance
learnt from another search's results, as in Nomura, Watanabe, Akimoto, Ozaki and Onishi, "Warm starting CMA-ES
for hyperparameter optimization" (AAAI 2021). The best candidate is the luckiest one where there is noise:
then the surrogate is better left alone.

No result is lost when the one hands over to the other. What the surrogate has in flight comes back as a
foreign solution, which CMA-ES ranks with its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from blackopt.optimizers.base import BaseOptimizer, Result
from blackopt.optimizers.cma_es import CMAES, CMAESOptions
from blackopt.optimizers.cma_restarts import Restarts
from blackopt.optimizers.surrogate import Surrogate, SurrogateOptions
from blackopt.protocols import OptimizerOptions
from blackopt.types import Belief, State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_EACH, _UP_TO, _AT_LEAST = 20, 400, 10  # results of the surrogate: for each coordinate, in all, for each


class RelayOptions(OptimizerOptions):
    """Options of ``relay``.

    Attributes:
        sigma: initial standard deviation of both, in the space's coordinates (bounded ones are scaled to
            [0, 1]).
        first: results that the surrogate has; None takes 20 for each coordinate, up to 400 in all or 10 for
            each, whichever is more.
        population: of CMA-ES.
        restarts: of CMA-ES.
    """

    sigma: float = Field(default=0.2, gt=0, allow_inf_nan=False)
    first: int | None = Field(default=None, ge=1)
    population: int | None = Field(default=None, ge=4)
    restarts: Restarts = "bipop"


class Relay(BaseOptimizer):
    """``use: relay``. Its version counts the updates of both."""

    Options: ClassVar[type[OptimizerOptions]] = RelayOptions
    version: ClassVar[str] = f"relay/1 ({Surrogate.version}, {CMAES.version})"
    group = Surrogate.group

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, RelayOptions)
        n = space.size
        self._first = options.first or max(_AT_LEAST * n, min(_EACH * n, _UP_TO))
        self._surrogate_options = SurrogateOptions(
            sigma=options.sigma, seed=options.seed, remember=max(self._first, 50)
        )
        self._cma_options = CMAESOptions(
            sigma=options.sigma, seed=options.seed, population=options.population, restarts=options.restarts
        )
        self._runner: Surrogate | CMAES = Surrogate(space, self._start, self._surrogate_options)
        self._numbers: dict[int, int] = {}  # of candidates in flight: the runner's, by ours
        self._informed = 0  # results of the surrogate with a loss
        self._best, self._least = self._start, math.inf  # candidate, and its loss
        self._before = 0  # updates made by the surrogate

    def _draw(self, number: int) -> Vector:
        [candidate] = self._runner.ask(1)
        self._numbers[number] = candidate.number
        self._updates = self._before + candidate.version
        return candidate.vector

    def _learn(self, result: Result) -> None:
        theirs, vector = self._numbers.pop(result.number, None), result.vector if result.moved else None
        if theirs is None:
            if not result.informative:
                return
            [place] = self._runner.ask(1)  # what is tried in its stead is a foreign solution
            theirs, vector = place.number, result.vector
        self._runner.tell([result.evaluation(theirs, vector)])
        if isinstance(self._runner, Surrogate) and result.informative:
            self._informed += 1
            if result.loss < self._least:
                self._best, self._least = result.vector, result.loss
            if self._informed == self._first:
                self._hand_over(self._runner)

    def _hand_over(self, surrogate: Surrogate) -> None:
        """CMA-ES goes on; it knows nothing of what is in flight."""
        self._runner = CMAES(self.space, self._best, self._cma_options)
        self._runner.reshape(surrogate.spread)
        self._before = self._updates + 1
        self._numbers.clear()

    def recommend(self) -> Vector:
        """(n,) what the one at work recommends."""
        return self._runner.recommend()

    def belief(self) -> Belief | None:
        """The surrogate's, as long as it is at work."""
        return self._runner.belief() if isinstance(self._runner, Surrogate) else None

    def _memory(self) -> State:
        return {
            "runner": self._runner.dump(),
            "numbers": np.array([*self._numbers.items()], dtype=np.int64).reshape(-1, 2),
            "informed": self._informed,
            "best": self._best,
            "least": self._least,
            "before": self._before,
        }

    def _recall(self, memory: State) -> None:
        self._informed, self._before = memory["informed"], memory["before"]
        self._best, self._least = memory["best"], memory["least"]
        self._numbers = dict(memory["numbers"].tolist())
        if self._informed < self._first:
            self._runner = Surrogate.load(self.space, self._surrogate_options, memory["runner"])
        else:
            self._runner = CMAES.load(self.space, self._cma_options, memory["runner"])
