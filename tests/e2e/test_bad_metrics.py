"""A metric's query is wrong: the command names the error, its file, line and row, and loses nothing."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from blackopt import Ledger
from blackopt.ledger.rows import TrialState
from blackopt.types import Status

BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]
DAY_US = 86_400_000_000
HOUR_US = DAY_US // 24
START_US = 20_000 * DAY_US
TODAY, LAST_WEEK = "2024-10-04", "2024-09-27"

CAMPAIGN = """\
version: 1
name: spenders
policy: {use: parameters, space: {x: {float: [0, 1], start: 0.5}}}
optimizer: {use: openai-es, population: 2, sigma: 0.1, seed: 1}
push: {use: file, directory: arms}
measure:
  use: SOURCE
  OPTIONS
  metrics:
    spend: {kind: mean, FILE_OF: SPEND, window: 1d}
    complaints: {kind: proportion, FILE_OF: COMPLAINTS, window: 1d}
objective: {maximize: spend, relative_to: control}
guardrails: [{metric: complaints, at_most: 0.5}]
traffic: {unit: user, share: 100%, control: 20%, arms: 2}
budget: {trials: 2}
schedule: {window: 1d, poll: 1h, deadline: 5d}
clock: {use: http, url: "http://127.0.0.1:PORT/clock"}
"""
SPEND = """\
-- What the units of each arm spent; squares AS of their totals.
WITH known AS (SELECT :as_of AS as_of)
SELECT
  arm,
  cohort,
  n,
  total AS sum,
  squares AS sum_sq,
  as_of
FROM spend
WHERE "window" = :window OR "window" = 'any'
ORDER BY rowid
"""
COMPLAINTS = """\
SELECT arm, n, total AS sum, as_of FROM complaints WHERE "window" = :window
"""


class World:
    """A campaign in a folder, its log, and a clock that the test moves."""

    def __init__(self, folder: Path, port: int, source: str) -> None:
        self.file, self.source, self.now_us = folder / "campaign.yaml", source, START_US
        (folder / "arms").mkdir()
        (folder / "queries").mkdir()
        self.query = folder / "queries" / "spend.sql"
        self.query.write_text(SPEND)
        (folder / "queries" / "complaints.sql").write_text(COMPLAINTS)
        with sqlite3.connect(folder / "events.db") as log:
            for name in ("spend", "complaints"):
                log.execute(f'CREATE TABLE {name}(arm, "window", cohort, n, total, squares, as_of)')
        log.close()
        for name in ("spend", "complaints"):
            extra = ",sum_sq" if name == "spend" else ""
            (folder / f"{name}.csv").write_text(f"arm,window,cohort,as_of,n,sum{extra}\n")
        words = {
            "SOURCE": source,
            "OPTIONS": "url: sqlite:///events.db" if source == "sql" else "path: unused.csv",
            "FILE_OF": "query" if source == "sql" else "file",
            "SPEND": "queries/spend.sql" if source == "sql" else "spend.csv",
            "COMPLAINTS": "queries/complaints.sql" if source == "sql" else "complaints.csv",
            "PORT": str(port),
        }
        text = CAMPAIGN
        for word, value in words.items():
            text = text.replace(word, value)
        self.file.write_text(text)

    def write(self, metric: str, *rows: tuple[object, ...], window: object = 1) -> None:
        """Append (arm, cohort, n, sum[, sum_sq]), known by now."""
        if self.source == "sql":
            with sqlite3.connect(self.file.with_name("events.db")) as log:
                for arm, cohort, n, total, *squares in rows:
                    values = (arm, window, cohort, n, total, squares[0] if squares else None, self.now_us)
                    log.execute(f"INSERT INTO {metric} VALUES(?, ?, ?, ?, ?, ?, ?)", values)
            log.close()
            return
        with self.file.with_name(f"{metric}.csv").open("a", newline="") as file:
            for arm, cohort, n, total, *squares in rows:
                csv.writer(file).writerow((arm, window, cohort, self.now_us, n, total, *squares))

    def clear(self) -> None:
        """Mend the log: spend is empty again."""
        if self.source == "sql":
            with sqlite3.connect(self.file.with_name("events.db")) as log:
                log.execute("DELETE FROM spend")
            log.close()
        else:
            self.file.with_name("spend.csv").write_text("arm,window,cohort,as_of,n,sum,sum_sq\n")

    def good(self) -> None:
        """Sound rows of every arm."""
        self.write("spend", *((arm, TODAY, n, n / 2 + 1, n) for arm, n in ARMS.items()))
        self.complaints()

    def complaints(self) -> None:
        """Sound rows of every arm, for the guardrail."""
        self.write("complaints", *((arm, "", n, 2) for arm, n in ARMS.items()))

    def place(self, row: int) -> str:
        """Where a row of `spend` is."""
        return f"queries/spend.sql:3, row {row}" if self.source == "sql" else f"spend.csv:{row + 1}"

    def run(self, *command: str) -> tuple[int, str]:
        """A command, its exit code, and what it said."""
        words = [*BLACKOPT, *command, str(self.file)]
        done = subprocess.run(
            words, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=60
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr

    def turn(self, later_us: int = 0) -> tuple[int, str]:
        """``blackopt run --once`` some time later."""
        self.now_us += later_us
        return self.run("run", "--once")

    def live(self) -> None:
        """Two candidates are in traffic."""
        code, said = self.turn()
        assert code == 0, said
        assert self.states() == [TrialState.LIVE] * 2

    def states(self) -> list[TrialState]:
        with self.ledger() as ledger:
            ledger.verify()
            return [trial.state for trial in ledger.trials()]

    def ledger(self) -> Ledger:
        return Ledger.open(self.file.with_name("spenders.db"), read_only=True)

    def stored(self, metric: str = "spend") -> dict[tuple[str, str], Mapping[str, float]]:
        """What is known of window 1, by arm and cohort."""
        with self.ledger() as ledger:
            rows = [row.reading for row in ledger.latest(1) if row.reading.metric == metric]
        return {(row.arm, row.cohort): row.stats for row in rows}

    def told_ok(self) -> None:
        """The window ends, matures and is told, whatever went wrong before."""
        code, said = self.turn(DAY_US)
        assert code == 0, said
        self.clear()
        self.now_us += DAY_US
        self.good()
        code, said = self.turn()
        assert code == 0, said
        with self.ledger() as ledger:
            ledger.verify()
            assert [row.status for row in ledger.tells()] == [Status.OK] * 2


ARMS = {"control": 100, "t0": 200, "t1": 200}
"""Units of each arm, as the traffic of the campaign is cut."""
NEGATIVE = [("control", TODAY, 100, 51, 90), ("t0", TODAY, 200, 100, 49), ("t1", TODAY, 200, 100, 90)]


@pytest.fixture(params=["sql", "csv"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    worlds: list[World] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"now_us": worlds[0].now_us}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    worlds.append(World(tmp_path, server.server_address[1], request.param))
    yield worlds[0]
    server.shutdown()
    server.server_close()


sql_only = pytest.mark.parametrize("world", ["sql"], indirect=True)


def line(said: str, name: str) -> str:
    """The one line that names the error."""
    [found] = [text for text in said.splitlines() if name in text]
    return found


def test_no_rows_after_everything_was_to_be_known(world: World) -> None:
    world.live()
    code, said = world.turn(HOUR_US)
    assert (code, "NoRows" in said) == (0, False), said  # nothing is to be known yet
    world.turn(DAY_US)
    world.now_us += DAY_US
    world.complaints()
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "NoRows")
    assert "no row for every arm of window 1" in found
    assert ("queries/spend.sql:3" if world.source == "sql" else "spend.csv:1") in found
    assert "NoRows: complaints" not in said
    assert world.states() == [TrialState.AWAITING] * 2, "the campaign waits until the deadline"
    world.good()
    code, said = world.turn(HOUR_US)
    assert (code, "NoRows" in said) == (0, False), said
    assert world.states() == [TrialState.TOLD] * 2


def test_wrong_columns_are_found_before_anything_is_pushed(world: World) -> None:
    if world.source == "sql":
        world.query.write_text(SPEND.replace("AS sum_sq", "AS sum_squares"))
    else:
        world.file.with_name("spend.csv").write_text("arm,window,n,sum,sum_squares\n")
    for command in (["check"], ["run", "--once"]):
        code, said = world.run(*command)
        assert code == 2, said
        assert "WrongColumns" in said
        assert "unknown column 'sum_squares'" in said
        assert ("queries/spend.sql:8" if world.source == "sql" else "spend.csv:1") in said
    assert not world.file.with_name("spenders.db").exists()
    assert list(world.file.with_name("arms").glob("*/*")) == []


def test_a_column_that_the_kind_needs_is_missed_before_anything_is_pushed(world: World) -> None:
    if world.source == "sql":
        world.query.write_text(SPEND.replace("  squares AS sum_sq,\n", ""))
    else:
        world.file.with_name("spend.csv").write_text("arm,window,n,sum\n")
    for command in (["check"], ["run", "--once"]):
        code, said = world.run(*command)
        assert code == 2, said
        assert "WrongColumns: spend misses sum_sq" in said
        assert ("queries/spend.sql:3" if world.source == "sql" else "spend.csv:1") in said
    assert not world.file.with_name("spenders.db").exists()


def test_wrong_columns_under_way_leave_the_other_metrics_and_the_guardrails(world: World) -> None:
    world.live()
    if world.source == "sql":
        world.query.write_text(SPEND.replace("n,\n", "n AS units,\n"))
    else:
        world.file.with_name("spend.csv").write_text("arm,window,units,sum,sum_sq\n")
    world.now_us += HOUR_US
    world.write("complaints", ("control", "", 1000, 1), ("t0", "", 2000, 1900), ("t1", "", 2000, 2))
    code, said = world.turn()
    assert code == 75, said
    found = line(said, "WrongColumns")
    assert "unknown column 'units'" in found
    assert ("queries/spend.sql:6" if world.source == "sql" else "spend.csv:1") in found
    assert world.stored("complaints").keys() == {(arm, "") for arm in ARMS}
    assert "breach" in said, "the guardrail that can be read withdraws its candidates all the same"
    assert world.states() == [TrialState.TOLD] * 2


def test_a_column_that_is_gone_is_found_at_its_line(world: World) -> None:
    if world.source == "csv":
        pytest.skip("a CSV file has its columns in its header")
    world.live()
    with sqlite3.connect(world.file.with_name("events.db")) as log:
        log.execute("ALTER TABLE spend RENAME COLUMN squares TO total_squares")
    log.close()
    code, said = world.turn(HOUR_US)
    assert code == 75, said
    assert "no such column: squares" in said
    assert "queries/spend.sql:8" in said
    world.query.write_text(SPEND.replace("squares AS sum_sq", "total_squares AS sum_sq"))
    code, said = world.turn(HOUR_US)
    assert code == 0, said


def test_a_negative_variance_names_its_row_and_costs_one_arm(world: World) -> None:
    world.live()
    world.now_us += HOUR_US
    world.write("spend", *NEGATIVE)
    world.complaints()
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "NegativeVariance")
    assert "sum_sq is 49.0, less than sum²/n = 50.0" in found
    assert world.place(2) in found
    assert world.stored().keys() == {(arm, TODAY) for arm in ARMS}, "kept, and judged when it has matured"
    world.told_ok()


def test_a_negative_variance_that_stays_is_what_the_trial_ends_with(world: World) -> None:
    world.live()
    world.turn(DAY_US)
    world.now_us += DAY_US
    world.write("spend", *NEGATIVE)
    world.complaints()
    code, said = world.turn()
    assert code == 0, said
    code, said = world.run("trials")
    assert "negative variance: sum_sq is 49.0" in said
    with world.ledger() as ledger:
        assert sorted(row.status for row in ledger.tells()) == [Status.FAILED, Status.OK]


def test_days_of_another_window_are_not_counted(world: World) -> None:
    world.live()
    world.now_us += HOUR_US
    window = "any" if world.source == "sql" else 1
    world.write("spend", ("control", LAST_WEEK, 900, 900, 900), window=window)
    world.good()
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "OverlappingWindows")
    assert f"units exposed on {LAST_WEEK}, which is no day of window 1" in found
    assert world.place(1) in found
    assert world.stored().keys() == {(arm, TODAY) for arm in ARMS}
    with world.ledger() as ledger:
        assert len(ledger.rejected()) == 1, "kept, and not counted"
    world.told_ok()


def test_two_rows_for_one_place_are_named(world: World) -> None:
    world.live()
    world.now_us += HOUR_US
    world.good()
    world.write("spend", ("t1", TODAY, 30, 10, 90))
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "OverlappingWindows")
    assert f"a second row for t1 on {TODAY}, beside row 3" in found
    assert world.place(4) in found
    assert world.stored()["t1", TODAY]["n"] == 200
    with world.ledger() as ledger:
        assert len(ledger.conflicts()) == 1, "kept, and not counted"
    world.told_ok()


def test_an_arm_that_does_not_exist_is_named_with_its_row(world: World) -> None:
    world.live()
    world.now_us += HOUR_US
    world.good()
    world.write("spend", ("t9", TODAY, 30, 10, 90), ("variant-b", TODAY, 30, 10, 90))
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "UnknownArm")
    assert "'t9' is no arm of window 1 (control, t0, t1)" in found
    assert f"{world.place(4)} and 1 more" in found
    with world.ledger() as ledger:
        assert len(ledger.quarantined()) == 2
    world.told_ok()


def test_a_metric_that_stands_still_is_named_once_it_has_matured(world: World) -> None:
    world.live()
    world.now_us += HOUR_US
    world.write("spend", *((arm, TODAY, n, 0, 0) for arm, n in ARMS.items()))
    world.complaints()
    code, said = world.turn()
    assert (code, "ConstantMetric" in said) == (0, False), said
    world.turn(DAY_US)
    world.clear()
    world.now_us += DAY_US
    world.write("spend", *((arm, TODAY, n, 0, 0) for arm, n in ARMS.items()))
    world.complaints()
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "ConstantMetric")
    assert "spend" in found
    assert ("queries/spend.sql:3, 3 rows" if world.source == "sql" else "spend.csv:1, 3 rows") in found
    assert world.states() == [TrialState.TOLD] * 2


def cuped(world: World, after: int) -> None:
    """The campaign adjusts for a covariate, and its query says how many of them look past the exposure."""
    world.file.write_text(world.file.read_text().replace("kind: mean", "kind: mean, cuped: true"))
    columns = "9 AS cov_sum, 90 AS cov_sum_sq, 8 AS num_cov"
    if world.source == "sql":
        after_of_t0 = f"CASE arm WHEN 't0' THEN {after} ELSE 0 END AS cov_after"
        world.query.write_text(SPEND.replace("  as_of\n", f"  {columns}, {after_of_t0},\n  as_of\n"))
        return
    header = "arm,window,cohort,as_of,n,sum,sum_sq,cov_sum,cov_sum_sq,num_cov,cov_after\n"
    rows = [
        f"{arm},1,{TODAY},{START_US + HOUR_US},{n},{n / 2},{n},9,90,8,{after if arm == 't0' else 0}\n"
        for arm, n in ARMS.items()
    ]
    world.file.with_name("spend.csv").write_text(header + "".join(rows))


def test_a_covariate_from_after_the_exposure_is_not_used(world: World) -> None:
    cuped(world, 7)
    world.live()
    world.now_us += HOUR_US
    if world.source == "sql":
        world.good()
    else:
        world.complaints()
    code, said = world.turn()
    assert code == 0, said
    found = line(said, "CovariateAfterExposure:")
    assert "the covariate of 7 units looks past their exposure" in found
    assert world.place(2) in found
    assert world.stored().keys() == {("control", TODAY), ("t1", TODAY)}
    with world.ledger() as ledger:
        [kept] = ledger.rejected()
        assert "CovariateAfterExposure" in str(kept)
        assert ledger.watermarks(1)["spend"].as_of_us == 0, "nothing is told while an arm cannot be used"


def test_a_clean_log_is_quiet(world: World) -> None:
    world.live()
    world.now_us += HOUR_US
    world.good()
    code, said = world.turn()
    assert (code, "trouble" in said) == (0, False), said
    world.told_ok()
