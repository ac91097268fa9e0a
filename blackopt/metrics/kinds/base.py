"""What every kind of metric can do: check, pool, estimate, compare; for one arm exactly, for many at once.

The exact path works in fractions and decides. The path for many works in float64 arrays, and hands every row
that rounding could have touched, or that looks impossible, to the exact one: so there is one place that says
what is wrong, and both give the same numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blackopt.errors import UsageError
from blackopt.metrics.effects import Array, Estimates, effect, effects
from blackopt.metrics.errors import (
    ConstantMetric,
    ImpossibleStatistics,
    MetricError,
    TooFewEvents,
    TooFewUnits,
)
from blackopt.types import Estimate

Stats: TypeAlias = Mapping[str, float]
"""The statistics of one arm, by name."""

Columns: TypeAlias = Mapping[str, Array]
"""The statistics of many arms: arrays of shape (k,) by name."""

Doubt: TypeAlias = NDArray[np.bool_]
"""Shape (k,): the rows that only the exact path can settle."""

LARGEST = 1e150
"""Largest magnitude of a statistic: squares of sums must stay inside float64."""


class Kind(ABC):
    """One kind of metric.

    Attributes:
        name: as in ``campaign.yaml``.
        percent: True where people read the value in per cent.
        required: names of the statistics that every reading must have.
        optional: names of those that it may have beside; pooled where every reading has them.
    """

    name: ClassVar[str]
    percent: ClassVar[bool] = False
    required: frozenset[str]
    optional: frozenset[str] = frozenset()

    def validate(self, stats: Stats) -> str | None:
        """What is wrong with a reading's statistics, for people; None if nothing is.

        No units at all (n = 0, sums 0) is a reading too: a cohort that nobody has entered yet.
        """
        missing = sorted(self.required - stats.keys())
        if missing:
            return f"a {self.name} needs {', '.join(sorted(self.required))}; missing: {', '.join(missing)}"
        for key in sorted(stats):
            value = stats[key]
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"{key} is {value!r}, not a number"
            if not abs(value) <= LARGEST:
                return f"{key} is {value!r}, not a finite number of at most {LARGEST:g}"
        if self.units(stats) < 0:
            return f"n is {stats['n']!r}, below 0"
        if not 0 <= stats.get("events", 0) <= self.units(stats):
            return f"events is {stats['events']!r}, not between 0 and n = {stats['n']!r}"
        return self._problem(stats)

    def fault(self, stats: Stats) -> ImpossibleStatistics | None:
        """What :meth:`validate` finds, as the error that :meth:`estimate` raises for it; None if nothing."""
        problem = self.validate(stats)
        return None if problem is None else self._named(problem)

    def is_constant(self, arms: Sequence[Stats]) -> bool:
        """Whether there are several arms, and the units of each are all alike, as far as their sums tell.

        It may be true (nobody complained), and it is what a broken sensor looks like.

        Args:
            arms: the pooled statistics of each arm; those without units say nothing.
        """
        counted = [stats for stats in arms if self.validate(stats) is None and self.units(stats) > 0]
        return len(counted) > 1 and all(self._constant(stats) for stats in counted)

    def moves(self, stats: Stats) -> bool:
        """Whether sound statistics show units that differ; one unit alone does not."""
        return self.units(stats) > 1 and not self._constant(stats)

    def pool(self, stats: Sequence[Stats]) -> dict[str, float]:
        """The statistics of several readings together, in any order; no readings are no units.

        Sums are rounded once (``math.fsum``), so that readings in another order give the same bits.

        Raises:
            ImpossibleStatistics: a reading lacks a statistic.
        """
        self._complete(stats)
        further = {key for key in self.optional if stats and all(key in s for s in stats)}
        return {key: math.fsum(s[key] for s in stats) for key in sorted(self.required | further)}

    def units(self, stats: Stats) -> float:
        """How many units the statistics come from; 0 where they do not say, which :meth:`validate` names."""
        return stats.get("n", 0.0)

    def events(self, stats: Stats) -> float:
        """How many units did what the metric is about: succeeded, paid, ordered.

        Raises:
            ImpossibleStatistics: the readings do not say.
        """
        if "events" in self.optional and "events" in stats:
            return stats["events"]
        raise ImpossibleStatistics(
            f"a {self.name} does not say how many units had an event",
            why="`min_events` was asked for"
            + (
                ", and the readings have no statistic `events`"
                if "events" in self.optional
                else f"; a {self.name} counts none"
            ),
            next_step=(
                "let the source return the number of such units as `events`"
                if "events" in self.optional
                else "remove `min_events`"
            ),
        )

    def require(self, stats: Stats, *, min_units: float = 1, min_events: float = 0) -> None:
        """Demand a minimum of units and of events before an estimate is looked at.

        Raises:
            TooFewUnits: fewer units.
            TooFewEvents: fewer events.
            ImpossibleStatistics: events were asked for, and the readings do not say.
        """
        units = self.units(stats)
        if units < min_units or units <= 0:
            raise TooFewUnits(f"too few units: {units:g} of at least {max(min_units, 1):g}")
        if min_events > 0 and (events := self.events(stats)) < min_events:
            raise TooFewEvents(
                f"too few events: {events:g} of at least {min_events:g}, among {units:g} units"
            )

    def estimate(self, stats: Stats) -> Estimate:
        """The metric's value and standard error in one arm.

        Raises:
            MetricError: the statistics are impossible, come from no unit, or allow no value.
        """
        fault = self.fault(stats)
        if fault is not None:
            raise fault
        if self.units(stats) <= 0:
            raise TooFewUnits(f"too few units: a {self.name} needs at least one unit, got none")
        return self._estimate(stats)

    def arms(self, treatment: Stats, control: Stats) -> tuple[Estimate, Estimate]:
        """Both arms, ready to be compared.

        An arm whose units are all alike (nobody paid yet) has no variance of its own; it is not certain for
        that, and takes the variance of both arms' units together.

        Raises:
            ConstantMetric: the units of both arms are all alike.
            MetricError: as :meth:`estimate`.
        """
        pair = self._adjusted(treatment, control)
        alone = [self._constant(stats) for stats in (treatment, control)]
        if not any(alone):
            return pair
        if all(alone):
            raise _no_spread(self.name, *pair)
        pool = self.estimate(self.pool([treatment, control]))
        if pool.se is None:
            return pair
        spread = pool.se * math.sqrt(pool.n)  # of one unit
        first, second = (
            replace(arm, se=spread / math.sqrt(arm.n)) if lone else arm
            for arm, lone in zip(pair, alone, strict=True)
        )
        return first, second

    def effect(self, treatment: Stats, control: Stats, *, relative: bool, pooled: bool = False) -> Estimate:
        """Treatment against control, as :func:`blackopt.metrics.effects.effect` of :meth:`arms`.

        Raises:
            ZeroControlError: a lift over nothing.
            MetricError: as :meth:`arms`.
        """
        return effect(*self.arms(treatment, control), relative=relative, pooled=pooled)

    def estimates(self, columns: Columns) -> Estimates:
        """:meth:`estimate` for many arms at once.

        Args:
            columns: arrays of shape (k,) by the statistic's name.

        Raises:
            UsageError: a column is missing, or has another length.
            MetricError: the first row that has no estimate, named as ``row 17`` in ``where``.
        """
        table = self._table(columns)
        with np.errstate(all="ignore"):
            found, doubt = self._bulk(table)
        doubt |= self._unsound(table) | ~np.isfinite(found.value) | ~np.isfinite(found.se)
        return _settled(found, doubt, lambda i: self.estimate(_row(table, i)))

    def effects(
        self, treatments: Columns, controls: Columns, *, relative: bool, pooled: bool = False
    ) -> Estimates:
        """:meth:`effect` for many pairs, or for many treatments beside one control (arrays of length 1).

        Raises:
            UsageError: a column is missing, or the lengths do not fit.
            MetricError: the first pair that has no effect, named as ``row 17`` in ``where``.
        """
        t, c = self._table(treatments), self._table(controls)
        with np.errstate(all="ignore"):
            first, second, doubt = self._bulk_arms(t, c)
        found = effects(first, second, relative=relative, pooled=pooled)
        doubt = (
            doubt | self._unsound(t) | self._unsound(c) | ~np.isfinite(found.value) | ~np.isfinite(found.se)
        )

        def exact(i: int) -> Estimate:
            return self.effect(_row(t, i), _row(c, i), relative=relative, pooled=pooled)

        return _settled(found, doubt, exact)

    def _named(self, problem: str) -> ImpossibleStatistics:
        """The error for what :meth:`validate` found."""
        return ImpossibleStatistics(f"impossible statistics: {problem}")

    @abstractmethod
    def _problem(self, stats: Stats) -> str | None:
        """What is wrong with numbers that are all finite, of at least no units."""

    @abstractmethod
    def _estimate(self, stats: Stats) -> Estimate:
        """The estimate from sound statistics of some units."""

    @abstractmethod
    def _constant(self, stats: Stats) -> bool:
        """Whether the units of a sound arm are all alike, as far as its statistics tell."""

    def _adjusted(self, treatment: Stats, control: Stats) -> tuple[Estimate, Estimate]:
        """Both arms' estimates; a kind with a covariate adjusts them for it."""
        return self.estimate(treatment), self.estimate(control)

    @abstractmethod
    def _bulk(self, table: Columns) -> tuple[Estimates, Doubt]:
        """Estimates in float64; doubtful rows are settled exactly, so theirs may be anything."""

    def _bulk_arms(self, t: Columns, c: Columns) -> tuple[Estimates, Estimates, Doubt]:
        """:meth:`arms` in float64; rows with a constant arm are doubtful."""
        (first, doubt_t), (second, doubt_c) = self._bulk(t), self._bulk(c)
        return first, second, doubt_t | doubt_c

    def _complete(self, stats: Sequence[Stats]) -> None:
        for reading in stats:
            if self.required - reading.keys():
                raise ImpossibleStatistics(f"impossible statistics: {self.validate(reading)}")

    def _table(self, columns: Columns) -> dict[str, Array]:
        missing = sorted(self.required - columns.keys())
        if missing:
            raise UsageError(
                f"columns: a {self.name} needs {', '.join(sorted(self.required))};"
                f" missing: {', '.join(missing)}"
            )
        names = sorted(self.required | (self.optional & columns.keys()))
        table = {name: np.asarray(columns[name], dtype=np.float64) for name in names}
        shapes = {array.shape for array in table.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            given = ", ".join(f"{name} {array.shape}" for name, array in table.items())
            raise UsageError(f"columns: expected arrays of one length, shape (k,); got {given}")
        return table

    def _unsound(self, table: Columns) -> Doubt:
        doubt = ~(table["n"] > 0) if "n" in table else np.zeros(1, dtype=np.bool_)
        for array in table.values():
            doubt = doubt | ~(np.abs(array) <= LARGEST)
        return doubt


def _settled(found: Estimates, doubt: Doubt, exact: Callable[[int], Estimate]) -> Estimates:
    """The estimates with every doubtful row computed exactly."""
    value, se, n = (np.array(array) for array in (found.value, found.se, found.n))
    for i in np.flatnonzero(np.broadcast_to(doubt, value.shape)).tolist():
        try:
            row = exact(i)
        except MetricError as error:
            error.where = f"row {i}"
            raise
        value[i], se[i], n[i] = row.value, math.nan if row.se is None else row.se, row.n
    return Estimates(value, se, n)


def _row(table: Columns, i: int) -> dict[str, float]:
    """One arm of a table; a table of one row is that row for every i."""
    return {name: float(array[i if len(array) > 1 else 0]) for name, array in table.items()}


def _no_spread(name: str, treatment: Estimate, control: Estimate) -> ConstantMetric:
    return ConstantMetric(
        f"no standard error: all {treatment.n:g} units of the arm have {treatment.value:.6g},"
        f" all {control.n:g} of the control {control.value:.6g}",
        why=f"a {name} without any spread says nothing about how sure its effect is, or the spread was lost"
        " when large numbers were squared and added",
        next_step="wait for more events, or subtract a constant near the mean before adding up",
    )
