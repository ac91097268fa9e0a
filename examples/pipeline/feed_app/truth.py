"""What only a simulation can know: expectations over the population instead of coins."""

from __future__ import annotations

import numpy as np

from feed_app import line, reactions
from feed_app.m04_scorer import Scorer
from feed_app.world import draw_people

SAMPLE = 20_000
_SAMPLE_SEED = 977  # never a run's: a run draws by seed and day


def expected(scorer: Scorer, *, day: int = 19_730, sample: int = SAMPLE) -> tuple[float, float]:
    """True shares of people who come back on ``day``, and who mute the app, if everybody gets this model."""
    people = draw_people(np.random.default_rng(_SAMPLE_SEED), sample)
    reaction = reactions.react(line.run(people, scorer))
    return float(reactions.on_day(reaction.back, day).mean()), float(reaction.mute.mean())
