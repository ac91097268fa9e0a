"""What the module answers, and the error that carries a negative answer to the edge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Self

from blackopt.errors import TrialError
from blackopt.types import Outcome

UNAVAILABLE = "unavailable"
"""Beside :class:`~blackopt.types.Outcome`, for HTTP only: not applied now, send the order again later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a JSON body (bytes, ``application/json``)."""

    status: int
    body: bytes

    @classmethod
    def of(cls, status: int, outcome: str, detail: str = "") -> Self:
        """``{"outcome": …, "detail": …}``."""
        return cls(status, json.dumps({"outcome": str(outcome), "detail": detail}).encode())


class Rejected(TrialError):
    """An order was answered with anything but 200; never leaves :meth:`blackopt.serving.Arms.handle`.

    Args:
        status: HTTP status.
        detail: ``<code>: <sentence>``; docs/protocol.md lists the codes.
        outcome: ``refused`` (never applied) or ``unavailable`` (not applied now).
    """

    def __init__(self, status: int, detail: str, *, outcome: str = Outcome.REFUSED) -> None:
        super().__init__(detail)
        self.answer = Answer.of(status, outcome, detail)


class Refused(TrialError):
    """Raised by the module's own check: it will not serve this artifact.

    Args:
        reason: one sentence for the person who reads the campaign's report.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
