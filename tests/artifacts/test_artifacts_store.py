"""The store: against a model of itself, under kill -9, and with two processes in one directory."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blackopt.artifacts.store import Collected, Store
from blackopt.errors import ArtifactError, UsageError

NAMES = st.sampled_from([hashlib.sha256(bytes([n])).hexdigest() for n in range(6)])
HOLDERS = st.sampled_from(["incumbent", "t1", "t2"])
LABELS = st.sampled_from(["feed.v1", "feed.v2"])


def where(folder: Path, name: str) -> Path:
    return folder / "objects" / name[:2] / name


class AgainstAModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.store = Store(self.folder)
        self.bodies: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self.pins: dict[str, set[str]] = {}
        self.bases: dict[str, set[str]] = {}
        self.labels: dict[str, str] = {}

    def teardown(self) -> None:
        self.place.cleanup()

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
        size = sum(where(self.folder, name).stat().st_size for name in gone)
        assert self.store.collect(keep) == Collected(len(gone), size)
        for name in gone:
            del self.bodies[name], self.pins[name]
            self.bases.pop(name, None)
        self.damaged -= gone

    @rule(name=NAMES)
    def damage(self, name: str) -> None:
        if name in self.bodies:
            where(self.folder, name).write_bytes(b"other bytes")
            self.damaged.add(name)

    @rule(name=NAMES)
    def leave_what_a_killed_process_leaves(self, name: str) -> None:
        (self.folder / "partial" / "tmp1").write_bytes(b"hal")
        if name not in self.bodies:
            pins = self.folder / "pins" / name
            pins.mkdir(exist_ok=True)
            (pins / "killed").touch()
            self.store.collect(self.bodies)
            assert not pins.exists()

    @rule()
    def reopen(self) -> None:
        self.store = Store(self.folder)

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


AgainstAModel.TestCase.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase

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
        "import resource, signal, sys\n"
        "from blackopt.artifacts.store import Store\n"
        "store = Store(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    store.put(bytes(5000), holder='t1')\n"
        "except OSError as error:\n"
        "    print(type(error).__name__, list(store), list((store._partial).iterdir()))\n"
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
