"""Data on stdout, a table for people and JSON for programs; words on stderr."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import typer

from blackopt.diagnostics import printable


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"


def complain(error: Exception) -> None:
    """An error on stderr."""
    say(f"error: {error}")


def say(text: str) -> None:
    """On stderr, without what could drive a terminal: causes may quote what a server answered."""
    typer.echo("\n".join(printable(line) for line in text.splitlines()), err=True)


def as_json(data: object) -> None:
    """One JSON document."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def as_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; numbers to the right."""
    cells = [[cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    right = [_is_numeric([row[i] for row in rows]) for i in range(len(columns))]
    for line in [list(columns), *cells]:
        parts = [
            text.rjust(w) if r else text.ljust(w) for text, w, r in zip(line, widths, right, strict=True)
        ]
        typer.echo("  ".join(parts).rstrip())


def as_list(pairs: Mapping[str, object]) -> None:
    """One line a fact."""
    width = max(len(name) for name in pairs)
    for name, value in pairs.items():
        typer.echo(f"{name.ljust(width)}  {cell(value)}")


def cell(value: object) -> str:
    """A value for people: floats with six digits, no character that could drive a terminal."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(cell(v) for v in value) + "]"
    return printable(str(value))


def utc(at_us: int) -> str:
    """A time to the second, for people."""
    return f"{datetime.fromtimestamp(at_us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"


def iso(at_us: int) -> str:
    """A time for programs: ISO 8601 with its offset."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat()


def plural(n: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _is_numeric(values: Sequence[object]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(_is_number(value) for value in known)


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return value.endswith(" %")
    return isinstance(value, int | float) and not isinstance(value, bool)
