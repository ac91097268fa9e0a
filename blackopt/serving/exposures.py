"""Who was served what, written down at least once and without ever holding up a request.

    log = SqliteLog("app.db")  # the table that ``use: events`` takes as it is
    sampler = Sampler.load(..., log=log)

A request puts a line into a queue in memory; one thread writes what is there and repeats what fails. Where
the queue is full, or the log closed, the line goes to a spill file at once, which is written to its place
later, by this process or the next. After ``kill -9`` lines are lost that were in the queue or being written:
never more than its size and a thousand. Lines have an id, which tells one that was written twice.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import queue
import re
import sqlite3
import stat
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeAlias

from blackopt.errors import ConfigurationError, FatalError, RetriableError, UsageError
from blackopt.serving.exposure import Exposure
from blackopt.serving.spill import Spill, parsed

_BATCH = 1_000  # lines in one write
_LONGEST_PAUSE_S = 5.0
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

_log = logging.getLogger("blackopt.serving")


Write: TypeAlias = Callable[[Sequence[Exposure]], None]
"""Writes lines; returns when whoever holds them has them, and raises otherwise."""


class ExposureLog(ABC):
    """A queue, the thread that empties it, and the spill file. Subclasses say where lines go.

    Args:
        spill: beginning of the spill files' names; processes share it, the files they do not.
        size: lines that the queue holds.

    Raises:
        UsageError: a size below 1.
        ConfigurationError: the directory of the spill files is not there.
    """

    def __init__(self, *, spill: str | os.PathLike[str], size: int = 10_000) -> None:
        if size < 1:
            raise UsageError(f"size: expected at least one line, got {size!r}")
        self._spill_at, self._size = Path(spill), size
        if not self._spill_at.parent.is_dir():
            raise ConfigurationError(
                "exposures have no place to spill to",
                where=str(self._spill_at),
                why=f"{self._spill_at.parent} is no directory",
                safe="nothing was served or logged",
                next_step="make it, writable by the module, on a local disk",
            )
        self._pid = -1
        self._starting = threading.Lock()
        self._reset()
        _OPEN.add(self)

    def _reset(self) -> None:
        """What belongs to one process: a fork begins anew, and leaves what waits to its parent."""
        self._queue: queue.SimpleQueue[Exposure | threading.Event | None] = queue.SimpleQueue()
        self._token, self._numbers = f"{os.urandom(8).hex()}-", count()
        self._spill = Spill(self._spill_at)
        self._room = self._size
        self._deadline = float("inf")
        self._hurry = threading.Event()
        self._in_flight: Sequence[Exposure] = ()
        self._why = ""
        self._write: Write | None = None
        self._thread = threading.Thread(target=self._run, name="blackopt-exposures", daemon=True)

    @abstractmethod
    def _open(self) -> Write:
        """Connect, in the thread that writes; called again after an error."""

    def _shut(self) -> None:  # noqa: B027 - most have nothing to shut
        """Disconnect what was opened: after an error, and at the end."""

    def put(self, exposure: Exposure) -> None:
        """Take a line; never waits for anybody."""
        if self._pid != os.getpid():
            self._start()
        if self._queue.qsize() < self._room:
            self._queue.put(exposure)
        else:
            self._spill.add([exposure])

    def new_id(self) -> str:
        """Of a line: no other has it."""
        if self._pid != os.getpid():
            self._start()
        return f"{self._token}{next(self._numbers):x}"

    @property
    def spilled(self) -> int:
        """Lines that this process has put into spill files: above 0, writing is too slow, or fails."""
        return self._spill.added

    @property
    def dropped(self) -> int:
        """Lines that neither the queue nor a spill file took: lost."""
        return self._spill.dropped

    def flush(self, timeout_s: float = 10.0) -> None:
        """Return when all lines that were put before are written.

        Raises:
            RetriableError: they were not in time; they are kept.
            FatalError: lines were lost.
        """
        if self._pid != os.getpid():
            return  # nothing was put
        written = threading.Event()
        self._queue.put(written)
        if not self._thread.is_alive() or not written.wait(timeout_s):
            raise RetriableError(
                "exposures are not written yet",
                where=f"{type(self).__name__}, {self._queue.qsize()} in the queue",
                why=self._why or f"it takes longer than {timeout_s} s",
                safe="they are kept in memory and in the spill file, and are written when that is possible",
            )
        self._raise_if_dropped()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is there, or else spill it for the next process; done by itself when Python ends.

        Raises:
            FatalError: lines were lost.
        """
        with self._starting:
            if self._pid != os.getpid() or self._room == 0:
                return
            self._room = 0  # from now on, lines go to the spill file
        self._deadline = time.monotonic() + timeout_s
        self._queue.put(None)
        self._hurry.set()
        self._thread.join(timeout_s + 0.1)
        if self._thread.is_alive():  # it is in the middle of a write that does not return
            self._spill.add(self._in_flight)
        self._spill.add([line for line in _emptied(self._queue) if isinstance(line, Exposure)])
        self._queue.put(None)  # in place of the one that was just taken, for a write that returns after all
        if self._spill.waiting:
            _log.warning("exposures wait in %s*: the next process writes them", self._spill_at)
        self._raise_if_dropped()

    def _raise_if_dropped(self) -> None:
        if self._spill.dropped:
            raise FatalError(
                "exposures were lost",
                where=f"{self._spill_at}*",
                why=f"the queue of {self._size} was full, and {self._spill.dropped} lines could not be "
                f"spilled: {self._spill.why}",
                safe="all other lines are written, or kept",
                next_step="make room, and leave the window out: units that were served are missing from it",
            )

    # -- the thread

    def _start(self) -> None:
        with self._starting:
            if self._pid == os.getpid():
                return
            self._reset()
            self._thread.start()
            self._pid = os.getpid()

    def _run(self) -> None:
        for path in self._spill.of_the_dead():
            self._unspill(path)
        ended = False
        while True:
            lines: list[Exposure] = []
            flushed: list[threading.Event] = []
            for item in [self._queue.get(), *_emptied(self._queue, _BATCH - 1)]:
                if isinstance(item, Exposure):
                    lines.append(item)
                elif item is None:
                    ended = True
                else:
                    flushed.append(item)
            self._deliver(lines)
            if self._spill.waiting and time.monotonic() < self._deadline:
                self._unspill(self._spill.detach())
            for event in flushed:
                event.set()
            if ended and self._queue.empty():
                self._shut()
                return

    def _deliver(self, lines: Sequence[Exposure]) -> bool:
        """Write lines, however often it takes; spill them when the log is closed before that."""
        self._in_flight = lines
        pause = 0.05
        while lines:
            try:
                if self._write is None:
                    self._write = self._open()
                self._write(lines)
                self._why = ""
                break
            except Exception as error:  # noqa: BLE001 - whatever a sink raises, the lines are kept and written again
                self._write = None
                self._shut()
                if not self._why:
                    _log.warning("exposures cannot be written, trying again: %s", error)
                self._why = f"{type(error).__name__}: {error}"
            if time.monotonic() + pause > self._deadline:
                self._spill.add(lines)
                return False
            (time.sleep if self._hurry.is_set() else self._hurry.wait)(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        self._in_flight = ()
        return True

    def _unspill(self, path: Path) -> None:
        """Write a spill file to its place, and remove it. What is killed in between is written twice."""
        with path.open(encoding="utf-8") as file:
            while texts := list(islice(file, _BATCH)):
                if not self._deliver([line for text in texts for line in parsed(text, path)]):
                    return  # closed before it could be written: the file stays for the next process
        self._spill.remove(path)


class FileLog(ExposureLog):
    """JSON lines, appended to a file that any number of processes share; it may be renamed at any time.

    Leave out texts that are no JSON: the half of a line that the disk took before it was full, or that a
    process wrote when it was killed. Lines of the living that are in such a text are written again.

    Args:
        path: of the file.
        size: lines that the queue holds.
    """

    def __init__(self, path: str | os.PathLike[str], *, size: int = 10_000) -> None:
        super().__init__(spill=f"{os.fspath(path)}.spill", size=size)
        self._path = Path(path)

    def _open(self) -> Write:
        begin = b"\n" if self._why else b""  # after half a line

        def write(lines: Sequence[Exposure]) -> None:
            nonlocal begin
            text = begin + "".join(f"{json.dumps(line.to_json())}\n" for line in lines).encode()
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                written = os.write(descriptor, text)
                behind = _behind(descriptor, written)
            finally:
                os.close(descriptor)
            if written < len(text):
                raise OSError(f"{self._path}: {written} of {len(text)} bytes were written")
            if b"\n" not in (behind, text[:1]):
                raise OSError(f"{self._path}: it ended with half a line, of a process that was killed")
            begin = b""

        return write


def _behind(descriptor: int, written: int) -> bytes:
    """The byte behind which a descriptor has just written so many; a new line where there is none, or no way
    to tell, as in a pipe."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return b"\n"
    start = os.lseek(descriptor, 0, os.SEEK_CUR) - written
    return os.pread(descriptor, 1, start - 1) if start else b"\n"


class SqliteLog(ExposureLog):
    """Rows of a SQLite table, each exactly once: what ``use: events`` takes for exposures as it is.

    Args:
        path: of the database; made if it is not there.
        table: made if it is not there, with the columns of :class:`Exposure`.
        size: lines that the queue holds.

    Raises:
        UsageError: the table's name needs quotes.
    """

    def __init__(self, path: str | os.PathLike[str], *, table: str = "exposures", size: int = 10_000) -> None:
        super().__init__(spill=f"{os.fspath(path)}.spill", size=size)
        if not _TABLE.fullmatch(table):
            raise UsageError(f"table: expected letters, digits and underscores, got {table!r}")
        self._path, self._table = Path(path), table
        self._connection: sqlite3.Connection | None = None

    def _open(self) -> Write:
        connection = self._connection = sqlite3.connect(self._path, timeout=5.0)
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (id TEXT PRIMARY KEY, campaign TEXT NOT NULL, "
            'window INTEGER NOT NULL, arm TEXT NOT NULL, unit TEXT NOT NULL, "time" INTEGER NOT NULL, '
            "version INTEGER, key TEXT, sign INTEGER, outcome TEXT) WITHOUT ROWID"
        )
        marks = ", ".join("?" * len(Exposure._fields))
        insert = f"INSERT OR IGNORE INTO {self._table} VALUES ({marks})"  # noqa: S608 - a name without quotes

        def write(lines: Sequence[Exposure]) -> None:
            with connection:
                connection.executemany(insert, lines)

        return write

    def _shut(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class RedisLog(ExposureLog):
    """Entries of a Redis stream, one field for each that is not None: at least once, told apart by ``id``.

    Args:
        url: as ``redis://localhost:6379/0``.
        spill: beginning of the spill files' names, on a local disk.
        stream: its name.
        most: about how many entries the stream keeps; None: all.
        size: lines that the queue holds.

    Raises:
        ConfigurationError: the client for Redis is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        spill: str | os.PathLike[str],
        stream: str = "blackopt:exposures",
        most: int | None = None,
        size: int = 10_000,
    ) -> None:
        super().__init__(spill=spill, size=size)
        try:
            import redis
        except ImportError as error:
            raise ConfigurationError(
                "the client for Redis is not installed",
                why=str(error),
                safe="nothing was logged",
                next_step="run: pip install 'blackopt[redis]'",
            ) from error
        self._client = redis.Redis.from_url(url, socket_timeout=5.0, socket_connect_timeout=5.0)
        self._stream, self._most = stream, most

    def _open(self) -> Write:
        def write(lines: Sequence[Exposure]) -> None:
            with self._client.pipeline(transaction=False) as together:
                for line in lines:
                    fields: dict[Any, Any] = {k: v for k, v in line._asdict().items() if v is not None}
                    together.xadd(self._stream, fields, maxlen=self._most, approximate=True)
                together.execute()

        return write

    def _shut(self) -> None:
        self._client.close()


class CallableLog(ExposureLog):
    """Lines as dictionaries, given to a function in lists; what it raises has them given again.

    Args:
        function: called in the thread that writes; returns when it has the lines for good.
        spill: beginning of the spill files' names, on a local disk.
        size: lines that the queue holds.
    """

    def __init__(
        self,
        function: Callable[[list[dict[str, object]]], object],
        *,
        spill: str | os.PathLike[str],
        size: int = 10_000,
    ) -> None:
        super().__init__(spill=spill, size=size)
        self._function = function

    def _open(self) -> Write:
        def write(lines: Sequence[Exposure]) -> None:
            self._function([line.to_json() for line in lines])

        return write


_OPEN: weakref.WeakSet[ExposureLog] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for log in list(_OPEN):
        log.close()


def _emptied(queue_: queue.SimpleQueue[Any], most: int | None = None) -> list[Any]:
    """What is in a queue now, up to a number."""
    found: list[Any] = []
    with contextlib.suppress(queue.Empty):
        while most is None or len(found) < most:
            found.append(queue_.get_nowait())
    return found
