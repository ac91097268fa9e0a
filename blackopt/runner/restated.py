"""What the newest readings say of each trial: before it is told, and where they changed after it was.

Shown to people, told to nobody: a value that was told never changes.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from blackopt.ledger import Ledger
from blackopt.ledger.rows import Disposition, ReadingRow, TellRow, TrialRow, TrialState
from blackopt.metrics.errors import MetricError
from blackopt.metrics.surrogate import Fit, Pair, fit
from blackopt.runner.judge import Judge
from blackopt.runner.newest import Newest
from blackopt.runner.wording import per_cent
from blackopt.types import CONTROL, Estimate, Reading, Role, Status

_SAME = 1e-9
"""Part of a value by which another build of numpy may compute it differently."""

_LATE = (
    'SELECT id, metric, "window", arm, cohort, max(as_of_us) AS as_of_us, stats, trial, received_us'
    " FROM reading WHERE \"window\" = ? AND disposition = 'late' GROUP BY metric, arm, cohort"
)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one trial beside what was told of it.

    Attributes:
        so_far: of a trial that is not told: what it would be told from today's readings, complete or not.
        now: of one that was told a value: what it would be told now, where that is another.
        matured: of one that was told from a surrogate: the objective's own effect, once that has matured.
        surrogate: of the same: the surrogate's effect, in its own units.
    """

    so_far: Estimate | None = None
    now: Estimate | None = None
    matured: Estimate | None = None
    surrogate: Estimate | None = None


def newest(ledger: Ledger, window: int) -> Newest:
    """The newest revision per (metric, arm, cohort), late ones as well."""
    rows = {_place(row.reading): row for row in ledger.latest(window)}
    for found in ledger.db.query(_LATE, [window]):
        reading = Reading(
            found["metric"],
            found["window"],
            found["arm"],
            found["cohort"],
            found["as_of_us"],
            json.loads(found["stats"]),
        )
        known = rows.get(_place(reading))
        if known is None or known.reading.as_of_us < reading.as_of_us:
            rows[_place(reading)] = ReadingRow(
                found["id"], reading, found["trial"], found["received_us"], Disposition.LATE
            )
    return Newest(rows[place] for place in sorted(rows))


def known(
    judge: Judge, ledger: Ledger, trials: Iterable[TrialRow], tells: Iterable[TellRow]
) -> dict[int, Known]:
    """What is known of each trial in production that has something to show, by number."""
    windows = {window.number: window for window in ledger.windows()}
    told = {tell.trial: tell for tell in tells}
    by_window: defaultdict[int, list[TrialRow]] = defaultdict(list)
    for trial in trials:
        if trial.window is not None:
            by_window[trial.window].append(trial)
    found: dict[int, Known] = {}
    for number, mine in by_window.items():
        rows = newest(ledger, number)
        matured = judge.objective.metric in judge.matured(windows[number], ledger)
        for trial in mine:
            of_trial = _of_trial(judge, trial, told.get(trial.number), rows, matured=matured)
            if of_trial != Known():
                found[trial.number] = of_trial
    return found


def calibration(judge: Judge, trials: Sequence[TrialRow], beside: Mapping[int, Known]) -> Fit | None:
    """How well the surrogate has foretold the objective, from trials of which both are known by now."""
    if judge.surrogate is None:
        return None
    pairs = []
    for trial in trials:
        mine = beside.get(trial.number, Known())
        fast, slow = mine.surrogate, mine.matured
        if trial.window is None or fast is None or fast.se is None or slow is None or slow.se is None:
            continue
        pairs.append(Pair(trial.window, fast, slow))
    return fit(pairs)


def calibrated(judge: Judge, found: Fit | None) -> str | None:
    """One line on what was declared of the surrogate and what has shown since; None without a surrogate."""
    declared = judge.surrogate
    if declared is None:
        return None
    relative = judge.objective.effect == "relative"

    def show(error: float) -> str:
        return per_cent(error) if relative else f"{error:.4g}"

    slope = f"declared slope {declared.slope:.3g}, error {show(declared.error)}"
    if found is None:
        since = "too few trials have matured since to tell how good that was"
    else:
        since = (
            f"from {found.pairs} matured trials: slope {found.slope:.3g} ± {found.se:.2g}, "
            f"error {show(found.error)}"
        )
    return f"surrogate {declared.metric}: {slope}; {since}"


def _of_trial(judge: Judge, trial: TrialRow, tell: TellRow | None, rows: Newest, *, matured: bool) -> Known:
    if tell is None:
        waits = trial.state is not TrialState.ASKED and not trial.cause.startswith("guardrail")
        return Known(so_far=_value(judge, rows, trial)) if waits else Known()
    if tell.status is not Status.OK or tell.value is None:
        return Known()
    now = _value(judge, rows, trial) if _changed(judge, rows, tell, trial.arm) else None
    if now is not None and math.isclose(now.value, tell.value, rel_tol=_SAME, abs_tol=_SAME * (tell.se or 0)):
        now = None
    if judge.surrogate is None or trial.role is not Role.SEARCH:
        return Known(now=now)
    return Known(
        now=now,
        matured=_effect(judge, rows, judge.objective.metric, trial.arm) if matured else None,
        surrogate=_effect(judge, rows, judge.surrogate.metric, trial.arm),
    )


def _changed(judge: Judge, rows: Newest, tell: TellRow, arm: str) -> bool:
    """Whether anything that bears on a trial came after it was told."""
    return any(
        row.received_us > tell.at_us
        for name in judge.metrics
        for bears in (arm, CONTROL)
        for row in rows.of(name, bears)
    )


def _value(judge: Judge, rows: Newest, trial: TrialRow) -> Estimate | None:
    try:
        return judge.value(rows, trial.role, trial.arm)[0]
    except MetricError:
        return None  # too few units so far, or none


def _effect(judge: Judge, rows: Newest, metric: str, arm: str) -> Estimate | None:
    try:
        return judge.effect(rows, metric, arm)[0]
    except MetricError:
        return None


def _place(reading: Reading) -> tuple[str, str, str]:
    return reading.metric, reading.arm, reading.cohort
