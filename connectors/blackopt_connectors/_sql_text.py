"""Where in the text of a query something stands: SQLite names what it does not like, and no line.

No SQL is parsed here. Comments and literals are blanked, and a word counts as found only where that leaves
one line to name; otherwise it is the line on which the statement begins.
"""

from __future__ import annotations

import re

_APART = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)|'(?:[^']|'')*'", re.DOTALL)
_WORD = re.compile(r"[(),;]|\w+")
_NAMED = re.compile(r"no such (?:column|table|function): (\S+)|ambiguous column name: (\S+)|near \"(.+?)\":")


def statement_line(sql: str) -> int:
    """The line of the outermost SELECT, after its CTEs; else of the first word; 1 where there is none."""
    text, depth, first = _code(sql), 0, 0
    for match in _WORD.finditer(text):
        word = match.group()
        depth += (word == "(") - (word == ")")
        first = first or _line(text, match.start())
        if depth == 0 and word.upper() == "SELECT":
            return _line(text, match.start())
    return first or 1


def column_line(sql: str, column: str) -> int:
    """The line that gives a column of the result its name: the last ``AS column``, or the column itself."""
    text, name = _code(sql), re.escape(column)
    for pattern in (rf"\bAS\s+[\"`\[]?({name})\b", rf"(?<!\w)({name})(?!\w)"):
        found = list(re.finditer(pattern, text, re.IGNORECASE))
        if found:
            return _line(text, found[-1].start(1))
    return statement_line(sql)


def complaint_line(sql: str, complaint: str) -> int:
    """The line of what a message of SQLite names, where it stands on one line only."""
    match = _NAMED.search(complaint)
    if match is not None:
        text = _code(sql)
        word = re.escape(next(group for group in match.groups() if group))
        lines = {_line(text, m.start()) for m in re.finditer(rf"(?<!\w){word}(?!\w)", text)}
        if len(lines) == 1:
            return lines.pop()
    return statement_line(sql)


def _code(sql: str) -> str:
    """The text with comments and literals blanked; every character stays on its line."""
    return _APART.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), sql)


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
