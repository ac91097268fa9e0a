"""What the campaign is compared with: random calls, a frozen model, refitted models, and an oracle.

All call the best 20 % of each of the blocks 9 to 40 (6,592 calls). They differ in what they may know:

    random          nothing
    frozen          the warm-up's 8,240 outcomes
    refit, past     the outcomes of every customer so far, called or not (known here because all were called)
    refit, last 4   the same, of the last four blocks
    refit, called   the warm-up, then only the outcomes of the calls it made: what a live campaign really sees
    oracle          the future

The "refit" rows wait as long for an outcome as ``delay`` says; the reference values have no delay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from calls_app.data import BLOCKS, CALL_SHARE, WARM_UP, Calls, Floats

L2 = 25.0
"""Ridge penalty 25/2·‖w‖², the bias free, on inputs standardised with the rows that a model is fitted to. Of
the penalties tried (1 to 1000), the one whose three models come closest to the reference values."""

REFERENCE = {"random": 876, "frozen": 909, "refit, past": 1208, "refit, last 4": 1194, "oracle": 3083}
"""Published beside the data: subscriptions among the 6,592 calls."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A linear score of raw inputs: ``raw @ weights``, with a bias that changes no order."""

    weights: Floats
    bias: float


def logistic(inputs: Floats, subscribed: NDArray[np.bool_], *, l2: float = L2) -> tuple[Floats, float]:
    """Ridge-penalised logistic regression by Newton's method (iteratively reweighted least squares).

    Minimises Σ log(1 + exp(−(2y−1)·z)) + l2/2·‖w‖², z = Xw + b; halves the step while it does not descend.
    Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, section 4.4.1.

    Args:
        inputs: (n, d), standardised.
        subscribed: (n,).

    Returns:
        Weights (d,) and bias.
    """
    x = np.column_stack([inputs, np.ones(len(inputs))])
    y = subscribed.astype(float)
    penalty = np.full(x.shape[1], l2)
    penalty[-1] = 1e-9  # keeps the system regular when all outcomes agree

    def loss(w: Floats) -> float:
        z = x @ w
        return float(np.logaddexp(0.0, z).sum() - y @ z + 0.5 * penalty @ w**2)

    w, now = np.zeros(x.shape[1]), np.inf
    for _ in range(50):
        before, now = now, loss(w)
        if before - now < 1e-8 * (1.0 + abs(now)):
            break
        p = 0.5 * (1.0 + np.tanh(0.5 * (x @ w)))  # the logistic function, without overflow
        hessian = (x * (p * (1.0 - p))[:, None]).T @ x + np.diag(penalty)
        step = np.linalg.solve(hessian, x.T @ (p - y) + penalty * w)
        while loss(w - step) > now and np.abs(step).max() > 1e-9:
            step /= 2.0
        w = w - step
    return w[:-1], float(w[-1])


def fit(calls: Calls, rows: Rows) -> Model:
    """A logistic model of ``rows``, standardised with the statistics of those rows."""
    mean, scale = calls.raw[rows].mean(axis=0), calls.raw[rows].std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    weights, bias = logistic((calls.raw[rows] - mean) / scale, calls.subscribed[rows])
    return Model(weights / scale, bias - float(mean @ (weights / scale)))


def best(scores: Floats, count: int | None = None) -> Rows:
    """Positions of the ``count`` best ``scores`` (by default 20 %), best first; equal ones in list order."""
    return np.argsort(-scores, kind="stable")[: round(len(scores) * CALL_SHARE) if count is None else count]


def quotas(sizes: Sequence[int]) -> list[int]:
    """Calls that each part of a list may make: 20 % of its size, rounded so that the sum is the list's."""
    ends = [round(end * CALL_SHARE) for end in accumulate(sizes, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def known(block: int, delay: int) -> int:
    """Number of blocks whose outcomes are known when ``block`` is dialled; the warm-up always is."""
    return max(WARM_UP, block - delay)


def per_block(calls: Calls, choose: Callable[[int], Rows]) -> NDArray[np.int64]:
    """(32,) subscriptions among the rows that ``choose`` calls in each of the blocks 9 to 40."""
    return np.array([calls.subscribed[choose(b)].sum() for b in range(WARM_UP, BLOCKS)], dtype=np.int64)


def random(calls: Calls) -> NDArray[np.float64]:
    """(32,) what calling at random gives on average."""
    return np.array([round(len(b) * CALL_SHARE) * calls.subscribed[b].mean() for b in calls.blocks[WARM_UP:]])


def oracle(calls: Calls) -> NDArray[np.int64]:
    """(32,) what calling the subscribers first would give."""
    return per_block(calls, lambda b: calls.blocks[b][best(calls.subscribed[calls.blocks[b]].astype(float))])


def frozen(calls: Calls) -> NDArray[np.int64]:
    """(32,) the model of the warm-up, never touched again."""
    model = fit(calls, calls.warm_up)
    return per_block(calls, lambda b: _called(calls, model, b))


def frozen_policy(calls: Calls) -> NDArray[np.int64]:
    """(32,) the dialler's incumbent: the same model on the policies' clipped inputs."""
    weights, _ = logistic(calls.inputs[calls.warm_up], calls.subscribed[calls.warm_up])
    return per_block(calls, lambda b: calls.blocks[b][best(calls.inputs[calls.blocks[b]] @ weights)])


def refit(calls: Calls, *, last: int | None = None, delay: int = 0) -> NDArray[np.int64]:
    """(32,) a new model before every block, of everybody in the known blocks (or the ``last`` of them)."""

    def choose(block: int) -> Rows:
        end = known(block, delay)
        start = 0 if last is None else max(0, end - last)
        return _called(calls, fit(calls, np.concatenate(calls.blocks[start:end])), block)

    return per_block(calls, choose)


def refit_called(calls: Calls, *, delay: int = 0) -> NDArray[np.int64]:
    """(32,) a new model before every block, of the warm-up and the calls that its predecessors made."""
    made: list[Rows] = []

    def choose(block: int) -> Rows:
        seen = made[: known(block, delay) - WARM_UP]
        made.append(_called(calls, fit(calls, np.concatenate([calls.warm_up, *seen])), block))
        return made[-1]

    return per_block(calls, choose)


def _called(calls: Calls, model: Model, block: int) -> Rows:
    rows = calls.blocks[block]
    return rows[best(calls.raw[rows] @ model.weights)]
