"""The newest readings of a window, found by metric and arm: a window may have thousands of arms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from blackopt.ledger.rows import ReadingRow


class Newest:
    """Readings in the order in which they are given, and by what they are of.

    Args:
        rows: such as :meth:`blackopt.ledger.Ledger.latest` gives.
    """

    def __init__(self, rows: Iterable[ReadingRow]) -> None:
        self._rows = tuple(rows)
        self._found: defaultdict[tuple[str, str], list[ReadingRow]] = defaultdict(list)
        for row in self._rows:
            self._found[row.reading.metric, row.reading.arm].append(row)

    def __iter__(self) -> Iterator[ReadingRow]:
        return iter(self._rows)

    def of(self, metric: str, arm: str) -> Sequence[ReadingRow]:
        """Those of one metric and arm, a cohort each; none where nothing was read."""
        return self._found.get((metric, arm), ())

    def arms(self, metric: str) -> list[str]:
        """Names of the arms that have readings of a metric, sorted."""
        return sorted(arm for name, arm in self._found if name == metric)
