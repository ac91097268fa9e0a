"""What the runner tells whoever watches: one notice for one thing that happened, never a log format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that happened.

    Attributes:
        kind: stable word for programs: asked, live, withdrawn, told, breach, trouble, paused, done ...
        text: one line for people.
        data: numbers behind the line, JSON-able.
    """

    kind: str
    text: str
    data: Mapping[str, object] = field(default_factory=dict)


Notify: TypeAlias = Callable[[Notice], None]


def silent(_notice: Notice) -> None:
    """Nobody watches."""
