"""CatCMA with margin, for spaces that mix reals, integers and choices: Hamano, Saito, Nomura, Uchida and
Shirakawa, "CatCMA with margin: stochastic optimization for continuous, integer, and categorical variables"
(GECCO 2025, arXiv 2504.07884). Reals and integers share one Gaussian, with a margin for the integers; choices
have a probability for each option, which never falls below a margin of its own.

A genotype is the Gaussian's point, reals first and then integers, followed by one number for every option of
every choice: 1 for the one drawn. What else it shares with its sisters is in
:mod:`blackopt.optimizers.cmaes_search`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from blackopt.blocks import ChoiceBlock, IntBlock
from blackopt.optimizers.base import Result
from blackopt.optimizers.cmaes_search import CmaesOptions, CmaesSearch, library, versions
from blackopt.optimizers.shaping import finite
from blackopt.protocols import OptimizerOptions
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space

_MANY = 1000  # integers from which on a step is as good as real: the library lists all of them


class CatCMAOptions(CmaesOptions):
    """Options of ``cat-cma``: those of :class:`~blackopt.optimizers.cmaes_search.CmaesOptions`."""


class CatCMA(CmaesSearch):
    """``use: cat-cma``. An integer with more than 1,000 values is searched as a real one."""

    Options: ClassVar[type[OptimizerOptions]] = CatCMAOptions
    version: ClassVar[str] = f"cat-cma/2 {versions()}"
    stream: ClassVar[str] = "cat-cma"
    least: ClassVar[int] = 1
    memory: ClassVar[tuple[str, ...]] = (
        "_mean", "_sigma", "_C", "_B", "_D", "_p_sigma", "_pc", "_A", "_iqhist_values", "_pmut", "_int_succ",
        "_g", "_q", "_s", "_gamma", "_Delta", "_delta", "_eps",
    )  # fmt: skip

    def __init__(self, space: Space, start: Vector, options: OptimizerOptions) -> None:
        integers = [
            block for block in space.blocks if isinstance(block, IntBlock) and block.hi - block.lo < _MANY
        ]
        self._choices = [block for block in space.blocks if isinstance(block, ChoiceBlock)]
        self._at_choices = [space.slices[block.name] for block in self._choices]
        special = {block.name for block in (*integers, *self._choices)}
        reals = [list(range(space.size))[space.slices[b.name]] for b in space.blocks if b.name not in special]
        self._at_reals = np.array([i for block in reals for i in block], dtype=np.int64)
        self._at_integers = np.array([space.slices[block.name].start for block in integers], dtype=np.int64)
        # the coordinates that stand for each integer, in order
        self._steps = [
            [float(block.encode(k)[0]) for k in range(block.lo, block.hi + 1)] for block in integers
        ]
        self._widest = max((block.size for block in self._choices), default=0)
        self._d = self._at_reals.size + self._at_integers.size
        super().__init__(space, start, options)

    def _fresh(self, start: Vector) -> Any:
        bounds = np.stack([self.space.lower, self.space.upper], axis=1)[self._at_reals]
        gaussian: dict[str, Any] = {}
        if self._d:
            mean = start[np.concatenate([self._at_reals, self._at_integers])]
            gaussian = {"mean": mean, "sigma": self.options.sigma, "cov": np.eye(self._d)}
        return library().CatCMAwM(
            x_space=bounds.tolist() or None,
            z_space=self._steps or None,
            c_space=[block.size for block in self._choices] or None,
            population_size=self.options.population,
            **gaussian,
        )

    def _sample(self) -> tuple[Vector, Vector]:
        drawn = self._strategy.ask()
        x = self.space.start()
        genotype = [np.zeros(0) if drawn._v_raw is None else drawn._v_raw]  # noqa: SLF001
        if drawn.x is not None:
            x[self._at_reals] = drawn.x
        if drawn.z is not None:
            x[self._at_integers] = drawn.z
        if drawn.c is not None:
            genotype.append(drawn.c.astype(np.float64).reshape(-1))
            for at, block, row in zip(self._at_choices, self._choices, drawn.c, strict=True):
                x[at] = block.encode(block.options[int(np.argmax(row))])
        return x, np.concatenate(genotype)

    def _genotype(self, vector: Vector) -> Vector:
        chosen = np.zeros((len(self._choices), self._widest))
        for row, at in enumerate(self._at_choices):
            chosen[row, int(np.argmax(vector[at]))] = 1.0
        return np.concatenate([vector[self._at_reals], vector[self._at_integers], chosen.reshape(-1)])

    def _solutions(self, pool: list[Result]) -> list[Any]:
        solutions = []
        for result in pool:
            chosen = result.vector[self._d :].reshape(len(self._choices), self._widest) > 0.5
            raw = result.vector[: self._d].copy()  # the library moves integers to their middles in place
            solutions.append(
                library().CatCMAwM.Solution(
                    c=chosen if self._choices else None, _v_raw=raw if self._d else None
                )
            )
        return solutions

    def _values(self, losses: Vector) -> Vector:
        """(k,) the losses: what lies outside the bounds is charged in units of their interquartile range."""
        losses = finite(losses)
        quarters = np.sort(losses)[[self.population // 4, 3 * self.population // 4]]
        if self._at_reals.size and quarters[0] == quarters[1] and not self._strategy._iqhist_values:  # noqa: SLF001
            self._strategy._iqhist_values = [float(np.ptp(losses))]  # noqa: SLF001  (else there is no unit yet)
        return losses

    def _gaussian(self) -> tuple[Vector, NDArray[np.float64]] | None:
        if not self._d:
            return None
        es = self._strategy
        axes, lengths = es._eigen_decomposition()  # noqa: SLF001
        return es._mean, es._sigma * es._A[:, None] * axes * lengths  # noqa: SLF001

    def _centre(self) -> Vector:
        """Of a choice, the most probable option, and the start's where none is more probable."""
        x = self._start.copy()
        if self._d:
            x[np.concatenate([self._at_reals, self._at_integers])] = self._strategy._mean  # noqa: SLF001
        for row, (at, block) in enumerate(zip(self._at_choices, self._choices, strict=True)):
            q = self._strategy._q[row, : block.size]  # noqa: SLF001
            if q[int(np.argmax(self._start[at]))] < q.max():
                x[at] = block.encode(block.options[int(np.argmax(q))])
        return x
