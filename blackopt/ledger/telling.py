"""T6: the tells of one transaction, built outside it as far as possible and written in three statements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from blackopt.errors import AlreadyTold, LedgerError, UsageError
from blackopt.ledger.canonical import (
    EMPTY_SHA,
    finite_or_none,
    observations_sha,
    reading_text,
    sha256,
    stats_text,
    tell_line,
)
from blackopt.ledger.readings import fault
from blackopt.ledger.rows import NewTell, TellRow, TrialState
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import Reading, Role, Status

SOURCE = "tell"
"""The source of readings that arrive together with their tell."""

_TELLABLE = (TrialState.ASKED.value, TrialState.AWAITING.value)
_TRIALS = (
    'SELECT number, candidate, role, state, "window" FROM trial'
    " WHERE number IN (SELECT value FROM json_each(?))"
)
_USED = (
    'SELECT id, metric, "window", arm, cohort, as_of_us, stats FROM reading'
    " WHERE id IN (SELECT value FROM json_each(?)) AND disposition <> 'quarantined'"
)
_READING = (
    'INSERT INTO reading(id, source, metric, "window", arm, cohort, as_of_us, stats, trial,'
    " received_us, disposition)"
    " VALUES(?, 'tell', ?, ?, ?, ?, ?, ?, ?, ?, 'accepted')"
)
_TELL = (
    "INSERT INTO tell(seq, trial, status, value, se, cause, used, obs_sha, at_us)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class TellWriter:
    """The tells of one call, checked.

    Raises:
        UsageError: see :meth:`blackopt.ledger.Driver.tell`.
    """

    def __init__(self, tells: Sequence[NewTell], at_us: int) -> None:
        self.tells, self.at_us = tells, at_us
        self.numbers = [tell.trial for tell in tells]
        if not tells or len(set(self.numbers)) != len(tells):
            raise UsageError(f"tells: expected different trials, at least one, got {self.numbers!r}")
        self.values = [_value_of(tell) for tell in tells]
        self.new = [[(reading, _stats_of(tell, reading)) for reading in tell.readings] for tell in tells]

    def write(self, conn: sqlite3.Connection) -> tuple[list[TellRow], dict[str, object]]:
        """Readings and tells (whose trigger ends the trials), inside a transaction.

        Returns:
            The tells as they stand now, and the event's data.
        """
        trials = self._trials(conn)
        used = self._used(conn)
        (told_before,) = conn.execute("SELECT ifnull(max(seq), 0) FROM tell").fetchone()
        (last_id,) = conn.execute("SELECT ifnull(max(id), 0) FROM reading").fetchone()
        at_us = self.at_us
        stored: list[tuple[Any, ...]] = []
        rows: list[tuple[Any, ...]] = []
        told: list[TellRow] = []
        lines: list[str] = []
        facts = zip(self.tells, self.values, self.new, strict=True)
        for seq, (tell, (value, se), fresh) in enumerate(facts, told_before + 1):
            number, status, cause = tell.trial, tell.status, tell.cause
            candidate, role, window = trials[number]
            ids, texts = [*tell.used], [used[i] for i in tell.used]
            for reading, stats in fresh:
                last_id += 1
                place = reading.metric, reading.window, reading.arm, reading.cohort, reading.as_of_us
                if place[1] != window:
                    raise UsageError(
                        f"readings of trial {number}: expected window {window}, got {reading.window!r}"
                    )
                ids.append(last_id)
                texts.append(reading_text(place, stats))
                stored.append((last_id, *place, stats, number, at_us))
            obs_sha = observations_sha(texts) if texts else EMPTY_SHA
            word = "ok" if status is Status.OK else status.value
            lines.append(tell_line(seq, number, word, value, se, obs_sha, cause))
            rows.append((seq, number, word, value, se, cause, str(ids) if ids else "[]", obs_sha, at_us))
            told.append(TellRow(seq, number, candidate, role, status, value, se, obs_sha, at_us))
        conn.executemany(_READING, stored)
        conn.executemany(_TELL, rows)
        data: dict[str, object] = {
            "first": told_before + 1,
            "count": len(rows),
            "sha": sha256("".join(lines)),
        }
        if len(rows) == 1:
            data |= {"trial": self.numbers[0], "status": rows[0][2]}
        return told, data

    def _trials(self, conn: sqlite3.Connection) -> dict[int, tuple[int | None, Role, int]]:
        """Candidate, role and window of each trial, if all of them can be told now."""
        found: dict[int, tuple[int | None, Role, int]] = {}
        for number, candidate, role, state, window in conn.execute(_TRIALS, (json.dumps(self.numbers),)):
            if state not in _TELLABLE:
                raise _untellable(number, state)
            found[number] = candidate, _ROLES[role], window or 0
        for number in self.numbers:
            if number not in found:
                raise UsageError(f"tells: there is no trial {number!r} in this ledger")
        return found

    def _used(self, conn: sqlite3.Connection) -> dict[int, str]:
        """The canonical text of every stored reading that was used."""
        wanted = [number for tell in self.tells for number in tell.used]
        if not wanted:
            return {}
        found = {row[0]: reading_text(row[1:6], row[6]) for row in conn.execute(_USED, (json.dumps(wanted),))}
        for number in wanted:
            if number not in found:
                raise LedgerError(
                    f"A tell was computed from reading {number}, which is not stored or is quarantined",
                    safe="nothing was written",
                    next_step="report this: it should not happen",
                )
        return found


def _untellable(number: int, state: str) -> AlreadyTold | LedgerError:
    if state == TrialState.TOLD:
        return AlreadyTold(f"trial {number}: it was told before; the first tell stands")
    return LedgerError(
        f"Trial {number} is {state}: it cannot be told while production may still serve it",
        where=f"trial {number}",
        safe="nothing was changed",
        next_step="withdraw it first",
    )


_ROLES = {role.value: role for role in Role}


def _value_of(tell: NewTell) -> tuple[float | None, float | None]:
    value = finite_or_none(f"value of trial {tell.trial}", tell.value)
    se = finite_or_none(f"se of trial {tell.trial}", tell.se)
    if (tell.status is Status.OK) != (value is not None):
        raise UsageError(
            f"trial {tell.trial}: expected a value if and only if the status is ok, got "
            f"{tell.status.value}, {value!r}"
        )
    if se is not None and se < 0:
        raise UsageError(f"se of trial {tell.trial}: expected a number >= 0, got {se!r}")
    return value, se


def _stats_of(tell: NewTell, reading: Reading) -> str:
    reason = fault(reading)
    if reason:
        raise UsageError(f"readings of trial {tell.trial}: {reading.metric!r}: {reason}")
    if reading.arm != f"t{tell.trial}":
        raise UsageError(f"readings of trial {tell.trial}: expected arm 't{tell.trial}', got {reading.arm!r}")
    return stats_text(reading.stats)
