"""Evaluates candidates by running a command, once for each.

The command reads ``{"trial": 17, "arm": "t17", "params": {...}}`` from stdin. To stdout it writes one JSON
object and nothing else: ``{"value": 1.5, "se": 0.1}`` (``se`` may be left out), or
``{"metrics": {"name": 1.5}}``.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import NoReading, Outcome, Push, Query, Reading, Receipt
from blackopt_connectors._options import Seconds
from blackopt_connectors._slots import Child, Failed, Job, Slots

_OUTPUT_LIMIT = 1 << 20
_END_S = 1.0  # between the end of the output and the end of the process


class ProcessOptions(PluginOptions):
    """Options of ``use: process``."""

    command: tuple[str, ...] = Field(
        min_length=1, description="program and arguments; no shell; runs beside the campaign file"
    )
    workers: int | None = Field(
        None, ge=1, le=1024, description="commands at once; as many as there are processors if left out"
    )
    timeout: Seconds | None = Field(
        None, description="for one command; it is killed then, with everything it started"
    )


class ProcessEvaluator:
    """A :class:`blackopt.protocols.Evaluator` that runs a command."""

    Options: ClassVar[type[PluginOptions]] = ProcessOptions

    def __init__(self, options: PluginOptions, *, base: Path) -> None:
        if not isinstance(options, ProcessOptions):
            raise UsageError(f"options: expected ProcessOptions, got {type(options).__name__}")
        self.options, self._base = options, base
        self.slots = options.workers or os.cpu_count() or 1
        self._pool = Slots([_Command(options, base) for _ in range(self.slots)])

    def check(self) -> str:
        """Look whether the program is there; it is not run."""
        program = self.options.command[0]
        places = [self._base] if os.sep in program else [Path(p) for p in os.get_exec_path()]
        if not any((place / program).is_file() and os.access(place / program, os.X_OK) for place in places):
            raise _missing(program, "no such executable file")
        return f"{program}: {self.slots} at once"

    def push(self, order: Push) -> Receipt:
        """Start an evaluation; an order that is running, or finished and not read, is not started again."""
        return Receipt(Outcome.APPLIED if self._pool.start(order) else Outcome.REPEATED)

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """What has finished since the last read, waiting up to a second where nothing has.

        Raises:
            ConfigurationError: the program cannot be started.
        """
        return self._pool.read(query)

    def close(self) -> None:
        """Kill the commands that run, with everything they started."""
        self._pool.close()


class _Command:
    """Runs one command at a time."""

    def __init__(self, options: ProcessOptions, base: Path) -> None:
        self._options, self._base = options, base.absolute()
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    def run(self, job: Job) -> object:
        request = json.dumps({"trial": job.trial, "arm": job.arm, "params": job.params}).encode()
        with self._lock:
            if self._closed:
                raise Failed("the evaluator was closed")
            try:
                child = self._child = Child(self._command(), cwd=self._base)
            except OSError as error:
                raise _missing(self._options.command[0], error.strerror or str(error)) from error
        try:
            output = child.exchange(
                request,
                until=lambda _: False,
                timeout_s=self._options.timeout,
                limit=_OUTPUT_LIMIT,
                last=True,
            )
            child.wait(_END_S)
        except Failed as error:
            raise Failed(f"{error}{_said(child)}") from error
        finally:
            with self._lock:
                self._child = None
            status = child.end()
        if self._closed:
            raise Failed("the evaluator was closed")
        if status:
            raise Failed(
                (f"killed by signal {-status}" if status < 0 else f"exit status {status}") + _said(child)
            )
        return _parse(output, child)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()

    def release(self) -> None:
        """Every command is ended where it was started."""

    def _command(self) -> list[str]:
        program, *arguments = self._options.command
        # A path is relative to the campaign file, as every path of it is; a bare name is looked up as usual.
        return [str(self._base / program) if os.sep in program else program, *arguments]


def _parse(output: bytes, child: Child) -> object:
    try:
        parsed = json.loads(output.decode())
    except (ValueError, RecursionError) as error:
        raise Failed(f"its output is not JSON: {error}{_said(child)}") from error
    if isinstance(parsed, Mapping) and set(parsed) == {"metrics"}:
        return parsed["metrics"]
    return parsed


def _said(child: Child) -> str:
    return f"; stderr: {child.errors}" if child.errors else ""


def _missing(program: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        "the command of the evaluator cannot be started",
        where=f"command: {program}",
        why=why,
        safe="no evaluation was told as failed for it",
        next_step="give a program of PATH, or a path relative to the campaign file",
    )
