"""Production: one turn of a campaign whose candidates are served to live traffic.

A turn takes every step that is due, in one fixed order: poll, guard, close, withdraw, tell, open, push. Each
step decides from the ledger alone and ends in a transaction, so a process that dies anywhere and is started
again takes exactly the steps that were left, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from blackopt.campaign import CampaignSpec
from blackopt.errors import RetriableError
from blackopt.ledger import Driver
from blackopt.ledger.readings import fault
from blackopt.ledger.rows import IngestReport, Mode, NewTell, TrialState, WindowRow
from blackopt.protocols import Policy, Source, Target
from blackopt.runner.guard import twins, with_arm
from blackopt.runner.judge import Judge
from blackopt.runner.learner import Learner
from blackopt.runner.newest import Newest
from blackopt.runner.notices import Notice, Notify, Troubles, announce
from blackopt.runner.opening import Opening
from blackopt.runner.outbox import OPEN, Outbox, window_of
from blackopt.runner.promoting import Promoter
from blackopt.types import CONTROL, NoReading, Query, Reading, Role, Status

PAGE = 5_000
"""Readings per transaction when a poll returns many."""

IN_TRAFFIC = (TrialState.PUSHING, TrialState.LIVE)

WORDS = {
    "late": "late (after the tell)",
    "conflict": "contradicting an earlier one",
    "quarantined": "of unknown arms",
    "rejected": "impossible",
}
"""Why readings are set aside, for people."""


@dataclass
class ProductionLane:
    """The steps of a campaign in production; built anew in every process, all memory is the ledger's."""

    spec: CampaignSpec
    driver: Driver
    learner: Learner
    policy: Policy
    target: Target
    source: Source
    judge: Judge
    notify: Notify

    def __post_init__(self) -> None:
        if self.spec.schedule is None or self.spec.traffic is None or self.spec.measure is None:
            raise ValueError("a production campaign has push, measure, traffic and schedule")
        self.ledger = self.driver.ledger
        self.schedule, self.traffic, self.measure = self.spec.schedule, self.spec.traffic, self.spec.measure
        self.trouble = Troubles(self.notify)
        self.outbox = Outbox(
            self.spec,
            self.schedule,
            self.driver,
            self.policy,
            self.target,
            self.notify,
            self.trouble,
            self.learner.centres,
        )
        self.opening = Opening(self.spec, self.schedule, self.traffic, self.driver, self.learner, self.notify)
        self.promoter = Promoter(
            self.spec,
            self.driver,
            self.learner,
            self.policy,
            self.judge,
            self.opening,
            self.outbox,
            self.notify,
        )

    # -- the turn --------------------------------------------------------------------------------------------

    def turn(self, now_us: int) -> None:
        """Take every step that is due at ``now_us``."""
        self.trouble.count = 0
        windows = self._windows()
        self._poll(windows, now_us)
        self._guard(now_us)
        self.promoter.advance(now_us)  # an adoption comes before the last arm of its ramp is taken away
        self._close(windows, now_us)
        self.outbox.withdraw(windows, now_us)
        self._tell(windows, now_us)
        self.promoter.advance(now_us)
        if self._may_open(now_us):
            self._open(now_us)
        self.outbox.push(self._windows(), now_us)

    def reconcile(self, now_us: int) -> None:
        """Once a process: bring production and ledger in step."""
        if edited := self.promoter.edited():
            self.notify(Notice("promotion", edited))
        self._collect()
        self.outbox.reconcile(self._windows(), now_us)

    @property
    def troubles(self) -> int:
        """Temporary failures in the last turn."""
        return self.trouble.count

    @property
    def busy(self) -> bool:
        """Whether a promotion is under way, whatever the budget says."""
        return self.promoter.busy

    def _windows(self) -> dict[int, WindowRow]:
        return {window.number: window for window in self.ledger.windows()}

    def next_us(self, now_us: int) -> int | None:
        """When the next step is due; None when nothing is open and nothing more will be."""
        windows = self._windows()
        trials = self.ledger.trials(states=OPEN)
        polled = {trial.window for trial in trials if trial.window is not None}
        due = [self._poll_due_us(windows[number]) for number in polled]
        for trial in trials:
            window = windows[trial.window] if trial.window is not None else None
            if window is not None and trial.state in (TrialState.ASKED, *IN_TRAFFIC):
                due.append(window.end_us)
            if window is not None and trial.state is TrialState.LIVE:
                renew_us = self.outbox.renew_us(trial, window)
                due += [] if renew_us is None else [renew_us]
            if trial.deadline_us is not None:
                due.append(trial.deadline_us)
        due += self.outbox.due_us()
        if (promotion_us := self.promoter.next_us(now_us)) is not None:
            due.append(promotion_us)
        if not trials and (opens_us := self.opening.allowed_us(now_us)) > now_us:
            due.append(opens_us)  # everything waits for the end of the quiet time
        return max(min(due), now_us + 1) if due else None

    # -- poll ------------------------------------------------------------------------------------------------

    def _poll(self, windows: dict[int, WindowRow], now_us: int) -> None:
        numbers = {t.window for t in self.ledger.trials(states=OPEN) if t.window is not None}
        if self.judge.surrogate is not None:
            numbers |= self._followed(windows, now_us)
        for window in (windows[number] for number in sorted(numbers)):
            if now_us >= self._poll_due_us(window):
                self._poll_window(window, now_us)

    def _followed(self, windows: dict[int, WindowRow], now_us: int) -> set[int]:
        """Windows that were told from a surrogate, and whose objective is still to come."""
        return {
            number
            for number, window in windows.items()
            if now_us < self.judge.polled_until_us(window) and not self.judge.complete(window, self.ledger)
        }

    def _poll_due_us(self, window: WindowRow) -> int:
        marks = self.ledger.watermarks(window.number)
        if not marks:
            return window.start_us + self.schedule.poll
        polled_us = min(mark.polled_us for mark in marks.values())
        matures = [m.maturity.mature_at(window.end_us) for m in self.judge.metrics.values()]
        return min([polled_us + self.schedule.poll, *(at for at in matures if at > polled_us)])

    def _poll_window(self, window: WindowRow, now_us: int) -> None:
        arms = (CONTROL, *(t.arm for t in self.ledger.trials(window=window.number)))
        asked = frozenset(arms)
        query = Query(
            campaign=self.spec.name,
            window=window.number,
            arms=arms,
            start_us=window.start_us,
            end_us=window.end_us,
            as_of_us=now_us,
            metrics=tuple(self.judge.metrics),
        )
        known: dict[str, dict[str, int]] = {}
        try:
            for page in _pages(self.source.read(query), PAGE):
                readings = [item for item in page if isinstance(item, Reading)]
                for item in page:
                    if isinstance(item, NoReading):
                        self.notify(Notice("trouble", f"{item.arm}: {item.cause}", {"arm": item.arm}))
                report = self.driver.ingest(self.measure.use, readings, at_us=now_us)
                if aside := self._set_aside(window, report):
                    text = f"window {window.number}: set aside {aside}"
                    self.notify(Notice("readings", text, {"window": window.number}))
                for r in readings:
                    if r.window != window.number or r.arm not in asked:
                        continue  # set aside by the ledger: it says nothing about this window
                    arm_marks = known.setdefault(r.metric, {})
                    # What the ledger rejects says nothing of any time: alone, it holds its arm back.
                    arm_marks[r.arm] = max(arm_marks.get(r.arm, 0), 0 if fault(r) else r.as_of_us)
        except RetriableError as error:
            self.trouble.add(f"poll of window {window.number}", error)
        # A metric is known up to where its slowest arm is; one that returned nothing has been asked, and is
        # not known.
        marks = {m: min(known[m].values()) if m in known else 0 for m in self.judge.metrics}
        self.driver.polled(window.number, marks, at_us=now_us)

    def _set_aside(self, window: WindowRow, report: IngestReport) -> str:
        """What no tell will use, in words. After a tell from a surrogate, late readings are awaited."""
        awaited = self.judge.surrogate is not None and window.role is Role.SEARCH
        kinds = (
            ("conflict", "quarantined", "rejected")
            if awaited
            else ("late", "conflict", "quarantined", "rejected")
        )
        found = {kind: getattr(report, kind) for kind in kinds}
        return ", ".join(f"{count} {WORDS[kind]}" for kind, count in found.items() if count)

    # -- guard, close, withdraw ------------------------------------------------------------------------------

    def _guard(self, now_us: int) -> None:
        # A holdback serves the former incumbent: what it may prove is harm of the one beside it.
        trials = [t for t in self.ledger.trials(states=IN_TRAFFIC) if t.role is not Role.HOLDBACK]
        numbers = {trial.window or 0 for trial in trials}
        latest = {number: Newest(self.ledger.latest(number)) for number in numbers}
        guard, closed = self.judge.guard, set[int]()
        for trial in trials:
            rows = latest[trial.window or 0]
            cause = guard.breach(trial, rows, self.ledger) or guard.silence(trial, rows, self.ledger, now_us)
            if cause is None or trial.number in closed:
                continue
            # In one transaction: a process that dies here must not leave a twin in traffic.
            pair = [t.number for t in twins(trial, trials, self.learner.optimizer.group)]
            if len(pair) > 1:
                cause = with_arm(cause, trial)
            self.driver.close(pair, cause=cause, at_us=now_us)
            closed.update(pair)
            for number in pair:
                self.notify(Notice("breach", f"t{number}: {cause}: withdrawing", {"trial": number}))

    def _close(self, windows: dict[int, WindowRow], now_us: int) -> None:
        ended = [t for t in self.ledger.trials(states=IN_TRAFFIC) if window_of(t, windows).end_us <= now_us]
        if ended:
            self.driver.close([t.number for t in ended], cause="window ended", at_us=now_us)
        never = [
            t.number
            for t in self.ledger.trials(states=[TrialState.ASKED])
            if window_of(t, windows).end_us <= now_us
        ]
        if never:
            self._told(
                [
                    NewTell(number, Status.VOID, cause="its window ended before it was pushed")
                    for number in never
                ],
                now_us,
            )

    # -- tell ------------------------------------------------------------------------------------------------

    def _tell(self, windows: dict[int, WindowRow], now_us: int) -> None:
        group, awaiting = self.learner.optimizer.group, self.ledger.trials(states=[TrialState.AWAITING])
        tells: list[NewTell] = []
        told: list[int] = []
        for number, mine in groupby(
            awaiting, key=lambda trial: trial.window or 0
        ):  # numbered window by window
            found = self.judge.verdicts(list(mine), windows[number], self.ledger, now_us, group=group)
            tells += found
            told += [number] if found else []
        if tells:
            self._told(tells, now_us)
        for number in told:
            for notice in self.judge.alarms(windows[number], self.ledger):
                self.notify(notice)

    def _told(self, tells: Sequence[NewTell], now_us: int) -> None:
        rows = self.learner.commit(self.driver, tells, now_us)
        self._collect()
        told = [self.judge.told(row, tell.cause) for row, tell in zip(rows, tells, strict=True)]
        announce(self.notify, told)
        breaches = self.spec.budget.breaches
        last = self.ledger.tells(after=max(0, self.learner.applied - breaches))
        if len(last) == breaches and all(row.status is Status.INFEASIBLE for row in last):
            self._pause(f"guardrails withdrew the last {breaches} candidates", now_us)

    def _collect(self) -> None:
        """Centres that no trial needs any more go; if the process dies before that, when the next starts."""
        if self.learner.centres is not None:
            try:
                self.learner.centres.collect(self.ledger)
            except RetriableError as error:
                self.trouble.add("collecting centres", error)  # the next collection takes them, too

    def _pause(self, cause: str, now_us: int) -> None:
        """Nothing new is asked, what is live is withdrawn at once, and a person must look."""
        self.driver.set_mode(Mode.PAUSED, cause=cause, at_us=now_us)
        self.notify(Notice("paused", cause))
        self.clear(cause, now_us)

    def clear(self, cause: str, now_us: int) -> None:
        """Take every candidate out of traffic now; the module falls back to the incumbent."""
        asked = [t.number for t in self.ledger.trials(states=[TrialState.ASKED])]
        if asked:
            self.learner.commit(self.driver, [NewTell(n, Status.VOID, cause=cause) for n in asked], now_us)
        live = [t.number for t in self.ledger.trials(states=IN_TRAFFIC)]
        if live:
            self.driver.close(live, cause=cause, at_us=now_us)
        self.outbox.withdraw(self._windows(), now_us)

    # -- open and push ---------------------------------------------------------------------------------------

    def _may_open(self, now_us: int) -> bool:
        return (
            self.ledger.campaign.mode is Mode.RUN
            and self.opening.allowed_us(now_us) <= now_us
            and not self.ledger.trials(states=(TrialState.ASKED, *IN_TRAFFIC, TrialState.WITHDRAWING))
        )

    def _open(self, now_us: int) -> None:
        if self.promoter.busy:
            self.promoter.open(now_us)
        else:
            self.opening.search(now_us)


def _pages(items: Iterable[Reading | NoReading], size: int) -> Iterator[list[Reading | NoReading]]:
    """Pages of at most ``size`` items; what came before an error is a page too, and then the error."""
    page: list[Reading | NoReading] = []
    try:
        for item in items:
            page.append(item)
            if len(page) == size:
                yield page
                page = []
    except RetriableError:
        if page:
            yield page
        raise
    if page:
        yield page
