"""Progress on stderr: one live line with a terminal, one line an event without."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from datetime import UTC, datetime
from typing import TextIO

from blackopt.runner.notices import Notice

Z95 = 1.959963984540054
RECENT = 16
CLEAR = "\r\x1b[K"


class Progress:
    """Shows notices as they come.

    Args:
        quiet: show nothing.
        verbose: a line an event also with a terminal.
        stream: where to write.
    """

    def __init__(self, *, quiet: bool, verbose: bool, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._quiet = quiet
        self._live = stream.isatty() and not verbose
        self._color = stream.isatty() and "NO_COLOR" not in os.environ
        self._recent: deque[float] = deque(maxlen=RECENT)

    def __call__(self, notice: Notice) -> None:
        if self._quiet:
            return
        value = notice.data.get("value")
        if notice.kind == "told" and isinstance(value, float):
            self._recent.append(value)
        if notice.kind == "turn":
            if self._live:
                self._stream.write(CLEAR + self._line(notice))
        elif not self._live:
            self._stream.write(f"{notice.kind:<10} {notice.text}\n")
        elif notice.kind in ("breach", "paused", "trouble", "refused", "divergence", "done"):
            self._stream.write(f"{CLEAR}{self._paint(notice)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the cursor on a fresh line."""
        if self._live and not self._quiet:
            self._stream.write(CLEAR)
            self._stream.flush()

    def _line(self, notice: Notice) -> str:
        data = notice.data
        parts = [f"told {data['told']}/{data['of']}", f"live {data['live']}", f"maturing {data['maturing']}"]
        if data["failed"]:
            parts.append(f"failed {data['failed']}")
        if len(self._recent) > 1:
            mean = math.fsum(self._recent) / len(self._recent)
            variance = math.fsum((v - mean) ** 2 for v in self._recent) / (len(self._recent) - 1)
            half = Z95 * math.sqrt(variance / len(self._recent))
            parts.append(f"around the centre {mean:.4g} [{mean - half:.4g}, {mean + half:.4g}]")
        next_us = data["next_us"]
        if isinstance(next_us, int):
            parts.append(f"next step {datetime.fromtimestamp(next_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC")
        return " · ".join(parts)

    def _paint(self, notice: Notice) -> str:
        text = f"{notice.kind}: {notice.text}"
        if not self._color:
            return text
        return f"\x1b[{'32' if notice.kind == 'done' else '33'}m{text}\x1b[0m"
