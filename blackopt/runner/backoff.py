"""When to send an order again, across ticks and processes.

Full jitter (M. Brooker, "Exponential Backoff and Jitter", 2015): uniform in [0, base * 2**attempts]. The
randomness is keyed by the order, so that a resumed run waits as long as an uninterrupted one. What the other
side asks for (Retry-After) is a floor: jitter alone can undercut it.
"""

from __future__ import annotations

import hashlib

from blackopt.clock import SECOND_US
from blackopt.errors import RetriableError

BASE_US = 2 * SECOND_US


def next_attempt_us(order: str, attempts: int, error: RetriableError, now_us: int, *, poll_us: int) -> int:
    """When to try an order again that failed after ``attempts`` earlier failures; microseconds UTC.

    At most a poll from now, unless the other side asked for more. ``order`` names it among all others.
    """
    ceiling_us = max(min(BASE_US << min(attempts, 20), poll_us), SECOND_US)
    digest = hashlib.sha256(f"{order}|{attempts}".encode()).digest()
    jitter_us = ceiling_us * int.from_bytes(digest[:4], "big") // 0xFFFFFFFF
    floor_us = round((error.retry_after_s or 0.0) * SECOND_US)
    return now_us + max(jitter_us, floor_us, SECOND_US)
