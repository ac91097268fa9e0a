"""A simulated production: it serves what is pushed, and answers polls with what its units did.

Target and source in one, on the seams of :mod:`blackopt.protocols`, so that the runner cannot tell it from a
real one. A window's time is cut into slices; a slice's units are drawn once, when they have matured, from
keys that do not depend on when anybody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from blackopt.campaign import Objective
from blackopt.metrics.kinds import Kind
from blackopt.protocols import Clock, PluginOptions, Policy
from blackopt.rehearsal.clock import MONDAY_US
from blackopt.rehearsal.faults import Fault, Faults
from blackopt.rehearsal.landscape import Landscape
from blackopt.rehearsal.levels import Stats, draw
from blackopt.rehearsal.world import DAY_US, Drift, World
from blackopt.types import (
    CONTROL,
    Adopt,
    Artifact,
    Live,
    NoReading,
    Outcome,
    Push,
    Query,
    Reading,
    Receipt,
    Vector,
    Withdraw,
)

SLICES = 4
"""Into how many parts each day of a window is cut, or a window that is shorter than a day."""

UNSEEN = 0.02
"""Part of a slice's units that is missing before its readings are restated."""

ALL = 1_000_000


@dataclass
class Arm:
    """One arm of a window.

    Attributes:
        part: of all units.
        vector: (n,) what it serves.
        trial: number; -1 for the control.
        served: spans of time, start and end in microseconds; the last may still move.
    """

    part: float
    vector: Vector
    trial: int
    served: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Exposed:
    """Units that were served candidates, as expected.

    Attributes:
        units: all of them.
        worse: those of a candidate that is truly worse than the control.
        lost, won: of the objective's sum, by candidates that are worse and better.
    """

    units: float = 0.0
    worse: float = 0.0
    lost: float = 0.0
    won: float = 0.0


class SimulatedProduction:
    """Production in memory.

    Args:
        world: what is assumed.
        truth: what candidates really do.
        policy: reads artifacts.
        clock: virtual time.
        faults: what goes wrong.
        kinds: of every metric.
        matures: when a metric of units exposed until a time has matured, by metric.
        objective: of the campaign; its surrogate follows it as the campaign says, errors included.
        seed: of the rehearsal.
    """

    Options: ClassVar[type[PluginOptions]] = PluginOptions
    MetricOptions: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(
        self,
        world: World,
        truth: Landscape,
        policy: Policy,
        clock: Clock,
        faults: Faults,
        kinds: Mapping[str, Kind],
        matures: Mapping[str, Callable[[int], int]],
        objective: Objective,
        *,
        seed: int,
    ) -> None:
        self._world, self._truth, self._policy, self._clock, self._faults = (
            world, truth, policy, clock, faults,
        )  # fmt: skip
        self._kinds, self._matures, self._objective, self._seed = kinds, matures, objective, seed
        self._drift = Drift(world.drift, seed)
        self._names = {name: i for i, name in enumerate(sorted(world.levels))}
        self.windows: dict[int, dict[str, Arm]] = {}
        self._live: dict[int, tuple[Push, int]] = {}
        self._withdrawn: set[int] = set()
        self._adopted: tuple[int, Artifact] | None = None
        self._control = truth.start
        self._units: dict[tuple[int, str, int], int] = {}
        self._drawn: dict[tuple[int, str, str, int], Stats] = {}
        self._counted: dict[tuple[int, str], int] = {}
        self._hidden: dict[tuple[int, str, str, int], int] = {}

    # -- target ----------------------------------------------------------------------------------------------

    def check(self) -> str:
        """It is always there."""
        return "simulated"

    def push(self, order: Push) -> Receipt:
        """Serve an arm, or renew its lease.

        Raises:
            RetriableError: a fault: it did not arrive, or its answer did not.
        """
        self._faults.before_order()
        if order.trial in self._withdrawn:
            return Receipt(Outcome.REFUSED, "withdrawn")
        first = order.trial not in self._live
        until_us = self._clock.now_us() + round(order.ttl_s * 1e6)
        self._live[order.trial] = (order, until_us)
        if order.placement is not None:
            self._serve(order, until_us)
        self._faults.after_order()
        return Receipt(Outcome.APPLIED if first else Outcome.REPEATED)

    def withdraw(self, order: Withdraw) -> Receipt:
        """Serve an arm no longer.

        Raises:
            RetriableError: as :meth:`push`.
        """
        self._faults.before_order()
        found = self._live.pop(order.trial, None)
        self._withdrawn.add(order.trial)
        if found is not None and found[0].placement is not None:
            span = self.windows[found[0].placement.window][order.arm].served[-1]
            span[1] = max(span[0], min(span[1], self._clock.now_us()))
        self._faults.after_order()
        return Receipt(Outcome.REPEATED if found is None else Outcome.APPLIED)

    def adopt(self, order: Adopt) -> Receipt:
        """Serve another incumbent from now on; windows that are open keep their control."""
        self._faults.before_order()
        self._adopted = (order.number, order.artifact)
        self._control = self._policy.parse(order.artifact)
        self._faults.after_order()
        return Receipt(Outcome.APPLIED)

    def incumbent(self, _campaign: str) -> tuple[int, str] | None:
        """What was adopted last."""
        return None if self._adopted is None else (self._adopted[0], self._adopted[1].sha256)

    def observe(self) -> list[Live]:
        """What is served now."""
        now_us = self._clock.now_us()
        return [
            Live(o.campaign, o.trial, o.arm, o.epoch, o.artifact.sha256, (until_us - now_us) / 1e6)
            for o, until_us in self._live.values()
            if until_us > now_us
        ]

    def _serve(self, order: Push, until_us: int) -> None:
        place = order.placement
        if place is None:
            return
        now_us = self._clock.now_us()
        arms = self.windows.setdefault(place.window, {})
        if CONTROL not in arms:
            width = (place.control.upper - place.control.lower) / ALL
            arms[CONTROL] = Arm(width, self._control, -1, [[0, 1 << 62]])
        if order.arm not in arms:
            vector = self._policy.parse(order.artifact)
            arms[order.arm] = Arm((place.slice.upper - place.slice.lower) / ALL, vector, order.trial)
        served = arms[order.arm].served
        if served and served[-1][1] >= now_us:
            served[-1][1] = until_us
        else:
            served.append([now_us, until_us])

    # -- source ----------------------------------------------------------------------------------------------

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """What has matured of a window, a reading for each metric, arm and day.

        Raises:
            RetriableError: a fault: nothing can be read now.
        """
        self._faults.poll()
        as_of_us = query.as_of_us
        if self._faults.strikes(Fault.LATE):
            as_of_us = max(query.start_us, as_of_us - (query.end_us - query.start_us) // 2)
        arms = self.windows.get(query.window, {})
        spans = list(slices(query.start_us, query.end_us))
        for metric in query.metrics:
            if metric not in self._world.levels:
                continue  # declared, and used by nothing in this campaign
            ripe = [i for i, (_, end_us) in enumerate(spans) if self._matures[metric](end_us) <= as_of_us]
            if not ripe:  # known, and nobody has matured: one reading says so
                empty = draw(
                    self._kinds[metric], self._world.levels[metric], 0, 1.0, np.random.default_rng(0)
                )
                yield Reading(metric, query.window, CONTROL, day_of(query.start_us), as_of_us, empty)
                continue
            for name in query.arms:
                if name in arms:
                    yield from self._arm(metric, query.window, name, [(i, spans[i]) for i in ripe], as_of_us)

    def close(self) -> None:
        """Nothing is held."""

    def _arm(
        self, metric: str, window: int, name: str, ripe: list[tuple[int, tuple[int, int]]], as_of_us: int
    ) -> Iterator[Reading]:
        days: dict[str, list[Stats]] = {}
        for index, span in ripe:
            days.setdefault(day_of(span[0]), []).append(self._slice(metric, window, name, index, span))
        for day, stats in days.items():
            pooled = self._kinds[metric].pool(stats) if len(stats) > 1 else stats[0]
            yield Reading(metric, window, name, day, as_of_us, pooled)

    def _slice(self, metric: str, window: int, name: str, index: int, span: tuple[int, int]) -> Stats:
        key = (window, name, metric, index)
        found = self._drawn.get(key)
        if found is None:
            found = self._drawn[key] = self._draw(key, span, 1.0)
            if self._faults.strikes(Fault.RESTATED):
                self._hidden[key] = self._clock.now_us()
        if self._hidden.get(key) == self._clock.now_us():  # the first look; the next one sees all
            return self._draw(key, span, 1.0 - UNSEEN)
        return found

    def _draw(self, key: tuple[int, str, str, int], span: tuple[int, int], seen: float) -> Stats:
        window, name, metric, index = key
        arm = self.windows[window][name]
        n = self._slice_units(window, name, index, span)
        rng = np.random.default_rng([self._seed, 4, window, arm.trial + 1, index, self._names[metric]])
        day = (span[0] - MONDAY_US) // DAY_US
        factor = self._drift.factor(metric, day) * self._effect(metric, arm, span[0])
        return draw(self._kinds[metric], self._world.levels[metric], int(n * seen), factor, rng)

    def _effect(self, metric: str, arm: Arm, at_us: int) -> float:
        """By what a metric's level is multiplied in an arm."""
        goal = self._objective
        lift = (1 if goal.maximizes else -1) * self._truth.lift(arm.vector, at_us)
        if metric == goal.metric:
            return max(0.0, 1.0 + lift)
        if goal.surrogate is not None and metric == goal.surrogate.metric:
            missed = np.random.default_rng([self._seed, 5, arm.trial + 1]).standard_normal()
            scale = self._mean(goal.metric), self._mean(metric)
            absolute = goal.effect == "absolute"
            wanted = lift * scale[0] if absolute else lift
            wanted -= goal.surrogate.error * missed if arm.trial >= 0 else 0.0
            return max(0.0, 1.0 + wanted / goal.surrogate.slope / (scale[1] if absolute else 1.0))
        return max(0.0, 1.0 + self._truth.harm(metric, arm.vector))

    def _mean(self, metric: str) -> float:
        return float(self._world.levels[metric].mean[0])

    def _slice_units(self, window: int, name: str, index: int, span: tuple[int, int]) -> int:
        """Units of an arm in a slice: as many as arrived while it was served, the same for every metric."""
        key = (window, name, index)
        found = self._units.get(key)
        if found is None:
            arm = self.windows[window][name]
            rng = np.random.default_rng([self._seed, 3, window, arm.trial + 1, index])
            found = self._units[key] = int(rng.poisson(self._expected(arm, span)))
        return found

    def _expected(self, arm: Arm, span: tuple[int, int]) -> float:
        served = sum(max(0, min(b, span[1]) - max(a, span[0])) for a, b in arm.served)
        return self._world.units(span[0], span[1], arm.part) * served / (span[1] - span[0])

    # -- what nobody in production would know ----------------------------------------------------------------

    def exposed(self, windows: Mapping[int, tuple[int, int]], until_us: int) -> Exposed:
        """What candidates did since the last call, in the slices that have ended, of windows (start, end)."""
        mean = abs(self._mean(self._objective.metric))
        units = worse = lost = won = 0.0
        for number, arms in self.windows.items():
            spans = list(slices(*windows[number]))
            ended = sum(end_us <= until_us for _, end_us in spans)
            for arm_name, arm in arms.items():
                counted = self._counted.get((number, arm_name), 0)
                self._counted[number, arm_name] = ended
                if arm_name == CONTROL:
                    continue
                for span in spans[counted:ended]:
                    n, lift = self._expected(arm, span), self._truth.effect(arm.vector, span[0])
                    units += n
                    worse += n if lift < 0.0 else 0.0
                    lost += n * mean * max(0.0, -lift)
                    won += n * mean * max(0.0, lift)
        return Exposed(units, worse, lost, won)


def slices(start_us: int, end_us: int) -> Iterator[tuple[int, int]]:
    """A window's time in parts that end with each day: :data:`SLICES` a day at most."""
    length = max(1, min(DAY_US, end_us - start_us) // SLICES)
    at_us = start_us
    while at_us < end_us:
        midnight_us = MONDAY_US + ((at_us - MONDAY_US) // DAY_US + 1) * DAY_US
        next_us = min(at_us + length, midnight_us, end_us)
        yield at_us, next_us
        at_us = next_us


def day_of(at_us: int) -> str:
    """The ISO date of a time."""
    return str(np.datetime64(at_us // DAY_US, "D"))
