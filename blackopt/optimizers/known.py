"""The losses that a result is scored among.

Those of its own cohort, which were drawn as it was. A late cohort may be known in small part: the first of
its results would have nobody to be compared with, and say nothing, and the second would be the best or the
worst. So as long as its own cohort has fewer than a population, those next to it in age complete it. What
their centre gained or lost against its own is a constant in the scores of a cohort, and eps has mean 0: it
adds noise, the less the nearer, and no bias.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from blackopt.types import State, Vector


class KnownLosses:
    """Losses by the version of their cohort.

    Args:
        least: as many a loss is scored among, where as many are known.
    """

    def __init__(self, least: int) -> None:
        self._least = least
        self._known: dict[int, list[float]] = {}
        self._latest = 0  # version

    def add(self, version: int, loss: float) -> None:
        """One more is known."""
        self._known.setdefault(version, []).append(loss)
        self._latest = max(self._latest, version)

    def among(self, version: int) -> Vector:
        """(m,) losses of this cohort, and of the nearest ones in age, the older first, until m >= least."""
        return np.array([loss for each in self._nearest(version) for loss in self._known[each]])

    def keep(self, versions: Iterable[int]) -> None:
        """Forget what results of these versions, and of later ones, will not be scored among.

        What completes a cohort now is enough for ever: more of it, or of others, only become known.
        """
        needed = {each for version in versions for each in self._nearest(version)}
        self._known = {version: losses for version, losses in self._known.items() if version in needed}

    def _nearest(self, version: int) -> list[int]:
        """Versions whose losses are enough, the nearest first; all where they are not."""
        found, count = [], 0
        for distance in range(max(self._latest, version) + 1):
            for each in dict.fromkeys((version - distance, version + distance)):
                if count < self._least and each in self._known:
                    found.append(each)
                    count += len(self._known[each])
            if count >= self._least:
                break
        return found

    def dump(self) -> State:
        """Versions, and the losses of each."""
        return {
            "version": np.array(list(self._known), dtype=np.int64),
            "losses": [np.array(losses, dtype=np.float64) for losses in self._known.values()],
        }

    def load(self, state: State) -> None:
        """The inverse of :meth:`dump`."""
        self._known = {
            int(version): losses.tolist()
            for version, losses in zip(state["version"], state["losses"], strict=True)
        }
        self._latest = max(self._known, default=0)
