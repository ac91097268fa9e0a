"""A campaign with an evaluator, from `check` to `backup`, and what is said when something is amiss."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from blackopt.ledger.lock import DriverLock, holder


def test_from_check_to_backup(evaluation: Any) -> None:
    checked = evaluation.call("check")
    assert checked.code == 0
    assert "will be created" in checked.out
    assert not (evaluation.path / "pricing.db").exists()

    ran = evaluation.run("run")
    assert ran.code == 0
    assert ran.out.startswith("profit ")
    assert "start  recommended" in ran.out
    events = ran.err.splitlines()
    assert all(line[:4].isdigit() and line[19] == " " for line in events), (
        "each line starts with its UTC time"
    )
    assert sum(" told " in line for line in events) == 7

    again = evaluation.call("run")
    assert (again.code, again.out, again.err) == (0, ran.out, "")
    assert evaluation.call("best").out == ran.out

    standing = evaluation.call("status", "-o", "json").data
    assert standing["mode"] == "done"
    assert standing["driven_by"] is None
    assert standing["budget"] == {"search": {"of": 6, "asked": 6}, "confirm": {"of": 1, "asked": 1}}
    assert standing["told"]["ok"] == 7
    assert standing["started"].endswith("+00:00")
    shown = evaluation.call("status").out
    assert "6 of 6 trials asked" in shown
    assert "nobody" in shown
    assert " UTC" in shown

    rows = evaluation.call("trials", "-o", "json").data
    assert [row["trial"] for row in rows] == list(range(7))
    assert rows[-1]["role"] == "confirm"
    lines = evaluation.call("trials", "-n", "2").out.splitlines()
    assert lines[0].split() == ["trial", "role", "state", "profit", "discount", "reminders"]
    assert [line.split()[0] for line in lines[1:]] == ["t5", "t6"]

    worth = evaluation.call("best", "-o", "json").data
    assert worth["direction"] == "maximize"
    assert worth["evidence"] == "fresh"
    assert set(worth["parameters"]) == {"discount", "reminders"}

    report = evaluation.call("report")
    assert report.code == 0
    assert Path(report.out.strip()) == evaluation.path / "pricing.html"
    assert "profit" in (evaluation.path / "pricing.html").read_text()

    copied = evaluation.call("backup", "copy.db")
    assert (copied.code, copied.out) == (0, "copy.db\n")
    with sqlite3.connect(evaluation.path / "copy.db") as copy:
        assert copy.execute("SELECT count(*) FROM tell").fetchone() == (7,)
    twice = evaluation.call("backup", "copy.db")
    assert twice.code == 1
    assert "overwrite" in twice.err

    stopped = evaluation.call("stop")
    assert stopped.code == 0


def test_the_recommended_artifact_as_a_file(evaluation: Any) -> None:
    assert evaluation.run("run", "-q").code == 0
    answer = evaluation.call("best", "-o", "json", "--out", "best.json")
    assert answer.code == 0
    body = (evaluation.path / "best.json").read_bytes()
    assert json.loads(body) == answer.data["parameters"]
    assert answer.err.startswith(f"artifact: best.json (application/json, {len(body)} bytes, sha256 ")
    assert hashlib.sha256(body).hexdigest() in answer.err

    (evaluation.path / "best.json").write_text("mine")
    again = evaluation.call("best", "--out", "best.json")
    assert (again.code, again.out) == (2, "")
    assert "would overwrite a file" in again.err
    assert "--force" in again.err
    assert (evaluation.path / "best.json").read_text() == "mine"

    before = set(evaluation.path.iterdir())
    assert evaluation.call("best", "--out", "best.json", "--force").code == 0
    assert (evaluation.path / "best.json").read_bytes() == body
    (evaluation.path / "folder").mkdir()
    for nowhere in ("folder", "no/where.json"):
        refused = evaluation.run("best", "--out", nowhere, "--force")
        assert (refused.code, refused.out) == (1, "")
        assert nowhere in refused.err
    assert set(evaluation.path.iterdir()) == before | {evaluation.path / "folder"}


def test_quiet_says_nothing_but_data(evaluation: Any) -> None:
    ran = evaluation.run("run", "-q", "-o", "json")
    assert ran.code == 0
    assert ran.err == ""
    assert ran.data["campaign"] == "pricing"


def test_once_takes_a_turn_and_says_what_is_next(evaluation: Any) -> None:
    first = evaluation.call("run", "--once")
    assert first.code == 0
    assert first.out == ""
    assert "next" in first.err
    codes = [evaluation.call("run", "--once", "-q").code for _ in range(40)]
    assert set(codes) == {0}
    assert evaluation.call("status", "-o", "json").data["mode"] == "done"
    assert "nothing is left to do" in evaluation.call("run", "--once").err


def test_f22_an_overlapping_tick_leaves_and_names_who_is_at_work(evaluation: Any) -> None:
    assert evaluation.call("run", "--once", "-q").code == 0
    ledger = evaluation.path / "pricing.db"
    lock = DriverLock(ledger, since_us=time.time_ns() // 1000)
    try:
        tick = evaluation.run("run", "--once")
        assert tick.code == 0
        assert "nothing to do" in tick.err
        assert "process" in tick.err
        whole = evaluation.run("run")
        assert whole.code == 75
        assert whole.err.startswith("error: Another process drives this campaign")
        standing = evaluation.call("status", "-o", "json").data
        assert "process" in standing["driven_by"]
    finally:
        lock.release()
    assert holder(ledger) is None
    assert evaluation.call("run", "-q").code == 0


def test_who_drives_is_known_without_disturbing_them(evaluation: Any) -> None:
    ledger = evaluation.path / "pricing.db"
    assert holder(ledger) is None
    lock = DriverLock(ledger, since_us=1)
    assert "process" in str(holder(ledger))
    assert "process" in str(holder(ledger))
    lock.release()
    assert holder(ledger) is None
    DriverLock(ledger, since_us=2).release()


def test_f59_an_edited_campaign_is_refused_with_what_changed(evaluation: Any) -> None:
    assert evaluation.call("run", "-q").code == 0
    file = evaluation.path / "campaign.yaml"
    file.write_text(file.read_text().replace("[0, 0.4]", "[0, 0.5]"))
    for verb in (
        ["run"],
        ["status"],
        ["trials"],
        ["best"],
        ["report"],
        ["backup", "c.db"],
        ["check"],
        ["stop"],
    ):
        answer = evaluation.call(*verb)
        assert answer.code == 2, verb
        assert answer.err.startswith("error: the campaign was edited after it started")
        assert "0.4" in answer.err
        assert "0.5" in answer.err
        assert "next:" in answer.err


def test_a_longer_budget_is_no_edit(evaluation: Any) -> None:
    assert evaluation.call("run", "-q").code == 0
    file = evaluation.path / "campaign.yaml"
    file.write_text(file.read_text().replace("trials: 6", "trials: 8"))
    assert evaluation.call("run", "-q").code == 0
    assert evaluation.call("status", "-o", "json").data["budget"]["search"] == {"of": 8, "asked": 8}


@pytest.mark.parametrize(
    ("find", "put", "says"),
    [
        ("trials: 6", "trials: 6, trials: 7", "trials"),  # duplicate key
        ("trials: 6", "trials: 1e3", "trials"),  # text in YAML 1.1
        ("[0, 0.4]", "[0, .nan]", "discount"),
        ("trials: 6", "trials: no", "trials"),  # false in YAML 1.1
    ],
)
def test_f60_traps_of_yaml_are_errors_at_their_line(evaluation: Any, find: str, put: str, says: str) -> None:
    file = evaluation.path / "campaign.yaml"
    file.write_text(file.read_text().replace(find, put))
    answer = evaluation.call("check")
    assert answer.code == 2
    assert "campaign.yaml:" in answer.err
    assert says in answer.err
    assert "error: campaign.yaml cannot be used" in answer.err


def test_every_mistake_is_shown_at_once(evaluation: Any) -> None:
    file = evaluation.path / "campaign.yaml"
    text = file.read_text().replace("use: random", "use: randm").replace("trials: 6", "trials: 0")
    file.write_text(text.replace("objective:", "objectve: {}\nobjective:"))
    answer = evaluation.call("run")
    assert answer.code == 2
    assert answer.out == ""
    for line, word in ((4, "randm"), (6, "objectve"), (8, "trials")):
        assert f"campaign.yaml:{line}:" in answer.err, word
        assert word in answer.err
    assert "did you mean `random`?" in answer.err
    assert "3 problems" in answer.err
    assert not (evaluation.path / "pricing.db").exists()


def test_f61_a_flipped_objective_is_refused(evaluation: Any) -> None:
    assert evaluation.call("run", "-q").code == 0
    file = evaluation.path / "campaign.yaml"
    file.write_text(file.read_text().replace("maximize", "minimize"))
    answer = evaluation.call("run")
    assert answer.code == 2
    assert "objective" in answer.err


def test_f63_a_ledger_of_a_newer_blackopt_is_not_written(evaluation: Any) -> None:
    assert evaluation.call("run", "-q").code == 0
    with sqlite3.connect(evaluation.path / "pricing.db") as ledger:
        (version,) = ledger.execute("PRAGMA user_version").fetchone()
        ledger.execute(f"PRAGMA user_version={version + 1}")
    answer = evaluation.call("run")
    assert answer.code == 1
    assert "newer blackopt" in answer.err
    assert "pip install --upgrade blackopt" in answer.err


@pytest.mark.parametrize("verb", ["status", "trials", "best", "stop", "report"])
def test_f64_a_missing_ledger_is_an_error_and_is_not_created(evaluation: Any, verb: str) -> None:
    answer = evaluation.call(verb)
    assert answer.code == 1
    assert answer.out == ""
    assert answer.err.startswith("error: There is no ledger here")
    assert "pricing.db" in answer.err
    assert "next:" in answer.err
    assert not list(evaluation.path.glob("pricing.db*"))


@pytest.mark.parametrize("verb", ["check", "run", "status", "trials", "best", "ask", "stop", "report"])
def test_a_campaign_that_is_not_there(folder: Any, verb: str) -> None:
    answer = folder.call(verb, "offer.yaml")
    assert answer.code == 2
    assert "offer.yaml" in answer.err
    assert "does not exist" in answer.err
    assert list(folder.path.iterdir()) == []


def test_an_evaluator_that_cannot_be_imported(evaluation: Any) -> None:
    (evaluation.path / "shop.py").unlink()
    answer = evaluation.call("check")
    assert answer.code != 0
    assert "shop" in answer.err
    assert "Traceback" not in answer.err.splitlines()[0]
    assert not (evaluation.path / "pricing.db").exists()


def test_a_mistake_that_a_check_can_find_does_not_freeze_the_campaign(evaluation: Any) -> None:
    file = evaluation.path / "campaign.yaml"
    file.write_text(file.read_text().replace("shop:profit", "shop:proft"))
    answer = evaluation.call("run")
    assert answer.code == 2
    assert "shop:proft" in answer.err
    assert not list(evaluation.path.glob("pricing.db*"))
    file.write_text(file.read_text().replace("shop:proft", "shop:profit"))
    assert evaluation.call("run", "-q").code == 0


def test_evaluations_that_raise_are_told_as_failed_with_their_cause(evaluation: Any) -> None:
    evaluation.write("shop.py", "def profit(params):\n    raise RuntimeError('\\x1b[31mno stock')\n")
    ran = evaluation.run("run")
    assert ran.code == 0
    assert "nothing was measured yet" in ran.out
    shown = evaluation.call("trials").out
    assert "failed" in shown
    assert "no stock" in shown
    assert "\x1b" not in shown + ran.err
    assert evaluation.call("status").out.count("failed") == 1


def test_f18_a_folder_that_cannot_be_written_is_an_error_before_anything(evaluation: Any) -> None:
    file = evaluation.path / "campaign.yaml"
    file.write_text("ledger: /proc/blackopt/pricing.db\n" + file.read_text())
    missing = evaluation.call("run")
    assert missing.code == 1
    assert "There is no directory for the ledger" in missing.err
    file.write_text(file.read_text().replace("/proc/blackopt/", "/proc/"))
    answer = evaluation.call("run")
    assert answer.code == 1
    assert answer.err.count("error: ") == 1
    assert "nothing was" in answer.err
    assert "Traceback" not in answer.err


def test_a_report_that_cannot_be_written(evaluation: Any) -> None:
    assert evaluation.call("run", "-q").code == 0
    answer = evaluation.call("report", "--to", "nowhere/report.html")
    assert answer.code == 1
    assert answer.err.startswith("error: the report cannot be written")
    assert "nowhere" in answer.err


def test_plugins_and_schema_are_for_programs_too(folder: Any) -> None:
    listed = folder.call("plugins", "-o", "json").data
    assert {"optimizers", "policies", "connectors", "clocks"} == {entry["group"] for entry in listed}
    assert "cma-es" in folder.call("plugins").out
    schema = folder.call("schema").data
    assert schema["type"] == "object"
    assert "objective" in schema["properties"]


def test_json_has_no_nan(evaluation: Any) -> None:
    evaluation.call("run", "--once", "-q")
    answer = evaluation.call("best", "-o", "json")
    assert json.loads(answer.out, parse_constant=lambda name: pytest.fail(name))
