"""Why a metric has no value, or no effect: one name a reason, so that a trial's cause says which.

TrialError
└── MetricError
    ├── ImpossibleStatistics  no units have such sums
    │   └── NegativeVariance  their squares, or all sums together, give a variance below zero
    ├── TooFewUnits           fewer than were asked for, or than the estimate needs
    ├── TooFewEvents          fewer successes, payers or orders than were asked for
    ├── ZeroDenominator       a ratio over nothing
    ├── ZeroControlError      a lift over nothing
    ├── ConstantMetric        all units of both arms are alike: there is no spread to compare with
    └── SuspectRows           what a source returned cannot be what the metric means
        ├── NoRows                  nothing, long after everything was to be known
        ├── UnknownArm              a row of an arm that the window does not have
        ├── OverlappingWindows      a row of another window's days, or two rows for one place
        └── CovariateAfterExposure  a covariate that looks past the exposure
"""

from __future__ import annotations

from blackopt.errors import TrialError


class MetricError(TrialError):
    """A metric has no value; the readings are kept, and the campaign goes on."""

    def __init__(self, what: str, *, where: str = "", why: str = "", next_step: str = "") -> None:
        safe = "the readings are kept; at most this trial counts as failed"
        super().__init__(what, where=where, why=why, safe=safe, next_step=next_step)


class ImpossibleStatistics(MetricError):
    """A statistic is missing or no number, or no units have such sums."""


class TooFewUnits(MetricError):
    """Fewer units than were asked for, or than the estimate needs."""


class TooFewEvents(MetricError):
    """Fewer successes, payers or orders than were asked for."""


class ZeroDenominator(MetricError):
    """A ratio has no value: its denominator is zero, or too close to it for float64."""


class ZeroControlError(MetricError):
    """A relative effect has no value: the control is zero, or too close to it for float64."""


class ConstantMetric(MetricError):
    """All units of both arms are alike as far as their sums can tell."""


class NegativeVariance(ImpossibleStatistics):
    """A variance below zero by more than rounding explains."""


class SuspectRows(MetricError):
    """What a source returned cannot be what the metric means, whatever its sums are."""


class NoRows(SuspectRows):
    """Nothing came for a window, although all of it was to be known by now."""


class UnknownArm(SuspectRows):
    """A row is of an arm that was not served in the window that was asked about."""


class OverlappingWindows(SuspectRows):
    """A row is of days outside the window that was asked about, or the second for one arm and cohort."""


class CovariateAfterExposure(SuspectRows):
    """The covariate of some units looks past their exposure, so it may be an effect of the candidate."""
