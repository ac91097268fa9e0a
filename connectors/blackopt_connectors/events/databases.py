"""Read-only sessions with a database: open, look at columns, run one query within a time."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from blackopt.errors import BlackoptError, ConfigurationError, RetriableError
from blackopt_connectors.events.options import EventsOptions

Row: TypeAlias = dict[str, Any]

_STEPS = 10_000  # virtual machine instructions of SQLite between two looks at the time
_BUSY = (
    *("SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR"),
    *("SQLITE_CORRUPT", "SQLITE_PROTOCOL", "SQLITE_NOTADB"),
)


class Database(ABC):
    """A session that only reads. Use as a context manager: what it reads in one session is one snapshot."""

    def __init__(self, options: EventsOptions, base: Path) -> None:
        self.options, self.path = options, base / options.path
        self.shown = f"{options.scheme}{options.path}"

    @abstractmethod
    def session(self) -> Any:
        """A context manager around :meth:`rows` and :meth:`columns`."""

    @abstractmethod
    def rows(self, text: str, values: Mapping[str, object], where: str) -> list[Row]:
        """Every row of a query, with the values that it binds.

        Raises:
            RetriableError: the database cannot be read now, or the query took too long.
            ConfigurationError: the query cannot be run.
        """

    def columns(self, table: str, expression: str) -> dict[str, str]:
        """The columns of a table and the type of each, in lower case ("" where it has no row to tell).

        Args:
            table: as the campaign names it.
            expression: what stands after FROM.

        Raises:
            ConfigurationError: there is no such table.
        """
        try:
            return self._columns(expression)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"there is no table {table!r}",
                where=self.shown,
                why=f"it has {self._tables() or 'none'}" if self._tables() else error.why,
                safe="nothing was read or written",
                next_step="compare `table` with what is there, then run `blackopt check`",
            ) from error

    @abstractmethod
    def _columns(self, expression: str) -> dict[str, str]: ...

    @abstractmethod
    def _tables(self) -> str: ...

    def gone(self, why: str) -> RetriableError:
        """The database cannot be read now."""
        return RetriableError(
            "the database cannot be read now",
            where=self.shown,
            why=why if self.path.exists() else "there is no such file",
            safe="nothing was written; what was read before is good",
            next_step="check the path if the file should be there by now",
        )

    def slow(self, where: str) -> RetriableError:
        """A query took longer than it may."""
        return RetriableError(
            "the query took too long",
            where=where,
            why=f"more than {self.options.timeout:g} s",
            safe="nothing was written",
            next_step="add an index on the events' name and time, or raise `timeout`",
        )

    def wrong(self, error: Exception, where: str) -> ConfigurationError:
        """A query cannot be run."""
        return ConfigurationError(
            "the query cannot be run",
            where=f"{where} in {self.shown}",
            why=str(error).strip().splitlines()[0],
            safe="nothing was read or written",
            next_step="compare tables, columns and `time_unit` with the database, then run `blackopt check`",
        )


class SqliteDatabase(Database):
    """A SQLite file, never created and never written."""

    _connection: sqlite3.Connection

    @contextmanager
    def session(self) -> Iterator[None]:
        """One read transaction."""
        uri = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        try:
            connection = sqlite3.connect(
                uri, uri=True, timeout=self.options.busy_timeout, isolation_level=None
            )
        except sqlite3.Error as error:
            raise self.gone(str(error)) from error
        connection.row_factory = sqlite3.Row
        self._connection = connection
        try:
            self._run("BEGIN", {}, "the database")
            yield
        finally:
            connection.close()

    def rows(self, text: str, values: Mapping[str, object], where: str) -> list[Row]:
        return [dict(row) for row in self._run(text, values, where)]

    def _run(self, text: str, values: Mapping[str, object], where: str) -> list[sqlite3.Row]:
        until = time.monotonic() + self.options.timeout
        self._connection.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
        try:
            return self._connection.execute(text, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error, where) from error

    def _failed(self, error: sqlite3.Error, where: str) -> BlackoptError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_INTERRUPT"):
            return self.slow(where)
        return self.gone(str(error)) if name.startswith(_BUSY) else self.wrong(error, where)

    def _columns(self, expression: str) -> dict[str, str]:
        try:
            cursor = self._connection.execute(f"SELECT * FROM {expression} LIMIT 0")  # quoted
        except sqlite3.Error as error:
            raise self._failed(error, expression) from error
        names = [column[0] for column in cursor.description]
        found = {}
        for name in names:
            column = '"' + name.replace('"', '""') + '"'
            text = f"SELECT typeof({column}) FROM {expression} WHERE {column} IS NOT NULL LIMIT 1"
            row = self._connection.execute(text).fetchone()
            found[name] = row[0] if row else ""
        return found

    def _tables(self) -> str:
        text = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name"
        return ", ".join(row["name"] for row in self._run(text, {}, "sqlite_master"))


class DuckdbDatabase(Database):
    """A DuckDB file, or a folder of Parquet or CSV files that DuckDB reads."""

    _connection: Any

    @contextmanager
    def session(self) -> Iterator[None]:
        """A connection of its own, whose sums come in one order."""
        duckdb = _duckdb()
        file = self.options.scheme == "duckdb:///"
        if not self.path.exists():
            raise self.gone("")
        try:
            # One thread: the order in which floats are added, and so their last bit, is the same each time.
            connection = duckdb.connect(
                str(self.path) if file else ":memory:", read_only=file, config={"threads": 1}
            )
        except duckdb.Error as error:
            raise self.gone(str(error).splitlines()[0]) from error
        self._connection = connection
        try:
            yield
        finally:
            connection.close()

    def rows(self, text: str, values: Mapping[str, object], where: str) -> list[Row]:
        duckdb = _duckdb()
        bound = {name: values[name] for name in set(re.findall(r"\$([a-z_]+)", text)) & values.keys()}
        clock = threading.Timer(self.options.timeout, self._connection.interrupt)
        clock.start()
        try:
            cursor = self._connection.execute(text, bound)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        except duckdb.InterruptException as error:
            raise self.slow(where) from error
        except duckdb.IOException as error:
            raise self.gone(str(error).splitlines()[0]) from error
        except duckdb.Error as error:
            raise self.wrong(error, where) from error
        finally:
            clock.cancel()
            clock.join()

    def _columns(self, expression: str) -> dict[str, str]:
        rows = self.rows(f"DESCRIBE SELECT * FROM {expression}", {}, expression)  # quoted
        return {row["column_name"]: row["column_type"].lower() for row in rows}

    def _tables(self) -> str:
        if self.options.scheme != "duckdb:///":
            return ", ".join(sorted(path.name for path in self.path.iterdir()))
        text = "SELECT table_name FROM information_schema.tables ORDER BY table_name"
        return ", ".join(row["table_name"] for row in self.rows(text, {}, "information_schema"))


def database(options: EventsOptions, base: Path) -> Database:
    """The database of the url."""
    return (SqliteDatabase if options.dialect == "sqlite" else DuckdbDatabase)(options, base)


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ConfigurationError(
            "DuckDB is not installed",
            where="measure.url",
            why="duckdb, parquet and csv are read through it",
            safe="nothing was read or written",
            next_step='pip install "blackopt[duckdb]"',
        ) from error
    return duckdb
