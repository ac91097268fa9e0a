"""Problems of an input file: each points at ``file:line:column``, all are collected before any is raised."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""Where a value sits in a document: keys of mappings, indices of sequences; () is the document itself."""

EXCERPT_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        file: name of the file as the user gave it.
        line, column: 1-based; 0 where there is no text (a mapping from Python, a file that cannot be read).
        path: dotted key path, e.g. ``guardrails[0].at_most``; "" for the document itself.
        message: what is wrong, without the path.
        hint: what to write instead, or "".
        excerpt: the source line, or "" where it must not or cannot be shown.
    """

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        text = ": ".join(part for part in (place, self.path, self.message) if part)
        text = printable(f"{text} ({self.hint})" if self.hint else text)
        return f"{text}\n{self._pointer()}" if self.excerpt and self.line else text

    def _pointer(self) -> str:
        """The source line with a caret under the column; of a long line, the part around it."""
        start = max(0, self.column - EXCERPT_WIDTH // 2) if len(self.excerpt) > EXCERPT_WIDTH else 0
        line = printable(self.excerpt[start : start + EXCERPT_WIDTH].replace("\t", " "), width=1)
        return f"    | {line}\n    | {' ' * (self.column - 1 - start)}^"


def printable(text: str, *, width: int = 0) -> str:
    """The text without characters that could drive a terminal.

    Args:
        text: anything, possibly from a hostile file.
        width: 1 replaces each by one character, so that columns stay; 0 writes its escape.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" if width else repr(c)[1:-1] for c in text
    )


def dotted(path: KeyPath) -> str:
    """``("guardrails", 0, "metric")`` as ``guardrails[0].metric``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(word: str, known: Iterable[str]) -> str:
    """``did you mean `window`?`` for the closest known word, or "" where none is close."""
    by_folded = {name.lower().replace("-", "_"): name for name in sorted(known, reverse=True)}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_folded, n=1, cutoff=0.6)
    return f"did you mean `{by_folded[close[0]]}`?" if close else ""
