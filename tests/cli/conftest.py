"""Small campaigns in empty folders, and two ways to give a command: as a process, and as a call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blackopt.cli.main import app

BLACKOPT = str(Path(sys.executable).with_name("blackopt"))

EVALUATION = """\
version: 1
name: pricing
policy: {use: parameters, space: {discount: {float: [0, 0.4], start: 0.3}, reminders: {int: [0, 8]}}}
optimizer: {use: random, seed: 3}
evaluate: {use: python, call: "shop:profit", workers: 1}
objective: {maximize: profit}
budget: {trials: 6, max_in_flight: 2, confirm: 1}
"""

SHOP = """\
def profit(params):
    return 100 - 400 * (params["discount"] - 0.18) ** 2 - (params["reminders"] - 3) ** 2
"""

SLOW_SHOP = """\
import pathlib, time

def profit(params):
    with (pathlib.Path(__file__).parent / "calls.txt").open("a") as calls:
        calls.write("called\\n")
    time.sleep(0.1)
    return 100 - params["discount"]
"""

MANUAL = """\
version: 1
name: tasting
policy: {use: parameters, space: {sugar: {float: [0, 10], start: 4}, salt: {choice: [none, some]}}}
optimizer: {use: random, seed: 3}
objective: {maximize: score}
budget: {trials: 4, max_in_flight: 3}
"""


def heed_ctrl_c() -> None:
    """A shell that runs the tests in the background ignores Ctrl-C, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@dataclass
class Folder:
    """A directory with a campaign in it."""

    path: Path
    capture: pytest.CaptureFixture[str] | None = None
    command: str = BLACKOPT
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def start(
        self, *args: str, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """The command as a process of its own group."""
        process = subprocess.Popen(
            [self.command, *args],
            cwd=self.path,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **{"preexec_fn": heed_ctrl_c, **options},
        )
        self.started.append(process)
        return process

    def run(self, *args: str, **options: Any) -> Answer:
        """The command as a process, to its end."""
        process = self.start(*args, **options)
        out, err = process.communicate(timeout=60)
        return Answer(process.returncode, out, err)

    def call(self, *args: str) -> Answer:
        """The command inside this process: the same code, without the start of an interpreter."""
        assert self.capture is not None
        self.capture.readouterr()
        with pytest.raises(SystemExit) as left:
            app(list(args))
        out, err = self.capture.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(left.value.code, out, err)

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Folder]:
    """An empty directory, the current one."""
    monkeypatch.chdir(tmp_path)
    made = Folder(tmp_path, capsys)
    yield made
    made.close()


@pytest.fixture
def evaluation(folder: Folder) -> Folder:
    """A campaign with an evaluator in Python."""
    folder.write("campaign.yaml", EVALUATION)
    folder.write("shop.py", SHOP)
    return folder


@pytest.fixture
def slow(folder: Folder) -> Folder:
    """A campaign of many short evaluations, so that it can be interrupted."""
    folder.write("campaign.yaml", EVALUATION.replace("trials: 6", "trials: 400"))
    folder.write("shop.py", SLOW_SHOP)
    return folder


@pytest.fixture
def manual(folder: Folder) -> Folder:
    """A campaign that is asked and told by hand."""
    folder.write("campaign.yaml", MANUAL)
    return folder


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that another process does; a minute is never needed."""

    def wait(happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.02)

    return wait
