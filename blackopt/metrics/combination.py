"""Several looks at one effect, each with data of its own, as one group-sequential test.

Each look gives an independent z_i, standard normal where there is no effect. The weights are fixed before the
test, equal for all looks (the inverse normal combination: Lehmacher & Wassmer, Biometrics 55, 1999, eq. 2;
Cui, Hung & Wang, Biometrics 55, 1999), so

    Zₖ = (z₁ + … + zₖ)/√k

is a Brownian motion seen at the parts k/K **whatever the looks' sizes came to be**: traffic that fell by half
in the second window costs power, and no level. Zₖ is compared with the bounds that spend the level as O'Brien
and Fleming do (Lan & DeMets, Biometrika 70, 1983; :func:`~blackopt.metrics.sequential.spending_bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

from blackopt.errors import UsageError
from blackopt.metrics.sequential import Spending, crossing, spending_bounds
from blackopt.types import Estimate

POWER = 0.8
"""Probability of a proof for which looks are counted."""

_NORMAL = NormalDist()
_EXACT = 12  # looks up to which a plan's power is integrated; beyond, the count grows by 2 % more at most
_LEAST = 1e-6  # standard errors a look: less would take more than 10¹² looks
_HALVINGS = 40


@lru_cache(maxsize=256)
def bounds(looks: int, alpha: float) -> tuple[float, ...]:
    """What Zₖ must exceed at each of so many looks, one-sided; one look is a test at a fixed horizon.

    Infinite at an early look of many, where nothing may be spent that float64 could tell from nothing.

    Raises:
        UsageError: no look, or a level outside (0, 0.5).
    """
    if looks < 1:
        raise UsageError(f"looks: expected at least 1, got {looks!r}")
    parts = [k / looks for k in range(1, looks + 1)]
    return tuple(spending_bounds(parts, alpha=alpha, rule=Spending.OBRIEN_FLEMING))


def combined(zs: Sequence[float]) -> float:
    """Zₖ = Σ z_i/√k: the same bits in any order.

    Raises:
        UsageError: no z, or one that is not finite.
    """
    if not zs or not all(math.isfinite(z) for z in zs):
        raise UsageError(f"expected a finite z of at least one look, got {list(zs)!r}")
    return math.fsum(zs) / math.sqrt(len(zs))


def repeated_interval(effects: Sequence[Estimate], bound: float) -> tuple[float, float]:
    """The effects δ that the looks so far do not exclude: a repeated confidence interval.

    Jennison & Turnbull (JRSS B 51, 1989): {δ : |Zₖ(δ)| ≤ bₖ} with Zₖ(δ) = Σ (x_i − δ)/s_i/√k, which is
    (Σ x_i/s_i ± bₖ√k)/Σ 1/s_i. All of a test's intervals hold δ together with probability 1 − 2α at least,
    however and for whatever reason it is stopped; and one lies beyond zero exactly where Zₖ is beyond ±bₖ.

    Args:
        effects: x_i and s_i of each look so far.
        bound: bₖ, one-sided at level α.

    Raises:
        UsageError: no look, or one without a standard error above 0.
    """
    weights = [1.0 / standard_error(effect) for effect in effects]
    total = math.fsum(weights)
    middle = math.fsum(w * e.value for w, e in zip(weights, effects, strict=True))
    reach = bound * math.sqrt(len(effects))
    return (middle - reach) / total, (middle + reach) / total


def median_unbiased(effects: Sequence[Estimate], passed: Sequence[float]) -> float:
    """The effect under which a result at least as good as this one is as probable as a worse one.

    A test that stops early stops on a lucky run, so what it observed is too good on average. Results are
    ordered by their stage (Tsiatis, Rosner & Mehta, Biometrics 40, 1984): one is better that stopped earlier,
    or at the same look with a higher Z. δ solves P_δ(a result at least as good) = ½, which rises with δ.

    Args:
        effects: x_i and s_i of each look, signed so that more is better.
        passed: bounds of all looks but the last, at which the test could have stopped; infinite where it
            could not.

    Raises:
        UsageError: not one bound fewer than looks, or a look without a standard error above 0.
    """
    errors = [standard_error(effect) for effect in effects]
    if len(passed) != len(effects) - 1:
        raise UsageError(f"passed: expected {len(effects) - 1} bounds, got {len(passed)}")
    z = combined([e.value / s for e, s in zip(effects, errors, strict=True)])
    low, high = repeated_interval(effects, 10.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        better = math.fsum(crossing([*passed, z], [middle / s for s in errors]))
        low, high = (middle, high) if better < 0.5 else (low, middle)
    return (low + high) / 2.0


def power(looks: int, alpha: float, z_per_look: float) -> tuple[float, float]:
    """Probability of a proof, and how many looks are used on average, for an effect of so many SE a look.

    Raises:
        UsageError: no look, a level outside (0, 0.5), or a z that is not finite.
    """
    first = crossing(bounds(looks, alpha), [z_per_look] * looks)
    proof = math.fsum(first)
    used = math.fsum(k * p for k, p in enumerate(first, start=1)) + looks * (1.0 - proof)
    return proof, used


def looks_needed(z_per_look: float, alpha: float) -> int | None:
    """The fewest looks K of a plan that proves an effect of so many SE a look with :data:`POWER`.

    K ≥ (Δ_K/z)², where Δ_K is what E[Z_K] must be: z₁₋α + z_power for one look, and a few per cent more for
    many. None where the effect is none for any practical purpose, or points the other way.

    Raises:
        UsageError: a level outside (0, 0.5).
    """
    if not z_per_look > _LEAST:
        return None
    looks = max(1, math.ceil((_drift(1, alpha) / z_per_look) ** 2))
    while looks <= _EXACT and looks < (_drift(looks, alpha) / z_per_look) ** 2:
        looks += 1
    return looks if looks <= _EXACT else math.ceil((_drift(_EXACT, alpha) / z_per_look) ** 2)


def standard_error(effect: Estimate) -> float:
    """The standard error of a look's effect.

    Raises:
        UsageError: there is none above 0, or the effect is not finite: such a look is no evidence.
    """
    if effect.se is None or not 0.0 < effect.se < math.inf or not math.isfinite(effect.value):
        raise UsageError(f"effect: expected a finite value with a standard error above 0, got {effect!r}")
    return effect.se


@lru_cache(maxsize=256)
def _drift(looks: int, alpha: float) -> float:
    """Δ_K: E[Z_K] at which a plan has its power. Power is close to linear in it on the scale of Φ⁻¹."""
    wanted = _NORMAL.inv_cdf(POWER)
    drift = wanted - _NORMAL.inv_cdf(alpha)
    for _ in range(4 if looks > 1 else 0):
        found, _used = power(looks, alpha, drift / math.sqrt(looks))
        drift += wanted - _NORMAL.inv_cdf(found)
    return drift
