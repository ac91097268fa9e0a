"""A promotion in the ledger: its life, the incumbents it makes, and ledgers from before there were any."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from blackopt.errors import LedgerError
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.migrations import MIGRATIONS, SCHEMA_VERSION, migrate, statements, version_of
from blackopt.ledger.rows import NewCampaign, NewTrial, PromotionState, PushState, WindowRow
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import Role, Slice

VECTOR = np.array([0.25, -1.5])
START = np.array([0.0, 0.0])
PLAN: dict[str, object] = {"looks": 3, "ramp": [10_000, 500_000]}
S = PromotionState

EDGES = {
    S.TESTING: {S.RAMPING, S.REFUSED, S.REVERTING},
    S.RAMPING: {S.ADOPTING, S.REVERTING},
    S.ADOPTING: {S.HOLDING, S.REVERTING},
    S.HOLDING: {S.DONE, S.REVERTING},
    S.DONE: {S.REVERTING},
    S.REFUSED: set(),
    S.REVERTING: {S.REVERTED},
    S.REVERTED: set(),
}


@pytest.fixture
def promoter(tmp_path: Path) -> Iterator[Driver]:
    campaign = NewCampaign("hill", "{}", "0" * 64, "random", "random/1")
    with (
        Ledger.create(tmp_path / "hill.db", campaign, at_us=1) as ledger,
        ledger.drive(at_us=2) as driver,
    ):
        yield driver


def state(driver: Driver) -> PromotionState:
    return driver.ledger.promotions()[-1].state


def adopt(driver: Driver, vector: Any, to: PromotionState, *, sha: str = "a" * 64) -> None:
    driver.adopt(1, vector, artifact_sha=sha, to=to, cause="", at_us=9)


@settings(max_examples=60, deadline=None)
@given(path=st.lists(st.sampled_from(sorted(S)), max_size=8))
def test_only_the_edges_of_its_life_can_be_walked(
    tmp_path_factory: pytest.TempPathFactory, path: list[PromotionState]
) -> None:
    campaign = NewCampaign("hill", "{}", "0" * 64, "random", "random/1")
    file = tmp_path_factory.mktemp("edges") / "hill.db"
    with Ledger.create(file, campaign, at_us=1) as ledger, ledger.drive(at_us=2) as driver:
        number = driver.start_promotion(VECTOR, PLAN, at_us=3)
        at = S.TESTING
        for to in path:
            if to in EDGES[at]:
                driver.move_promotion(number, to, cause=f"to {to}", at_us=4)
                at = to
            else:
                with pytest.raises(LedgerError):
                    driver.move_promotion(number, to, cause="", at_us=4)
            assert state(driver) is at
        ledger.verify()


def test_a_promotion_remembers_what_it_was_started_with(promoter: Driver) -> None:
    number = promoter.start_promotion(VECTOR, PLAN, at_us=3)
    [row] = promoter.ledger.promotions()
    assert (row.number, row.plan, row.first_trial, row.started_us) == (number, PLAN, 0, 3)
    assert row.vector.tolist() == VECTOR.tolist()
    assert row.state is S.TESTING


def test_another_follows_only_one_that_came_to_nothing(promoter: Driver) -> None:
    promoter.start_promotion(VECTOR, PLAN, at_us=3)
    with pytest.raises(LedgerError):
        promoter.start_promotion(VECTOR, PLAN, at_us=4)
    promoter.move_promotion(1, S.REFUSED, cause="no proof", at_us=5)
    assert promoter.start_promotion(VECTOR, PLAN, at_us=6) == 2


def test_an_incumbent_is_intended_tried_and_answered(promoter: Driver) -> None:
    promoter.start_promotion(VECTOR, PLAN, at_us=3)
    with pytest.raises(LedgerError, match="incumbents are numbered"):
        adopt(promoter, VECTOR, S.TESTING)
    promoter.move_promotion(1, S.RAMPING, cause="proven", at_us=4)
    adopt(promoter, VECTOR, S.ADOPTING)
    assert state(promoter) is S.ADOPTING
    promoter.retry_adopt(1, unknown=True, next_us=20, detail="no answer")
    promoter.retry_adopt(1, unknown=False, next_us=30, detail="down")
    [order] = promoter.ledger.incumbents()
    assert (order.state, order.attempts, order.next_us) == (PushState.UNKNOWN, 2, 30)
    promoter.adopted(1, 1, S.HOLDING, cause="", at_us=31)
    [order] = promoter.ledger.incumbents()
    assert (order.state, order.attempts) == (PushState.ACKED, 3)
    assert state(promoter) is S.HOLDING
    with pytest.raises(LedgerError, match="no open order"):
        promoter.retry_adopt(1, unknown=False, next_us=40, detail="")
    promoter.ledger.verify()


def test_taking_it_back_settles_the_order_that_was_open(promoter: Driver) -> None:
    promoter.start_promotion(VECTOR, PLAN, at_us=3)
    promoter.move_promotion(1, S.RAMPING, cause="proven", at_us=4)
    adopt(promoter, VECTOR, S.ADOPTING)
    adopt(promoter, START, S.REVERTING, sha="b" * 64)
    first, second = promoter.ledger.incumbents()
    assert (first.state, second.state) == (PushState.LAPSED, PushState.PENDING)
    assert second.vector.tolist() == START.tolist()
    assert first.key != second.key
    promoter.adopted(2, 1, S.REVERTED, cause="by a person", at_us=31)
    assert state(promoter) is S.REVERTED


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("UPDATE promotion SET plan = '{}'", "immutable"),
        ("UPDATE incumbent SET body_sha = artifact_sha", "immutable"),
        ("DELETE FROM promotion", "append-only"),
        ("DELETE FROM incumbent", "append-only"),
        ("UPDATE incumbent SET state = 'pending'", "settled"),
        (("INSERT INTO promotion(number, plan, first_trial, body, body_sha, started_us) SELECT 3, plan,"
         " first_trial, body, body_sha, 1 FROM promotion"), "numbered without gaps"),
    ],
)  # fmt: skip
def test_what_was_written_stays(promoter: Driver, sql: str, why: str) -> None:
    promoter.start_promotion(VECTOR, PLAN, at_us=3)
    promoter.move_promotion(1, S.RAMPING, cause="proven", at_us=4)
    adopt(promoter, VECTOR, S.ADOPTING)
    promoter.adopted(1, 1, S.HOLDING, cause="", at_us=31)
    with pytest.raises(sqlite3.IntegrityError, match=why):
        promoter.ledger.db.conn.execute(sql)


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        ("UPDATE promotion SET body = zeroblob(16)", "promotion 1"),
        ("UPDATE promotion SET plan = '{}'", "promotion 1"),
        ("UPDATE promotion SET state = 'DONE'", "promotion 1"),
        ("UPDATE incumbent SET body = zeroblob(16)", "incumbent 1"),
        ("DELETE FROM incumbent", "incumbent 1"),
    ],
)
def test_f08_verify_finds_what_was_changed_by_hand(promoter: Driver, sql: str, where: str) -> None:
    promoter.start_promotion(VECTOR, PLAN, at_us=3)
    promoter.move_promotion(1, S.RAMPING, cause="proven", at_us=4)
    adopt(promoter, VECTOR, S.ADOPTING)
    conn = promoter.ledger.db.conn
    for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        conn.execute(f"DROP TRIGGER {name}")
    conn.execute(sql)
    with pytest.raises(LedgerError, match=where):
        promoter.ledger.verify()


def test_a_ledger_of_the_second_version_learns_the_new_roles(tmp_path: Path) -> None:
    conn = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    conn.execute("PRAGMA foreign_keys=ON")
    db = Database(conn, recursive_triggers=False, execute_plugins=False)
    conn.execute("BEGIN IMMEDIATE")
    MIGRATIONS.apply(db, stop_before="0003_promotion")
    conn.execute("INSERT INTO format(id, min_reader, min_writer) VALUES(1, 1, 2)")
    conn.execute("PRAGMA user_version=2")
    conn.execute("COMMIT")
    insert = (
        "INSERT INTO trial(number, candidate, role, version, told_before, vector_sha, asked_us)"
        f" VALUES(?, ?, ?, 0, 0, '{'0' * 64}', 1)"
    )
    conn.execute(insert, (0, 0, "search"))
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(insert, (1, None, "ramp"))
    conn.execute("BEGIN IMMEDIATE")
    migrate(db)
    conn.execute("COMMIT")
    conn.execute(insert, (1, None, "ramp"))
    conn.execute(insert, (2, 1, "search"))
    with pytest.raises(sqlite3.IntegrityError):
        conn.execute(insert, (3, None, "another"))
    assert version_of(conn) == SCHEMA_VERSION
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    conn.close()


def test_windows_and_trials_of_a_promotion_are_numbered_with_the_others(promoter: Driver) -> None:
    for number, role in enumerate((Role.SEARCH, Role.TEST, Role.RAMP, Role.HOLDBACK)):
        window = WindowRow(number + 1, role, f"s{number}", 10, 20, Slice(0, 100))
        candidate = 0 if role is Role.SEARCH else None
        trial = NewTrial(number, candidate, role, 0, 0, VECTOR, number + 1, Slice(100, 200), 99)
        promoter.ask([trial], window=window, at_us=5)
    counts = promoter.ledger.counts()
    assert (counts["trials"], counts["trials.search"], counts["trials.ramp"]) == (4, 1, 1)
    assert [t.role for t in promoter.ledger.trials(role=Role.HOLDBACK)] == [Role.HOLDBACK]
    promoter.ledger.verify()


def test_statements_of_the_migration_are_whole() -> None:
    text = Path(__file__).parents[2].joinpath("blackopt/ledger/schema/0003_promotion.sql").read_text()
    assert all(sqlite3.complete_statement(statement) for statement in statements(text))
