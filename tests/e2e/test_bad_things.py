"""Production misbehaves, the log misbehaves: the command says so, exits as documented, and loses nothing."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from blackopt import Ledger
from blackopt.ledger.rows import TrialState
from blackopt.serving import Arms, within
from blackopt.types import Artifact

BLACKOPT = [sys.executable, "-c", "from blackopt.cli.main import main; main()"]

CAMPAIGN = """\
version: 1
name: weather
policy: {use: parameters, space: {x: {float: [0, 1], start: 0.5}}}
optimizer: {use: openai-es, population: 2, sigma: 0.1, seed: 1}
push:
  use: http
  url: "http://127.0.0.1:${PORT}/blackopt"
  secret: "${SECRET}"
  connect_timeout: 1s
  timeout: 1s
  tries: 1
measure:
  use: sql
  url: sqlite:///events.db
  metrics: {sold: {kind: proportion, query: sold.sql, window: 1d}}
objective: {maximize: sold, relative_to: control}
traffic: {unit: user, share: 100%, control: 20%, arms: 2}
budget: {trials: 4}
schedule: {window: 1d, poll: 1s, deadline: 5d}
"""
SOLD = "SELECT arm, n, sum, as_of FROM sold WHERE window = :window"


class Module:
    """A production module whose server can be told to misbehave."""

    def __init__(self) -> None:
        self.fault = ""
        self.arms = Arms(
            accept=within({"x": (0.0, 1.0)}),
            incumbent=Artifact(b'{"x": 0.5}'),
            secrets=["hush"],
            clock=time.monotonic,
        )
        module = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(b"")

            def do_POST(self) -> None:
                self.answer(self.rfile.read(int(self.headers["Content-Length"])))

            def answer(self, body: bytes) -> None:
                fault = module.fault if self.command == "POST" else ""
                if fault == "slow":
                    time.sleep(1.5)
                if fault in ("401", "404", "429", "500", "302"):
                    self.reply(int(fault), b"<html>no</html>")
                elif fault == "garbage":
                    self.reply(200, b"<html>welcome</html>")
                else:
                    status, reply = module.arms.handle(
                        self.command, self.path, dict(self.headers.items()), body
                    )
                    if fault == "applied, then 502":
                        status, reply = 502, b"bad gateway"
                    self.reply(status, reply)

            def reply(self, status: int, body: bytes) -> None:
                try:
                    self.send_response(status)
                    if status == 429:
                        self.send_header("Retry-After", "1")
                    if status == 302:
                        self.send_header("Location", "http://127.0.0.1:1/")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client stopped waiting, as it should

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def module() -> Iterator[Module]:
    running = Module()
    yield running
    running.close()


@pytest.fixture
def campaign(tmp_path: Path) -> Path:
    (tmp_path / "sold.sql").write_text(SOLD)
    (tmp_path / "campaign.yaml").write_text(CAMPAIGN)
    with sqlite3.connect(tmp_path / "events.db") as log:
        log.execute("CREATE TABLE sold(window INTEGER, arm TEXT, n, sum, as_of INTEGER)")
    log.close()
    return tmp_path / "campaign.yaml"


def once(campaign: Path, port: int) -> tuple[int, str]:
    """``blackopt run --once``: its exit code, and what it said."""
    environment = {**os.environ, "PORT": str(port), "SECRET": "hush"}
    command = [*BLACKOPT, "run", "--once", str(campaign)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert "hush" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def states(campaign: Path) -> list[TrialState]:
    with Ledger.open(campaign.with_name("weather.db"), read_only=True) as ledger:
        ledger.verify()
        return [trial.state for trial in ledger.trials()]


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("slow", 75, "run the same command again"),
        ("500", 75, "run the same command again"),
        ("429", 75, "run the same command again"),
        ("garbage", 75, "run the same command again"),
        ("applied, then 502", 75, "run the same command again"),
        ("401", 2, "secret"),
        ("404", 2, "url"),
        ("302", 2, "302"),
    ],
)
def test_f03_f30_f31_f32_f33_a_module_that_misbehaves(
    module: Module, campaign: Path, fault: str, code: int, says: str
) -> None:
    module.fault = fault
    found, said = once(campaign, module.port)
    assert found == code, said
    assert says in said.lower()
    assert set(states(campaign)) <= {TrialState.ASKED, TrialState.PUSHING}
    module.fault = ""
    for _ in range(5):  # what is due again may be a second or two away
        time.sleep(1.1)
        found, said = once(campaign, module.port)
        if found == 0 and states(campaign) == [TrialState.LIVE] * 2:
            break
    assert states(campaign) == [TrialState.LIVE] * 2
    _, body = module.arms.handle("GET", "/blackopt/live", _signed(), b"")
    assert sorted(arm["arm"] for arm in json.loads(body)["live"]) == ["t0", "t1"]


def _signed() -> dict[str, str]:
    from blackopt.serving import sign

    stamp = int(time.time())
    return {
        "webhook-id": "look",
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign("hush", "look", stamp, b""),
    }


def test_a_module_that_is_down_costs_nothing(campaign: Path) -> None:
    code, said = once(campaign, 1)  # nobody listens there
    assert code == 75, said
    assert "run the same command again" in said
    assert states(campaign) == [TrialState.PUSHING] * 2


def live(module: Module, campaign: Path) -> None:
    assert once(campaign, module.port)[0] == 0
    assert states(campaign) == [TrialState.LIVE] * 2
    time.sleep(1.1)  # the next poll is due


def rows(campaign: Path, *values: tuple[Any, ...]) -> None:
    with sqlite3.connect(campaign.with_name("events.db")) as log:
        log.executemany("INSERT INTO sold VALUES(?, ?, ?, ?, ?)", values)
    log.close()


def test_an_empty_log_is_no_trouble(module: Module, campaign: Path) -> None:
    live(module, campaign)
    code, said = once(campaign, module.port)
    assert code == 0, said


def test_a_log_that_is_not_there_yet_is_temporary(module: Module, campaign: Path) -> None:
    campaign.with_name("events.db").rename(campaign.with_name("elsewhere.db"))
    live(module, campaign)
    code, said = once(campaign, module.port)
    assert code == 75, said
    assert "events.db" in said


def test_f42_f43_f47_f48_f52_a_log_with_junk_keeps_the_good_rows(module: Module, campaign: Path) -> None:
    live(module, campaign)
    now_us = time.time_ns() // 1000
    rows(
        campaign,
        (1, "control", 100, 20, now_us),
        (1, "control", 100, 20, now_us),  # delivered twice
        (1, "t0", 50, 11, now_us),
        (1, "t0", 50, 12, now_us),  # contradicts
        (1, "t1", "many", 3, now_us),  # no number
        (1, "t9", 10, 1, now_us),  # never asked
    )
    code, said = once(campaign, module.port)
    assert code == 0, said
    assert "set aside" in said
    rows(campaign, (1, "t0", 60, 14, now_us + 1))  # restated later, under a new watermark
    time.sleep(1.1)
    code, said = once(campaign, module.port)
    assert code == 0, said
    with Ledger.open(campaign.with_name("weather.db"), read_only=True) as ledger:
        latest = {row.reading.arm: row.reading.stats for row in ledger.latest(1)}
        assert latest["control"] == {"n": 100, "sum": 20}
        assert latest["t0"] == {"n": 60, "sum": 14}
        assert len(ledger.conflicts()) == 1
        assert len(ledger.quarantined()) == 1
        assert len(ledger.rejected()) == 1


def test_f59_a_campaign_edited_after_it_started_is_refused(module: Module, campaign: Path) -> None:
    live(module, campaign)
    campaign.write_text(CAMPAIGN.replace("sigma: 0.1", "sigma: 0.2"))
    code, said = once(campaign, module.port)
    assert code == 2
    assert "`optimizer.sigma` 0.1 -> 0.2" in said
    campaign.write_text(CAMPAIGN.replace("trials: 4", "trials: 8"))
    code, said = once(campaign, module.port)
    assert code == 0, said
