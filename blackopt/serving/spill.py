"""Lines that wait in files until their log takes them, for this process or the next."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

from blackopt.serving.exposure import Exposure

_log = logging.getLogger("blackopt.serving")


class Spill:
    """Files of lines that wait: one that is added to, and those that are being written to their place.

    Each is locked by the process that made it for as long as that lives, so that the next one finds those of
    the dead, and no process writes another's.
    """

    def __init__(self, base: Path) -> None:
        self._base, self._token, self._numbers = base, os.urandom(8).hex(), count()
        self._lock = threading.Lock()
        self._held: dict[Path, int] = {}
        self._current: Path | None = None
        self._begin = b""
        self.added = self.dropped = 0
        self.why = ""

    @property
    def waiting(self) -> bool:
        """Whether there is a file that is added to."""
        return self._current is not None

    def add(self, lines: Sequence[Exposure]) -> None:
        """Append lines; those that the disk does not take are counted as dropped."""
        if not lines:
            return
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        with self._lock:
            try:
                if self._current is None:
                    self._current = self._new()
                text = self._begin + text
                written = os.write(self._held[self._current], text)
                if written < len(text):
                    if not text[:written].endswith(b"\n"):
                        self._begin = b"\n"  # what comes next does not continue half a line
                    raise OSError(f"{written} of {len(text)} bytes were written")
                self._begin = b""
                self.added += len(lines)
            except OSError as error:
                if not self.dropped:
                    _log.error("exposures are lost: the spill file %s: %s", self._base, error)
                self.dropped += len(lines)
                self.why = str(error)

    def detach(self) -> Path:
        """The file that was added to; the next line begins another."""
        with self._lock:
            assert self._current is not None
            path, self._current = self._current, None
        return path

    def of_the_dead(self) -> Iterator[Path]:
        """Files that processes have left which live no more."""
        for path in sorted(self._base.parent.glob(f"{self._base.name}.*")):
            with contextlib.suppress(OSError):  # another process has it, or had it
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.lstat()
                except OSError:
                    os.close(descriptor)
                    raise
                self._held[path] = descriptor
                yield path

    def remove(self, path: Path) -> None:
        """It is written to its place."""
        path.unlink(missing_ok=True)
        os.close(self._held.pop(path))

    def _new(self) -> Path:
        path = self._base.with_name(f"{self._base.name}.{self._token}-{next(self._numbers)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        # Locked before it has its name, so that no process takes it for one of the dead.
        beside = path.with_name(f".{path.name}")
        descriptor = os.open(beside, flags, 0o640)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        beside.rename(path)
        self._held[path] = descriptor
        return path


def parsed(text: str, path: Path) -> list[Exposure]:
    """The line that a text of a spill file is; none where the disk took half of it."""
    try:
        return [Exposure(*json.loads(text))]
    except (ValueError, TypeError) as error:
        _log.error("a line of %s is damaged, and left out: %s", path, error)
        return []
