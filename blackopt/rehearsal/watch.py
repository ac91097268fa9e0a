"""Follows a rehearsal, and knows what nobody in production would: the truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec
from blackopt.errors import BlackoptError, GuardrailStop
from blackopt.ledger.rows import TellRow
from blackopt.rehearsal.clock import VirtualClock
from blackopt.rehearsal.faults import Faults
from blackopt.rehearsal.landscape import WEEK_US, Landscape
from blackopt.rehearsal.outcome import Measured, Point, Rehearsal, Week
from blackopt.rehearsal.production import SimulatedProduction
from blackopt.rehearsal.world import DAY_US, World
from blackopt.runner.assembly import Parts
from blackopt.runner.loop import Runner
from blackopt.runner.notices import Notice
from blackopt.runner.promoting import begin
from blackopt.runner.results import results
from blackopt.types import Role, Status, Vector


@dataclass(frozen=True, slots=True)
class Yardstick:
    """From what a campaign says of its objective to an improvement over the control.

    Attributes:
        sign: 1 where more is better, -1 where less is.
        compared, relative: values are effects; as parts of the control.
        base: the control's level.
    """

    sign: int
    compared: bool
    relative: bool
    base: float

    def lift(self, value: float) -> float:
        """The improvement that a told value is, as a fraction."""
        if self.compared:
            return self.sign * value * self.scale
        return self.sign * (value / self.base - 1.0)

    @property
    def scale(self) -> float:
        """By what an error is multiplied."""
        return 1.0 if self.compared and self.relative else 1.0 / abs(self.base)


class Watch:
    """Follows a rehearsal, and knows what nobody in production would."""

    def __init__(
        self,
        spec: CampaignSpec,
        world: World,
        truth: Landscape,
        production: SimulatedProduction,
        faults: Faults,
        parts: Parts,
    ) -> None:
        self._truth, self._parts = truth, parts
        self._production, self._faults = production, faults
        self._weeks: list[Week] = []
        self._points: list[Point] = []
        self._measured: list[Measured] = []
        self._windows: dict[int, tuple[int, int]] = {}
        self._seen = [0, 0, 0, 0]  # windows, tells, stopped, faults at the end of the last week
        self._ended = "the budget was spent"
        self._spec = spec
        self._start_us = parts.clock.now_us()
        objective = spec.objective
        self._yardstick = Yardstick(
            1 if objective.maximizes else -1,
            objective.relative_to is not None,
            objective.effect == "relative",
            float(world.levels[objective.metric].mean[0]),
        )

    def notice(self, notice: Notice) -> None:
        """Of all that the runner says, only why it paused is not in a row of the ledger."""
        if notice.kind == "paused":
            self._ended = f"paused: {notice.text}"

    def follow(self, runner: Runner, clock: VirtualClock, end_us: int, *, promote: bool) -> None:
        """Turn after turn, with a look at each tell and each week's end; then, if wanted, a promotion."""
        self._runner, self._ledger = runner, runner.driver.ledger
        runner.start()
        week_us, tells = self._start_us + WEEK_US, 0
        self._point(clock.now_us())
        while True:
            try:
                turn = runner.turn()
            except GuardrailStop:
                break  # a person must look: nobody does, in a rehearsal
            told = self._ledger.tells(after=tells)
            if told:
                tells = told[-1].seq
                self._told(told, turn.now_us)
            if turn.done:
                if promote and self._begin(runner, turn.now_us):
                    promote = False
                    continue
                break
            if turn.next_us is None or turn.next_us >= end_us:
                self._ended = "its time was up"
                break
            while turn.next_us >= week_us:
                self._week(week_us)
                week_us += WEEK_US
            clock.wait_until(turn.next_us)
        if clock.now_us() < end_us and self._ended == "its time was up":
            clock.wait_until(end_us)
        self._now_us = clock.now_us()
        if self._now_us > week_us - WEEK_US or not self._weeks:
            self._week(self._now_us)

    def _begin(self, runner: Runner, now_us: int) -> bool:
        """Whether a promotion has begun."""
        try:
            begin(self._spec, runner.driver, runner.learner, self._parts.policy, at_us=now_us)
        except BlackoptError as error:
            self._ended = f"{error.what}: {error.why}"
            return False
        runner.wake()
        return True

    def found(self, seed: int) -> Rehearsal:
        """Everything, at the end."""
        end = results(self._parts, self._ledger)
        if end.promotion is not None:
            self._ended = f"promotion: {end.promotion.text}"
        point = self._point(self._now_us, end.recommendation)
        interval = None
        if end.interval is not None:
            first, second = (self._yardstick.lift(value) for value in end.interval)
            interval = (min(first, second), max(first, second))
        return Rehearsal(
            seed=seed,
            ended=self._ended,
            days=self._day(self._now_us),
            weeks=tuple(self._weeks),
            points=tuple(self._points),
            measured=tuple(self._measured),
            faults=tuple((self._day(at_us), fault) for at_us, fault in self._faults.seen),
            true=point.true,
            possible=point.possible,
            estimate=None if end.estimate is None else self._yardstick.lift(end.estimate.value),
            interval=interval,
            proven=end.proven,
            stopped=end.stopped,
            told=sum(week.told for week in self._weeks),
            promotion=None if end.promotion is None else end.promotion.state,
        )

    def _told(self, tells: Sequence[TellRow], now_us: int) -> None:
        """A window that was told: its mean, and what the recommendation is worth after it."""
        by_window: dict[int, list[TellRow]] = {}
        for tell in tells:
            if tell.value is not None and tell.status is Status.OK and tell.role is not Role.HOLDBACK:
                by_window.setdefault(self._ledger.trial(tell.trial).window or 0, []).append(tell)
        for mine in by_window.values():
            values = [self._yardstick.lift(t.value) for t in mine if t.value is not None]
            se = self._spread(mine)
            mean = sum(values) / len(values)
            self._measured.append(
                Measured(self._day(now_us), mean, se, mine[0].role in (Role.CONFIRM, Role.TEST))
            )
        self._point(now_us)

    def _spread(self, tells: Sequence[TellRow]) -> float | None:
        """Standard error of the mean of a window's arms.

        They share their control, whose part s = n_arm/(n_arm + n_control) of each arm's variance does not
        become less with their number: Var = V·(s + (1 − s)/k).
        """
        squares = [t.se**2 for t in tells if t.se is not None]
        trial = self._ledger.trial(tells[0].trial)
        window = next((w for w in self._ledger.windows() if w.number == trial.window), None)
        if not squares or trial.slice is None or window is None:
            return None
        arm, control = (part.upper - part.lower for part in (trial.slice, window.control))
        shared = arm / (arm + control) if control and self._yardstick.compared else 0.0
        variance = sum(squares) / len(squares) * (shared + (1.0 - shared) / len(squares))
        return self._yardstick.scale * math.sqrt(variance)

    def _point(self, now_us: int, vector: Vector | None = None) -> Point:
        point = Point(self._day(now_us), self._worth(now_us, vector), self._truth.possible(now_us))
        self._points.append(point)
        return point

    def _worth(self, now_us: int, vector: Vector | None = None) -> float:
        """True improvement of what would be served for the recommendation."""
        vector = self._runner.learner.recommend() if vector is None else vector
        policy = self._parts.policy
        return self._truth.effect(policy.parse(policy.render(vector)), now_us)

    def _week(self, end_us: int) -> None:
        windows = self._ledger.windows()
        self._windows = {w.number: (w.start_us, w.end_us) for w in windows}
        tells = self._ledger.tells()
        stopped = sum(t.status is Status.INFEASIBLE for t in tells)
        now = [len(windows), len(tells), stopped, len(self._faults.seen)]
        opened, told, halted, faults = (a - b for a, b in zip(now, self._seen, strict=True))
        self._seen = now
        exposed = self._production.exposed(self._windows, end_us)
        standing = results(self._parts, self._ledger)
        self._weeks.append(
            Week(
                number=len(self._weeks) + 1,
                windows=opened,
                told=told,
                stopped=halted,
                estimate=None if standing.estimate is None else self._yardstick.lift(standing.estimate.value),
                true=self._worth(end_us),
                possible=self._truth.possible(end_us),
                exposed=exposed.units,
                worse=exposed.worse,
                lost=exposed.lost,
                won=exposed.won,
                faults=faults,
            )
        )

    def _day(self, at_us: int) -> float:
        return (at_us - self._start_us) / DAY_US
