"""Evaluations in child processes: a thread for each slot, a process group for each child.

The children are started with exec, never by fork alone: a forked copy of this process would hold the ledger
open.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from blackopt.errors import ConfigurationError, UsageError
from blackopt.types import NoReading, Push, Query, Reading
from blackopt_connectors._results import readings
from blackopt_connectors._wire import parse_json

WAIT_S = 1.0
"""How long a read waits where nothing has finished."""

_GLANCE_S = 0.1  # between two looks whether a child that says nothing is still there


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation. ``params`` is the artifact, decoded from JSON."""

    key: str
    trial: int
    arm: str
    params: Any


class Failed(Exception):  # an outcome, not a fault
    """An evaluation gave no result; the text says why."""


class Runner(Protocol):
    """What one slot runs its jobs with."""

    def run(self, job: Job) -> object:
        """The result, or :class:`Failed`; a :class:`ConfigurationError` where no job could ever work."""
        ...

    def close(self) -> None:
        """From any thread: a running job fails at once, and every later one."""
        ...

    def release(self) -> None:
        """From the slot's own thread, when no job comes any more: give back what is still held."""
        ...


def job_of(order: Push) -> Job:
    """The job that an order asks for.

    Raises:
        Failed: the artifact is not JSON.
    """
    try:
        return Job(order.key, order.trial, order.arm, parse_json(order.artifact.body))
    except ValueError as error:
        raise Failed(f"the artifact ({order.artifact.media_type}) is not JSON: {error}") from error


class Slots:
    """Runs jobs, as many at once as there are runners. Threads and children start with the first job."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = tuple(runners)
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Job, object]] = queue.SimpleQueue()
        self._keys: set[str] = set()  # started and not read; touched by the caller's thread only
        self._threads: list[threading.Thread] = []
        self._closed = False

    def start(self, order: Push) -> bool:
        """Start an order's job; False if it is running already, or finished and not read."""
        if self._closed:
            raise UsageError("push: the evaluator is closed")
        if order.key in self._keys:
            return False
        self._keys.add(order.key)
        try:
            job = job_of(order)
        except Failed as error:
            self._done.put((Job(order.key, order.trial, order.arm, None), error))
            return True
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._serve, args=(runner,), daemon=True) for runner in self._runners
            ]
            for thread in self._threads:
                thread.start()
        self._jobs.put(job)
        return True

    def read(self, query: Query) -> Iterator[Reading | NoReading]:
        """What has finished since the last read, waiting up to a second where nothing has.

        Raises:
            ConfigurationError: no job can ever work; the job's order may be given again.
        """
        wait_s = WAIT_S if self._keys else 0.0
        while True:
            try:
                job, result = self._done.get(timeout=wait_s) if wait_s else self._done.get_nowait()
            except queue.Empty:
                return
            wait_s = 0.0
            self._keys.discard(job.key)
            if isinstance(result, ConfigurationError):
                raise result
            if isinstance(result, Failed):
                yield NoReading(0, job.arm, str(result))
            else:
                yield from readings(job.arm, result, query)

    def close(self) -> None:
        """End every child and wait for the threads."""
        self._closed = True
        for runner in self._runners:
            runner.close()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _serve(self, runner: Runner) -> None:
        while (job := self._jobs.get()) is not None:
            if self._closed:
                continue
            try:
                result = runner.run(job)
            except (Failed, ConfigurationError) as error:
                result = error
            except Exception as error:  # noqa: BLE001  # no answer would make the read wait for ever
                result = Failed(f"the evaluator failed: {type(error).__name__}: {error}")
            self._done.put((job, result))
        runner.release()


class Child:
    """A child process in its own group, with a deadline and a limit for everything that is read from it."""

    def __init__(self, command: Sequence[str], *, cwd: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603  # no shell; the command is the operator's
            command,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for this process, which then ends its children itself
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._pipes = {self._process.stdout.fileno(): bytearray(), self._process.stderr.fileno(): bytearray()}
        self._in, self._out, self._err = (
            pipe.fileno() for pipe in (self._process.stdin, self._process.stdout, self._process.stderr)
        )
        for descriptor in (self._in, self._out, self._err):
            os.set_blocking(descriptor, False)
        self._open = {self._out, self._err}

    @property
    def errors(self) -> str:
        """The end of what it wrote to stderr, as one printable line."""
        text = self._pipes[self._err].decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[-500:]

    def exchange(
        self,
        request: bytes,
        *,
        until: Callable[[bytearray], bool],
        timeout_s: float | None,
        limit: int,
        last: bool,
    ) -> bytes:
        """Write a request, and read stdout until ``until`` is content with it or the child has ended.

        Args:
            request: for stdin; a child that does not read it all is no error.
            until: given what has been read so far.
            timeout_s: for the whole exchange.
            limit: bytes of stdout.
            last: close stdin after the request.

        Raises:
            Failed: out of time, or more output than the limit.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        answer = self._pipes[self._out] = bytearray()
        left = memoryview(request)
        with selectors.DefaultSelector() as selector:
            for descriptor in self._open:
                selector.register(descriptor, selectors.EVENT_READ)
            selector.register(self._in, selectors.EVENT_WRITE)
            while self._open and not until(answer):
                if deadline is not None and time.monotonic() >= deadline:
                    raise Failed(f"no result within {timeout_s:g} s")
                ready = selector.select(_GLANCE_S)
                if not ready and self._ended():  # what still holds the pipes open is not the child
                    break
                for key, _ in ready:
                    if key.fd != self._in:
                        self._read(key.fd, selector)
                    else:
                        left = self._write(left)
                        if not left:
                            selector.unregister(self._in)
                            if last and self._process.stdin is not None:
                                self._process.stdin.close()
                if len(answer) > limit:
                    raise Failed(f"more than {limit} bytes of output")
        return bytes(answer)

    def end(self) -> int:
        """Kill the whole group and return the child's exit status (negative: the signal that killed it)."""
        # The group first: while the child is not waited for, its number cannot be another's.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return status

    def kill(self) -> None:
        """Kill the whole group, from any thread; whoever reads from the child notices and ends it."""
        if self._process.returncode is not None:  # waited for: its number may be another's by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self, timeout_s: float) -> None:
        """Give a child that has closed its output a moment to end by itself, so that its exit status is its
        own.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ended() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _ended(self) -> bool:
        # WNOWAIT leaves the child to be waited for, so that its group can still be killed safely.
        found = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def _read(self, descriptor: int, selector: selectors.BaseSelector) -> None:
        chunk = os.read(descriptor, 1 << 16)
        kept = self._pipes[descriptor]
        kept += chunk
        if descriptor == self._err:
            del kept[:-4096]
        if not chunk:
            selector.unregister(descriptor)
            self._open.discard(descriptor)

    def _write(self, left: memoryview) -> memoryview:
        try:
            return left[os.write(self._in, left[: 1 << 16]) :] if left else left
        except BlockingIOError:
            return left
        except BrokenPipeError:  # it does not read its input; what it answers is what counts
            return left[:0]
