"""The users who first open the app on one calendar day, and what becomes of them.

Every coin of a cohort is drawn from a generator keyed by (seed, day): nothing depends on when or in which
steps the simulation is advanced, nor on which process does it.
"""

from __future__ import annotations

import numpy as np

from retention_app import behaviour, pipeline
from retention_app.pipeline import INCUMBENT, Configuration, Floats, Ints

DAY_US = 86_400_000_000
UNITS_A_DAY = 1_000_000
"""Room for unit numbers: user i of day d is unit ``d * UNITS_A_DAY + i``."""

KINDS = ("visit", "unsubscribe")


class Cohort:
    """The users of one day.

    Args:
        seed: of the simulation.
        day: days since 1970-01-01.
        size: how many users.

    Attributes:
        arrivals: (size,) first opens, microseconds since 1970, ascending.
        configuration: (size,) number of the configuration that each user got; index into ``configurations``.
        exposed: (size,) whether the user is in an experiment, so that the log follows what it does.
    """

    def __init__(self, seed: int, day: int, size: int) -> None:
        self.seed, self.day = seed, day
        # More people open a new app in the afternoon and evening than at night.
        share = self._generator(0).beta(2.2, 1.6, size=size)
        self.arrivals: Ints = np.sort(day * DAY_US + (share * DAY_US).astype(np.int64).clip(0, DAY_US - 1))
        self.configuration = np.zeros(size, dtype=np.int64)
        self.exposed = np.zeros(size, dtype=np.bool_)
        self.configurations: list[Configuration] = [INCUMBENT]
        self._numbers = {id(INCUMBENT): 0}  # the list above keeps them alive, so an id stays taken
        self._events: tuple[Ints, Ints, Ints] | None = None

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

        Only to be called when the cohort's day is over: by then every user has been served.
        """
        if not self.exposed.any():
            return []
        if self._events is None:
            self._events = self._draw_events()
        times, units, kinds = self._events
        low, high = np.searchsorted(times, [start_us, end_us])
        found = zip(units[low:high].tolist(), kinds[low:high].tolist(), times[low:high].tolist(), strict=True)
        return [(unit, KINDS[kind], t_us) for unit, kind, t_us in sorted(found)]

    def _draw_events(self) -> tuple[Ints, Ints, Ints]:
        """All events of the cohort's exposed users: times (ascending), units and kinds."""
        n = len(self)
        draw = self._generator(1)
        users = pipeline.draw_users(draw, n)
        visit_coins, visit_times = draw.random((n, behaviour.DAYS)), draw.random((n, behaviour.DAYS))
        leave_coins, leave_times = draw.random(n), draw.random(n)

        reaction = behaviour.react(users, *self._settings())
        times, rows, kinds = [], [], []
        for age in range(1, behaviour.DAYS + 1):
            probability = reaction.visit_probability(self.day + age, age)
            came = np.flatnonzero(self.exposed & (visit_coins[:, age - 1] < probability))
            times.append((self.day + age) * DAY_US + (visit_times[came, age - 1] * DAY_US).astype(np.int64))
            rows.append(came)
            kinds.append(np.zeros(len(came), dtype=np.int64))
        # Nobody unsubscribes before the first notification, the day after; the coin is about 7 days in all.
        left = np.flatnonzero(self.exposed & (leave_coins < reaction.unsubscribe))
        morning = (self.day + 1) * DAY_US
        room = self.arrivals[left] + 7 * DAY_US - morning
        times.append(morning + (leave_times[left] * room).astype(np.int64))
        rows.append(left)
        kinds.append(np.ones(len(left), dtype=np.int64))

        all_times, all_rows, all_kinds = np.concatenate(times), np.concatenate(rows), np.concatenate(kinds)
        order = np.lexsort((all_kinds, all_rows, all_times))
        return all_times[order], all_rows[order] + self.day * UNITS_A_DAY, all_kinds[order]

    def _settings(self) -> tuple[Floats, Floats, Floats]:
        weights = np.array([c.weights for c in self.configurations])[self.configuration]
        diversity = np.array([c.diversity for c in self.configurations])[self.configuration]
        throttle = np.array([c.throttle for c in self.configurations])[self.configuration]
        return weights, diversity, throttle

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, self.day * 16 + purpose + 1]))
