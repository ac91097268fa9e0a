"""What a rehearsal found, as numbers. Improvements are fractions of the control, in the good direction."""

from __future__ import annotations

from dataclasses import dataclass

from blackopt.ledger.rows import PromotionState
from blackopt.rehearsal.faults import Fault


@dataclass(frozen=True, slots=True)
class Point:
    """The recommendation at one moment.

    Attributes:
        day: since the start.
        true: its true improvement over the control of that time, a fraction.
        possible: the best there is at that time.
    """

    day: float
    true: float
    possible: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What a window said, once it was told: the mean improvement of its arms.

    Attributes:
        day: since the start.
        lift, se: a fraction; ``se`` None where it is unknown.
        fresh: it measured the recommendation itself.
    """

    day: float
    lift: float
    se: float | None
    fresh: bool


@dataclass(frozen=True, slots=True)
class Week:
    """One week, and where the campaign stood at its end.

    Attributes:
        number: from 1.
        windows: that were opened in it.
        told: trials told in it; ``stopped``: those that a guardrail withdrew.
        estimate: what the campaign itself believes of the recommendation, a fraction.
        true, possible: what the recommendation is worth, and the most that can be.
        exposed: units that were served candidates.
        worse: those of them whose candidate was truly worse than the control.
        lost, won: of the objective's sum, by candidates that were worse and better.
        faults: that were simulated.
    """

    number: int
    windows: int
    told: int
    stopped: int
    estimate: float | None
    true: float
    possible: float
    exposed: float
    worse: float
    lost: float
    won: float
    faults: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What one rehearsal found.

    Attributes:
        seed: it was drawn by.
        ended: why it was over.
        days: until then.
        weeks: week by week.
        points, measured: the recommendation's true worth over time, and what was measured.
        faults: day and kind.
        true, possible: the final recommendation's true improvement, and the most there was, fractions.
        estimate, interval: what the campaign says of it, with its 95 % interval.
        proven: fresh evidence excluded that the incumbent is as good.
        stopped: a guardrail stopped the recommendation when it was measured again.
        told: trials that were told, confirmations too.
        promotion: where its promotion ended; None where none was rehearsed, or could be begun.
    """

    seed: int
    ended: str
    days: float
    weeks: tuple[Week, ...]
    points: tuple[Point, ...]
    measured: tuple[Measured, ...]
    faults: tuple[tuple[float, Fault], ...]
    true: float
    possible: float
    estimate: float | None
    interval: tuple[float, float] | None
    proven: bool
    stopped: bool
    told: int
    promotion: PromotionState | None = None

    @property
    def promoted(self) -> bool:
        """Production serves the recommendation as its incumbent."""
        return self.promotion is not None and self.promotion.adopted
