"""The event chain: each event's hash covers the one before it, so no past line can be changed alone.

    hash_i = sha256(hash_{i-1} | seq | at_us | epoch | kind | data)

By itself it does not stop somebody who rewrites every later event too; a copy of the newest hash kept
elsewhere does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blackopt.errors import LedgerError, UsageError
from blackopt.ledger.canonical import sha256
from blackopt.ledger.sqlite import sqlite3

GENESIS = "0" * 64
_KIND = re.compile(r"[a-z][a-z0-9_.-]{0,63}")

HEAD = "SELECT ifnull(max(seq), 0), ifnull((SELECT hash FROM event ORDER BY seq DESC LIMIT 1), ?) FROM event"
APPEND = "INSERT INTO event(seq, at_us, epoch, kind, data, prev, hash) VALUES(?, ?, ?, ?, ?, ?, ?)"


def link(prev: str, seq: int, at_us: int, epoch: int, kind: str, data: str) -> str:
    """The hash of one event."""
    return sha256(f"{prev}|{seq}|{at_us}|{epoch}|{kind}|{data}")


def append(
    conn: sqlite3.Connection, head: tuple[int, str], kind: str, data: str, *, at_us: int, epoch: int
) -> tuple[int, str]:
    """Write the event after ``head`` (its seq and hash), and return the new head; ``data`` is canonical
    JSON."""
    seq, prev = head[0] + 1, head[1]
    own = link(prev, seq, at_us, epoch, kind, data)
    conn.execute(APPEND, (seq, at_us, epoch, kind, data, prev, own))
    return seq, own


def require_kind(kind: str) -> None:
    """Refuse a kind that would blur the fields that are hashed.

    Raises:
        UsageError: it is not a short lower-case word.
    """
    if not _KIND.fullmatch(kind):
        raise UsageError(f"kind: expected a lower-case word such as 'breaker.open', got {kind!r}")


def verify_links(rows: Iterable[tuple[Any, ...]], path: Path, *, prev: str | None, seq: int) -> int:
    """Check consecutive events ``(seq, at_us, epoch, kind, data, prev, hash)``.

    Args:
        rows: in order.
        path: for the message.
        prev: hash before the first row; None takes the row's own word for it.
        seq: number before the first row.

    Returns:
        The number of the last event.

    Raises:
        LedgerError: names the first event that does not fit.
    """
    for row in rows:
        number, at_us, epoch, kind, data, before, stated = row
        if number != seq + 1:
            raise broken(path, f"event {seq + 1}", "it is missing")
        if prev is not None and before != prev:
            raise broken(path, f"event {number}", "it does not follow the event before it")
        if link(before, number, at_us, epoch, kind, data) != stated:
            raise broken(path, f"event {number}", "its contents do not fit its hash")
        prev, seq = stated, number
    return seq


def broken(path: Path, row: str, why: str) -> LedgerError:
    """The ledger contradicts itself at one row."""
    return LedgerError(
        f"The ledger was changed by something other than blackopt, or is damaged: {row}",
        where=f"{path}, {row}",
        why=why,
        safe="nothing was written",
        next_step="keep the file as it is, and restore the newest backup under another name",
    )
