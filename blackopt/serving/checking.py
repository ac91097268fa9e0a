"""What a module makes of an artifact, once, before it takes effect; or why it will not serve it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from blackopt.serving.answers import Refused
from blackopt.serving.live import Assignment
from blackopt.types import Artifact

T = TypeVar("T")

_log = logging.getLogger("blackopt.serving")


def checked(
    campaign: str,
    wanted: Assignment[None],
    accept: Callable[[Artifact], object],
    load: Callable[[Artifact], T],
) -> Assignment[T] | Refused:
    """The assignment with its value, or the refusal of the module's own code, whatever that raises."""
    try:
        accept(wanted.artifact)
        return Assignment(wanted.arm, wanted.window, wanted.artifact, load(wanted.artifact))
    except Refused as refused:
        return refused
    except Exception as error:  # noqa: BLE001 - the module's code: whatever it raises, it cannot vouch for this
        _log.exception("%s of campaign %s: the module's check failed", wanted.arm or "incumbent", campaign)
        return Refused(f"the module's check failed with {type(error).__name__}: {error}")
