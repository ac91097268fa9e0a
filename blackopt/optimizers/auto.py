"""Picks the optimizer for a problem of this size, these kinds of parameters, this budget and this much noise,
and says why.

The choice follows from the options and the space by :data:`RULES`, the first of which that fits decides; so a
campaign that goes on makes the same choice again. Only optimizers that blackopt itself installs are chosen:
what else is installed must not change what a campaign does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np
from pydantic import Field

from blackopt import plugins
from blackopt.blocks import ChoiceBlock, IntBlock
from blackopt.errors import UsageError
from blackopt.protocols import Believing, Optimizer, OptimizerOptions
from blackopt.types import Belief, Candidate, Evaluation, State, Vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackopt.space import Space

Noise = Literal["none", "some", "strong"]

_BREEDERS = 8  # a population of fewer is no choice of parents


class AutoOptions(OptimizerOptions):
    """Options of ``auto``.

    Attributes:
        trials: evaluations there will be; a campaign's budget where it is not given.
        parallel: candidates in flight; a campaign's where it is not given.
        noise: of one result. ``none``: the same candidate always gets the same value. ``some``: one result
            may well tell the start from the optimum. ``strong``: it takes several.
        sigma: of the optimizer that is chosen, and its default where it is not given.
    """

    trials: int | None = Field(default=None, ge=1)
    parallel: int | None = Field(default=None, ge=1)
    noise: Noise = "some"
    sigma: float | None = Field(default=None, gt=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Task:
    """What the rules look at.

    Attributes:
        n: coordinates.
        choices, integers: blocks of that kind.
        bounded: whether all coordinates are.
        trials: evaluations in all.
        parallel: candidates in flight.
        noise: of one result.
    """

    n: int
    choices: int
    integers: int
    bounded: bool
    trials: int
    parallel: int
    noise: Noise

    @classmethod
    def of(cls, space: Space, options: AutoOptions) -> Task:
        """The task that a space and options make.

        Raises:
            UsageError: the options do not say how many trials there will be, or how many in flight.
        """
        for name, value in (("trials", options.trials), ("parallel", options.parallel)):
            if value is None:
                raise UsageError(
                    f"auto: `{name}` is needed to choose by, got none; a campaign says it by its budget"
                )
        return cls(
            n=space.size,
            choices=sum(isinstance(block, ChoiceBlock) for block in space.blocks),
            integers=sum(isinstance(block, IntBlock) for block in space.blocks),
            bounded=bool(np.isfinite(space.lower).all() and np.isfinite(space.upper).all()),
            trials=options.trials or 1,
            parallel=options.parallel or 1,
            noise=options.noise,
        )

    def __str__(self) -> str:
        kinds = [_count(k, what) for k, what in ((self.choices, "choice"), (self.integers, "integer")) if k]
        kinds += [] if self.bounded else ["some without bounds"]
        among = f" ({', '.join(kinds)})" if kinds else ""
        return (
            f"{_count(self.n, 'coordinate')}{among}, {_count(self.trials, 'trial')}, "
            f"{self.parallel} in flight, {'no' if self.noise == 'none' else self.noise} noise"
        )

    @property
    def population(self) -> int:
        """Results for an update: about as many as there will be updates, twice that under strong noise; no
        fewer than are in flight as long as that leaves ten updates; even."""
        wanted = math.sqrt(self.trials) * (2 if self.noise == "strong" else 1)
        return max(4, round(max(wanted, min(self.parallel, self.trials / 10)) / 2) * 2)


def _count(k: int, what: str) -> str:
    return f"{k} {what}" if k == 1 else f"{k} {what}s"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the table.

    Attributes:
        use: the optimizer.
        when: whether it is the one for a task.
        because: why.
        options: of the optimizer, beside ``seed`` and ``sigma``.
        measured: what in this repository prints the figures behind it; without, the rule is provisional.
    """

    use: str
    when: Callable[[Task], bool]
    because: str
    options: Callable[[Task], Mapping[str, Any]] = lambda _: {}
    measured: str = ""


RULES: tuple[Rule, ...] = (
    Rule(
        "ga",
        lambda t: t.choices > 0,
        "choices have no slope to follow, and breeding needs none",
        lambda t: {"population": max(_BREEDERS, t.population)},
    ),
    Rule(
        "relay",
        lambda t: t.noise == "none" and t.n <= 100 and t.integers == 0,
        "without noise, a regression over the first results finds the valley, and CMA-ES goes on from there",
        measured="benchmarks/bbob.py",
    ),
    Rule(
        "surrogate",
        lambda t: t.n <= 100 and t.trials <= 2000 and t.n * t.trials <= 100_000,
        "one regression over all results makes the most of few, late and noisy ones; for up to 100 "
        "coordinates, up to 2,000 trials, and at most 100,000 as the product of both",
        measured="benchmarks/noise.py",
    ),
    Rule(
        "ga",
        lambda t: 2 * t.integers > t.n,
        "most parameters are integers: between two of them there is no slope to follow",
        lambda t: {"population": max(_BREEDERS, t.population)},
    ),
    Rule(
        "cma-es",
        lambda t: t.noise == "none" and t.n <= 100,
        "without noise, it learns how the parameters depend on one another, and begins again once done",
        lambda _: {"restarts": "bipop"},
    ),
    Rule(
        "cma-es",
        lambda t: t.noise == "none" and t.n <= 10_000,
        "without noise, it learns how sensitive each parameter is; there are too many to learn how they "
        "depend on one another (Ros and Hansen, PPSN 2008)",
        lambda _: {"covariance": "diagonal"},
        measured="benchmarks/auto.py",
    ),
    Rule(
        "openai-es",
        lambda _: True,
        "a gradient averaged over twins needs no covariance, which noise or size puts out of reach",
        lambda t: {"population": t.population},
        measured="benchmarks/auto.py",
    ),
)


def chosen(task: Task) -> Rule:
    """The first rule that fits; the last fits everything."""
    return next(rule for rule in RULES if rule.when(task))


class Auto:
    """``use: auto``: the optimizer that :data:`RULES` choose, and nothing beside it.

    Args:
        space: whose coordinates the vectors are in.
        start: (n,) the incumbent, inside the bounds.
        options: :class:`AutoOptions`.

    Attributes:
        rule: that decided.
        reason: the choice, and why.

    Raises:
        UsageError: ``trials`` or ``parallel`` is missing, or as for every optimizer.
    """

    Options: ClassVar[type[OptimizerOptions]] = AutoOptions
    version: ClassVar[str] = "auto/1"

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        self._begin(space, options)
        self._adopt(self._cls(space, start, self._own))

    def _begin(self, space: Space, options: OptimizerOptions) -> None:
        """Choose."""
        if not isinstance(options, AutoOptions):
            raise UsageError(f"Auto: options must be AutoOptions, got {type(options).__name__}")
        self.space, self._options = space, options
        task = Task.of(space, options)
        self.rule = chosen(task)
        self._cls = cast("type[Optimizer]", plugins.find("optimizers", self.rule.use))
        given = {} if options.sigma is None else {"sigma": options.sigma}
        self._own = self._cls.Options(seed=options.seed, **given, **self.rule.options(task))
        support = f"measured: {self.rule.measured}" if self.rule.measured else "provisional"
        self.reason = f"{self.rule.use}, for {task}: {self.rule.because} ({support})"

    def _adopt(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.group = optimizer.group
        # an instance's version says more than its class's: another choice is another fold
        self.version = f"{type(self).version} {self.rule.use} {optimizer.version}"  # type: ignore[misc]

    def ask(self, n: int) -> list[Candidate]:
        """See :class:`blackopt.protocols.Optimizer`, as for all that follows."""
        return self._optimizer.ask(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Learn."""
        self._optimizer.tell(evaluations)

    def recommend(self) -> Vector:
        """(n,) the centre."""
        return self._optimizer.recommend()

    def belief(self) -> Belief | None:
        """That of what was chosen, where it has one."""
        return self._optimizer.belief() if isinstance(self._optimizer, Believing) else None

    def dump(self) -> State:
        """The state of what was chosen, and which that was."""
        return {
            "version": self.version,
            "options": self._options.model_dump(mode="json"),
            "optimizer": self._optimizer.dump(),
        }

    @classmethod
    def load(cls, space: Space, options: OptimizerOptions, state: State) -> Self:
        """Rebuild from :meth:`dump`.

        Raises:
            UsageError: the state is of another version, of another choice, or of other options.
        """
        if state["options"] != options.model_dump(mode="json"):
            raise UsageError(f"Auto.load: state was made with options {state['options']}, got {options}")
        self = cls.__new__(cls)
        self._begin(space, options)
        self._adopt(self._cls.load(space, self._own, state["optimizer"]))
        if state["version"] != self.version:
            raise UsageError(f"Auto.load: state has version {state['version']!r}, this is {self.version!r}")
        return self
