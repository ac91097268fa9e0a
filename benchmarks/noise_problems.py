"""Noisy problems for ``noise.py``: shapes of losses, kinds of spaces, and noise that is told or not.

A problem's coordinates are scaled so that its optimum lies about one right-sized ``sigma`` from the start in
each of them. ``signal`` is the loss of the start less that of the optimum; the noise is a multiple of it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from blackopt.space import Space

Vector = NDArray[np.float64]
_T = TypeVar("_T")

SHAPES = ("quadratic", "plateau", "ridge", "retention", "revenue", "drift")
SIZES = (5, 10, 20, 30, 50)
NOISES = (0.1, 0.3, 1.0, 3.0, 10.0)
FLIGHTS = (1, 16, 64)
MISSET = (1.0, 1.0, 0.1, 10.0)
KINDS = ("weights", "weights", "floats", "integers")
BUDGETS = (300, 1000, 300, 2000, 1000)
CHECKPOINTS = (100, 300, 1000, 2000)
PER_SHAPE = 16
LATER = 4  # by shape, of the set that was drawn when the one held back had been looked at
_LEVELS = 5  # of an integer
_MODEL_RETENTION = 0.4  # at the optimum


def digest(text: str) -> int:
    """The same integer everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Configuration:
    """One problem family: everything but the seed.

    Attributes:
        noise: standard deviation of a measurement, as a multiple of the signal.
        in_flight: candidates asked and not told yet.
        misset: what the optimizer's sigma is multiplied by.
        kind: of the coordinates.
        budget: evaluations.
    """

    shape: str
    n: int
    noise: float
    in_flight: int
    misset: float
    kind: str
    budget: int

    @property
    def name(self) -> str:
        return (
            f"{self.shape} n={self.n} noise={self.noise:g} flight={self.in_flight} "
            f"sigma x{self.misset:g} {self.kind} B={self.budget}"
        )

    @property
    def held_back(self) -> bool:
        """Which of the two sets it belongs to, by its name alone."""
        return digest(self.name) % 2 == 1

    @property
    def checkpoints(self) -> tuple[int, ...]:
        return tuple(b for b in CHECKPOINTS if b <= self.budget)


def configurations(name: str) -> list[Configuration]:
    """Those of the set ``dev``, ``held-back`` or ``later``, drawn by hash: every level of every factor, and
    few of their combinations. A configuration is in one set only."""
    first = _drawn(range(PER_SHAPE))
    if name == "later":
        return [c for c in _drawn(range(PER_SHAPE, PER_SHAPE + LATER)) if c not in first]
    return [c for c in first if c.held_back == (name == "held-back")]


def _drawn(indices: range) -> list[Configuration]:
    """So many for each shape."""
    found = []
    for index in indices:
        for shape in SHAPES:
            key = f"{shape}/{index}"

            def level(name: str, levels: tuple[_T, ...], key: str = key) -> _T:
                return levels[digest(f"{key}/{name}") % len(levels)]

            found.append(
                Configuration(
                    shape,
                    level("n", SIZES),
                    level("noise", NOISES),
                    level("flight", FLIGHTS),
                    level("misset", MISSET),
                    level("kind", KINDS),
                    level("budget", BUDGETS),
                )
            )
    return list(dict.fromkeys(found))


class Problem:
    """One configuration with one seed: where its optimum is, how it is turned, what it measures."""

    def __init__(self, configuration: Configuration, seed: int) -> None:
        self.configuration, self.seed = configuration, seed
        n = configuration.n
        rng = np.random.default_rng([digest(configuration.name), seed])
        bounded = configuration.kind != "weights"
        self.unit = 0.2 if bounded else 1.0
        self.start = np.full(n, 0.5) if bounded else np.zeros(n)
        self.bounds = (0.0, 1.0) if bounded else (-5.0 * self.sigma, 5.0 * self.sigma)
        self.whole = (
            np.arange(n) % 3 == 0 if configuration.kind == "integers" else np.zeros(n, dtype=np.bool_)
        )
        self.optimum = self._optimum(rng)
        self.path = rng.normal(size=(2, n)) if configuration.shape == "drift" else np.zeros((2, n))
        self.turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
        worst = {"quadratic": 30.0, "drift": 10.0, "revenue": 10.0, "retention": 10.0, "plateau": 10.0}
        self.stretch = np.geomspace(1.0, worst.get(configuration.shape, 1.0), n)
        self.stretch /= self.stretch.mean()
        self.usual = 1.0
        self.usual = self.raw(self.start, 0.0)
        self.signal = self.truth(self.start, 0.0)

    def _optimum(self, rng: np.random.Generator) -> Vector:
        """(n,) inside the bounds; some coordinates lie on them."""
        n = self.configuration.n
        if self.configuration.kind == "weights":
            return rng.uniform(-2, 2, n)
        place = np.clip(rng.uniform(-0.15, 1.15, n), 0.0, 1.0)
        return np.where(self.whole, self.rounded(place), place)

    @staticmethod
    def rounded(x: Vector) -> Vector:
        """(n,) middles of the integers' bins."""
        middles: Vector = (np.minimum(np.floor(x * _LEVELS), _LEVELS - 1) + 0.5) / _LEVELS
        return middles

    @cached_property
    def space(self) -> Space:
        """For optimizers that know integers."""
        if self.configuration.kind == "weights":
            return Space.from_spec({"w": {"weights": self.configuration.n}})
        return Space.from_spec(
            {
                f"x{j}": {"int": [1, _LEVELS]} if whole else {"float": [0, 1]}
                for j, whole in enumerate(self.whole)
            }
        )

    @property
    def sigma(self) -> float:
        """What the optimizer is told."""
        return self.unit * self.configuration.misset

    def raw(self, x: Vector, progress: float) -> float:
        """The squared distance that the shapes are made of, 0 at the optimum."""
        a, b = self.path
        away = 0.7 * (a * math.sin(3 * progress) + b * (1 - math.cos(3 * progress)))
        u = (np.where(self.whole, self.rounded(x), x) - self.optimum) / self.unit - away
        if self.configuration.shape == "ridge":
            bent = u.copy()
            bent[1:] -= 0.3 * u[:-1] ** 2
            weights = np.full(len(u), 10.0)
            weights[0] = 1.0
            return float(weights @ bent**2)
        return float(self.stretch @ (self.turn @ u) ** 2)

    def truth(self, x: Vector, progress: float) -> float:
        """The loss without noise, 0 at the optimum; ``progress`` is the part of the budget that is spent."""
        q = self.raw(x, progress) / self.usual
        if self.configuration.shape == "plateau":
            return 1.0 - math.exp(-2.0 * q)
        if self.configuration.shape == "retention":
            best = math.log(_MODEL_RETENTION / (1 - _MODEL_RETENTION))
            return _MODEL_RETENTION - 1 / (1 + math.exp(min(0.7 * q - best, 500.0)))
        return q

    def measure(self, x: Vector, progress: float, rng: np.random.Generator) -> tuple[float, float | None]:
        """A loss, and its standard error where the measurement has one."""
        loss, sd = self.truth(x, progress), self.configuration.noise * self.signal
        if self.configuration.shape == "retention":
            rate = _MODEL_RETENTION - loss
            usual = _MODEL_RETENTION * (1 - _MODEL_RETENTION) / sd**2
            units = max(5, round(usual * 10 ** rng.uniform(-0.5, 0.5)))  # arms are of unequal size
            kept = rng.binomial(units, rate) / units
            smoothed = (kept * units + 1) / (units + 2)
            return _MODEL_RETENTION - kept, math.sqrt(smoothed * (1 - smoothed) / units)
        if self.configuration.shape == "revenue":
            return loss - sd * _lognormal(rng), None
        return loss + sd * rng.normal(), None


def _lognormal(rng: np.random.Generator) -> float:
    """Mean of four lognormal(0, 1.5) numbers, with mean 0 and variance 1: a few large payers."""
    mean, variance = math.exp(1.125), (math.exp(2.25) - 1) * math.exp(2.25)
    return float((rng.lognormal(0.0, 1.5, 4).mean() - mean) / math.sqrt(variance / 4))
