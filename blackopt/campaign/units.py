"""Values that carry their unit: durations, shares of traffic, and bounds that may refer to the control.

Each is written as text in the campaign and held exactly: durations as integer microseconds, shares as integer
millionths. A number without a unit is refused, because a reader cannot tell 30 seconds from 30 days.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import isfinite
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

UNITS_US = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
}
LONGEST_US = 36_500 * UNITS_US["d"]
MILLION = 1_000_000

_NUMBER = r"\d{1,15}(?:\.\d{1,15})?"
_PIECE = re.compile(rf"({_NUMBER})\s*(w|d|h|ms|us|m|s)(?![a-z])", re.ASCII)
_SHARE = re.compile(rf"({_NUMBER})\s*%", re.ASCII)
_FACTOR = r"[-+]?(?:\d{1,15}\.?\d{0,15}|\.\d{1,15})(?:[eE][-+]?\d{1,3})?"
_TIMES_CONTROL = re.compile(
    rf"(?P<before>{_FACTOR})\s*\*\s*control|control(?:\s*\*\s*(?P<after>{_FACTOR}))?", re.ASCII
)

_DURATION_PATTERN = r"^\s*([0-9]+(\.[0-9]+)?\s*(w|d|h|m|s|ms|us)\s*)+$"
_SHARE_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*%\s*$"


def _wrong(kind: str, message: str, hint: str) -> PydanticCustomError:
    return PydanticCustomError(kind, "{message}", {"message": message, "hint": hint})


def parse_duration(value: object) -> int:
    """Microseconds of ``14d``, ``1h30m``, ``250 ms``; units from weeks to microseconds, largest first.

    Raises:
        PydanticCustomError: not a duration; its context has a ``hint``.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _wrong("duration", "must be a duration", "such as 15m, 1d or 1h30m")
    text = str(value).strip()
    if not isinstance(value, str) or re.fullmatch(_NUMBER, text):
        raise _wrong("duration", f"{text} has no unit", f"write {text}s, {text}m, {text}h or {text}d")
    total, at, units = Fraction(0), 0, list(UNITS_US)
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None or piece.group(2) not in units:
            raise _wrong(
                "duration", f"`{text}` is not a duration", "units are w, d, h, m, s, ms, us, as in 1h30m"
            )
        total += Fraction(piece.group(1)) * UNITS_US[piece.group(2)]
        units = units[units.index(piece.group(2)) + 1 :]
        at = piece.end() + len(text[piece.end() :]) - len(text[piece.end() :].lstrip())
    if not text:
        raise _wrong("duration", "must be a duration", "such as 15m, 1d or 1h30m")
    if total.denominator != 1:
        raise _wrong("duration", f"`{text}` is finer than a microsecond", "round it")
    if total > LONGEST_US:
        raise _wrong("duration", f"`{text}` is longer than a century", "")
    return int(total)


def format_duration(us: int) -> str:
    """Text with whole units: ``1h30m``; ``0s`` for nothing. Inverse of :func:`parse_duration`."""
    text = ""
    for unit, size in UNITS_US.items():
        if unit != "w" and us >= size:
            text += f"{us // size}{unit}"
            us %= size
    return text or "0s"


def parse_share(value: object) -> int:
    """Millionths of ``60%`` or ``12.5 %``; at most four decimals.

    Raises:
        PydanticCustomError: not a share, or above 100%; its context has a ``hint``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        percent = value * 100 if 0 <= value <= 1 else value
        raise _wrong(
            "share", f"{value} has no unit", f"write {percent:.6g}%" if isfinite(percent) else "write 60%"
        )
    match = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _wrong("share", "must be a share of traffic", "such as 60% or 12.5%")
    millionths = Fraction(match.group(1)) * (MILLION // 100)
    if millionths > MILLION:
        raise _wrong("share", f"{match.group()} is more than everything", "at most 100%")
    if millionths.denominator != 1:
        raise _wrong(
            "share", f"{match.group()} is finer than a millionth of the traffic", "at most four decimals"
        )
    return int(millionths)


def format_share(millionths: int) -> str:
    """``60%`` for 600000. Inverse of :func:`parse_share`."""
    whole, rest = divmod(millionths, MILLION // 100)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".") + "%"


def check_bound(value: object) -> str | float:
    """A guardrail's bound as it is kept: ``1.05 * control``, or a number in the metric's units.

    Raises:
        PydanticCustomError: anything else, or a factor that is not above 0; its context has a ``hint``.
    """
    hint = 'such as 0.02 or "1.05 * control"'
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _TIMES_CONTROL.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise _wrong("bound", "must be a number, or a multiple of the control", hint)
    factor = float(match["before"] or match["after"] or 1.0)
    if not isfinite(factor) or factor <= 0:
        raise _wrong("bound", "the control's factor must be finite and above 0", hint)
    return f"{factor!r} * control"


def parse_spread(value: object) -> float:
    """A standard deviation: ``0.02`` for ``2%``, or a number of at least 0 as it is.

    Raises:
        PydanticCustomError: anything else; its context has a ``hint``.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0:
        return float(value)
    if isinstance(value, str) and _SHARE.fullmatch(value.strip()):
        return parse_share(value) / MILLION
    raise _wrong("spread", "must be a share, or a number of at least 0", "such as 2% or 0.02")


def whole_weeks(duration_us: int) -> int:
    """The least multiple of 7 days that is as long as a duration, in microseconds."""
    return -(-duration_us // UNITS_US["w"]) * UNITS_US["w"]


def _positive_duration(us: int) -> int:
    if us == 0:
        raise _wrong("duration", "must be longer than nothing", "")
    return us


def _positive_share(millionths: int) -> int:
    if millionths == 0:
        raise _wrong("share", "must be more than 0%", "")
    return millionths


Duration = Annotated[
    int,
    PlainValidator(parse_duration),
    PlainSerializer(format_duration),
    WithJsonSchema(
        {"type": "string", "title": "duration", "pattern": _DURATION_PATTERN, "examples": ["14d", "1h30m"]}
    ),
]
"""Integer microseconds, >= 0."""

PositiveDuration = Annotated[Duration, AfterValidator(_positive_duration)]
"""Integer microseconds, > 0."""

Share = Annotated[
    int,
    PlainValidator(parse_share),
    PlainSerializer(format_share),
    WithJsonSchema(
        {"type": "string", "title": "share", "pattern": _SHARE_PATTERN, "examples": ["60%", "12.5%"]}
    ),
]
"""Integer millionths, 0 to 1000000."""

PositiveShare = Annotated[Share, AfterValidator(_positive_share)]
"""Integer millionths, 1 to 1000000."""

Limit = Annotated[
    str | float,
    PlainValidator(check_bound),
    WithJsonSchema({"type": ["number", "string"], "title": "bound", "examples": [0.02, "1.05 * control"]}),
]
"""A number, or text of the form ``1.05 * control``."""

Spread = Annotated[
    float,
    PlainValidator(parse_spread),
    WithJsonSchema({"type": ["number", "string"], "title": "share or number", "examples": ["2%", 0.02]}),
]
"""A number of at least 0; a share as its fraction."""
