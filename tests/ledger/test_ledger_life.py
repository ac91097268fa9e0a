"""The life of a trial, transaction by transaction, and what the triggers refuse."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from blackopt.errors import AlreadyTold, LedgerError, UsageError
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.canonical import EMPTY_SHA
from blackopt.ledger.rows import Mode, NewTell, NewTrial, PushKind, PushState, TrialState
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import Role, Slice, Status


def states(ledger: Ledger) -> list[str]:
    return [trial.state.value for trial in ledger.trials()]


def kinds(ledger: Ledger) -> list[str]:
    return [event.kind for event in ledger.events()]


def test_a_trial_from_ask_to_tell(driver: Driver, make: object) -> None:
    ledger = driver.ledger
    window = make.window()  # type: ignore[attr-defined]
    new = make.trial(0, window=1)  # type: ignore[attr-defined]
    driver.ask([new], window=window, at_us=10)
    asked = ledger.trial(0)
    assert asked.state is TrialState.ASKED
    assert asked.vector.tobytes() == new.vector.tobytes()
    assert asked.vector_sha == hashlib.sha256(new.vector.tobytes()).hexdigest()
    assert (asked.slice, asked.window, asked.asked_us) == (new.slice, 1, 10)
    assert ledger.windows() == [window]

    [push] = driver.intend({0: "b" * 64}, at_us=11)
    assert push.key == hashlib.sha256(f"{ledger.campaign.uuid}|0|apply".encode()).hexdigest()
    assert ledger.pushes(states=[PushState.PENDING]) == [push]

    driver.retry(0, PushKind.APPLY, unknown=True, next_us=20, detail="timeout", at_us=12)
    driver.retry(0, PushKind.APPLY, unknown=False, next_us=30, detail="refused connection", at_us=13)
    (open_push,) = ledger.pushes(states={PushState.UNKNOWN})
    assert (open_push.attempts, open_push.next_us) == (2, 30), (
        "once unknown, a later certain failure does not undo it"
    )

    driver.live({0: 100}, at_us=14)
    driver.renewed({0: 200})
    live = ledger.trial(0)
    assert (live.state, live.live_us, live.lease_until_us) == (TrialState.LIVE, 14, 200)

    (withdraw,) = driver.close([0], cause="window over", at_us=15)
    assert withdraw.kind is PushKind.WITHDRAW
    assert ledger.pushes(states=[PushState.PENDING, PushState.UNKNOWN]) == [withdraw]
    driver.withdrawn([0], at_us=16)
    assert ledger.pushes(states=[PushState.PENDING, PushState.UNKNOWN]) == []
    assert [(a.kind, a.n, a.outcome, a.detail) for a in ledger.attempts(0)] == [
        (PushKind.APPLY, 1, "unknown", "timeout"),
        (PushKind.APPLY, 2, "unknown", "refused connection"),
        (PushKind.APPLY, 3, "acked", ""),
        (PushKind.WITHDRAW, 1, "acked", ""),
    ]

    (told,) = driver.tell([NewTell(0, Status.EXPIRED, cause="no metric")], at_us=17)
    assert (told.seq, told.candidate, told.obs_sha) == (1, 0, EMPTY_SHA)
    assert ledger.tells() == [told]
    ended = ledger.trial(0)
    assert (ended.state, ended.cause) == (TrialState.TOLD, "no metric")
    assert kinds(ledger) == ["created", "ask", "intend", "live", "close", "withdrawn", "tell"]
    ledger.verify()


@pytest.mark.parametrize(
    ("cause", "settled"), [("refused: no", PushState.REFUSED), ("gave up", PushState.LAPSED)]
)
def test_a_push_that_never_came_through_is_settled(
    driver: Driver, make: object, cause: str, settled: PushState
) -> None:
    driver.ask([make.trial(0)], at_us=3)  # type: ignore[attr-defined]
    driver.intend({0: "b"}, at_us=4)
    driver.close([0], cause=cause, at_us=5)
    driver.withdrawn([0], lapsed=True, at_us=6)
    assert [push.state for push in driver.ledger.pushes()] == [settled, PushState.LAPSED]
    assert driver.ledger.trial(0).cause == cause
    driver.tell([NewTell(0, Status.FAILED)], at_us=7)
    assert driver.ledger.trial(0).cause == cause, "a tell without a cause keeps what was known"


def test_an_order_that_is_settled_or_absent_is_not_retried(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0)], at_us=3)  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="no open order"):
        driver.retry(0, PushKind.APPLY, unknown=True, next_us=1, detail="", at_us=4)
    driver.intend({0: "b"}, at_us=4)
    driver.live({0: 9}, at_us=5)
    with pytest.raises(LedgerError, match="no open order"):
        driver.retry(0, PushKind.APPLY, unknown=True, next_us=1, detail="", at_us=6)


def test_f24_two_asks_get_distinct_numbers_and_candidates(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0), make.trial(1)], at_us=3)  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="refused"):
        driver.ask([make.trial(1)], at_us=4)  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="refused"):
        driver.ask([make.trial(3)], at_us=4)  # type: ignore[attr-defined]
    twice = make.trial(0)  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="refused"):
        driver.ask([NewTrial(2, 0, Role.SEARCH, 0, 0, twice.vector)], at_us=4)
    driver.ask([NewTrial(2, None, Role.CONFIRM, 0, 0, twice.vector)], at_us=4)
    assert driver.ledger.counts()["trials.confirm"] == 1
    assert [t.number for t in driver.ledger.trials(role=Role.CONFIRM)] == [2]
    driver.ledger.verify()


@pytest.mark.parametrize("bad", [[np.nan], [np.inf, 1.0], [], [[1.0]]])
def test_a_vector_that_is_no_point_is_refused(driver: Driver, bad: list[float]) -> None:
    with pytest.raises(UsageError, match="vector"):
        driver.ask([NewTrial(0, 0, Role.SEARCH, 0, 0, np.array(bad))], at_us=3)
    with pytest.raises(UsageError, match="at least one"):
        driver.ask([], at_us=3)


def test_steps_out_of_order_change_nothing(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0), make.trial(1)], at_us=3)  # type: ignore[attr-defined]
    before = driver.ledger.events()
    for step in (
        lambda: driver.live({0: 1}, at_us=4),
        lambda: driver.renewed({0: 1}),
        lambda: driver.close([0], cause="", at_us=4),
        lambda: driver.withdrawn([0], at_us=4),
        lambda: driver.intend({9: ""}, at_us=4),
    ):
        with pytest.raises(LedgerError, match="needs"):
            step()
    driver.intend({0: ""}, at_us=4)
    with pytest.raises(LedgerError, match="production may still serve it"):
        driver.tell([NewTell(1, Status.VOID), NewTell(0, Status.VOID)], at_us=5)
    assert states(driver.ledger) == ["PUSHING", "ASKED"]
    assert driver.ledger.events()[: len(before)] == before
    assert len(driver.ledger.events()) == len(before) + 1


def test_a_trial_is_told_once(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0), make.trial(1)], at_us=3)  # type: ignore[attr-defined]
    driver.tell([NewTell(0, Status.OK, 1.0)], at_us=4)
    with pytest.raises(AlreadyTold):
        driver.tell([NewTell(1, Status.VOID), NewTell(0, Status.OK, 2.0)], at_us=5)
    with pytest.raises(UsageError, match="different trials"):
        driver.tell([NewTell(1, Status.VOID), NewTell(1, Status.VOID)], at_us=5)
    with pytest.raises(UsageError, match="no trial 7"):
        driver.tell([NewTell(7, Status.VOID)], at_us=5)
    assert [(row.trial, row.value) for row in driver.ledger.tells()] == [(0, 1.0)]
    assert driver.ledger.trial(1).state is TrialState.ASKED


@pytest.mark.parametrize(
    "tell",
    [
        NewTell(0, Status.OK),
        NewTell(0, Status.FAILED, 1.0),
        NewTell(0, Status.OK, float("nan")),
        NewTell(0, Status.OK, float("inf")),
        NewTell(0, Status.OK, True),
        NewTell(0, Status.OK, 1.0, se=-1.0),
        NewTell(0, Status.OK, 1.0, se=float("nan")),
    ],
)
def test_a_tell_that_does_not_fit_its_status_is_refused(driver: Driver, make: object, tell: NewTell) -> None:
    driver.ask([make.trial(0)], at_us=3)  # type: ignore[attr-defined]
    with pytest.raises(UsageError):
        driver.tell([tell], at_us=4)
    assert driver.ledger.tells() == []


def test_readings_of_a_tell_are_checked_and_stored_with_it(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0), make.trial(1)], at_us=3)  # type: ignore[attr-defined]
    for wrong in (make.value(1, 2.0), make.value(0, float("nan")), make.reading("t0")):  # type: ignore[attr-defined]
        with pytest.raises(UsageError, match="readings of trial 0"):
            driver.tell([NewTell(0, Status.OK, 2.0, readings=(wrong,))], at_us=4)
    (told,) = driver.tell([NewTell(0, Status.OK, 2.0, readings=(make.value(0, 2.0),))], at_us=4)  # type: ignore[attr-defined]
    text = '[["value",0,"t0","",5,{"value":2.0}]]'
    assert told.obs_sha == hashlib.sha256(text.encode()).hexdigest()
    assert [row.trial for row in driver.ledger.latest(0, arm="t0")] == [0]


def test_counts(driver: Driver, make: object) -> None:
    driver.ask([make.trial(n) for n in range(5)], at_us=3)  # type: ignore[attr-defined]
    driver.intend({4: ""}, at_us=4)
    driver.tell([NewTell(0, Status.OK, 1.0), NewTell(1, Status.VOID), NewTell(2, Status.OK, 2.0)], at_us=5)
    found = {key: count for key, count in driver.ledger.counts().items() if count}
    assert found == {
        "ASKED": 1,
        "PUSHING": 1,
        "TOLD": 3,
        "told.ok": 2,
        "told.void": 1,
        "trials": 5,
        "trials.search": 5,
    }


def test_trials_can_be_chosen(driver: Driver, make: object) -> None:
    ask = driver.ask
    ask([make.trial(n) for n in range(3)], at_us=3)  # type: ignore[attr-defined]
    ask([make.trial(n, window=1) for n in (3, 4)], window=make.window(), at_us=3)  # type: ignore[attr-defined]
    driver.tell([NewTell(1, Status.VOID), NewTell(3, Status.VOID)], at_us=4)
    choose = driver.ledger.trials

    def numbers(**terms: object) -> list[int]:
        return [trial.number for trial in choose(**terms)]  # type: ignore[arg-type]

    assert numbers() == [0, 1, 2, 3, 4]
    assert numbers(states=[TrialState.ASKED]) == [0, 2, 4]
    assert numbers(states=[TrialState.TOLD, TrialState.ASKED], window=1) == [3, 4]
    assert numbers(states=[]) == []
    assert numbers(first=1, limit=2) == [1, 2]
    assert numbers(role=Role.CONFIRM) == []
    with pytest.raises(UsageError, match="no trial 5"):
        driver.ledger.trial(5)


def test_snapshots_are_a_cache_of_two(driver: Driver, make: object) -> None:
    ledger = driver.ledger
    assert ledger.newest_snapshot("1") is None
    driver.ask([make.trial(n) for n in range(3)], at_us=3)  # type: ignore[attr-defined]
    before = len(ledger.events())
    for n in range(3):
        driver.snapshot(tell_seq=n, asked=3, optimizer_version="1", state=b"%d" % n)
        driver.tell([NewTell(n, Status.VOID)], at_us=4)
    with pytest.raises(UsageError, match="tell_seq"):
        driver.snapshot(tell_seq=4, asked=3, optimizer_version="1", state=b"")
    assert [row["tell_seq"] for row in ledger.db.query("SELECT tell_seq FROM snapshot")] == [1, 2]
    assert ledger.newest_snapshot("2") is None
    newest = ledger.newest_snapshot("1")
    assert newest is not None
    assert (newest.tell_seq, newest.state) == (2, b"2")
    assert len(ledger.events()) == before + 3, "a cache is no fact"
    ledger.db.conn.execute("UPDATE snapshot SET state = x'00' WHERE tell_seq = 2")
    older = ledger.newest_snapshot("1")
    assert older is not None
    assert older.tell_seq == 1, "a damaged snapshot counts as deleted (f05)"


def test_modes_and_notes(driver: Driver) -> None:
    ledger = driver.ledger
    assert ledger.campaign.mode == "run"
    driver.set_mode(Mode.PAUSED, cause="guardrail", at_us=3)
    driver.set_mode(Mode.PAUSED, cause="again", at_us=4)
    assert ledger.campaign.mode == "paused"
    driver.note("breaker.open", {"target": "http"}, trial=4, at_us=5)
    assert [(e.kind, dict(e.data)) for e in ledger.events(after=1)] == [
        ("mode", {"mode": "paused", "cause": "guardrail"}),
        ("breaker.open", {"target": "http", "trial": 4}),
    ]
    with pytest.raises(UsageError):
        driver.note("Bad|kind", {}, at_us=6)
    with pytest.raises(UsageError):
        driver.note("x", {"v": float("nan")}, at_us=6)
    ledger.verify()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE trial SET state = 'TOLD' WHERE number = 1",
        "UPDATE trial SET state = 'LIVE' WHERE number = 1",
        "UPDATE trial SET state = 'ASKED' WHERE number = 0",
        "UPDATE trial SET version = 3",
        "DELETE FROM trial",
        "UPDATE vector SET body = x'0000000000000000'",
        "DELETE FROM vector",
        "UPDATE tell SET value = 3",
        "DELETE FROM tell",
        "INSERT INTO tell SELECT 3, 1, 1, 'void', NULL, NULL, '', '[]', obs_sha, 1 FROM tell",
        "INSERT INTO tell SELECT 2, 1, 0, 'void', NULL, NULL, '', '[]', obs_sha, 1 FROM tell",
        "INSERT OR REPLACE INTO tell SELECT 1, 1, 0, 'void', NULL, NULL, '', '[]', obs_sha, 1 FROM tell",
        "INSERT OR REPLACE INTO trial SELECT * FROM trial WHERE number = 0",
        "UPDATE reading SET stats = '{}'",
        "DELETE FROM reading",
        "UPDATE event SET data = '{}'",
        "DELETE FROM event",
        (
            "INSERT INTO event SELECT seq + 2, at_us, epoch, kind, data, hash, hash FROM event ORDER BY seq "
            "DESC LIMIT 1"
        ),
        (
            "INSERT INTO event SELECT seq + 1, at_us, epoch, kind, data, prev, hash FROM event ORDER BY seq "
            "DESC LIMIT 1"
        ),
        "UPDATE campaign SET config = '{}'",
        "DELETE FROM campaign",
        (
            "INSERT INTO campaign SELECT 2, 'v', name, config, config_sha, optimizer, optimizer_version, "
            "mode, 1 FROM campaign"
        ),
        'UPDATE "window" SET salt = 1',
        'DELETE FROM "window"',
        (
            "INSERT INTO trial(number, role, version, told_before, vector_sha, asked_us) VALUES(9, 'search', "
            "0, 0, 'x', 1)"
        ),
        "INSERT INTO push VALUES(77, 'apply', 1, 'k', 1, 'b', 'pending', 0, 1)",
    ],
)
def test_the_file_itself_refuses(driver: Driver, make: object, sql: str) -> None:
    trials = [make.trial(n, window=1) for n in range(2)]  # type: ignore[attr-defined]
    driver.ask(trials, window=make.window(), at_us=3)  # type: ignore[attr-defined]
    driver.ingest("sql", [make.reading("t1")], at_us=4)  # type: ignore[attr-defined]
    driver.tell([NewTell(0, Status.OK, 1.0)], at_us=5)
    with pytest.raises(sqlite3.IntegrityError):
        driver.ledger.db.conn.execute(sql)
    driver.ledger.verify()


@pytest.mark.parametrize(
    ("table", "sql", "where"),
    [
        ("event", "UPDATE event SET data = '{\"trial\":1}' WHERE seq = 3", "event 3"),
        ("event", "UPDATE event SET at_us = 0 WHERE seq = 2", "event 2"),
        ("event", "DELETE FROM event WHERE seq = 2", "event 2"),
        ("event", "DELETE FROM event WHERE seq = 5", "tell"),
        ("vector", "UPDATE vector SET body = x'0000000000000000' WHERE trial = 1", "trial 1"),
        ("trial", "UPDATE trial SET told_before = 9 WHERE number = 1", "trial 0 to 1"),
        ("trial", "UPDATE trial SET state = 'TOLD' WHERE number = 1", "trial 1"),
        ("trial", "UPDATE trial SET state = 'AWAITING' WHERE number = 0", "trial 0"),
        ("tell", "UPDATE tell SET value = 9 WHERE seq = 1", "tell 1"),
        ("tell", "DELETE FROM tell WHERE seq = 1", "tell 1"),
        ("reading", "UPDATE reading SET stats = '{\"n\":1.0}'", "tell 1"),
        ("reading", "DELETE FROM reading", "tell 1"),
    ],
)
def test_an_edited_row_is_named(driver: Driver, make: object, table: str, sql: str, where: str) -> None:
    trials = [make.trial(n, window=1) for n in range(2)]  # type: ignore[attr-defined]
    driver.ask(trials, window=make.window(), at_us=3)  # type: ignore[attr-defined]
    driver.ingest("sql", [make.reading("t0")], at_us=4)  # type: ignore[attr-defined]
    driver.note("word", {}, at_us=4)
    driver.note("word", {}, at_us=4)
    (reading,) = driver.ledger.latest(1)
    driver.tell([NewTell(0, Status.OK, 1.0, used=(reading.id,))], at_us=5)
    driver.ledger.verify()
    conn = driver.ledger.db.conn
    for name in [
        row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    ]:
        conn.execute(f"DROP TRIGGER {name}")
    conn.execute(sql)
    with pytest.raises(LedgerError) as caught:
        driver.ledger.verify()
    assert where in caught.value.where


def test_no_event_knows_the_process(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0, window=1)], window=make.window(), at_us=3)  # type: ignore[attr-defined]
    [push] = driver.intend({0: "b"}, at_us=4)
    driver.live({0: 123456}, at_us=5)
    driver.ingest("sql", [make.reading("nobody")], at_us=6)  # type: ignore[attr-defined]
    driver.close([0], cause="over", at_us=7)
    text = repr([event.data for event in driver.ledger.events()])
    for secret in (driver.ledger.campaign.uuid, push.key, "123456"):
        assert secret not in text


def test_slices_come_back(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0, window=1)], window=make.window(), at_us=3)  # type: ignore[attr-defined]
    assert driver.ledger.trial(0).slice == Slice(1000, 2000)
