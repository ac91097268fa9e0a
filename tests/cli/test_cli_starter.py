"""The starter: `init`, its production as a real process, and a campaign on live traffic."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHORTER = {
    "trials: 96, max_in_flight: 16, confirm: 2": "trials: 16, max_in_flight: 16, confirm: 1",
    "window: 6s, poll: 2s, deadline: 1m, lease: 6s": "window: 1500ms, poll: 500ms, deadline: 30s, lease: 3s",
    "lag: 500ms": "lag: 200ms",
}


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def starter(folder: Any, port: int) -> Any:
    """The starter in this folder, on a port of its own, with windows of a second."""
    answer = folder.call("init", "--port", str(port))
    assert answer.code == 0
    file = folder.path / "campaign.yaml"
    text = file.read_text()
    for long, short in SHORTER.items():
        assert long in text
        text = text.replace(long, short)
    file.write_text(text)
    return folder


@pytest.fixture
def production(starter: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-u", "production.py"],
        cwd=starter.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("production: orders at http://127.0.0.1:")
    yield process
    process.kill()
    process.communicate()


def test_init_writes_a_campaign_that_is_valid(folder: Any, port: int) -> None:
    answer = folder.call("init", "offer", "--port", str(port))
    assert answer.code == 0
    written = [Path(line) for line in answer.out.splitlines()]
    assert all(path.is_file() for path in written)
    assert stat.S_IMODE((folder.path / "offer/secret.txt").stat().st_mode) == 0o600
    assert "cd offer" in answer.err
    assert "blackopt run" in answer.err
    text = (folder.path / "offer/campaign.yaml").read_text()
    assert f"127.0.0.1:{port}/" in text
    assert "8801" not in text + (folder.path / "offer/production.py").read_text()
    again = folder.call("init", "offer")
    assert again.code == 2
    assert "nothing was written" in again.err
    assert (folder.path / "offer/campaign.yaml").read_text() == text


def test_init_keeps_its_secret_to_itself(folder: Any) -> None:
    folder.call("init", "one")
    folder.call("init", "two")
    secrets = [(folder.path / name / "secret.txt").read_text().strip() for name in ("one", "two")]
    assert len(set(secrets)) == 2
    assert all(len(secret) == 64 for secret in secrets)
    answer = folder.call("check", "one/campaign.yaml")
    assert secrets[0] not in answer.out + answer.err


def test_check_says_that_production_is_not_there(starter: Any) -> None:
    answer = starter.call("check")
    assert answer.code == 75
    assert "failed: " in answer.out
    assert answer.err.count("error: ") == 2, "the module and the event log"
    assert answer.err.count("next:") == 2
    assert not list(starter.path.glob("*.db"))


def test_a_port_in_use_is_said_in_one_line(starter: Any, port: int) -> None:
    with socket.create_server(("127.0.0.1", port)):
        result = subprocess.run(
            [sys.executable, "production.py"],
            cwd=starter.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr.startswith(f"production: port {port} cannot be used")
    assert "Traceback" not in result.stderr


def test_a_campaign_on_live_traffic(starter: Any, production: subprocess.Popen[str], until: Any) -> None:
    checked = starter.call("check")
    assert checked.code == 0
    assert "protocol 1, 0 arms live" in checked.out

    running = starter.start("run")
    until(lambda: (starter.path / "first-campaign.db").exists() and "live" in starter.call("status").out)
    standing = starter.call("status", "-o", "json").data
    assert f"process {running.pid}" in standing["driven_by"]
    assert standing["window"]["number"] >= 1
    tick = starter.call("run", "--once")
    assert tick.code == 0
    assert f"process {running.pid}" in tick.err

    stopped = starter.call("stop")
    assert stopped.code == 0, "its driver is ended first"
    assert f"ended process {running.pid}" in stopped.err
    _, said = running.communicate(timeout=60)
    assert running.returncode == 143
    assert "window 1: search, 8 arms" in said
    assert starter.call("stop").code == 0, "twice is harmless"
    assert "production serves the incumbent" in stopped.err
    assert "0 arms live" in starter.call("check").out
    paused = starter.call("run")
    assert paused.code == 3
    assert "blackopt run --resume" in paused.err

    ran = starter.run("run", "--resume", "-o", "json")
    assert ran.code == 0, ran.err
    assert ran.data["mode"] == "done"
    assert ran.data["control"] > 0
    best = starter.call("best").out
    assert "under control" in best
    assert "incumbent  recommended" in best
    trials = starter.call("trials").out
    assert "bought vs control" in trials
    assert " %" in trials
    assert starter.call("report").code == 0
    page = (starter.path / "first-campaign.html").read_text()
    assert "first-campaign" in page
    secret = (starter.path / "secret.txt").read_text().strip()
    assert secret not in page + ran.out + ran.err + said
    assert production.poll() is None
