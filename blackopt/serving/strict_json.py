"""JSON as the protocol means it: UTF-8, no NaN or Infinity, no name twice, no numbers beyond a double."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import NoReturn


def parse(raw: bytes) -> object:
    """The value that the bytes spell.

    Raises:
        ValueError: whatever is wrong with them, in one line.
    """
    try:
        value: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members: dict[str, object] = {}
    for name, value in pairs:
        # Parsers differ in which of the two they keep, so sender and receiver could mean different orders.
        if name in members:
            raise ValueError(f"the name {name!r} occurs twice in one object")
        members[name] = value
    return members


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} does not fit into a double")
    return value
