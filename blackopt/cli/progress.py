"""Progress on stderr: one live line with a terminal, one line an event without."""

from __future__ import annotations

import math
import os
import sys
from collections import deque
from datetime import UTC, datetime
from typing import TextIO

from blackopt.cli.output import utc
from blackopt.diagnostics import printable
from blackopt.runner.notices import Notice
from blackopt.runner.wording import per_cent

Z95 = 1.959963984540054
RECENT = 16
CLEAR = "\r\x1b[K"
LOUD = ("breach", "paused", "trouble", "refused", "divergence", "promotion", "done")
"""What stays on the screen above the live line."""


class Progress:
    """Shows notices as they come.

    Args:
        quiet: show nothing.
        verbose: a line an event also with a terminal.
        percent: values are lifts over a control.
        stream: where to write; stderr where None.
    """

    def __init__(
        self, *, quiet: bool, verbose: bool, percent: bool = False, stream: TextIO | None = None
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._quiet = quiet
        self._percent = percent
        self._live = self._stream.isatty() and not verbose
        self._color = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._recent: deque[float] = deque(maxlen=RECENT)

    def __call__(self, notice: Notice) -> None:
        """Show one notice."""
        if self._quiet:
            return
        value = notice.data.get("value")
        if notice.kind == "told" and isinstance(value, float):
            self._recent.append(value)
        if notice.kind == "turn":
            if self._live:
                # A line that wraps could not be cleared.
                self._stream.write(CLEAR + self._line(notice)[: _columns(self._stream) - 1])
        elif not self._live:
            self._stream.write(
                f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {notice.kind:<9} {printable(notice.text)}\n"
            )
        elif notice.kind in LOUD:
            self._stream.write(f"{CLEAR}{self._paint(notice)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the cursor on a fresh line."""
        if self._live and not self._quiet:
            self._stream.write(CLEAR)
            self._stream.flush()

    def _line(self, notice: Notice) -> str:
        data = notice.data
        parts = [f"told {data['told']}/{data['of']}"]
        parts += [f"{name} {data[name]}" for name in ("live", "maturing", "failed") if data[name]]
        if len(self._recent) > 1:
            parts.append(f"lately {self._lately()}")
        next_us = data["next_us"]
        if isinstance(next_us, int) and next_us != data["now_us"]:
            parts.append(f"next step {utc(next_us)}")
        return " · ".join(parts)

    def _lately(self) -> str:
        """Mean of the last values told, and its 95 % interval from their spread."""
        mean = math.fsum(self._recent) / len(self._recent)
        variance = math.fsum((v - mean) ** 2 for v in self._recent) / (len(self._recent) - 1)
        half = Z95 * math.sqrt(variance / len(self._recent))
        low, middle, high = (
            per_cent(v, sign=True) if self._percent else f"{v:.4g}" for v in (mean - half, mean, mean + half)
        )
        return f"{middle} [{low}, {high}]"

    def _paint(self, notice: Notice) -> str:
        text = f"{notice.kind}: {printable(notice.text)}"
        if not self._color:
            return text
        return f"\x1b[{'32' if notice.kind == 'done' else '33'}m{text}\x1b[0m"


def _columns(stream: TextIO) -> int:
    """Of this very stream: stdout may be a file."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
