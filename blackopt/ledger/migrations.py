"""The schema, as the migrations that lead to it; a new ledger takes all of them.

Forward only. All pending migrations run in one immediate transaction together with ``user_version``: a
process killed in between leaves the old version, whole.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from blackopt.ledger.sqlite import sqlite3

SCHEMA_VERSION = 4
MIN_READER = 4  # an older one would pass over the trials that have a key
MIN_WRITER = 4

MIGRATIONS = Migrations("blackopt.ledger")


def _script(name: str) -> Callable[[Database], None]:
    def run(db: Database) -> None:
        text = resources.files("blackopt.ledger").joinpath("schema", name).read_text(encoding="utf-8")
        for statement in statements(text):
            db.conn.execute(statement)

    return run


MIGRATIONS(name="0001_tables")(_script("0001_tables.sql"))
MIGRATIONS(name="0002_views")(_script("0002_views.sql"))
MIGRATIONS(name="0003_promotion")(_script("0003_promotion.sql"))
MIGRATIONS(name="0004_keys")(_script("0004_keys.sql"))


def statements(script: str) -> list[str]:
    """Cut a script into statements: ``executescript`` would commit the transaction that this must stay
    inside."""
    found, begun = [], ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite3.complete_statement(begun):
            found.append(begun.strip())
            begun = ""
    if begun.strip():
        raise ValueError(f"the script ends inside a statement: {begun.strip()[:80]!r}")
    return found


def version_of(conn: sqlite3.Connection) -> int:
    """The schema version that the file was last migrated to; 0 for none."""
    (version,) = conn.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(db: Database) -> None:
    """Bring the schema to :data:`SCHEMA_VERSION` inside the caller's immediate transaction.

    ``sqlite_utils`` opens a savepoint a migration and records it by name; both fall with the transaction.
    """
    MIGRATIONS.apply(db)
    db.conn.execute(
        "INSERT INTO format(id, min_reader, min_writer) VALUES(1, ?, ?)"
        " ON CONFLICT(id) DO UPDATE SET min_reader = excluded.min_reader, min_writer = excluded.min_writer",
        (MIN_READER, MIN_WRITER),
    )
    db.conn.execute(f"PRAGMA user_version={SCHEMA_VERSION}")


def min_reader(conn: sqlite3.Connection) -> int:
    """The oldest code that may read this file, by its own word."""
    (version,) = conn.execute("SELECT min_reader FROM format").fetchone()
    return int(version)


def min_writer(conn: sqlite3.Connection) -> int:
    """The oldest code that may write to this file, by its own word."""
    (version,) = conn.execute("SELECT min_writer FROM format").fetchone()
    return int(version)
