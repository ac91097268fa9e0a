"""What the feed is made from: articles, and people who open it. Tastes are hidden; what was stated is not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

ARTICLES, TOPICS, PUBLISHERS = 160, 6, 12
_CATALOGUE_KEY = 41  # part of the world, not of a run


@dataclass(frozen=True, slots=True, eq=False)
class Articles:
    """The catalogue.

    Attributes:
        topics: (ARTICLES, TOPICS) unit vectors.
        quality, freshness, loudness, popularity: (ARTICLES,) about standard normal.
        publisher, story: (ARTICLES,) numbers; articles of one story tell the same.
        language: (ARTICLES,) 0 or 1.
        adult, sponsored: (ARTICLES,) flags.
    """

    topics: Floats
    quality: Floats
    freshness: Floats
    loudness: Floats
    popularity: Floats
    publisher: Ints
    story: Ints
    language: Ints
    adult: Flags
    sponsored: Flags


def _articles() -> Articles:
    draw = np.random.default_rng(_CATALOGUE_KEY)
    topics = draw.gamma(0.5, size=(ARTICLES, TOPICS)) + 0.02
    quality = draw.normal(size=ARTICLES)
    loudness = draw.normal(size=ARTICLES) - 0.3 * quality
    return Articles(
        topics=topics / np.sqrt((topics**2).sum(axis=1, keepdims=True)),
        quality=quality,
        freshness=draw.normal(size=ARTICLES),
        loudness=loudness,
        popularity=0.4 * quality + 0.7 * loudness + 0.6 * draw.normal(size=ARTICLES),
        publisher=draw.integers(PUBLISHERS, size=ARTICLES),
        story=draw.integers(ARTICLES * 3 // 4, size=ARTICLES),
        language=(draw.random(ARTICLES) < 0.25).astype(np.int64),
        adult=draw.random(ARTICLES) < 0.06,
        sponsored=draw.random(ARTICLES) < 0.08,
    )


CATALOGUE = _articles()


@dataclass(frozen=True, slots=True, eq=False)
class People:
    """n people who open the feed.

    Attributes:
        stated: (n, TOPICS) interests that they ticked when they signed up.
        both_languages, minor: (n,) flags from their settings.
        read: (n, ARTICLES) what they had read before.
        taste: (n, TOPICS) what they really like; hidden.
        aversion: (n,) how much loud articles wear them out, > 0; hidden.
        patience: (n,) articles that they look at before it is too much; hidden.
        habit: (n,) how much they come back anyway; hidden.
    """

    stated: Floats
    both_languages: Flags
    minor: Flags
    read: Flags
    taste: Floats
    aversion: Floats
    patience: Floats
    habit: Floats

    def __len__(self) -> int:
        return len(self.habit)

    def __getitem__(self, rows: Ints) -> People:
        """Some of them."""
        return People(*(getattr(self, field.name)[rows] for field in fields(self)))


def draw_people(draw: np.random.Generator, n: int) -> People:
    """Draw n people from the population."""
    taste = 1.2 * draw.normal(size=(n, TOPICS))
    return People(
        stated=taste + draw.normal(scale=0.8, size=(n, TOPICS)),
        both_languages=draw.random(n) < 0.4,
        minor=draw.random(n) < 0.1,
        read=draw.random((n, ARTICLES), dtype=np.float32) < 0.1,
        taste=taste,
        aversion=np.exp(draw.normal(scale=0.4, size=n)),
        patience=4.0 + 2.0 * draw.random(n),
        habit=draw.normal(size=n),
    )
