"""A copy of a live ledger that can be trusted: `cp` of the file in use cannot."""

from __future__ import annotations

import os
from pathlib import Path

from blackopt.errors import LedgerError
from blackopt.ledger.connection import sync_directory
from blackopt.ledger.faults import damaged, explained
from blackopt.ledger.sqlite import sqlite3


def backup(conn: sqlite3.Connection, source: Path, to: Path) -> None:
    """Copy through SQLite's backup API: temporary file, integrity check, fsync, rename, fsync of the
    directory.

    Args:
        conn: open on ``source``; drivers may go on writing.
        source: for the messages.
        to: must not exist; a half-made copy never has this name.

    Raises:
        LedgerError: ``to`` exists, cannot be written, or the copy is not whole.
        RetriableError: the disk is full.
    """
    to = to.resolve()
    if to.exists():
        raise LedgerError(
            "The backup would overwrite a file",
            where=str(to),
            safe="nothing was written",
            next_step="name a file that does not exist yet",
        )
    part = to.with_name(f"{to.name}.{os.getpid()}.part")
    try:
        make_empty(part)
        with explained(part):
            copy = sqlite3.connect(part, isolation_level=None)
            try:
                with explained(source):
                    conn.backup(copy)
                copy.execute("PRAGMA journal_mode=DELETE")  # one file, whatever the ledger's own mode is
                (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
            finally:
                copy.close()
        if verdict != "ok":
            raise damaged(source, f"its copy fails the integrity check: {verdict}")
        publish(part, to)
    finally:
        part.unlink(missing_ok=True)


def make_empty(path: Path) -> None:
    """A new file that only its owner reads.

    Raises:
        LedgerError: it exists, or the directory is not writable.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise LedgerError(
            "A file cannot be created",
            where=str(path),
            why=error.strerror or str(error),
            safe="nothing was written and nothing was pushed",
            next_step=f"make {path.parent} an existing, writable directory with free space",
        ) from error


def publish(part: Path, to: Path) -> None:
    """Give a finished, closed file its name, durably: it is there whole or not at all."""
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(to)
    sync_directory(to.parent)
