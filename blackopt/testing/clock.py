"""A clock that moves only when somebody waits."""

from __future__ import annotations

from typing import ClassVar

from blackopt.protocols import PluginOptions

DAY_US = 86_400_000_000


class FakeClock:
    """Virtual time for tests: ``wait_until`` arrives at once.

    Args:
        now_us: where it starts; default 2026-01-05, a Monday.
    """

    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, now_us: int = 1_767_571_200_000_000) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Microseconds UTC."""
        return self._now_us

    def wait_until(self, until_us: int) -> None:
        """Jump there; never back."""
        self._now_us = max(self._now_us, until_us)
