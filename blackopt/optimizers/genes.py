"""What a genetic algorithm takes for one gene, and how each kind of gene mutates.

A real coordinate is a gene, and moves by a Gaussian step. An integer is one, and moves by a Gaussian step to
another integer: to the next one where the step is too short. A choice is one gene with as many coordinates as
it has options, and takes any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from blackopt.blocks import ChoiceBlock, IntBlock
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.space import Space


class Genes:
    """The genes of a space.

    Attributes:
        count: how many.
        of: (n,) the first coordinate of the gene that each coordinate belongs to.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._integers = [
            (block, space.slices[block.name].start) for block in space.blocks if isinstance(block, IntBlock)
        ]
        self._choices = [
            (block, space.slices[block.name]) for block in space.blocks if isinstance(block, ChoiceBlock)
        ]
        self.of: NDArray[np.intp] = np.arange(space.size)
        for _, at in self._choices:
            self.of[at] = at.start
        self.count = int(np.unique(self.of).size)

    def mutated(self, vector: Vector, hit: NDArray[np.bool_], steps: Vector, u: Vector) -> Vector:
        """A mutant of (n,) coordinates, not clipped.

        Args:
            vector: the parent.
            hit: (n,) whether the gene that begins at a coordinate mutates.
            steps: (n,) Gaussian steps of real coordinates and integers.
            u: (n,) uniform in (0, 1): which option a choice takes.
        """
        child = np.where(hit[self.of] & ~self._space.discrete, vector + steps, vector)
        for integer, i in self._integers:
            if hit[i]:
                child[i] = _moved(integer, float(vector[i]), float(steps[i]))
        for choice, at in self._choices:
            if hit[at.start]:
                child[at] = choice.encode(choice.options[int(u[at.start] * choice.size)])
        return child


def _moved(block: IntBlock, coordinate: float, step: float) -> float:
    """The coordinate of another integer, about a step away; at a bound, back inside."""
    before = block.decode(np.array([coordinate]))
    after = block.decode(np.array([min(max(coordinate + step, 0.0), 1.0)]))
    if after == before:
        after += 1 if (step > 0 and before < block.hi) or before == block.lo else -1
    return float(block.encode(after)[0])
