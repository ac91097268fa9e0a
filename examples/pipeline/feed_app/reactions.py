"""How people react to a feed: the truth of the simulation, which neither the modules nor blackopt see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feed_app.feed import Feed
from feed_app.m09_layout import attention
from feed_app.world import CATALOGUE, Floats, Ints, People


@dataclass(frozen=True, slots=True, eq=False)
class Reaction:
    """(n,) probabilities.

    Attributes:
        back: of opening the feed on the next day, without the season.
        mute: of muting the app within three hours.
    """

    back: Floats
    mute: Floats


def click_probability(people: People, articles: Ints) -> Floats:
    """(n, m) of a click on an article that is looked at: what is loud is clicked, liked or not."""
    return _logistic(
        -1.4
        + 0.5 * _liking(people, articles)
        + 0.15 * CATALOGUE.quality[articles]
        + 0.75 * CATALOGUE.loudness[articles]
        + 0.15 * CATALOGUE.freshness[articles]
    )


def react(feed: Feed) -> Reaction:
    """What n feeds do to their people."""
    people, articles = feed.people, feed.articles
    seen = attention(feed)
    share = seen / seen.sum(axis=1, keepdims=True)
    loud = (share * np.maximum(CATALOGUE.loudness[articles], -1.0)).sum(axis=1)
    # A click is over quickly; whether it was worth it, and how one feels afterwards, lasts till tomorrow.
    worth = np.tanh(
        (share * (0.55 * _liking(people, articles) + 0.55 * CATALOGUE.quality[articles])).sum(axis=1)
        + 0.25 * (share * CATALOGUE.freshness[articles]).sum(axis=1)
        - 0.3
    )
    too_long = np.maximum(feed.size - people.patience, 0.0)
    reminded = np.where(feed.reminder, 0.25 + 0.35 * worth, 0.0)  # of something that was worth it, gladly
    back = (
        -0.8 + 0.8 * people.habit + 0.6 * worth - 0.22 * people.aversion * loud - 0.10 * too_long + reminded
    )
    mute = -4.9 + 0.5 * people.aversion * loud + np.where(feed.reminder, 0.3, 0.0) - 0.4 * worth
    return Reaction(_logistic(back), _logistic(mute))


def season(day: int) -> float:
    """Factor of the odds of coming back on a calendar day (since 1970-01-01): the week, and a slow drift."""
    week = (0.95, 0.93, 0.96, 1.0, 1.05, 1.15, 1.1)[(day + 3) % 7]  # Monday to Sunday
    return float(week * np.exp(0.05 * np.sin(2.0 * np.pi * day / 90.0)))


def on_day(back: Floats, day: int) -> Floats:
    """(n,) probabilities of coming back on that calendar day."""
    odds = back / (1.0 - back) * season(day)
    probability: Floats = odds / (1.0 + odds)
    return probability


def _liking(people: People, articles: Ints) -> Floats:
    liking: Floats = np.take_along_axis(people.taste @ CATALOGUE.topics.T, articles, axis=1)
    return liking


def _logistic(logit: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-logit))
