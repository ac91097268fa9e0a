"""Module 6, diversity: fills eight places one by one; what resembles an article above it is worth less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feed_app.feed import Feed
from feed_app.world import CATALOGUE, Flags, Floats, Ints

PLACES = 8
_SIMILARITY = CATALOGUE.topics @ CATALOGUE.topics.T


def run(feed: Feed) -> Feed:
    """Reorder the candidates, and keep the best :data:`PLACES`."""
    rows = np.arange(len(feed.people))
    worth = np.where(feed.allowed, feed.score, -1.0)
    order = np.empty((len(rows), PLACES), dtype=np.int64)
    for place in range(PLACES):
        best = worth.argmax(axis=1)  # of equals the one that was found first
        order[:, place] = best
        worth *= np.where(
            worth > 0.0, 1.0 - 0.35 * _SIMILARITY[feed.articles[rows, best][:, None], feed.articles], 1.0
        )
        worth[rows, best] = -2.0  # taken: behind what is not allowed, so that there is always another
    return taken(feed, order)


def taken(feed: Feed, order: Ints) -> Feed:
    """The feed with its articles in another order.

    Args:
        feed: n feeds of m articles.
        order: (n, k) places from which the new ones are filled.
    """
    articles: Ints = np.take_along_axis(feed.articles, order, axis=1)
    allowed: Flags = np.take_along_axis(feed.allowed, order, axis=1)
    score: Floats = np.take_along_axis(feed.score, order, axis=1)
    return replace(feed, articles=articles, allowed=allowed, score=score)
