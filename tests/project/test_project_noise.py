"""The noise benchmark goes on where it was: runs that its file has are not made again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.noise import calibration, collected
from benchmarks.noise_peers import stands_for
from benchmarks.noise_problems import Problem, configurations


def small() -> Any:
    return replace(next(c for c in configurations("dev") if c.n == 5), kind="floats", budget=100, in_flight=1)


def test_runs_are_kept_and_only_missing_ones_are_made(tmp_path: Path) -> None:
    file = tmp_path / "noise.json"
    (first,) = collected([("chance", small(), 0)], 1, file)
    kept = json.loads(file.read_text())
    assert kept["data"]["runs"] == [first]

    kept["data"]["runs"][0]["regret"]["100"] = 42.0  # no run gives this
    file.write_text(json.dumps(kept))
    again, second = collected([("chance", small(), 0), ("chance", small(), 1)], 1, file)
    assert again["regret"] == {"100": 42.0}
    assert second["seed"] == 1
    assert second["regret"]["100"] != 42.0
    assert len(json.loads(file.read_text())["data"]["runs"]) == 2


def test_another_version_of_ours_is_measured_anew(tmp_path: Path) -> None:
    file = tmp_path / "noise.json"
    (found,) = collected([("surrogate", small(), 0)], 1, file)
    kept = json.loads(file.read_text())
    kept["data"]["runs"][0] |= {"version": "surrogate/0", "regret": {"100": 42.0}}
    file.write_text(json.dumps(kept))
    assert collected([("surrogate", small(), 0)], 1, file) == [found]
    assert len(json.loads(file.read_text())["data"]["runs"]) == 2


def test_auto_is_not_run_twice_where_it_is_the_surrogate(tmp_path: Path) -> None:
    file = tmp_path / "noise.json"
    assert stands_for("auto", Problem(small(), 0)) == "surrogate"
    auto, own = collected([("auto", small(), 0), ("surrogate", small(), 0)], 1, file)
    assert auto == own | {"optimizer": "auto"}
    assert [run["optimizer"] for run in json.loads(file.read_text())["data"]["runs"]] == ["surrogate"]


def test_the_calibration_counts_what_was_said_against_what_was_true() -> None:
    c = small()
    said = {"100": [1.0, 0.5, 1.9], "300": [1.0, 0.1, 0.5], "1000": [1.0, 0.5, -0.1]}
    regret = dict.fromkeys(("100", "300", "1000", "2000"), 0.5)
    run = {"optimizer": "auto", "configuration": c.name, "regret": regret, "belief": said}
    row = next(row for row in calibration([run], {c.name: c}).rows if row[0] == "all")
    assert row == ["all", "4", "1", "33%", "25.0%"]


def test_a_configuration_is_in_one_set_only() -> None:
    sets = [{c.name for c in configurations(name)} for name in ("dev", "held-back", "later")]
    assert all(sets)
    assert len(set.union(*sets)) == sum(len(one) for one in sets)
