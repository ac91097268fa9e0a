"""Module 2, eligibility: nothing in a language that somebody does not read, nothing adult for minors."""

from __future__ import annotations

from dataclasses import replace

from feed_app.feed import Feed
from feed_app.world import CATALOGUE


def run(feed: Feed) -> Feed:
    """Disallow articles."""
    language = (CATALOGUE.language[feed.articles] == 0) | feed.people.both_languages[:, None]
    age = ~(CATALOGUE.adult[feed.articles] & feed.people.minor[:, None])
    return replace(feed, allowed=feed.allowed & language & age)
