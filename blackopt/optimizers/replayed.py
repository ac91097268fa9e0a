"""Optimizers of other libraries, behind the contract of this one.

Their state cannot be taken apart, so what is dumped is the log: every ask and every result, in their order.
Loading builds the library's object anew and plays the log back to it, which takes as long as it took at
first, and the log grows by one line for every candidate.

Other libraries draw chance from generators of their own, some of them from the process's. Around every call
the process's generators are set to keyed numbers, and put back afterwards: a replay sees the same, and nobody
else sees any.

An infeasible candidate is told as the worst loss so far plus the range of all so far, because that is what
every library understands; before the first loss, it waits for one. Failures are not told.

The recommendation is the centre of the best neighbourhood (:mod:`blackopt.optimizers.filling`): most
libraries would give their best sample, which under noise is the luckiest.
"""

from __future__ import annotations

import random
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from blackopt import noise
from blackopt.optimizers.base import BaseOptimizer, Result, dump_results, load_results
from blackopt.optimizers.filling import best_neighbourhood
from blackopt.protocols import OptimizerOptions
from blackopt.types import State, Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_REMEMBER = 1000  # results that the recommendation is made from


class ReplayedOptions(OptimizerOptions):
    """What every adapter understands.

    Attributes:
        sigma: of unbounded coordinates, how far from the start to look.
    """

    sigma: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class ReplayedSearch(BaseOptimizer):
    """The log, and its replay. Its version is 0: what a library calls a generation is its own affair.

    A subclass implements :meth:`_build`, :meth:`_ask_library`, :meth:`_tell_library` and
    :meth:`_fail_library`.
    """

    Options: ClassVar[type[OptimizerOptions]] = ReplayedOptions

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        super().__init__(space, start, options)
        assert isinstance(options, ReplayedOptions)
        self.options = options
        self._log: list[int] = []  # -1 for an ask, else the position in ``_results`` of what was told
        self._results: list[Result] = []  # failures included
        self._waiting: list[Result] = []  # infeasible, before the first loss
        self._least, self._most = np.inf, -np.inf  # losses so far
        with self._keyed():
            self._build()

    @abstractmethod
    def _build(self) -> None:
        """Make the library's object."""

    @abstractmethod
    def _ask_library(self, number: int) -> Vector:
        """(n,) coordinates of its next candidate."""

    @abstractmethod
    def _tell_library(self, result: Result) -> None:
        """Tell it a finite loss, of a candidate of its own or (``moved``) of another vector."""

    @abstractmethod
    def _fail_library(self, number: int) -> None:
        """Tell it, if it can be told, that a candidate has failed."""

    @contextmanager
    def _keyed(self) -> Iterator[None]:
        """The process's generators at numbers of this seed and this place of the log; warnings are the
        library's own, and say nothing to who reads a campaign."""
        mine = int(noise.integers(self._seed, "replayed", len(self._log), 1, 1 << 32)[0])
        legacy, plain = np.random.get_state(legacy=False), random.getstate()  # noqa: NPY002
        np.random.seed(mine)  # noqa: NPY002
        random.seed(mine)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            np.random.set_state(legacy)  # noqa: NPY002
            random.setstate(plain)

    def _draw(self, number: int) -> Vector:
        with self._keyed():
            vector = self._ask_library(number)
        self._log.append(-1)
        return vector

    def _learn(self, result: Result) -> None:
        with self._keyed():
            self._pass_on(result)
        self._log.append(len(self._results))
        self._results.append(result)

    def _pass_on(self, result: Result) -> None:
        if not result.informative:
            self._fail_library(result.number)
        elif np.isfinite(result.loss):
            self._least, self._most = min(self._least, result.loss), max(self._most, result.loss)
            self._tell_library(result)
            while self._waiting:
                self._charge(self._waiting.pop(0))
        elif np.isfinite(self._most):
            self._charge(result)
        else:
            self._waiting.append(result)

    def _charge(self, result: Result) -> None:
        """Tell an infeasible one as worse than all so far."""
        self._tell_library(replace(result, loss=self._most + ((self._most - self._least) or 1.0)))

    def recommend(self) -> Vector:
        """(n,) centre of the best neighbourhood of the latest 1,000 results."""
        told = [result for result in self._results if result.informative][-_REMEMBER:]
        return best_neighbourhood(told, self._start, self.space)

    def _memory(self) -> State:
        return {
            "log": np.array(self._log, dtype=np.int64),
            "results": dump_results(self._results, self.space.size),
        }

    def _recall(self, memory: State) -> None:
        results, asked = load_results(memory["results"]), 0
        for place in memory["log"].tolist():
            if place < 0:
                self._draw(asked)
                asked += 1
            else:
                self._learn(results[place])
