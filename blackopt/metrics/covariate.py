"""Is a covariate from before the exposure? If it is, no arm can have changed it.

An adjustment for a covariate (CUPED) takes away what the covariate explains. What the candidate itself has
moved is then taken away too, and the effect is biased towards nothing (Deng, Xu, Kohavi & Walker, WSDM 2013,
section 4.3: the covariate must not be affected by the treatment).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from blackopt.errors import UsageError
from blackopt.metrics.kinds import Average, Stats
from blackopt.metrics.kinds.moments import exact, level, spread, sum_of

LIMIT = 5.0
"""Standard errors by which the covariate of a single arm may differ from the control's."""

FEWEST = 100
"""Units that both sides must have: below, an estimated variance is worth little."""


def imbalance(kind: Average, treatment: Stats, control: Stats) -> float | None:
    """By how many standard errors the covariate's level differs between an arm and the control.

    The standard error is formed from the larger of both arms' variances of one unit. A single heavy unit that
    makes a difference makes its own arm's variance too, and so never more than about one standard error;
    sums of what is not negative have light lower tails in units of √(n·E[x²]). So the statistic is safe where
    unpooled tests between unequal arms of heavy-tailed numbers are not.

    Args:
        kind: adjusted for a covariate.
        treatment: pooled statistics of the arm.
        control: pooled statistics of the control.

    Returns:
        z, positive where the arm has more; None where it cannot be told: few units, no spread, a covariate
        over nothing.

    Raises:
        UsageError: a kind without a covariate.
    """
    if not kind.cuped:
        raise UsageError(f"kind: expected one that is adjusted for a covariate, got a plain {kind.name}")
    levels, variances = [], []
    for stats in (treatment, control):
        if kind.units(stats) < FEWEST or any(stats[sum_of(part)] == 0 for part in kind.covariates[1:]):
            return None
        moments = exact(stats, kind.covariates)
        linear = level(moments.means)
        levels.append(linear.value)
        variances.append(spread(moments, linear.gradient, linear.gradient))
    variance = max(variances)
    if variance <= 0:
        return None
    se = math.sqrt(float(variance) * (1 / kind.units(treatment) + 1 / kind.units(control)))
    return float(levels[0] - levels[1]) / se


def limit(comparisons: int) -> float:
    """How large |z| may be among so many comparisons: together they are wrong as rarely as one at 5.

    Bonferroni: each has the two-sided level of |z| > 5 over their number.

    Raises:
        UsageError: fewer than 1.
    """
    if comparisons < 1:
        raise UsageError(f"comparisons: expected at least 1, got {comparisons}")
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-LIMIT) / comparisons)
