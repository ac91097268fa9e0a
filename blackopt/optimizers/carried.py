"""Late results in searches that recombine points: carried along with the centre, half of the way.

Such a search moves its mean to a weighted mean of the best points. A late point x = m0 + d was drawn around
the old mean m0 and was good or bad there; meanwhile the mean has gone to m. Two readings of it are at hand:

  * the point itself, x: exactly what was measured. The more of them are late, the more they hold the mean
    where it was, and a step size that looks for steps in one direction (CSA) shrinks for no reason;
  * its step, m + d, as EvoKit does: what was good there is good here. Late steps repeat what the mean has
    done already, and it overshoots.

Half of the way, x + (m - m0) / 2, both errors are of one size and of opposite signs. ``benchmarks/delay.py``
measures what it is worth.
"""

from __future__ import annotations

import numpy as np

from blackopt.optimizers.base import stack
from blackopt.types import State, Vector

SHARE = 0.5
"""Of the way that the centre has gone since a late point was drawn."""


class Origins:
    """The (n,) centres that candidates in flight, or waiting for an update, were drawn around."""

    def __init__(self) -> None:
        self._centres: dict[int, Vector] = {}  # by number

    def keep(self, number: int, centre: Vector) -> None:
        """This candidate is drawn around this centre; the array is kept as it is."""
        self._centres[number] = centre

    def forget(self, number: int) -> None:
        """This candidate has been used, or said nothing."""
        self._centres.pop(number, None)

    def carried(self, number: int, point: Vector, centre: Vector) -> Vector:
        """(n,) where this candidate's (n,) point belongs, now that the centre is here."""
        return point + SHARE * (centre - self._centres[number])

    def dump(self, n: int) -> State:
        """Numbers and their centres as arrays."""
        return {
            "number": np.array(list(self._centres), dtype=np.int64),
            "centre": stack(list(self._centres.values()), n),
        }

    @classmethod
    def load(cls, state: State) -> Origins:
        """The inverse of :meth:`dump`."""
        self = cls()
        self._centres = dict(zip(state["number"].tolist(), state["centre"], strict=True))
        return self
