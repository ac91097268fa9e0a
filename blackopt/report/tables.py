"""Tables as HTML. Cells are HTML already: whoever fills one has escaped what came from outside."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head as text, numbers to the right, or wide enough to break its lines."""

    head: str
    number: bool = False
    wide: bool = False

    @property
    def style(self) -> str:
        """The attribute of its cells."""
        return " class='n'" if self.number else " class='wide'" if self.wide else ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """Columns and rows; scrolls sideways inside the page where they do not fit."""
    head = "".join(f"<th scope='col'{column.style}>{escape(column.head)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{c.style}>{cell}</td>" for c, cell in zip(columns, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def details(summary: str, body: str, *, is_open: bool) -> str:
    """Something that can be folded away."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{body}</details>"
