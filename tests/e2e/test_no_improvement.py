"""Production is the best that there is: the search finds nothing better, and nothing may be promoted.

The real commands, against the simulated app in its own process, whose production starts at the optimum.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from blackopt import Campaign, Ledger
from blackopt.ledger.rows import PromotionState
from blackopt.types import Role

OPTIMUM = Path(__file__).resolve().parents[2] / "examples/retention/retention_app/optimum.json"
BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]


def blackopt(verb: str, campaign: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [*BLACKOPT, verb, "-q", str(campaign)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_where_nothing_is_better_nothing_is_promoted(
    tmp_path: Path, small_campaign: Any, small_app: Any
) -> None:
    folder, best = tmp_path / "run", json.loads(OPTIMUM.read_text())
    at_the_optimum = {
        "start: [[0.4, 0.2, 0.3, 0.8, 0.6]]": f"start: {best['weights']}",
        "start: 0.15": f"start: {best['parameters']['diversity']}",
        "start: 0.36": f"start: {best['parameters']['throttle']}",
        "trials: 384, max_in_flight: 48": "trials: 32, max_in_flight: 16",
    }
    campaign = small_campaign(folder, at_the_optimum)
    with small_app(folder, 2500, "--incumbent", str(OPTIMUM)) as environment:
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

    assert served["arm"] is None
    assert served["configuration"]["weights"] == best["weights"][0]
    assert served["configuration"]["throttle"] == best["parameters"]["throttle"]
    with closing(sqlite3.connect(folder / "app.db")) as log:
        assert {kind for (kind,) in log.execute("SELECT DISTINCT kind FROM orders")} == {"push", "withdraw"}
