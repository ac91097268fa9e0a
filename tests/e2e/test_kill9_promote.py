"""``kill -9`` of ``blackopt promote`` at random moments, and of the app that it promotes to.

As in the test of ``blackopt run``: nothing here knows where a process is when it dies, and the promotion that
was killed must equal the one that was not, from the first look to the adopted incumbent.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from blackopt import Campaign, Ledger
from blackopt.ledger.rows import PromotionState

RETENTION = Path(__file__).resolve().parents[2] / "examples" / "retention"
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
KILLS = 25
SEED = 20_262


class App:
    """The app in its own process, on a port that it keeps over its deaths."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "APP_SECRET": "a secret of this test"}
        self._command = [sys.executable, str(RETENTION / "app.py"), "--directory", str(folder)]
        self._command += ["--seed", "5", "--users", "2500"]
        self._start(0)

    def _start(self, port: int) -> None:
        command = [*self._command, "--port", str(port)]
        self._process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        address = json.loads(self._process.stdout.readline())["address"]
        self.port = urlsplit(address).port
        self.environment["APP_PORT"] = str(self.port)

    def kill(self) -> None:
        """Kill it and start it again."""
        port = self.port or 0
        self.stop(signal.SIGKILL)
        self._start(port)

    def serves(self) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/serves/retention-demo/1"
        with urlopen(url, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def stop(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        if self._process.stdout is not None:
            self._process.stdout.close()


SMALL = {
    "trials: 384, max_in_flight: 48": "trials: 64, max_in_flight: 16",
    "looks: 3, window: 1d": "looks: 2, window: 1d, alpha: 40%",
    '"2 * control"': '"4 * control"',
    '"1.25 * control"': '"4 * control"',
}
"""Few trials, and a quick promotion that few users suffice for."""


def start(verb: str, campaign: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    command = [*BLACKOPT, verb, "-q", str(campaign)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def facts(campaign: Path, app: App) -> dict[str, Any]:
    """Everything that must be the same, virtual times included, and what the app says that it serves."""
    with Ledger.open(Campaign.load(campaign, env=app.environment).ledger, read_only=True) as ledger:
        ledger.verify()
        return {
            "tells": ledger.tells(),
            "trials": [
                (t.number, t.role, t.vector_sha, t.window, t.slice, t.state, t.cause) for t in ledger.trials()
            ],
            "promotions": [(p.number, p.vector_sha, p.state, p.cause) for p in ledger.promotions()],
            "incumbents": [(i.number, i.vector_sha, i.artifact_sha, i.state) for i in ledger.incumbents()],
            "events": [(e.at_us, e.kind, json.dumps(e.data, sort_keys=True)) for e in ledger.events()],
            "served": app.serves(),
        }


def adoptions(folder: Path) -> list[tuple[str, int]]:
    """What the module's own journal says of adoptions: which artifact, and how often it was applied."""
    with closing(sqlite3.connect(folder / "app.db")) as log:
        return log.execute(
            "SELECT sha256, sum(times) FROM applied WHERE kind = 'adopt' GROUP BY sha256"
        ).fetchall()


def wait_for_a_random_moment(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> None:
    """Mostly while it drives the promotion (its process id is in the lock), sometimes before."""
    if chance.random() < 0.1:
        time.sleep(chance.uniform(0.0, 0.2))
        return
    lock, mine = folder / "retention-demo.db.lock", f'"pid": {process.pid}'
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if lock.exists() and mine in lock.read_text():
            break
        time.sleep(0.002)
    time.sleep(min(chance.expovariate(1 / 0.05), 0.2))


def killed_promotion(folder: Path, chance: random.Random, kills_left: int) -> tuple[dict[str, Any], int]:
    """One promotion, killed until it is done or no kills are left; its facts, and the number of kills."""
    app, kills = App(folder), 0
    campaign = folder / "campaign.yaml"
    try:
        while True:
            process = start("promote", campaign, app.environment)
            if kills < kills_left:
                wait_for_a_random_moment(process, folder, chance)
                process.send_signal(signal.SIGKILL)
                if chance.random() < 0.3:
                    app.kill()  # in the middle of what it was asked, now and then
            code = process.wait(timeout=120)
            if code == 0:
                break
            assert code == -signal.SIGKILL, f"exit code {code} after {kills} kills"
            kills += 1
        return facts(campaign, app), kills
    finally:
        app.stop()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_promotion_that_is_killed_again_and_again_is_the_same_promotion(
    tmp_path: Path, small_campaign: Any
) -> None:
    searched, whole = tmp_path / "searched", tmp_path / "whole"
    campaign = small_campaign(searched, SMALL)
    app = App(searched)
    try:
        assert start("run", campaign, app.environment).wait(timeout=120) == 0
    finally:
        app.stop()

    shutil.copytree(searched, whole)
    app = App(whole)
    try:
        assert start("promote", whole / "campaign.yaml", app.environment).wait(timeout=120) == 0
        expected = facts(whole / "campaign.yaml", app)
    finally:
        app.stop()
    assert [state for _, _, state, _ in expected["promotions"]] == [PromotionState.DONE]
    [(_, _, artifact_sha, _)] = expected["incumbents"]
    assert adoptions(whole) == [(artifact_sha, 1)]

    chance = random.Random(SEED)
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        folder = tmp_path / f"killed{runs}"
        shutil.copytree(searched, folder)
        found, n = killed_promotion(folder, chance, KILLS - kills)
        kills += n
        for name, value in expected.items():
            assert found[name] == value, f"{name} differs in run {runs}, killed {n} times"
        assert adoptions(folder) == [(artifact_sha, 1)]
    assert kills == KILLS
