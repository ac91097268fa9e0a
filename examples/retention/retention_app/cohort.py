"""The users who first open the app on one calendar day, and what becomes of them.

Every coin of a cohort is drawn from a generator keyed by (seed, day): nothing depends on when or in which
steps the simulation is advanced, nor on which process does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retention_app import behaviour, pipeline
from retention_app.pipeline import INCUMBENT, Configuration, Floats, Ints, Users

DAY_US = 86_400_000_000
HOUR_US = DAY_US // 24
UNITS_A_DAY = 1_000_000
"""Room for unit numbers: user i of day d is unit ``d * UNITS_A_DAY + i``."""

KINDS = ("browse", "visit", "finish", "mute", "unsubscribe")
BROWSE, VISIT, FINISH, MUTE, UNSUBSCRIBE = range(len(KINDS))


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of some users, ascending in time: when, of which unit, and which of :data:`KINDS`; all (n,)."""

    times: Ints
    units: Ints
    kinds: Ints

    @classmethod
    def of(cls, parts: list[tuple[int, Ints, Ints]]) -> Events:
        """Events from (kind, units, times) in any order."""
        times = np.concatenate([times for _, _, times in parts])
        units = np.concatenate([units for _, units, _ in parts])
        kinds = np.concatenate([np.full(len(units), kind) for kind, units, _ in parts])
        order = np.lexsort((kinds, units, times))
        return cls(times[order], units[order], kinds[order])

    def between(self, start_us: int, end_us: int) -> list[tuple[int, str, int]]:
        """(unit, kind, t_us) of those in [start_us, end_us)."""
        low, high = np.searchsorted(self.times, [start_us, end_us])
        columns = (self.units, self.kinds, self.times)
        found = zip(*(column[low:high].tolist() for column in columns), strict=True)
        return [(unit, KINDS[kind], t_us) for unit, kind, t_us in found]


class Cohort:
    """The users of one day.

    Args:
        seed: of the simulation.
        day: days since 1970-01-01.
        size: how many users.
        incumbent: what those get who are in no experiment.

    Attributes:
        arrivals: (size,) first opens, microseconds since 1970, ascending.
        configuration: (size,) number of the configuration that each user got; index into ``configurations``.
        exposed: (size,) whether the user is in an experiment, so that the log follows what it does.
    """

    def __init__(self, seed: int, day: int, size: int, incumbent: Configuration = INCUMBENT) -> None:
        self.seed, self.day = seed, day
        # More people open a new app in the afternoon and evening than at night.
        share = self._generator(0).beta(2.2, 1.6, size=size)
        self.arrivals: Ints = np.sort(day * DAY_US + (share * DAY_US).astype(np.int64).clip(0, DAY_US - 1))
        self.configuration = np.zeros(size, dtype=np.int64)
        self.exposed = np.zeros(size, dtype=np.bool_)
        self.configurations: list[Configuration] = [incumbent]
        self._numbers = {id(incumbent): 0}  # the list above keeps them alive, so an id stays taken
        self._users: Users | None = None
        self._reacted = 0  # users whose events are in ``_events``: those who came first
        self._events: list[Events] = []

    def __len__(self) -> int:
        return len(self.arrivals)

    def unit(self, index: int) -> int:
        """The unit number of user ``index``."""
        return self.day * UNITS_A_DAY + index

    def serve(self, index: int, configuration: Configuration) -> None:
        """Record what user ``index``, exposed to an arm or the control, got at the first open."""
        # By identity: hashing seven numbers for each of a million users would take longer than all the rest.
        number = self._numbers.get(id(configuration))
        if number is None:
            self.configurations.append(configuration)
            number = self._numbers[id(configuration)] = len(self.configurations) - 1
        self.configuration[index] = number
        self.exposed[index] = True

    def events_between(self, start_us: int, end_us: int) -> list[tuple[int, str, int]]:
        """(unit, kind, t_us) of exposed users in [start_us, end_us), by unit.

        Only to be called when everybody who first opens the app before ``end_us`` has been served.
        """
        come = int(np.searchsorted(self.arrivals, end_us))
        if come > self._reacted:
            rows = np.flatnonzero(self.exposed[self._reacted : come]) + self._reacted
            if len(rows):
                self._events.append(self._react(rows))
            self._reacted = come
        return sorted(event for batch in self._events for event in batch.between(start_us, end_us))

    def browsed_before(self, start_us: int, end_us: int) -> list[tuple[int, str, int]]:
        """(unit, kind, t_us) of what exposed users who first open the app in [start_us, end_us) did before.

        They browsed the website in the seven days until then. Whose visits those were is known to the log
        when they sign up.
        """
        low, high = np.searchsorted(self.arrivals, [start_us, end_us]).tolist()
        rows = np.flatnonzero(self.exposed[low:high]) + low
        if not len(rows):
            return []
        draw = self._generator(2)
        shape = (len(self), behaviour.DAYS)
        coins, moments = draw.random(shape)[rows], draw.random(shape)[rows]
        found, column = np.nonzero(coins < behaviour.browse_probability(self._everybody()[rows])[:, None])
        back = (column + moments[found, column]) * DAY_US
        times = self.arrivals[rows[found]] - 1 - back.astype(np.int64)
        return Events.of([(BROWSE, rows[found] + self.unit(0), times)]).between(start_us - 8 * DAY_US, end_us)

    def _everybody(self) -> Users:
        if self._users is None:
            self._users = pipeline.draw_users(self._generator(1), len(self))
        return self._users

    def _react(self, rows: Ints) -> Events:
        """What the users in ``rows`` do from their first open on."""
        draw = self._generator(3)
        shape = (len(self), behaviour.DAYS)
        visit_coins, visit_times = draw.random(shape)[rows], draw.random(shape)[rows]
        (finish, mute, leave), times = draw.random((3, len(self)))[:, rows], draw.random((3, len(self)))
        reaction = behaviour.react(self._everybody()[rows], *self._settings(rows))
        units, arrivals, morning = rows + self.unit(0), self.arrivals[rows], (self.day + 1) * DAY_US

        parts = []
        for age in range(1, behaviour.DAYS + 1):
            came = visit_coins[:, age - 1] < reaction.visit_probability(self.day + age, age)
            spread = (visit_times[came, age - 1] * DAY_US).astype(np.int64)
            parts.append((VISIT, units[came], (self.day + age) * DAY_US + spread))
        # Nobody unsubscribes before the first notification, the day after; the coin is about 7 days in all.
        for kind, did, start, end, moment in (
            (FINISH, finish < reaction.finish, arrivals, np.full(len(rows), morning + DAY_US), times[0]),
            (MUTE, mute < reaction.mute, arrivals, arrivals + 3 * HOUR_US, times[1]),
            (
                UNSUBSCRIBE,
                leave < reaction.unsubscribe,
                np.full(len(rows), morning),
                arrivals + 7 * DAY_US,
                times[2],
            ),
        ):
            room = (moment[rows] * (end - start)).astype(np.int64)
            parts.append((kind, units[did], (start + room)[did]))
        return Events.of(parts)

    def _settings(self, rows: Ints) -> tuple[Floats, Floats, Floats]:
        numbers = self.configuration[rows]
        weights = np.array([c.weights for c in self.configurations])[numbers]
        diversity = np.array([c.diversity for c in self.configurations])[numbers]
        throttle = np.array([c.throttle for c in self.configurations])[numbers]
        return weights, diversity, throttle

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, self.day * 16 + purpose + 1]))
