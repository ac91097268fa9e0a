"""Production is the best that there is: the search finds nothing better, and nothing may be promoted.

The real commands, against the simulated app in its own process, whose production starts at the optimum.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from blackopt import Campaign, Ledger
from blackopt.ledger.rows import PromotionState
from blackopt.types import Role

RETENTION = Path(__file__).resolve().parents[2] / "examples" / "retention"
OPTIMUM = RETENTION / "retention_app" / "optimum.json"
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]


@contextmanager
def app(folder: Path) -> Iterator[dict[str, str]]:
    """The app with few users, and the optimum as what it serves anyway."""
    environment = {**os.environ, "APP_SECRET": "a secret of this test"}
    command = [sys.executable, str(RETENTION / "app.py"), "--directory", str(folder), "--seed", "5"]
    command += ["--users", "2500", "--incumbent", str(OPTIMUM)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = urlsplit(json.loads(process.stdout.readline())["address"]).port
        yield {**environment, "APP_PORT": str(port)}
    finally:
        process.terminate()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()


def prepare(folder: Path) -> Path:
    """The example's campaign with a smaller budget, which starts where production is: at the optimum."""
    (folder / "queries").mkdir(parents=True)
    for query in RETENTION.glob("queries/*.sql"):
        (folder / "queries" / query.name).write_text(query.read_text())
    best = json.loads(OPTIMUM.read_text())
    thresholds = best["parameters"]
    text = (RETENTION / "campaign.yaml").read_text()
    for old, new in (
        ("start: [[0.4, 0.2, 0.3, 0.8, 0.6]]", f"start: {best['weights']}"),
        ("start: 0.15", f"start: {thresholds['diversity']}"),
        ("start: 0.36", f"start: {thresholds['throttle']}"),
        ("trials: 384, max_in_flight: 48", "trials: 32, max_in_flight: 16"),
        ("population: 16", "population: 8"),
        ("arms: 16", "arms: 8"),
        ("min_units: 100", "min_units: 10"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "campaign.yaml"
    path.write_text(text)
    return path


def blackopt(verb: str, campaign: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*BLACKOPT, verb, "-q", str(campaign)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_where_nothing_is_better_nothing_is_promoted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    campaign = prepare(folder)
    with app(folder) as environment:
        searched = blackopt("run", campaign, environment)
        assert searched.returncode == 0, searched.stderr

        promoted = blackopt("promote", campaign, environment)
        assert promoted.returncode == 1, promoted.stdout + promoted.stderr
        assert "no proven improvement: nothing was promoted" in promoted.stderr
        assert "refused" in promoted.stdout

        # It stays refused: asking again tests nothing again.
        again = blackopt("promote", campaign, environment)
        assert again.returncode == 1
        assert "repeating until it passes proves nothing" in again.stderr

        with urlopen(
            f"http://127.0.0.1:{environment['APP_PORT']}/serves/retention-demo/1", timeout=30
        ) as answer:
            served = json.load(answer)
        with Ledger.open(Campaign.load(campaign, env=environment).ledger, read_only=True) as ledger:
            ledger.verify()
            assert [row.state for row in ledger.promotions()] == [PromotionState.REFUSED]
            assert len(ledger.trials(role=Role.TEST)) == 3
            assert not ledger.trials(role=Role.RAMP)
            assert not ledger.incumbents()

    best = json.loads(OPTIMUM.read_text())
    assert served["arm"] is None
    assert served["configuration"]["weights"] == best["weights"][0]
    assert served["configuration"]["throttle"] == best["parameters"]["throttle"]
    with closing(sqlite3.connect(folder / "app.db")) as log:
        assert {kind for (kind,) in log.execute("SELECT DISTINCT kind FROM orders")} == {"push", "withdraw"}
