"""What readings say about a trial: nothing yet, a value, a breach, or that no value will come.

Pure over the ledger's rows: the runner decides when to look, this module what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec
from blackopt.ledger import Ledger
from blackopt.ledger.rows import NewTell, ReadingRow, TellRow, TrialRow, WindowRow
from blackopt.metrics.errors import MetricError
from blackopt.metrics.kinds import Kind, Stats, kind
from blackopt.metrics.maturity import Maturity
from blackopt.runner.guard import Guard, standing_still, twins, with_arm
from blackopt.runner.notices import Notice
from blackopt.runner.ratio import mismatch
from blackopt.types import CONTROL, Estimate, Status


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
        if spec.measure is None:
            raise ValueError("a production campaign declares its metrics under `measure`")
        self.objective = spec.objective
        self.metrics: Mapping[str, MetricRule] = {
            name: MetricRule(
                kind(m.kind, cuped=m.cuped, quantile=m.quantile, cap=m.cap),
                Maturity(m.window, m.lag),
                m.min_units,
                m.min_events,
            )
            for name, m in spec.measure.metrics.items()
        }
        self.kinds: Mapping[str, Kind] = {name: rule.kind for name, rule in self.metrics.items()}
        self.guard = Guard(spec, self.kinds)

    def measure(self, rows: Sequence[ReadingRow], metric: str, arm: str) -> Measured:
        """The metric of one arm, all cohorts pooled.

        Raises:
            MetricError: it has no value: too few units or events, sums that no units have.
        """
        mine = [row for row in rows if row.reading.metric == metric and row.reading.arm == arm]
        rule = self.metrics[metric]
        try:
            stats = rule.kind.pool([row.reading.stats for row in mine])
            rule.kind.require(stats, min_units=rule.min_units, min_events=rule.min_events)
            return Measured(rule.kind.estimate(stats), stats, tuple(row.id for row in mine))
        except MetricError as error:
            error.where = f"{metric} of {arm}"
            raise

    def verdict(
        self, trial: TrialRow, window: WindowRow, ledger: Ledger, now_us: int, *, group: int = 1
    ) -> NewTell | None:
        """The tell of a trial that is out of traffic, or None while it matures.

        ``group`` is the optimizer's: its candidates are told as infeasible together.
        """
        if trial.cause.startswith("guardrail"):
            return NewTell(trial.number, Status.INFEASIBLE, cause=trial.cause)
        if trial.live_us is None:
            return NewTell(trial.number, Status.FAILED, cause=trial.cause or "it never went live")
        if self._mature(window, ledger):
            return self._mature_tell(trial, window, ledger, group)
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
        return Notice(
            "told", f"t{row.trial} {self.objective.metric} {self.show(row.value, sign=True)}{spread}", data
        )

    def show(self, value: float, *, sign: bool = False) -> str:
        """A value of the objective for people: per cent for lifts, plain otherwise."""
        if self.objective.relative_to is not None and self.objective.effect == "relative":
            return f"{100 * value:+.2f} %" if sign else f"{100 * value:.2f} %"
        return f"{value:+.4g}" if sign and self.objective.relative_to is not None else f"{value:.4g}"

    def _mature(self, window: WindowRow, ledger: Ledger) -> bool:
        marks = ledger.watermarks(window.number)
        needed = {self.objective.metric, *self.guard.metrics}
        return all(
            name in marks and self.metrics[name].maturity.is_mature(marks[name].as_of_us, window.end_us)
            for name in needed
        )

    def alarms(self, window: WindowRow, ledger: Ledger) -> list[Notice]:
        """What a person should look at in a window that has matured; nothing while it has not."""
        mature = self._mature(window, ledger)
        return list(standing_still(ledger.latest(window.number), self.kinds)) if mature else []

    def _mature_tell(self, trial: TrialRow, window: WindowRow, ledger: Ledger, group: int) -> NewTell:
        rows, trials = ledger.latest(window.number), ledger.trials(window=window.number)
        metric = self.objective.metric
        broken = mismatch(window, trials, rows, metric, self.kinds[metric])
        if broken is not None:
            return NewTell(trial.number, Status.FAILED, cause=broken)
        pair = twins(trial, trials, group)
        for twin in pair:
            if twin.cause.startswith("guardrail"):
                return NewTell(trial.number, Status.INFEASIBLE, cause=twin.cause)
            breach = self.guard.breach(twin, rows, ledger) or self.guard.unseen(twin, rows, metric)
            if breach is not None:
                cause = breach if len(pair) == 1 else with_arm(breach, twin)
                return NewTell(trial.number, Status.INFEASIBLE, cause=cause)
        try:
            treatment = self.measure(rows, metric, trial.arm)
            if self.objective.relative_to is None:
                return _ok(trial, treatment.estimate, treatment.used)
            control = self.measure(rows, metric, CONTROL)
            relative = self.objective.effect == "relative"
            found = self.metrics[metric].kind.effect(treatment.stats, control.stats, relative=relative)
        except MetricError as error:
            return NewTell(trial.number, Status.FAILED, cause=f"{error.where or metric}: {error.what}")
        return _ok(trial, found, treatment.used + control.used)


def _ok(trial: TrialRow, estimate: Estimate, used: tuple[int, ...]) -> NewTell:
    return NewTell(trial.number, Status.OK, value=estimate.value, se=estimate.se, used=used)
