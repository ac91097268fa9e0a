"""One line of the log of exposures: who was served what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from blackopt.errors import UsageError


class Exposure(NamedTuple):
    """One line of the log.

    Attributes:
        id: of the line, the same wherever it is written twice.
        campaign, window, arm, unit: who was served what.
        time: in microseconds since 1970, UTC.
        version: of the centre; None where a whole model was served.
        key: of the noise, in decimal, since it may be beyond the whole numbers that SQL or JSON hold; None
            without noise.
        sign: of the noise, 1 or -1; None without.
        outcome: what the module logged with it, as a JSON object; None without.
    """

    id: str
    campaign: str
    window: int
    arm: str
    unit: str
    time: int
    version: int | None = None
    key: str | None = None
    sign: int | None = None
    outcome: str | None = None

    def to_json(self) -> dict[str, object]:
        """Fields by name, the outcome as an object."""
        return {**self._asdict(), "outcome": None if self.outcome is None else json.loads(self.outcome)}


def outcome_text(outcome: Mapping[str, object]) -> str | None:
    """What a module logs with an exposure, as JSON; None where that is nothing.

    Raises:
        UsageError: it is nothing that JSON has; numbers of numpy are taken.
    """
    if not outcome:
        return None
    try:
        return json.dumps(outcome, allow_nan=False, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise UsageError(f"log: expected finite numbers, texts, lists and objects: {error}") from error


def _plain(value: Any) -> object:
    if hasattr(value, "tolist"):  # an array or a number of numpy
        plain: object = value.tolist()
        return plain
    raise TypeError(f"{type(value).__name__} is nothing that JSON has")
