"""Data on stdout: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import typer


def as_json(data: object) -> None:
    """One JSON document."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def as_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    right = [all(_is_number(row[i]) for row in rows if row[i] is not None) and bool(rows) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        parts = [text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)]
        typer.echo("  ".join(parts).rstrip())


def as_list(pairs: Mapping[str, object]) -> None:
    """One line a fact."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        typer.echo(f"{name.ljust(width)}  {_cell(value)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_cell(v) for v in value) + "]"
    return str(value)
