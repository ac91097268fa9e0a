"""Reads: rows out of tables, nothing else."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sqlite_utils import Database

from blackopt.errors import UsageError
from blackopt.ledger.canonical import sha256, vector_of
from blackopt.ledger.rows import (
    AttemptRow,
    CampaignRow,
    CentreRow,
    ConflictRow,
    Disposition,
    EventRow,
    IncumbentRow,
    Mode,
    PromotionRow,
    PromotionState,
    PushKind,
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
from blackopt.types import Reading, Role, Slice, Status

_TRIAL = (
    "SELECT t.number, t.candidate, t.role, t.version, t.told_before, ifnull(v.body, k.body),"
    ' v.trial IS NULL, t.vector_sha, t."window",'
    " t.lower, t.upper, t.deadline_us, t.state, t.cause, t.asked_us, t.live_us, t.lease_until_us"
    " FROM trial AS t LEFT JOIN vector AS v ON v.trial = t.number"
    " LEFT JOIN candidate_key AS k ON k.trial = t.number"
)
_PUSH = "SELECT trial, kind, key, epoch, body_sha, state, attempts, next_us FROM push"
_READING = (
    'SELECT id, metric, "window", arm, cohort, as_of_us, stats, trial, received_us, disposition FROM reading'
)
_TELL = (
    "SELECT l.seq, l.trial, t.candidate, t.role, l.status, l.value, l.se, l.obs_sha, l.at_us"
    " FROM tell AS l JOIN trial AS t ON t.number = l.trial"
)
_OPEN_PUSHES = frozenset({PushState.PENDING, PushState.UNKNOWN})


def campaign(db: Database) -> CampaignRow:
    """The campaign of this file."""
    (row,) = db.query(
        "SELECT uuid, name, config, config_sha, optimizer, optimizer_version, mode, created_us FROM campaign"
    )
    return CampaignRow(**{**row, "mode": Mode(row["mode"])})


def trials(
    db: Database,
    *,
    states: Collection[TrialState] | None,
    role: Role | None,
    window: int | None,
    first: int,
    limit: int | None,
) -> list[TrialRow]:
    """Trials by number, from number ``first`` on."""
    terms, values = ["t.number >= ?"], [first]  # type: tuple[list[str], list[object]]
    if states is not None:
        terms.append(f"t.state IN ({_marks(states)})")
        values.extend(states)
        if TrialState.TOLD not in states:
            terms.append("t.state <> 'TOLD'")  # said aloud, so that the partial index of open trials is used
    if role is not None:
        terms.append("t.role = ?")
        values.append(role)
        if role is not Role.SEARCH:
            terms.append("t.role <> 'search'")  # said aloud, so that the partial index is used
    if window is not None:
        terms.append('t."window" = ?')
        values.append(window)
    values.append(-1 if limit is None else limit)
    sql = f"{_TRIAL} WHERE {' AND '.join(terms)} ORDER BY t.number LIMIT ?"
    return [_trial(row) for row in db.conn.execute(sql, values)]


def trial(db: Database, number: int) -> TrialRow:
    """One trial.

    Raises:
        UsageError: there is none of this number.
    """
    row = db.conn.execute(f"{_TRIAL} WHERE t.number = ?", (number,)).fetchone()
    if row is None:
        raise UsageError(f"trial: there is no trial {number!r} in this ledger")
    return _trial(row)


def counts(db: Database) -> dict[str, int]:
    """Trials by state and role, tells by status, zeros included; reads only what is open or unusual."""
    found = {state.value: 0 for state in TrialState} | {f"told.{status.value}": 0 for status in Status}
    # Numbers are gapless, so the newest is the count.
    (asked,) = db.query("SELECT ifnull(max(number) + 1, 0) AS n FROM trial")
    others = {role.value: 0 for role in Role if role is not Role.SEARCH}
    for row in db.query("SELECT role, count(*) AS n FROM trial WHERE role <> 'search' GROUP BY role"):
        others[row["role"]] = row["n"]
    found |= {"trials": asked["n"], "trials.search": asked["n"] - sum(others.values())}
    found |= {f"trials.{role}": n for role, n in others.items()}
    for row in db.query("SELECT state, count(*) AS n FROM trial WHERE state <> 'TOLD' GROUP BY state"):
        found[row["state"]] = row["n"]
    unusual = 0
    for row in db.query("SELECT status, count(*) AS n FROM tell WHERE status <> 'ok' GROUP BY status"):
        found[f"told.{row['status']}"] = row["n"]
        unusual += row["n"]
    (told,) = db.query("SELECT ifnull(max(seq), 0) AS n FROM tell")
    found[TrialState.TOLD.value] = told["n"]
    found["told.ok"] = told["n"] - unusual
    return found


def windows(db: Database) -> list[WindowRow]:
    """Every window, by number."""
    return [
        WindowRow(
            row["number"],
            Role(row["role"]),
            row["salt"],
            row["start_us"],
            row["end_us"],
            Slice(row["control_lower"], row["control_upper"]),
        )
        for row in db.query('SELECT * FROM "window" ORDER BY number')
    ]


def pushes(db: Database, *, states: Collection[PushState] | None) -> list[PushRow]:
    """Orders by trial, apply before withdraw."""
    where, values = "", []  # type: tuple[str, list[object]]
    if states is not None:
        where, values = f" WHERE state IN ({_marks(states)})", list(states)
        if _OPEN_PUSHES.issuperset(states):
            where += " AND state IN ('pending', 'unknown')"
    return [push_row(row) for row in db.conn.execute(f"{_PUSH}{where} ORDER BY trial, kind", values)]


def pushes_of(db: Database, numbers: Collection[int], kind: PushKind) -> list[PushRow]:
    """The orders of one kind of some trials, by trial."""
    sql = f"{_PUSH} WHERE kind = ? AND trial IN (SELECT value FROM json_each(?)) ORDER BY trial"
    return [push_row(row) for row in db.conn.execute(sql, (kind, json.dumps(list(numbers))))]


def centres(db: Database) -> list[CentreRow]:
    """Every centre that was published, by version."""
    rows = db.conn.execute("SELECT version, vector_sha, artifact_sha FROM centre ORDER BY version")
    return [CentreRow(*row) for row in rows]


def promotions(db: Database) -> list[PromotionRow]:
    """Every promotion, by number."""
    return [
        PromotionRow(
            row["number"],
            json.loads(row["plan"]),
            row["first_trial"],
            vector_of(row["body"]),
            row["body_sha"],
            row["started_us"],
            PromotionState(row["state"]),
            row["cause"],
        )
        for row in db.query("SELECT * FROM promotion ORDER BY number")
    ]


def incumbents(db: Database) -> list[IncumbentRow]:
    """Every order that made an incumbent, by number."""
    return [
        IncumbentRow(
            row["number"],
            row["promotion"],
            vector_of(row["body"]),
            row["body_sha"],
            row["artifact_sha"],
            row["key"],
            row["epoch"],
            row["intended_us"],
            PushState(row["state"]),
            row["attempts"],
            row["next_us"],
            row["detail"],
        )
        for row in db.query("SELECT * FROM incumbent ORDER BY number")
    ]


def attempts(db: Database, number: int) -> list[AttemptRow]:
    """Every try to deliver a trial's orders."""
    rows = db.query("SELECT * FROM push_attempt WHERE trial = ? ORDER BY kind, n", [number])
    return [AttemptRow(**{**row, "kind": PushKind(row["kind"])}) for row in rows]


def latest(db: Database, window: int, *, arm: str | None) -> list[ReadingRow]:
    """The newest accepted revision per (metric, arm, cohort), in that order."""
    # SQLite takes the bare columns from the row that has the maximum.
    arms, values = (" AND arm = ?", [window, arm]) if arm is not None else ("", [window])
    sql = (
        'SELECT id, metric, "window", arm, cohort, max(as_of_us), stats, trial, received_us, disposition'
        f' FROM reading WHERE "window" = ?{arms}'
        " AND disposition = 'accepted' AND disposition <> 'quarantined'"
        " GROUP BY metric, arm, cohort ORDER BY metric, arm, cohort"
    )
    return [_reading(row) for row in db.conn.execute(sql, values)]


def revisions(
    db: Database, window: int, arm: str | None, disposition: Disposition | None
) -> list[ReadingRow]:
    """Every stored reading of a window, by (metric, arm, cohort, as_of)."""
    terms, values = ['"window" = ?'], [window]  # type: tuple[list[str], list[object]]
    if arm is not None:
        terms.append("arm = ?")
        values.append(arm)
    if disposition is not None:
        terms.append("disposition = ?")
        values.append(disposition)
        quarantined = disposition is Disposition.QUARANTINED
        # said aloud, so that a partial index is used
        terms.append(f"disposition {'=' if quarantined else '<>'} 'quarantined'")
    sql = f"{_READING} WHERE {' AND '.join(terms)} ORDER BY metric, arm, cohort, as_of_us, id"
    return [_reading(row) for row in db.conn.execute(sql, values)]


def quarantined(db: Database) -> list[ReadingRow]:
    """Readings of arms and windows that this campaign does not know, each place once."""
    return [
        _reading(row) for row in db.conn.execute(f"{_READING} WHERE disposition = 'quarantined' ORDER BY id")
    ]


def conflicts(db: Database) -> list[ConflictRow]:
    """Readings that contradicted a stored one."""
    return [
        ConflictRow(
            row["id"],
            row["source"],
            Reading(
                row["metric"],
                row["window"],
                row["arm"],
                row["cohort"],
                row["as_of_us"],
                json.loads(row["stats"]),
            ),
            row["received_us"],
        )
        for row in db.query("SELECT * FROM conflict ORDER BY id")
    ]


def rejected(db: Database) -> list[RejectedRow]:
    """Readings that no metric can be computed from."""
    columns = 'id, source, metric, "window", arm, cohort, reason, body, received_us'
    return [RejectedRow(**row) for row in db.query(f"SELECT {columns} FROM rejected ORDER BY id")]


def watermarks(db: Database, window: int) -> dict[str, Watermark]:
    """How far each metric of a window is known."""
    rows = db.query('SELECT * FROM watermark WHERE "window" = ? ORDER BY metric', [window])
    return {row["metric"]: Watermark(row["as_of_us"], row["polled_us"]) for row in rows}


def tells(db: Database, *, after: int) -> list[TellRow]:
    """Tells with a greater seq, in order."""
    return [
        TellRow(seq, number, candidate, Role(role), Status(status), value, se, obs_sha, at_us)
        for seq, number, candidate, role, status, value, se, obs_sha, at_us in db.conn.execute(
            f"{_TELL} WHERE l.seq > ? ORDER BY l.seq", (after,)
        )
    ]


def events(db: Database, *, after: int) -> list[EventRow]:
    """Events with a greater seq, in order."""
    rows = db.query("SELECT * FROM event WHERE seq > ? ORDER BY seq", [after])
    return [EventRow(**{**row, "data": json.loads(row["data"])}) for row in rows]


def sessions(db: Database) -> list[SessionRow]:
    """Every driver there has been, by epoch."""
    return [
        SessionRow(row["epoch"], row["pid"], row["host"], row["started_us"])
        for row in db.query("SELECT * FROM session ORDER BY epoch")
    ]


def newest_snapshot(db: Database, optimizer_version: str) -> SnapshotRow | None:
    """The newest whole snapshot of this version; one that does not fit its hash is passed over, as if it were
    deleted."""
    rows = db.query(
        "SELECT * FROM snapshot WHERE optimizer_version = ? ORDER BY tell_seq DESC", [optimizer_version]
    )
    for row in rows:
        if sha256(row["state"]) == row["sha"]:
            return SnapshotRow(row["tell_seq"], row["asked"], row["optimizer_version"], row["state"])
    return None


def push_row(row: tuple[Any, ...]) -> PushRow:
    """A row of the outbox."""
    number, kind, key, epoch, body_sha, state, tried, next_us = row
    return PushRow(number, PushKind(kind), key, epoch, body_sha, PushState(state), tried, next_us)


def _trial(row: tuple[Any, ...]) -> TrialRow:
    (
        number,
        candidate,
        role,
        version,
        told_before,
        body,
        keyed,
        vector_sha,
        window,
        lower,
        upper,
        deadline_us,
        state,
        cause,
        asked_us,
        live_us,
        lease_until_us,
    ) = row
    return TrialRow(
        number,
        candidate,
        Role(role),
        version,
        told_before,
        body,
        bool(keyed),
        vector_sha,
        window,
        None if lower is None else Slice(lower, upper),
        deadline_us,
        TrialState(state),
        cause,
        asked_us,
        live_us,
        lease_until_us,
    )


def _reading(row: tuple[Any, ...]) -> ReadingRow:
    number, metric, window, arm, cohort, as_of_us, stats, of_trial, received_us, disposition = row
    reading = Reading(metric, window, arm, cohort, as_of_us, json.loads(stats))
    return ReadingRow(number, reading, of_trial, received_us, Disposition(disposition))


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))
