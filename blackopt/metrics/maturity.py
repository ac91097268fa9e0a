"""When a metric is complete: only units whose whole window has passed may count.

A unit that was exposed at the last moment of a traffic window has its start event within ``within``, is fully
observed once the metric's own window has passed, its data is there once the source's lag has passed, and
nothing undoes it any more once it has baked. Partial cohorts counted as lost users are the commonest error of
experiment platforms, so nothing is told before.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from blackopt.errors import UsageError


@dataclass(frozen=True, slots=True)
class Maturity:
    """How long after an exposure a metric is known.

    Attributes:
        window_us: what the metric looks at after its anchor, in microseconds.
        lag_us: what the source needs to have all of it, in microseconds.
        bake_us: how long after that it is still undone, such as by chargebacks, in microseconds.
        within_us: how long after a unit's exposure the anchor may come, in microseconds; 0 where the exposure
            itself is the anchor.

    Raises:
        UsageError: a negative duration.
    """

    window_us: int
    lag_us: int
    bake_us: int = 0
    within_us: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise UsageError(f"expected {field.name} of at least 0 µs, got {value}")

    def mature_at(self, window_end_us: int) -> int:
        """When all units of a traffic window that ends then are known for good, in microseconds."""
        return window_end_us + self.within_us + self.window_us + self.lag_us + self.bake_us

    def is_mature(self, as_of_us: int, window_end_us: int) -> bool:
        """Whether a source that knows everything up to ``as_of_us`` has all of that traffic window."""
        return as_of_us >= self.mature_at(window_end_us)
