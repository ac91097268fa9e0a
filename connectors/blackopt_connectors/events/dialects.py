"""How SQLite and DuckDB spell what the queries need; everything else of them is the same text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal

from blackopt_connectors.events.options import EventsOptions, TimeUnit

_FACTOR = {"us": 1, "ms": 1_000, "s": 1_000_000}


def quoted(name: str) -> str:
    """An identifier; a dot separates schema and table."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def literal(text: str) -> str:
    """A text constant."""
    return "'" + text.replace("'", "''") + "'"


class Dialect(ABC):
    """What differs between the databases."""

    name: Literal["sqlite", "duckdb"]
    division: str

    def table(self, name: str) -> str:
        """What stands after FROM."""
        return quoted(name)

    def column(self, name: str) -> str:
        """A column, whatever characters are in its name."""
        return '"' + name.replace('"', '""') + '"'

    @abstractmethod
    def variable(self, name: str) -> str:
        """A bound value."""

    @abstractmethod
    def time(self, column: str, unit: TimeUnit) -> str:
        """Microseconds UTC of a stored time; NULL where it is none."""

    @abstractmethod
    def number(self, column: str) -> str:
        """A finite number; NULL where it is none."""

    @abstractmethod
    def filled(self, column: str) -> str:
        """Whether a value is there and no empty text."""

    @abstractmethod
    def date(self, day: str) -> str:
        """ISO date of a day counted from 1970-01-01."""

    @abstractmethod
    def least(self, first: str, second: str) -> str:
        """The smaller of two numbers."""

    @abstractmethod
    def floor(self, number: str) -> str:
        """The largest whole number up to one that is not negative."""


class Sqlite(Dialect):
    """SQLite from 3.35, whose columns hold values of any type: a value of another type counts as none."""

    name = "sqlite"
    division = "/"

    def variable(self, name: str) -> str:
        return f":{name}"

    def time(self, column: str, unit: TimeUnit) -> str:
        if unit == "iso":
            # strftime rounds a fraction up into the next second: it is taken apart before.
            rest = (
                f"CASE WHEN instr({column}, '.') > 0 THEN ltrim(substr({column}, instr({column}, '.') + 1), "
            )
            rest += f"'0123456789') ELSE substr({column}, 20) END"
            whole = f"CAST(strftime('%s', substr({column}, 1, 19) || {rest}) AS INTEGER) * 1000000"
            digits = f"substr({column}, instr({column}, '.') + 1, 6)"
            micro = f"CAST(ROUND(CAST('0.' || {digits} AS REAL) * 1000000) AS INTEGER)"
            part = f"CASE WHEN instr({column}, '.') > 0 THEN {micro} ELSE 0 END"
            return f"CASE WHEN typeof({column}) = 'text' THEN {whole} + {part} END"
        if unit == "s":
            micro = f"CAST(ROUND({column} * 1000000) AS INTEGER)"
            return f"CASE WHEN typeof({column}) IN ('integer', 'real') THEN {micro} END"
        times = "" if unit == "us" else f" * {_FACTOR[unit]}"
        return f"CASE WHEN typeof({column}) = 'integer' THEN {column}{times} END"

    def number(self, column: str) -> str:
        return (
            f"CASE WHEN typeof({column}) IN ('integer', 'real') AND abs({column}) < 1e308 THEN {column} END"
        )

    def filled(self, column: str) -> str:
        return f"{column} <> ''"

    def date(self, day: str) -> str:
        return f"date({day} * 86400, 'unixepoch')"

    def least(self, first: str, second: str) -> str:
        return f"min({first}, {second})"

    def floor(self, number: str) -> str:
        return f"CAST({number} AS INTEGER)"


class Duckdb(Dialect):
    """DuckDB, whose columns have types; also over a folder of Parquet or CSV files."""

    name = "duckdb"
    division = "//"

    def __init__(self, reader: Literal["", "parquet", "csv"] = "", folder: Path = Path()) -> None:
        self._reader, self._folder = reader, folder

    def table(self, name: str) -> str:
        return f"read_{self._reader}({literal(str(self._folder / name))})" if self._reader else quoted(name)

    def variable(self, name: str) -> str:
        return f"${name}"

    def time(self, column: str, unit: TimeUnit) -> str:
        if unit == "iso":  # through text, so that timestamps of every kind and texts read alike
            return f"epoch_us(TRY_CAST(CAST({column} AS VARCHAR) AS TIMESTAMP))"
        if unit == "s":
            return f"CAST(ROUND({column} * 1000000) AS BIGINT)"
        return f"CAST({column} AS BIGINT)" + ("" if unit == "us" else f" * {_FACTOR[unit]}")

    def number(self, column: str) -> str:
        return f"CASE WHEN abs({column}) < 1e308 THEN CAST({column} AS DOUBLE) END"

    def filled(self, column: str) -> str:
        return f"CAST({column} AS VARCHAR) <> ''"

    def date(self, day: str) -> str:
        return f"strftime(DATE '1970-01-01' + CAST({day} AS INTEGER), '%Y-%m-%d')"

    def least(self, first: str, second: str) -> str:
        return f"least({first}, {second})"

    def floor(self, number: str) -> str:
        return f"CAST(floor({number}) AS BIGINT)"


def dialect_of(options: EventsOptions, base: Path) -> Dialect:
    """The dialect of the url.

    Args:
        options: of the source.
        base: directory that relative paths start from.
    """
    if options.dialect == "sqlite":
        return Sqlite()
    if options.scheme == "duckdb:///":
        return Duckdb()
    return Duckdb("parquet" if options.scheme == "parquet:///" else "csv", base / options.path)
