"""``kill -9`` of the real command, at random moments, against the simulated app in its own process.

Nothing here knows where the process is when it dies: in Python's start-up, in a transaction, in a request,
while the app moves its time. Whatever happens, the campaign that was killed must equal the one that was not.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from blackopt import Campaign, Ledger

BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
KILLS = 200
SEED = 20_261


BUDGET = {
    "budget: {trials: 384, max_in_flight: 48, breaches: 12}": (
        "budget: {trials: 24, max_in_flight: 16, confirm: 1}"
    )
}
USERS = 1500


def start(campaign: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*BLACKOPT, "run", "-q", str(campaign)], env=environment, stdout=subprocess.DEVNULL
    )


def facts(campaign: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Everything that must be bit-identical. Time is virtual here, so it is compared as well."""
    loaded = Campaign.load(campaign, env=environment)
    with Ledger.open(loaded.ledger, read_only=True) as ledger:
        ledger.verify()
        return {
            "tells": ledger.tells(),
            "trials": [
                (t.number, t.vector_sha, t.window, t.slice, t.state, t.cause) for t in ledger.trials()
            ],
            "events": [(e.at_us, e.kind, json.dumps(e.data, sort_keys=True)) for e in ledger.events()],
            "recommended": loaded.results().recommendation.tobytes(),
        }


def check_production(folder: Path, campaign: Path, environment: Mapping[str, str]) -> None:
    """The module's own journal: nothing without a ledger row, nothing applied twice."""
    with Ledger.open(Campaign.load(campaign, env=environment).ledger, read_only=True) as ledger:
        intended = {(p.trial, p.kind.value): p.body_sha for p in ledger.pushes()}
    with sqlite3.connect(folder / "app.db") as log:
        pushes = log.execute(
            "SELECT trial, sha256, sum(times) FROM applied WHERE kind = 'push' GROUP BY trial, sha256"
        ).fetchall()
        seen = {trial for (trial,) in log.execute("SELECT DISTINCT trial FROM orders")}
    log.close()
    assert {trial for trial, _, _ in pushes} == seen
    for trial, sha, times in pushes:
        assert intended[trial, "apply"] == sha, f"t{trial}: production has what the ledger never intended"
        assert times == 1, f"t{trial} was applied {times} times"


def killed_run(
    campaign: Path, small_app: Any, chance: random.Random, kills_left: int
) -> tuple[dict[str, Any], int]:
    """One campaign, killed until it is done or no kills are left; its facts, and the number of kills."""
    folder, kills = campaign.parent, 0
    with small_app(folder, USERS) as environment:
        while True:
            process = start(campaign, environment)
            if kills < kills_left:
                wait_for_a_random_moment(process, folder, chance)
                process.send_signal(signal.SIGKILL)
            code = process.wait(timeout=120)
            if code == 0:
                break
            assert code == -signal.SIGKILL, f"exit code {code} after {kills} kills"
            kills += 1
        check_production(folder, campaign, environment)
        return facts(campaign, environment), kills


def wait_for_a_random_moment(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> None:
    """Mostly while it drives the campaign (its process id is in the lock), sometimes before."""
    if chance.random() < 0.1:
        time.sleep(chance.uniform(0.0, 0.5))
        return
    lock = folder / "retention-demo.db.lock"
    mine = f'"pid": {process.pid}'
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if lock.exists() and mine in lock.read_text():
            break
        time.sleep(0.002)
    time.sleep(chance.expovariate(1 / 0.12))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_f01_f02_f03_f04_f05_f08_two_hundred_kills_leave_no_trace(
    tmp_path: Path, small_campaign: Any, small_app: Any
) -> None:
    whole = tmp_path / "whole"
    campaign = small_campaign(whole, BUDGET)
    with small_app(whole, USERS) as environment:
        assert start(campaign, environment).wait(timeout=120) == 0
        check_production(whole, campaign, environment)
        expected = facts(campaign, environment)
    assert len(expected["tells"]) == 25

    chance = random.Random(SEED)
    kills = runs = 0
    while kills < KILLS:
        runs += 1
        killed = small_campaign(tmp_path / f"killed{runs}", BUDGET)
        found, n = killed_run(killed, small_app, chance, KILLS - kills)
        kills += n
        for name, value in expected.items():
            assert found[name] == value, f"{name} differs in run {runs}, killed {n} times"
    assert kills == KILLS
