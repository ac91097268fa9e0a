"""The dialler's event log: one SQLite file that production writes and the campaign's SQL queries read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

SCHEMA = """
-- one row a customer whose fate an arm (or the control) decided
CREATE TABLE IF NOT EXISTS exposures(
    unit TEXT PRIMARY KEY, campaign TEXT NOT NULL, "window" INTEGER NOT NULL,
    arm TEXT NOT NULL, t_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- one row a call; no arm where the customer was in no experiment
CREATE TABLE IF NOT EXISTS calls(
    unit TEXT PRIMARY KEY, campaign TEXT NOT NULL, "window" INTEGER NOT NULL,
    arm TEXT, called_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS calls_of_arm ON calls(campaign, "window", arm);
-- one row a call, written when the customer has decided
CREATE TABLE IF NOT EXISTS outcomes(
    unit TEXT PRIMARY KEY REFERENCES calls, subscribed INTEGER NOT NULL, known_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- everything up to here is in the log
CREATE TABLE IF NOT EXISTS watermark(
    only INTEGER PRIMARY KEY CHECK (only = 1), now_us INTEGER NOT NULL
) STRICT;
"""

Exposure = tuple[str, str, int, str, int]
Call = tuple[str, str, int, str | None, int]
Outcome = tuple[str, int, int]


class EventLog:
    """The log, opened for writing by one process; readers see whole days only.

    Args:
        path: the SQLite file, made if it is not there.
        start_us: the watermark of a new log.
    """

    def __init__(self, path: Path, start_us: int) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO watermark VALUES (1, ?)", (start_us,))

    def now_us(self) -> int:
        """The watermark."""
        return int(self._db.execute("SELECT now_us FROM watermark").fetchone()[0])

    def write(
        self,
        now_us: int,
        exposures: Iterable[Exposure] = (),
        calls: Iterable[Call] = (),
        outcomes: Iterable[Outcome] = (),
    ) -> None:
        """Add what happened up to ``now_us``, watermark included, in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:  # commits, or rolls back what a failure left half done
            self._db.executemany("INSERT INTO exposures VALUES (?, ?, ?, ?, ?)", exposures)
            self._db.executemany("INSERT INTO calls VALUES (?, ?, ?, ?, ?)", calls)
            self._db.executemany("INSERT INTO outcomes VALUES (?, ?, ?)", outcomes)
            self._db.execute("UPDATE watermark SET now_us = ?", (now_us,))

    def called_between(self, start_us: int, end_us: int) -> list[str]:
        """Units called in [start, end), in their order."""
        query = "SELECT unit FROM calls WHERE called_us >= ? AND called_us < ? ORDER BY unit"
        return [unit for (unit,) in self._db.execute(query, (start_us, end_us))]

    def close(self) -> None:
        """Close the file."""
        self._db.close()
