"""Wall time. Everything that needs the time takes a :class:`blackopt.protocols.Clock`."""

from __future__ import annotations

import time
from typing import ClassVar

from blackopt.protocols import PluginOptions

SECOND_US = 1_000_000


class SystemClock:
    """The machine's clock."""

    Options: ClassVar[type[PluginOptions]] = PluginOptions

    def __init__(self, options: PluginOptions | None = None) -> None:
        self.options = options or PluginOptions()

    def now_us(self) -> int:
        """Microseconds UTC."""
        return time.time_ns() // 1000

    def wait_until(self, until_us: int) -> None:
        """Sleep, in steps of at most a minute so that a stepped or suspended clock is noticed."""
        while (left_us := until_us - self.now_us()) > 0:
            time.sleep(min(left_us / SECOND_US, 60.0))
