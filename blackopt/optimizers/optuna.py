"""Any sampler of the library Optuna, by its name in ``optuna.samplers``.

A study in memory stands behind it: one float, integer or categorical parameter for each block, one float for
each share and weight. Its first trial is the start. How its log is kept is in
:mod:`blackopt.optimizers.replayed`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata, util
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from blackopt import noise
from blackopt.blocks import Block, ChoiceBlock, IntBlock
from blackopt.errors import ConfigurationError
from blackopt.optimizers.base import Result
from blackopt.optimizers.replayed import ReplayedOptions, ReplayedSearch
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

_NEEDS = {"CmaEsSampler": ("cmaes",), "GPSampler": ("scipy", "torch"), "QMCSampler": ("scipy",)}
"""Modules that Optuna imports for a sampler only when it draws."""

_REACH = 5.0  # Optuna searches within bounds: so many sigma about the start where there are none


@cache
def library() -> Any:
    """The ``optuna`` package, imported on first use."""
    import optuna

    return optuna


class OptunaOptions(ReplayedOptions):
    """Options of ``optuna``.

    Attributes:
        sampler: in ``optuna.samplers``: ``TPESampler``, ``CmaEsSampler``, ``GPSampler``, ...
        settings: keyword arguments of the sampler, but for its seed.
    """

    sampler: str = "TPESampler"
    settings: dict[str, Any] = Field(default_factory=dict)


class Optuna(ReplayedSearch):
    """``use: optuna``. Unbounded coordinates are searched within 5 ``sigma`` of the start. Standard errors
    and weights are used by the recommendation alone."""

    Options: ClassVar[type[OptimizerOptions]] = OptunaOptions
    version: ClassVar[str] = f"optuna/1 optuna/{metadata.version('optuna')}"

    def _build(self) -> None:
        assert isinstance(self.options, OptunaOptions)
        self._trials: dict[int, int] = {}  # number of the trial, by candidate in flight
        samplers, name, settings = library().samplers, self.options.sampler, dict(self.options.settings)
        if not name.endswith("Sampler") or name == "BaseSampler" or name not in samplers.__all__:
            known = [known for known in samplers.__all__ if known.endswith("Sampler")]
            raise ConfigurationError(
                f"Optuna has no sampler called `{name}`",
                where="optimizer.sampler",
                next_step=f"one of {', '.join(sorted(set(known) - {'BaseSampler', 'BaseGASampler'}))}",
            )
        if absent := [module for module in _NEEDS.get(name, ()) if util.find_spec(module) is None]:
            raise ConfigurationError(
                f"Optuna's {name} needs {' and '.join(absent)}, which cannot be imported",
                where="optimizer.sampler",
                next_step=f"pip install {' '.join(absent)}",
            )
        cls = getattr(samplers, name)
        if "seed" in inspect.signature(cls.__init__).parameters:
            settings["seed"] = int(noise.integers(self._seed, "optuna", 0, 1, 1 << 32)[0])
        self._distributions = {
            name: distribution
            for block in self.space.blocks
            for name, distribution in self._distributions_of(block).items()
        }
        with _quiet():
            try:
                sampler = cls(**settings)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"Optuna's {name} cannot be made with these settings",
                    where="optimizer.settings",
                    why=str(error),
                    next_step="correct `optimizer.settings`",
                ) from error
            self._study = library().create_study(sampler=sampler)
            self._study.enqueue_trial(self._parameters(self._start))

    def _distributions_of(self, block: Block) -> dict[str, Any]:
        """Optuna's distributions of a block, by parameter."""
        d, at = library().distributions, self._start[self.space.slices[block.name]]
        if isinstance(block, ChoiceBlock):
            return {block.name: d.CategoricalDistribution(list(range(block.size)))}
        if isinstance(block, IntBlock):
            return {block.name: d.IntDistribution(block.lo, block.hi, log=block.log)}
        reach = _REACH * self.options.sigma
        return {
            name: d.FloatDistribution(max(block.lower, c - reach), min(block.upper, c + reach))
            if np.isinf(block.lower)
            else d.FloatDistribution(block.lower, block.upper)
            for name, c in zip(block.coordinates, at.tolist(), strict=True)
        }

    def _parameters(self, vector: Vector) -> dict[str, Any]:
        """What Optuna calls (n,) coordinates, inside its bounds."""
        parameters: dict[str, Any] = {}
        for block in self.space.blocks:
            at = vector[self.space.slices[block.name]]
            if isinstance(block, ChoiceBlock):
                parameters[block.name] = int(np.argmax(at))
            elif isinstance(block, IntBlock):
                parameters[block.name] = block.decode(at)
            else:
                for name, c in zip(block.coordinates, at.tolist(), strict=True):
                    bounds = self._distributions[name]
                    parameters[name] = min(max(c, bounds.low), bounds.high)
        return parameters

    def _ask_library(self, number: int) -> Vector:
        with _quiet():
            try:
                trial = self._study.ask(self._distributions)
            except ValueError as error:
                raise ConfigurationError(
                    f"Optuna's {type(self._study.sampler).__name__} draws nothing in this space",
                    where="optimizer.sampler",
                    why=str(error),
                    safe="everything told so far is in the log",
                    next_step="use another sampler",
                ) from error
        self._trials[number] = trial.number
        parts = []
        for block in self.space.blocks:
            if isinstance(block, ChoiceBlock):
                parts.append(block.encode(block.options[trial.params[block.name]]))
            elif isinstance(block, IntBlock):
                parts.append(block.encode(trial.params[block.name]))
            else:
                parts.append(np.array([trial.params[name] for name in block.coordinates]))
        return np.concatenate(parts)

    def _tell_library(self, result: Result) -> None:
        with _quiet():
            if not result.moved:
                self._study.tell(self._trials.pop(result.number), result.loss)
                return
            self._fail_library(result.number)
            trial = library().trial.create_trial(
                params=self._parameters(self.space.clip(result.vector)),
                distributions=self._distributions,
                value=result.loss,
            )
            self._study.add_trial(trial)

    def _fail_library(self, number: int) -> None:
        with _quiet():
            self._study.tell(self._trials.pop(number), state=library().trial.TrialState.FAIL)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna logs what concerns who writes objective functions; its verbosity is put back afterwards."""
    logging = library().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
