"""Module 7, business rules: at most two articles of a publisher; a sponsored one, if any, in third place."""

from __future__ import annotations

import numpy as np

from feed_app.feed import Feed
from feed_app.m06_diversity import taken
from feed_app.world import CATALOGUE, PUBLISHERS

OF_A_PUBLISHER = 2
SPONSORED_PLACE = 2


def run(feed: Feed) -> Feed:
    """Move articles to the end of the feed, or to the sponsored place."""
    rows, places = np.arange(len(feed.people)), feed.articles.shape[1]
    seen = np.zeros((len(rows), PUBLISHERS), dtype=np.int64)
    key = np.tile(np.arange(places, dtype=np.float64), (len(rows), 1))
    for place in range(places):
        publisher = CATALOGUE.publisher[feed.articles[:, place]]
        seen[rows, publisher] += feed.allowed[:, place]
        key[:, place] += places * (seen[rows, publisher] > OF_A_PUBLISHER)
    key += 2 * places * ~feed.allowed
    sponsored = CATALOGUE.sponsored[feed.articles] & feed.allowed
    # What is paid for is taken out first and put in afterwards, wherever it was.
    paid = rows[sponsored.any(axis=1) & (feed.allowed.sum(axis=1) > SPONSORED_PLACE)]
    key[paid, sponsored.argmax(axis=1)[paid]] = 4 * places
    order = np.argsort(key, axis=1, kind="stable")
    order[paid, SPONSORED_PLACE:] = np.roll(order[paid, SPONSORED_PLACE:], 1, axis=1)
    return taken(feed, order)
