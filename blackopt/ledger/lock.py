"""One driver at a time: an flock on a sidecar file, which the kernel frees when its holder dies.

The sidecar is another file than the ledger on purpose: closing any descriptor of the ledger itself would drop
SQLite's POSIX locks on it. It is never deleted, because two processes could then hold locks on two files of
one name.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from blackopt.errors import LedgerError, LockHeld

_LONGEST_NOTE = 4096


class DriverLock:
    """Held from construction until :meth:`release`, or until the process ends in any way.

    Args:
        ledger: path of the ledger; the lock is ``<ledger>.lock`` beside it.
        since_us: written into the lock for people.

    Raises:
        LockHeld: another holder; ``where`` names it.
        LedgerError: the sidecar cannot be written.
    """

    def __init__(self, ledger: Path, *, since_us: int) -> None:
        self.path = lock_path(ledger)
        try:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            note = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since_us": since_us})
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, note.encode(), 0)
        except OSError as error:
            holder = _holder(self._descriptor)
            os.close(self._descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise _unwritable(self.path, error) from error
            raise LockHeld(
                "Another process drives this campaign",
                where=f"{holder} ({self.path})",
                why="one campaign has one driver at a time",
                safe="this process changed nothing",
                next_step="nothing, if that run is meant to go on; otherwise stop it and run this again",
            ) from error
        _HELD.add(self)

    def release(self) -> None:
        """Let the next driver in, at once, whatever copies a child has; harmless when repeated."""
        if self._descriptor >= 0:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self._drop()

    def leave_to_parent(self) -> None:
        """In a forked child: drop the inherited descriptor, or the lock would outlive the parent."""
        if self._descriptor >= 0:
            self._drop()

    def _drop(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        _HELD.discard(self)


_HELD: weakref.WeakSet[DriverLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_HELD):
        lock.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


def lock_path(ledger: Path) -> Path:
    """``<ledger>.lock``."""
    return ledger.with_name(ledger.name + ".lock")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who drives a campaign, as far as it has written so: ``pid`` is 0 where it has not yet."""

    pid: int = 0
    host: str = ""
    since_us: int = 0

    def __str__(self) -> str:
        if not self.pid:
            return "a process that has not written its name yet"
        since = datetime.fromtimestamp(self.since_us / 1e6, UTC)
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"


def _holder(descriptor: int) -> Holder:
    """The note may be half-written, or from a simulation's clock: the lock itself never depends on it."""
    try:
        note = json.loads(os.pread(descriptor, _LONGEST_NOTE, 0))
        found = Holder(int(note["pid"]), str(note["host"]), int(note["since_us"]))
        return found if str(found) else Holder()
    except (OSError, OverflowError, ValueError, KeyError, TypeError):
        return Holder()


def _unwritable(path: Path, error: OSError) -> LedgerError:
    return LedgerError(
        "The lock beside the ledger cannot be written",
        where=str(path),
        why=str(error),
        safe="nothing was written and nothing was pushed",
        next_step=f"make {path.parent} writable, or move the campaign to a directory that is",
    )


def holder(ledger: Path) -> Holder | None:
    """Who drives this ledger's campaign; None while nobody does.

    The shared lock that finds out is gone again when this returns; the sidecar is only ever read.

    Raises:
        LedgerError: the sidecar cannot be read.
    """
    path = lock_path(ledger.resolve())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        what = "The lock beside the ledger cannot be read"
        raise LedgerError(what, where=str(path), why=str(error)) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(descriptor)
    finally:
        os.close(descriptor)
    return None
