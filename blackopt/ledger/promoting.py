"""The writes of a promotion: its states, and the orders that make its recommendation the incumbent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from blackopt.errors import LedgerError
from blackopt.ledger.canonical import canonical_json, order_key, sha256, vector_bodies
from blackopt.ledger.rows import PromotionState, PushState
from blackopt.types import Vector

if TYPE_CHECKING:
    from blackopt.ledger.ledger import Ledger
    from blackopt.ledger.transaction import Transaction

_START = (
    "INSERT INTO promotion(number, plan, first_trial, body, body_sha, started_us) VALUES(?, ?, ?, ?, ?, ?)"
)
_INTEND = (
    "INSERT INTO incumbent(number, promotion, body, body_sha, artifact_sha, key, epoch, intended_us, next_us)"
    " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_OPEN = "state IN ('pending', 'unknown')"


class PromotionWriter(ABC):
    """What the driver writes of promotions; each method is one transaction of it."""

    ledger: Ledger
    epoch: int

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Transaction]:
        """One transaction of the driver."""

    def start_promotion(self, vector: Vector, plan: Mapping[str, object], *, at_us: int) -> int:
        """Write that a recommendation is to become the incumbent, if it proves better; returns the number.

        Raises:
            LedgerError: an earlier promotion has not come to nothing.
        """
        [body] = vector_bodies([vector])
        text, digest = canonical_json(plan), sha256(body)
        with self._transaction() as step:
            number, first = step.conn.execute(
                "SELECT (SELECT ifnull(max(number), 0) + 1 FROM promotion),"
                " (SELECT ifnull(max(number), -1) + 1 FROM trial)"
            ).fetchone()
            step.conn.execute(_START, (number, text, first, body, digest, at_us))
            data = {"number": number, "state": PromotionState.TESTING.value, "first_trial": first}
            step.event("promotion", {**data, "vector_sha": digest, "plan_sha": sha256(text)}, at_us=at_us)
        return int(number)

    def move_promotion(self, number: int, to: PromotionState, *, cause: str, at_us: int) -> None:
        """Change a promotion's state along an edge of its life.

        Raises:
            LedgerError: there is none of this number, or that edge is not in its life; nothing is changed.
        """
        with self._transaction() as step:
            _move(step, number, to, cause=cause, at_us=at_us)

    def adopt(
        self, promotion: int, vector: Vector, *, artifact_sha: str, to: PromotionState, cause: str, at_us: int
    ) -> None:
        """Intend a new incumbent: the order is durable before it is sent; one event for all of it.

        An order before it that was not answered will not be sent again: production obeys the highest number.

        Args:
            promotion: that makes it.
            vector: (n,) of the new incumbent; the former one's where the promotion is taken back.
            artifact_sha: of what will be sent.
            to: ``ADOPTING``, or ``REVERTING``, where the promotion may be already.
            cause: of that state.
            at_us: now.
        """
        [body] = vector_bodies([vector])
        digest = sha256(body)
        with self._transaction() as step:
            step.conn.execute(
                "UPDATE promotion SET state = ?, cause = ? WHERE number = ? AND state <> ?",
                (to.value, cause, promotion, to.value),
            )
            (number,) = step.conn.execute("SELECT ifnull(max(number), 0) + 1 FROM incumbent").fetchone()
            step.conn.execute(f"UPDATE incumbent SET state = 'lapsed' WHERE {_OPEN}")
            key = order_key(self.ledger.uuid, number, "adopt")
            order = (number, promotion, body, digest, artifact_sha, key, self.epoch, at_us, at_us)
            step.conn.execute(_INTEND, order)
            data = {"number": number, "promotion": promotion, "vector_sha": digest}
            more = {"artifact_sha": artifact_sha, "state": to.value, "cause": cause}
            step.event("incumbent", {**data, **more}, at_us=at_us)

    def retry_adopt(self, number: int, *, unknown: bool, next_us: int, detail: str) -> None:
        """An order to adopt failed for now, or was not answered: it is due again at ``next_us``.

        Raises:
            LedgerError: there is no such open order.
        """
        state = PushState.UNKNOWN if unknown else PushState.PENDING
        with self._transaction() as step:
            _tried(step, number, state, next_us=next_us, detail=detail)

    def adopted(
        self, number: int, promotion: int, to: PromotionState, *, refused: str = "", cause: str, at_us: int
    ) -> None:
        """An order to adopt was answered, and the promotion goes on from there.

        Raises:
            LedgerError: there is no such open order, or the promotion cannot go there.
        """
        state = PushState.REFUSED if refused else PushState.ACKED
        with self._transaction() as step:
            _tried(step, number, state, next_us=at_us, detail=refused)
            _move(step, promotion, to, cause=cause, at_us=at_us)


def _move(step: Transaction, number: int, to: PromotionState, *, cause: str, at_us: int) -> None:
    changed = step.conn.execute(
        "UPDATE promotion SET state = ?, cause = ? WHERE number = ?", (to.value, cause, number)
    ).rowcount
    if not changed:
        raise LedgerError(f"There is no promotion {number}", where="promotion", safe="nothing was changed")
    step.event("promotion", {"number": number, "state": to.value, "cause": cause}, at_us=at_us)


def _tried(step: Transaction, number: int, state: PushState, *, next_us: int, detail: str) -> None:
    """Count an attempt; an order that was ``unknown`` once stays so until it is answered."""
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
