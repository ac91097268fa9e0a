"""A campaign's file: created once, opened often, read by anybody, driven by one."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlite_utils import Database

from blackopt.errors import LedgerError, UsageError
from blackopt.ledger import chain, migrations, queries
from blackopt.ledger.backup import backup, make_empty, publish
from blackopt.ledger.canonical import canonical_json
from blackopt.ledger.connection import (
    APPLICATION_ID,
    Handle,
    require_file,
    resolve,
    set_journal_mode,
)
from blackopt.ledger.driver import Driver
from blackopt.ledger.faults import damaged, explained
from blackopt.ledger.lock import DriverLock
from blackopt.ledger.rows import (
    AttemptRow,
    CampaignRow,
    CentreRow,
    ConflictRow,
    Disposition,
    EventRow,
    IncumbentRow,
    NewCampaign,
    PromotionRow,
    PushRow,
    PushState,
    ReadingRow,
    RejectedRow,
    SessionRow,
    SnapshotRow,
    TellRow,
    TrialRow,
    TrialState,
    Watermark,
    WindowRow,
)
from blackopt.ledger.sqlite import sqlite3
from blackopt.ledger.verify import verify_all, verify_file, verify_tail
from blackopt.types import Role


class Ledger:
    """Everything that happened in one campaign. Reads are here; :meth:`drive` gives the writer.

    Not safe for use by several threads. Made by :meth:`create` and :meth:`open`.

    Attributes:
        path: absolute, links resolved.
        uuid: the campaign's, random, part of every order's key.
        handle: the open connection and its watch.
    """

    def __init__(self, handle: Handle) -> None:
        self.handle, self.path = handle, handle.path
        self.uuid = self.campaign.uuid

    @classmethod
    def create(cls, path: Path, campaign: NewCampaign, *, at_us: int) -> Self:
        """Begin a campaign: the file appears under its name whole, or not at all.

        Raises:
            LedgerError: the path exists, or its directory cannot be written.
            LockHeld: another process is creating it right now.
        """
        path = resolve(path)
        if not path.parent.is_dir():
            raise LedgerError(
                "There is no directory for the ledger",
                where=str(path.parent),
                safe="nothing was created",
                next_step=f"check the path for a typing error, or run `mkdir -p {path.parent}`",
            )
        _require_absent(path)
        lock = DriverLock(path, since_us=at_us)
        try:
            _require_absent(path)  # another process may have been faster
            part = path.with_name(path.name + ".new")
            part.unlink(
                missing_ok=True
            )  # left by a process that was killed here; only the lock's holder is here
            make_empty(part)
            try:
                with explained(part):
                    _build(part, campaign, at_us)
                publish(part, path)
            finally:
                part.unlink(missing_ok=True)
                part.with_name(part.name + "-journal").unlink(missing_ok=True)
        finally:
            lock.release()
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False) -> Self:
        """Open a campaign that exists; an older schema is migrated first, after a backup.

        Opening for writing checks the file's structure and the end of its chain; :meth:`verify` checks all of
        it.

        Raises:
            LedgerError: nothing is there, it is not a ledger, it is damaged, or it is of a version that this
                blackopt cannot use.
            LockHeld: it must be migrated, and another process drives it.
        """
        path = resolve(path)
        require_file(path)
        handle = Handle(path, read_only=read_only)
        try:
            with explained(path):
                if not read_only:
                    set_journal_mode(handle.conn, path)
                    verify_file(handle.conn, path, whole=False)
                _settle_version(handle)
                verify_tail(handle.conn, path)
                return cls(handle)
        except BaseException:
            handle.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self.handle.close()

    def drive(self, *, at_us: int) -> Driver:
        """Become the campaign's driver: take the lock, and an epoch higher than any before.

        Raises:
            LockHeld: another process drives it.
            LedgerError: it was opened for reading only, or cannot be written.
        """
        if self.handle.read_only:
            raise UsageError("ledger: it was opened with read_only=True; open it again to drive it")
        self.handle.check()
        lock = DriverLock(self.path, since_us=at_us)
        try:
            with explained(self.path, self.handle.fail), immediate(self.handle.conn) as conn:
                (epoch,) = conn.execute("SELECT epoch + 1 FROM lease").fetchone()
                conn.execute("UPDATE lease SET epoch = ?", (epoch,))
                conn.execute(
                    "INSERT INTO session(epoch, pid, host, started_us) VALUES(?, ?, ?, ?)",
                    (epoch, os.getpid(), socket.gethostname(), at_us),
                )
        except BaseException:
            lock.release()
            raise
        return Driver(self, lock, epoch)

    @contextmanager
    def _reading(self) -> Iterator[Database]:
        self.handle.check()
        try:
            with explained(self.path, self.handle.fail):
                yield self.handle.db
        except UsageError:
            raise
        except (ValueError, KeyError) as error:  # a stored word that no version of blackopt writes
            raise damaged(self.path, f"{type(error).__name__}: {error}") from error

    @property
    def db(self) -> Database:
        """The sqlite-utils database, for queries of your own. Writing through it is refused by the triggers
        or by you."""
        self.handle.check()
        return self.handle.db

    @property
    def campaign(self) -> CampaignRow:
        """The campaign as it stands now."""
        with self._reading() as db:
            return queries.campaign(db)

    def trials(
        self,
        *,
        states: Collection[TrialState] | None = None,
        role: Role | None = None,
        window: int | None = None,
        first: int = 0,
        limit: int | None = None,
    ) -> list[TrialRow]:
        """Trials by number, from number ``first`` on."""
        with self._reading() as db:
            return queries.trials(db, states=states, role=role, window=window, first=first, limit=limit)

    def trial(self, number: int) -> TrialRow:
        """One trial.

        Raises:
            UsageError: there is none of this number.
        """
        with self._reading() as db:
            return queries.trial(db, number)

    def counts(self) -> dict[str, int]:
        """Trials by state (``"LIVE"``) and tells by status (``"told.ok"``), zeros included;
        ``"trials"`` and, by role, ``"trials.search"`` count what was asked."""
        with self._reading() as db:
            return queries.counts(db)

    def windows(self) -> list[WindowRow]:
        """Every window, by number."""
        with self._reading() as db:
            return queries.windows(db)

    def pushes(self, *, states: Collection[PushState] | None = None) -> list[PushRow]:
        """The outbox, by trial."""
        with self._reading() as db:
            return queries.pushes(db, states=states)

    def attempts(self, trial: int) -> list[AttemptRow]:
        """Every try to deliver a trial's orders."""
        with self._reading() as db:
            return queries.attempts(db, trial)

    def centres(self) -> list[CentreRow]:
        """Every centre that keys were relative to, by version; most are no longer in the store."""
        with self._reading() as db:
            return queries.centres(db)

    def promotions(self) -> list[PromotionRow]:
        """Every promotion, by number; all but the last came to nothing."""
        with self._reading() as db:
            return queries.promotions(db)

    def incumbents(self) -> list[IncumbentRow]:
        """Every order that made a vector the incumbent, by number."""
        with self._reading() as db:
            return queries.incumbents(db)

    def latest(self, window: int, *, arm: str | None = None) -> list[ReadingRow]:
        """The newest accepted revision per (metric, arm, cohort), in that order."""
        with self._reading() as db:
            return queries.latest(db, window, arm=arm)

    def revisions(
        self, window: int, arm: str | None = None, *, disposition: Disposition | None = None
    ) -> list[ReadingRow]:
        """Every stored reading of a window, whatever became of it unless a ``disposition`` is given."""
        with self._reading() as db:
            return queries.revisions(db, window, arm, disposition)

    def watermarks(self, window: int) -> dict[str, Watermark]:
        """How far each metric of a window is known."""
        with self._reading() as db:
            return queries.watermarks(db, window)

    def tells(self, *, after: int = 0) -> list[TellRow]:
        """Tells with a seq greater than ``after``, in order."""
        with self._reading() as db:
            return queries.tells(db, after=after)

    def events(self, *, after: int = 0) -> list[EventRow]:
        """Events with a seq greater than ``after``, in order."""
        with self._reading() as db:
            return queries.events(db, after=after)

    def conflicts(self) -> list[ConflictRow]:
        """Readings that contradicted a stored one of the same identity."""
        with self._reading() as db:
            return queries.conflicts(db)

    def quarantined(self) -> list[ReadingRow]:
        """Readings of arms and windows that the campaign does not know."""
        with self._reading() as db:
            return queries.quarantined(db)

    def rejected(self) -> list[RejectedRow]:
        """Readings that no metric can be computed from."""
        with self._reading() as db:
            return queries.rejected(db)

    def sessions(self) -> list[SessionRow]:
        """Every driver there has been."""
        with self._reading() as db:
            return queries.sessions(db)

    def newest_snapshot(self, optimizer_version: str) -> SnapshotRow | None:
        """The newest whole snapshot of this optimizer's version."""
        with self._reading() as db:
            return queries.newest_snapshot(db, optimizer_version)

    def verify(self) -> None:
        """Check the file, the chain, and every fact against it; reads everything.

        Raises:
            LedgerError: names the first row that does not fit.
        """
        with self._reading() as db:
            verify_all(db.conn, self.path)

    def backup(self, to: Path) -> None:
        """Copy to a new file, whole and durable, while drivers go on.

        Raises:
            LedgerError: ``to`` exists or cannot be written.
            RetriableError: the disk is full.
        """
        with self._reading() as db:
            backup(db.conn, self.path, Path(to))


@contextmanager
def immediate(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction that takes its lock first: a deferred one fails at once when it upgrades under
    WAL."""
    conn.execute("BEGIN IMMEDIATE")
    try:
        yield conn
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _require_absent(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise LedgerError(
            "There is a file already where the ledger would be created",
            where=str(path),
            safe="it was not touched",
            next_step="run the campaign to resume it, or choose another path for a new one",
        )


def _build(part: Path, campaign: NewCampaign, at_us: int) -> None:
    conn = sqlite3.connect(part, isolation_level=None)
    try:
        conn.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db = Database(conn, recursive_triggers=False, execute_plugins=False)
        with immediate(conn):
            migrations.migrate(db)
            conn.execute(
                "INSERT INTO campaign(id, uuid, name, config, config_sha, optimizer, optimizer_version, "
                "created_us)"
                " VALUES(1, ?, ?, ?, ?, ?, ?, ?)",
                (
                    str(uuid.uuid4()),
                    campaign.name,
                    campaign.config,
                    campaign.config_sha,
                    campaign.optimizer,
                    campaign.optimizer_version,
                    at_us,
                ),
            )
            conn.execute("INSERT INTO lease(name, epoch) VALUES('driver', 0)")
            data = {
                "name": campaign.name,
                "config_sha": campaign.config_sha,
                "optimizer": campaign.optimizer,
                "optimizer_version": campaign.optimizer_version,
            }
            chain.append(conn, (0, chain.GENESIS), "created", canonical_json(data), at_us=at_us, epoch=0)
    finally:
        conn.close()


def _settle_version(handle: Handle) -> None:
    """Refuse what this blackopt cannot use; migrate what is older.

    Raises:
        LedgerError: newer than this blackopt, or older and opened for reading only.
    """
    version = migrations.version_of(handle.conn)
    newest = migrations.SCHEMA_VERSION
    if version == newest:
        return
    if version > newest:
        needed = (migrations.min_reader if handle.read_only else migrations.min_writer)(handle.conn)
        if newest >= needed and handle.read_only:
            return
        raise LedgerError(
            f"The ledger is of schema version {version}, this blackopt knows {newest}",
            where=str(handle.path),
            why=f"a newer blackopt wrote it; {'reading' if handle.read_only else 'writing'} needs version "
            f"{needed}",
            safe="it was not written to",
            next_step="pip install --upgrade blackopt",
        )
    if handle.read_only:
        raise LedgerError(
            f"The ledger is of schema version {version}, and must be migrated to {newest} before it is read",
            where=str(handle.path),
            safe="it was not written to",
            next_step="open it for writing once: the next `blackopt run` does",
        )
    _migrate(handle)


def _migrate(handle: Handle) -> None:
    lock = DriverLock(handle.path, since_us=0)
    try:
        version = migrations.version_of(handle.conn)  # again, now that nobody else can migrate
        if version == migrations.SCHEMA_VERSION:
            return
        copy = handle.path.with_name(f"{handle.path.name}.v{version}.backup")
        if not copy.exists():  # it does after a kill between the backup and the commit
            backup(handle.conn, handle.path, copy)
        with immediate(handle.conn):
            migrations.migrate(handle.db)
    finally:
        lock.release()
