"""How users react: the probabilities of what they do after their first open, and of what they did before it.

The truth of the simulation is here and nowhere else: the log draws coins with these probabilities, and
:mod:`retention_app.truth` averages them. All effects are additive in the logit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from retention_app import pipeline
from retention_app.pipeline import CATALOGUE, Configuration, Floats, Users

DAYS = 7
"""Days after the first that are simulated; 1 is the day after the first open. As many before it."""

_WEEKDAY = (-0.10, -0.08, -0.04, 0.0, 0.02, 0.14, 0.10)  # Monday to Sunday
_BASE = (-0.95, -1.28, -1.54, -1.77, -1.96, -2.14, -2.31)  # day 1 to day 7


def season(day: int) -> float:
    """Logit shift of every visit on a calendar day: a weekly cycle and a slow drift.

    Args:
        day: days since 1970-01-01, which was a Thursday.
    """
    return _WEEKDAY[(day + 3) % 7] + 0.06 * math.sin(2.0 * math.pi * day / 120.0)


@dataclass(frozen=True, slots=True, eq=False)
class Reaction:
    """What the welcome did to n users.

    Attributes:
        visit: (n, DAYS) logits of a visit on each day after the first, without the season.
        finish: (n,) probabilities of having finished the whole welcome slate by the end of day 1.
        mute: (n,) probabilities of switching notifications off within three hours.
        unsubscribe: (n,) probabilities, within 7 days.
    """

    visit: Floats
    finish: Floats
    mute: Floats
    unsubscribe: Floats

    def visit_probability(self, day: int, age: int) -> Floats:
        """(n,) probability of a visit on calendar ``day``, ``age`` days (1 to DAYS) after the first."""
        return _logistic(self.visit[:, age - 1] + season(day))


def _logistic(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))


def browse_probability(users: Users) -> Floats:
    """(n,) probability that somebody browses the website on any one of the 7 days before the first open."""
    return _logistic(-1.7 + 1.6 * users.interest)


def react(users: Users, weights: Floats, diversity: Floats, throttle: Floats) -> Reaction:
    """Run the pipeline for n users and work out how they react.

    Args:
        users: n users.
        weights: (n, number of features) of the ranker.
        diversity: (n,) thresholds.
        throttle: (n,) thresholds.
    """
    welcome = pipeline.run(users, weights, diversity, throttle)
    slate, rows = welcome.slate, np.arange(len(users))[:, None]
    liked = pipeline.true_affinity(users)[rows, slate].mean(axis=1)
    quality = CATALOGUE.quality[slate].mean(axis=1)
    freshness = CATALOGUE.freshness[slate].mean(axis=1)
    sensation = CATALOGUE.sensation[slate].mean(axis=1)
    variety = 1.0 - _mean_similarity(slate)

    # Substance lasts, excitement fades; both saturate.
    substance = np.tanh(
        0.40 * liked
        + 0.22 * quality
        + 0.15 * users.curiosity * freshness
        - 0.16 * users.aversion * sensation
        - 0.5
    ) + 2.2 * variety * (1.0 - 0.85 * variety)
    excitement = np.tanh(0.25 * liked + 0.55 * sensation)

    # A notification brings back whom there is something to come back for, until it is one too many.
    sent = welcome.notifications
    load = sent / users.tolerance
    reminder = np.log1p(sent) * (0.20 + 0.10 * substance)
    visit = np.empty((len(users), DAYS))
    for age in range(1, DAYS + 1):
        late = (age - 1) / (DAYS - 1)
        visit[:, age - 1] = (
            _BASE[age - 1]
            + 1.4 * users.interest
            + (0.25 + 0.40 * late) * substance
            + (0.40 - 0.35 * late) * excitement
            + (1.0 - 0.35 * late) * reminder
            - (0.02 + 0.06 * late) * load**2
        )
    # Whoever is pestered from the first evening on leaves the slate unread. Of next week's notifications the
    # first day says less than of the slate.
    finish = _logistic(
        -1.7 + 0.6 * users.interest + 0.80 * substance + 0.10 * excitement + 0.7 * reminder - 0.06 * load**2
    )
    # Who is asked to be notified of everything says no at once.
    mute = _logistic(-5.0 + 1.0 * load)
    unsubscribe = _logistic(-4.2 + 0.55 * load + 0.35 * users.aversion * sensation - 0.35 * substance)
    return Reaction(visit, finish, mute, unsubscribe)


def _mean_similarity(slate: pipeline.Ints) -> Floats:
    """(n,) mean similarity of the pairs of each slate."""
    places = slate.shape[1]
    pairs = [(i, j) for i in range(places) for j in range(i)]
    total = np.zeros(len(slate))
    for i, j in pairs:
        total += CATALOGUE.similarity[slate[:, i], slate[:, j]]
    return total / len(pairs)


def spread(configuration: Configuration, n: int) -> tuple[Floats, Floats, Floats]:
    """Weights (n, features), diversity (n,) and throttle (n,) that give n users the same configuration."""
    weights = np.broadcast_to(np.array(configuration.weights), (n, len(configuration.weights)))
    return weights, np.full(n, configuration.diversity), np.full(n, configuration.throttle)
