"""Batches: ten thousand trials in one transaction."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

LARGE = 256
"""Rows from which on a transaction counts as a batch."""


@contextmanager
def collector_paused(rows: int) -> Iterator[None]:
    """No search for reference cycles while a batch is built and written.

    A batch makes some ten objects a row, all of them tuples, numbers and text, which cannot form cycles; the
    collector starts over and over to find that out, and takes half of the batch's time.
    """
    if rows < LARGE or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
