"""The control's past, read through the campaign's own source: what it was, how it moved, who came when.

Only reads. Each metric with a ``history`` gives one reading a day, its cohort, and nothing else will do: a
day twice, a day missing or one that has not matured would each shift the variance that a plan is built on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np

from blackopt.campaign import CampaignSpec, MetricSpec
from blackopt.clock import SECOND_US
from blackopt.errors import ConfigurationError
from blackopt.metrics.errors import MetricError
from blackopt.metrics.kinds import Average, Kind
from blackopt.metrics.kinds.moments import exact, level, slope, spread
from blackopt.protocols import Source
from blackopt.rehearsal.levels import Level, stated
from blackopt.runner.assembly import Parts
from blackopt.runner.judge import Judge
from blackopt.runner.plan import Baseline
from blackopt.types import CONTROL, NoReading, Query, Reading

DAY_US = 86_400 * SECOND_US
LEAST_DAYS = 7
"""Fewer than a week of days say nothing of its pattern."""


class HistoryError(ConfigurationError):
    """The control's past cannot be used."""

    def __init__(self, what: str, where: str, why: str, next_step: str) -> None:
        super().__init__(what, where=where, why=why, safe="it was only read", next_step=next_step)


class EmptyHistory(HistoryError):
    """No row came back."""


class ImpossibleDay(HistoryError):
    """No units have such sums: a number that is none, a negative variance, more successes than units."""


class NoDay(HistoryError):
    """A row's cohort is no day, or one outside the span that was asked for."""


class RepeatedDay(HistoryError):
    """A day came twice."""


class MissingDay(HistoryError):
    """A day between the first and the last did not come, or had no units."""


class ImmatureDay(HistoryError):
    """The last units of a day have not matured."""


class ConstantHistory(HistoryError):
    """Every unit of every day is alike."""


@dataclass(frozen=True, slots=True)
class Past:
    """One metric of the control, over some days.

    Attributes:
        days: how many.
        units_per_day: on average.
        baseline: mean and deviation of one unit, and its correlation with the covariate of ``cuped``.
        level: the same with all moments, as a rehearsal draws from it.
        weekdays: 7 factors of ``units_per_day``, Monday first, of mean 1.
        drift: standard deviation of the level between days beyond that of sampling, relative to it.
        overdispersion: variance of the daily values over what sampling explains; 1 where nothing moves.
    """

    days: int
    units_per_day: float
    baseline: Baseline
    level: Level
    weekdays: tuple[float, ...]
    drift: float
    overdispersion: float


@dataclass(frozen=True, slots=True)
class _Day:
    date: date
    stats: Mapping[str, float]
    where: str


def read_history(parts: Parts, since: date, until: date, *, now_us: int) -> dict[str, Past]:
    """What each metric with a ``history`` was between two days.

    Args:
        parts: of the campaign; only its source is built.
        since, until: first day, and the day after the last, in UTC.
        now_us: the time of asking; nothing later is known.

    Raises:
        HistoryError: the rows do not make a past; by its name, with the row and the query's file.
        ConfigurationError: no metric has a ``history``, or the span is empty or shorter than a week.
        RetriableError: the source cannot be reached now.
    """
    if (until - since).days < LEAST_DAYS:
        raise ConfigurationError(
            f"{max(0, (until - since).days)} days are too few",
            where="--since, --until",
            why=f"the pattern of a week needs at least {LEAST_DAYS}; `until` is the day after the last",
            safe="nothing was read",
            next_step="such as --since 2026-10-01 --until 2026-11-01",
        )
    source, spec = parts.history_source(), parts.spec
    judge = Judge(spec)
    return {
        name: past(judge.kinds[name], _days(source, spec, judge, name, since, until, now_us))
        for name, metric in _declared(spec).items()
        if metric.history is not None
    }


def past(kind: Kind, days: Sequence[_Day]) -> Past:
    """The past that complete days of one metric make.

    The variance between days is compared with what sampling explains, in the manner of DerSimonian & Laird
    ("Meta-analysis in clinical trials", 1986), with equal weights: τ² = max(0, Var(y) − mean of se²).

    Args:
        kind: of the metric.
        days: in order, at least two.
    """
    pooled = kind.pool([day.stats for day in days])
    whole = kind.estimate(pooled)
    found = [kind.estimate(day.stats) for day in days]
    units = np.array([kind.units(day.stats) for day in days])
    values = np.array([e.value for e in found])
    errors = np.array([e.se or 0.0 for e in found])
    between = float(np.var(values, ddof=1))
    within = float(np.mean(errors**2))
    drift = math.sqrt(max(0.0, between - within)) / abs(whole.value) if whole.value else 0.0
    baseline = _baseline(kind, pooled, whole.value, (whole.se or 0.0) * math.sqrt(whole.n))
    return Past(
        days=len(days),
        units_per_day=float(units.mean()),
        baseline=baseline,
        level=_level(kind, pooled, baseline),
        weekdays=_weekdays([day.date.weekday() for day in days], units),
        drift=drift,
        overdispersion=between / within if within else 1.0,
    )


def _baseline(kind: Kind, pooled: Mapping[str, float], mean: float, sd: float) -> Baseline:
    if kind.percent:
        return Baseline(mean)
    if not isinstance(kind, Average) or not kind.cuped:
        return Baseline(mean, sd)
    moments = exact(pooled, (*kind.outcome, *kind.covariates))
    above, below = slope(moments)
    half = level(moments.means[: len(kind.outcome)]).gradient
    own = half + tuple(g * 0 for g in half)
    variance = spread(moments, own, own)
    if not (below > 0 and variance > 0):
        return Baseline(mean, sd, 0.0)
    explained = float(above) / math.sqrt(float(below) * float(variance))
    return Baseline(mean, sd, max(-1.0, min(1.0, explained)))


def _level(kind: Kind, pooled: Mapping[str, float], baseline: Baseline) -> Level:
    if not isinstance(kind, Average):
        return stated(kind, baseline)
    parts = (*kind.outcome, *kind.covariates) if kind.cuped else kind.outcome
    moments = exact(pooled, parts)
    events = pooled["events"] / pooled["n"] if "events" in pooled else stated(kind, baseline).events
    return Level(
        parts,
        np.array([float(m) for m in moments.means]),
        np.array([[float(c) for c in row] for row in moments.covariance]),
        events,
    )


def _weekdays(days: Sequence[int], units: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    sums, counts = np.zeros(7), np.zeros(7)
    for day, n in zip(days, units, strict=True):
        sums[day] += n
        counts[day] += 1
    means = sums / counts
    return tuple((means / means.mean()).tolist())


def _days(
    source: Source, spec: CampaignSpec, judge: Judge, name: str, since: date, until: date, now_us: int
) -> list[_Day]:
    kind, maturity = judge.kinds[name], judge.metrics[name].maturity
    query = Query(spec.name, 0, (CONTROL,), _start_us(since), _start_us(until), now_us, (name,))
    file = str(getattr(_declared(spec)[name].history, "query", "") or f"history of {name}")
    found: dict[date, _Day] = {}
    for number, item in enumerate(source.read(query), 1):
        where = f"{file}:1, row {number}"
        if isinstance(item, NoReading):
            raise ImpossibleDay(f"a day of {name} cannot be read", where, item.cause, MEND)
        day = _day(name, kind, item, where, since, until)
        if day.date in found:
            raise RepeatedDay(
                f"{day.date} of {name} came twice",
                f"{where}, and {found[day.date].where}",
                "units of both would be counted twice, or the days overlap",
                "one row a day: GROUP BY the day of the exposure alone",
            )
        ripe_us = maturity.mature_at(_start_us(day.date + timedelta(days=1)))
        if item.as_of_us < ripe_us:
            raise ImmatureDay(
                f"{day.date} of {name} has not matured",
                where,
                f"its last units are known from {datetime.fromtimestamp(ripe_us / 1e6, UTC):%d %b %H:%M} on",
                "an earlier --until",
            )
        found[day.date] = day
    return _complete(name, kind, found, since, until, file)


def _day(name: str, kind: Kind, item: Reading, where: str, since: date, until: date) -> _Day:
    try:
        day = date.fromisoformat(item.cohort)
    except ValueError:
        day = date.min
    if not since <= day < until or item.arm != CONTROL:
        says = f"cohort {item.cohort!r} of arm {item.arm!r}"
        raise NoDay(
            f"a row of {name} is about no day of the control that was asked for",
            where,
            f"{says}; expected a day of {CONTROL!r} from {since} to {until - timedelta(days=1)}, YYYY-MM-DD",
            "return the day as `cohort`, and only days from :window_start to :window_end",
        )
    problem = kind.validate(item.stats)
    if problem is None and kind.units(item.stats) > 0:
        try:
            kind.estimate(item.stats)
        except MetricError as error:
            problem = f"{error.what}: {error.why}"
    if problem is not None:
        raise ImpossibleDay(f"{day} of {name} is impossible", where, problem, MEND)
    return _Day(day, item.stats, where)


MEND = "mend the query; each row is one day's sums over its units"


def _complete(
    name: str, kind: Kind, found: Mapping[date, _Day], since: date, until: date, file: str
) -> list[_Day]:
    where = f"{file}:1"
    if not found:
        raise EmptyHistory(
            f"{name} has no past",
            where,
            f"no row from {since} to {until - timedelta(days=1)}",
            "compare the span with what the query knows; times are microseconds UTC",
        )
    wanted = [since + timedelta(days=i) for i in range((until - since).days)]
    missing = [day for day in wanted if day not in found or kind.units(found[day].stats) <= 0]
    if missing:
        shown = ", ".join(map(str, missing[:3])) + (", …" if len(missing) > 3 else "")
        raise MissingDay(
            f"{len(missing)} of {len(wanted)} days of {name} are missing",
            where,
            f"no row, or no unit, for {shown}",
            "fill the gap, or choose a span without one",
        )
    days = [found[day] for day in wanted]
    whole = kind.estimate(kind.pool([day.stats for day in days]))
    if not (whole.se or 0.0) * math.sqrt(whole.n) > 1e-9 * abs(whole.value):
        raise ConstantHistory(
            f"{name} never varies",
            where,
            f"all {whole.n:g} units have {whole.value:g}: it is not measured, or cannot be moved",
            "look at the query, or choose another metric",
        )
    return days


def _start_us(day: date) -> int:
    return (day - date(1970, 1, 1)).days * DAY_US


def _declared(spec: CampaignSpec) -> Mapping[str, MetricSpec]:
    if spec.measure is None:
        raise ConfigurationError("there are no metrics", where=spec.file, safe="nothing was read")
    return spec.measure.metrics
