"""Production: ten modules, people who open the feed, virtual time, and the orders that reach the scorer."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from blackopt.serving import Arms
from blackopt.types import Artifact
from feed_app import line, reactions
from feed_app.log import Event, EventLog, Exposure
from feed_app.m04_scorer import Scorer
from feed_app.world import Floats, Ints, draw_people

CAMPAIGN = "feed"
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
START_US = 19_723 * DAY_US
"""Monday 2024-01-01 00:00 UTC, where virtual time starts."""

STEP_US = 6 * HOUR_US
"""Virtual time in one transaction of the log."""

UNITS_A_DAY = 1_000_000
"""Room for unit numbers: person i of day d is unit ``d * UNITS_A_DAY + i``."""

MAX_SHARE = 0.8
"""Part of all people that candidates may have together, whatever an order says."""


class Production:
    """One simulation. Everybody's coins are a function of seed, day and person, whatever they are served.

    Args:
        directory: of the log and of what was ordered; must exist.
        scorer: the model that production serves where no order says otherwise.
        seed: of people and coins.
        people: who open the feed on a day, each on one day only.
        secrets: that orders are signed with.
    """

    def __init__(
        self, directory: Path, scorer: Artifact, *, seed: int, people: int, secrets: tuple[str, ...]
    ) -> None:
        self._seed, self._people = seed, people
        self._now_us = self._module_us = START_US
        self._lock = threading.Lock()
        self._log = EventLog(directory / "events.db", START_US)
        self._later: list[tuple[int, int, str]] = []  # (time, unit, name) of what is still to happen
        # Scorer refuses what it cannot run, and is what the pipeline then works with.
        self._arms: Arms[Scorer] = Arms(
            accept=Scorer,
            load=Scorer,
            incumbent=scorer,
            secrets=list(secrets),
            max_share=MAX_SHARE,
            clock=lambda: (self._module_us - START_US) / 1e6,  # leases run in virtual time
        )

    @property
    def now_us(self) -> int:
        """Virtual time, microseconds since 1970."""
        return self._now_us

    def handle(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> tuple[int, bytes]:
        """Answer an order."""
        with self._lock:
            self._module_us = self._now_us
            return self._arms.handle(method, path, headers, raw)

    def advance(self, until_us: int) -> int:
        """Live through the time until ``until_us``, at most a day of it, so that a request stays short."""
        with self._lock:
            until_us = min(until_us, self._now_us + DAY_US)
            while self._now_us < until_us:
                end_us = min(until_us, (self._now_us // STEP_US + 1) * STEP_US)
                exposures = self._open(self._now_us, end_us)
                self._log.write(end_us, exposures, self._due(end_us))
                self._now_us = end_us
            return self._now_us

    def close(self) -> None:
        """Close the log."""
        with self._lock:
            self._log.close()

    def _open(self, start_us: int, end_us: int) -> list[Exposure]:
        """Everybody who opens the feed in [start_us, end_us), which lies inside one day."""
        day = start_us // DAY_US
        arrivals = self._arrivals(day)
        low, high = np.searchsorted(arrivals, [start_us, end_us]).tolist()
        exposures: list[Exposure] = []
        served: dict[int, tuple[Scorer, list[int]]] = {}
        for index, t_us in enumerate(arrivals[low:high].tolist(), start=low):
            self._module_us = t_us
            unit = day * UNITS_A_DAY + index
            given = self._arms.assign(CAMPAIGN, str(unit))
            if given.arm is not None:  # whoever is in no experiment is served too; nobody asks how it went
                exposures.append((CAMPAIGN, given.window, unit, given.arm, t_us))
                served.setdefault(id(given.value), (given.value, []))[1].append(index)
        self._module_us = end_us
        if exposures:
            people = draw_people(self._generator(day, 1), len(arrivals))
            coins = self._generator(day, 2).random((4, len(arrivals)))
            for scorer, indices in served.values():
                rows = np.array(indices)
                reaction = reactions.react(line.run(people[rows], scorer))
                self._happens(day, rows, arrivals, reaction, coins)
        return exposures

    def _happens(
        self, day: int, rows: Ints, arrivals: Ints, reaction: reactions.Reaction, coins: Floats
    ) -> None:
        back = rows[coins[0, rows] < reactions.on_day(reaction.back, day + 1)]
        mute = rows[coins[1, rows] < reaction.mute]
        for name, who, times in (
            ("open", back, (day + 1) * DAY_US + (coins[2, back] * DAY_US).astype(np.int64)),
            ("mute", mute, arrivals[mute] + (coins[3, mute] * 3 * HOUR_US).astype(np.int64)),
        ):
            for index, t_us in zip(who.tolist(), times.tolist(), strict=True):
                heapq.heappush(self._later, (t_us, day * UNITS_A_DAY + index, name))

    def _due(self, end_us: int) -> list[Event]:
        events: list[Event] = []
        while self._later and self._later[0][0] < end_us:
            t_us, unit, name = heapq.heappop(self._later)
            events.append((unit, name, t_us))
        return events

    def _arrivals(self, day: int) -> Ints:
        """(people,) when they open the feed, ascending: more of them in the evening than at night."""
        share = self._generator(day, 0).beta(2.2, 1.6, size=self._people)
        times: Ints = np.sort(day * DAY_US + np.minimum((share * DAY_US).astype(np.int64), DAY_US - 1))
        return times

    def _generator(self, day: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, day, purpose])
