"""From the recommendation to the incumbent: test, ramp, adoption, holdback; and the way back.

Every share of traffic that a promotion takes is a window with a trial, pushed, leased, guarded, measured and
told like those of the search, so nothing here talks to production or remembers anything: it decides from the
ledger which state the promotion is in and which window is next. Its trials are never told to the optimizer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from blackopt.campaign import CampaignSpec, PromotionSpec
from blackopt.errors import BlackoptError, ConfigurationError
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.rows import (
    Mode,
    NewTell,
    NewTrial,
    PromotionRow,
    PromotionState,
    ReadingRow,
    TrialRow,
    TrialState,
)
from blackopt.metrics.promotion import Ruling
from blackopt.protocols import Policy
from blackopt.runner.budget import Left
from blackopt.runner.centres import vector_sha
from blackopt.runner.guard import BREACH, SILENT
from blackopt.runner.judge import Judge
from blackopt.runner.learner import Learner
from blackopt.runner.newest import Newest
from blackopt.runner.notices import Notice, Notify
from blackopt.runner.opening import Opening
from blackopt.runner.outbox import WORDS, Outbox
from blackopt.runner.proof import plan_of, proof, trials_of
from blackopt.traffic import allocate
from blackopt.types import CONTROL, Role, Slice, Status, Vector

ALL = 1_000_000
"""Every unit, in the millionths that slices are cut in."""

ATTEMPTS = 3
"""How often a step of the ramp is tried again that production did not serve."""

ROLES = (Role.TEST, Role.RAMP, Role.HOLDBACK)
IN_TRAFFIC = (TrialState.PUSHING, TrialState.LIVE)

_CUT_SHORT = ("guardrail", "refused", "stopped")  # how the cause of a trial begins whose window had not ended


def current(ledger: Ledger) -> PromotionRow | None:
    """The newest promotion."""
    return rows[-1] if (rows := ledger.promotions()) else None


def served(ledger: Ledger, row: PromotionRow, now_us: int | None = None) -> list[TrialRow]:
    """Steps of the ramp that were served to the end of their windows, closed or over by ``now_us``."""
    ends = {window.number: window.end_us for window in ledger.windows()}
    return [
        trial
        for trial in trials_of(ledger, row, Role.RAMP)
        if trial.live_us is not None
        and not trial.cause.startswith(_CUT_SHORT)
        and (trial.state not in IN_TRAFFIC or (now_us is not None and ends[trial.window or 0] <= now_us))
    ]


def begin(spec: CampaignSpec, driver: Driver, learner: Learner, policy: Policy, *, at_us: int) -> None:
    """Write that the recommendation is to be promoted; nothing if that is under way or done already.

    :meth:`blackopt.runner.loop.Runner.wake`, which follows, brings the campaign's mode in step: two facts,
    and a process may die in between.

    Raises:
        ConfigurationError: this campaign cannot promote.
        BlackoptError: its recommendation cannot be promoted now, or not again.
    """
    ledger, row = driver.ledger, current(driver.ledger)
    if row is not None and row.state not in (PromotionState.REFUSED, PromotionState.REVERTED):
        return
    if spec.promotion is None or spec.objective.relative_to is None:
        raise ConfigurationError(
            f"campaign {spec.name} cannot promote its recommendation",
            where=spec.file,
            why="it is not measured against a control in production",
            safe="nothing was changed",
            next_step="add `relative_to: control` to `objective` in a new campaign",
        )
    left, vector = Left.of(ledger, spec.budget), learner.recommend()
    if why := _too_early(ledger, left) or _pointless(ledger, vector, policy.start()):
        raise BlackoptError(
            "the recommendation is not promoted",
            where=f"campaign {spec.name}",
            why=why,
            safe="nothing was changed; production serves the incumbent",
            next_step="`blackopt best` shows the recommendation, `blackopt status` what is left to do",
        )
    driver.start_promotion(vector, dataclasses.asdict(spec.promotion), at_us=at_us)


def take_back(driver: Driver, *, cause: str, at_us: int) -> bool:
    """Start the way back of the newest promotion; False where there is nothing to take back."""
    row = current(driver.ledger)
    if row is None or row.state in (PromotionState.REFUSED, PromotionState.REVERTED):
        return False
    if row.state is not PromotionState.REVERTING:
        driver.move_promotion(row.number, PromotionState.REVERTING, cause=cause, at_us=at_us)
    if driver.ledger.campaign.mode is Mode.DONE:
        driver.set_mode(Mode.RUN, cause="a promotion is taken back", at_us=at_us)
    return True


def _too_early(ledger: Ledger, left: Left) -> str:
    if left.search or left.confirm or left.in_flight:
        parts = (("to ask", left.search + left.confirm), ("not told", left.in_flight))
        return "the search has not ended: " + ", ".join(f"{n} trials are {what}" for what, n in parts if n)
    if not any(t.role is Role.SEARCH and t.status is Status.OK for t in ledger.tells()):
        return "no result of the search has been told"
    return ""


def _pointless(ledger: Ledger, vector: Vector, start: Vector) -> str:
    if vector_sha(vector) == vector_sha(start):
        return "it is the incumbent"
    for row in ledger.promotions():
        if row.vector_sha == vector_sha(vector) and row.state is PromotionState.REFUSED:
            return f"promotion {row.number} tested it already; repeating until it passes proves nothing"
        if row.vector_sha == vector_sha(vector) and row.cause.startswith((BREACH, SILENT)):
            return f"promotion {row.number} was taken back: {row.cause}"
    again = [t for t in ledger.tells() if t.role is Role.CONFIRM and t.status is Status.INFEASIBLE]
    last = ledger.trial(again[-1].trial) if again else None
    if last is not None and last.vector_sha == vector_sha(vector):
        return f"a guardrail stopped it when it was measured again: {last.cause}"
    return ""


@dataclass
class Promoter:
    """The steps of the newest promotion, as a part of every turn in production."""

    spec: CampaignSpec
    driver: Driver
    learner: Learner
    policy: Policy
    judge: Judge
    opening: Opening
    outbox: Outbox
    notify: Notify

    def __post_init__(self) -> None:
        self.ledger = self.driver.ledger

    @property
    def busy(self) -> bool:
        """Whether a promotion is under way: then nothing else opens a window."""
        row = current(self.ledger)
        return row is not None and row.state.open

    def advance(self, now_us: int) -> None:
        """Take every change of state that the ledger allows now; deliver an adoption that is due."""
        steps: Mapping[PromotionState, Callable[[PromotionRow, int], bool]] = {
            PromotionState.TESTING: self._test,
            PromotionState.RAMPING: self._ramp,
            PromotionState.HOLDING: self._hold,
            PromotionState.REVERTING: self._revert,
        }
        while (row := current(self.ledger)) is not None and self._goes_on(row):
            step = steps.get(row.state)
            if step is None or not step(row, now_us):
                break
        if row is not None and self._goes_on(row):
            self.outbox.adopt(now_us)

    def _goes_on(self, row: PromotionRow) -> bool:
        """A campaign that was paused or stopped adopts nothing; the way back is open all the same."""
        running = self.ledger.campaign.mode is Mode.RUN
        return row.state.open and (running or row.state is PromotionState.REVERTING)

    def edited(self) -> str:
        """What to say where the campaign's ``promotion`` is not what the one under way was started with."""
        row = current(self.ledger)
        if row is None or not row.state.open or self.spec.promotion in (None, plan_of(row)):
            return ""
        return f"`promotion` was edited; promotion {row.number} goes on as it was started"

    def open(self, now_us: int) -> None:
        """Open the promotion's next window, where nothing of the campaign is in traffic."""
        row = current(self.ledger)
        if row is None or not row.state.open:
            return
        plan, salt = plan_of(row), f"{self.spec.optimizer.options.seed}.p{row.number}"
        if row.state is PromotionState.TESTING:
            found = proof(self.spec, self.judge, self.ledger, row)
            if found.valid + found.waiting >= plan.looks:
                return
            share = self.opening.traffic.share
            control, [arm] = allocate(share, ALL - plan.share, 1)
            self._open(Role.TEST, row.vector, control, arm, now_us, now_us + plan.window)
        elif row.state is PromotionState.RAMPING:
            # One salt for all steps, and slices that grow: whoever got the recommendation keeps it.
            share = plan.ramp[len(served(self.ledger, row, now_us))]
            until_us = self.opening.allowed_us(now_us + plan.step)  # the next step may start at once
            arm, control = Slice(0, share), Slice(ALL - share, ALL)
            self._open(Role.RAMP, row.vector, control, arm, now_us, until_us, salt)
        elif row.state is PromotionState.HOLDING and self._holdback_is_due(row, plan):
            # The far end of the same cut: no step of the ramp reached these units.
            arm = Slice(ALL - plan.holdback, ALL)
            control = Slice(ALL - 2 * plan.holdback, ALL - plan.holdback)
            until_us = now_us + plan.holdback_for
            self._open(Role.HOLDBACK, self.policy.start(), control, arm, now_us, until_us, salt)

    def next_us(self, now_us: int) -> int | None:
        """When a step is due that no open trial brings about; None where there is none."""
        row = current(self.ledger)
        if row is None or not row.state.open:
            return None
        due = self.outbox.adoption_us()
        if due is not None:
            return due
        open_trials = trials_of(self.ledger, row, *ROLES)
        if any(t.state is not TrialState.TOLD for t in open_trials):
            return None
        return self.opening.allowed_us(now_us + 1)

    # -- states: each returns whether it left its state ------------------------------------------------------

    def _test(self, row: PromotionRow, now_us: int) -> bool:
        if harm := _harm(trials_of(self.ledger, row, Role.TEST)):
            return self._move(row, PromotionState.REFUSED, harm, now_us)
        found = proof(self.spec, self.judge, self.ledger, row)
        if len(found.lost) > plan_of(row).looks:
            why = f"{len(found.lost)} looks gave no value, the last because: {found.lost[-1]}"
            return self._move(row, PromotionState.REFUSED, why, now_us)
        decision = found.ruling
        if decision is None:
            return False
        if decision.outcome is Ruling.PROMOTE:
            return self._move(row, PromotionState.RAMPING, decision.reason, now_us)
        enough = "" if decision.enough is None else f"; {decision.enough.text}"
        return self._move(row, PromotionState.REFUSED, f"{decision.reason}{enough}", now_us)

    def _ramp(self, row: PromotionRow, now_us: int) -> bool:
        trials, plan = trials_of(self.ledger, row, Role.RAMP), plan_of(row)
        if harm := _harm(trials) or _unservable(trials):
            return self._move(row, PromotionState.REVERTING, harm, now_us)
        if len(served(self.ledger, row, now_us)) < len(plan.ramp) or self.opening.allowed_us(now_us) > now_us:
            return False
        self._adopt(row, row.vector, PromotionState.ADOPTING, row.cause, now_us)
        return True

    def _hold(self, row: PromotionRow, now_us: int) -> bool:
        harm = _harm(trials_of(self.ledger, row, Role.RAMP)) or self._harm_beside_holdback(row)
        if harm:
            return self._move(row, PromotionState.REVERTING, harm, now_us)
        trials = trials_of(self.ledger, row, *ROLES)
        if self._holdback_is_due(row, plan_of(row)) or any(t.state is not TrialState.TOLD for t in trials):
            return False
        return self._move(row, PromotionState.DONE, row.cause, now_us)

    def _revert(self, row: PromotionRow, now_us: int) -> bool:
        self._clear(row, row.cause, now_us)
        orders = [order for order in self.ledger.incumbents() if order.promotion == row.number]
        if orders and orders[-1].vector_sha == row.vector_sha:
            self._adopt(row, self.policy.start(), PromotionState.REVERTING, row.cause, now_us)
            return True
        trials = trials_of(self.ledger, row, *ROLES)
        leaving = any(t.state in (*IN_TRAFFIC, TrialState.WITHDRAWING) for t in trials)
        if orders or leaving:
            return False  # the answer to the last order, or to a withdrawal, ends it
        return self._move(row, PromotionState.REVERTED, row.cause, now_us)

    # -- what the ledger says --------------------------------------------------------------------------------

    def _holdback_is_due(self, row: PromotionRow, plan: PromotionSpec) -> bool:
        return plan.holdback > 0 and not trials_of(self.ledger, row, Role.HOLDBACK)

    def _harm_beside_holdback(self, row: PromotionRow) -> str:
        """The guardrails with the former incumbent in the control's place."""
        for trial in trials_of(self.ledger, row, Role.HOLDBACK):
            rows = Newest(_swapped(self.ledger.latest(trial.window or 0), trial.arm))
            if breach := self.judge.guard.tested(trial, rows):
                return f"{breach}, beside the holdback"
        return ""

    # -- steps -----------------------------------------------------------------------------------------------

    def _move(self, row: PromotionRow, to: PromotionState, cause: str, now_us: int) -> bool:
        self.driver.move_promotion(row.number, to, cause=cause, at_us=now_us)
        self.notify(_notice(row, to, cause))
        if to is PromotionState.RAMPING or to is PromotionState.REFUSED:
            self._clear(row, "the test has been decided", now_us)
        return True

    def _adopt(self, row: PromotionRow, vector: Vector, to: PromotionState, cause: str, now_us: int) -> None:
        artifact = self.outbox.incumbent(len(self.ledger.incumbents()) + 1, vector)
        self.driver.adopt(row.number, vector, artifact_sha=artifact.sha256, to=to, cause=cause, at_us=now_us)
        self.notify(_notice(row, to, cause))

    def _clear(self, row: PromotionRow, cause: str, now_us: int) -> None:
        """Take the promotion's arms out of traffic."""
        trials = trials_of(self.ledger, row, *ROLES)
        if asked := [t.number for t in trials if t.state is TrialState.ASKED]:
            voids = [NewTell(number, Status.VOID, cause=cause) for number in asked]
            self.learner.commit(self.driver, voids, now_us)
        if live := [t.number for t in trials if t.state in IN_TRAFFIC]:
            self.driver.close(live, cause=cause, at_us=now_us)

    def _open(
        self,
        role: Role,
        vector: Vector,
        control: Slice,
        arm: Slice,
        now_us: int,
        until_us: int,
        salt: str = "",
    ) -> None:
        number, told = self.ledger.counts()["trials"], self.learner.applied
        trial = NewTrial(number, None, role, told, told, vector)
        self.opening.window([trial], role, control, [arm], now_us, until_us=until_us, salt=salt)


def _harm(trials: Sequence[TrialRow]) -> str:
    """Why a guardrail stopped one of them; empty where none did."""
    return next((t.cause for t in trials if t.cause.startswith((BREACH, SILENT))), "")


def _unservable(trials: Sequence[TrialRow]) -> str:
    refused = next((t.cause for t in trials if t.cause.startswith("refused")), "")
    never = [t for t in trials if t.state is TrialState.TOLD and t.live_us is None]
    if not refused and len(never) > ATTEMPTS:
        return f"production did not serve {len(never)} steps of the ramp, the last because: {never[-1].cause}"
    return refused


def _swapped(rows: Sequence[ReadingRow], arm: str) -> Iterator[ReadingRow]:
    """The same readings with the arm and the control in each other's place."""
    other = {arm: CONTROL, CONTROL: arm}
    for row in rows:
        name = other.get(row.reading.arm, row.reading.arm)
        yield replace(row, reading=replace(row.reading, arm=name))


def _notice(row: PromotionRow, to: PromotionState, cause: str) -> Notice:
    data = {"promotion": row.number, "state": str(to)}
    return Notice("promotion", f"promotion {row.number}: {WORDS[to]}: {cause}", data)
