"""Calendar days of a time zone, as few rows of whole numbers that any SQL database can join.

SQLite knows no time zones, and a Python function called for each row would cost more than the query. A day
starts at ``day * 24 h - offset``, where ``day`` counts from 1970-01-01 and the offset changes twice a year in
most zones: one row for each stretch of days between two changes is all that a query needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from itertools import groupby
from zoneinfo import ZoneInfo

DAY_US = 86_400_000_000
_EPOCH = date(1970, 1, 1).toordinal()
_LAST = date.max.toordinal() - _EPOCH - 2


@dataclass(frozen=True, slots=True)
class Stretch:
    """Days that start at the same UTC time of day.

    Attributes:
        first_day, last_day: counted from 1970-01-01; both belong to it.
        offset_us: day d starts at ``d * DAY_US - offset_us``, in microseconds UTC.
        start_us, end_us: when the first day starts and the last one ends; the end is exclusive.
    """

    first_day: int
    last_day: int
    offset_us: int
    start_us: int
    end_us: int


def day_start(day: int, zone: ZoneInfo) -> int:
    """When a local day starts, in microseconds UTC; a midnight that happens twice is the first of both.

    A midnight that a change of clocks leaves out is the moment of the change, and so is that of a whole day
    which was left out: nothing happens on such a day.
    """
    midnight = datetime.combine(date.fromordinal(day + _EPOCH), time(), tzinfo=zone)
    return round(midnight.astimezone(UTC).timestamp()) * 1_000_000


def stretches(zone: ZoneInfo, first_us: int, last_us: int) -> list[Stretch]:
    """The stretches of every day that has a moment of ``first_us..last_us``, and of one more on either side.

    Args:
        zone: where days are counted.
        first_us, last_us: microseconds UTC.
    """
    days = range(first_us // DAY_US - 2, min(last_us // DAY_US + 3, _LAST))
    return [
        Stretch(start, last, offset, start * DAY_US - offset, day_start(last + 1, zone))
        for offset, start, last in _grouped((day, day * DAY_US - day_start(day, zone)) for day in days)
    ]


def _grouped(days: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    for offset, group in groupby(days, key=lambda pair: pair[1]):
        numbers = [day for day, _ in group]
        yield offset, numbers[0], numbers[-1]
