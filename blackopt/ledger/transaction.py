"""One transaction of the writer: the events that it appends, and the steps of trials that it takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from blackopt.errors import LedgerError, UsageError
from blackopt.ledger import chain
from blackopt.ledger.canonical import canonical_json
from blackopt.ledger.rows import TrialState
from blackopt.ledger.sqlite import sqlite3


class Transaction:
    """What a method may do between BEGIN IMMEDIATE and COMMIT."""

    def __init__(self, conn: sqlite3.Connection, epoch: int, head: tuple[int, str]) -> None:
        self.conn, self._epoch, self._head = conn, epoch, head

    def event(self, kind: str, data: Mapping[str, object], *, at_us: int) -> None:
        """Append an event."""
        text = canonical_json(data)
        self._head = chain.append(self.conn, self._head, kind, text, at_us=at_us, epoch=self._epoch)

    def states(self, numbers: Sequence[int]) -> dict[int, str]:
        """The states of some trials."""
        sql = "SELECT number, state FROM trial WHERE number IN (SELECT value FROM json_each(?))"
        return dict(self.conn.execute(sql, (json.dumps(numbers),)).fetchall())

    def require(self, numbers: Sequence[int], sources: Sequence[TrialState]) -> None:
        """Refuse a step of trials that are not all in one of the ``sources``.

        Raises:
            UsageError: no trials, or one twice.
            LedgerError: a trial is unknown or in another state.
        """
        if not numbers or len(set(numbers)) != len(numbers):
            raise UsageError(f"trials: expected different trials, at least one, got {list(numbers)!r}")
        states = self.states(numbers)
        for number in numbers:
            if states.get(number) not in sources:
                raise misplaced(number, states.get(number), sources)

    def move(
        self, numbers: Sequence[int], to: TrialState, *, sources: Sequence[TrialState], cause: str = ""
    ) -> None:
        """Change the state of trials that are in one of the ``sources``.

        Raises:
            UsageError: no trials, or one twice.
            LedgerError: a trial is unknown or in another state; nothing is changed.
        """
        self.require(numbers, sources)
        sql = "UPDATE trial SET state = ?, cause = CASE ? WHEN '' THEN cause ELSE ? END WHERE number = ?"
        self.conn.executemany(sql, [(to.value, cause, cause, number) for number in numbers])


def misplaced(number: int, state: str | None, expected: Sequence[TrialState]) -> LedgerError:
    """A step that the trial's life does not have."""
    wanted = " or ".join(expected)
    return LedgerError(
        f"Trial {number} is {state or 'unknown'}, this step needs {wanted}",
        where=f"trial {number}",
        why="the step was taken twice, out of order, or by two drivers",
        safe="nothing was changed",
        next_step=f"`blackopt status` shows what trial {number} went through",
    )
