"""Optimizers made of optimizers resume to the same bits; a part of another version makes snapshots void."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blackopt import Campaign
from blackopt.ledger.sqlite import sqlite3
from blackopt.optimizers.ga import GA

SPACE = {"x": {"float": [0, 1]}, "y": {"float": [0, 1]}, "z": {"int": [0, 4]}}

GROUPS: dict[str, Any] = {
    "use": "groups",
    "seed": 3,
    "groups": [
        {"blocks": ["x"], "use": "cma-es", "sigma": 0.3},
        {"blocks": ["y"], "use": "openai-es", "sigma": 0.05, "population": 8},
        {"blocks": ["z"], "use": "ga", "population": 12},
    ],
}
AUTO: dict[str, Any] = {"use": "auto", "seed": 3, "trials": 2001, "parallel": 7}


def bowl(params: dict[str, Any]) -> float:
    return float((params["x"] - 0.7) ** 2 + (params["y"] - 0.2) ** 2 + 0.1 * (params["z"] - 3) ** 2)


def campaign(folder: Path, optimizer: dict[str, Any], trials: int) -> Campaign:
    return Campaign(
        name="bowl", space=SPACE, evaluate=bowl, minimize="depth", trials=trials, max_in_flight=7,
        optimizer=optimizer, ledger=folder / "bowl.db",
    )  # fmt: skip


def snapshots(folder: Path) -> list[str]:
    ledger = sqlite3.connect(folder / "bowl.db")
    found = [row[0] for row in ledger.execute("SELECT optimizer_version FROM snapshot")]
    ledger.close()
    return found


@pytest.mark.parametrize("optimizer", [GROUPS, AUTO], ids=["groups", "auto"])
@pytest.mark.parametrize("damage", ["SELECT 1", "DELETE FROM snapshot"])
def test_resuming_gives_the_same_bits(tmp_path: Path, optimizer: dict[str, Any], damage: str) -> None:
    """With the snapshot or without; the other run never stopped between."""
    (tmp_path / "whole").mkdir()
    whole = campaign(tmp_path / "whole", optimizer, 560).run()
    campaign(tmp_path, optimizer, 540).run()
    assert snapshots(tmp_path)
    ledger = sqlite3.connect(tmp_path / "bowl.db")
    ledger.execute(damage)
    ledger.commit()
    ledger.close()
    found = campaign(tmp_path, optimizer, 560).run()
    assert found.recommendation.tobytes() == whole.recommendation.tobytes()


def test_a_part_of_another_version_makes_the_snapshot_void_and_not_the_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign(tmp_path, GROUPS, 540).run()
    before = set(snapshots(tmp_path))
    monkeypatch.setattr(GA, "version", "ga/after-an-update")
    assert campaign(tmp_path, GROUPS, 1060).run().recommendation is not None
    [after] = set(snapshots(tmp_path)) - before
    assert "ga/after-an-update" in after
