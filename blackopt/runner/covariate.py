"""The covariates of a window: has a candidate moved what should have been known before it came?"""

from __future__ import annotations

from collections.abc import Sequence

from blackopt.ledger.rows import TrialRow, WindowRow
from blackopt.metrics.covariate import imbalance, limit
from blackopt.metrics.errors import MetricError
from blackopt.metrics.kinds import Average, Kind
from blackopt.runner.newest import Newest
from blackopt.runner.ratio import MOVED, served
from blackopt.types import CONTROL


def moved(window: WindowRow, trials: Sequence[TrialRow], rows: Newest, metric: str, kind: Kind) -> str | None:
    """Why a metric of a window must not be adjusted for its covariate, or None.

    Compared are the arms that were served all the time: one that was withdrawn in the morning has other
    units for an honest reason. What is compared was fixed before the exposure, so it may be looked at as
    often as one likes.

    Args:
        window: that has matured.
        trials: of that window.
        rows: its newest readings.
        metric: name.
        kind: of that metric.
    """
    if not isinstance(kind, Average) or not kind.cuped:
        return None
    arms = [trial.arm for trial in served(window, trials)]
    own = {arm: [row.reading.stats for row in rows.of(metric, arm)] for arm in (*arms, CONTROL)}
    found: dict[str, float] = {}
    try:
        control = kind.pool(own[CONTROL])
        for arm in arms:
            z = imbalance(kind, kind.pool(own[arm]), control)
            if z is not None:
                found[arm] = z
    except MetricError:
        return None  # statistics are missing: the tell says which
    if not found:
        return None
    worst = max(found, key=lambda arm: abs(found[arm]))
    if abs(found[worst]) <= limit(len(found)):
        return None
    return (
        f"{MOVED}the covariate of {metric} differs between {worst} and {CONTROL} (z = {found[worst]:.1f}): "
        "is it measured before the exposure?"
    )
