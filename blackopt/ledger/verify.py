"""Does the ledger tell one story? Every fact against the chain, every hash against what it covers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from blackopt.ledger.canonical import ask_line, observations_sha, reading_text, sha256, tell_line
from blackopt.ledger.chain import GENESIS, broken, verify_links
from blackopt.ledger.faults import damaged
from blackopt.ledger.sqlite import sqlite3

_TAIL = 64
_EVENTS = "SELECT seq, at_us, epoch, kind, data, prev, hash FROM event"
_TRIALS = (
    'SELECT t.number, t.candidate, t.role, t.version, t.told_before, t."window",'
    " t.lower, t.upper, t.vector_sha, ifnull(v.body, k.body) FROM trial AS t"
    " LEFT JOIN vector AS v ON v.trial = t.number"
    " LEFT JOIN candidate_key AS k ON k.trial = t.number ORDER BY t.number"
)
_TELLS = "SELECT seq, trial, status, value, se, obs_sha, cause, used FROM tell ORDER BY seq"
_READINGS = 'SELECT metric, "window", arm, cohort, as_of_us, stats FROM reading WHERE id = ?'


def verify_file(conn: sqlite3.Connection, path: Path, *, whole: bool) -> None:
    """Ask SQLite whether the file is sound; ``whole`` also compares indexes with tables.

    Raises:
        LedgerError: it is not.
    """
    (verdict,) = conn.execute(f"PRAGMA {'integrity_check' if whole else 'quick_check'}(1)").fetchone()
    if verdict != "ok":
        raise damaged(path, verdict)


def verify_tail(conn: sqlite3.Connection, path: Path) -> None:
    """Check the newest links of the chain, and that the newest tell is in it: what a torn write would hit.

    Raises:
        LedgerError: names the event.
    """
    rows = conn.execute(f"{_EVENTS} ORDER BY seq DESC LIMIT ?", (_TAIL,)).fetchall()[::-1]
    if not rows:
        raise damaged(path, "it has no events")
    start = rows[0][0] - 1
    verify_links(rows, path, prev=GENESIS if start == 0 else None, seq=start)


def verify_all(conn: sqlite3.Connection, path: Path) -> None:
    """Check everything that the ledger can prove about itself.

    Raises:
        LedgerError: names the first row that does not fit.
    """
    verify_file(conn, path, whole=True)
    verify_links(conn.execute(f"{_EVENTS} ORDER BY seq"), path, prev=GENESIS, seq=0)
    asks: list[tuple[int, dict[str, Any]]] = []
    tells: list[tuple[int, dict[str, Any]]] = []
    for seq, kind, data in conn.execute(
        "SELECT seq, kind, data FROM event WHERE kind IN ('ask', 'tell') ORDER BY seq"
    ):
        (asks if kind == "ask" else tells).append((seq, json.loads(data)))
    _verify_batches(path, asks, _ask_lines(conn, path), "trial", 0)
    _verify_batches(path, tells, _tell_lines(conn, path), "tell", 1)
    _verify_ends(conn, path)
    _verify_centres(conn, path, [data["centre"] for _, data in asks if "centre" in data])
    _verify_promotions(conn, path)
    for row in conn.execute("PRAGMA foreign_key_check"):
        raise broken(path, f"{row[0]} row {row[1]}", f"it refers to a row of {row[2]} that is missing")


def _ask_lines(conn: sqlite3.Connection, path: Path) -> list[str]:
    lines = []
    for row in conn.execute(_TRIALS):
        number, digest, body = row[0], row[8], row[9]
        if body is None or sha256(body) != digest:
            raise broken(path, f"trial {number}", "its vector or key does not fit its hash")
        lines.append(ask_line(*row[:9]))
    return lines


def _tell_lines(conn: sqlite3.Connection, path: Path) -> list[str]:
    lines: list[str] = []
    for seq, trial, status, value, se, obs_sha, cause, used in conn.execute(_TELLS):
        if seq != len(lines) + 1:
            raise broken(path, f"tell {len(lines) + 1}", "it is missing")
        texts = [_text(conn, path, seq, number) for number in json.loads(used)]
        if observations_sha(texts) != obs_sha:
            raise broken(path, f"tell {seq}", "the readings it was computed from do not fit its hash")
        lines.append(tell_line(seq, trial, status, value, se, obs_sha, cause))
    return lines


def _text(conn: sqlite3.Connection, path: Path, seq: int, number: int) -> str:
    row = conn.execute(_READINGS, (number,)).fetchone()
    if row is None:
        raise broken(path, f"tell {seq}", f"reading {number} is missing")
    return reading_text(row[:5], row[5])


def _verify_batches(
    path: Path, events: list[tuple[int, dict[str, Any]]], lines: list[str], name: str, start: int
) -> None:
    """The events of a kind must cover its rows without gaps, and each hash its rows."""
    at = 0
    for seq, data in events:
        end = at + data["count"]
        if data["first"] != at + start or sha256("".join(lines[at:end])) != data["sha"]:
            last = end - 1 + start
            rows = f"{name} {data['first']}" if data["count"] == 1 else f"{name} {data['first']} to {last}"
            raise broken(path, rows, f"not what event {seq} says was written")
        at = end
    if at != len(lines):
        raise broken(path, f"{name} {at + start}", "no event tells of it")


def _verify_centres(conn: sqlite3.Connection, path: Path, told: list[dict[str, Any]]) -> None:
    """Centres are what the asks that were relative to them say."""
    stated = {data["version"]: data for data in told}
    for version, vector, artifact in conn.execute("SELECT version, vector_sha, artifact_sha FROM centre"):
        found = {"version": version, "vector_sha": vector, "artifact_sha": artifact}
        if stated.pop(version, None) != found:
            raise broken(path, f"centre {version}", "not what the events say was published")
    for version in sorted(stated):
        raise broken(path, f"centre {version}", "it is missing")


def _verify_promotions(conn: sqlite3.Connection, path: Path) -> None:
    """Promotions and incumbents are what the events about them say."""
    told: dict[str, dict[str, Any]] = {}
    states: dict[str, str] = {}
    sql = "SELECT kind, data FROM event WHERE kind IN ('promotion', 'incumbent') ORDER BY seq"
    for kind, text in conn.execute(sql):
        data = json.loads(text)
        told.setdefault(f"{kind} {data['number']}", data)
        states[f"promotion {data['promotion' if kind == 'incumbent' else 'number']}"] = data["state"]
    found = {}
    for number, body, plan, state in conn.execute("SELECT number, body, plan, state FROM promotion"):
        name = f"promotion {number}"
        found[name] = {"vector_sha": sha256(body), "plan_sha": sha256(plan)}
        if states.get(name) != state:
            raise broken(path, name, f"it is {state}, and no event says so")
    for number, body, artifact in conn.execute("SELECT number, body, artifact_sha FROM incumbent"):
        found[f"incumbent {number}"] = {"vector_sha": sha256(body), "artifact_sha": artifact}
    for name in sorted(told.keys() | found.keys()):
        if name not in found:
            raise broken(path, name, "it is missing")
        stated = told.get(name, {})
        if any(stated.get(key) != value for key, value in found[name].items()):
            raise broken(path, name, "not what its event says was written")


def _verify_ends(conn: sqlite3.Connection, path: Path) -> None:
    """A trial is TOLD if and only if it has its tell."""
    row = conn.execute(
        "SELECT trial.number, trial.state FROM trial LEFT JOIN tell ON tell.trial = trial.number"
        " WHERE (trial.state = 'TOLD') <> (tell.seq IS NOT NULL) ORDER BY trial.number LIMIT 1"
    ).fetchone()
    if row is not None:
        raise broken(path, f"trial {row[0]}", f"it is {row[1]}, and its tell says otherwise")
