"""What readings say about a trial: nothing yet, a value, a breach, or that no value will come.

Pure over the ledger's rows: the runner decides when to look, this module what is seen. Where the campaign
declares a surrogate, the trials of its search are told from that; every other trial waits for the objective
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from blackopt.campaign import CampaignSpec, MetricSpec
from blackopt.ledger import Ledger
from blackopt.ledger.rows import NewTell, TellRow, TrialRow, WindowRow
from blackopt.metrics.errors import MetricError
from blackopt.metrics.kinds import Kind, Stats, kind
from blackopt.metrics.maturity import Maturity
from blackopt.metrics.surrogate import expected
from blackopt.runner.covariate import moved
from blackopt.runner.guard import Guard, standing_still, twins, with_arm
from blackopt.runner.newest import Newest
from blackopt.runner.notices import Notice
from blackopt.runner.ratio import MOVED, mismatch
from blackopt.types import CONTROL, Estimate, Role, Status


@dataclass(frozen=True, slots=True)
class MetricRule:
    """What the campaign declares of a metric, ready to use."""

    kind: Kind
    maturity: Maturity
    min_units: int
    min_events: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One arm's pooled metric, its statistics, and the ids of the readings behind it."""

    estimate: Estimate
    stats: Stats
    used: tuple[int, ...]


class Judge:
    """The objective, the guardrails and the maturity of one campaign."""

    def __init__(self, spec: CampaignSpec) -> None:
        if spec.measure is None or spec.schedule is None:
            raise ValueError("a production campaign has `measure` and `schedule`")
        self.objective, self.surrogate = spec.objective, spec.objective.surrogate
        self._deadline_us = spec.schedule.deadline
        self.metrics: Mapping[str, MetricRule] = {
            name: MetricRule(
                kind(m.kind, cuped=m.cuped, quantile=m.quantile, cap=m.cap),
                maturity_of(m),
                m.min_units,
                m.min_events,
            )
            for name, m in spec.measure.metrics.items()
        }
        self.kinds: Mapping[str, Kind] = {name: rule.kind for name, rule in self.metrics.items()}
        self.guard = Guard(spec, self.kinds)
        self._files = _files(spec)

    # -- what is waited for ----------------------------------------------------------------------------------

    def told_from(self, role: Role) -> str:
        """The metric that a trial of this role is told from."""
        search = role is Role.SEARCH and self.surrogate is not None
        return self.surrogate.metric if search and self.surrogate else self.objective.metric

    def needed(self, role: Role) -> frozenset[str]:
        """Metrics that must have matured before a trial of this role is told.

        A search that is told from a surrogate does not wait for guardrails that mature later: they are judged
        as far as they are known, as they were all along.
        """
        if role is Role.SEARCH and self.surrogate is not None:
            return frozenset({self.surrogate.metric})
        return frozenset({self.objective.metric, *self.guard.metrics})

    def complete(self, window: WindowRow, ledger: Ledger) -> bool:
        """Whether all is known that a window's trials, or the surrogate's calibration, will ever need."""
        return self._followed(window) <= self.matured(window, ledger)

    def polled_until_us(self, window: WindowRow) -> int:
        """When nothing more will be learned of a window, however late its source is, in microseconds.

        At its deadline. Before that it is polled until it is :meth:`complete`, also when all its trials have
        been told from a surrogate.
        """
        return window.end_us + self._deadline_us

    def mature_at(self, window: WindowRow) -> int:
        """When everything of a window has matured if the source is up to date, in microseconds."""
        return max(self.metrics[name].maturity.mature_at(window.end_us) for name in self._followed(window))

    def _followed(self, window: WindowRow) -> frozenset[str]:
        return self.needed(window.role) | {self.objective.metric, *self.guard.metrics}

    def matured(self, window: WindowRow, ledger: Ledger) -> frozenset[str]:
        """Metrics of a window that the source knows all of."""
        marks = ledger.watermarks(window.number)
        return frozenset(
            name
            for name, rule in self.metrics.items()
            if name in marks and rule.maturity.is_mature(marks[name].as_of_us, window.end_us)
        )

    # -- what is seen ----------------------------------------------------------------------------------------

    def measure(self, rows: Newest, metric: str, arm: str) -> Measured:
        """The metric of one arm, all cohorts pooled.

        Raises:
            MetricError: it has no value: too few units or events, sums that no units have.
        """
        mine = rows.of(metric, arm)
        rule = self.metrics[metric]
        try:
            stats = rule.kind.pool([row.reading.stats for row in mine])
            rule.kind.require(stats, min_units=rule.min_units, min_events=rule.min_events)
            return Measured(rule.kind.estimate(stats), stats, tuple(row.id for row in mine))
        except MetricError as error:
            error.where = f"{metric} of {arm}"
            raise

    def effect(self, rows: Newest, metric: str, arm: str) -> tuple[Estimate, tuple[int, ...]]:
        """What the objective asks of a metric of one arm, and the ids of the readings behind it.

        Its effect relative to the control where the objective is relative, else its value.

        Raises:
            MetricError: it has none; ``where`` names the metric.
        """
        treatment = self.measure(rows, metric, arm)
        if self.objective.relative_to is None:
            return treatment.estimate, treatment.used
        control = self.measure(rows, metric, CONTROL)
        relative = self.objective.effect == "relative"
        try:
            found = self.metrics[metric].kind.effect(treatment.stats, control.stats, relative=relative)
        except MetricError as error:
            error.where = metric
            raise
        return found, treatment.used + control.used

    def value(self, rows: Newest, role: Role, arm: str) -> tuple[Estimate, tuple[int, ...]]:
        """What a trial of this role would be told from these readings, and the ids of those behind it.

        Raises:
            MetricError: there is no value yet, or none at all.
        """
        found, used = self.effect(rows, self.told_from(role), arm)
        if role is Role.SEARCH and self.surrogate is not None:
            found = expected(found, slope=self.surrogate.slope, error=self.surrogate.error)
        return found, used

    def spoiled(self, window: WindowRow, trials: Sequence[TrialRow], rows: Newest, metric: str) -> str | None:
        """Why no arm of a window that has matured may be compared by this metric, or None."""
        own = self.kinds[metric]
        return mismatch(window, trials, rows, metric, own) or moved(window, trials, rows, metric, own)

    # -- what is told ----------------------------------------------------------------------------------------

    def verdicts(
        self, trials: Sequence[TrialRow], window: WindowRow, ledger: Ledger, now_us: int, *, group: int = 1
    ) -> list[NewTell]:
        """The tells of those trials of a window, all of them out of traffic, that are told now.

        ``group`` is the optimizer's: its candidates are told as infeasible together.
        """
        look = _Look(self, window, ledger, group)
        found = (self._verdict(trial, look, now_us) for trial in trials)
        return [tell for tell in found if tell is not None]

    def _verdict(self, trial: TrialRow, look: _Look, now_us: int) -> NewTell | None:
        """The tell of a trial, or None while it matures."""
        if trial.cause.startswith("guardrail"):
            return NewTell(trial.number, Status.INFEASIBLE, cause=trial.cause)
        if trial.live_us is None:
            return NewTell(trial.number, Status.FAILED, cause=trial.cause or "it never went live")
        if self.needed(trial.role) <= look.mature:
            return self._mature_tell(trial, look)
        if trial.deadline_us is not None and now_us >= trial.deadline_us:
            return NewTell(
                trial.number, Status.EXPIRED, cause="its metrics did not mature before the deadline"
            )
        return None

    def told(self, row: TellRow, cause: str) -> Notice:
        """A told result for people."""
        data = {
            "trial": row.trial,
            "seq": row.seq,
            "status": str(row.status),
            "value": row.value,
            "se": row.se,
        }
        if row.value is None:
            return Notice("told", f"t{row.trial} {row.status}: {cause}", data)
        spread = f" ± {self.show(row.se)}" if row.se is not None else ""
        source = self.told_from(row.role)
        by = f", from {source}" if source != self.objective.metric else ""
        return Notice(
            "told",
            f"t{row.trial} {self.objective.metric} {self.show(row.value, sign=True)}{spread}{by}",
            data,
        )

    def show(self, value: float, *, sign: bool = False) -> str:
        """A value of the objective for people: per cent for lifts, plain otherwise."""
        if self.objective.relative_to is not None and self.objective.effect == "relative":
            return f"{100 * value:+.2f} %" if sign else f"{100 * value:.2f} %"
        return f"{value:+.4g}" if sign and self.objective.relative_to is not None else f"{value:.4g}"

    def alarms(self, window: WindowRow, ledger: Ledger) -> list[Notice]:
        """What a person should look at in a window that has matured; nothing while it has not."""
        mature = self.matured(window, ledger)
        if not self.needed(window.role) <= mature:
            return []
        rows, trials = Newest(ledger.latest(window.number)), ledger.trials(window=window.number)
        kinds = {name: self.kinds[name] for name in self.kinds if name in mature}
        found = list(standing_still(rows, kinds, self._files))
        for name, own in kinds.items():
            text = moved(window, trials, rows, name, own)
            if text is not None:
                data = {"metric": name, "window": window.number}
                found.append(Notice("covariate", text.removeprefix(MOVED), data))
        return found

    def _mature_tell(self, trial: TrialRow, look: _Look) -> NewTell:
        rows, metric = look.rows, self.told_from(trial.role)
        broken = look.spoiled(metric)
        if broken is not None:
            return NewTell(trial.number, Status.FAILED, cause=broken)
        pair = look.twins(trial)
        # A holdback serves the former incumbent, which is not on trial.
        for twin in pair if trial.role is not Role.HOLDBACK else ():
            if twin.cause.startswith("guardrail"):
                return NewTell(trial.number, Status.INFEASIBLE, cause=twin.cause)
            breach = self.guard.breach(twin, rows, look.ledger) or self.guard.unseen(
                twin, rows, metric, look.mature
            )
            if breach is not None:
                cause = breach if len(pair) == 1 else with_arm(breach, twin)
                return NewTell(trial.number, Status.INFEASIBLE, cause=cause)
        try:
            found, used = self.value(rows, trial.role, trial.arm)
        except MetricError as error:
            return NewTell(trial.number, Status.FAILED, cause=f"{error.where or metric}: {error.what}")
        return NewTell(trial.number, Status.OK, value=found.value, se=found.se, used=used)


class _Look:
    """What is known of one window, read once for all its trials, and not before it is needed."""

    def __init__(self, judge: Judge, window: WindowRow, ledger: Ledger, group: int) -> None:
        self.judge, self.window, self.ledger, self.group = judge, window, ledger, group
        self._spoiled: dict[str, str | None] = {}

    @cached_property
    def mature(self) -> frozenset[str]:
        return self.judge.matured(self.window, self.ledger)

    @cached_property
    def trials(self) -> list[TrialRow]:
        return self.ledger.trials(window=self.window.number)

    @cached_property
    def rows(self) -> Newest:
        return Newest(self.ledger.latest(self.window.number))

    def spoiled(self, metric: str) -> str | None:
        """As of :meth:`Judge.spoiled`."""
        if metric not in self._spoiled:
            self._spoiled[metric] = self.judge.spoiled(self.window, self.trials, self.rows, metric)
        return self._spoiled[metric]

    @cached_property
    def _pairs(self) -> Mapping[int, list[TrialRow]]:
        found: dict[int, list[TrialRow]] = {}
        for trial in self.trials if self.group > 1 else ():
            if trial.candidate is not None:
                found.setdefault(trial.candidate // self.group, []).append(trial)
        return found

    def twins(self, trial: TrialRow) -> Sequence[TrialRow]:
        """As of :func:`blackopt.runner.guard.twins`."""
        if trial.candidate is None or self.group < 2:
            return [trial]
        return twins(trial, self._pairs[trial.candidate // self.group], self.group)


def maturity_of(metric: MetricSpec) -> Maturity:
    """When a declared metric is known."""
    within = metric.anchor.within if metric.anchor else 0
    return Maturity(metric.window, metric.lag, metric.bake, within)


def _files(spec: CampaignSpec) -> dict[str, str]:
    """The file that each metric names for its source, as the campaign writes it; without one, nothing."""
    if spec.measure is None:
        return {}
    found = {}
    for name, metric in spec.measure.metrics.items():
        written = spec.document["measure"]["metrics"][name]
        for key, value in metric.options.model_dump(by_alias=True).items():
            if isinstance(value, Path) and isinstance(written.get(key), str):
                found[name] = written[key]
    return found
