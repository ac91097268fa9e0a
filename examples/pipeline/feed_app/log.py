"""The event log: one SQLite file that production writes and the campaign's source reads.

``exposures`` says which arm somebody was in when the feed was opened, ``events`` what was done afterwards:
``open`` (the feed, on the next day) and ``mute`` (the app, within three hours). Everything before the time in
``watermark`` is in the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS exposures (
  campaign TEXT NOT NULL, window INTEGER NOT NULL, unit INTEGER NOT NULL, arm TEXT NOT NULL,
  time INTEGER NOT NULL, PRIMARY KEY (campaign, window, unit)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  unit INTEGER NOT NULL, name TEXT NOT NULL, time INTEGER NOT NULL, PRIMARY KEY (unit, name, time)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watermark (id INTEGER PRIMARY KEY CHECK (id = 1), time INTEGER NOT NULL) STRICT;
"""

Exposure = tuple[str, int, int, str, int]
Event = tuple[int, str, int]


class EventLog:
    """The writer of the log; readers see whole steps of time only."""

    def __init__(self, path: Path, start_us: int) -> None:
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(SCHEMA)
        self._db.execute("INSERT OR IGNORE INTO watermark VALUES (1, ?)", (start_us,))

    def write(self, now_us: int, exposures: Iterable[Exposure], events: Iterable[Event]) -> None:
        """Add what happened up to ``now_us``, watermark included, in one transaction."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:  # commits, or rolls back what a failure left half done
            self._db.executemany("INSERT INTO exposures VALUES (?, ?, ?, ?, ?)", exposures)
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?)", events)
            self._db.execute("UPDATE watermark SET time = ?", (now_us,))

    def close(self) -> None:
        """Close the file."""
        self._db.close()
