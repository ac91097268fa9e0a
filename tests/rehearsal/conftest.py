"""A small campaign to rehearse, and a control whose past lies in a real database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blackopt.campaign import CampaignSpec, from_mapping
from blackopt.rehearsal.assumptions import Wishes, world
from blackopt.rehearsal.outcome import Rehearsal
from blackopt.rehearsal.run import rehearse
from blackopt.rehearsal.world import DAY_US, World
from blackopt.runner.plan import Baseline

DOCUMENT: dict[str, Any] = {
    "version": 1,
    "name": "hill",
    "policy": {
        "use": "parameters",
        "space": {"x": {"float": [0, 1], "start": 0.2}, "y": {"float": [0, 1], "start": 0.2}},
    },
    "optimizer": {"use": "openai-es", "population": 8, "sigma": 0.15, "seed": 3},
    "push": {"use": "http", "url": "http://127.0.0.1:1/nobody"},
    "measure": {
        "use": "sql",
        "url": "sqlite:///past.db",
        "metrics": {
            "visit": {"kind": "proportion", "query": "unused.sql", "window": "2d", "lag": "1h"},
            "refund": {"kind": "proportion", "query": "unused.sql", "window": "1d"},
        },
    },
    "objective": {"maximize": "visit", "relative_to": "control"},
    "guardrails": [{"metric": "refund", "at_most": "1.3 * control"}],
    "traffic": {"unit": "user", "share": "80%", "control": "20%", "arms": 8},
    "budget": {"trials": 40, "max_in_flight": 32, "confirm": 2, "breaches": 20},
    "schedule": {"window": "1d", "poll": "6h", "deadline": "20d"},
}
BASELINES = {"visit": Baseline(0.2), "refund": Baseline(0.05)}


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with nested changes."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merge(result[key], value) if both else value
    return result


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., CampaignSpec]:
    """Campaigns with changes, in a folder that holds nothing else."""

    def make(**changes: Any) -> CampaignSpec:
        return from_mapping(merge(DOCUMENT, changes), base=tmp_path)

    return make


@pytest.fixture
def assume() -> Callable[..., World]:
    """The world of a campaign, from stated baselines."""

    def make(spec: CampaignSpec, *, units: float = 1e6, **wishes: Any) -> World:
        baselines = wishes.pop("baselines", BASELINES)
        return world(spec, baselines, {}, units, Wishes(**{"improve": 0.1, "faults": 0.0, **wishes}))

    return make


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rehearsal]:
    """A rehearsal in a folder of its own, which is put into ``folders``."""

    def once(
        spec: CampaignSpec, assumed: World, *, seed: int = 1, days: int = 200, promote: bool = False
    ) -> Rehearsal:
        folder = tmp_path_factory.mktemp("ledger")
        once.folders.append(folder)  # type: ignore[attr-defined]
        return rehearse(spec, assumed, seed=seed, folder=folder, until_us=days * DAY_US, promote=promote)

    once.folders = []  # type: ignore[attr-defined]
    return once


@pytest.fixture
def past_db(tmp_path: Path) -> Callable[[Sequence[str], Sequence[Sequence[object]]], None]:
    """Write ``past.db`` with one table ``past`` of these columns and rows, and a query that returns it."""

    def write(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        with closing(sqlite3.connect(tmp_path / "past.db")) as connection, connection:
            connection.execute("DROP TABLE IF EXISTS past")
            connection.execute(f"CREATE TABLE past ({', '.join(columns)})")
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO past VALUES ({marks})", rows)
        text = f"SELECT {', '.join(columns)} FROM past WHERE :arm = 'control'"
        (tmp_path / "past.sql").write_text(text, encoding="utf-8")
        (tmp_path / "unused.sql").write_text("SELECT 1 AS n, 1 AS sum", encoding="utf-8")

    return write
