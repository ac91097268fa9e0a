"""The only loop: a turn, then wait until the next step is due."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from blackopt.campaign import CampaignSpec
from blackopt.errors import ConfigurationError, GuardrailStop
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.rows import Mode, TrialState
from blackopt.protocols import Clock
from blackopt.runner.budget import Left
from blackopt.runner.learner import Learner
from blackopt.runner.notices import Notice, Notify
from blackopt.types import Status


class Lane(Protocol):
    """How trials live: in production, or in an evaluator."""

    @property
    def troubles(self) -> int:
        """Temporary failures in the last turn."""
        ...

    @property
    def busy(self) -> bool:
        """Whether something is under way that the budget does not count."""
        ...

    def reconcile(self, now_us: int) -> None:
        """Once a process, before the first turn."""
        ...

    def turn(self, now_us: int) -> None:
        """Take every step that is due."""
        ...

    def next_us(self, now_us: int) -> int | None:
        """When the next step is due; ``now_us`` for at once, None when nothing is open."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn left behind.

    Attributes:
        now_us: when it was.
        next_us: when the next step is due; None when there is none.
        done: the budget is spent and everything has been told.
        troubles: temporary failures that will be tried again.
    """

    now_us: int
    next_us: int | None
    done: bool
    troubles: int


@dataclass
class Runner:
    """Drives one campaign in this process."""

    spec: CampaignSpec
    driver: Driver
    learner: Learner
    lane: Lane
    clock: Clock
    notify: Notify

    def start(self, *, resume: bool = False) -> None:
        """Bring the ledger's mode and this process in step.

        Raises:
            GuardrailStop: the campaign is paused or stopped, and ``resume`` is not given.
        """
        now_us = self.clock.now_us()
        if self.learner.diverged:
            trials = self.learner.diverged
            self.driver.note("replay_divergence", {"trials": trials}, at_us=now_us)
            text = f"{len(trials)} candidates differ from this machine's arithmetic: the recorded ones stand"
            self.notify(Notice("divergence", text, {"trials": trials}))
        if self.learner.moved:
            versions = self.learner.moved
            self.driver.note("replay_divergence", {"centres": versions}, at_us=now_us)
            text = f"{len(versions)} centres differ from this machine's arithmetic: the published ones stand"
            self.notify(Notice("divergence", text, {"centres": versions}))
        mode = self.driver.ledger.campaign.mode
        if mode in (Mode.PAUSED, Mode.STOPPED):
            if not resume:
                raise _paused(self.spec, mode)
            self.driver.set_mode(Mode.RUN, cause="resumed by a person", at_us=now_us)
        self.wake()
        self.lane.reconcile(now_us)

    def wake(self) -> None:
        """Let a campaign that was done run again, where its budget or a promotion has brought new work."""
        if self.driver.ledger.campaign.mode is not Mode.DONE:
            return
        now_us = self.clock.now_us()
        if not Left.of(self.driver.ledger, self.spec.budget).nothing:
            require_search(self.spec, self.driver.ledger)
            self.driver.set_mode(Mode.RUN, cause="the budget was extended", at_us=now_us)
        elif self.lane.busy:
            self.driver.set_mode(Mode.RUN, cause="a promotion is under way", at_us=now_us)

    def turn(self) -> Turn:
        """One turn at the clock's time.

        Raises:
            GuardrailStop: this turn paused the campaign.
        """
        now_us = self.clock.now_us()
        self.lane.turn(now_us)
        mode = self.driver.ledger.campaign.mode
        if mode is Mode.PAUSED:
            raise _paused(self.spec, mode)
        done = mode is Mode.DONE
        if not done and not self.lane.busy and Left.of(self.driver.ledger, self.spec.budget).nothing:
            self.learner.snapshot(self.driver)
            self.driver.set_mode(Mode.DONE, cause="the budget is spent", at_us=now_us)
            self.notify(Notice("done", "the budget is spent and every trial is told"))
            done = True
        next_us = None if done else self.lane.next_us(now_us)
        self.notify(Notice("turn", "", self._standing(now_us, next_us)))
        return Turn(now_us, next_us, done, self.lane.troubles)

    def _standing(self, now_us: int, next_us: int | None) -> dict[str, object]:
        counts = self.driver.ledger.counts()
        told = counts[TrialState.TOLD]
        return {
            "told": told,
            "of": max(self.spec.budget.trials + self.spec.budget.confirm, counts["trials"]),
            "live": counts[TrialState.LIVE],
            "maturing": counts[TrialState.AWAITING],
            "failed": told - counts[f"told.{Status.OK}"],
            "now_us": now_us,
            "next_us": next_us,
        }

    def run(self) -> None:
        """Turn after turn until the campaign is done; an interrupt loses nothing."""
        while not (turn := self.turn()).done:
            if turn.next_us is None:
                raise RuntimeError("nothing is open, nothing is left, and the campaign is not done")
            if turn.next_us > turn.now_us:
                self.clock.wait_until(turn.next_us)


def require_search(spec: CampaignSpec, ledger: Ledger) -> None:
    """Refuse to search on from a recommendation that has become the incumbent.

    Raises:
        ConfigurationError: it has; what was told so far is relative to the incumbent before.
    """
    if any(row.state.adopted for row in ledger.promotions()):
        raise ConfigurationError(
            f"campaign {spec.name} has promoted its recommendation: its search is over",
            where=spec.file,
            why="what was told so far is relative to the former incumbent",
            safe="nothing was asked; production serves the new incumbent",
            next_step="start a new campaign whose `start` is the new incumbent (`blackopt best`)",
        )


def _paused(spec: CampaignSpec, mode: Mode) -> GuardrailStop:
    return GuardrailStop(
        f"campaign {spec.name} is {mode}",
        safe="no candidate of it is pushed; production serves the incumbent; no result on its way is lost",
        next_step="look at `blackopt trials`, then `blackopt run --resume`",
    )
