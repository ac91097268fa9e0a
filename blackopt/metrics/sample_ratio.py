"""Sample ratios: whether each arm has as many units as its slice of the traffic should have given it.

If not, the arms differ in more than what they serve: exposures are lost, or a candidate changes who is
counted. Then no comparison of theirs means anything, however significant it looks (Fabijan et al.,
*Diagnosing sample ratio mismatch in online controlled experiments*, KDD 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blackopt.errors import UsageError

FLAGGED_BELOW = 0.001
"""Level of the test, to be divided by the number of looks: a mismatch is certain, or it is none."""

LEAST_EXPECTED = 5.0
"""With a smaller expectation in any arm the χ² distribution is no approximation."""


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """A comparison of units with slices.

    Attributes:
        chi_squared: Σ (Oᵢ − Eᵢ)²/Eᵢ.
        p: probability of at least that much where the slices are respected.
        farthest: the arm with the largest term.
        observed, expected: units of that arm.
        flagged: whether p is below the level.
    """

    chi_squared: float
    p: float
    farthest: str
    observed: float
    expected: float
    flagged: bool

    def __str__(self) -> str:
        return (
            f"{self.farthest} has {self.observed:g} units where its slice gives {self.expected:.0f}"
            f" (p = {self.p:.1g})"
        )


def sample_ratio(
    units: Mapping[str, float], widths: Mapping[str, float], *, looks: int = 1
) -> SampleRatio | None:
    """χ² test (Pearson) of the arms' units against the widths of their slices.

    Args:
        units: randomization units by arm.
        widths: of the same arms' slices, in any unit, above 0.
        looks: how often a window is tested in all; the level of each look is divided by it.

    Returns:
        None where nothing can be said: fewer than two arms, or too few units for the smallest slice.

    Raises:
        UsageError: the arms differ, or a number is negative, not finite, or a width of nothing.
    """
    if units.keys() != widths.keys():
        raise UsageError(f"widths: expected those of {sorted(units)}, got those of {sorted(widths)}")
    if not all(0.0 <= n < math.inf for n in units.values()):
        raise UsageError(f"units: expected numbers of at least 0, got {dict(units)!r}")
    if not all(0.0 < width < math.inf for width in widths.values()) or looks < 1:
        raise UsageError(f"expected widths above 0 and at least one look, got {dict(widths)!r}, {looks!r}")
    if len(units) < 2:
        return None
    total, whole = math.fsum(units.values()), math.fsum(widths.values())
    expected = {arm: total * widths[arm] / whole for arm in sorted(units)}
    if min(expected.values()) < LEAST_EXPECTED:
        return None
    terms = {arm: (units[arm] - e) ** 2 / e for arm, e in expected.items()}
    chi_squared = math.fsum(terms.values())
    p = chi_squared_tail(chi_squared, len(units) - 1)
    farthest = max(terms, key=lambda arm: terms[arm])
    return SampleRatio(
        chi_squared, p, farthest, units[farthest], expected[farthest], p < FLAGGED_BELOW / looks
    )


def chi_squared_tail(x: float, degrees: int) -> float:
    """P(χ² ≥ x), in closed form (Abramowitz & Stegun 26.4.4 and 26.4.5).

    With h = x/2: e^(−h) Σ hⁱ/i! over i < k/2 for even k; erfc(√h) + e^(−h) Σ h^(i−½)/Γ(i+½) over
    i = 1 … (k−1)/2 for odd k. Terms are added as logarithms, since either factor may leave float64.

    Raises:
        UsageError: a negative x, or no degree of freedom.
    """
    if not x >= 0.0 or degrees < 1:
        raise UsageError(f"expected x of at least 0 and a degree of freedom, got {x!r} and {degrees!r}")
    h = x / 2.0
    if h == 0.0:
        return 1.0
    if math.isinf(h):
        return 0.0
    start = 0.5 if degrees % 2 else 0.0
    powers: Sequence[float] = [start + i for i in range(degrees // 2)]
    head = math.erfc(math.sqrt(h)) if degrees % 2 else 0.0
    tail = math.fsum(math.exp(i * math.log(h) - math.lgamma(i + 1.0) - h) for i in powers)
    return min(1.0, head + tail)
