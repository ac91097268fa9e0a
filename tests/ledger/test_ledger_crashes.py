"""Death, failure and replacement at any point: nothing acknowledged is lost, nothing half-done is kept."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from blackopt.errors import AlreadyTold, BlackoptError, Fenced, LedgerError, LockHeld
from blackopt.ledger import Driver, Ledger
from blackopt.ledger.lock import lock_path
from blackopt.ledger.rows import NewCampaign, NewTell, NewTrial, TrialState
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import Reading, Role, Status, Vector

CAMPAIGN = NewCampaign("offer", "{}", "c" * 64, "random", "1")


def drawn(number: int) -> Vector:
    return np.random.default_rng(number).standard_normal(4)


def new_trial(number: int) -> NewTrial:
    return NewTrial(number, number, Role.SEARCH, 0, 0, drawn(number))


def write_until_killed(path: Path, acknowledge: int) -> None:
    """In a child: ask and tell as fast as possible; a byte per committed transaction."""
    with Ledger.open(path) as ledger, ledger.drive(at_us=1) as driver:
        counts = ledger.counts()
        for trial in ledger.trials(states=[TrialState.ASKED]):
            driver.tell([NewTell(trial.number, Status.VOID)], at_us=2)
            os.write(acknowledge, b"t")
        for number in range(counts["trials"], 10**9):
            driver.ask([new_trial(number)], at_us=2)
            os.write(acknowledge, b"a")
            value = Reading("value", 0, f"t{number}", "", 3, {"value": number / 7})
            driver.tell([NewTell(number, Status.OK, number / 7, readings=(value,))], at_us=3)
            os.write(acknowledge, b"t")


def killed_child(path: Path, chance: random.Random) -> bytes:
    """Fork a writer, kill it with SIGKILL somewhere inside its work, and return what it had acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            write_until_killed(path, writer)
        finally:
            os._exit(1)
    os.close(writer)
    acknowledged, enough = b"", chance.randrange(2, 8)
    while len(acknowledged) < enough:
        piece = os.read(reader, 1)
        assert piece, "the child ended by itself"
        acknowledged += piece
    time.sleep(chance.uniform(0.0, 0.002))  # about one commit: the kill falls anywhere inside one
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(reader, 65536):
        acknowledged += piece
    os.close(reader)
    return acknowledged


def test_every_acknowledged_transaction_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "c.ledger"
    Ledger.create(path, CAMPAIGN, at_us=1).close()
    asked = told = 0
    chance = random.Random(7)
    for _ in range(40):
        acknowledged = killed_child(path, chance)
        asked += acknowledged.count(b"a")
        told += acknowledged.count(b"t")
        with Ledger.open(path) as ledger:
            counts = ledger.counts()
            # At most one transaction was committed and not yet acknowledged.
            assert 0 <= counts["trials"] - asked + counts["TOLD"] - told <= 1
            asked, told = counts["trials"], counts["TOLD"]
    with Ledger.open(path) as ledger:
        ledger.verify()
        assert told >= 40
        for trial in ledger.trials():
            assert trial.vector.tobytes() == drawn(trial.number).tobytes()
        assert [row.seq for row in ledger.tells()] == list(range(1, told + 1))
        assert len(ledger.sessions()) == 40


def test_f05_a_kill_during_a_snapshot_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "c.ledger"
    with Ledger.create(path, CAMPAIGN, at_us=1) as ledger, ledger.drive(at_us=1) as driver:
        driver.snapshot(tell_seq=0, asked=0, optimizer_version="1", state=b"old")
    child = os.fork()
    if child == 0:
        ledger = Ledger.open(path)
        driver = ledger.drive(at_us=2)
        # The journal is on disk and pages are spilled when the kill comes: the latest moment before COMMIT.
        ledger.db.conn.execute("PRAGMA cache_size=2")
        ledger.db.conn.execute("PRAGMA cache_spill=2")
        ledger.db.conn.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
        ledger.db.conn.execute(
            "CREATE TEMP TRIGGER die AFTER DELETE ON main.snapshot BEGIN SELECT die(); END"
        )
        ledger.db.conn.execute(
            "CREATE TEMP TRIGGER die2 AFTER INSERT ON main.snapshot BEGIN SELECT die(); END"
        )
        driver.snapshot(tell_seq=0, asked=0, optimizer_version="1", state=b"new" * 100_000)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    with Ledger.open(path) as ledger:
        newest = ledger.newest_snapshot("1")
        assert newest is not None
        assert newest.state == b"old"
        ledger.verify()


def test_a_reader_after_a_kill_rolls_the_journal_back(tmp_path: Path) -> None:
    path = tmp_path / "c.ledger"
    Ledger.create(path, CAMPAIGN, at_us=1).close()
    child = os.fork()
    if child == 0:
        ledger = Ledger.open(path)
        conn = ledger.db.conn
        conn.execute("PRAGMA cache_size=2")
        conn.execute("BEGIN IMMEDIATE")
        rows = [(n, "h" * 900) for n in range(1, 400)]
        conn.executemany(
            "INSERT INTO session(epoch, pid, host, started_us) VALUES(?, 1, ?, 1)",
            rows,
        )
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with Ledger.open(path, read_only=True) as ledger:
        assert ledger.sessions() == []
        ledger.verify()


def deny_commit(action: int, first: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_TRANSACTION and first == "COMMIT":
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


class LedgerMachine(RuleBasedStateMachine):
    """Any order of steps, failures, deaths and replacements; the model is what was acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.path = Path(self.folder.name) / "c.ledger"
        self.states: list[TrialState] = []
        self.told: list[tuple[int, float | None]] = []
        self.stored: dict[tuple[str, int], float] = {}
        self.stale: list[Driver] = []
        self.at_us = 0

    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger.create(self.path, CAMPAIGN, at_us=0)
        self.driver = self.ledger.drive(at_us=0)

    def teardown(self) -> None:
        for driver in [*self.stale, *([self.driver] if hasattr(self, "driver") else [])]:
            driver.release()
            driver.ledger.close()
        self.folder.cleanup()

    def now(self) -> int:
        self.at_us += 1
        return self.at_us

    def attempt(self, fails: bool, step: Any) -> bool:
        """Run a step; where it fails before COMMIT, nothing of it may be there, and the driver goes on."""
        if not fails:
            step()
            return True
        before = len(self.ledger.events())
        self.ledger.db.conn.set_authorizer(deny_commit)
        with pytest.raises(LedgerError):
            step()
        self.ledger.db.conn.set_authorizer(None)
        assert len(self.ledger.events()) == before
        return False

    @rule(n=st.integers(1, 3), fails=st.booleans())
    def ask(self, n: int, fails: bool) -> None:
        trials = [new_trial(len(self.states) + i) for i in range(n)]
        if self.attempt(fails, lambda: self.driver.ask(trials, at_us=self.now())):
            self.states += [TrialState.ASKED] * n

    @precondition(lambda self: self.states)
    @rule(data=st.data(), fails=st.booleans())
    def advance(self, data: Any, fails: bool) -> None:
        number = data.draw(st.integers(0, len(self.states) - 1))
        state = self.states[number]
        steps = {
            TrialState.ASKED: (
                lambda: self.driver.intend({number: "b"}, at_us=self.now()),
                TrialState.PUSHING,
            ),
            TrialState.PUSHING: (
                lambda: self.driver.live({number: 9}, at_us=self.now()),
                TrialState.LIVE,
            ),
            TrialState.LIVE: (
                lambda: self.driver.close([number], cause="over", at_us=self.now()),
                TrialState.WITHDRAWING,
            ),
            TrialState.WITHDRAWING: (
                lambda: self.driver.withdrawn([number], at_us=self.now()),
                TrialState.AWAITING,
            ),
        }
        if state not in steps:
            with pytest.raises(BlackoptError):
                self.driver.live({number: 1}, at_us=self.now())
            return
        step, then = steps[state]
        if self.attempt(fails, step):
            self.states[number] = then

    @precondition(lambda self: self.states)
    @rule(data=st.data(), value=st.none() | st.floats(-1e9, 1e9), fails=st.booleans())
    def tell(self, data: Any, value: float | None, fails: bool) -> None:
        number = data.draw(st.integers(0, len(self.states) - 1))
        tell = NewTell(number, Status.FAILED if value is None else Status.OK, value)
        if self.states[number] is TrialState.TOLD:
            with pytest.raises(AlreadyTold):
                self.driver.tell([tell], at_us=self.now())
        elif self.states[number] in (TrialState.ASKED, TrialState.AWAITING):
            if self.attempt(fails, lambda: self.driver.tell([tell], at_us=self.now())):
                self.states[number] = TrialState.TOLD
                self.told.append((number, value))
        else:
            with pytest.raises(LedgerError):
                self.driver.tell([tell], at_us=self.now())

    @rule(
        number=st.integers(0, 8),
        as_of=st.integers(1, 3),
        value=st.sampled_from([1.0, 2.0, float("nan")]),
        fails=st.booleans(),
    )
    def ingest(self, number: int, as_of: int, value: float, fails: bool) -> None:
        arm = f"t{number}"
        reading = Reading("m", 0, arm, "", as_of, {"value": value})
        reports = []
        if not self.attempt(
            fails, lambda: reports.append(self.driver.ingest("sql", [reading], at_us=self.now()))
        ):
            return
        (report,) = reports
        if value != value:
            assert report.rejected + report.duplicate == 1
        elif number >= len(self.states):
            assert report.quarantined + report.duplicate == 1
        else:
            before = self.stored.get((arm, as_of))
            newest = max((a for k, a in self.stored if k == arm), default=None)
            if before is not None:
                assert report.duplicate + report.conflict == 1
            elif newest is not None and newest < as_of and self.stored[arm, newest] == value:
                assert report.unchanged == 1
            elif report.unchanged:
                assert newest is not None
                assert self.stored[arm, newest] == value
            else:
                assert (report.late if self.states[number] is TrialState.TOLD else report.accepted) == 1
                self.stored[arm, as_of] = value
        again = self.driver.ingest("sql", [reading], at_us=self.now())
        assert again.duplicate + again.unchanged == 1

    @rule()
    def die_and_resume(self) -> None:
        """The process is gone after a COMMIT, before it could use the answer; its locks go with it."""
        self.driver.release()
        self.ledger.handle.conn.close()
        self.ledger = Ledger.open(self.path)
        self.driver = self.ledger.drive(at_us=self.now())

    @rule()
    def die_inside_a_transaction(self) -> None:
        self.ledger.handle.conn.execute("BEGIN IMMEDIATE")
        self.ledger.handle.conn.execute("UPDATE campaign SET mode = 'done'")
        self.die_and_resume()

    @precondition(lambda self: len(self.stale) < 3)
    @rule()
    def be_replaced(self) -> None:
        """A driver that was stopped for long is replaced where its lock is not seen."""
        lock_path(self.path).unlink()
        self.stale.append(self.driver)
        self.ledger = Ledger.open(self.path)
        self.driver = self.ledger.drive(at_us=self.now())

    @rule()
    def stale_drivers_are_fenced(self) -> None:
        for driver in self.stale:
            with pytest.raises(Fenced):
                driver.ask([new_trial(len(self.states))], at_us=self.now())
        with Ledger.open(self.path) as other, pytest.raises(LockHeld):
            other.drive(at_us=1)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "ledger"):
            return
        trials = self.ledger.trials()
        assert [trial.state for trial in trials] == self.states
        assert all(t.vector.tobytes() == drawn(t.number).tobytes() for t in trials)
        assert [(row.trial, row.value) for row in self.ledger.tells()] == self.told
        found = {
            (r.reading.arm, r.reading.as_of_us): r.reading.stats["value"]
            for r in self.ledger.revisions(0)
            if r.trial is not None
        }
        assert found == self.stored
        self.ledger.verify()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_a_killed_and_resumed_run_writes_the_events_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """The chain holds facts only: two runs differ in time and epoch, and in nothing else."""

    def run(path: Path, *, dies: bool) -> list[tuple[int, str, dict[str, object]]]:
        at_us = 1_000 if dies else 1
        Ledger.create(path, CAMPAIGN, at_us=at_us).close()
        page = [
            Reading("m", 0, f"t{n}", "", 5, {"value": v}) for n, v in ((0, 1.0), (1, float("nan")), (77, 1.0))
        ]
        steps: list[Callable[[Driver], object]] = [
            lambda d: d.ask([new_trial(n) for n in range(3)], at_us=at_us + 1),
            lambda d: d.intend({0: "b"}, at_us=at_us + 2),
            lambda d: d.live({0: at_us + 99}, at_us=at_us + 3),
            lambda d: d.ingest("sql", page, at_us=at_us + 4),
            lambda d: d.close([0], cause="over", at_us=at_us + 5),
            lambda d: d.withdrawn([0], lapsed=dies, at_us=at_us + 6),
            lambda d: d.tell([NewTell(0, Status.OK, 1.0)], at_us=at_us + 7),
        ]
        if dies:  # each step by another process, polls repeated, attempts in between
            for step in steps:
                with Ledger.open(path) as ledger, ledger.drive(at_us=at_us) as driver:
                    step(driver)
                    driver.ingest("sql", page if ledger.rejected() else [], at_us=at_us + 8)
                    driver.polled(1, {"m": at_us}, at_us=at_us)
                    driver.snapshot(tell_seq=0, asked=0, optimizer_version="1", state=b"s")
        else:
            with Ledger.open(path) as ledger, ledger.drive(at_us=at_us) as driver:
                for step in steps:
                    step(driver)
        with Ledger.open(path, read_only=True) as ledger:
            ledger.verify()
            return [(event.seq, event.kind, dict(event.data)) for event in ledger.events()]

    assert run(tmp_path / "a", dies=False) == run(tmp_path / "b", dies=True)
