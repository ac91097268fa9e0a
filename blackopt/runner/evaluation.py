"""Evaluations: one turn of a campaign whose candidates blackopt runs itself.

Nothing reaches production, so there is nothing to intend, fence or withdraw: a trial goes from ASKED to TOLD,
both in batches, one transaction each. What was started and not told when the process died is started again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blackopt.campaign import CampaignSpec
from blackopt.ledger import Driver
from blackopt.ledger.rows import Mode, NewTell, TrialRow, TrialState
from blackopt.metrics.kinds import kind
from blackopt.protocols import Evaluator, Policy
from blackopt.runner.budget import Left
from blackopt.runner.learner import Learner
from blackopt.runner.notices import Notice, Notify
from blackopt.types import NoReading, Push, Query, Reading, Status

VALUE = kind("value")


@dataclass
class EvaluationLane:
    """The steps of a campaign with an evaluator."""

    spec: CampaignSpec
    driver: Driver
    learner: Learner
    policy: Policy
    evaluator: Evaluator
    notify: Notify
    started: dict[int, TrialRow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ledger = self.driver.ledger
        self.troubles = 0
        self.busy = False

    def reconcile(self, now_us: int) -> None:  # noqa: ARG002 - the lane's signature
        """Start again what the ledger has as asked: an evaluation does not outlive its process."""
        for trial in self.ledger.trials(states=[TrialState.ASKED]):
            self._start(trial)

    def turn(self, now_us: int) -> None:
        """Collect what has finished, tell it, and ask for as much as there is room for."""
        self._collect(now_us)
        if self.ledger.campaign.mode is Mode.RUN:
            self._ask(now_us)

    def next_us(self, now_us: int) -> int | None:
        """At once while something runs: collecting waits by itself."""
        return now_us if self.started else None

    def _collect(self, now_us: int) -> None:
        if not self.started:
            return
        query = Query(self.spec.name, 0, (), 0, now_us, now_us, (self.spec.objective.metric,))
        tells: dict[int, NewTell] = {}
        for item in self.evaluator.read(query):
            number = int(item.arm.removeprefix("t"))
            if number in self.started:
                tells[number] = _tell(number, item)
        if not tells:
            return
        rows = self.learner.commit(self.driver, [tells[number] for number in sorted(tells)], now_us)
        for row in rows:
            del self.started[row.trial]
            data = {
                "trial": row.trial,
                "seq": row.seq,
                "status": str(row.status),
                "value": row.value,
                "se": row.se,
            }
            text = (
                f"{self.spec.objective.metric} {row.value:.6g}"
                if row.value is not None
                else tells[row.trial].cause
            )
            self.notify(Notice("told", f"t{row.trial} {row.status}: {text}", data))

    def _ask(self, now_us: int) -> None:
        left = Left.of(self.ledger, self.spec.budget)
        room = min(left.search, left.room)
        group = self.learner.optimizer.group
        room -= room % group if room > group else 0
        if room > 0:
            trials = self.learner.ask(room, left.next_number)
        elif left.search == 0 and left.searching == 0 and left.confirm > 0:
            trials = self.learner.confirmations(left.confirm, left.next_number)
        else:
            return
        self.driver.ask(trials, at_us=now_us)
        text = f"{trials[0].role}, {len(trials)} trial{'s' if len(trials) > 1 else ''}"
        self.notify(Notice("asked", text, {"trials": len(trials)}))
        for trial in self.ledger.trials(states=[TrialState.ASKED], first=trials[0].number):
            self._start(trial)

    def _start(self, trial: TrialRow) -> None:
        self.started[trial.number] = trial
        self.evaluator.push(
            Push(
                key=f"{self.ledger.campaign.uuid}|{trial.number}",
                campaign=self.spec.name,
                trial=trial.number,
                arm=trial.arm,
                epoch=self.driver.epoch,
                ttl_s=0.0,
                artifact=self.policy.render(trial.vector),
            )
        )


def _tell(number: int, item: Reading | NoReading) -> NewTell:
    if isinstance(item, NoReading):
        return NewTell(number, Status.FAILED, cause=item.cause)
    problem = VALUE.validate(item.stats)
    if problem is not None:
        return NewTell(number, Status.FAILED, cause=problem)
    # An evaluation is final when it arrives: the tell itself is the observation, and no reading is kept.
    estimate = VALUE.estimate(item.stats)
    return NewTell(number, Status.OK, value=estimate.value, se=estimate.se)
