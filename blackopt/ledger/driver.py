"""The writer. Every method is one transaction: lock, check the epoch, write, append the event, commit.

What happens to trials one by one (an order is intended, answered, renewed) may be written for many at once,
as one transaction and an event for each: the chain does not show how they were put together, so a run that
died between two sendings writes the same one.

Events are the campaign's facts: a run that was killed and resumed anywhere writes the same ones as a run that
was not, apart from the time and the epoch. So nothing that depends on the process is in them: no attempts,
leases, polls, snapshots, sessions, keys or identifiers of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from blackopt.errors import Fenced, LedgerError, UsageError
from blackopt.ledger import chain
from blackopt.ledger.batches import collector_paused
from blackopt.ledger.canonical import ask_line, members, order_key, sha256, vector_bodies
from blackopt.ledger.faults import explained
from blackopt.ledger.lock import DriverLock
from blackopt.ledger.promoting import PromotionWriter
from blackopt.ledger.readings import Intake
from blackopt.ledger.rows import (
    CentreRow,
    IngestReport,
    Mode,
    NewTell,
    NewTrial,
    PushKind,
    PushRow,
    PushState,
    TellRow,
    TrialState,
    WindowRow,
)
from blackopt.ledger.sqlite import sqlite3
from blackopt.ledger.telling import SOURCE, TellWriter
from blackopt.ledger.transaction import Transaction
from blackopt.types import Reading

if TYPE_CHECKING:
    from blackopt.ledger.ledger import Ledger

_SNAPSHOTS_KEPT = 2
_HEAD = (
    "SELECT lease.epoch, ifnull((SELECT max(seq) FROM event), 0),"
    " ifnull((SELECT hash FROM event ORDER BY seq DESC LIMIT 1), ?) FROM lease"
)
_ASK = (
    'INSERT INTO trial(number, candidate, role, version, told_before, vector_sha, "window", lower, upper,'
    " deadline_us, asked_us) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_VECTOR = "INSERT INTO vector(trial, body) VALUES(?, ?)"
_KEY = "INSERT INTO candidate_key(trial, body) VALUES(?, ?)"
_CENTRE = "INSERT INTO centre(version, vector_sha, artifact_sha, published_us) VALUES(?, ?, ?, ?)"
_WINDOW = (
    'INSERT INTO "window"(number, role, salt, start_us, end_us, control_lower, control_upper)'
    " VALUES(?, ?, ?, ?, ?, ?, ?)"
)
_PUSH = "INSERT INTO push(trial, kind, key, epoch, body_sha, next_us) VALUES(?, ?, ?, ?, ?, ?)"
_ATTEMPT = (
    "INSERT INTO push_attempt(trial, kind, n, at_us, outcome, detail)"
    " SELECT trial, kind, attempts, ?, ?, ? FROM push WHERE trial = ? AND kind = ?"
)


class Driver(PromotionWriter):
    """The only writer of a ledger; made by :meth:`blackopt.ledger.Ledger.drive`.

    Every method raises :class:`~blackopt.errors.Fenced` once a newer driver exists, a
    :class:`~blackopt.errors.RetriableError` where the disk is full or the file busy, and a
    :class:`~blackopt.errors.LedgerError` where the ledger refuses. In each case nothing was written, and the
    driver stays usable after the first two.
    """

    def __init__(self, ledger: Ledger, lock: DriverLock, epoch: int) -> None:
        self.ledger, self.epoch = ledger, epoch
        self._lock = lock
        self._released = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let the next driver in; harmless when repeated."""
        self._released = True
        self._lock.release()

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        if self._released:
            raise UsageError("driver: it was released; ask the ledger for a new one")
        handle = self.ledger.handle
        handle.check()
        with explained(handle.path, handle.fail):
            conn = handle.conn
            conn.execute("BEGIN IMMEDIATE")
            try:
                epoch, seq, prev = conn.execute(_HEAD, (chain.GENESIS,)).fetchone()
                if epoch != self.epoch:
                    raise self._fenced(epoch)
                yield Transaction(conn, epoch, (seq, prev))
                conn.execute("COMMIT")
            except BaseException:
                if conn.in_transaction:  # SQLite rolls back by itself after some errors
                    conn.execute("ROLLBACK")
                raise

    def _fenced(self, epoch: int) -> Fenced:
        return Fenced(
            "A newer driver took over this campaign",
            where=f"{self.ledger.path}, epoch {epoch}; this process has {self.epoch}",
            why="this process was stopped or cut off for long enough to be replaced",
            safe="nothing was written",
            next_step="nothing: the newer driver goes on",
        )

    def ask(
        self,
        trials: Sequence[NewTrial],
        *,
        window: WindowRow | None = None,
        centre: CentreRow | None = None,
        at_us: int,
    ) -> None:
        """T1: write trials, the window that they share where it is new, and the centre of their keys.

        Raises:
            UsageError: no trials, a vector that is not a finite (n,) array, or neither vector nor key.
            LedgerError: a number that is not the next, or a candidate that was asked before.
        """
        if not trials:
            raise UsageError("trials: expected at least one")
        with collector_paused(len(trials)):
            self._ask(trials, window, centre, at_us)

    def _ask(
        self, trials: Sequence[NewTrial], window: WindowRow | None, centre: CentreRow | None, at_us: int
    ) -> None:
        bodies = _bodies(trials)
        rows, lines = [], []
        for trial, body in zip(trials, bodies, strict=True):
            cut = trial.slice
            lower, upper = (None, None) if cut is None else (cut.lower, cut.upper)
            role, digest = trial.role.value, sha256(body)
            facts = (trial.number, trial.candidate, role, trial.version, trial.told_before)
            lines.append(ask_line(*facts, trial.window, lower, upper, digest))
            rows.append((*facts, digest, trial.window, lower, upper, trial.deadline_us, at_us))
        data: dict[str, object] = {
            "first": trials[0].number,
            "count": len(trials),
            "sha": sha256("".join(lines)),
        }
        if window is not None:
            data["window"] = _window_data(window)
        if centre is not None:
            data["centre"] = asdict(centre)
        keyed = [(t.number, body) for t, body in zip(trials, bodies, strict=True) if t.key is not None]
        whole = [(t.number, body) for t, body in zip(trials, bodies, strict=True) if t.key is None]
        with self._transaction() as step:
            if window is not None:
                step.conn.execute(_WINDOW, _window_row(window))
            step.conn.executemany(_ASK, rows)
            step.conn.executemany(_VECTOR, whole)
            step.conn.executemany(_KEY, keyed)
            if centre is not None:
                _publish(step.conn, centre, at_us)
            step.event("ask", data, at_us=at_us)

    def intend(self, bodies: Mapping[int, str], *, at_us: int) -> list[PushRow]:
        """T2: orders to apply are durable before they are sent. Their keys are the same on every try.

        Args:
            bodies: the sha256 of what will be sent, by trial.
            at_us: now.
        """
        orders = self._orders(PushKind.APPLY, bodies, at_us)
        with self._transaction() as step:
            step.move(list(bodies), TrialState.PUSHING, sources=[TrialState.ASKED])
            _write_orders(step.conn, orders)
            for trial, sha in bodies.items():
                step.event("intend", {"trial": trial, "body_sha": sha}, at_us=at_us)
        return orders

    def live(self, leases: Mapping[int, int], *, at_us: int) -> None:
        """T3: the target acknowledged; production serves each trial until its lease ends.

        Args:
            leases: when that is, by trial, in microseconds.
            at_us: now.
        """
        with self._transaction() as step:
            step.move(list(leases), TrialState.LIVE, sources=[TrialState.PUSHING])
            step.conn.executemany(
                "UPDATE trial SET live_us = ?, lease_until_us = ? WHERE number = ?",
                [(at_us, until_us, trial) for trial, until_us in leases.items()],
            )
            for trial in leases:
                self._tried(step.conn, trial, PushKind.APPLY, PushState.ACKED, "", at_us=at_us)
                step.event("live", {"trial": trial}, at_us=at_us)

    def retry(
        self, trial: int, kind: PushKind, *, unknown: bool, next_us: int, detail: str, at_us: int
    ) -> None:
        """T3 otherwise: count the attempt, and try again at ``next_us``.

        An order that was ``unknown`` once stays so: a later attempt that certainly failed says nothing of the
        first.

        Raises:
            LedgerError: there is no such open order.
        """
        with self._transaction() as step:
            row = step.conn.execute(
                "SELECT state FROM push WHERE trial = ? AND kind = ?", (trial, kind.value)
            ).fetchone()
            if row is None or row[0] not in (PushState.PENDING, PushState.UNKNOWN):
                raise LedgerError(
                    f"There is no open order to {kind.value} trial {trial}",
                    where=f"trial {trial}",
                    why=f"it is {row[0]}" if row else "none was intended",
                    safe="nothing was changed",
                    next_step=f"`blackopt status` shows what trial {trial} went through",
                )
            state = PushState.UNKNOWN if unknown or row[0] == PushState.UNKNOWN else PushState.PENDING
            self._tried(step.conn, trial, kind, state, detail, at_us=at_us)
            step.conn.execute(
                "UPDATE push SET next_us = ? WHERE trial = ? AND kind = ?", (next_us, trial, kind.value)
            )

    @staticmethod
    def _tried(
        conn: sqlite3.Connection, trial: int, kind: PushKind, state: PushState, detail: str, *, at_us: int
    ) -> None:
        conn.execute(
            "UPDATE push SET state = ?, attempts = attempts + 1 WHERE trial = ? AND kind = ?",
            (state.value, trial, kind.value),
        )
        conn.execute(_ATTEMPT, (at_us, state.value, detail, trial, kind.value))

    def renewed(self, leases: Mapping[int, int]) -> None:
        """The target renewed the leases of live trials; when each ends, by trial, in microseconds."""
        with self._transaction() as step:
            step.require(list(leases), [TrialState.LIVE])
            step.conn.executemany(
                "UPDATE trial SET lease_until_us = ? WHERE number = ?",
                [(until_us, trial) for trial, until_us in leases.items()],
            )

    def close(self, trials: Sequence[int], *, cause: str, at_us: int) -> list[PushRow]:
        """T5: stop serving trials; returns the orders to withdraw, in the order of ``trials``.

        An order to apply that is still open is settled: ``refused`` where ``cause`` says so, else ``lapsed``
        (it will not be sent again, and what it may have started ends with its lease).
        """
        open_apply = PushState.REFUSED if cause.startswith("refused") else PushState.LAPSED
        orders = self._orders(PushKind.WITHDRAW, dict.fromkeys(trials, ""), at_us)
        with self._transaction() as step:
            step.move(
                trials, TrialState.WITHDRAWING, sources=[TrialState.PUSHING, TrialState.LIVE], cause=cause
            )
            step.conn.executemany(
                "UPDATE push SET state = ? WHERE trial = ? AND kind = 'apply' AND state IN ('pending', "
                "'unknown')",
                [(open_apply.value, trial) for trial in trials],
            )
            _write_orders(step.conn, orders)
            step.event("close", {**members(trials), "cause": cause}, at_us=at_us)
        return orders

    def withdrawn(self, trials: Sequence[int], *, lapsed: bool = False, at_us: int) -> None:
        """The withdrawals were confirmed, or (``lapsed``) the leases have ended by themselves."""
        state = PushState.LAPSED if lapsed else PushState.ACKED
        with self._transaction() as step:
            step.move(trials, TrialState.AWAITING, sources=[TrialState.WITHDRAWING])
            for trial in trials:
                if lapsed:
                    step.conn.execute(
                        "UPDATE push SET state = ? WHERE trial = ? AND kind = 'withdraw'",
                        (state.value, trial),
                    )
                else:
                    self._tried(step.conn, trial, PushKind.WITHDRAW, state, "", at_us=at_us)
                step.event("withdrawn", {"trial": trial}, at_us=at_us)

    def ingest(self, source: str, readings: Sequence[Reading], *, at_us: int) -> IngestReport:
        """T4: store a page of readings. Sending them again stores nothing and writes no event.

        Raises:
            UsageError: the source's name is empty or taken.
        """
        if not source or source == SOURCE:
            raise UsageError(f"source: expected a name other than {SOURCE!r}, got {source!r}")
        with self._transaction() as step:
            intake = Intake(step.conn, source, at_us)
            report = intake.take(readings)
            if intake.notes.lines:
                step.event("ingest", intake.notes.data(source), at_us=at_us)
        return report

    def polled(self, window: int, watermarks: Mapping[str, int], *, at_us: int) -> None:
        """Note how far each metric of a window is known. A watermark never goes back."""
        with self._transaction() as step:
            step.conn.executemany(
                'INSERT INTO watermark("window", metric, as_of_us, polled_us) VALUES(?, ?, ?, ?)'
                " ON CONFLICT DO UPDATE SET as_of_us = max(as_of_us, excluded.as_of_us),"
                " polled_us = max(polled_us, excluded.polled_us)",
                [(window, metric, as_of_us, at_us) for metric, as_of_us in sorted(watermarks.items())],
            )

    def tell(self, tells: Sequence[NewTell], *, at_us: int) -> list[TellRow]:
        """T6: end trials, each once, with the next numbers of the sequence, in the given order.

        Raises:
            AlreadyTold: a trial that was told before; nothing of the call is written.
            UsageError: no tells, a value that does not fit its status, readings that are no numbers or of
            another trial. LedgerError: a trial that is still in production, or a used reading that is not
            stored.
        """
        with collector_paused(len(tells)):
            writer = TellWriter(tells, at_us)
            with self._transaction() as step:
                rows, data = writer.write(step.conn)
                step.event("tell", data, at_us=at_us)
        return rows

    def snapshot(self, *, tell_seq: int, asked: int, optimizer_version: str, state: bytes) -> None:
        """T7: keep the optimizer's state after ``tell_seq`` tells; the newest two stay."""
        with self._transaction() as step:
            (told,) = step.conn.execute("SELECT ifnull(max(seq), 0) FROM tell").fetchone()
            if not 0 <= tell_seq <= told:
                raise UsageError(f"tell_seq: expected 0 to {told}, got {tell_seq!r}")
            step.conn.execute(
                "INSERT OR REPLACE INTO snapshot(tell_seq, asked, optimizer_version, state, sha) VALUES(?, "
                "?, ?, ?, ?)",
                (tell_seq, asked, optimizer_version, state, sha256(state)),
            )
            step.conn.execute(
                "DELETE FROM snapshot WHERE tell_seq NOT IN (SELECT tell_seq FROM snapshot ORDER BY "
                "tell_seq DESC LIMIT ?)",
                (_SNAPSHOTS_KEPT,),
            )

    def set_mode(self, mode: Mode, *, cause: str, at_us: int) -> None:
        """Run, pause, stop or end the campaign; the mode that it has already is no new fact."""
        with self._transaction() as step:
            changed = step.conn.execute(
                "UPDATE campaign SET mode = ? WHERE mode <> ?", (mode.value, mode.value)
            ).rowcount
            if changed:
                step.event("mode", {"mode": mode.value, "cause": cause}, at_us=at_us)

    def note(self, kind: str, data: Mapping[str, object], *, at_us: int, trial: int | None = None) -> None:
        """Write any other fact into the chain.

        Raises:
            UsageError: the kind is no lower-case word, or the data is no plain JSON.
        """
        chain.require_kind(kind)
        with self._transaction() as step:
            step.event(kind, dict(data) if trial is None else {**data, "trial": trial}, at_us=at_us)

    def _orders(self, kind: PushKind, bodies: Mapping[int, str], at_us: int) -> list[PushRow]:
        """Orders of this epoch that nobody has sent, due at once, by trial in the order of ``bodies``."""
        return [
            PushRow(
                trial,
                kind,
                order_key(self.ledger.uuid, trial, kind),
                self.epoch,
                sha,
                PushState.PENDING,
                0,
                at_us,
            )
            for trial, sha in bodies.items()
        ]


def _bodies(trials: Sequence[NewTrial]) -> list[bytes]:
    """Of each trial its vector or its key, as it is stored."""
    for trial in trials:
        if (trial.key is None) == (trial.vector is None):
            raise UsageError(f"trial {trial.number}: expected a vector or a key, and not both")
    vectors = iter(vector_bodies([trial.vector for trial in trials if trial.vector is not None]))
    return [next(vectors) if trial.key is None else trial.key for trial in trials]


def _publish(conn: sqlite3.Connection, centre: CentreRow, at_us: int) -> None:
    """Write a centre where its version is new.

    Raises:
        LedgerError: another one was published under this version.
    """
    row = conn.execute(
        "SELECT version, vector_sha, artifact_sha FROM centre WHERE version = ?", (centre.version,)
    ).fetchone()
    if row is None:
        conn.execute(_CENTRE, (centre.version, centre.vector_sha, centre.artifact_sha, at_us))
    elif CentreRow(*row) != centre:
        raise LedgerError(
            f"Version {centre.version} has a centre already, and this is another",
            where=f"centre {centre.version}",
            why="keys that are in traffic are relative to the one that was published first",
            safe="nothing was written",
            next_step="report this: it should not happen",
        )


def _write_orders(conn: sqlite3.Connection, orders: Sequence[PushRow]) -> None:
    conn.executemany(_PUSH, [(o.trial, o.kind.value, o.key, o.epoch, o.body_sha, o.next_us) for o in orders])


def _window_row(window: WindowRow) -> tuple[Any, ...]:
    control = window.control
    return (
        window.number,
        window.role.value,
        window.salt,
        window.start_us,
        window.end_us,
        control.lower,
        control.upper,
    )


def _window_data(window: WindowRow) -> dict[str, object]:
    """How traffic was cut, and for how long; the times themselves may differ in a resumed run."""
    return {
        "number": window.number,
        "role": window.role.value,
        "salt": window.salt,
        "length_us": window.end_us - window.start_us,
        "control": [window.control.lower, window.control.upper],
    }
