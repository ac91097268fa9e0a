"""Quiet hours: from when on something new may be started. Pure functions of the time.

Quiet time is a matter of somebody's clock on the wall: an instant is quiet when the local time there shows
one of the hours, or one of the days. So an hour that a change to summer time leaves out is never quiet, and
one that comes twice is quiet twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from blackopt.campaign import Quiet
from blackopt.campaign.quiet import MIDNIGHT, WEEK
from blackopt.errors import UsageError

SECOND_US = 1_000_000

_LONGEST_DAYS = 400
"""Quiet time that does not end within so many days is a fault: six days in seven are the most that can be
declared, and a change of the clock can hide an opening at most now and then."""


def is_quiet(quiet: Quiet | None, at_us: int) -> bool:
    """Whether nothing new may be started at a moment, in microseconds since 1970 UTC."""
    if quiet is None:
        return False
    local = datetime.fromtimestamp(at_us // SECOND_US, _zone(quiet))
    if quiet.days is not None and WEEK[local.weekday()] in quiet.days:
        return True
    if quiet.hours is None:
        return False
    begin, end = quiet.hours
    minute = 60 * local.hour + local.minute
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def opens_us(quiet: Quiet | None, now_us: int) -> int:
    """The first moment from now on at which something new may be started, in microseconds since 1970 UTC.

    It is ``now_us`` itself wherever that is not quiet.

    Raises:
        UsageError: there is none within a year.
    """
    if quiet is None or not is_quiet(quiet, now_us):
        return now_us
    zone = _zone(quiet)
    today = datetime.fromtimestamp(now_us // SECOND_US, zone).date()
    before_us = now_us
    # A day more at either end: the local date may jump.
    for day in range(-1, _LONGEST_DAYS):
        for at_us in sorted(_boundaries(quiet, zone, today + timedelta(days=day))):
            if at_us <= before_us:
                continue
            # The clock may have been changed since the last boundary, and have left the quiet time.
            for moment_us in (*_changes(zone, before_us, at_us), at_us):
                if not is_quiet(quiet, moment_us):
                    return moment_us
            before_us = at_us
    raise UsageError(f"quiet: expected an end within {_LONGEST_DAYS} days, got none")


def _zone(quiet: Quiet) -> tzinfo:
    return UTC if quiet.timezone == "UTC" else ZoneInfo(quiet.timezone)  # UTC needs no database


def _boundaries(quiet: Quiet, zone: tzinfo, day: date) -> Iterator[int]:
    """When the local time shows midnight, and either end of the hours; twice where it does so twice."""
    for minute in {0, *(m % MIDNIGHT for m in quiet.hours or ())}:
        for fold in (0, 1):
            local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone, fold=fold)
            yield round(local.timestamp()) * SECOND_US


def _changes(zone: tzinfo, after_us: int, until_us: int) -> Iterator[int]:
    """The moment in (after, until] at which the clock is changed, if there is one; to the second."""
    low, high = after_us // SECOND_US, until_us // SECOND_US
    offset = _offset(zone, low)
    if _offset(zone, high) == offset:
        return
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    if after_us < high * SECOND_US < until_us:
        yield high * SECOND_US


def _offset(zone: tzinfo, at_s: int) -> timedelta | None:
    return datetime.fromtimestamp(at_s, zone).utcoffset()
