"""Guardrails on trials: is one crossed, is one silent, and does a metric stand still?

Pure over the ledger's rows and the turn's time, so that a process that died and came back decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec, GuardrailSpec
from blackopt.campaign.units import format_duration
from blackopt.ledger import Ledger
from blackopt.ledger.rows import Disposition, TrialRow
from blackopt.metrics.errors import ImpossibleStatistics, MetricError
from blackopt.metrics.guardrails import Bound, Outcome, Verdict, beyond_since, judge, look, parse_bound
from blackopt.metrics.kinds import Kind, Stats
from blackopt.runner.newest import Newest
from blackopt.runner.notices import Notice
from blackopt.types import CONTROL, Estimate

BREACH = "guardrail: "
"""How the cause of a trial begins that crossed a bound."""

SILENT = "guardrail silent: "
"""How the cause of a trial begins that was served without anybody seeing what it did."""

_SAME = 1e-6  # part of a value below which the spread of its units is rounding


@dataclass(frozen=True, slots=True)
class _Rule:
    spec: GuardrailSpec
    bound: Bound


class Guard:
    """The guardrails of one campaign.

    Attributes:
        metrics: names of those that are guarded.
    """

    def __init__(self, spec: CampaignSpec, kinds: Mapping[str, Kind]) -> None:
        self._rules = [_Rule(g, parse_bound(at_most=g.at_most, at_least=g.at_least)) for g in spec.guardrails]
        self._kinds = kinds
        self.metrics = frozenset(rule.spec.metric for rule in self._rules)

    def breach(self, trial: TrialRow, rows: Newest, ledger: Ledger) -> str | None:
        """The cause to withdraw a trial for, or None while each bound holds or cannot be judged yet.

        Args:
            trial: one that is or was live.
            rows: the newest readings of its window.
            ledger: asked for earlier readings where a bound must be crossed for some time.
        """
        for rule in self._rules:
            lasting = rule.spec.lasting is not None
            verdict = self._lasting(rule, trial, ledger) if lasting else self._tested(rule, trial, rows)
            if verdict is not None and verdict.outcome is Outcome.BREACHED:
                return f"{BREACH}{rule.spec.metric} {verdict.text}"
        return None

    def tested(self, trial: TrialRow, rows: Newest) -> str | None:
        """As :meth:`breach`, from bounds alone that one look at the newest readings can judge."""
        for rule in self._rules:
            verdict = None if rule.spec.lasting is not None else self._tested(rule, trial, rows)
            if verdict is not None and verdict.outcome is Outcome.BREACHED:
                return f"{BREACH}{rule.spec.metric} {verdict.text}"
        return None

    def silence(self, trial: TrialRow, rows: Newest, ledger: Ledger, now_us: int) -> str | None:
        """The cause to withdraw a live trial for that nobody watches, or None.

        Its guardrails are silent when its arm has had no unit since it went live, or sums that no units have,
        or when its source has known nothing new, for ``silent_after``. None of these says that it does harm,
        and nothing says that it does not.
        """
        if trial.live_us is None or trial.window is None:
            return None
        marks = ledger.watermarks(trial.window) if self._rules else {}
        for rule in self._rules:
            metric, limit = rule.spec.metric, rule.spec.silent_after
            deaf = self._deaf(rows, metric, trial.arm)
            known_us = trial.live_us if deaf or metric not in marks else marks[metric].as_of_us
            if now_us - max(known_us, trial.live_us) >= limit:
                what = deaf or "nothing new"
                return f"{SILENT}{metric} has had {what} for {format_duration(limit)}"
        return None

    def unseen(self, trial: TrialRow, rows: Newest, counted: str, mature: Collection[str]) -> str | None:
        """The cause for a trial that has matured with units in what it is told from and none in a guardrail.

        Args:
            trial: that is to be told.
            rows: the newest readings of its window.
            counted: the metric that it is told from.
            mature: metrics that have matured; another may well be without a unit.
        """
        for rule in self._rules if self._units(rows, counted, trial.arm) > 0 else ():
            if rule.spec.metric in mature and self._units(rows, rule.spec.metric, trial.arm) <= 0:
                return f"{SILENT}{rule.spec.metric} has matured without a unit"
        return None

    def _tested(self, rule: _Rule, trial: TrialRow, rows: Newest) -> Verdict | None:
        metric, kind = rule.spec.metric, self._kinds[rule.spec.metric]
        try:
            mine, theirs = (self._pool(rows, metric, arm) for arm in (trial.arm, CONTROL))
        except ImpossibleStatistics:
            return None  # a reading lacks a statistic: while it does, the guardrail is silent
        treatment = self._estimate(metric, mine)
        if treatment is None or (treatment.se is None and kind.name != "value"):
            return None  # one unit, or sums that no units have: nothing is known of its spread
        events = events_of(kind, mine)
        return judge(
            rule.bound,
            treatment,
            self._estimate(metric, theirs),
            alpha=rule.spec.alpha,
            expected_units=rule.spec.expected_units,
            min_units=rule.spec.min_units,
            min_events=rule.spec.min_events,
            events=None if events is None else (events, events_of(kind, theirs)),
            percent=kind.percent,
        )

    def _lasting(self, rule: _Rule, trial: TrialRow, ledger: Ledger) -> Verdict | None:
        """Crossed when all readings since some time were beyond the bound, and that is long enough ago.

        A poll that finds the same statistics leaves no reading, but moves the window's watermark: so the run
        lasts until there.
        """
        metric, limit = rule.spec.metric, rule.spec.lasting
        if trial.window is None or limit is None:
            return None
        seen: list[tuple[int, Verdict]] = []
        for as_of_us, mine, theirs in _history(ledger, trial.window, metric, trial.arm):
            treatment = self._estimate(metric, self._kinds[metric].pool(mine))
            if treatment is None or treatment.n < rule.spec.min_units:
                continue
            control = self._estimate(metric, self._kinds[metric].pool(theirs))
            percent = self._kinds[metric].percent
            seen.append((as_of_us, look(rule.bound, treatment, control, percent=percent)))
        since = beyond_since((at, verdict.outcome is Outcome.BREACHED) for at, verdict in seen)
        mark = ledger.watermarks(trial.window).get(metric)
        if since is None or mark is None or mark.as_of_us - since < limit:
            return None
        last = seen[-1][1]
        return Verdict(last.outcome, f"{last.text} for {format_duration(limit)}")

    def _pool(self, rows: Newest, metric: str, arm: str) -> Stats:
        return self._kinds[metric].pool([row.reading.stats for row in rows.of(metric, arm)])

    def _units(self, rows: Newest, metric: str, arm: str) -> float:
        return math.fsum(self._kinds[metric].units(row.reading.stats) for row in rows.of(metric, arm))

    def _deaf(self, rows: Newest, metric: str, arm: str) -> str:
        """Why an arm's readings say nothing of it; "" where they do, or will with more units."""
        if self._units(rows, metric, arm) <= 0:
            return "no unit"
        try:
            self._kinds[metric].estimate(self._pool(rows, metric, arm))
        except ImpossibleStatistics:
            return "impossible sums"
        except MetricError:
            return ""  # too few units yet
        return ""

    def _estimate(self, metric: str, stats: Stats) -> Estimate | None:
        try:
            return self._kinds[metric].estimate(stats)
        except MetricError:
            return None  # no units yet, or impossible sums: at maturity these are told as such


def twins(trial: TrialRow, trials: Sequence[TrialRow], group: int) -> list[TrialRow]:
    """The trials of a window that stand or fall together, in order: antithetic twins, and the trial itself.

    A difference between twins means something only while both are served, so one is never withdrawn alone;
    and an optimizer that was told the worst of one and a value of the other would take their difference for a
    slope.
    """
    if group < 2 or trial.candidate is None:
        return [trial]
    pair = trial.candidate // group
    return [
        t
        for t in trials
        if t.window == trial.window and t.candidate is not None and t.candidate // group == pair
    ]


def with_arm(cause: str, trial: TrialRow) -> str:
    """The cause of all twins, naming the one that gave it."""
    begins, _, what = cause.partition(": ")
    return f"{begins}: {trial.arm}: {what}"


def standing_still(
    rows: Newest, kinds: Mapping[str, Kind], files: Mapping[str, str] | None = None
) -> Iterator[Notice]:
    """A notice for each metric that is the same in every arm of a window, without any spread.

    It may be true (nobody complained), and it is what a broken sensor looks like.

    Args:
        rows: the newest readings of the window.
        kinds: of the metrics to look at, by name.
        files: where each metric is written down, such as its query, as far as that is known.
    """
    for metric, kind in kinds.items():
        found: list[Estimate] = []
        for arm in rows.arms(metric):
            stats = [row.reading.stats for row in rows.of(metric, arm)]
            try:
                found.append(kind.estimate(kind.pool(stats)))
            except MetricError:
                continue  # an arm without a value says nothing of the sensor
        if len(found) < 2 or len({e.value for e in found}) > 1:
            continue
        value = found[0].value
        if all((e.se or 0.0) * math.sqrt(e.n) <= _SAME * abs(value) for e in found):
            text = f"{metric} is {value:g} in all {len(found)} arms, without any spread: is its sensor alive?"
            text += f" (look at {files[metric]})" if files and metric in files else ""
            yield Notice("constant", text, {"metric": metric, "value": value, "arms": len(found)})


def events_of(kind: Kind, stats: Stats) -> float | None:
    """Units that had an event; None where this kind, or this source, does not count them."""
    try:
        return kind.events(stats)
    except MetricError:
        return None


def _history(
    ledger: Ledger, window: int, metric: str, arm: str
) -> Iterator[tuple[int, list[Stats], list[Stats]]]:
    """What was known of an arm and of the control at each time of a reading: (as_of, arm's, control's)."""
    rows = [
        row
        for name in (arm, CONTROL)
        for row in ledger.revisions(window, name, disposition=Disposition.ACCEPTED)
        if row.reading.metric == metric
    ]
    newest: dict[tuple[str, str], Stats] = {}
    for at in sorted({row.reading.as_of_us for row in rows}):
        for row in rows:
            if row.reading.as_of_us == at:
                newest[row.reading.arm, row.reading.cohort] = row.reading.stats
        mine = [stats for (name, _), stats in newest.items() if name == arm]
        if mine:
            yield at, mine, [stats for (name, _), stats in newest.items() if name == CONTROL]
