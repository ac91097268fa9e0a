"""Reads metrics with SQL that the operator wrote, from a database that is only ever read.

The text of a query is fixed; the campaign, the window and the arms reach it as bound variables. SQLite
today, by the scheme of the url; other databases have their own scheme.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import quote, unquote

from pydantic import AfterValidator, Field

from blackopt.errors import BlackoptError, ConfigurationError, RetriableError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import NoReading, Query, Reading
from blackopt_connectors._options import Seconds
from blackopt_connectors._rows import check_columns, reading
from blackopt_connectors._sql_text import column_line, complaint_line, statement_line

SCHEME = "sqlite:///"
PAGE = 1000
"""Rows fetched at once."""

VARIABLES = ("campaign", "arm", "window", "window_start", "window_end", "as_of")
"""What a query may bind, as ``:name``. Times are integer microseconds since 1970-01-01 UTC."""

_STEPS = 10_000  # virtual machine instructions between two looks at the time


def _check_url(url: str) -> str:
    if not url.startswith(SCHEME) or len(url) == len(SCHEME):
        scheme = url.partition(":")[0][:20]
        raise ValueError(f"no database of the scheme {scheme!r} can be read; supported: {SCHEME}<path>")
    if "?" in url or "#" in url:
        raise ValueError(f"the url has no parameters: {SCHEME}<path>")
    return url


class SqlOptions(PluginOptions):
    """Options of ``use: sql``."""

    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="sqlite:///relative.db (to the campaign file) or sqlite:////absolute.db"
    )
    max_rows: int = Field(1_000_000, ge=1, description="rows that one query may return")
    timeout: Seconds = Field(60.0, description="time that the database may spend on one query")
    busy_timeout: Seconds = Field(5.0, description="how long to wait for a writer's lock")


class SqlMetricOptions(PluginOptions):
    """What a metric says to ``use: sql``."""

    query: Path = Field(description="file with one SELECT, relative to the campaign file")


class SqlSource:
    """A :class:`blackopt.protocols.Source` over SQL.

    A query that uses ``:arm`` runs once for each arm; another runs once for each window and returns a column
    ``arm``. Its file is read anew for every poll, so that a query can be mended while candidates are live.
    """

    Options: ClassVar[type[PluginOptions]] = SqlOptions
    MetricOptions: ClassVar[type[PluginOptions]] = SqlMetricOptions

    def __init__(self, options: PluginOptions, metrics: Mapping[str, PluginOptions], *, base: Path) -> None:
        if not isinstance(options, SqlOptions):
            raise UsageError(f"options: expected SqlOptions, got {type(options).__name__}")
        self.options = options
        self._shown = unquote(options.url.removeprefix(SCHEME))
        self._path = base / self._shown
        self._metrics, self._base = dict(metrics), base
        for name in metrics:
            self._load(name)

    def check(self) -> str:
        """Compile every query against the database, without running any."""
        for name in self._metrics:
            self.columns(name)
        count = len(self._metrics)
        return f"{SCHEME}{self._shown}: {count} {'query compiles' if count == 1 else 'queries compile'}"

    def where(self, metric: str) -> str:
        """The file and line of the metric's SELECT."""
        return self._load(metric).shown

    def columns(self, metric: str) -> tuple[str, ...]:
        """The columns that the metric's query returns, which is compiled and not run.

        Raises:
            RetriableError: the database cannot be read now.
            ConfigurationError: the query cannot be compiled, or has other columns (``WrongColumns``).
        """
        text, probe = self._load(metric), Query("check", 0, ("check",), 0, 0, 0, (metric,))
        with closing(self._connect()) as connection:
            per_arm = self._uses_arm(connection, text, probe)
            # Executing only compiles: the first row is computed when it is fetched.
            with closing(
                self._execute(connection, text, _Bindings(probe, "check"), _Allowance(connection, 1.0))
            ) as cursor:
                return tuple(_columns(cursor, text, per_arm=per_arm))

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """Everything the database says about the query's arms, lazily: metric by metric, arm by arm, row by
        row.

        Raises:
            RetriableError: the database is missing, locked, damaged or too slow; rows before that are good.
            ConfigurationError: a query cannot be compiled, returns other columns, or too many rows.
        """
        unknown = [name for name in query.metrics if name not in self._metrics]
        if unknown:
            raise UsageError(f"query.metrics: expected names among {sorted(self._metrics)}, got {unknown}")
        return self._read(query)

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def _read(self, query: Query) -> Iterator[Reading | NoReading]:
        with closing(self._connect()) as connection:
            for name in query.metrics:
                text = self._load(name)
                if self._uses_arm(connection, text, query):
                    for arm in query.arms:
                        yield from self._run(connection, text, query, arm)
                else:
                    yield from self._run(connection, text, query, None)

    def _run(
        self, connection: sqlite3.Connection, text: _Text, query: Query, arm: str | None
    ) -> Iterator[Reading | NoReading]:
        allowance = _Allowance(connection, self.options.timeout)
        with closing(self._execute(connection, text, _Bindings(query, arm), allowance)) as cursor:
            columns = _columns(cursor, text, per_arm=arm is not None)
            number = 0
            while page := self._fetch(cursor, text, allowance):
                for row in page:
                    number += 1
                    if number > self.options.max_rows:
                        raise self._too_many(text)
                    yield _reading(text, query, arm, dict(zip(columns, row, strict=True)), number)

    def _load(self, metric: str) -> _Text:
        return _Text.load(metric, self._metrics[metric], self._base)

    def _connect(self) -> sqlite3.Connection:
        # mode=ro never creates the file and never writes it, whatever the query says.
        uri = f"file:{quote(str(self._path.absolute()))}?mode=ro"
        try:
            connection = sqlite3.connect(
                uri, uri=True, timeout=self.options.busy_timeout, isolation_level=None
            )
            try:
                # SQLite defines its JSON tables on first use, which the authorizer would refuse: use them
                # before it.
                connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')").close()
                connection.set_authorizer(_authorize)
            except sqlite3.Error:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise self._failed(error, self._shown) from error
        return connection

    def _uses_arm(self, connection: sqlite3.Connection, text: _Text, query: Query) -> bool:
        bindings = _Bindings(query, "")
        try:
            connection.execute(f"EXPLAIN {text.sql}", bindings).close()
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._failed(error, text.at(complaint_line(text.sql, str(error)))) from error
        return "arm" in bindings.used

    def _execute(
        self, connection: sqlite3.Connection, text: _Text, bindings: _Bindings, allowance: _Allowance
    ) -> sqlite3.Cursor:
        try:
            with allowance:
                return connection.execute(text.sql, bindings)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise self._failed(error, text.at(complaint_line(text.sql, str(error)))) from error

    def _fetch(self, cursor: sqlite3.Cursor, text: _Text, allowance: _Allowance) -> list[tuple[object, ...]]:
        try:
            with allowance:
                return cursor.fetchmany(PAGE)
        except sqlite3.Error as error:
            raise self._failed(error, text.at(complaint_line(text.sql, str(error)))) from error

    def _failed(self, error: Exception, where: str) -> BlackoptError:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_INTERRUPT"):
            return RetriableError(
                "the query took too long", where=where, why=f"more than {self.options.timeout:g} s"
            )
        if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and name.startswith(
            (
                "SQLITE_CANTOPEN",
                "SQLITE_BUSY",
                "SQLITE_LOCKED",
                "SQLITE_IOERR",
                "SQLITE_CORRUPT",
                "SQLITE_PROTOCOL",
            )
        ):
            return RetriableError(
                "the database cannot be read now",
                where=f"{SCHEME}{self._shown}",
                why=str(error) if self._path.exists() else "there is no such file",
                safe="nothing was written; what was read before is good",
                next_step="check the path if the file should be there by now",
            )
        return ConfigurationError(
            "the query cannot be run",
            where=where,
            why=f"{error}; it is one SELECT that may bind {', '.join(f':{name}' for name in VARIABLES)}",
            safe="nothing was read or written",
            next_step="mend the query, then run `blackopt check`",
        )

    def _too_many(self, text: _Text) -> ConfigurationError:
        return ConfigurationError(
            "the query returns too many rows",
            where=text.shown,
            why=f"more than max_rows: {self.options.max_rows}",
            safe="the rows before that are good",
            next_step="aggregate in the query (one row for each arm and cohort), or raise max_rows",
        )


class _Text:
    """The text of one metric's query; ``shown`` is its path as the campaign gives it, and its line."""

    def __init__(self, metric: str, path: str, sql: str) -> None:
        self.metric, self.path, self.sql = metric, path, sql
        self.shown = self.at(statement_line(sql))

    def at(self, line: int) -> str:
        """A line of it, for people."""
        return f"{self.path}:{line}"

    @classmethod
    def load(cls, metric: str, options: PluginOptions, base: Path) -> _Text:
        if not isinstance(options, SqlMetricOptions):
            raise UsageError(f"metrics[{metric!r}]: expected SqlMetricOptions, got {type(options).__name__}")
        try:
            sql = (base / options.query).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the query of {metric} cannot be read",
                where=str(options.query),
                why=(error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8",
                safe="nothing was read or written",
                next_step="compare `query` with the files beside the campaign",
            ) from error
        return cls(metric, str(options.query), sql)


class _Bindings(dict[str, object]):
    """Values of the variables; remembers which of them SQLite looked up, so that no SQL has to be parsed
    here.
    """

    def __init__(self, query: Query, arm: str | None) -> None:
        times = {"window_start": query.start_us, "window_end": query.end_us, "as_of": query.as_of_us}
        super().__init__({"campaign": query.campaign, "arm": arm, "window": query.window, **times})
        self.used: set[str] = set()

    def __getitem__(self, name: str) -> object:
        self.used.add(name)
        return super().__getitem__(name)


class _Allowance:
    """Time that a query may spend inside the database; what the reader does between two pages does not
    count.
    """

    def __init__(self, connection: sqlite3.Connection, seconds: float) -> None:
        self._connection, self._left_s, self._since = connection, seconds, 0.0

    def __enter__(self) -> None:
        self._since = time.monotonic()
        self._connection.set_progress_handler(self._over, _STEPS)

    def __exit__(self, *_: object) -> None:
        self._left_s -= time.monotonic() - self._since
        self._connection.set_progress_handler(None, _STEPS)

    def _over(self) -> int:
        return int(time.monotonic() - self._since > self._left_s)


def _authorize(
    action: int, _first: str | None, second: str | None, _database: str | None, _trigger: str | None
) -> int:
    reads = action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
    calls = action == sqlite3.SQLITE_FUNCTION and second != "load_extension"
    return sqlite3.SQLITE_OK if reads or calls else sqlite3.SQLITE_DENY


def _columns(cursor: sqlite3.Cursor, text: _Text, *, per_arm: bool) -> list[str]:
    columns = [str(column[0]) for column in cursor.description or ()]
    check_columns(
        columns,
        ("arm", "cohort", "as_of"),
        () if per_arm else ("arm",),
        f"the query of {text.metric}",
        lambda name: text.at(column_line(text.sql, name)) if name else text.shown,
    )
    return columns


def _reading(
    text: _Text, query: Query, arm: str | None, row: dict[str, object], number: int
) -> Reading | NoReading:
    where = f"{text.shown}, row {number}" + ("" if arm is None else f" of :arm = {arm}")
    served, cohort, as_of = row.pop("arm", arm), row.pop("cohort", ""), row.pop("as_of", query.as_of_us)
    if not isinstance(served, str):
        return NoReading(
            query.window, arm or "?", f"{text.metric}: {where}: arm is {served!r}, expected a text"
        )
    if not isinstance(as_of, int):
        return NoReading(
            query.window, served, f"{text.metric}: {where}: as_of is {as_of!r}, expected whole microseconds"
        )
    if row.get("n") == 0:
        # SUM over no rows is NULL in SQL, and zero here: an arm without units is known to have none.
        row = {name: 0 if value is None else value for name, value in row.items()}
    cohort = "" if cohort is None else str(cohort)
    return reading(text.metric, query.window, served, cohort, min(as_of, query.as_of_us), row, where)
