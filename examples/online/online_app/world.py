"""Visitors, what they like, and the policy that chooses for them: the simulation's truth, and numpy alone.

A visitor is shown one of six offers by a network of 310 weights, and buys, or does not, hours later. Who buys
what is a matter of taste, which the network has to discover: it sees twelve features and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

FEATURES, HIDDEN, OFFERS = 12, 16, 6
SHAPES = {
    "hidden.weights": (HIDDEN, FEATURES),
    "hidden.bias": (HIDDEN,),
    "offers.weights": (OFFERS, HIDDEN),
    "offers.bias": (OFFERS,),
}
WEIGHTS = sum(int(np.prod(shape)) for shape in SHAPES.values())

HOUR_US = 3_600_000_000
WITHIN_H = 12
"""Hours within which a purchase counts as one of the visit."""

_WORLD = 61  # the key of the truth: part of the world, not of a run
_TRUTH = 977  # the visitors over whom expectations are taken: never a run's


def incumbent() -> dict[str, NDArray[np.float32]]:
    """The network before anything was learnt, as initialised."""
    draw = np.random.default_rng([_WORLD, 1])
    return {
        name: (draw.normal(size=shape) / np.sqrt(shape[-1]) * (len(shape) > 1)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def scores(tensors: Mapping[str, NDArray[np.floating[Any]]], x: Floats) -> NDArray[np.floating[Any]]:
    """What the network thinks of each offer.

    Args:
        tensors: of :data:`SHAPES`, all of them with the same leading dimensions, if any.
        x: (..., n, FEATURES).

    Returns:
        (..., n, OFFERS).
    """
    w1, b1, w2, b2 = (tensors[name] for name in SHAPES)
    hidden = np.tanh(x @ np.swapaxes(w1, -1, -2) + b1[..., None, :])
    found: NDArray[np.floating[Any]] = hidden @ np.swapaxes(w2, -1, -2) + b2[..., None, :]
    return found


class Network:
    """What a request calls: ``model=`` of the sampler. Keeps the tensors, as it must."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def act(self, x: Floats) -> int:
        """The offer for one visitor."""
        return int(np.argmax(scores(self._tensors, x[None, :])))


@dataclass(frozen=True, slots=True, eq=False)
class Visitors:
    """n visitors.

    Attributes:
        x: (n, FEATURES) what the network sees.
        coin: (n,) uniform: who buys is who has less than the probability.
        delay_h: (n,) hours from the visit to the purchase, if there is one.
    """

    x: Floats
    coin: Floats
    delay_h: Floats


def draw_visitors(draw: np.random.Generator, n: int) -> Visitors:
    """Delays are log-normal: half of the purchases come within 4 hours, one in 30 after 12."""
    return Visitors(draw.normal(size=(n, FEATURES)), draw.random(n), 4.0 * draw.lognormal(0.0, 0.6, n))


@cache
def _taste() -> tuple[Floats, Floats]:
    draw = np.random.default_rng([_WORLD, 0])
    return draw.normal(size=(OFFERS, FEATURES)) / np.sqrt(FEATURES), draw.normal(scale=0.2, size=OFFERS)


def purchase(x: Floats, offer: Ints, hour: float) -> Floats:
    """(...,) probability of buying the offer that was shown at that hour (since 1970)."""
    linear, bias = _taste()
    liking = np.take_along_axis(x @ linear.T + bias, offer[..., None], axis=-1)[..., 0]
    season = 0.5 * np.sin(2 * np.pi * hour / 24)  # people buy more in the evening, whatever they are shown
    probability: Floats = 1.0 / (1.0 + np.exp(1.2 - season - 1.6 * liking))
    return probability


def value(tensors: Mapping[str, NDArray[np.floating[Any]]]) -> float:
    """The true share of visitors who buy within the hours that count, by this network, over a day."""
    x, bought = _everybody()
    return float(np.take_along_axis(bought, np.argmax(scores(tensors, x), axis=-1)[:, None], axis=1).mean())


def best() -> float:
    """The share of those who buy where everybody is shown what they buy most: nothing can be above it."""
    return float(_everybody()[1].max(axis=1).mean())


@cache
def _everybody() -> tuple[Floats, Floats]:
    """(m, FEATURES) many visitors, and (m, OFFERS) what they would buy, in time, on average over a day."""
    visitors = draw_visitors(np.random.default_rng(_TRUTH), 10_000)
    shown = np.broadcast_to(np.arange(OFFERS), (10_000, OFFERS))
    rates = [
        np.stack([purchase(visitors.x, shown[:, offer], hour) for offer in range(OFFERS)], axis=1)
        for hour in range(0, 24, 3)
    ]
    return visitors.x, np.mean(rates, axis=0) * float(np.mean(visitors.delay_h <= WITHIN_H))
