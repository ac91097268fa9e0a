"""Who sees what: units hashed into buckets, and the buckets cut into a control and equal arms.

A unit (a user, a session, a cluster) falls into one of a million buckets by the first 60 bits of the SHA-1 of
``campaign.salt.unit`` in UTF-8, the splitter of PlanOut (Bakshy, Eckles & Bernstein, WWW 2014). The same unit
stays in its bucket while the salt stays, and is dealt anew by the next one. Integers only: every language
gets the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from blackopt.errors import UsageError
from blackopt.types import Slice

BUCKETS = 1_000_000
"""Number of buckets: slices are cut in millionths of all units."""

_HEX_DIGITS = 15
_LARGEST = 0xFFF_FFFF_FFFF_FFFF


def bucket(campaign: str, salt: str, unit: str) -> int:
    """The bucket of a unit, in [0, 1 000 000).

    With u = int(sha1(campaign.salt.unit)[:15 hex digits], 16) / (16^15 − 1) in [0, 1] it is ⌊u · 10⁶⌋, and
    the last bucket for u = 1.

    Raises:
        UsageError: the unit is not text, or empty: all who have no id would share one arm.
    """
    if not isinstance(unit, str) or not unit:
        raise UsageError(f"unit: expected the id of a unit as non-empty text, got {unit!r}")
    try:
        key = f"{campaign}.{salt}.{unit}".encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"unit: expected text that UTF-8 can hold, got {unit!r}") from error
    # Not for secrecy: any uniform hash would do, and this one is what other splitters use.
    digest = hashlib.sha1(key, usedforsecurity=False).hexdigest()
    return min(int(digest[:_HEX_DIGITS], 16) * BUCKETS // _LARGEST, BUCKETS - 1)


def allocate(share: int, control: int, arms: int) -> tuple[Slice, tuple[Slice, ...]]:
    """Cut a window's traffic: the control first, then equal arms; what cannot be cut evenly is not assigned.

    Args:
        share: of all units that take part, in millionths, 1 to 1 000 000.
        control: of those that take part and serve as the control, in millionths, 0 to 999 999.
        arms: how many, at least 1.

    Returns:
        The control's slice (empty for ``control=0``) and the arms' slices, which never overlap.

    Raises:
        UsageError: a number outside its range, or a share too small to give every arm a bucket.
    """
    if not 1 <= share <= BUCKETS:
        raise UsageError(f"share: expected 1 to {BUCKETS} millionths of all units, got {share!r}")
    if not 0 <= control < BUCKETS:
        raise UsageError(f"control: expected 0 to {BUCKETS - 1} millionths of the share, got {control!r}")
    if arms < 1:
        raise UsageError(f"arms: expected at least 1, got {arms!r}")
    first = share * control // BUCKETS
    width = (share - first) // arms
    if width < 1 or (control > 0 and first < 1):
        raise UsageError(f"share: {share} millionths are too few for a control of {control} and {arms} arms")
    return Slice(0, first), tuple(Slice(first + i * width, first + (i + 1) * width) for i in range(arms))


def assign(bucket: int, slices: Sequence[Slice]) -> int | None:
    """The index of the slice that a bucket lies in; None for a unit that takes no part.

    Raises:
        UsageError: a number that is no bucket.
    """
    if not 0 <= bucket < BUCKETS:
        raise UsageError(f"bucket: expected 0 to {BUCKETS - 1}, got {bucket!r}")
    for index, part in enumerate(slices):
        if part.lower <= bucket < part.upper:
            return index
    return None
