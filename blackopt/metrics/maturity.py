"""When a metric is complete: only units whose whole window has passed may count.

A unit that was exposed at the last moment of a traffic window is fully observed once the metric's own window
has passed, and its data is there once the source's lag has passed too. Partial cohorts counted as lost users
are the commonest error of experiment platforms, so nothing is told before.
"""

from __future__ import annotations

from dataclasses import dataclass

from blackopt.errors import UsageError


@dataclass(frozen=True, slots=True)
class Maturity:
    """How long after an exposure a metric is known.

    Attributes:
        window_us: what the metric looks at after a unit's exposure, in microseconds.
        lag_us: what the source needs to have all of it, in microseconds.

    Raises:
        UsageError: a negative duration.
    """

    window_us: int
    lag_us: int

    def __post_init__(self) -> None:
        if self.window_us < 0 or self.lag_us < 0:
            raise UsageError(
                f"expected window and lag of at least 0 µs, got {self.window_us} and {self.lag_us}"
            )

    def mature_at(self, window_end_us: int) -> int:
        """When all units of a traffic window that ends then are fully observed, in microseconds."""
        return window_end_us + self.window_us + self.lag_us

    def is_mature(self, as_of_us: int, window_end_us: int) -> bool:
        """Whether a source that knows everything up to ``as_of_us`` has all of that traffic window."""
        return as_of_us >= self.mature_at(window_end_us)
