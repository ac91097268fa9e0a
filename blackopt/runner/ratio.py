"""The sample ratio of a window: one look, when it has matured, at the arms that were served all the time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blackopt.ledger.rows import ReadingRow, TrialRow, WindowRow
from blackopt.metrics.kinds import Kind
from blackopt.metrics.sample_ratio import sample_ratio
from blackopt.types import CONTROL

MISMATCH = "sample ratio mismatch: "
"""How the cause of a trial begins whose window is not told."""

MOVED = "covariate: "
"""The same, for a window whose covariate differs between its arms."""

WINDOW_ENDED = "window ended"
"""Cause of a trial that was served to the end of its window."""

_LATE = 100  # an arm may go live in the first hundredth of its window

_NOT_UNITS = ("quantile", "value")  # kinds whose n need not count randomization units


def served(window: WindowRow, trials: Sequence[TrialRow]) -> list[TrialRow]:
    """Those that were served from the start of their window, give or take a hundredth of it, to its end.

    A trial that was told since that its window is spoiled keeps its place in a second look.
    """
    latest_us = window.start_us + (window.end_us - window.start_us) // _LATE
    return [
        trial
        for trial in trials
        if (trial.cause == WINDOW_ENDED or trial.cause.startswith((MISMATCH, MOVED)))
        and trial.live_us is not None
        and trial.live_us <= latest_us
    ]


def mismatch(
    window: WindowRow, trials: Sequence[TrialRow], rows: Iterable[ReadingRow], metric: str, kind: Kind
) -> str | None:
    """Why no arm of a window may be compared, or None.

    Compared are the units that the objective counts. An arm that went live late or was withdrawn early has
    fewer units for an honest reason and is left out. There is exactly one look, at maturity, so nothing needs
    to be remembered of earlier ones; a window whose trials are told in two turns is looked at again only
    because its readings were restated in between.

    Args:
        window: that has matured.
        trials: of that window.
        rows: its newest readings.
        metric: the objective.
        kind: of that metric.
    """
    if kind.name in _NOT_UNITS:
        return None
    widths = {
        trial.arm: float(trial.slice.upper - trial.slice.lower)
        for trial in served(window, trials)
        if trial.slice is not None
    }
    if window.control.upper > window.control.lower:
        widths[CONTROL] = float(window.control.upper - window.control.lower)
    units = dict.fromkeys(widths, 0.0)
    for row in rows:
        if row.reading.metric == metric and row.reading.arm in units:
            units[row.reading.arm] += kind.units(row.reading.stats)
    found = sample_ratio(units, widths)
    if found is None or not found.flagged:
        return None
    return (
        f"{MISMATCH}{found}; look for exposures that are lost or logged twice in some arms, candidates that "
        "change who is logged, and times at which the module was not reached"
    )
