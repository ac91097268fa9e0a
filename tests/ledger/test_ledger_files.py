"""The file: created once, opened carefully, copied safely, never trusted blindly."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import blackopt.ledger
from blackopt.errors import Fenced, LedgerError, LockHeld, RetriableError, UsageError
from blackopt.ledger import Driver, Ledger, migrations
from blackopt.ledger.connection import APPLICATION_ID, wal_is_safe
from blackopt.ledger.lock import DriverLock, lock_path
from blackopt.ledger.rows import NewTell
from blackopt.ledger.sqlite import sqlite3
from blackopt.types import Status


def _create(
    path: Path, make: object, go: multiprocessing.synchronize.Event, words: multiprocessing.Queue[str]
) -> None:
    go.wait(30)
    try:
        Ledger.create(path, make.campaign, at_us=1).close()  # type: ignore[attr-defined]
        words.put("created")
    except (LockHeld, LedgerError) as error:
        words.put(type(error).__name__)


def test_f23_of_32_processes_that_start_together_one_creates(
    path: Path, tmp_path: Path, make: object
) -> None:
    context = multiprocessing.get_context("fork")
    go, words = context.Event(), context.Queue()
    children = [context.Process(target=_create, args=(path, make, go, words)) for _ in range(32)]
    for child in children:
        child.start()
    go.set()
    said = [words.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 32
    assert said.count("created") == 1
    assert set(said) <= {"created", "LockHeld", "LedgerError"}
    with Ledger.open(path) as ledger:
        ledger.verify()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, lock_path(path).name])


def test_f64_a_mistyped_path_creates_nothing(tmp_path: Path, make: object) -> None:
    with pytest.raises(LedgerError, match="no ledger here") as caught:
        Ledger.open(tmp_path / "campain.ledger")
    assert "blackopt run" in caught.value.next_step
    with pytest.raises(LedgerError, match="no ledger here"):
        Ledger.open(tmp_path)
    with pytest.raises(LedgerError, match="no directory"):
        Ledger.create(tmp_path / "no" / "x.ledger", make.campaign, at_us=1)  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []


def test_create_never_overwrites(ledger: Ledger, make: object) -> None:
    uuid = ledger.campaign.uuid
    with pytest.raises(LedgerError, match="file already"):
        Ledger.create(ledger.path, make.campaign, at_us=5)  # type: ignore[attr-defined]
    assert ledger.campaign.uuid == uuid


def test_a_creation_that_was_killed_leaves_no_obstacle(path: Path, make: object) -> None:
    path.with_name(path.name + ".new").write_bytes(b"half a ledger")
    with Ledger.create(path, make.campaign, at_us=1) as ledger:  # type: ignore[attr-defined]
        ledger.verify()


def test_only_the_owner_reads_it(ledger: Ledger) -> None:
    assert stat.S_IMODE(ledger.path.stat().st_mode) == 0o600


def test_it_is_durable_and_distrustful(ledger: Ledger) -> None:
    pragma = ledger.handle.pragma
    assert pragma("synchronous") == 2
    assert pragma("foreign_keys") == 1
    assert pragma("recursive_triggers") == 1
    assert pragma("trusted_schema") == 0
    assert pragma("mmap_size") == 0
    assert pragma("busy_timeout") >= 30_000
    assert pragma("application_id") == APPLICATION_ID
    (mode,) = ledger.db.conn.execute("PRAGMA journal_mode").fetchone()
    assert mode == ("wal" if wal_is_safe(sqlite3.sqlite_version_info) else "truncate")


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), False),
        ((3, 53, 0), True),
    ],
)
def test_wal_only_where_its_bug_is_fixed(version: tuple[int, int, int], safe: bool) -> None:
    assert wal_is_safe(version) is safe


@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 8192])
def test_a_file_that_is_no_ledger_is_refused_and_not_touched(path: Path, body: bytes) -> None:
    path.write_bytes(body)
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger.open(path)
    assert path.read_bytes() == body


def test_another_programs_database_is_refused(path: Path) -> None:
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE t(a)")
    conn.close()
    with pytest.raises(LedgerError, match="not a ledger"):
        Ledger.open(path)


def test_f22_the_second_driver_is_told_who_holds_the_lock(driver: Driver) -> None:
    with Ledger.open(driver.ledger.path) as second, pytest.raises(LockHeld) as caught:
        second.drive(at_us=99)
    assert f"process {os.getpid()}" in caught.value.where
    assert "since 1970-01-01 00:00:00 UTC" in caught.value.where
    assert caught.value.exit_code == 75
    note = json.loads(lock_path(driver.ledger.path).read_text())
    assert note["pid"] == os.getpid()


def test_a_released_lock_can_be_taken_and_the_epoch_grows(ledger: Ledger) -> None:
    epochs = []
    for start in range(3):
        with ledger.drive(at_us=start) as driver:
            epochs.append(driver.epoch)
    assert epochs == [1, 2, 3]
    assert [(row.epoch, row.pid, row.started_us) for row in ledger.sessions()] == [
        (epoch, os.getpid(), epoch - 1) for epoch in epochs
    ]
    with pytest.raises(UsageError, match="released"):
        driver.note("late.word", {}, at_us=9)


def test_f10_a_driver_that_was_replaced_cannot_write(driver: Driver, make: object) -> None:
    # Its lock was lost with the file (another machine would not see it at all): the epoch still stops it.
    lock_path(driver.ledger.path).unlink()
    with Ledger.open(driver.ledger.path) as second, second.drive(at_us=50) as newer:
        newer.ask([make.trial(0)], at_us=51)  # type: ignore[attr-defined]
        with pytest.raises(Fenced):
            driver.ask([make.trial(0)], at_us=52)  # type: ignore[attr-defined]
        with pytest.raises(Fenced):
            driver.tell([NewTell(0, Status.VOID)], at_us=52)
        newer.tell([NewTell(0, Status.VOID)], at_us=53)
        second.verify()


def _use_in_child(ledger: Ledger, results: multiprocessing.Queue[str]) -> None:
    for use in (ledger.counts, lambda: ledger.drive(at_us=9)):
        try:
            use()
            results.put("worked")
        except LedgerError as error:
            results.put(error.what)


def test_f11_a_ledger_carried_through_a_fork_is_refused(ledger: Ledger) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=_use_in_child, args=(ledger, results))
    child.start()
    words = [results.get(timeout=20), results.get(timeout=20)]
    child.join(20)
    assert words == ["A ledger was carried through a fork"] * 2
    ledger.verify()


def test_f11_a_forked_child_does_not_keep_the_lock_alive(ledger: Ledger) -> None:
    driver = ledger.drive(at_us=3)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # it outlives the driver, and waits for the end of the pipe
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    try:
        with Ledger.open(ledger.path) as second:
            with pytest.raises(LockHeld):
                second.drive(at_us=4)
            driver.release()
            second.drive(at_us=5).release()
    finally:
        os.close(writer)
        os.waitpid(child, 0)


@pytest.mark.parametrize("replace", [True, False])
def test_f19_a_ledger_replaced_or_unlinked_while_open_stops_the_driver(
    driver: Driver, tmp_path: Path, make: object, replace: bool
) -> None:
    if replace:
        driver.ledger.backup(tmp_path / "copy")
        (tmp_path / "copy").rename(driver.ledger.path)
    else:
        driver.ledger.path.unlink()
    with pytest.raises(LedgerError, match="replaced or deleted"):
        driver.ask([make.trial(0)], at_us=5)  # type: ignore[attr-defined]
    with pytest.raises(LedgerError, match="not open any more"):
        driver.ledger.counts()


def test_f20_a_backup_of_a_ledger_in_use_is_whole(driver: Driver, tmp_path: Path, make: object) -> None:
    driver.ask([make.trial(n) for n in range(20)], at_us=5)  # type: ignore[attr-defined]
    driver.ledger.backup(tmp_path / "copy")
    driver.tell([NewTell(0, Status.VOID)], at_us=6)
    with Ledger.open(tmp_path / "copy") as copy:
        copy.verify()
        assert copy.campaign == driver.ledger.campaign
        assert copy.counts()["ASKED"] == 20
    with pytest.raises(LedgerError, match="overwrite"):
        driver.ledger.backup(tmp_path / "copy")
    with pytest.raises(LedgerError, match="cannot be created"):
        driver.ledger.backup(tmp_path / "no" / "copy")
    assert not list(tmp_path.glob("*.part"))


def test_f12_a_full_disk_rolls_back_and_the_driver_goes_on(driver: Driver, make: object) -> None:
    conn = driver.ledger.db.conn
    driver.ask([make.trial(0)], at_us=3)  # type: ignore[attr-defined]
    (pages,) = conn.execute("PRAGMA page_count").fetchone()
    conn.execute(f"PRAGMA max_page_count={pages + 3}")
    with pytest.raises(RetriableError, match="disk is full") as caught:
        driver.ask([make.trial(n, width=500) for n in range(1, 50)], at_us=4)  # type: ignore[attr-defined]
    assert caught.value.exit_code == 75
    assert driver.ledger.counts()["trials"] == 1
    driver.tell([NewTell(0, Status.VOID)], at_us=5)  # a small write still fits
    conn.execute("PRAGMA max_page_count=100000")
    driver.ask([make.trial(n, width=500) for n in range(1, 50)], at_us=6)  # type: ignore[attr-defined]
    driver.ledger.verify()


def test_f26_a_lock_that_another_holds_is_retriable(driver: Driver, make: object) -> None:
    driver.ledger.db.conn.execute("PRAGMA busy_timeout=20")
    other = sqlite3.connect(driver.ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetriableError, match="write lock"):
        driver.ask([make.trial(0)], at_us=3)  # type: ignore[attr-defined]
    other.execute("ROLLBACK")
    other.close()
    driver.ask([make.trial(0)], at_us=3)  # type: ignore[attr-defined]


def test_f18_a_file_that_may_only_be_read(ledger: Ledger, make: object) -> None:
    with Ledger.open(ledger.path, read_only=True) as reader:
        assert reader.counts()["trials"] == 0
        with pytest.raises(UsageError, match="read_only"):
            reader.drive(at_us=1)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.db.conn.execute("UPDATE campaign SET mode = 'done'")


def test_f63_a_newer_schema_is_not_written_to(ledger: Ledger) -> None:
    path = ledger.path
    conn = ledger.db.conn
    conn.execute(f"PRAGMA user_version={migrations.SCHEMA_VERSION + 1}")
    conn.execute(f"UPDATE format SET min_writer = {migrations.SCHEMA_VERSION + 1}")
    ledger.close()
    with pytest.raises(LedgerError, match="schema version") as caught:
        Ledger.open(path)
    assert "upgrade" in caught.value.next_step
    with Ledger.open(path, read_only=True) as reader:
        assert reader.campaign.name == "offer"
    conn = sqlite3.connect(path)
    conn.execute(f"UPDATE format SET min_reader = {migrations.SCHEMA_VERSION + 1}")
    conn.commit()
    conn.close()
    with pytest.raises(LedgerError, match="schema version"):
        Ledger.open(path, read_only=True)


def old_file(path: Path) -> None:
    """A ledger of version 1, made from its tables alone."""
    root = Path(blackopt.ledger.__file__).parent / "schema" / "0001_tables.sql"
    conn = sqlite3.connect(path)
    conn.executescript(root.read_text())
    conn.executescript(
        f"""
        PRAGMA application_id={APPLICATION_ID};
        PRAGMA user_version=1;
        INSERT INTO format VALUES(1, 1, 1);
        INSERT INTO campaign VALUES(1, 'u', 'old', '{{}}', 'c', 'random', '1', 'run', 1);
        INSERT INTO lease VALUES('driver', 4);
        INSERT INTO event VALUES(1, 1, 0, 'created', '{{}}', '{"0" * 64}',
          'af4898d184a4b386b86861c063b85e5b2e877468545db480b394267c30278e17');
        CREATE TABLE _sqlite_migrations(id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at
        TEXT); CREATE UNIQUE INDEX idx__sqlite_migrations_migration_set_name ON
        _sqlite_migrations(migration_set, name); INSERT INTO _sqlite_migrations(migration_set, name,
        applied_at) VALUES('blackopt.ledger', '0001_tables', '');
        """
    )
    conn.close()


def test_an_older_ledger_is_migrated_after_a_backup(path: Path, make: object) -> None:
    old_file(path)
    with pytest.raises(LedgerError, match="must be migrated"):
        Ledger.open(path, read_only=True)
    with Ledger.open(path) as ledger:
        assert migrations.version_of(ledger.db.conn) == migrations.SCHEMA_VERSION
        assert "trial_life" in ledger.db.view_names()
        ledger.verify()
        with ledger.drive(at_us=9) as driver:
            assert driver.epoch == 5
            driver.ask([make.trial(0)], at_us=10)  # type: ignore[attr-defined]
    backup = sqlite3.connect(path.with_name(path.name + ".v1.backup"))
    assert backup.execute("PRAGMA user_version").fetchone() == (1,)
    backup.close()


def test_a_migration_waits_for_nobody_who_drives(path: Path) -> None:
    old_file(path)
    held = DriverLock(path, since_us=3)
    with pytest.raises(LockHeld):
        Ledger.open(path)
    held.release()
    Ledger.open(path).close()


KILLED_MIGRATION = """
import os, signal, sys
from pathlib import Path
from blackopt.ledger import Ledger, migrations
stop = int(sys.argv[2])
@migrations.MIGRATIONS(name="0003_kill")
def kill(db):
    db.conn.execute("CREATE TABLE half(a)")
    if stop:
        os.kill(os.getpid(), signal.SIGKILL)
Ledger.open(Path(sys.argv[1]))
"""


def test_f06_a_kill_during_migration_leaves_the_old_version_whole(path: Path) -> None:
    old_file(path)
    killed = subprocess.run([sys.executable, "-c", KILLED_MIGRATION, str(path), "1"], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    conn = sqlite3.connect(path)
    assert conn.execute("PRAGMA user_version").fetchone() == (1,)
    assert conn.execute(
        "SELECT count(*) FROM sqlite_master WHERE name IN ('half', 'trial_life')"
    ).fetchone() == (0,)
    conn.close()
    with Ledger.open(path) as ledger:
        ledger.verify()
        assert migrations.version_of(ledger.db.conn) == migrations.SCHEMA_VERSION


def test_a_new_ledger_and_a_migrated_one_have_one_schema(path: Path, tmp_path: Path, make: object) -> None:
    old_file(path)
    Ledger.open(path).close()
    Ledger.create(tmp_path / "new", make.campaign, at_us=1).close()  # type: ignore[attr-defined]
    schemas = []
    for name in (path, tmp_path / "new"):
        conn = sqlite3.connect(name)
        schemas.append(
            conn.execute(
                "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE '%_sqlite%' ORDER BY name"
            ).fetchall()
        )
        conn.close()
    assert schemas[0] == schemas[1]


def test_the_views_can_be_read(driver: Driver, make: object) -> None:
    driver.ask([make.trial(0)], at_us=1_700_000_000_000_000)  # type: ignore[attr-defined]
    driver.tell([NewTell(0, Status.OK, 1.5, readings=(make.value(0, 1.5),))], at_us=7)  # type: ignore[attr-defined]
    (row,) = driver.ledger.db.query("SELECT * FROM trial_life")
    assert (row["asked"], row["value"]) == ("2023-11-14T22:13:20Z", 1.5)
    (event,) = driver.ledger.db.query("SELECT source_event FROM reading_event")
    assert event["source_event"] == "0/t0//5"
    assert list(driver.ledger.db.query("SELECT * FROM order_life")) == []


def test_f15_a_torn_or_flipped_file_is_never_taken_for_whole(
    driver: Driver, tmp_path: Path, make: object
) -> None:
    driver.ask([make.trial(n) for n in range(400)], at_us=5)  # type: ignore[attr-defined]
    tells = [NewTell(n, Status.OK, float(n), readings=(make.value(n, n),)) for n in range(350)]  # type: ignore[attr-defined]
    driver.tell(tells, at_us=6)
    driver.ledger.backup(tmp_path / "good")
    whole = (tmp_path / "good").read_bytes()

    def facts(ledger: Ledger) -> object:
        return [
            [(t.number, t.candidate, t.version, t.vector.tobytes()) for t in ledger.trials()],
            [(t.seq, t.trial, t.status, t.value, t.obs_sha) for t in ledger.tells()],
            [(e.kind, dict(e.data), e.hash) for e in ledger.events()],
        ]

    with Ledger.open(tmp_path / "good", read_only=True) as good:
        expected = facts(good)
    caught = 0
    for i in range(120):
        at = (i * 7919 + 13) * 31 % len(whole)
        body = bytearray(whole)
        body[at] ^= 1 << (i % 8)
        bad = tmp_path / "bad"
        bad.write_bytes(body)
        try:
            with Ledger.open(bad) as ledger:
                ledger.verify()
                assert facts(ledger) == expected, (
                    f"byte {at}"
                )  # it hit unused space, or a fact outside the promise
        except LedgerError:
            caught += 1
    assert caught > 20
    for size in (len(whole) // 2, len(whole) - 4096, 5000, 100):
        (tmp_path / "bad").write_bytes(whole[:size])
        with pytest.raises(LedgerError):
            Ledger.open(tmp_path / "bad")
