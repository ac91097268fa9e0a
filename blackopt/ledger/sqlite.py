"""The one SQLite library of this process: the copy that sqlite-utils chose (``pysqlite3`` where it is
installed).

Two copies in one process, on one file, drop each other's locks and corrupt it. So no other module imports
``sqlite3``.
"""

from __future__ import annotations

from sqlite_utils.db import sqlite3 as sqlite3  # type: ignore[attr-defined]  # no other public name leads to it

__all__ = ["sqlite3"]
