"""What the modules hand to one another."""

from __future__ import annotations

from dataclasses import dataclass

from feed_app.world import Flags, Floats, Ints, People


@dataclass(frozen=True, slots=True, eq=False)
class Feed:
    """The state of n feeds between two modules; a module returns a new one with what it has changed.

    Attributes:
        people: n people; a module looks at nothing of them that is hidden.
        articles: (n, m) numbers of articles, best first as far as is known yet.
        allowed: (n, m) whether the article may still be shown.
        score: (n, m) of the model, later the probability that calibration makes of it.
        size: (n,) places to fill, from the front.
        large: (n,) whether the first article gets a large card.
        reminder: (n,) whether somebody is reminded tomorrow.
    """

    people: People
    articles: Ints
    allowed: Flags
    score: Floats
    size: Ints
    large: Flags
    reminder: Flags
