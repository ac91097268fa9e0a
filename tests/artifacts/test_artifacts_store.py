"""The store: against a model of itself wherever it can be, under kill -9, and with two processes in one."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from blackopt.artifacts.store import Collected, Store, located
from blackopt.errors import ArtifactError, ConfigurationError, RetriableError, UsageError

NAMES = st.sampled_from([hashlib.sha256(bytes([n])).hexdigest() for n in range(6)])
HOLDERS = st.sampled_from(["incumbent", "t1", "t2"])
LABELS = st.sampled_from(["feed.v1", "feed.v2"])
DAMAGE = b"other bytes"


KEYS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a server in a process of its own that speaks S3, with a bucket `store`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        endpoint = f"http://127.0.0.1:{port}"
        try:
            while True:
                assert server.poll() is None
                try:
                    with urlopen(f"{endpoint}/moto-api/"):
                        break
                except OSError:
                    time.sleep(0.05)
            with pytest.MonkeyPatch.context() as environment:
                for name, value in KEYS.items():
                    environment.setenv(name, value)
                fsspec.filesystem("s3", endpoint_url=endpoint).mkdir("store")
                environment.setitem(fsspec.config.conf, "s3", {"endpoint_url": endpoint})
                yield endpoint
        finally:
            server.terminate()


@pytest.fixture(params=["directory", "memory", "local", pytest.param("s3", marks=pytest.mark.slow)])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Names a place where no store is yet."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    numbers = itertools.count()
    # `local` is fsspec's own way to the disk: folders have to be made, and writes may be cut off.
    before = {"directory": "", "memory": "memory://", "local": "local://", "s3": "s3://store"}[request.param]
    return lambda: f"{before}{tmp_path}/{next(numbers)}"


class AgainstAModel(RuleBasedStateMachine):
    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.store = Store(where)
        self.bodies: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.pins: dict[str, set[str]] = {}
        self.bases: dict[str, set[str]] = {}
        self.labels: dict[str, str] = {}

    @rule(number=st.integers(0, 5), holder=HOLDERS, base=st.none() | NAMES)
    def put(self, number: int, holder: str, base: str | None) -> None:
        body = bytes([number])
        name = hashlib.sha256(body).hexdigest()
        if base is not None and base not in self.bodies:
            with pytest.raises(ArtifactError, match="not in the store"):
                self.store.put(body, holder=holder, base=base)
            return
        if base is not None and base >= name:
            base = None  # a delta is younger than its base: no circles
        assert self.store.put(body, holder=holder, base=base) == name
        self.bodies[name] = body
        self.damaged.discard(name)
        self.pins.setdefault(name, set()).add(holder)
        if base is not None:
            self.bases.setdefault(name, set()).add(base)

    @rule(name=NAMES, holder=HOLDERS)
    def pin(self, name: str, holder: str) -> None:
        if name in self.bodies:
            self.store.pin(name, holder)
            self.pins[name].add(holder)
        else:
            with pytest.raises(ArtifactError, match="not in the store"):
                self.store.pin(name, holder)

    @rule(name=NAMES, holder=HOLDERS)
    def unpin(self, name: str, holder: str) -> None:
        self.store.unpin(name, holder)
        self.pins.get(name, set()).discard(holder)

    @rule(number=st.integers(0, 5), label=LABELS)
    def put_under_a_label(self, number: int, label: str) -> None:
        name = self.store.put(bytes([number]), label=label)
        self.bodies[name] = bytes([number])
        self.damaged.discard(name)
        self.pins.setdefault(name, set())
        self.labels[label] = name

    @rule(name=NAMES, label=LABELS)
    def label(self, name: str, label: str) -> None:
        if name in self.bodies:
            self.store.label(label, name)
            self.labels[label] = name
        else:
            with pytest.raises(ArtifactError, match="not in the store"):
                self.store.label(label, name)

    @rule(label=LABELS)
    def unlabel(self, label: str) -> None:
        self.store.unlabel(label)
        self.labels.pop(label, None)

    @rule(keep=st.sets(NAMES, max_size=2))
    def collect(self, keep: set[str]) -> None:
        needed = keep & set(self.bodies) | {name for name, holders in self.pins.items() if holders}
        needed |= set(self.labels.values())
        while more := {base for name in needed for base in self.bases.get(name, ())} - needed:
            needed |= more
        gone = set(self.bodies) - needed
        size = sum(len(DAMAGE) if name in self.damaged else 1 for name in gone)
        assert self.store.collect(keep) == Collected(len(gone), size)
        for name in gone:
            del self.bodies[name], self.pins[name]
            self.bases.pop(name, None)
        self.damaged -= gone

    @rule(name=NAMES)
    def damage(self, name: str) -> None:
        if name in self.bodies:
            self.store._place.write(f"objects/{name[:2]}/{name}", DAMAGE)
            self.damaged.add(name)

    @rule(name=NAMES)
    def leave_what_a_killed_process_leaves(self, name: str) -> None:
        if "://" not in self.where:
            (Path(self.where) / "partial" / "tmp1").write_bytes(b"hal")
        if name not in self.bodies:
            self.store._place.write(f"pins/{name}/killed", b"")
            self.store.collect(self.bodies)
            assert not self.store._place.list(f"pins/{name}")

    @rule()
    def reopen(self) -> None:
        self.store = Store(self.where)

    @invariant()
    def holds_what_it_should(self) -> None:
        assert list(self.store) == sorted(self.bodies)
        assert self.store.labels() == self.labels
        for label in ("feed.v1", "feed.v2"):
            assert self.store.resolve(label) == self.labels.get(label)
        for name, body in self.bodies.items():
            assert name in self.store
            if name in self.damaged:
                with pytest.raises(ArtifactError, match="no longer what was stored"):
                    self.store.get(name)
            else:
                assert self.store.get(name) == body
            deltas = {delta for delta, bases in self.bases.items() if name in bases}
            assert set(self.store.holders(name)) == self.pins[name] | deltas


def test_against_a_model(fresh: Callable[[], str]) -> None:
    class Here(AgainstAModel):
        def __init__(self) -> None:
            super().__init__(fresh())

    examples = 3 if fresh().startswith("s3") else 30
    steps = settings(max_examples=examples, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(Here, settings=steps)


WORKER = """
import random, sys
from blackopt.artifacts.store import Store
store, me, seed = Store(sys.argv[1]), sys.argv[2], sys.argv[3]
chance = random.Random(seed)
held = []
while True:
    # Few bodies, so that the processes meet at the same names.
    base = store.put(chance.randrange(8).to_bytes(50_000, "big"), holder=me)
    name = store.put(chance.randrange(8).to_bytes(60_000, "big"), holder=me, base=base)
    assert len(store.get(name)) == 60_000 and len(store.get(base)) == 50_000
    print("+", name, flush=True)
    held.append(name)
    store.unpin(base, me)
    if len(held) > 3:
        gone = held.pop(0)
        print("-", gone, flush=True)
        if gone not in held:
            store.unpin(gone, me)
    if chance.random() < 0.4:
        store.collect()
"""


def announced(output: str) -> set[str]:
    """What a worker holds by its last words, to the last whole line."""
    held: list[str] = []
    for line in output.splitlines(keepends=True):
        if line.endswith("\n"):
            sign, name = line.split()
            held.append(name) if sign == "+" else held.remove(name)
    return set(held)


def test_two_processes_are_killed_anywhere_and_nothing_that_is_held_is_lost(tmp_path: Path) -> None:
    chance = random.Random(5)
    folder = tmp_path / "store"
    for number in range(10):
        logs = [tmp_path / f"{number}{side}" for side in "ab"]
        workers = []
        for log in logs:
            with log.open("w") as out:
                script = [sys.executable, "-c", WORKER, str(folder), f"w{log.name}", log.name]
                workers.append(subprocess.Popen(script, stdout=out))
        while not all(log.stat().st_size for log in logs):
            assert all(worker.poll() is None for worker in workers)
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)  # both are in the middle of something
        for worker in workers:
            assert worker.poll() is None, "it ended by itself: an error of its own"
            worker.send_signal(signal.SIGKILL)
            worker.wait(timeout=60)
        store = Store(folder)
        for log in logs:
            for name in announced(log.read_text()):
                assert len(store.get(name)) == 60_000
                assert f"w{log.name}" in store.holders(name)
        store.collect()
        assert not list((folder / "partial").iterdir())
        for name in store:
            store.get(name)
            for holder in store.holders(name):
                if len(holder) < 64:
                    store.unpin(name, holder)
    assert store.collect().artifacts > 0
    assert list(store) == []
    assert not list((folder / "pins").iterdir())


@pytest.mark.parametrize("holder", ["", "a/b", "..", ".hidden", "x" * 129, "0" * 64, "ü"])
def test_holders_are_names_and_no_paths(tmp_path: Path, holder: str) -> None:
    store = Store(tmp_path)
    name = store.put(b"x", holder="t1")
    for call in (store.pin, store.unpin):
        with pytest.raises(UsageError, match="a holder is"):
            call(name, holder)
    with pytest.raises(UsageError, match="a holder is"):
        store.put(b"y", holder=holder)
    assert list(store) == [name]


@pytest.mark.parametrize("name", ["", "../lock", "A" * 64, "0" * 63])
def test_names_are_hashes(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    for call in (store.get, store.holders, lambda name: store.collect([name]), store.__contains__):
        with pytest.raises(UsageError, match="expected a sha256"):
            call(name)


def test_a_full_disk_leaves_nothing_under_the_hash(tmp_path: Path) -> None:
    script = (
        "import os, resource, signal, sys\n"
        "from blackopt.artifacts.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    store.put(bytes(5000), holder='t1')\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, list(store), os.listdir(store._place._partial))\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "OSError [] []", run.stderr
    store = Store(tmp_path)
    store.collect()
    assert not list((tmp_path / "pins").iterdir())
    assert store.get(store.put(bytes(5000), holder="t1")) == bytes(5000)


@pytest.mark.parametrize("label", ["", "a/b", "..", ".hidden", "x" * 201, "ü"])
def test_labels_are_names_and_no_paths(tmp_path: Path, label: str) -> None:
    store = Store(tmp_path)
    name = store.put(b"x", holder="t1")
    calls = (store.unlabel, store.resolve, lambda label: store.label(label, name))
    for call in (*calls, lambda label: store.put(b"y", label=label)):
        with pytest.raises(UsageError, match="a label is"):
            call(label)
    assert (list(store), store.labels()) == ([name], {})


def test_what_nobody_needs_is_not_put(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a holder or a label"):
        Store(tmp_path).put(b"x")


def test_a_process_that_is_killed_before_the_label_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from blackopt.artifacts.store import Store\n"
        "Store._write_label = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Store(sys.argv[1]).put(b'x', label='feed.v1')\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, timeout=60)
    assert run.returncode == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.resolve("feed.v1") is None
    assert store.collect() == Collected(1, 1)


# One writer after the other. A round ends with the artifact of that name under the label.
AT_A_URL = """
import sys
from blackopt.artifacts.store import Store
store, me = Store(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
number = 0
while True:
    base = store.put(bytes([number % 5]) * 3_000, holder=me)
    name = store.put(bytes([number % 7]) * 2_000, label="feed.v1", base=base)
    assert store.resolve("feed.v1") == name
    print(name, flush=True)
    store.unpin(base, me)
    store.collect()
    number += 1
"""


@pytest.mark.slow
def test_at_a_url_one_writer_after_the_other_is_killed_anywhere(s3: str, tmp_path: Path) -> None:
    chance, url = random.Random(3), f"s3://store{tmp_path}"
    # What the environment says is enough.
    environment = {**os.environ, "FSSPEC_S3_ENDPOINT_URL": s3}
    for number in range(6):
        log = tmp_path / f"{number}"
        with log.open("w") as out:
            script = [sys.executable, "-c", AT_A_URL, url, f"w{number}"]
            worker = subprocess.Popen(script, stdout=out, env=environment)
        while not log.stat().st_size:
            assert worker.poll() is None
            time.sleep(0.01)
        time.sleep(0.1 + chance.random())
        assert worker.poll() is None, "it ended by itself: an error of its own"
        worker.kill()
        worker.wait(timeout=60)
        store = Store(url)
        if said := log.read_text().splitlines()[1:]:
            labelled = store.resolve("feed.v1")
            assert labelled is not None
            assert (labelled == said[-1]) or labelled not in said[-2:]  # or the next, not said yet
        for name in store:
            store.get(name)
            store.unpin(name, f"w{number}")
        store.collect()
        for name in store.labels().values():
            assert len(store.get(name)) == 2_000
            assert any(name in store.holders(other) for other in store), "its base is gone"
    store.unlabel("feed.v1")
    assert store.collect().artifacts > 0
    assert store._place.list("") == {}


def test_what_was_cut_off_at_a_url_counts_for_nothing(tmp_path: Path) -> None:
    store = Store(f"local://{tmp_path}")
    name = store.put(b"0123456789", label="feed.v1")
    (tmp_path / "labels" / "feed.v1").write_text(name[:40])
    (tmp_path / "objects" / name[:2] / name).write_bytes(b"0123")
    assert store.resolve("feed.v1") is None
    assert store.labels() == {}
    with pytest.raises(ArtifactError, match="no longer what was stored"):
        store.get(name)
    store.put(b"0123456789", label="feed.v1")
    assert store.get(store.labels()["feed.v1"]) == b"0123456789"


def test_a_url_that_does_not_answer_may_do_so_later(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        where = {
            "endpoint_url": f"http://127.0.0.1:{nobody.getsockname()[1]}",
            "config_kwargs": {"retries": {"max_attempts": 0}},
        }
        monkeypatch.setitem(fsspec.config.conf, "s3", where)
        with pytest.raises(RetriableError, match="does not answer") as caught:
            Store("s3://tests:secret@store/x").put(b"x", label="feed.v1")
    assert caught.value.where == "s3://store/x"


@pytest.mark.parametrize("error", [PermissionError("Access Denied"), ValueError("no name of a bucket")])
def test_a_url_that_refuses_is_for_a_person(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(ConfigurationError, match="the store refuses") as caught:
        Store("memory://refused").put(b"x", label="feed.v1")
    assert caught.value.why == str(error)


class Stopped(BaseException):
    """The process ends here."""


def stopping(call: Callable[..., Any], left: Iterator[int]) -> Callable[..., Any]:
    """The same call, until no more are left."""

    def counted(*given: Any, **more: Any) -> Any:
        if next(left, None) is None:
            raise Stopped
        return call(*given, **more)

    return counted


def test_at_a_url_a_process_may_end_before_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(store: Store, say: Callable[[str], None]) -> None:
        base = store.put(b"base", holder="h")
        say("base")
        store.put(b"delta", label="feed.v1", base=base)
        say("delta")
        store.unpin(base, "h")
        assert store.collect().artifacts == 0
        say("unpinning")
        store.unlabel("feed.v1")
        store.collect()
        say("done")

    said: list[str] = []
    for at in itertools.count():
        url, left = f"memory://stopped/{at}", iter(range(at))
        with monkeypatch.context() as patched:
            for name in ("pipe_file", "cat_file", "info", "find", "rm_file"):
                patched.setattr(MemoryFileSystem, name, stopping(getattr(MemoryFileSystem, name), left))
            said.clear()
            with contextlib.suppress(Stopped):
                work(Store(url), said.append)
        if "done" in said:
            break
        store = Store(url)
        store.collect()
        found = {store.get(name) for name in store}
        assert found >= {"base": {b"base"}, "delta": {b"base", b"delta"}}.get(said[-1] if said else "", set())
        assert all(name in store for name in store.labels().values())
        assert b"delta" not in found or b"base" in found
        work(Store(url), said.append)
        assert store._place.list("") == {}
    assert at > 20


def test_a_bucket_is_never_made(s3: str) -> None:
    with pytest.raises(ConfigurationError, match="the place of a store is not there"):
        Store("s3://sotre/centres").put(b"x", label="feed.v1")
    assert not fsspec.filesystem("s3").exists("sotre")


@pytest.mark.parametrize("url", ["nothing-like-it://x", "abfs://container/x"])
def test_a_url_that_cannot_be_opened_here_says_what_to_install(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Store(url)
    assert "pip install 'blackopt[fsspec]'" in caught.value.next_step
    assert caught.value.where == url


def test_without_fsspec_directories_work_and_urls_say_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "sys.modules['fsspec'] = sys.modules['fsspec.core'] = None\n"
        "from blackopt.artifacts.store import Store\n"
        "Store('file://' + sys.argv[1]).put(b'x', label='feed.v1')\n"
        "Store('s3://bucket/prefix')\n"
    )
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)
    assert "pip install 'blackopt[fsspec]'" in run.stderr
    assert len(list(Store(tmp_path))) == 1


def test_a_url_is_taken_as_it_is_and_a_path_from_where_it_is_said(tmp_path: Path) -> None:
    assert located("s3://bucket/centres", tmp_path) == "s3://bucket/centres"
    assert located("centres", tmp_path) == str(tmp_path / "centres")
    assert located("/srv/centres", tmp_path) == "/srv/centres"
