"""What the runner tells whoever watches: one notice for one thing that happened, never a log format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from blackopt.errors import RetriableError


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


SHOWN = 16
"""Arms that are told of one by one; more of them in one step are one notice."""


def announce(notify: Notify, notices: Sequence[Notice]) -> None:
    """Tell of what happened to many arms in one step: a line for each, or one for all of them."""
    if len(notices) <= SHOWN:
        for notice in notices:
            notify(notice)
        return
    first, last = notices[0], notices[-1]
    text = f"{len(notices)} arms: {first.text} ... {last.text}"
    notify(Notice(first.kind, text, {"arms": len(notices)}))


@dataclass
class Troubles:
    """Temporary failures of one turn: told to whoever watches, and counted for the exit code."""

    notify: Notify
    count: int = 0

    def add(self, step: str, error: RetriableError) -> None:
        """One step failed for now, and is due again."""
        self.count += 1
        about = "; ".join(part for part in (error.where, error.why) if part)
        self.notify(Notice("trouble", f"{step}: {error.what}" + (f" ({about})" if about else "")))
