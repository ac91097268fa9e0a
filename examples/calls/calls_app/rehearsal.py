"""The campaign in one process, without HTTP and waiting: to see what settings do before it starts.

Settings must not be chosen on the outcomes that they will be judged by. So the rehearsal keeps the customers
and makes up what they decide: a logistic model whose weights turn, from block 9 to 24, from those of the
warm-up to random ones. The settings in ``campaign.yaml`` come from its table, see README.md.

    python -m calls_app.rehearsal --data PATH
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blackopt.blocks import WeightsBlock
from blackopt.metrics.kinds import Proportion
from blackopt.optimizers.openai_es import OpenAIES, OpenAIESOptions
from blackopt.space import Space
from blackopt.types import Evaluation
from calls_app import baselines, data
from calls_app.data import BLOCKS, FEATURES, WARM_UP, Calls, Floats

DELAY = 2
"""An arm of day d is known at the start of day d + 3: two whole days lie between."""

BASE_RATE = 0.08
SLOPE = 0.9
"""Change of the made-up logit for one standard deviation of the true score within a block."""

TURN_BLOCKS = 16


def made_up(calls: Calls, seed: int) -> Calls:
    """The same customers with drawn outcomes, whose cause drifts away from the warm-up's model."""
    rng = np.random.default_rng([seed, 1])
    old, _ = baselines.logistic(calls.inputs[calls.warm_up], calls.subscribed[calls.warm_up])
    spread = calls.inputs.std(axis=0)
    new = rng.normal(size=len(FEATURES)) / np.where(spread > 0, spread, 1.0)
    subscribed = calls.subscribed.copy()
    for block, rows in enumerate(calls.blocks[WARM_UP:]):
        angle = min(1.0, block / TURN_BLOCKS) * np.pi / 2
        truth = np.cos(angle) * _unit(calls.inputs[rows] @ old) + np.sin(angle) * _unit(
            calls.inputs[rows] @ new
        )
        logit = np.log(BASE_RATE / (1.0 - BASE_RATE)) + SLOPE * truth
        subscribed[rows] = rng.random(len(rows)) < 1.0 / (1.0 + np.exp(-logit))
    return replace(calls, subscribed=subscribed)


def rehearse(calls: Calls, options: OpenAIESOptions, *, arms: int, control: float) -> NDArray[np.int64]:
    """(32,) subscriptions a day, of all arms and the control together."""
    start = np.append(*baselines.logistic(calls.inputs[calls.warm_up], calls.subscribed[calls.warm_up]))
    optimizer = OpenAIES(Space([WeightsBlock("policy", len(start))]), start, options)
    rng = np.random.default_rng([options.seed, 2])
    waiting: list[list[Evaluation]] = []
    served = np.zeros(BLOCKS - WARM_UP, dtype=np.int64)
    for day, rows in enumerate(calls.blocks[WARM_UP:]):
        if day > DELAY:
            optimizer.tell(waiting[day - DELAY - 1])
        dealt = rng.permutation(rows)
        cut = round(control * len(rows))
        parts = [dealt[:cut], *np.array_split(dealt[cut:], arms)]
        candidates = optimizer.ask(arms)
        vectors = [start, *(candidate.vector for candidate in candidates)]
        told = []
        for part, vector, count in zip(
            parts, vectors, baselines.quotas([len(part) for part in parts]), strict=True
        ):
            part.sort()  # list order decides between equal scores
            yes = calls.subscribed[part[baselines.best(calls.inputs[part] @ vector[:-1], count)]]
            served[day] += yes.sum()
            told.append(Proportion().estimate({"n": count, "sum": float(yes.sum())}))
        waiting.append(
            [Evaluation(c.number, -e.value, e.se) for c, e in zip(candidates, told[1:], strict=True)]
        )
    return served


def _unit(scores: Floats) -> Floats:
    spread = float(scores.std())
    unit: Floats = (scores - scores.mean()) / (spread if spread > 0 else 1.0)
    return unit


def main() -> None:
    """Print the table of settings, on made-up outcomes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="csv, csv.xz, zip, or a folder with one of them"
    )
    parser.add_argument("--worlds", type=int, default=8, help="made-up sets of outcomes, at least 2")
    arguments = parser.parse_args()
    calls = data.load(arguments.data)
    worlds = [made_up(calls, seed) for seed in range(arguments.worlds)]
    frozen = [int(baselines.frozen_policy(world).sum()) for world in worlds]
    print(f"made-up outcomes, {len(worlds)} worlds: the frozen policy has {statistics.mean(frozen):.0f}")
    print("arms  population  sigma  more than frozen (± standard error)")
    for arms, population, sigma in itertools.product((8, 16, 32), (16, 32), (0.0125, 0.025, 0.05, 0.1)):
        more = [
            int(rehearse(world, _options(population, sigma, seed), arms=arms, control=0.1).sum())
            - frozen[seed]
            for seed, world in enumerate(worlds)
        ]
        error = statistics.stdev(more) / len(more) ** 0.5
        print(
            f"{arms:4d}  {population:10d}  {sigma:5.4f}  {statistics.mean(more):+8.1f} ± {error:.1f}",
            flush=True,
        )


def _options(population: int, sigma: float, seed: int) -> OpenAIESOptions:
    return OpenAIESOptions(population=population, sigma=sigma, seed=seed)


if __name__ == "__main__":
    main()
