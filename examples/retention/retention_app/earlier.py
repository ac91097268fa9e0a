"""The experiments of the past, from which a surrogate's slope and error are known before a campaign starts.

    python -m retention_app.earlier

Forty earlier A/B tests of other configurations, each on 20,000 users an arm, of which both the finished
welcome slates and the day-7 retention are known by now. What the command prints is what ``campaign.yaml``
declares as ``objective.surrogate``.
"""

from __future__ import annotations

import numpy as np

from blackopt.metrics.kinds import Stats, kind
from blackopt.metrics.surrogate import Fit, Pair, fit
from retention_app import behaviour, pipeline
from retention_app.pipeline import FEATURES, INCUMBENT, WEIGHT_LIMIT, Configuration
from retention_app.truth import REFERENCE_DAYS

TESTS = 40
USERS = 20_000  # of an arm
WEIGHT_SPREAD, THRESHOLD_SPREAD = 0.6, 0.2  # standard deviations of what was tried around production
_KEY = 978  # neither a run's nor the truth's


def calibrate() -> Fit | None:
    """Run the tests, and fit the line through their effects on both metrics."""
    draw, share = np.random.Generator(np.random.Philox(key=_KEY)), kind("proportion")
    pairs = []
    for number in range(TESTS):
        arms = [_measure(draw, configuration) for configuration in (_another(draw), INCUMBENT)]
        finished, active = (
            share.effect(treatment, control, relative=True) for treatment, control in zip(*arms, strict=True)
        )
        pairs.append(Pair(number, finished, active))
    return fit(pairs)


def _another(draw: np.random.Generator) -> Configuration:
    weights = np.array(INCUMBENT.weights) + WEIGHT_SPREAD * draw.normal(size=len(FEATURES))
    thresholds = np.array([INCUMBENT.diversity, INCUMBENT.throttle]) + THRESHOLD_SPREAD * draw.normal(size=2)
    diversity, throttle = thresholds.clip(0.0, 1.0).tolist()
    return Configuration(tuple(weights.clip(-WEIGHT_LIMIT, WEIGHT_LIMIT).tolist()), diversity, throttle)


def _measure(draw: np.random.Generator, configuration: Configuration) -> tuple[Stats, Stats]:
    """How many of the users of an arm finished the slate, and how many were there on day 7."""
    users = pipeline.draw_users(draw, USERS)
    reaction = behaviour.react(users, *behaviour.spread(configuration, USERS))
    chances = (reaction.finish, reaction.visit_probability(REFERENCE_DAYS[1] + 7, 7))
    first, second = (float((draw.random(USERS) < chance).sum()) for chance in chances)
    return {"n": USERS, "sum": first}, {"n": USERS, "sum": second}


if __name__ == "__main__":
    found = calibrate()
    if found is not None:
        print(f"slope {found.slope:.2f} ± {found.se:.2f}, error {found.error:.1%}, from {found.pairs} tests")
