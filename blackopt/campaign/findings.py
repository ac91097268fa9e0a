"""Collects the problems of one campaign, and knows where each key path stands in the text."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from blackopt.diagnostics import KeyPath, Problem, dotted, printable
from blackopt.errors import DiagnosticsError

SHOWN = 50
"""Problems that are reported; a file with more is wrong as a whole."""

FRAGMENT = 6
"""Characters of a secret that may not be shown even without the rest."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something begins: 1-based line and column; 0 where there is no text."""

    line: int = 0
    column: int = 0


@dataclass
class Findings:
    """What was found so far.

    Attributes:
        file: name that problems carry.
        lines: of the text; none where the campaign is a mapping from Python.
        keys, values: place of each key and of each value.
        broken: paths whose value could not be read, so that what follows from it is not reported as well.
    """

    file: str
    lines: list[str] = field(default_factory=list)
    keys: dict[KeyPath, Place] = field(default_factory=dict)
    values: dict[KeyPath, Place] = field(default_factory=dict)
    broken: set[KeyPath] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    _hidden: dict[str, str] = field(default_factory=dict, repr=False)
    _blanked: set[int] = field(default_factory=set)

    def add(
        self, path: KeyPath, message: str, hint: str = "", *, key: bool = False, breaks: bool = False
    ) -> None:
        """Report a problem of a path's value, or of its key; ``breaks``: nothing more is said about it."""
        self.add_at(self._place(path, key=key), path, message, hint)
        if breaks:
            self.broken.add(path)

    def add_at(self, place: Place, path: KeyPath, message: str, hint: str = "") -> None:
        """Report a problem of this very place."""
        excerpt = self.lines[place.line - 1] if 0 < place.line <= len(self.lines) else ""
        problem = Problem(self.file, place.line, place.column, dotted(path), message, hint, excerpt)
        if problem not in self.problems:
            self.problems.append(problem)

    def hide(self, value: str, shown_as: str) -> None:
        """From now on no problem quotes this value."""
        for form in {value, repr(value)[1:-1], json.dumps(value)[1:-1]}:
            self._hidden[form] = shown_as

    def blank(self, path: KeyPath) -> None:
        """No excerpt shows the lines of this value: it holds a secret in plain text."""
        place = self._place(path, key=False)
        after = [p.line for p in (*self.keys.values(), *self.values.values()) if p.line > place.line]
        self._blanked.update(range(place.line, min(after, default=len(self.lines) + 1)))

    def redact(self, text: str) -> str:
        """The text with its hidden values replaced; replaced whole where a part of one is left."""
        for value in sorted(self._hidden, key=len, reverse=True):
            if value:
                text = text.replace(value, self._hidden[value])
        folded = text.lower()
        for value in self._hidden:
            size = min(len(value), FRAGMENT)
            pieces = (value[i : i + size].lower() for i in range(len(value) - size + 1))
            shown = self._hidden[value].lower()
            if any(piece in folded and piece not in shown for piece in pieces):
                return "is not valid; the message is not shown because it quotes an interpolated value"
        return text

    def is_broken(self, path: KeyPath) -> bool:
        """Whether this value, or one that it is part of, could not be read."""
        return any(path[:n] in self.broken for n in range(len(path) + 1))

    def holds_broken(self, path: KeyPath) -> bool:
        """Whether this value, a part of it, or one that it is part of could not be read."""
        return self.is_broken(path) or any(broken[: len(path)] == path for broken in self.broken)

    def stop(self, what: str) -> None:
        """Raise everything that was found, in the order of the text; nothing if nothing was.

        Raises:
            DiagnosticsError: there are problems.
        """
        if not self.problems:
            return
        ordered = sorted(self.problems, key=lambda p: (p.line, p.column))
        shown = [self._without_blanked(problem) for problem in ordered[:SHOWN]]
        n = len(ordered)
        count = f"{n} problem{'s' if n > 1 else ''}" + (
            f", of which the first {SHOWN} are shown" if n > SHOWN else ""
        )
        text = f"{printable(what)}: {count}; nothing was started"
        raise DiagnosticsError(text, shown, next_step="mend the campaign and check it again")

    def _without_blanked(self, problem: Problem) -> Problem:
        if problem.line not in self._blanked:
            return problem
        return Problem(
            problem.file, problem.line, problem.column, problem.path, problem.message, problem.hint
        )

    def _place(self, path: KeyPath, *, key: bool) -> Place:
        """Of the path, or of the nearest thing around it that is in the text."""
        own = (self.keys if key else self.values).get(path)
        if own is not None:
            return own
        for n in range(len(path), -1, -1):
            place = self.keys.get(path[:n]) or self.values.get(path[:n])
            if place is not None:
                return place
        return Place()
