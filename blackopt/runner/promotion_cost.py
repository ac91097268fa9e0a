"""What a promotion costs and how likely it proves an improvement, before the campaign has begun."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blackopt.campaign import CampaignSpec
from blackopt.campaign.units import UNITS_US
from blackopt.metrics import combination, power

ALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion's forecast.

    Attributes:
        looks: at most; ``expected_looks`` on average, if the improvement is the hoped-for one.
        se: standard error of one look's relative effect.
        power: probability of a proof; None where nobody said what is hoped for.
        tested: until the last look is told, in microseconds.
        ramp: of all its steps; ``holdback`` of what follows the adoption, in microseconds.
        exposed: units that get the recommendation in the looks.
    """

    looks: int
    expected_looks: float | None
    se: float
    power: float | None
    tested: int
    ramp: int
    holdback: int
    exposed: float


def promotion(
    spec: CampaignSpec, cv: float, units_per_day: float, *, told: int, improve: float | None
) -> Promotion | None:
    """Forecast the promotion of a recommendation; None where the campaign has none.

    Looks are served one behind the other, and are told while the next ones are served. Steps of the ramp and
    the holdback follow; a guardrail that withdraws ends all of it sooner.

    Args:
        spec: of a campaign in production.
        cv: deviation of one unit of the objective over its mean.
        units_per_day: that arrive in all.
        told: from a window's end until its trials are told, in microseconds.
        improve: the relative improvement hoped for.
    """
    rules = spec.promotion
    if rules is None or spec.traffic is None or spec.objective.relative_to is None:
        return None
    total = units_per_day * rules.window / UNITS_US["d"] * spec.traffic.share / ALL
    share = rules.share / ALL
    se = power.relative_se(cv, total * share, total * (1.0 - share))
    proof = used = None
    if improve is not None:
        proof, used = combination.power(rules.looks, rules.alpha, improve / se) if se else (1.0, 1.0)
    return Promotion(
        looks=rules.looks,
        expected_looks=used,
        se=se,
        power=proof,
        tested=rules.looks * rules.window + told,
        ramp=len(rules.ramp) * rules.step,
        holdback=rules.holdback_for if rules.holdback else 0,
        exposed=math.floor(total * share) * rules.looks,
    )
