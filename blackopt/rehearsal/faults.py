"""What goes wrong in a rehearsal, drawn by the seed and remembered with its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from blackopt.errors import OutcomeUnknown, RetriableError
from blackopt.protocols import Clock


class Fault(StrEnum):
    """Kinds of faults."""

    FAILED = "an order failed"
    UNANSWERED = "an order was not answered"
    MISSING = "a poll failed"
    LATE = "readings were late"
    RESTATED = "readings were restated"


@dataclass
class Faults:
    """Draws faults.

    Attributes:
        rate: probability of a fault in each order, poll and reading.
        seen: when each happened, in microseconds, and which it was.
    """

    rate: float
    seed: int
    clock: Clock
    seen: list[tuple[int, Fault]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, 1])

    def strikes(self, fault: Fault) -> bool:
        """Whether it happens this time."""
        if self.rate == 0.0 or self._rng.random() >= self.rate:
            return False
        self.seen.append((self.clock.now_us(), fault))
        return True

    def before_order(self) -> None:
        """An order that certainly never arrives.

        Raises:
            RetriableError: this one.
        """
        if self.strikes(Fault.FAILED):
            raise RetriableError("the simulated module is down")

    def after_order(self) -> None:
        """An order that was applied, and whose answer is lost.

        Raises:
            OutcomeUnknown: this one.
        """
        if self.strikes(Fault.UNANSWERED):
            raise OutcomeUnknown("no answer from the simulated module")

    def poll(self) -> None:
        """A poll that brings nothing.

        Raises:
            RetriableError: this one.
        """
        if self.strikes(Fault.MISSING):
            raise RetriableError("the simulated event log cannot be read now")
