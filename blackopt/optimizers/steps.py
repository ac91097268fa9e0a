"""Step rules: how a gradient estimate moves the centre. Each returns what to add, and descends.

Every rule keeps one state for the whole vector and one count of steps, both dumped: restarted between two
updates, a rule goes on as if it had not been.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from blackopt.types import State, Vector


class StepRule(Protocol):
    """A rule with a memory."""

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre."""
        ...

    def dump(self) -> State:
        """What it remembers; may share arrays with it."""
        ...

    def load(self, state: State) -> None:
        """The inverse of :meth:`dump`; may keep the arrays."""
        ...


class SGD:
    """``-rate * g``.

    Args:
        rate: learning rate.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre."""
        return -self.rate * gradient

    def dump(self) -> State:
        """Nothing is remembered."""
        return {}

    def load(self, state: State) -> None:
        """Nothing is remembered."""


class Momentum:
    """``v <- beta v + (1 - beta) g;  -rate * v``: a running mean, so ``rate`` means what it means in
    :class:`SGD`.

    Args:
        n: length of the vectors.
        rate: learning rate.
        beta: share of the old velocity, in [0, 1).
    """

    def __init__(self, n: int, rate: float, beta: float) -> None:
        self.rate, self.beta = rate, beta
        self.velocity: Vector = np.zeros(n)

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre."""
        self.velocity = self.beta * self.velocity + (1 - self.beta) * gradient
        return -self.rate * self.velocity

    def dump(self) -> State:
        """The velocity."""
        return {"velocity": self.velocity}

    def load(self, state: State) -> None:
        """The inverse of :meth:`dump`."""
        self.velocity = state["velocity"]


class Adam:
    """Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015), algorithm 1.

    Args:
        n: length of the vectors.
        rate: alpha, the learning rate: about the largest change of a coordinate in one step.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        epsilon: added to the root of the second moment.
    """

    def __init__(
        self, n: int, rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        self.rate, self.beta1, self.beta2, self.epsilon = rate, beta1, beta2, epsilon
        self.count = 0
        self.first: Vector = np.zeros(n)
        self.second: Vector = np.zeros(n)

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre."""
        self.count += 1
        self.first = self.beta1 * self.first + (1 - self.beta1) * gradient
        self.second = self.beta2 * self.second + (1 - self.beta2) * gradient**2
        first = self.first / (1 - self.beta1**self.count)  # both moments start at 0: undo that bias
        second = self.second / (1 - self.beta2**self.count)
        return -self.rate * first / (np.sqrt(second) + self.epsilon)

    def dump(self) -> State:
        """The count of steps and both moments."""
        return {"count": self.count, "first": self.first, "second": self.second}

    def load(self, state: State) -> None:
        """The inverse of :meth:`dump`."""
        self.count, self.first, self.second = state["count"], state["first"], state["second"]


class ClipUp:
    """Toklu, Liskowski and Srivastava, "ClipUp: a simple and powerful optimizer for distribution-based policy
    evolution" (PPSN 2020), algorithm 1: a normalised gradient, momentum, and a speed limit.

    The limit bounds how far the centre can go while a result is in flight, whatever the gradient's scale.

    Args:
        n: length of the vectors.
        rate: alpha, length that each normalised gradient adds to the velocity.
        max_speed: v_max, longest step.
        momentum: share of the old velocity, in [0, 1).
    """

    def __init__(self, n: int, rate: float, max_speed: float, momentum: float = 0.9) -> None:
        self.rate, self.max_speed, self.momentum = rate, max_speed, momentum
        self.velocity: Vector = np.zeros(n)

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre."""
        norm = float(np.linalg.norm(gradient))
        unit = gradient / norm if norm > 0 else gradient  # nothing was learnt: coast
        velocity = self.momentum * self.velocity + self.rate * unit
        speed = float(np.linalg.norm(velocity))
        self.velocity = velocity if speed <= self.max_speed else velocity * (self.max_speed / speed)
        return -self.velocity

    def dump(self) -> State:
        """The velocity."""
        return {"velocity": self.velocity}

    def load(self, state: State) -> None:
        """The inverse of :meth:`dump`."""
        self.velocity = state["velocity"]
