"""Exploration by request with the real command and a module in another process, whole and killed at random.

The module perturbs a network for each unit from the keys in the directory of ``use: file`` and the centres in
the store. A campaign that is killed with ``kill -9`` again and again must equal one that was not: trials,
keys, centres, tells and recommendation.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blackopt import Campaign, Ledger
from blackopt.artifacts import Store
from blackopt.runner.assembly import Parts
from blackopt.types import Role, Status

MODULE = Path(__file__).with_name("perturbing_module.py")
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
KILLS = 30
CAMPAIGN = """
version: 1
name: feed
clock: {use: http, url: "http://127.0.0.1:${MODULE_PORT}/clock", timeout: 60s}
policy: {use: mlp, inputs: 5, hidden: [6], outputs: 2, tune: {"*": {scale: 0.25}}}
optimizer: {use: openai-es, sigma: 0.2, seed: 5, learning_rate: 0.3}
explore: {unit: request, directions: 16}
push: {use: file, directory: arms}
measure:
  use: sql
  url: sqlite:///log.db
  metrics:
    worth: {kind: mean, query: worth.sql, window: 1h}
objective: {maximize: worth, relative_to: control, effect: absolute}
traffic: {unit: user, share: 100%, control: 20%}
budget: {trials: 192, confirm: 1}
schedule: {window: 1d, poll: 12h, deadline: 9d, lease: 30d}
"""
QUERY = """
SELECT arm, count(*) AS n, sum(v) AS sum, sum(v * v) AS sum_sq FROM (
  SELECT arm, json_extract(outcome, '$.value') AS v FROM exposures
  WHERE campaign = :campaign AND "window" = :window
) GROUP BY arm
"""


@contextmanager
def module(folder: Path) -> Iterator[dict[str, str]]:
    """A folder with the campaign, and the module that serves it; gives the campaign's environment."""
    (folder / "arms").mkdir(parents=True)
    (folder / "campaign.yaml").write_text(CAMPAIGN)
    (folder / "worth.sql").write_text(QUERY)
    spec = Campaign.load(folder / "campaign.yaml", env={"MODULE_PORT": "1"}).spec
    with Parts(spec) as parts:
        shapes = parts.policy.shapes  # type: ignore[attr-defined]
        found = parts.policy.space.decode(parts.policy.start())
    tensors = {name: np.array(found[name], np.float32).reshape(shape) for name, shape in shapes.items()}
    chance = np.random.default_rng(1)
    best = {name: tensor + chance.normal(0.0, 0.2, tensor.shape) for name, tensor in tensors.items()}
    np.savez(folder / "incumbent.npz", allow_pickle=False, **tensors)
    np.savez(folder / "best.npz", allow_pickle=False, **best)
    process = subprocess.Popen([sys.executable, str(MODULE), str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield {**os.environ, "MODULE_PORT": process.stdout.readline().strip(), "OMP_NUM_THREADS": "1"}
    finally:
        process.terminate()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [*BLACKOPT, "run", "-q", str(folder / "campaign.yaml")]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def facts(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Everything that must be bit-identical, times included: they are virtual."""
    loaded = Campaign.load(folder / "campaign.yaml", env=environment)
    with Ledger.open(loaded.ledger, read_only=True) as ledger:
        ledger.verify()
        return {
            "trials": [(t.number, t.body, t.keyed, t.window, t.slice, t.cause) for t in ledger.trials()],
            "centres": ledger.centres(),
            "tells": ledger.tells(),
            "events": [(e.at_us, e.kind, json.dumps(e.data, sort_keys=True)) for e in ledger.events()],
            "recommended": loaded.results().recommendation.tobytes(),
            "in the store": Store(folder / "centres").labels(),
        }


def distance(folder: Path, environment: dict[str, str]) -> tuple[float, float]:
    """Mean square distance from the best network: of the incumbent, and of the recommendation."""
    loaded = Campaign.load(folder / "campaign.yaml", env=environment)
    found, best = loaded.results(), np.load(folder / "best.npz")

    def of(parameters: Any) -> float:
        return float(
            np.mean([np.mean((np.array(parameters[n]) - best[n].reshape(-1)) ** 2) for n in best.files])
        )

    return of(found.incumbent), of(found.parameters)


@pytest.mark.timeout(300)
def test_a_network_is_taught_by_requests_that_each_perturb_it(tmp_path: Path) -> None:
    folder = tmp_path / "feed"
    with module(folder) as environment:
        assert start(folder, environment).wait(timeout=200) == 0
        before, after = distance(folder, environment)
        found = facts(folder, environment)
    assert after < 0.7 * before
    assert found["in the store"] == {}
    statuses = [tell.status for tell in found["tells"] if tell.role is Role.SEARCH]
    assert statuses.count(Status.OK) > 0.9 * len(statuses) == 0.9 * 192
    assert found["tells"][-1].role is Role.CONFIRM
    assert found["tells"][-1].value > 0.0


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_kills_at_any_moment_leave_no_trace(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with module(whole) as environment:
        assert start(whole, environment).wait(timeout=300) == 0
        expected = facts(whole, environment)
    chance, kills, runs = random.Random(20_262), 0, 0
    while kills < KILLS:
        runs += 1
        folder = tmp_path / f"killed{runs}"
        with module(folder) as environment:
            while (process := start(folder, environment)).poll() is None:
                if kills < KILLS:
                    wait_for_a_random_moment(process, folder, chance)
                    process.send_signal(signal.SIGKILL)
                code = process.wait(timeout=300)
                if code == 0:
                    break
                assert code == -signal.SIGKILL
                kills += 1
            found = facts(folder, environment)
        for name, value in expected.items():
            assert found[name] == value, f"{name} differs in run {runs}"


def wait_for_a_random_moment(process: subprocess.Popen[bytes], folder: Path, chance: random.Random) -> None:
    """While it drives the campaign: its process id is in the lock."""
    lock, until = folder / "feed.db.lock", time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        if lock.exists() and f'"pid": {process.pid}' in lock.read_text():
            break
        time.sleep(0.002)
    time.sleep(chance.expovariate(1 / 0.6))
