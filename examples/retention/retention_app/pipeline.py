"""The onboarding pipeline of the app: what it does with a new user, given its configuration.

Three modules run once, at a user's first open. The *ranker* orders the items that retrieval proposes, by a
linear policy over item features. The *diversity filter* holds back what is too similar to what was chosen.
The *notification throttle* decides how many of the week's occasions to notify are used. blackopt tunes the
ranker's weights and the two thresholds; retrieval and the catalogue belong to others and stay as they are.

Everything is a pure function of arrays, row by row: a row's result never depends on which rows are beside it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

FEATURES = ("affinity", "quality", "freshness", "popularity", "sensation")
"""Inputs of the ranker, in the order of its weights."""

TOPICS = 6
ITEMS = 28
SLATE = 4
OCCASIONS = 14  # reasons to notify in a user's first week
WEIGHT_LIMIT = 6.0  # the module serves no weight beyond this, whoever asks
_CATALOGUE_KEY = 20_240_601  # part of the model, not of a run: every seed has the same optimum


class BadConfigurationError(ValueError):
    """The pipeline refuses to run this artifact."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What blackopt tunes.

    Attributes:
        weights: one per name in :data:`FEATURES`.
        diversity: 0 keeps everything; an item falls behind if its similarity to a chosen one exceeds
            ``1 - diversity * b``, where ``b`` grows with the breadth of what the user stated.
        throttle: 0 uses almost every occasion to notify, 1 almost none.
    """

    weights: tuple[float, ...]
    diversity: float
    throttle: float

    def body(self) -> bytes:
        """The artifact that blackopt's linear policy renders for these values."""
        document = {
            "inputs": list(FEATURES),
            "weights": [list(self.weights)],
            "bias": [0.0],
            "parameters": {"diversity": self.diversity, "throttle": self.throttle},
        }
        return json.dumps(document, separators=(",", ":")).encode()


INCUMBENT = Configuration(weights=(0.4, 0.2, 0.3, 0.8, 0.6), diversity=0.15, throttle=0.36)


def parse(body: bytes) -> Configuration:
    """Read an artifact, and refuse what must not be served.

    Args:
        body: JSON as rendered by blackopt's linear policy with one output and without a bias.

    Raises:
        BadConfigurationError: not such a document, a number that is not finite, or a value beyond the
            module's own limits.
    """
    try:
        document = json.loads(body)
        inputs, (weights,), (bias,) = document["inputs"], document["weights"], document["bias"]
        values = [float(value) for value in weights]
        parameters = document["parameters"]
        diversity, throttle = float(parameters["diversity"]), float(parameters["throttle"])
    except (ValueError, TypeError, KeyError) as error:
        raise BadConfigurationError(f"not a ranker configuration: {type(error).__name__}: {error}") from error
    if inputs != list(FEATURES) or len(values) != len(FEATURES) or bias != 0.0:
        raise BadConfigurationError(f"expected weights for {', '.join(FEATURES)} and no bias, got {inputs}")
    if not all(math.isfinite(value) and abs(value) <= WEIGHT_LIMIT for value in values):
        raise BadConfigurationError(f"every weight must lie within ±{WEIGHT_LIMIT:g}, got {values}")
    for name, value in (("diversity", diversity), ("throttle", throttle)):
        if not 0.0 <= value <= 1.0:
            raise BadConfigurationError(f"{name} must lie in [0, 1], got {value}")
    return Configuration(tuple(values), diversity, throttle)


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The items.

    Attributes:
        topics: (ITEMS, TOPICS) unit vectors.
        similarity: (ITEMS, ITEMS) their cosines.
        quality, freshness, popularity, sensation: (ITEMS,).
    """

    topics: Floats
    similarity: Floats
    quality: Floats
    freshness: Floats
    popularity: Floats
    sensation: Floats


def _catalogue() -> Catalogue:
    draw = np.random.Generator(np.random.Philox(key=_CATALOGUE_KEY))
    topics = draw.gamma(0.5, size=(ITEMS, TOPICS)) + 0.02
    topics /= np.sqrt((topics**2).sum(axis=1, keepdims=True))
    quality = draw.normal(size=ITEMS)
    freshness = draw.normal(size=ITEMS)
    sensation = 0.9 * draw.normal(size=ITEMS) - 0.35 * quality
    # What is loud gets clicked, and what gets clicked is popular: popularity is a tempting but impure signal.
    popularity = 0.45 * quality + 0.6 * sensation + 0.6 * draw.normal(size=ITEMS)
    similarity = (topics[:, None, :] * topics[None, :, :]).sum(axis=2)
    return Catalogue(topics, similarity, quality, freshness, popularity, sensation)


CATALOGUE = _catalogue()


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """Hidden tastes of n users. Nothing here is ever logged.

    Attributes:
        taste: (n, TOPICS) what they like.
        stated: (n, TOPICS) what they said they like when they signed up; the pipeline sees only this.
        aversion: (n,) how much sensation wears them out, > 0.
        curiosity: (n,) how much they care for what is new, > 0.
        tolerance: (n,) notifications a week that they bear, > 0.
        interest: (n,) how much they want what the app is about; those with more browsed the website before.
    """

    taste: Floats
    stated: Floats
    aversion: Floats
    curiosity: Floats
    tolerance: Floats
    interest: Floats

    def __getitem__(self, rows: Ints) -> Users:
        """Some of the users."""
        return Users(*(getattr(self, field.name)[rows] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.aversion)


def draw_users(draw: np.random.Generator, n: int) -> Users:
    """Draw n users from the population."""
    taste = 1.2 * draw.normal(size=(n, TOPICS)) + np.linspace(0.4, -0.2, TOPICS)
    return Users(
        taste=taste,
        stated=taste + draw.normal(scale=0.9, size=(n, TOPICS)),
        aversion=np.exp(draw.normal(scale=0.4, size=n)),
        curiosity=np.exp(draw.normal(scale=0.4, size=n)),
        tolerance=5.0 * np.exp(draw.normal(scale=0.35, size=n)),
        interest=draw.normal(size=n),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Welcome:
    """What the pipeline gave n users: ``slate`` (n, SLATE) items, ``notifications`` (n,) of the week."""

    slate: Ints
    notifications: Floats


def _affinity(tastes: Floats) -> Floats:
    """(n, ITEMS) affinity, summed topic by topic so that no library's blocking decides the last bit."""
    total = np.zeros((len(tastes), ITEMS))
    for topic in range(TOPICS):
        total += tastes[:, topic, None] * CATALOGUE.topics[None, :, topic]
    return total


def true_affinity(users: Users) -> Floats:
    """(n, ITEMS) how much each user would like each item."""
    return _affinity(users.taste)


def run(users: Users, weights: Floats, diversity: Floats, throttle: Floats) -> Welcome:
    """Run the pipeline for n users, each under a configuration of their own.

    Args:
        users: n users; only what they stated is looked at.
        weights: (n, len(FEATURES)).
        diversity: (n,) thresholds.
        throttle: (n,) thresholds.
    """
    stated = _affinity(users.stated)
    retrieval = 0.5 * stated + 0.4 * CATALOGUE.popularity  # another team's score; it enters with weight one
    score = retrieval + weights[:, 0, None] * stated
    for column, feature in enumerate(FEATURES[1:], start=1):
        score += weights[:, column, None] * getattr(CATALOGUE, feature)[None, :]
    slate = _choose(score, 1.0 - diversity * _breadth(users.stated))
    rows = np.arange(len(users))
    # An occasion is used when the predicted interest in it, spread around the user's own, exceeds it.
    interest = 0.30 + 0.06 * stated[rows[:, None], slate].mean(axis=1)
    notifications = OCCASIONS / (1.0 + np.exp((throttle - interest) / 0.16))
    return Welcome(slate, notifications)


def _breadth(stated: Floats) -> Floats:
    """(n,) about 0.6 for users who stated one interest, 1.8 for users of many: whom to diversify more."""
    positive = np.maximum(stated, 0.0) + 0.05
    total = positive.sum(axis=1)
    effective: Floats = total**2 / (positive**2).sum(axis=1)
    return 0.35 + 0.25 * effective


def _choose(score: Floats, limit: Floats) -> Ints:
    """(n, SLATE) the best items in order; what is closer to one before than ``limit`` (n,) falls behind."""
    rows = np.arange(len(score))
    slate = np.empty((len(score), SLATE), dtype=np.int64)
    for place in range(SLATE):
        chosen = score.argmax(axis=1)
        slate[:, place] = chosen
        # What is too similar falls behind instead of away, so that a strict filter still fills the slate.
        score -= 4.0 * np.maximum(CATALOGUE.similarity[chosen] - limit[:, None], 0.0)
        score[rows, chosen] = -np.inf
    return slate
