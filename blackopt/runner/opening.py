"""Which window opens next in a search, and what a new window is: arms and a control that start together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blackopt.campaign import CampaignSpec, Schedule, TrafficSpec
from blackopt.campaign.units import whole_weeks
from blackopt.ledger import Driver
from blackopt.ledger.rows import CentreRow, NewTrial, WindowRow
from blackopt.runner.budget import Left
from blackopt.runner.hours import opens_us
from blackopt.runner.learner import Learner
from blackopt.runner.notices import Notice, Notify
from blackopt.traffic import allocate
from blackopt.types import Role, Slice

HALF = 500_000
"""Of the traffic of a confirmation, in millionths, that is the control."""


@dataclass
class Opening:
    """Opens windows: the search's by its budget, and whatever else asks for one."""

    spec: CampaignSpec
    schedule: Schedule
    traffic: TrafficSpec
    driver: Driver
    learner: Learner
    notify: Notify

    def allowed_us(self, now_us: int) -> int:
        """``now_us``, or the end of the quiet time that it lies in."""
        return opens_us(self.schedule.quiet, now_us)

    def search(self, now_us: int) -> None:
        """Open the next window of the search, or the next confirmation, where the budget has one."""
        left = Left.of(self.driver.ledger, self.spec.budget)
        wanted = min(self.traffic.arms, left.search)
        room = min(wanted, left.room)
        group = self.learner.optimizer.group
        room -= room % group if room > group else 0
        # A window with few arms costs a whole control: wait for room, unless nothing else could bring it.
        if room > 0 and (room >= wanted - wanted % group or left.in_flight == 0):
            control, slices = allocate(self.traffic.share, self.traffic.control, room)
            trials = self.learner.ask(room, left.next_number)
            self.window(trials, Role.SEARCH, control, slices, now_us, until_us=now_us + self.schedule.window)
        elif left.search == 0 and left.searching == 0 and left.confirm > 0:
            control, slices = allocate(self.traffic.share, HALF, 1)
            length = self.schedule.window
            length = whole_weeks(length) if self.schedule.whole_weeks else length
            trials = self.learner.confirmations(1, left.next_number)
            self.window(trials, Role.CONFIRM, control, slices, now_us, until_us=now_us + length)

    def window(
        self,
        trials: Sequence[NewTrial],
        role: Role,
        control: Slice,
        slices: Sequence[Slice],
        now_us: int,
        *,
        until_us: int,
        salt: str = "",
    ) -> None:
        """Write a window and its trials; they are pushed later in the same turn.

        Args:
            trials: one for each slice.
            role: of all of them.
            control, slices: how the traffic is cut.
            now_us, until_us: the window.
            salt: of the assignment; a new one for every window where it is empty.
        """
        number = len(self.driver.ledger.windows()) + 1
        window = WindowRow(
            number=number,
            role=role,
            salt=salt or f"{self.spec.optimizer.options.seed}.{number}",
            start_us=now_us,
            end_us=until_us,
            control=control,
        )
        deadline_us = window.end_us + self.schedule.deadline
        placed = [
            replace(trial, window=number, slice=part, deadline_us=deadline_us)
            for trial, part in zip(trials, slices, strict=True)
        ]
        self.driver.ask(placed, window=window, centre=self._centre(placed[0]), at_us=now_us)
        arms = f"{len(placed)} arm{'s' if len(placed) > 1 else ''}"
        data = {"window": number, "arms": len(placed)}
        self.notify(Notice("asked", f"window {number}: {role}, {arms}", data))

    def _centre(self, trial: NewTrial) -> CentreRow | None:
        """What the keys that were drawn now are relative to, in the store before their trials are written."""
        centres = self.learner.centres
        if centres is None or trial.key is None:
            return None
        recorded = next((row for row in self.driver.ledger.centres() if row.version == trial.version), None)
        return centres.published(trial.version, self.learner.recommend(), recorded)
