"""Snapshots are a cache: with, without or with damaged ones, a campaign resumes to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blackopt import Campaign
from blackopt.ledger.sqlite import sqlite3

SPACE = {"x": {"float": [0, 1]}, "y": {"float": [0, 1]}}


def bowl(params: dict[str, Any]) -> float:
    return float((params["x"] - 0.7) ** 2 + (params["y"] - 0.2) ** 2)


def campaign(folder: Path, use: str, trials: int) -> Campaign:
    return Campaign(
        name="bowl", space=SPACE, evaluate=bowl, minimize="depth", trials=trials, max_in_flight=7,
        optimizer={"use": use, "seed": 3}, ledger=folder / "bowl.db",
    )  # fmt: skip


@pytest.mark.parametrize("use", ["openai-es", "cma-es", "ga", "random"])
@pytest.mark.parametrize("damage", ["DELETE FROM snapshot", "UPDATE snapshot SET state = zeroblob(9)"])
def test_f05_resuming_without_a_usable_snapshot_gives_the_same_bits(
    tmp_path: Path, use: str, damage: str
) -> None:
    (tmp_path / "whole").mkdir()
    campaign(tmp_path / "whole", use, 600).run()
    whole = campaign(tmp_path / "whole", use, 620).run()
    campaign(tmp_path, use, 600).run()
    with sqlite3.connect(tmp_path / "bowl.db") as ledger:
        assert ledger.execute("SELECT count(*) FROM snapshot").fetchone()[0] >= 1
        ledger.execute(damage)
    ledger.close()
    found = campaign(tmp_path, use, 620).run()
    assert found.recommendation.tobytes() == whole.recommendation.tobytes()
