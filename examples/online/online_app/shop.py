"""Production: visitors, an offer for each, and purchases that come hours later, in virtual time.

What the shop knows is in ``log.db``, so a shop that was killed goes on where its clock stood:

=============  =======================================================================================
``exposures``  who was served which arm, written by the sampler's log
``purchases``  who has bought, from the moment on that it has happened
``clock``      up to when everything above is written
``future``     who will buy, and when: the simulation's own; nobody else looks
=============  =======================================================================================
"""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np

from blackopt.artifacts import safetensors
from blackopt.serving import Sampler, SqliteLog
from online_app import world
from online_app.world import HOUR_US, Network

CAMPAIGN = "shop"
START_US = 19_723 * 24 * HOUR_US
"""Monday 2024-01-01 00:00 UTC, where virtual time starts."""

TICK_US = HOUR_US // 6
"""Virtual time in one transaction."""

TABLES = """
CREATE TABLE exposures (
    id TEXT PRIMARY KEY, campaign TEXT NOT NULL, window INTEGER NOT NULL, arm TEXT NOT NULL,
    unit TEXT NOT NULL, time INTEGER NOT NULL, version INTEGER, key TEXT, sign INTEGER, outcome TEXT
) WITHOUT ROWID;
CREATE TABLE clock (now_us INTEGER NOT NULL);
CREATE TABLE future (unit TEXT PRIMARY KEY, visited_us INTEGER NOT NULL, bought_us INTEGER NOT NULL);
CREATE TABLE purchases (unit TEXT PRIMARY KEY, visited_us INTEGER NOT NULL, bought_us INTEGER NOT NULL);
"""
"""Those of the log (docs/exploration.md) and the shop's own."""


def create(directory: Path) -> None:
    """An empty log, where time has not begun to pass."""
    log = sqlite3.connect(directory / "log.db")
    log.execute("PRAGMA journal_mode = WAL")  # the campaign's queries never wait for the shop
    log.executescript(TABLES)
    log.execute("INSERT INTO clock VALUES (?)", (START_US,))
    log.commit()
    log.close()


class Shop:
    """One simulation, which :func:`create` began. Visitors and their coins are a function of seed and time.

    Args:
        directory: of the log, the model, the arms and the centres.
        seed: of visitors and coins.
        visitors: who come in an hour, the same number in every tick.
    """

    def __init__(self, directory: Path, *, seed: int, visitors: int) -> None:
        incumbent, _ = safetensors.read((directory / "incumbent.safetensors").read_bytes())
        self._log = SqliteLog(directory / "log.db")
        self._sampler = Sampler.load(
            directory / "arms",
            campaign=CAMPAIGN,
            store=directory / "centres",
            model=Network,
            incumbent=incumbent,
            log=self._log,
            every_s=None,  # in virtual time it looks when a tick begins
        )
        self._seed, self._visitors = seed, visitors * TICK_US // HOUR_US
        self._now_us: int
        self._db = sqlite3.connect(directory / "log.db", timeout=30.0, check_same_thread=False)
        self._lock = threading.Lock()
        [[self._now_us]] = self._db.execute("SELECT now_us FROM clock").fetchall()

    @property
    def now_us(self) -> int:
        """Virtual time, microseconds since 1970."""
        return self._now_us

    def advance(self, until_us: int) -> int:
        """Live until then, whole ticks only."""
        with self._lock:
            while self._now_us + TICK_US <= until_us:
                self._tick()
            return self._now_us

    def close(self) -> None:
        """Write what is to be logged."""
        self._sampler.close()
        self._db.close()

    def _tick(self) -> None:
        """Exposures first, then one transaction for the rest: killed in between, the tick is lived again, and
        its visitors are logged twice."""
        self._sampler.refresh()
        start_us, number = self._now_us, self._now_us // TICK_US
        visitors = world.draw_visitors(np.random.default_rng([self._seed, number]), self._visitors)
        shown = np.array([self._serve(f"{number}-{i}", x) for i, x in enumerate(visitors.x)], dtype=np.int64)
        self._log.flush(60.0)
        buys = visitors.coin < world.purchase(visitors.x, shown, start_us / HOUR_US)
        bought_us = start_us + (visitors.delay_h * HOUR_US).astype(np.int64)
        future = [(f"{number}-{i}", start_us, int(bought_us[i])) for i in np.flatnonzero(buys).tolist()]
        end_us = start_us + TICK_US
        with self._db:
            self._db.executemany("INSERT INTO future VALUES (?, ?, ?)", future)
            self._db.execute("INSERT INTO purchases SELECT * FROM future WHERE bought_us < ?", (end_us,))
            self._db.execute("DELETE FROM future WHERE bought_us < ?", (end_us,))
            self._db.execute("UPDATE clock SET now_us = ?", (end_us,))
        self._now_us = end_us

    def _serve(self, unit: str, x: world.Floats) -> int:
        """One visitor: who is in an arm meets a perturbation of their own, and nobody waits for the log."""
        with self._sampler.perturb(unit) as p:
            offer: int = p.act(x)
            p.log(offer=offer)
        return offer
