"""What becomes of a reading: kept as a revision, known already, contradicting, unplaceable, or unusable."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

import numpy as np

from blackopt.ledger.canonical import quoted, sha256, stats_text
from blackopt.ledger.rows import Disposition, IngestReport, TrialState
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import CONTROL, Reading

_LONGEST_BODY = 500
_INT64 = 2**63
_LARGEST = int(sys.float_info.max)

_PLACE = '"window" = ? AND arm = ? AND metric = ? AND cohort = ? AND source = ?'
_NEWEST = (
    f"SELECT as_of_us, stats FROM reading WHERE {_PLACE} AND disposition <> 'quarantined'"
    " ORDER BY as_of_us DESC LIMIT 1"
)
_SAME = f"SELECT stats FROM reading WHERE {_PLACE} AND disposition <> 'quarantined' AND as_of_us = ?"
_LATE_BEFORE = (
    f"SELECT 1 FROM reading WHERE {_PLACE} AND disposition = 'late' AND disposition <> 'quarantined' LIMIT 1"
)
INSERT_READING = (
    'INSERT INTO reading(source, metric, "window", arm, cohort, as_of_us, stats, trial, received_us,'
    " disposition)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_QUARANTINE = INSERT_READING.replace("INSERT", "INSERT OR IGNORE", 1)
_CONFLICT = (
    'INSERT OR IGNORE INTO conflict(source, metric, "window", arm, cohort, as_of_us, stats, received_us)'
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
)
_REJECT = (
    'INSERT OR IGNORE INTO rejected(source, metric, "window", arm, cohort, reason, body, received_us)'
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
)


def fault(reading: Reading) -> str:
    """Why no metric can be computed from a reading; "" where one can.

    A count of zero is sound: it is a watermark without units.
    """
    # A connector may break the promise of its types: nothing is believed here.
    texts: tuple[object, ...] = (reading.metric, reading.arm, reading.cohort)
    whole: tuple[object, ...] = (reading.window, reading.as_of_us)
    for text in texts:
        if not isinstance(text, str):
            return "metric, arm or cohort is not text"
    for number in whole:
        if type(number) is not int or not -_INT64 <= number < _INT64:
            return "window or as_of_us is not an integer of 64 bits"
    if not reading.stats:
        return "no statistics"
    stats = cast("Mapping[object, object]", reading.stats)  # a connector may break its types' promise
    for key, value in stats.items():
        if not isinstance(key, str):
            return "a statistic's name is not text"
        if type(value) is not float:
            if isinstance(value, bool | np.bool_) or not isinstance(
                value, int | float | np.integer | np.floating
            ):
                return f"{key} is not a number"
            if isinstance(value, int) and abs(value) > _LARGEST:
                return f"{key} is not finite"
        if not math.isfinite(value):
            return f"{key} is not finite"
        if value < 0 and key in ("n", "se"):
            return f"{key} is negative"
        if value <= 0 and key == "weight":
            return "weight is not positive"
    return ""


@dataclass
class _Notes:
    """What is worth an event, seen for the first time."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, reading: Reading, reason: str = "") -> None:
        place = f"{reading.metric} {reading.window}/{reading.arm}/{reading.cohort}"
        self.lines.setdefault(kind, []).append(f"{place}: {reason}" if reason else place)

    def data(self, source: str) -> dict[str, object]:
        """Compact and free of times, so that a run that polled again after a crash writes the same."""
        found: dict[str, object] = {"source": source}
        for kind, lines in sorted(self.lines.items()):
            found[kind] = {"count": len(lines), "first": lines[0], "sha": sha256("\n".join(lines))}
        return found


class Intake:
    """One page of readings from one source, inside one transaction."""

    def __init__(self, conn: sqlite3.Connection, source: str, at_us: int) -> None:
        self.conn, self.source, self.at_us = conn, source, at_us
        self.notes = _Notes()
        self._known: dict[tuple[int, str], tuple[bool, int | None, Disposition]] = {}

    def take(self, readings: Sequence[Reading]) -> IngestReport:
        """Store what is new; the report says what became of each."""
        tally = {item.name: 0 for item in fields(IngestReport)}
        for reading in readings:
            tally[self._one(reading)] += 1
        return IngestReport(**tally)

    def _one(self, reading: Reading) -> str:
        reason = fault(reading)
        if reason:
            return self._reject(reading, reason)
        place = (reading.window, reading.arm, reading.metric, reading.cohort, self.source)
        stats = stats_text(reading.stats)
        known, trial, disposition = self._arm(reading.window, reading.arm)
        if not known:
            return self._quarantine(reading, stats)
        newest = self.conn.execute(_NEWEST, place).fetchone()
        if newest is not None:
            as_of_us, newest_stats = newest
            if reading.as_of_us < as_of_us:
                same = self.conn.execute(_SAME, (*place, reading.as_of_us)).fetchone()
            else:
                same = (newest_stats,) if reading.as_of_us == as_of_us else None
            if same is not None:
                return "duplicate" if same[0] == stats else self._conflict(reading, stats)
            if newest_stats == stats:
                return "unchanged"
        if disposition is Disposition.LATE and self.conn.execute(_LATE_BEFORE, place).fetchone() is None:
            self.notes.add("late", reading)
        self.conn.execute(INSERT_READING, self._row(reading, stats, trial, disposition))
        return disposition.value

    def _arm(self, window: int, arm: str) -> tuple[bool, int | None, Disposition]:
        """Whether the arm was served in the window, its trial, and what its readings are from now on."""
        found = self._known.get((window, arm))
        if found is None:
            found = self._known[window, arm] = self._look_up(window, arm)
        return found

    def _look_up(self, window: int, arm: str) -> tuple[bool, int | None, Disposition]:
        if arm == CONTROL:
            row = self.conn.execute('SELECT 1 FROM "window" WHERE number = ?', (window,)).fetchone()
            return row is not None, None, Disposition.ACCEPTED
        number = trial_of(arm)
        if number is None:
            return False, None, Disposition.QUARANTINED
        row = self.conn.execute('SELECT "window", state FROM trial WHERE number = ?', (number,)).fetchone()
        if row is None or (row[0] or 0) != window:
            return False, None, Disposition.QUARANTINED
        return True, number, Disposition.LATE if row[1] == TrialState.TOLD else Disposition.ACCEPTED

    def _row(
        self, reading: Reading, stats: str, trial: int | None, disposition: Disposition
    ) -> tuple[Any, ...]:
        return reading_row(self.source, reading, stats, trial, self.at_us, disposition)

    def _quarantine(self, reading: Reading, stats: str) -> str:
        cursor = self.conn.execute(_QUARANTINE, self._row(reading, stats, None, Disposition.QUARANTINED))
        if not cursor.rowcount:
            return "duplicate"
        self.notes.add("quarantined", reading)
        return "quarantined"

    def _conflict(self, reading: Reading, stats: str) -> str:
        row = (
            self.source,
            reading.metric,
            reading.window,
            reading.arm,
            reading.cohort,
            reading.as_of_us,
            stats,
            self.at_us,
        )
        if not self.conn.execute(_CONFLICT, row).rowcount:
            return "duplicate"
        self.notes.add("conflict", reading)
        return "conflict"

    def _reject(self, reading: Reading, reason: str) -> str:
        """Everything as text: nothing about such a reading can be relied on."""
        body = _plain(repr(dict(reading.stats)))
        row = (
            self.source,
            _plain(str(reading.metric)),
            _plain(str(reading.window)),
            _plain(str(reading.arm)),
            _plain(str(reading.cohort)),
            reason,
            body,
            self.at_us,
        )
        if not self.conn.execute(_REJECT, row).rowcount:
            return "duplicate"
        self.notes.add("rejected", reading, reason)
        return "rejected"


def reading_row(
    source: str, reading: Reading, stats: str, trial: int | None, at_us: int, disposition: Disposition
) -> tuple[Any, ...]:
    """The parameters of :data:`INSERT_READING`."""
    return (
        source,
        reading.metric,
        reading.window,
        reading.arm,
        reading.cohort,
        reading.as_of_us,
        stats,
        trial,
        at_us,
        disposition.value,
    )


def trial_of(arm: str) -> int | None:
    """The number in ``t<number>``; None for any other name (``t07``, ``t+7`` and ``t٧`` are other names)."""
    digits = arm[1:]
    if not (arm.startswith("t") and digits.isascii() and digits.isdigit()) or len(digits) > 18:
        return None
    number = int(digits)
    return number if str(number) == digits else None


def _plain(text: str) -> str:
    """Short, printable, storable."""
    return quoted(text)[1:-1][:_LONGEST_BODY]
