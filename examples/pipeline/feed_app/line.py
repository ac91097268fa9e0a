"""The ten modules in a row."""

from __future__ import annotations

import numpy as np

from feed_app import (
    m01_candidates,
    m02_eligibility,
    m03_repeats,
    m04_scorer,
    m05_calibration,
    m06_diversity,
    m07_rules,
    m08_length,
    m09_layout,
    m10_reminder,
)
from feed_app.feed import Feed
from feed_app.m04_scorer import Scorer
from feed_app.world import People


def empty(people: People) -> Feed:
    """What the first module begins with: nothing yet."""
    n = len(people)
    return Feed(
        people=people,
        articles=np.zeros((n, 0), dtype=np.int64),
        allowed=np.zeros((n, 0), dtype=np.bool_),
        score=np.zeros((n, 0)),
        size=np.zeros(n, dtype=np.int64),
        large=np.zeros(n, dtype=np.bool_),
        reminder=np.zeros(n, dtype=np.bool_),
    )


def run(people: People, scorer: Scorer) -> Feed:
    """What n people are shown."""
    feed = m01_candidates.run(empty(people))
    feed = m02_eligibility.run(feed)
    feed = m03_repeats.run(feed)
    feed = m04_scorer.run(feed, scorer)
    feed = m05_calibration.run(feed)
    feed = m06_diversity.run(feed)
    feed = m07_rules.run(feed)
    feed = m08_length.run(feed)
    feed = m09_layout.run(feed)
    return m10_reminder.run(feed)
