"""What traffic can show, before any is spent: standard errors, detectable effects, power, and what a search
can learn from results of that precision.

All effects are relative, as fractions of the baseline, and all tests two-sided and normal: with thousands of
units an arm, that is what the estimates are (Deng, Knoblich & Lu, KDD 2018).
"""

from __future__ import annotations

import math
from statistics import NormalDist

from blackopt.errors import UsageError

ALPHA = 0.05
"""Two-sided level of every test planned here."""

POWER = 0.8
"""Probability of seeing what is called detectable."""

_NORMAL = NormalDist()


def proportion_cv(rate: float) -> float:
    """Standard deviation of one unit over the mean, √(p(1 − p))/p, of a metric that is 0 or 1.

    Raises:
        UsageError: no rate between 0 and 1.
    """
    if not 0.0 < rate < 1.0:
        raise UsageError(f"rate: expected a number between 0 and 1, got {rate!r}")
    return math.sqrt((1.0 - rate) / rate)


def relative_se(cv: float, n_arm: float, n_control: float | None) -> float:
    """Standard error of an arm's relative effect where there is none, in fractions of the baseline.

    Var[T/C] ≈ Var[T]/C² + Var[C]·T²/C⁴ (the delta method, as in :mod:`blackopt.metrics.effects`); with T = C
    that is cv²·(1/n_T + 1/n_C).

    Args:
        cv: standard deviation of one unit over the mean.
        n_arm: units of the arm.
        n_control: units of the control; None where arms are not measured against one.

    Raises:
        UsageError: no units, or a cv that is negative or not finite.
    """
    if not (math.isfinite(cv) and cv >= 0.0):
        raise UsageError(f"cv: expected a finite number of at least 0, got {cv!r}")
    if not n_arm > 0.0 or (n_control is not None and not n_control > 0.0):
        raise UsageError(f"expected units in arm and control, got {n_arm!r} and {n_control!r}")
    return cv * math.sqrt(1.0 / n_arm + (1.0 / n_control if n_control is not None else 0.0))


def detectable(se: float, *, power: float = POWER, alpha: float = ALPHA) -> float:
    """The smallest effect that a two-sided test finds with this power: (z₁₋α/₂ + z_power)·SE.

    The other tail, which would find it with the wrong sign, is left out: at 80 % it adds 10⁻⁶.
    """
    return (_NORMAL.inv_cdf(1.0 - alpha / 2.0) + _NORMAL.inv_cdf(power)) * se


def power_of(effect: float, se: float, *, alpha: float = ALPHA) -> float:
    """Probability that a two-sided test finds the effect, with either sign: Φ(|δ|/SE − z) + Φ(−|δ|/SE − z).

    Without a standard error (a metric that does not vary) everything is found.
    """
    if se == 0.0:
        return 1.0 if effect else alpha
    shift, z = abs(effect) / se, _NORMAL.inv_cdf(1.0 - alpha / 2.0)
    return _NORMAL.cdf(shift - z) + _NORMAL.cdf(-shift - z)


def best_control(arms: int) -> float:
    """Share of the control that minimises Σ Var[Tᵢ − C] = K·V·(1/n + 1/n₀) with n₀ + K·n fixed: 1/(1 + √K).

    The derivative is zero at n₀ = √K·n, the allocation of Dunnett (JASA 50, 1955).
    """
    return 1.0 / (1.0 + math.sqrt(arms))


def reliability(spread: float, se: float) -> float:
    """ρ, the correlation of measured with true effects among candidates: τ/√(τ² + SE²), in [0, 1].

    Args:
        spread: τ, the standard deviation of the candidates' true effects.
        se: standard error of one candidate's measured effect.
    """
    return spread / math.hypot(spread, se) if spread else 0.0


def gain(spread: float, se: float) -> float:
    """Expected gain of one update by a population, in the units of ``spread``: ρ·τ/√π.

    On a slope, candidates m + σε have effects τ·z with z = gᵀε/|g| ~ N(0, 1), τ = σ|g|. The ranked scores u
    of noisy effects, in [−½, ½], have E[u·z] = ρ·E[Φ(Z)·Z] = ρ·E[φ(Z)] = ρ/(2√π) (Stein's lemma). The default
    step of ``openai-es``, 2σ² times the mean of u·ε/σ, moves the centre by ρσ/√π along the slope.
    Recombining the better half, as CMA-ES does, moves further (Arnold & Beyer, "Local performance of the
    (μ/μ_I, λ)-ES in a noisy environment", FOGA 6, 2001), so this is the careful figure for both.
    """
    return reliability(spread, se) * spread / math.sqrt(math.pi)


def signal_to_noise(spread: float, se: float, results: int) -> float:
    """How far the centre goes along the slope by so many results, over the standard deviation of that: ρ·√N.

    Each result moves it by a multiple of u·z, of mean ρ/(2√π) = 0.282·ρ and standard deviation 1/√12 = 0.289
    where ρ is small (u is uniform, and all but independent of z), rising to 0.309 at ρ = 1. Their ratio, from
    0.98·ρ to 0.91·ρ and here ρ, grows with the root of the number of results. Φ of it is the probability
    that the search has moved up the slope and not down.
    """
    return reliability(spread, se) * math.sqrt(results)


def slope_spread(improvement: float, sigma: float, reach: float) -> float:
    """τ where an improvement is as far away as it can be: σ·δ/reach, its mean slope over that way.

    Args:
        improvement: δ, what is hoped for in all.
        sigma: the search's radius.
        reach: from the start to the furthest corner, in the coordinates that ``sigma`` is measured in.
    """
    return sigma * improvement / reach
