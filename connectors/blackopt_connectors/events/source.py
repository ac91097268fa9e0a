"""The source: looks at the tables, runs each metric's query, and says what could not be counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import NoReading, Query, Reading
from blackopt_connectors._rows import reading
from blackopt_connectors.events.databases import Database, Row, database
from blackopt_connectors.events.dialects import Dialect, dialect_of
from blackopt_connectors.events.options import EventsMetricOptions, EventsOptions, Exposures, Watermark
from blackopt_connectors.events.statistics import empty, statistics
from blackopt_connectors.events.text import QueryText

_WHOLE = ("int", "hugeint", "bigint")
_NUMBERS = (*_WHOLE, "real", "float", "double", "decimal")


class EventsSource:
    """A :class:`blackopt.protocols.Source` over a table of exposures and a table of events.

    One query for each metric gives the statistics of every arm and exposure day. Only units whose whole
    window has passed count; a unit that saw two arms of a window counts in none. What could not be counted
    is said in a :class:`~blackopt.types.NoReading` of arm ``"?"``.
    """

    Options: ClassVar[type[PluginOptions]] = EventsOptions
    MetricOptions: ClassVar[type[PluginOptions]] = EventsMetricOptions

    def __init__(self, options: PluginOptions, metrics: Mapping[str, PluginOptions], *, base: Path) -> None:
        if not isinstance(options, EventsOptions):
            raise UsageError(f"options: expected EventsOptions, got {type(options).__name__}")
        self.options, self.metrics = options, dict[str, EventsMetricOptions]()
        for name, metric in metrics.items():
            if not isinstance(metric, EventsMetricOptions):
                got = type(metric).__name__
                raise UsageError(f"metrics[{name!r}]: expected EventsMetricOptions, got {got}")
            self.metrics[name] = metric
        self._base = base
        self._dialect: Dialect = dialect_of(options, base)

    def check(self) -> str:
        """Look at tables and columns, and run every query on a window in which nothing happened."""
        probe = Query("check", 0, ("check",), 0, 1, 1, tuple(self.metrics))
        connection = self._database()
        with connection.session():
            self._inspect(connection)
            for name in self.metrics:
                self._rows(connection, name, probe)
        return f"{connection.shown}: {len(self.metrics)} metrics from {self.options.events.table}"

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """The statistics of every arm that is asked for, metric by metric, arm by arm, day by day.

        An arm without complete units has one reading with n = 0, as of the watermark.

        Raises:
            RetriableError: the database is missing, locked, damaged or too slow.
            ConfigurationError: a table or column is missing or of another type.
        """
        unknown = [name for name in query.metrics if name not in self.metrics]
        if unknown:
            raise UsageError(f"query.metrics: expected names among {sorted(self.metrics)}, got {unknown}")
        return self._read(query)

    def text(self, metric: str, *, first_us: int, last_us: int) -> str:
        """The query of a metric, as ``use: sql`` would take it.

        Args:
            metric: a declared name.
            first_us, last_us: exposures whose calendar days the query can name, in microseconds UTC.
        """
        return QueryText(self.options, self._dialect, first_us, last_us).metric(self.metrics[metric])

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def _database(self) -> Database:
        return database(self.options, self._base)

    def _read(self, query: Query) -> Iterator[Reading | NoReading]:
        connection = self._database()
        # Few rows, read at once: a reader that pauses between two of them holds up no writer.
        with connection.session():
            self._inspect(connection)
            facts = {
                exposures: self._facts(connection, query, exposures)
                for exposures in dict.fromkeys(self._exposures(name) for name in query.metrics)
            }
            found = {name: self._rows(connection, name, query) for name in query.metrics}
        for exposures, row in facts.items():
            yield from self._left_out(query, exposures, row)
        for name, rows in found.items():
            as_of_us = int(facts[self._exposures(name)]["as_of"])
            yield from self._readings(name, query, rows, as_of_us)

    def _readings(
        self, name: str, query: Query, rows: list[Row], as_of_us: int
    ) -> Iterator[Reading | NoReading]:
        metric = self.metrics[name]
        known = {arm: [row for row in rows if row["arm"] == arm] for arm in query.arms}
        unread = sum(int(row["unusable"]) for row in rows)
        if unread:
            table = self.options.events.table
            yield NoReading(query.window, "?", f"{name}: {unread} events in {table} have no number to add up")
        for stray in sorted({str(row["arm"]) for row in rows} - set(query.arms)):
            said = f"{name}: the window has no arm {stray}; its units are left out"
            yield NoReading(query.window, stray, said)
        for arm, own in known.items():
            if not own:
                yield Reading(name, query.window, arm, "", as_of_us, empty(metric))
            for number, row in enumerate(own, 1):
                stats = {column: _plain(row[column]) for column in statistics(metric)}
                where = f"{name} of {arm}, row {number}"
                yield reading(name, query.window, arm, row.get("cohort", ""), as_of_us, stats, where)

    def _left_out(self, query: Query, exposures: Exposures, row: Row) -> Iterator[NoReading]:
        if row["crossed"]:
            said = f"{row['crossed']} units in {exposures.table} saw two arms and count in none"
            yield NoReading(query.window, "?", said)
        if row["unusable"]:
            said = f"{row['unusable']} rows of {exposures.table} have no usable unit, arm or time"
            yield NoReading(query.window, "?", said)

    def _rows(self, connection: Database, name: str, query: Query) -> list[Row]:
        text = self._text(query).metric(self.metrics[name], unusable=True)
        return connection.rows(text, _bindings(query), f"the query of {name}")

    def _facts(self, connection: Database, query: Query, exposures: Exposures) -> Row:
        text = self._text(query).facts(exposures)
        return connection.rows(text, _bindings(query), exposures.table)[0]

    def _text(self, query: Query) -> QueryText:
        return QueryText(self.options, self._dialect, query.start_us, query.end_us)

    def _exposures(self, name: str) -> Exposures:
        return self.metrics[name].exposures or self.options.exposures

    def _inspect(self, connection: Database) -> None:
        """Compare tables and columns with what is there; a name that SQLite does not know is a text to it."""
        options, events = self.options, self.options.events
        kept = self._columns(connection, events.table)
        parts = [part for metric in self.metrics.values() for part in metric.parts.values()]
        anchored = [events.unit, events.name, *filter(None, [events.id])]
        values = sorted({part.value for part in parts if part.value is not None})
        self._require(kept, events.table, [*anchored, *values], ())
        self._require(kept, events.table, values, _NUMBERS)
        times = [(events.table, kept, [events.time, events.received])]
        for exposures in dict.fromkeys(self._exposures(name) for name in self.metrics):
            columns = self._columns(connection, exposures.table)
            named = [exposures.unit, exposures.arm, exposures.window, exposures.campaign]
            self._require(columns, exposures.table, [name for name in named if name], ())
            times.append((exposures.table, columns, [exposures.time, exposures.received]))
            self._same_units(exposures, columns[exposures.unit], kept[events.unit])
        if isinstance(options.watermark, Watermark):
            table = options.watermark.table
            times.append((table, self._columns(connection, table), [options.watermark.time]))
        expected = {"iso": ("text", "varchar", "timestamp", "date"), "s": _NUMBERS}.get(
            options.time_unit, _WHOLE
        )
        for table, columns, names in times:
            self._require(columns, table, [name for name in names if name], expected)

    def _columns(self, connection: Database, table: str) -> dict[str, str]:
        return connection.columns(table, self._dialect.table(table))

    def _require(
        self, columns: Mapping[str, str], table: str, names: list[str], types: tuple[str, ...]
    ) -> None:
        for name in names:
            kind = columns.get(name)
            if kind is None:
                what, why = f"table {table} has no column {name!r}", f"it has {', '.join(columns)}"
            elif kind and types and not any(word in kind for word in types):
                what = f"column {name!r} of {table} holds {kind}"
                why = f"expected {' or '.join(types)} (time_unit: {self.options.time_unit})"
            else:
                continue
            raise ConfigurationError(
                what,
                where=f"{self.options.scheme}{self.options.path}, {table}",
                why=why,
                safe="nothing was read or written",
                next_step="name the columns under `exposures` and `events`, then run `blackopt check`",
            )

    def _same_units(self, exposures: Exposures, shown: str, did: str) -> None:
        texts = [any(word in kind for word in ("text", "varchar")) for kind in (shown, did)]
        if shown and did and texts[0] != texts[1]:
            table = self.options.events.table
            raise ConfigurationError(
                f"units are {shown} in {exposures.table} and {did} in {table}",
                where=f"{self.options.scheme}{self.options.path}",
                why="no unit of one would ever be found in the other",
                safe="nothing was read or written",
                next_step="make both columns of one type, or name a view that does",
            )


def _bindings(query: Query) -> dict[str, object]:
    times = {"window_start": query.start_us, "window_end": query.end_us, "as_of": query.as_of_us}
    return {"campaign": query.campaign, "window": query.window, **times}


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
