"""Step rules: how a gradient estimate moves the centre. Each returns what to add, and descends. It does so in
the gradient's own memory, and a rule's state is its only other vectors.

Every rule keeps one state for the whole vector and one count of steps, both dumped: restarted between two
updates, a rule goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from blackopt.types import State, Vector


class StepRule(Protocol):
    """A rule with a memory."""

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre; overwrites the gradient."""
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
        """(n,) what to add to the centre; overwrites the gradient."""
        gradient *= -self.rate
        return gradient

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

    def __init__(self, n: int, rate: float, beta: float, dtype: type[Any] = np.float64) -> None:
        self.rate, self.beta = rate, beta
        self.velocity: Vector = np.zeros(n, dtype)

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre; overwrites the gradient."""
        gradient *= 1 - self.beta
        self.velocity *= self.beta
        self.velocity += gradient
        return np.multiply(self.velocity, -self.rate, out=gradient)

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
        self,
        n: int,
        rate: float,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        *,
        dtype: type[Any] = np.float64,
    ) -> None:
        self.rate, self.beta1, self.beta2, self.epsilon = rate, beta1, beta2, epsilon
        self.count = 0
        self.first: Vector = np.zeros(n, dtype)
        self.second: Vector = np.zeros(n, dtype)

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre; overwrites the gradient."""
        self.count += 1
        for at in blocks(gradient.size):
            m, v, g = self.first[at], self.second[at], gradient[at]
            m[:] = self.beta1 * m + (1 - self.beta1) * g
            v[:] = self.beta2 * v + (1 - self.beta2) * g**2
            first = m / (1 - self.beta1**self.count)  # both moments start at 0: undo that bias
            second = v / (1 - self.beta2**self.count)
            g[:] = -self.rate * first / (np.sqrt(second) + self.epsilon)
        return gradient

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

    def __init__(
        self,
        n: int,
        rate: float,
        max_speed: float,
        momentum: float = 0.9,
        *,
        dtype: type[Any] = np.float64,
    ) -> None:
        self.rate, self.max_speed, self.momentum = rate, max_speed, momentum
        self.velocity: Vector = np.zeros(n, dtype)

    def step(self, gradient: Vector) -> Vector:
        """(n,) what to add to the centre; overwrites the gradient."""
        self.accelerate(lambda at: gradient[at], [slice(0, gradient.size)])
        return np.negative(self.velocity, out=gradient)

    def accelerate(
        self, gradient: Callable[[slice], Vector], parts: Sequence[slice], keep: float = 1.0
    ) -> None:
        """Change the velocity, whose negative is the step, by a gradient that is never there as a whole.

        Args:
            gradient: of a part; overwritten. Each is asked for twice, as the length of the whole comes first;
                a single one once.
            parts: all coordinates in order, each but the last a multiple of 2^16 long.
            keep: share of the momentum, in [0, 1].
        """
        made = [gradient(parts[0])] if len(parts) == 1 else None
        length = math.sqrt(sum(each for at in parts for each in _squares(made[0] if made else gradient(at))))
        for at in parts:
            part, velocity = made[0] if made else gradient(at), self.velocity[at]
            if length > 0:  # otherwise nothing was learnt: coast
                part *= self.rate / length
            velocity *= keep * self.momentum
            velocity += part
        speed = norm(self.velocity)
        if speed > self.max_speed:
            self.velocity *= self.max_speed / speed

    def dump(self) -> State:
        """The velocity."""
        return {"velocity": self.velocity}

    def load(self, state: State) -> None:
        """The inverse of :meth:`dump`."""
        self.velocity = state["velocity"]


def blocks(n: int, size: int = 1 << 16) -> Iterator[slice]:
    """Coordinates 0 to n - 1 in parts, by default such that a cache holds their temporaries."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def norm(vector: NDArray[Any]) -> float:
    """Euclidean length, summed in float64, in an order that no number of threads changes."""
    return math.sqrt(sum(_squares(vector)))


def _squares(vector: NDArray[np.float64]) -> Iterator[float]:
    return (float(np.square(vector[at], dtype=np.float64).sum()) for at in blocks(vector.size))
