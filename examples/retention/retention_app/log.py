"""The app's event log: one SQLite file with what happened, and nothing of why.

Tables that a campaign's queries read:

* ``exposures``: a unit's first exposure in a window, and the arm it was in.
* ``events``: what exposed units did afterwards, as it happened: ``visit``, ``finish`` (the whole welcome
  slate), ``mute`` (notifications), ``unsubscribe``; and what they did before, which is known to be theirs
  from their first open on: ``browse`` (the website).
* ``watermark``: everything before ``at_us`` is in the log. It is the simulation's clock as well.

``orders`` is the module's own journal of accepted orders; the view ``applied`` counts them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watermark (id INTEGER PRIMARY KEY CHECK (id = 1), at_us INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS exposures (
  campaign TEXT NOT NULL,
  window   INTEGER NOT NULL,
  unit     INTEGER NOT NULL,
  arm      TEXT NOT NULL,
  t_us     INTEGER NOT NULL,
  PRIMARY KEY (campaign, window, unit)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
  unit INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('browse', 'visit', 'finish', 'mute', 'unsubscribe')),
  t_us INTEGER NOT NULL,
  PRIMARY KEY (unit, kind, t_us)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
  seq      INTEGER PRIMARY KEY,
  kind     TEXT NOT NULL CHECK (kind IN ('push', 'withdraw', 'adopt')),
  key      TEXT NOT NULL,
  outcome  TEXT NOT NULL CHECK (outcome IN ('applied', 'repeated')),
  campaign TEXT NOT NULL,
  trial    INTEGER,           -- NULL for an adoption: its number is in the body
  epoch    INTEGER NOT NULL,
  sha256   TEXT,              -- of the artifact; NULL for a withdrawal
  t_us     INTEGER NOT NULL,  -- virtual time at which it was accepted
  body     BLOB NOT NULL      -- as received
) STRICT;
CREATE VIEW IF NOT EXISTS applied AS
  SELECT campaign, trial, epoch, kind, key, sha256, min(t_us) AS t_us,
         sum(outcome = 'applied') AS times, sum(outcome = 'repeated') AS repeats
  FROM orders GROUP BY campaign, trial, epoch, kind, key, sha256;
"""


class OtherRunError(ValueError):
    """The log in this directory belongs to a simulation with other settings."""


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An accepted order; see the table ``orders``."""

    kind: str
    key: str
    outcome: str
    campaign: str
    trial: int | None
    epoch: int
    sha256: str | None
    t_us: int
    body: bytes


class EventLog:
    """The writer of the log. One process, one thread at a time: the caller holds a lock.

    Args:
        path: created if it is not there.
        settings: written into a new log; an existing one must have the same.
        start_us: where the time of a new log starts.

    Raises:
        OtherRunError: the log was written with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, str], start_us: int) -> None:
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        # A killed process loses nothing that it wrote; a power cut would, and is not part of this simulation.
        self._db.executescript(
            f"PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; {SCHEMA}"
        )
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", settings.items())
            self._db.execute("INSERT OR IGNORE INTO watermark VALUES (1, ?)", (start_us,))
            found = dict(self._db.execute("SELECT key, value FROM meta"))
        if found != settings:
            self._db.close()
            raise OtherRunError(
                f"{path} holds a simulation with {found}, not {settings}: use another directory"
            )

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    @property
    def now_us(self) -> int:
        """The watermark."""
        return int(self._db.execute("SELECT at_us FROM watermark").fetchone()[0])

    def advance(
        self,
        now_us: int,
        exposures: Iterable[tuple[str, int, int, str, int]],
        events: Iterable[tuple[int, str, int]],
    ) -> None:
        """Write what happened up to ``now_us`` and move the watermark there, in one transaction.

        Args:
            now_us: the new watermark.
            exposures: (campaign, window, unit, arm, t_us).
            events: (unit, kind, t_us).
        """
        with self._transaction():
            self._db.executemany("INSERT OR IGNORE INTO exposures VALUES (?, ?, ?, ?, ?)", exposures)
            self._db.executemany("INSERT INTO events VALUES (?, ?, ?)", events)
            self._db.execute("UPDATE watermark SET at_us = ?", (now_us,))

    def add_order(self, row: OrderRow) -> None:
        """Write an order down before it is answered."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO orders (kind, key, outcome, campaign, trial, epoch, sha256, t_us, body)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                astuple(row),
            )

    def orders(self) -> Sequence[OrderRow]:
        """Every accepted order, in the order in which they came."""
        columns = "kind, key, outcome, campaign, trial, epoch, sha256, t_us, body"
        return [OrderRow(*row) for row in self._db.execute(f"SELECT {columns} FROM orders ORDER BY seq")]

    def exposed(self, lower: int) -> Iterable[tuple[str, int, str, int]]:
        """(campaign, unit, arm, t_us) of the units from ``lower`` on; the last campaign by name is last."""
        return self._db.execute(
            "SELECT campaign, unit, arm, t_us FROM exposures WHERE unit >= ? ORDER BY unit, campaign, window",
            (lower,),
        )

    def counts(self) -> dict[str, int]:
        """Rows of the log's tables."""
        return {
            table: int(self._db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
            for table in ("exposures", "events", "orders")
        }

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK where something was raised."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
