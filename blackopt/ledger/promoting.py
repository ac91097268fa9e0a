"""The writes of a promotion: its states, and the orders that make its recommendation the incumbent.

Each function is the inside of one of the driver's transactions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from blackopt.errors import LedgerError
from blackopt.ledger.canonical import canonical_json, order_key, sha256, vector_bodies
from blackopt.ledger.rows import PromotionState, PushState
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.ledger.transactions import Transaction

_START = (
    "INSERT INTO promotion(number, plan, first_trial, body, body_sha, started_us) VALUES(?, ?, ?, ?, ?, ?)"
)
_INTEND = (
    "INSERT INTO incumbent(number, promotion, body, body_sha, artifact_sha, key, epoch, intended_us, next_us)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_OPEN = "state IN ('pending', 'unknown')"


def start(step: Transaction, vector: Vector, plan: Mapping[str, object], *, at_us: int) -> int:
    """Write a new promotion; returns its number.

    Raises:
        LedgerError: an earlier one has not come to nothing.
    """
    [body] = vector_bodies([vector])
    text = canonical_json(plan)
    (number, first) = step.conn.execute(
        "SELECT (SELECT ifnull(max(number), 0) + 1 FROM promotion),"
        " (SELECT ifnull(max(number), -1) + 1 FROM trial)"
    ).fetchone()
    digest = sha256(body)
    step.conn.execute(_START, (number, text, first, body, digest, at_us))
    data = {"number": number, "state": PromotionState.TESTING.value, "first_trial": first}
    step.event("promotion", {**data, "vector_sha": digest, "plan_sha": sha256(text)}, at_us=at_us)
    return int(number)


def move(step: Transaction, number: int, to: PromotionState, *, cause: str, at_us: int) -> None:
    """Change a promotion's state along a legal edge.

    Raises:
        LedgerError: there is none of this number, or it is in another state; nothing is changed.
    """
    changed = step.conn.execute(
        "UPDATE promotion SET state = ?, cause = ? WHERE number = ?", (to.value, cause, number)
    ).rowcount
    if not changed:
        raise LedgerError(f"There is no promotion {number}", where="promotion", safe="nothing was changed")
    step.event("promotion", {"number": number, "state": to.value, "cause": cause}, at_us=at_us)


def intend(
    step: Transaction,
    promotion: int,
    vector: Vector,
    *,
    uuid: str,
    artifact_sha: str,
    epoch: int,
    to: PromotionState,
    cause: str,
    at_us: int,
) -> None:
    """Make it durable what production is to fall back to, before it is told; one event for all of it.

    An order before it that was not answered will not be sent again: production obeys the highest number.
    """
    [body] = vector_bodies([vector])
    step.conn.execute(
        "UPDATE promotion SET state = ?, cause = ? WHERE number = ? AND state <> ?",
        (to.value, cause, promotion, to.value),
    )
    (number,) = step.conn.execute("SELECT ifnull(max(number), 0) + 1 FROM incumbent").fetchone()
    step.conn.execute(f"UPDATE incumbent SET state = 'lapsed' WHERE {_OPEN}")
    key, digest = order_key(uuid, number, "adopt"), sha256(body)
    step.conn.execute(_INTEND, (number, promotion, body, digest, artifact_sha, key, epoch, at_us, at_us))
    data = {"number": number, "promotion": promotion, "vector_sha": digest, "artifact_sha": artifact_sha}
    step.event("incumbent", {**data, "state": to.value, "cause": cause}, at_us=at_us)


def tried(step: Transaction, number: int, state: PushState, *, next_us: int, detail: str) -> None:
    """Count an attempt; an order that was ``unknown`` once stays so until it is answered.

    Raises:
        LedgerError: there is no such open order.
    """
    row = step.conn.execute(f"SELECT state FROM incumbent WHERE number = ? AND {_OPEN}", (number,)).fetchone()
    if row is None:
        raise LedgerError(
            f"There is no open order to adopt incumbent {number}",
            where=f"incumbent {number}",
            why="it was answered, or a later one took its place",
            safe="nothing was changed",
            next_step="`blackopt status` shows where the promotion stands",
        )
    if state is PushState.PENDING and row[0] == PushState.UNKNOWN:
        state = PushState.UNKNOWN
    step.conn.execute(
        "UPDATE incumbent SET state = ?, attempts = attempts + 1, next_us = ?, detail = ? WHERE number = ?",
        (state.value, next_us, detail, number),
    )
