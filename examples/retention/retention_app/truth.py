"""The simulation's true values, which no production system ever shows: expectations instead of coins.

The expectation over the population is the mean over one large, fixed sample of users; it is the same for
every configuration, so that differences between configurations are far more exact than either value.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retention_app import behaviour, pipeline
from retention_app.pipeline import FEATURES, INCUMBENT, WEIGHT_LIMIT, Configuration, Floats, Users

SAMPLE = 20_000
REFERENCE_DAYS = tuple(range(19_723, 19_730))
"""First opens of one week, Monday 2024-01-01 to Sunday: what a value without days is averaged over."""

OPTIMUM_FILE = Path(__file__).with_name("optimum.json")
_SAMPLE_KEY = 977  # never a run's key: those have a day in their upper half, see retention_app.cohort


@dataclass(frozen=True, slots=True)
class Truth:
    """Expected shares of new users.

    Attributes:
        finished_d1: finished the welcome slate by the end of day 1.
        retention_d1, retention_d7: active on day 1, on day 7.
        mute_3h: switched notifications off within 3 hours.
        unsubscribe_7d: unsubscribed within 7 days.
    """

    finished_d1: float
    retention_d1: float
    retention_d7: float
    mute_3h: float
    unsubscribe_7d: float


@functools.lru_cache(maxsize=4)
def _sample(size: int) -> Users:
    return pipeline.draw_users(np.random.Generator(np.random.Philox(key=_SAMPLE_KEY)), size)


def expected(
    configuration: Configuration, *, first_days: Sequence[int] = REFERENCE_DAYS, sample: int = SAMPLE
) -> Truth:
    """The true value of a configuration.

    Args:
        configuration: what every user gets.
        first_days: calendar days (since 1970-01-01) of the first opens; week and drift depend on them.
        sample: how many users the expectation over the population is taken over.
    """
    users = _sample(sample)
    reaction = behaviour.react(users, *behaviour.spread(configuration, sample))
    day1 = [reaction.visit_probability(day + 1, 1).mean() for day in first_days]
    day7 = [reaction.visit_probability(day + 7, 7).mean() for day in first_days]
    return Truth(
        finished_d1=float(reaction.finish.mean()),
        retention_d1=float(np.mean(day1)),
        retention_d7=float(np.mean(day7)),
        mute_3h=float(reaction.mute.mean()),
        unsubscribe_7d=float(reaction.unsubscribe.mean()),
    )


def optimum() -> Configuration:
    """The configuration with the highest true day-7 retention, as :func:`find_optimum` found it once."""
    return pipeline.parse(OPTIMUM_FILE.read_bytes())


def find_optimum(*, starts: int = 5, sample: int = 6_000) -> Configuration:
    """Search for the best true day-7 retention: pattern searches from several points, the best one refined.

    Deterministic; takes about a minute. Run this module to write :data:`OPTIMUM_FILE` anew.

    Args:
        starts: how many points to start from; the first is the incumbent.
        sample: users in the expectation of the searches; the refinement takes :data:`SAMPLE`.
    """
    draw = np.random.Generator(np.random.Philox(key=_SAMPLE_KEY + 1))
    lower = np.array([-WEIGHT_LIMIT] * len(FEATURES) + [0.0, 0.0])
    upper = np.array([WEIGHT_LIMIT] * len(FEATURES) + [1.0, 1.0])
    points = [_vector(INCUMBENT)]
    points += [
        np.concatenate([draw.normal(size=len(FEATURES)), draw.uniform(0.1, 0.9, 2)])
        for _ in range(starts - 1)
    ]

    def value(size: int) -> Callable[[Floats], float]:
        return lambda x: expected(_configuration(x), first_days=REFERENCE_DAYS[1:2], sample=size).retention_d7

    found = [pattern_search(value(sample), x, lower, upper, step=0.25, smallest=0.02) for x in points]
    best = max(found, key=value(sample))
    return _configuration(pattern_search(value(SAMPLE), best, lower, upper, step=0.05, smallest=0.004))


def pattern_search(
    value: Callable[[Floats], float], x: Floats, lower: Floats, upper: Floats, *, step: float, smallest: float
) -> Floats:
    """Climb along the coordinates, and along the last sweep's direction; halve the step where nothing helps.

    Hooke and Jeeves, "Direct search solution of numerical and statistical problems" (J. ACM 8, 1961).

    Args:
        value: to be maximised.
        x: (n,) where to start.
        lower, upper: (n,) bounds; a step is a share of their distance, but at most of 4.
        step: first step.
        smallest: stop below this step.
    """
    scale = np.minimum(upper - lower, 4.0)
    best, height = x, value(x)
    while step >= smallest:
        base = best
        for i in range(len(x)):
            for sign in (1.0, -1.0):
                probe = best.copy()
                probe[i] = np.clip(probe[i] + sign * step * scale[i], lower[i], upper[i])
                if (got := value(probe)) > height:
                    best, height = probe, got
                    break
        leap = np.clip(2.0 * best - base, lower, upper)
        if best is base:
            step /= 2.0
        elif (got := value(leap)) > height:
            best, height = leap, got
    return best


def _vector(configuration: Configuration) -> Floats:
    return np.array([*configuration.weights, configuration.diversity, configuration.throttle])


def _configuration(x: Floats) -> Configuration:
    *weights, diversity, throttle = (round(float(value), 6) for value in x)
    return Configuration(tuple(weights), diversity, throttle)


if __name__ == "__main__":
    best = find_optimum()
    OPTIMUM_FILE.write_text(json.dumps(json.loads(best.body()), indent=2) + "\n")
    print(best, expected(best))
