"""``schedule.quiet``: hours and days at which nothing new is started, in somebody's local time."""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Literal, TypeAlias
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from blackopt.campaign.base import Section, derived
from blackopt.diagnostics import suggest

Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]

WEEK: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""Monday first, as :meth:`datetime.date.weekday` counts."""

MIDNIGHT = 24 * 60
"""Minutes of a day."""

_CLOCK = r"([01][0-9]|2[0-4]):([0-5][0-9])"
_HOURS = re.compile(rf"{_CLOCK}\s*-\s*{_CLOCK}", re.ASCII)


def _wrong(message: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError("quiet", "{message}", {"message": message, "hint": hint})


def parse_hours(value: object) -> tuple[int, int]:
    """Minutes after midnight of ``20:00-08:00``: where it begins, and where it ends, maybe a day later.

    Raises:
        PydanticCustomError: not two times of day, or nothing or everything between them.
    """
    match = _HOURS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _wrong("must be two times of a day", 'such as "20:00-08:00"')
    begin, end = (60 * int(match[n]) + int(match[n + 1]) for n in (1, 3))
    if max(begin, end) > MIDNIGHT:
        raise _wrong(f"`{match.group()}` is later than 24:00", 'such as "20:00-08:00"')
    if begin % MIDNIGHT == end % MIDNIGHT:
        raise _wrong(f"`{match.group()}` is all of a day, or nothing", "name `days` for whole days")
    return begin % MIDNIGHT, end


def format_hours(hours: tuple[int, int]) -> str:
    """``20:00-08:00``. Inverse of :func:`parse_hours`."""
    return "-".join(f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in hours)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name == "UTC":
        return name  # needs no database
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: a directory, such as Europe
        if not _zones():
            hint = "this machine has no time zones: pip install tzdata"
        else:
            hint = suggest(name, _zones()) or "a name such as Europe/Berlin or UTC"
        raise _wrong(f"`{name}` is not a time zone", hint) from error
    return name


def _each_once(days: tuple[Day, ...]) -> tuple[Day, ...]:
    if len(set(days)) < len(days):
        raise _wrong("names a day twice", "each once")
    if set(days) == set(WEEK):
        raise _wrong("is every day: nothing would ever start", "leave a day out")
    return tuple(sorted(days, key=WEEK.index))


Hours = Annotated[
    tuple[int, int],
    PlainValidator(parse_hours),
    PlainSerializer(format_hours),
    WithJsonSchema(
        {
            "type": "string",
            "title": "hours",
            "pattern": rf"^\s*{_CLOCK}\s*-\s*{_CLOCK}\s*$",
            "examples": ["20:00-08:00"],
        }
    ),
]
"""Minutes after midnight, 0 to 1439 and 0 to 1440, never the same time of day."""


class Quiet(Section):
    """When nothing new is started: no window, no step of a ramp, no adoption. What runs goes on: candidates
    are polled, guarded and withdrawn at any time. At least one of `hours` and `days`; with both, either is
    quiet."""

    hours: Hours | None = None
    """From one time of day to another, past midnight where the second is the earlier one."""

    days: Annotated[tuple[Day, ...], Field(min_length=1), AfterValidator(_each_once)] | None = Field(
        default=None, json_schema_extra=derived
    )
    """Whole days, from midnight to midnight."""

    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    """Whose time that is, as the time zone database names it."""

    @model_validator(mode="after")
    def _something(self) -> Quiet:
        if self.hours is None and self.days is None:
            raise _wrong("needs `hours` or `days`", 'such as hours: "20:00-08:00"')
        return self
