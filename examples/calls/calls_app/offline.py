"""The other way to use an optimizer here: no live traffic, but the log, where everybody's outcome is known.

Before every block the policy is tuned by ask and tell on the last eight known blocks. The loss is the metric
itself, minus the subscriptions among the best 20 % of each block: a step function, without a gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blackopt.blocks import WeightsBlock
from blackopt.optimizers.openai_es import OpenAIES, OpenAIESOptions
from blackopt.space import Space
from blackopt.types import Evaluation, Vector
from calls_app import baselines
from calls_app.data import CALL_SHARE, Calls, Floats

LAST = 8
UPDATES = 40
OPTIONS = OpenAIESOptions(population=16, sigma=0.05)


def retuned(calls: Calls, *, seed: int, delay: int) -> NDArray[np.int64]:
    """(32,) subscriptions a day of a policy that is tuned anew before every block, from where it was."""
    weights, bias = baselines.logistic(calls.inputs[calls.warm_up], calls.subscribed[calls.warm_up])
    vector = np.append(weights, bias)

    def choose(block: int) -> NDArray[np.intp]:
        nonlocal vector
        end = baselines.known(block, delay)
        vector = tune(calls, vector, range(end - LAST, end), seed=1000 * seed + block)
        rows = calls.blocks[block]
        return rows[baselines.best(calls.inputs[rows] @ vector[:-1])]

    return baselines.per_block(calls, choose)


def tune(calls: Calls, start: Vector, blocks: range, *, seed: int) -> Vector:
    """(44,) the policy after :data:`UPDATES` updates on the log of ``blocks``."""
    optimizer = OpenAIES(
        Space([WeightsBlock("policy", len(start))]), start, OPTIONS.model_copy(update={"seed": seed})
    )
    for _ in range(UPDATES):
        candidates = optimizer.ask(OPTIONS.population)
        yes = subscriptions(calls, np.stack([c.vector[:-1] for c in candidates], axis=1), blocks)
        optimizer.tell([Evaluation(c.number, -float(y)) for c, y in zip(candidates, yes, strict=True)])
    return optimizer.recommend()


def subscriptions(calls: Calls, weights: Floats, blocks: range) -> NDArray[np.int64]:
    """(k,) subscriptions among the best 20 % of each of the blocks, for k policies (43, k)."""
    total = np.zeros(weights.shape[1], dtype=np.int64)
    for rows in (calls.blocks[block] for block in blocks):
        count = round(len(rows) * CALL_SHARE)
        chosen = np.argpartition(-(calls.inputs[rows] @ weights), count - 1, axis=0)[:count]
        total += calls.subscribed[rows][chosen].sum(axis=0)
    return total
