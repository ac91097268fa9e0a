"""How a ledger's file is opened: never created by accident, durable on this SQLite, and watched while it is
open."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from sqlite_utils import Database

from blackopt.errors import LedgerError
from blackopt.ledger.faults import damaged, explain, explained, primary_code
from blackopt.ledger.sqlite import sqlite3

APPLICATION_ID = 0x424C4B4F
BUSY_TIMEOUT_S = 30.0
_CACHE_KIB = 65_536
_STATEMENTS = 256
_SQLITE_MAIN = "main"


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the fix of the WAL-reset bug (3.7.0 to 3.51.2 may corrupt; see
    docs/decisions/0002)."""
    if version == (3, 52, 0):  # withdrawn
        return False
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def journal_mode() -> str:
    """The fastest mode that loses no acknowledged commit at power loss with ``synchronous=FULL``."""
    return "wal" if wal_is_safe(sqlite3.sqlite_version_info) else "truncate"


class Handle:
    """A connection and what must stay true of it: same process, same file, no failed disk.

    Args:
        path: absolute, of an existing file.
        read_only: refuse every write.

    Raises:
        LedgerError: there is no such file, or it is not a ledger.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path, self.read_only = path, read_only
        self.pid = os.getpid()
        self.identity = _identity(path)
        self.broken = ""
        with explained(path):
            self.conn = _connect(path, read_only=read_only)
        try:
            with explained(path):
                self.db = Database(self.conn, recursive_triggers=False, execute_plugins=False)
                _prepare(self.conn, read_only=read_only)
                self._recognise()
            self.check()
        except BaseException:
            self.conn.close()
            raise

    def _recognise(self) -> None:
        application = self.pragma("application_id")
        if application != APPLICATION_ID:
            raise damaged(self.path, f"its application id is {application}, a ledger's is {APPLICATION_ID}")

    def pragma(self, name: str) -> int:
        """An integer pragma's value."""
        (value,) = self.conn.execute(f"PRAGMA {name}").fetchone()
        return int(value)

    def check(self) -> None:
        """Before each use; two system calls.

        Raises:
            LedgerError: closed, forked, broken by the disk, or the path now names another file.
        """
        if self.broken:
            raise LedgerError(
                "This ledger is not open any more",
                where=str(self.path),
                why=self.broken,
                safe="what was acknowledged is on disk",
                next_step="open the ledger again",
            )
        if os.getpid() != self.pid:
            raise LedgerError(
                "A ledger was carried through a fork",
                where=f"{self.path}, opened by process {self.pid}, used by process {os.getpid()}",
                why="SQLite's locks do not survive a fork; using them corrupts the file",
                safe="nothing was written",
                next_step="open the ledger in the process that uses it, or start workers with 'spawn'",
            )
        if _identity(self.path) != self.identity:
            self.broken = "its file was replaced or deleted while it was open"
            raise LedgerError(
                "The ledger's file was replaced or deleted while it was open",
                where=str(self.path),
                why="what is written now would be lost with the old file",
                safe="nothing was written to either file",
                next_step="find out who moved it; put the right file in its place and run again",
            )

    def fail(self) -> None:
        """After an I/O error: no further write through this connection, because a second fsync may lie."""
        self.broken = "the disk failed under it"

    def close(self) -> None:
        """Harmless when repeated. In a forked child the connection is left alone: it is the parent's."""
        if os.getpid() == self.pid:
            self.conn.close()
        self.broken = self.broken or "it was closed"


def resolve(path: Path) -> Path:
    """Absolute and without links, so that two names of one ledger share one lock."""
    return Path(path).resolve()


def require_file(path: Path) -> None:
    """Opening never creates.

    Raises:
        LedgerError: nothing is there, or it is not a file.
    """
    if not path.is_file():
        raise LedgerError(
            "There is no ledger here",
            where=str(path),
            why="the path does not exist" if not path.exists() else "the path is not a file",
            safe="nothing was created",
            next_step="check the path for a typing error; a new campaign starts with `blackopt run "
            "campaign.yaml`",
        )


def sync_directory(path: Path) -> None:
    """Make a rename inside this directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open without creating.

    A reader opens for writing where it may: after a crash, only a writer can roll the journal back.
    ``query_only`` keeps it from anything else.
    """
    mode = "ro" if read_only and not os.access(path, os.W_OK) else "rw"
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        cached_statements=_STATEMENTS,
    )


def _prepare(conn: sqlite3.Connection, *, read_only: bool) -> None:
    for pragma in (
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "recursive_triggers=ON",  # or INSERT OR REPLACE would delete behind the triggers' back
        "mmap_size=0",
        "synchronous=FULL",
        f"cache_size=-{_CACHE_KIB}",
        "temp_store=MEMORY",
    ):
        conn.execute(f"PRAGMA {pragma}")
    if read_only:
        conn.execute("PRAGMA query_only=ON")


def set_journal_mode(conn: sqlite3.Connection, path: Path) -> None:
    """Choose the journal by the library's version; a WAL file on an unfixed library is converted.

    Raises:
        LedgerError: SQLite kept another mode.
    """
    wanted = journal_mode()
    try:
        (got,) = conn.execute(f"PRAGMA journal_mode={wanted}").fetchone()
    except sqlite3.Error as error:
        if primary_code(error) != sqlite3.SQLITE_BUSY:
            raise explain(error, path) from error
        (got,) = conn.execute("PRAGMA journal_mode").fetchone()
    if got != wanted:
        raise LedgerError(
            f"The ledger is in journal mode {got}, and cannot be brought to {wanted}",
            where=str(path),
            why="another process has it open, or its file system does not support it",
            safe="nothing was written",
            next_step="close the other readers and run again",
        )
