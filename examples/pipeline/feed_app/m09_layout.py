"""Module 9, layout: a clear favourite gets a large card, and takes attention from what is below it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from feed_app.feed import Feed
from feed_app.world import Floats

FAVOURITE = 1.25  # times as probable as the second


def run(feed: Feed) -> Feed:
    """Decide who gets a large card."""
    return replace(feed, large=feed.score[:, 0] >= FAVOURITE * feed.score[:, 1])


def attention(feed: Feed) -> Floats:
    """(n, m) how much of somebody's attention an article gets; zero where none is shown."""
    places = np.arange(feed.articles.shape[1])
    fades = np.where(feed.large[:, None], 0.6, 0.85) ** places
    fades = np.where(feed.large[:, None] & (places == 0), 1.4, fades)
    shown: Floats = np.where(places < feed.size[:, None], fades, 0.0)
    return shown
