"""Time in a rehearsal."""

from __future__ import annotations

from typing import ClassVar

from blackopt.protocols import PluginOptions

MONDAY_US = 1_767_571_200_000_000
"""2026-01-05, a Monday, 0:00 UTC: where every rehearsal starts."""


class VirtualClock:
    """A clock that moves when somebody waits: six weeks pass as fast as their work is done."""

    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, now_us: int = MONDAY_US) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Microseconds UTC."""
        return self._now_us

    def wait_until(self, until_us: int) -> None:
        """Jump there; never back."""
        self._now_us = max(self._now_us, until_us)
