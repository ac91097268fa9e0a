"""Option types that several connectors share."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(us|ms|s|m|h|d)")


def _seconds(value: object) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration with its unit, such as 200ms, 15s or 5m")
    return float(match[1]) * _UNITS_S[match[2]]


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0, le=30 * 86400),
    WithJsonSchema({"type": "string", "pattern": rf"^{_DURATION.pattern}$", "examples": ["200ms", "15s"]}),
]
"""A positive duration: written with its unit (or a timedelta), held in seconds."""
