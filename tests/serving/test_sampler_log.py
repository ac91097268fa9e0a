"""The log of exposures: at least once in files, SQLite, Redis and functions, and no request waits for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blackopt.artifacts import Centre, Keyed, Kind, Store
from blackopt.errors import ConfigurationError, FatalError, RetriableError, UsageError
from blackopt.serving import (
    Arms,
    CallableLog,
    Exposure,
    ExposureLog,
    FileLog,
    Models,
    RedisLog,
    Sampler,
    SqliteLog,
)
from blackopt.types import Placement, Push, Query, Reading, Slice
from blackopt_connectors._wire import push_body
from blackopt_connectors.events.source import EventsSource

LARGE_KEY = (1 << 64) - 3


def line(log: ExposureLog, unit: str = "u", **fields: Any) -> Exposure:
    return Exposure(log.new_id(), "feed", 3, "t7", unit, 1_700_000_000_000_000, **fields)


@pytest.fixture
def redis_url(tmp_path: Path) -> Iterator[str]:
    server = shutil.which("redis-server")
    assert server, "the log is tested against a real Redis: apt-get install redis-server"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "redis.txt").open("w") as out:
        process = subprocess.Popen(
            [server, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(tmp_path)],
            stdout=out,
        )
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        assert text == "" or text.startswith('{"id"'), text
        return False
    return True


def written(log: ExposureLog, path: Path) -> list[dict[str, Any]]:
    """What a file or a database holds; half a line stands in nobody's way."""
    if isinstance(log, FileLog):
        return [json.loads(text) for text in path.read_text().splitlines() if whole(text)]
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        found = [dict(row) for row in connection.execute("SELECT * FROM exposures")]
    connection.close()
    return found


@pytest.fixture(params=[FileLog, SqliteLog])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ExposureLog, Path]]:
    path = tmp_path / "exposures"
    log = request.param(path)
    yield log, path
    log.close()


def test_lines_hold_what_was_served(place: tuple[ExposureLog, Path]) -> None:
    log, path = place
    one = line(log, "ü\n'", version=2, key=str(LARGE_KEY), sign=-1, outcome='{"clicked": true}')
    two = line(log)
    log.put(one)
    log.put(two)
    log.flush()
    first, second = sorted(written(log, path), key=lambda row: row["id"])
    outcome = {"clicked": True} if isinstance(log, FileLog) else '{"clicked": true}'
    assert first == {**one._asdict(), "outcome": outcome}
    assert second == two._asdict()
    assert (log.spilled, log.dropped) == (0, 0)


def test_many_threads_lose_nothing(place: tuple[ExposureLog, Path]) -> None:
    log, path = place

    def requests(name: int) -> None:
        for number in range(2_000):
            log.put(line(log, f"{name}/{number}"))

    threads = [threading.Thread(target=requests, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush(60)
    rows = written(log, path)
    assert {row["unit"] for row in rows} == {f"{name}/{n}" for name in range(4) for n in range(2_000)}
    assert len({row["id"] for row in rows}) == len(rows) == 8_000


class Switch:
    """A receiver that can be broken."""

    def __init__(self) -> None:
        self.broken = True
        self.seen: list[dict[str, object]] = []
        self.calls = 0

    def __call__(self, lines: list[dict[str, object]]) -> None:
        self.calls += 1
        if self.broken:
            raise OSError("the receiver is away")
        self.seen += lines


def test_what_fails_is_repeated_and_a_full_queue_spills(tmp_path: Path) -> None:
    receiver = Switch()
    log = CallableLog(receiver, spill=tmp_path / "spill", size=10)
    for number in range(300):
        log.put(line(log, str(number)))
    with pytest.raises(RetriableError, match="not written yet") as caught:
        log.flush(0.2)
    assert "the receiver is away" in caught.value.why
    assert log.spilled >= 300 - 2 * 10 - 1
    assert log.dropped == 0
    receiver.broken = False
    log.flush(60)
    assert sorted(int(str(row["unit"])) for row in receiver.seen) == list(range(300))
    assert not list(tmp_path.glob("spill.*"))
    log.close()


def test_what_cannot_be_written_at_the_end_waits_for_the_next_process(tmp_path: Path) -> None:
    receiver = Switch()
    log = CallableLog(receiver, spill=tmp_path / "spill")
    for number in range(50):
        log.put(line(log, str(number)))
    log.close(timeout_s=0.2)
    log.put(line(log, "late"))
    assert (log.dropped, receiver.seen) == (0, [])
    log.close()
    # The files are locked for as long as the process lives that made them: this one stands for it.
    for descriptor in log._spill._held.values():
        os.close(descriptor)
    receiver.broken = False
    after = CallableLog(receiver, spill=tmp_path / "spill")
    after.put(line(after, "new"))
    after.flush()
    assert {row["unit"] for row in receiver.seen} == {*map(str, range(50)), "late", "new"}
    assert not list(tmp_path.glob("spill.*"))
    after.close()


def test_a_receiver_that_hangs_holds_up_neither_request_nor_end(tmp_path: Path) -> None:
    let_go = threading.Event()
    log = CallableLog(lambda _: let_go.wait(), spill=tmp_path / "spill", size=5)
    for number in range(100):
        log.put(line(log, str(number)))
    log.close(timeout_s=0.1)
    [path] = tmp_path.glob("spill.*")
    assert {json.loads(text)[4] for text in path.read_text().splitlines()} == {str(n) for n in range(100)}
    let_go.set()
    log._thread.join()


def test_lines_that_are_lost_are_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    receiver, folder = Switch(), tmp_path / "gone"
    folder.mkdir()
    log = CallableLog(receiver, spill=folder / "spill", size=3)
    log.put(line(log))
    folder.rmdir()
    for _ in range(20):
        log.put(line(log))
    assert log.dropped > 0
    assert "exposures are lost" in caplog.text
    receiver.broken = False
    with pytest.raises(FatalError, match="exposures were lost"):
        log.flush(60)
    with pytest.raises(FatalError, match="exposures were lost"):
        log.close()


def test_logs_need_a_place_and_a_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no place to spill"):
        FileLog(tmp_path / "nowhere" / "log")
    with pytest.raises(UsageError, match="at least one line"):
        FileLog(tmp_path / "log", size=0)
    with pytest.raises(UsageError, match="table: expected"):
        SqliteLog(tmp_path / "log", table="a; DROP")


def test_a_pipe_gets_every_line_once(tmp_path: Path) -> None:
    path, texts = tmp_path / "pipe", list[str]()
    os.mkfifo(path)

    def read() -> None:
        with path.open() as pipe:
            texts.extend(pipe)

    reader = threading.Thread(target=read)
    reader.start()
    log = FileLog(path)
    with path.open("w"):  # as long as somebody writes, the reader goes on
        for number in range(50):
            log.put(line(log, str(number)))
        log.flush()
    log.close()
    reader.join(60)
    assert [json.loads(text)["unit"] for text in texts] == [str(number) for number in range(50)]


def test_a_file_may_be_renamed_under_the_log(tmp_path: Path) -> None:
    log = FileLog(tmp_path / "log")
    for name in ("first", "second"):
        log.put(line(log, name))
        log.flush()
        (tmp_path / "log").rename(tmp_path / name)
        assert json.loads((tmp_path / name).read_text())["unit"] == name
    log.close()


def test_a_full_disk_leaves_no_line_torn_or_lost(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys\n"
        "from blackopt.serving import Exposure, FileLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = FileLog(sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))\n"
        "for n in range(20):\n"
        "    log.put(Exposure(log.new_id(), 'feed', 1, 't1', str(n), 1))\n"
        "try:\n"
        "    log.flush(0.3)\n"
        "except Exception as error:\n"
        "    print(type(error).__name__)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "log.flush(30)\n"
    )
    path = tmp_path / "log"
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.strip()) == (0, "RetriableError"), run.stderr
    units = {json.loads(text)["unit"] for text in path.read_text().splitlines() if whole(text)}
    assert units == set(map(str, range(20)))


def test_half_a_spilled_line_takes_no_other_line_with_it(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, threading\n"
        "from blackopt.errors import FatalError\n"
        "from blackopt.serving import CallableLog, Exposure\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "let_go, units = threading.Event(), []\n"
        "def receive(lines):\n"
        "    let_go.wait()\n"
        "    units.extend(int(line['unit']) for line in lines)\n"
        "log = CallableLog(receive, spill=sys.argv[1], size=1)\n"
        "def put(first, last):\n"
        "    for n in range(first, last):\n"
        "        log.put(Exposure(log.new_id(), 'feed', 1, 't1', str(n), 1))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))\n"
        "put(0, 40)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "put(40, 50)\n"
        "let_go.set()\n"
        "try:\n"
        "    log.close()\n"
        "except FatalError as error:\n"
        "    print(log.dropped > 20, len(set(units)) + log.dropped, set(range(40, 50)) <= set(units))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "spill"], capture_output=True, text=True, timeout=120
    )
    assert (run.returncode, run.stdout.strip()) == (0, "True 50 True"), run.stdout + run.stderr


def test_half_a_line_of_the_dead_takes_no_other_line_with_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text('{"id": "killed-1", "campai')
    log = FileLog(path)
    for number in range(3):
        log.put(line(log, str(number)))
        log.flush()
    with path.open("a") as file:  # while another process has it open
        file.write('{"id": "killed-2"')
    log.put(line(log, "3"))
    log.flush()
    log.close()
    rows = written(log, path)
    assert {row["unit"] for row in rows} == {"0", "1", "2", "3"}
    assert len({row["id"] for row in rows}) == 4
    assert path.read_text().count('{"id": "killed-') == 2


KILLED = """
import sys, time
from blackopt.serving import Exposure, FileLog, SqliteLog
kind, path, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = {"FileLog": FileLog, "SqliteLog": SqliteLog}[kind](path, size=size)
number = 0
while True:
    log.put(Exposure(log.new_id(), "feed", 1, "t1", str(number), 1))
    number += 1
    if number % 100 == 0:
        print(number, flush=True)
"""


@pytest.mark.parametrize("kind", ["FileLog", "SqliteLog"])
def test_kill_9_loses_no_more_than_the_queue(tmp_path: Path, kind: str) -> None:
    path, size = tmp_path / "log", 500
    for number in range(3):
        out = tmp_path / f"out{number}"
        with out.open("w") as file:
            process = subprocess.Popen([sys.executable, "-c", KILLED, kind, path, str(size)], stdout=file)
        until = time.monotonic() + 60
        while out.stat().st_size < 50 * (number + 1):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        served = int(out.read_text().rpartition("\n")[0].splitlines()[-1])
        log = {"FileLog": FileLog, "SqliteLog": SqliteLog}[kind](path)
        log.put(line(log, "next"))  # which writes what was spilled
        log.flush(60)
        units = {row["unit"] for row in written(log, path)}
        log.close()
        assert "next" in units
        lost = set(map(str, range(served))) - units
        assert len(lost) <= size + 1_000
        path.unlink()
        assert not list(tmp_path.glob("log.spill.*"))


def test_a_fork_has_a_queue_and_a_thread_of_its_own(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from blackopt.serving import Exposure, FileLog\n"
        "log = FileLog(sys.argv[1])\n"
        "log.put(Exposure(log.new_id(), 'feed', 1, 't1', 'parent', 1))\n"
        "child = os.fork()\n"
        "log.put(Exposure(log.new_id(), 'feed', 1, 't1', 'child' if child == 0 else 'after', 1))\n"
        "if child:\n"
        "    os.waitpid(child, 0)\n"
    )
    path = tmp_path / "log"
    run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(text) for text in path.read_text().splitlines()]
    assert sorted(row["unit"] for row in rows) == ["after", "child", "parent"]
    assert len({row["id"] for row in rows}) == 3


def test_sqlite_goes_on_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    log = SqliteLog(path)
    log.put(line(log, "before"))
    log.flush()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("DROP TABLE exposures")
    log.put(line(log, "meanwhile"))  # fails at once, and makes the table anew
    log.flush(60)
    assert other.execute("SELECT unit FROM exposures").fetchall() == [("meanwhile",)]
    other.close()
    log.close()


def test_redis_has_every_line_also_after_it_was_away(tmp_path: Path, redis_url: str) -> None:
    import redis

    log = RedisLog(redis_url, spill=tmp_path / "spill", stream="feed", size=50)
    client = redis.Redis.from_url(redis_url, decode_responses=True)
    for number in range(500):  # the server may not listen yet: that is an outage as well
        log.put(line(log, str(number), version=1, key=str(LARGE_KEY), sign=1, outcome='{"a": 1}'))
    log.put(line(log, "control"))
    log.flush(60)
    found: Any = client.xrange("feed")
    entries: list[dict[str, str]] = [fields for _, fields in found]
    by_unit = {fields["unit"]: fields for fields in entries}
    assert set(by_unit) == {*map(str, range(500)), "control"}
    assert len({fields["id"] for fields in entries}) == 501
    assert by_unit["7"]["key"] == str(LARGE_KEY)
    assert json.loads(by_unit["7"]["outcome"]) == {"a": 1}
    assert set(by_unit["control"]) == {"id", "campaign", "window", "arm", "unit", "time"}
    log.close()
    client.close()


# -- in a sampler


class Model:
    def __init__(self, tensors: Any) -> None:
        self.tensors = tensors


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Callable[[], Sampler[Model]], Path]]:
    tensors = {"w": np.ones((3, 2), np.float32)}
    store = tmp_path / "centres"
    Centre("feed", 3, 5, {"w": (3, 2)}, np.zeros(6, np.float32)).publish(Store(store))
    models = Models(store, "feed", Model, incumbent=tensors)
    arms = Arms(accept=models.accept, load=models.load, incumbent=models.incumbent, secrets=[])
    control = Slice(0, 200_000)
    for trial, sign in enumerate((1, -1)):
        part = Slice(200_000 + 200_000 * trial, 400_000 + 200_000 * trial)
        artifact = Keyed(3, LARGE_KEY, sign, 0.1, Kind.TABLE).encode()
        order = Push("k", "feed", trial, f"t{trial}", 1, 900.0, artifact, Placement(1, "s", part, control))
        answer = arms.handle("POST", "/push", {"Content-Type": "application/json"}, push_body(order))
        assert answer[0] == 200
    path = tmp_path / "app.db"
    log = SqliteLog(path)
    yield lambda: Sampler(arms, models, log=log), path
    log.close()


def test_every_exposure_has_one_line_and_no_arm_has_none(served: Any) -> None:
    sampler, path = served[0](), served[1]
    arms: dict[str, str | None] = {}
    for number in range(300):
        unit = f"user {number}"
        with sampler.perturb(unit) as p:
            arms[unit] = p.arm
            if number % 3 == 0:
                p.log(clicked=np.bool_(True), seconds=np.float32(0.5), items=np.arange(2))
            elif number % 3 == 1 and p.arm is not None:
                p.log()
    sampler.log.flush()
    rows = {row["unit"]: row for row in written(sampler.log, path)}
    assert {unit: row["arm"] for unit, row in rows.items()} == {u: arm for u, arm in arms.items() if arm}
    assert None in arms.values()
    for unit, row in rows.items():
        assert (row["campaign"], row["window"], row["version"]) == ("feed", 1, 3)
        sign = {"t0": 1, "t1": -1, "control": None}[row["arm"]]
        assert (row["sign"], row["key"]) == (sign, None if sign is None else str(LARGE_KEY))
        assert abs(row["time"] - time.time() * 1e6) < 600e6
        outcome = '{"clicked": true, "seconds": 0.5, "items": [0, 1]}'
        assert row["outcome"] == (outcome if int(unit.split()[1]) % 3 == 0 else None)


def test_each_call_writes_a_line_and_an_error_is_an_exposure_too(served: Any) -> None:
    sampler, path = served[0](), served[1]
    unit = next(f"user {n}" for n in range(100) if sampler.perturb(f"user {n}").key is not None)
    with sampler.perturb(unit) as p:
        p.log(clicks=1)
        p.log(clicks=2)
    with pytest.raises(RuntimeError), sampler.perturb(unit):
        raise RuntimeError
    sampler.log.flush()
    assert [row["outcome"] for row in written(sampler.log, path)].count(None) == 1
    assert len(written(sampler.log, path)) == 3


@pytest.mark.parametrize("outcome", [{"a": float("nan")}, {"a": object()}, {"a": {1, 2}}])
def test_outcomes_that_json_does_not_have_are_refused_at_the_call(served: Any, outcome: Any) -> None:
    sampler, path = served[0](), served[1]
    unit = next(f"user {n}" for n in range(100) if sampler.perturb(f"user {n}").arm is not None)
    with sampler.perturb(unit) as p, pytest.raises(UsageError, match="log: expected finite numbers"):
        p.log(**outcome)
    sampler.log.flush()
    assert len(written(sampler.log, path)) == 1, "it was served all the same"


def test_events_read_the_table_as_it_is(served: Any, tmp_path: Path) -> None:
    sampler, path = served[0](), served[1]
    counts: dict[str, int] = {}
    for number in range(200):
        with sampler.perturb(f"user {number}") as p:
            if p.arm is not None:
                counts[p.arm] = counts.get(p.arm, 0) + 1
    sampler.log.flush()
    now = time.time_ns() // 1_000
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (unit TEXT, time INTEGER, name TEXT)")
        connection.execute("INSERT INTO events VALUES ('user 0', ?, 'click')", (now + 2 * 3_600_000_000,))
    connection.close()
    hour = 3_600_000_000
    metric = {"kind": "proportion", "event": "click", "window": hour, "lag": 0}
    source = EventsSource(
        EventsSource.Options(url=f"sqlite:///{path}"),  # type: ignore[call-arg] # of a plug-in
        {"clicked": EventsSource.MetricOptions.model_validate(metric)},
        base=tmp_path,
    )
    query = Query("feed", 1, tuple(counts), now - hour, now + hour, now + 3 * hour, ("clicked",))
    found = list(source.read(query))
    assert {each.arm: each.stats["n"] for each in found if isinstance(each, Reading)} == counts
