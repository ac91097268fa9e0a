"""Means and ratios of means, alone or adjusted for a covariate: linear near the means of their parts."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import ClassVar

import numpy as np

from blackopt.metrics.effects import Array, Estimates
from blackopt.metrics.errors import ImpossibleStatistics, NegativeVariance, ZeroDenominator
from blackopt.metrics.kinds.base import Columns, Doubt, Kind, Stats
from blackopt.metrics.kinds.moments import (
    ROUNDING,
    Linear,
    Moments,
    Parts,
    adjusted,
    bulk,
    columns_of,
    covariate,
    exact,
    level,
    product_of,
    slope,
    spread,
    sum_of,
    weighed,
)
from blackopt.types import Estimate

_CANCELLED = 1e-6
"""Part of its scale below which a variance has lost too many digits in float64."""

_SHORT = ": no numbers have such sums"
"""How a problem ends that is a negative variance."""


class Average(Kind):
    """A level Y of the units of an arm, a mean or a ratio of means, with SE² = V/n.

    V is the variance of one unit, ∇ᵀΛ∇ of the level's gradient and the unbiased covariances. It is formed
    exactly from the given sums, and is never taken for smaller than what float64 can hold of the squares:
    with large means the difference cancels, and a variance that has vanished in rounding must not pass for
    certainty. One unit has no standard error.

    With ``cuped`` the arms of a comparison are Y − θ(X − X̄), where X is a covariate from strictly before the
    exposure, X̄ its level and θ = Cov(Y, X)/Var(X) in both arms' units together (Deng, Xu, Kohavi & Walker,
    WSDM 2013, section 3). A covariate that does not vary explains nothing: θ = 0. A single arm is not
    adjusted, so :meth:`estimate` is the plain level.

    Attributes:
        outcome: the parts of Y.
        cuped: whether comparisons are adjusted.
    """

    outcome: ClassVar[Parts]
    covariates: ClassVar[Parts]
    optional = frozenset({"events"})

    def __init__(self, *, cuped: bool = False) -> None:
        self.cuped = cuped
        self._parts = (*self.outcome, *self.covariates) if cuped else self.outcome
        self.required = columns_of(self._parts)

    def _problem(self, stats: Stats) -> str | None:
        n = stats["n"]
        for part in self._parts:
            if stats[product_of(part, part)] < 0:
                return f"{product_of(part, part)} is {stats[product_of(part, part)]!r}, below 0{_SHORT}"
        if n == 0:
            some = [key for key in sorted(self.required) if stats[key] != 0]
            return f"n is 0, but {' and '.join(f'{key} is {stats[key]!r}' for key in some)}" if some else None
        moments = exact(stats, self._parts)
        for i, part in enumerate(self._parts):
            if moments.covariance[i][i] < -ROUNDING * moments.squares[i]:
                total, squares = sum_of(part), product_of(part, part)
                least = f"{total}²/n = {stats[total] * stats[total] / n!r}"
                return f"{squares} is {stats[squares]!r}, less than {least}{_SHORT}"
            for j in range(i):
                if _overlarge(moments, i, j):
                    product = product_of(self._parts[j], part)
                    return f"{product} is {stats[product]!r}: no numbers with these sums and squares have it"
        return None

    def _named(self, problem: str) -> ImpossibleStatistics:
        if not problem.endswith(_SHORT):
            return super()._named(problem)
        return NegativeVariance(
            f"impossible statistics: negative variance: {problem}",
            why="squares are of the totals of units: Σy² is at least (Σy)²/n",
            next_step="aggregate to one row for each unit, then add up y, y*y and the units",
        )

    def _estimate(self, stats: Stats) -> Estimate:
        self._divisible(stats, self.outcome)
        moments = exact(stats, self.outcome)
        return _estimate(moments, level(moments.means))

    def _constant(self, stats: Stats) -> bool:
        moments = exact(stats, self.outcome)
        gradient = level(moments.means).gradient
        # A source that adds n equal numbers one by one leaves up to n roundings behind, in each of its sums.
        least = weighed(moments.rounding, gradient) * 4 * moments.n
        return moments.n > 1 and spread(moments, gradient, gradient) <= least

    def _adjusted(self, treatment: Stats, control: Stats) -> tuple[Estimate, Estimate]:
        pair = super()._adjusted(treatment, control)
        if not self.cuped:
            return pair
        together = self.pool([treatment, control])
        if all(together[product_of(part, part)] == 0 for part in self.covariates):
            return pair  # new units only: nobody has a past to explain anything with
        self._divisible(together, (*self.outcome, *self.covariates[1:]))
        pool = exact(together, self._parts)
        above, below = slope(pool)
        given = covariate(pool)
        if below <= weighed(pool.rounding, given.gradient):
            return pair
        found = []
        for stats in (treatment, control):
            self._divisible(stats, self.covariates)  # it may be 0 in one arm only
            moments = exact(stats, self._parts)
            found.append(_estimate(moments, adjusted(moments, above / below, given.value)))
        return found[0], found[1]

    def _divisible(self, stats: Stats, parts: Parts) -> None:
        for part in parts[1:]:
            if stats[sum_of(part)] == 0:
                raise ZeroDenominator(
                    f"no {self.name}: {sum_of(part)} is 0 in {stats['n']:g} units",
                    why="a ratio over nothing has no value",
                    next_step="wait for units that have a denominator, or look at the numerator as a mean",
                )

    def _bulk(self, table: Columns) -> tuple[Estimates, Doubt]:
        moments = bulk(table, self._parts)
        own = bulk(table, self.outcome) if self.cuped else moments
        doubt: Doubt = np.zeros(len(table["n"]), dtype=np.bool_)
        for i in range(len(self._parts)):
            doubt |= ~(moments.covariance[i][i] >= -ROUNDING * moments.squares[i])
            for j in range(i):
                c = moments.covariance
                bound = np.sqrt(np.maximum(c[i][i], 0) * np.maximum(c[j][j], 0))
                rounding = ROUNDING * np.sqrt(moments.squares[i] * moments.squares[j])
                doubt |= ~(np.abs(c[i][j]) <= bound + rounding)
        if "events" in table:
            doubt |= ~((table["events"] >= 0) & (table["events"] <= table["n"]))
        found, more = _bulk_estimates(own, level(own.means))
        return found, doubt | more

    def _bulk_arms(self, t: Columns, c: Columns) -> tuple[Estimates, Estimates, Doubt]:
        first, second, doubt = super()._bulk_arms(t, c)
        if not self.cuped:
            return first, second, doubt
        pool = bulk({name: t[name] + c[name] for name in self.required}, self._parts)
        above, below = slope(pool)
        given = covariate(pool)
        # A covariate that hardly varies is the exact path's to judge.
        doubt = doubt | ~(below > _CANCELLED * weighed(pool.squares, given.gradient))
        arms = []
        for table in (t, c):
            moments = bulk(table, self._parts)
            arm, more = _bulk_estimates(moments, adjusted(moments, above / below, given.value))
            arms.append(arm)
            doubt = doubt | more
        return arms[0], arms[1], doubt


class Mean(Average):
    """The mean of a number per unit: Ȳ = Σy/n, V = (Σy² − (Σy)²/n)/(n − 1)."""

    name = "mean"
    outcome = ("num",)
    covariates = ("cov",)


class Ratio(Average):
    """The ratio of two means, of clicks and views for example, where the unit of traffic is neither.

    R = ΣM/ΣD, V = (V_M − 2R·C_MD + R²·V_D)/D̄² (the delta method). With ``cuped`` the covariate is such a
    ratio too, and the gradient has four parts; give ``cov_den`` = 1 for each unit where it is a mean.
    """

    name = "ratio"
    outcome = ("num", "den")
    covariates = ("cov", "cov_den")


class Revenue(Mean):
    """The mean of a heavy-tailed number per unit, capped at a value that was fixed in advance.

    ``sum`` and ``sum_sq`` are of min(y, cap); ``raw_sum`` and ``raw_sum_sq`` of y itself are reported beside
    (:meth:`raw`) and tested nowhere: a few large payers would decide.

    Attributes:
        cap: the largest value that counts for one unit.
    """

    name = "revenue"

    def __init__(self, *, cap: float, cuped: bool = False) -> None:
        super().__init__(cuped=cuped)
        self.cap = cap
        self.required |= {"raw_sum", "raw_sum_sq"}

    def raw(self, stats: Stats) -> Estimate:
        """The mean without the cap.

        Raises:
            MetricError: as :meth:`estimate`.
        """
        return Mean().estimate({"n": stats["n"], "sum": stats["raw_sum"], "sum_sq": stats["raw_sum_sq"]})

    def _problem(self, stats: Stats) -> str | None:
        most = self.cap * stats["n"]
        if stats["sum"] > most + ROUNDING * abs(most):
            return f"sum is {stats['sum']!r}, more than {stats['n']:g} units of at most {self.cap:g} can have"
        if stats["raw_sum"] < stats["sum"] - ROUNDING * abs(stats["sum"]):
            return f"raw_sum is {stats['raw_sum']!r}, less than the capped sum, {stats['sum']!r}"
        raw = Mean().validate({"n": stats["n"], "sum": stats["raw_sum"], "sum_sq": stats["raw_sum_sq"]})
        return super()._problem(stats) or (f"without the cap, {raw}" if raw else None)

    def _bulk(self, table: Columns) -> tuple[Estimates, Doubt]:
        found, doubt = super()._bulk(table)
        raw = (table["raw_sum_sq"] * table["n"] < table["raw_sum"] ** 2) | (table["raw_sum"] < table["sum"])
        return found, doubt | raw | (table["sum"] > self.cap * table["n"])


def _overlarge(moments: Moments[Fraction], i: int, j: int) -> bool:
    """Whether a covariance breaks the Cauchy-Schwarz bound by more than rounding."""
    c = moments.covariance
    bound = math.sqrt(max(float(c[i][i]), 0.0) * max(float(c[j][j]), 0.0))
    return abs(float(c[i][j])) > bound + ROUNDING * math.sqrt(float(moments.squares[i] * moments.squares[j]))


def _estimate(moments: Moments[Fraction], linear: Linear[Fraction]) -> Estimate:
    n = float(moments.n)
    try:
        value = float(linear.value)
        if n <= 1:
            return Estimate(value, None, n)
        variance = spread(moments, linear.gradient, linear.gradient)
        if variance < -ROUNDING * float(weighed(moments.squares, linear.gradient)):
            raise NegativeVariance(
                f"a variance of {float(variance):.6g} from {n:g} units",
                why="each pair of sums is possible, but no units have all of them together",
                next_step="compare the products of sums that the source returns with their names",
            )
        least = weighed(moments.rounding, linear.gradient)
        return Estimate(value, math.sqrt(float(max(variance, least)) / n), n)
    except OverflowError as error:
        raise ZeroDenominator(
            f"no value: a denominator is too close to 0 in {n:g} units",
            why="the ratio is beyond what float64 can hold",
            next_step="give the denominator in a smaller unit",
        ) from error


def _bulk_estimates(moments: Moments[Array], linear: Linear[Array]) -> tuple[Estimates, Doubt]:
    variance = spread(moments, linear.gradient, linear.gradient)
    doubt = ~(variance > _CANCELLED * weighed(moments.squares, linear.gradient))
    return Estimates(linear.value, np.sqrt(variance / moments.n), moments.n), doubt
