"""Evaluates candidates by calling a Python function, in worker processes or in this one."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from blackopt.errors import ConfigurationError, UsageError
from blackopt.protocols import PluginOptions
from blackopt.types import NoReading, Outcome, Push, Query, Reading, Receipt
from blackopt_connectors import _python_worker
from blackopt_connectors._options import Seconds
from blackopt_connectors._results import readings
from blackopt_connectors._slots import WAIT_S, Child, Failed, Job, Slots, job_of

_ANSWER_LIMIT = 1 << 20


class PythonOptions(PluginOptions):
    """Options of ``use: python``."""

    call: str = Field(
        pattern=r"^[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*|\.[A-Za-z_]\w*)$",
        description="the function, as package.module:function; its package may lie beside the campaign file",
    )
    workers: int | None = Field(
        None, ge=1, le=1024, description="worker processes; as many as there are processors if left out"
    )
    timeout: Seconds | None = Field(None, description="for one evaluation; its worker is killed then")


class PythonEvaluator:
    """A :class:`blackopt.protocols.Evaluator` that calls ``function(params)``.

    ``params`` is the artifact, decoded from JSON. The function returns a number, (mean, standard error),
    ``{"value": v, "se": s}``, or a mapping of metrics to these. What it raises becomes the cause of a
    ``NoReading``. An evaluation whose worker dies is run once more, in a new worker; if that dies too, it
    has no reading.
    """

    Options: ClassVar[type[PluginOptions]] = PythonOptions

    def __init__(self, options: PluginOptions, *, base: Path) -> None:
        if not isinstance(options, PythonOptions):
            raise UsageError(f"options: expected PythonOptions, got {type(options).__name__}")
        self._setup(options.call, options.workers or os.cpu_count() or 1, options.timeout, base, main=None)

    @classmethod
    def from_callable(cls, function: Callable[[Any], object], workers: int = 1) -> Self:
        """An evaluator of a function that is already there.

        Args:
            function: called in this process, inside ``read``, where ``workers`` is 1.
            workers: more than 1 for that many worker processes, which import the function (or run its
                script) again.

        Raises:
            UsageError: a nested function or a lambda for workers, which no other process can find.
        """
        self = cls.__new__(cls)
        if workers <= 1:
            self._name, self.slots, self._pool = getattr(function, "__qualname__", repr(function)), 1, None
            self._function, self._queued = function, deque()
            return self
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<none>")
        main = getattr(sys.modules["__main__"], "__file__", None) if module == "__main__" else None
        if module is None or "<" in name or (module == "__main__" and main is None):
            raise UsageError(
                f"function: expected one that {workers} worker processes can import, got {name} of {module}; "
                "define it at the top of a module, or use workers=1"
            )
        if os.environ.get(_python_worker.LOADING):
            raise UsageError(
                'workers: a script that starts workers needs `if __name__ == "__main__":` around the start'
            )
        self._setup(
            f"{module}:{name}", workers, None, Path.cwd(), main=str(Path(main).absolute()) if main else None
        )
        return self

    def check(self) -> str:
        """Import the function, in a worker that is ended again."""
        if self._pool is None:
            return f"{self._name}: in this process"
        worker = self._worker()
        try:
            worker.start()
        except Failed as error:
            raise worker.unusable(str(error)) from error
        finally:
            worker.close()
            worker.end()
        return f"{self._name}: {self.slots} workers"

    def push(self, order: Push) -> Receipt:
        """Start an evaluation; an order that is running, or finished and not read, is not started again."""
        if self._pool is not None:
            return Receipt(Outcome.APPLIED if self._pool.start(order) else Outcome.REPEATED)
        if any(queued.key == order.key for queued in self._queued):
            return Receipt(Outcome.REPEATED)
        self._queued.append(order)
        return Receipt(Outcome.APPLIED)

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """What has finished since the last read; in this process: evaluations one by one, for about a second.

        Raises:
            ConfigurationError: the function cannot be imported.
        """
        return self._pool.read(query) if self._pool is not None else self._inline(query)

    def close(self) -> None:
        """End the workers; what they were at has no reading."""
        if self._pool is not None:
            self._pool.close()

    def _setup(
        self, call: str, workers: int, timeout_s: float | None, base: Path, *, main: str | None
    ) -> None:
        self._name, self.slots, self._timeout_s, self._base, self._main = call, workers, timeout_s, base, main
        self._pool: Slots | None = Slots([self._worker() for _ in range(workers)])

    def _worker(self) -> _Worker:
        return _Worker(self._name, self._main, self._base, self._timeout_s)

    _function: Callable[[Any], object]
    _queued: deque[Push]

    def _inline(self, query: Query) -> Iterator[Reading | NoReading]:
        deadline = time.monotonic() + WAIT_S
        while self._queued and time.monotonic() < deadline:
            order = self._queued[0]
            try:
                answer = _python_worker.evaluate(self._function, job_of(order).params)
            except Failed as error:
                answer = {"error": str(error)}
            self._queued.popleft()  # after the call: what is interrupted stays queued
            yield from _readings(order.arm, answer, query)


class _Worker:
    """One worker process, started when it is needed and again when it has died."""

    def __init__(self, call: str, main: str | None, base: Path, timeout_s: float | None) -> None:
        self._call, self._main, self._base, self._timeout_s = call, main, base.absolute(), timeout_s
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._closed = False

    def run(self, job: Job) -> object:
        request = {"params": job.params}
        for _ in range(2):
            try:
                answer = self._ask(request)
            except _Died as error:
                died = str(error)
                if self._closed:
                    break
            else:
                if "error" in answer:
                    raise Failed(str(answer["error"]))
                return answer["result"]
        raise Failed(f"the worker died, twice: {died}" if not self._closed else "the evaluator was closed")

    def start(self) -> Child:
        """The running child, started if there is none.

        Raises:
            ConfigurationError: the function cannot be imported.
        """
        if self._child is not None:
            return self._child
        command = [sys.executable, "-P", str(Path(_python_worker.__file__).absolute())]
        with self._lock:
            if self._closed:
                raise Failed("the evaluator was closed")
            self._child = Child(command, cwd=self._base)
        path = [str(self._base), *(entry or str(Path.cwd()) for entry in sys.path)]
        try:
            answer = self._exchange(self._child, {"path": path, "call": self._call, "main": self._main}, None)
        except _Died as error:
            raise Failed(str(error)) if self._closed else self.unusable(str(error)) from error
        if "error" in answer:
            self.end()
            raise self.unusable(str(answer["error"]))
        return self._child

    def end(self) -> int:
        """End the child, if there is one; its exit status."""
        child, self._child = self._child, None
        return child.end() if child is not None else 0

    def close(self) -> None:
        with self._lock:
            self._closed = True
            child = self._child
            if child is not None:
                child.kill()

    def release(self) -> None:
        self.end()

    def unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"the function {self._call} cannot be used",
            where=f"call: {self._call}",
            why=why,
            safe="no evaluation was told as failed for it",
            next_step="mend the import, then run `blackopt check`",
        )

    def _ask(self, request: dict[str, object]) -> dict[str, Any]:
        return self._exchange(self.start(), request, self._timeout_s)

    def _exchange(self, child: Child, request: dict[str, object], timeout_s: float | None) -> dict[str, Any]:
        line = json.dumps(request).encode() + b"\n"
        try:
            answer = child.exchange(
                line,
                until=lambda read: read.endswith(b"\n"),
                timeout_s=timeout_s,
                limit=_ANSWER_LIMIT,
                last=False,
            )
        except Failed:
            self.end()  # it is still at it: the next job gets a new worker
            raise
        if not answer.endswith(b"\n"):
            child.wait(WAIT_S)
            said = child.errors
            status = self.end()
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            raise _Died(f"{how}: {said}" if said else how)
        parsed: dict[str, Any] = json.loads(answer)
        return parsed


class _Died(Exception):  # an outcome, not a fault
    """The worker ended instead of answering."""


def _readings(arm: str, answer: dict[str, object], query: Query) -> Iterator[Reading | NoReading]:
    if "error" in answer:
        yield NoReading(0, arm, str(answer["error"]))
    else:
        yield from readings(arm, answer["result"], query)
