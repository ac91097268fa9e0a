"""Module 3, repeats: nothing that was read before, and of a story only the candidate that was found first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feed_app.feed import Feed
from feed_app.world import ARTICLES, CATALOGUE


def run(feed: Feed) -> Feed:
    """Disallow articles."""
    rows = np.arange(len(feed.people))
    allowed = feed.allowed & ~feed.people.read[rows[:, None], feed.articles]
    told = np.zeros((len(rows), ARTICLES), dtype=np.bool_)  # by story, of which there are fewer
    for place in range(allowed.shape[1]):
        story = CATALOGUE.story[feed.articles[:, place]]
        allowed[:, place] &= ~told[rows, story]
        told[rows, story] |= allowed[:, place]
    return replace(feed, allowed=allowed)
