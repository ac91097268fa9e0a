"""Orders to production: sent until they are answered, renewed while they hold, compared with what is live.

Every order is in the ledger before it is sent. An answer settles it; silence leaves it open, to be sent again
with the same key, in this process or the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from blackopt.campaign import CampaignSpec, Schedule
from blackopt.errors import Fenced, OutcomeUnknown, RetriableError
from blackopt.ledger import Driver
from blackopt.ledger.canonical import order_key
from blackopt.ledger.rows import (
    IncumbentRow,
    PromotionState,
    PushKind,
    PushRow,
    PushState,
    TrialRow,
    TrialState,
    WindowRow,
)
from blackopt.protocols import Policy, Target
from blackopt.runner.backoff import next_attempt_us
from blackopt.runner.centres import Centres
from blackopt.runner.notices import Notice, Notify, Troubles, announce
from blackopt.types import Adopt, Artifact, Outcome, Placement, Push, Receipt, Slice, Vector, Withdraw

Windows = Mapping[int, WindowRow]

OPEN = tuple(state for state in TrialState if state is not TrialState.TOLD)
"""States of a trial that production may still hear of."""


PARTS = 32
"""The orders of one step are written in about so many transactions: a process that dies now and then gets on,
and sends a small part of them again."""

_UNANSWERED = (PushState.PENDING, PushState.UNKNOWN)

WORDS: Mapping[PromotionState, str] = {
    PromotionState.TESTING: "under test on fresh units",
    PromotionState.RAMPING: "proven, ramping up",
    PromotionState.ADOPTING: "ramped up, becoming the incumbent",
    PromotionState.HOLDING: "is the incumbent, watched",
    PromotionState.DONE: "is the incumbent",
    PromotionState.REFUSED: "refused",
    PromotionState.REVERTING: "being taken back",
    PromotionState.REVERTED: "taken back",
}
"""What a promotion's state means, for people."""


def window_of(trial: TrialRow, windows: Windows) -> WindowRow:
    """The window that a production trial is served in.

    Raises:
        ValueError: it has none: it is an evaluation.
    """
    if trial.window is None:
        raise ValueError(f"trial {trial.number} has no window")
    return windows[trial.window]


@dataclass
class Outbox:
    """What leaves for production, and what comes back of it."""

    spec: CampaignSpec
    schedule: Schedule
    driver: Driver
    policy: Policy
    target: Target
    notify: Notify
    troubles: Troubles
    centres: Centres | None = None

    def __post_init__(self) -> None:
        self.ledger = self.driver.ledger

    def push(self, windows: Windows, now_us: int) -> None:
        """Intend what was asked, send what is due, renew what is about to lapse."""
        asked = self.ledger.trials(states=[TrialState.ASKED])
        if asked:
            self.driver.intend({t.number: self.rendered(t).sha256 for t in asked}, at_us=now_us)
        pushing = {trial.number: trial for trial in self.ledger.trials(states=[TrialState.PUSHING])}
        due = self._due(PushKind.APPLY, now_us)
        with self._answers(PushKind.APPLY, len(due), now_us) as answers:
            for push in due:
                if push.trial in pushing:
                    self._send(push, pushing[push.trial], windows, answers, now_us)
        self._renew(
            [
                trial
                for trial in self.ledger.trials(states=[TrialState.LIVE])
                if (renew_us := self.renew_us(trial, window_of(trial, windows))) is not None
                and now_us >= renew_us
            ],
            windows,
            now_us,
        )

    def withdraw(self, windows: Windows, now_us: int) -> None:
        """Send the withdrawals that are due; a lease that has ended makes one true without an answer."""
        leaving = {trial.number: trial for trial in self.ledger.trials(states=[TrialState.WITHDRAWING])}
        due = self._due(PushKind.WITHDRAW, now_us)
        with self._answers(PushKind.WITHDRAW, len(due), now_us) as answers:
            for push in due:
                trial = leaving[push.trial]
                notice = Notice("withdrawn", f"{trial.arm}: {trial.cause}", {"trial": trial.number})
                try:
                    self._withdraw(push.key, trial.number, trial.arm)
                except RetriableError as error:
                    answers.write()
                    # The module stops by itself when the lease ends, and never starts again after it.
                    lease_us = trial.lease_until_us or window_of(trial, windows).end_us + self.schedule.lease
                    if now_us < lease_us:
                        self._again(push, error, now_us)
                        continue
                    self.driver.withdrawn([trial.number], lapsed=True, at_us=now_us)
                    self.notify(notice)
                else:
                    answers.add(trial.number, 0, notice)

    def adopt(self, now_us: int) -> None:
        """Send the order that makes an incumbent, where it is due; the promotion goes on with its answer."""
        order = self._adoption()
        if order is None or order.next_us > now_us:
            return
        promotion = self.ledger.promotions()[-1]
        back = promotion.state is PromotionState.REVERTING
        try:
            receipt = self._adopt(order)
            if back and receipt.outcome is Outcome.REFUSED:
                raise RetriableError("production refuses to go back", why=receipt.detail)
        except RetriableError as error:
            self._adopt_again(order, error, now_us)
            return
        refused = receipt.detail if receipt.outcome is Outcome.REFUSED else ""
        after = PromotionState.REVERTED if back else PromotionState.HOLDING
        to = PromotionState.REVERTING if refused else after
        cause = f"refused: {refused}" if refused else promotion.cause
        self.driver.adopted(order.number, promotion.number, to, refused=refused, cause=cause, at_us=now_us)
        text = (
            f"promotion {promotion.number}: {'refused by production: ' + refused if refused else WORDS[to]}"
        )
        self.notify(Notice("promotion", text, {"promotion": promotion.number, "state": str(to)}))

    def adoption_us(self) -> int | None:
        """When an order that makes an incumbent is due; None where there is none."""
        order = self._adoption()
        return None if order is None else order.next_us

    def reconcile(self, windows: Windows, now_us: int) -> None:
        """Withdraw what only production knows, renew what only the ledger knows."""
        self._reconcile_incumbent()
        try:
            live = [arm for arm in self.target.observe() if arm.campaign == self.spec.name]
            known = {t.number for t in self.ledger.trials(states=OPEN)}
            for arm in live:
                if arm.trial not in known:
                    key = order_key(self.ledger.uuid, arm.trial, PushKind.WITHDRAW)
                    self._withdraw(key, arm.trial, arm.arm)
                    text = f"{arm.arm} was live without an open trial: withdrawn"
                    self.notify(Notice("orphan", text, {"trial": arm.trial}))
        except RetriableError as error:
            self.troubles.add("comparing with production", error)
            return
        served = {arm.trial for arm in live}
        lost = [t for t in self.ledger.trials(states=[TrialState.LIVE]) if t.number not in served]
        self._renew(lost, windows, now_us)

    def renew_us(self, trial: TrialRow, window: WindowRow) -> int | None:
        """Two thirds of the lease before its end: two renewals may be lost; None past the window."""
        if trial.lease_until_us is None or trial.lease_until_us >= window.end_us:
            return None
        return trial.lease_until_us - 2 * self.schedule.lease // 3

    def due_us(self) -> list[int]:
        """When each order that was not answered is sent again."""
        return [push.next_us for push in self._open()]

    def _adoption(self) -> IncumbentRow | None:
        last = self.ledger.incumbents()[-1:]
        return next((order for order in last if order.state in _UNANSWERED), None)

    def _adopt(self, order: IncumbentRow) -> Receipt:
        artifact = self.incumbent(order.number, order.vector)
        adopt = Adopt(order.key, self.spec.name, order.number, self.driver.epoch, artifact)
        receipt = self.target.adopt(adopt)
        _check_fence(receipt)
        return receipt

    def _adopt_again(self, order: IncumbentRow, error: RetriableError, now_us: int) -> None:
        name, poll_us = f"incumbent|{order.number}", self.schedule.poll
        next_us = next_attempt_us(name, order.attempts, error, now_us, poll_us=poll_us)
        unknown = isinstance(error, OutcomeUnknown)
        self.driver.retry_adopt(order.number, unknown=unknown, next_us=next_us, detail=error.what)
        self.troubles.add(f"adopting incumbent {order.number}", error)

    def _reconcile_incumbent(self) -> None:
        """A module that has lost what it adopted is told again; the order is the same."""
        last = self.ledger.incumbents()[-1:]
        for order in last:
            if order.state is not PushState.ACKED:
                continue
            try:
                served = self.target.incumbent(self.spec.name)
                if served is None or served[0] < order.number:
                    receipt = self._adopt(order)
                    if receipt.outcome is Outcome.REFUSED:
                        raise RetriableError("production refuses its incumbent", why=receipt.detail)
                    text = f"production had lost incumbent {order.number}: told again"
                    self.notify(Notice("orphan", text, {"incumbent": order.number}))
            except RetriableError as error:
                self.troubles.add("comparing the incumbent with production", error)

    def _open(self) -> list[PushRow]:
        return self.ledger.pushes(states=_UNANSWERED)

    def _due(self, kind: PushKind, now_us: int) -> list[PushRow]:
        return [push for push in self._open() if push.kind is kind and push.next_us <= now_us]

    def _send(self, push: PushRow, trial: TrialRow, windows: Windows, answers: _Answers, now_us: int) -> None:
        order = self._order(trial, window_of(trial, windows), now_us)
        try:
            receipt = self.target.push(order)
        except RetriableError as error:
            answers.write()
            self._again(push, error, now_us)
            return
        _check_fence(receipt)
        if receipt.outcome is Outcome.REFUSED:
            answers.write()
            self._refused(trial, receipt, now_us)
        else:
            notice = Notice("live", trial.arm, {"trial": trial.number})
            answers.add(trial.number, now_us + round(order.ttl_s * 1e6), notice)

    def _renew(self, trials: Sequence[TrialRow], windows: Windows, now_us: int) -> None:
        leases: dict[int, int] = {}
        for trial in trials:
            window = window_of(trial, windows)
            if now_us >= window.end_us:
                continue
            order = self._order(trial, window, now_us)
            try:
                receipt = self.target.push(order)
            except RetriableError as error:
                self.troubles.add(f"renewing {trial.arm}", error)
                continue
            _check_fence(receipt)
            if receipt.outcome is Outcome.REFUSED:
                self._refused(trial, receipt, now_us)
            else:
                leases[trial.number] = now_us + round(order.ttl_s * 1e6)
        if leases:  # a process that dies before this renews them once more
            self.driver.renewed(leases)

    def _answers(self, kind: PushKind, orders: int, now_us: int) -> _Answers:
        """Where confirmed orders, of so many, are collected, to be written together."""

        def write(leases: Mapping[int, int]) -> None:
            if kind is PushKind.APPLY:
                self.driver.live(leases, at_us=now_us)
            else:
                self.driver.withdrawn(list(leases), at_us=now_us)

        return _Answers(write, self.notify, batch=max(1, orders // PARTS))

    def rendered(self, trial: TrialRow) -> Artifact:
        """What is sent for a trial, the same every time."""
        return self.policy.render(trial.vector) if self.centres is None else self.centres.artifact(trial)

    def incumbent(self, number: int, vector: Vector) -> Artifact:
        """What is sent to make a vector the incumbent of this number."""
        return self.policy.render(vector) if self.centres is None else self.centres.adopted(number, vector)

    def _refused(self, trial: TrialRow, receipt: Receipt, now_us: int) -> None:
        self.driver.close([trial.number], cause=f"refused: {receipt.detail}", at_us=now_us)
        self.notify(Notice("refused", f"{trial.arm}: {receipt.detail}", {"trial": trial.number}))

    def _withdraw(self, key: str, trial: int, arm: str) -> None:
        receipt = self.target.withdraw(Withdraw(key, self.spec.name, trial, arm, self.driver.epoch))
        _check_fence(receipt)
        if receipt.outcome is Outcome.REFUSED:
            raise RetriableError("production refused to withdraw", where=arm, why=receipt.detail)

    def _order(self, trial: TrialRow, window: WindowRow, now_us: int) -> Push:
        return Push(
            key=order_key(self.ledger.uuid, trial.number, PushKind.APPLY),
            campaign=self.spec.name,
            trial=trial.number,
            arm=trial.arm,
            epoch=self.driver.epoch,
            ttl_s=min(self.schedule.lease, window.end_us - now_us) / 1e6,
            artifact=self.rendered(trial),
            placement=Placement(window.number, window.salt, trial.slice or Slice(0, 0), window.control),
        )

    def _again(self, push: PushRow, error: RetriableError, now_us: int) -> None:
        unknown = isinstance(error, OutcomeUnknown)
        order = f"{push.trial}|{push.kind}"
        next_us = next_attempt_us(order, push.attempts, error, now_us, poll_us=self.schedule.poll)
        self.driver.retry(
            push.trial, push.kind, unknown=unknown, next_us=next_us, detail=error.what, at_us=now_us
        )
        self.troubles.add(f"{push.kind} of t{push.trial}", error)


class _Answers:
    """Confirmed orders that are not in the ledger yet, in their order.

    What is lost with the process is sent again, and recognised by its key. Whatever else is written of an
    order is written after them, so that the chain is in the order of the orders.
    """

    def __init__(self, write: Callable[[Mapping[int, int]], None], notify: Notify, *, batch: int) -> None:
        self._write, self._notify, self._batch = write, notify, batch
        self._leases: dict[int, int] = {}
        self._notices: list[Notice] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.write()
            announce(self._notify, self._notices)

    def add(self, trial: int, lease_until_us: int, notice: Notice) -> None:
        """One more; a batch that is full is written."""
        self._leases[trial] = lease_until_us
        self._notices.append(notice)
        if len(self._leases) >= self._batch:
            self.write()

    def write(self) -> None:
        """Write what has been collected, as one transaction."""
        if self._leases:
            leases, self._leases = self._leases, {}
            self._write(leases)


def _check_fence(receipt: Receipt) -> None:
    """A module that has seen a higher epoch obeys another driver: this one must not go on."""
    if receipt.outcome is Outcome.REFUSED and receipt.detail.startswith("fenced"):
        raise Fenced(
            "production obeys a newer driver of this campaign",
            why=receipt.detail,
            safe="nothing of this order was applied; the ledger is unchanged",
            next_step="see who drives it with `blackopt status`; a restored ledger needs a new name",
        )
