"""Reads metrics from CSV files that something else writes or appends to."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, TextIO

from pydantic import Field

from blackopt.errors import ConfigurationError, RetriableError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import NoReading, Query, Reading
from blackopt_connectors._rows import check_columns, reading

_KEYS = ("metric", "arm", "window", "cohort", "as_of")


class CsvOptions(PluginOptions):
    """Options of ``use: csv``."""

    path: Path | None = Field(
        None, description="file of every metric that names none, relative to the campaign file"
    )


class CsvMetricOptions(PluginOptions):
    """What a metric says to ``use: csv``."""

    file: Path | None = Field(None, description="this metric's own file; its column `metric` may be left out")


class CsvSource:
    """A :class:`blackopt.protocols.Source` over CSV files.

    The header names the columns: ``metric`` (where the file is shared), ``arm``, ``window``, then any of
    ``cohort``, ``as_of`` (microseconds UTC) and statistics. An empty cell is no value. The whole file is
    read each time.
    """

    Options: ClassVar[type[PluginOptions]] = CsvOptions
    MetricOptions: ClassVar[type[PluginOptions]] = CsvMetricOptions

    def __init__(self, options: PluginOptions, metrics: Mapping[str, PluginOptions], *, base: Path) -> None:
        if not isinstance(options, CsvOptions):
            raise UsageError(f"options: expected CsvOptions, got {type(options).__name__}")
        self.options, self._base = options, base
        self._files: dict[str, tuple[Path, bool]] = {}
        for name, metric in metrics.items():
            if not isinstance(metric, CsvMetricOptions):
                raise UsageError(f"metrics[{name!r}]: expected CsvMetricOptions, got {type(metric).__name__}")
            path = metric.file or options.path
            if path is None:
                raise ConfigurationError(
                    f"the metric {name} has no file",
                    where=f"measure.metrics.{name}",
                    safe="nothing was read",
                    next_step="give the metric a `file`, or `measure` a `path`",
                )
            self._files[name] = (path, metric.file is None)

    def check(self) -> str:
        """Read the header of every file."""
        for path, shared in dict.fromkeys(self._files.values()):
            with self._open(path) as file:
                _header(csv.reader(_complete(file)), path, shared=shared)
        return f"{', '.join(sorted({str(path) for path, _ in self._files.values()}))}: columns are right"

    def where(self, metric: str) -> str:
        """The file and line of the header that names the metric's columns."""
        return f"{self._files[metric][0]}:1"

    def columns(self, metric: str) -> tuple[str, ...]:
        """The columns of the metric's file; none while it is empty.

        Raises:
            RetriableError: the file is missing or cannot be read.
            WrongColumns: the header is wrong.
        """
        path, shared = self._files[metric]
        with self._open(path) as file:
            return tuple(_header(csv.reader(_complete(file)), path, shared=shared))

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """The rows of the query's window that were known at its ``as_of_us``, in the order of the file.

        Raises:
            RetriableError: a file is missing or cannot be read.
            WrongColumns: a header is wrong.
        """
        unknown = [name for name in query.metrics if name not in self._files]
        if unknown:
            raise UsageError(f"query.metrics: expected names among {sorted(self._files)}, got {unknown}")
        return self._read(query)

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def _read(self, query: Query) -> Iterator[Reading | NoReading]:
        files: dict[tuple[Path, bool], list[str]] = {}
        for name in query.metrics:
            files.setdefault(self._files[name], []).append(name)
        for (path, shared), names in files.items():
            yield from self._read_file(path, names, query, shared=shared)

    def _read_file(
        self, path: Path, names: list[str], query: Query, *, shared: bool
    ) -> Iterator[Reading | NoReading]:
        with self._open(path) as file:
            lines = _complete(file)
            rows = csv.reader(lines, strict=True)
            header = _header(rows, path, shared=shared)
            while header:
                try:
                    cells = next(rows)
                except StopIteration:
                    break
                except csv.Error as error:
                    yield NoReading(query.window, "?", f"{path}:{rows.line_num}: {error}")
                    continue
                if cells:
                    for name in names:
                        yield from _parse(header, cells, name, query, f"{path}:{rows.line_num}")
            if lines.torn:
                where = f"{path}:{rows.line_num + 1}"
                yield NoReading(
                    query.window, "?", f"{where}: the last line has no line end: it may be half written"
                )

    def _open(self, path: Path) -> TextIO:
        try:
            return (self._base / path).open(encoding="utf-8-sig", errors="replace", newline="")
        except OSError as error:
            raise RetriableError(
                "the file of readings cannot be read now",
                where=str(path),
                why=error.strerror or str(error),
                safe="nothing was written",
                next_step="check the path if the file should be there by now",
            ) from error


class _complete:  # noqa: N801  # an iterator used like a function
    """The lines of a file without a last one that has no line end: half a number reads like a whole one."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.torn = file, False

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            if line.endswith(("\n", "\r")):
                yield line
            else:
                self.torn = True


def _header(rows: Iterator[list[str]], path: Path, *, shared: bool) -> list[str]:
    """The names of the columns; empty for an empty file, whose first rows are still to come."""
    header = [name.strip() for name in next(rows, [])]
    if header:
        required = ("metric", "arm", "window") if shared else ("arm", "window")
        check_columns(header, _KEYS, required, f"the header of {path}", lambda _: f"{path}:1")
    return header


def _parse(
    header: list[str], cells: list[str], name: str, query: Query, where: str
) -> Iterator[Reading | NoReading]:
    if len(cells) != len(header):
        yield NoReading(query.window, "?", f"{where}: {len(cells)} cells, the header has {len(header)}")
        return
    row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
    if row.pop("metric", name) != name:
        return
    arm, cohort = row.pop("arm"), row.pop("cohort", "")
    try:
        window = _whole(row.pop("window"), "window")
        as_of_us = _whole(row.pop("as_of", "") or str(query.as_of_us), "as_of")
    except ValueError as error:
        yield NoReading(query.window, arm or "?", f"{where}: {error}")
        return
    if window == query.window and as_of_us <= query.as_of_us:
        stats = {column: _cell(cell) for column, cell in row.items() if cell}
        yield reading(name, window, arm, cohort, as_of_us, stats, where)


def _whole(cell: str, column: str) -> int:
    if not (cell.isascii() and cell.isdecimal() and len(cell) <= 18):
        raise ValueError(f"column {column} is {cell[:40]!r}, expected a whole number")
    return int(cell)


def _cell(cell: str) -> float | str:
    try:
        return float(cell) if "_" not in cell else cell
    except ValueError:
        return cell
