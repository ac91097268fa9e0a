"""Module 1, candidate generation: 40 of all articles, by stated interests and by what is trending."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feed_app.feed import Feed
from feed_app.world import CATALOGUE

CANDIDATES = 40


def run(feed: Feed) -> Feed:
    """Fill the feed with candidates, those that were found best first."""
    found = feed.people.stated @ CATALOGUE.topics.T + 0.6 * CATALOGUE.popularity
    articles = np.argsort(-found, axis=1, kind="stable")[:, :CANDIDATES]
    return replace(feed, articles=articles, allowed=np.ones(articles.shape, dtype=np.bool_))
