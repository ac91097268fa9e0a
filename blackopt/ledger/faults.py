"""The one place where SQLite's errors become ours, sorted by what the runner must do next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blackopt.errors import BlackoptError, LedgerError, RetriableError
from blackopt.ledger.sqlite import sqlite3

_NOTHING_LOST = (
    "nothing is lost: the transaction was rolled back, everything acknowledged before it is on disk"
)
_READ_ONLY_SAFE = "nothing was written"


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code; 0 where the error did not come from the library."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def explain(error: BaseException, path: Path) -> BlackoptError:
    """Say what happened in words that a person can act on."""
    code, why, where = primary_code(error), str(error), str(path)
    if code == sqlite3.SQLITE_FULL:
        return RetriableError(
            "The disk is full",
            where=where,
            why=why,
            safe=_NOTHING_LOST,
            next_step=f"free space on the file system of {path.parent}, then run the same command again",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return RetriableError(
            "Another process holds the ledger's write lock",
            where=where,
            why=why,
            safe=_NOTHING_LOST,
            next_step="run the same command again; if it lasts, find the holder with `fuser` or `lsof`",
        )
    if code == sqlite3.SQLITE_INTERRUPT:
        return RetriableError(
            "A transaction was interrupted",
            where=where,
            why=why,
            safe=_NOTHING_LOST,
            next_step="run the same command again",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return LedgerError(
            "The ledger cannot be written or opened",
            where=where,
            why=why,
            safe=_READ_ONLY_SAFE,
            next_step=f"check owner and permissions of {path} and of its directory (a journal is written "
            "beside it)",
        )
    if code == sqlite3.SQLITE_IOERR:
        return LedgerError(
            "The disk failed under the ledger; this process will not write to it again",
            where=where,
            why=why,
            safe="what was acknowledged before is on disk; the interrupted transaction is rolled back when "
            "it is next opened",
            next_step="check the disk (dmesg), then open the ledger again: it is checked before anything "
            "is written",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, why)
    return LedgerError(
        "The ledger refused a statement",
        where=where,
        why=why,
        safe=_NOTHING_LOST,
        next_step="report this: it should not happen",
    )


def damaged(path: Path, why: str) -> LedgerError:
    """The file cannot be trusted."""
    return LedgerError(
        "The ledger is damaged, or is not a ledger",
        where=str(path),
        why=why,
        safe="it was not written to",
        next_step="keep the file as it is, and restore the newest backup under another name",
    )


@contextmanager
def explained(path: Path, on_disk_failure: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn sqlite3's errors into ours; after an I/O error call ``on_disk_failure`` (an fsync is never tried
    twice)."""
    try:
        yield
    except sqlite3.Error as error:
        if on_disk_failure is not None and primary_code(error) == sqlite3.SQLITE_IOERR:
            on_disk_failure()
        raise explain(error, path) from error
    except UnicodeDecodeError as error:  # SQLite hands out text unchecked; no blackopt wrote this
        raise damaged(path, str(error)) from error
