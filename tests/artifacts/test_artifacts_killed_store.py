"""The store, killed before each of its operations on files, one after the other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = r"""
import hashlib, os, signal, sys
from pathlib import Path

from blackopt.artifacts.store import Store

BASE, DELTA = b"base" * 5_000, b"delta" * 5_000
FILES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.scandir", "fcntl.flock"}


def work(folder, say):
    # What is said has happened, and what follows must not undo it.
    store = Store(folder)
    base = store.put(BASE, holder="h")
    say("base")
    delta = store.put(DELTA, holder="h", base=base)
    say("delta")
    store.unpin(base, "h")
    assert store.collect().artifacts == 0
    assert store.get(delta) + store.get(base) == DELTA + BASE
    say("unpinning")
    store.unpin(delta, "h")
    store.collect()
    assert list(store) == []
    say("done")


def killed(folder, at):
    # What it said before its operation number `at`, which it does not live to do.
    incoming, outgoing = os.pipe()
    if os.fork() == 0:
        left = at
        def hook(event, arguments):
            nonlocal left
            if event in FILES:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        try:
            work(folder, lambda word: os.write(outgoing, word.encode() + b"\n"))
            os._exit(0)
        finally:
            os._exit(1)
    os.close(outgoing)
    _, status = os.wait()
    with os.fdopen(incoming) as said:
        words = said.read().split()
    assert os.WIFSIGNALED(status) or (os.WEXITSTATUS(status) == 0 and "done" in words), (at, status)
    return words


def check(folder, words):
    store = Store(folder)
    held = {"unpinning": [], "delta": [BASE, DELTA], "base": [BASE]}.get(words[-1] if words else "", [])
    found = [store.get(name) for name in store]
    assert all(body in found for body in held), words
    store.collect()
    left = [store.get(name) for name in store]
    assert all(body in left for body in held), words
    # The delta's own pin holds the base.
    store.unpin(hashlib.sha256(BASE).hexdigest(), "h")
    store.collect()
    left = [store.get(name) for name in store]
    assert DELTA not in left or BASE in left
    assert not list((folder / "partial").iterdir())
    work(folder, lambda word: None)
    assert not list((folder / "pins").iterdir())


at = 0
while True:
    folder = Path(sys.argv[1]) / str(at)
    words = killed(folder, at)
    if "done" in words:
        break
    check(folder, words)
    at += 1
print(at)
"""


@pytest.mark.slow
def test_killed_before_every_operation(tmp_path: Path) -> None:
    # Without threads of numpy's, so that forking is safe.
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 50
