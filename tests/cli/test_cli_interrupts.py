"""Ctrl-C, SIGTERM, and what a terminal shows while the campaign runs."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from typing import Any

import pytest

from blackopt import Ledger
from blackopt.ledger.lock import holder


def told(folder: Any) -> int:
    calls = folder.path / "calls.txt"
    return calls.read_text().count("called") if calls.exists() else 0


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("everybody", [True, False])
def test_f09_an_interrupt_saves_frees_the_lock_and_is_resumed(
    slow: Any, until: Any, sent: signal.Signals, code: int, everybody: bool
) -> None:
    process = slow.start("run")
    until(lambda: told(slow) >= 3)
    # A terminal sends Ctrl-C to the command and to what it has started.
    (os.killpg if everybody else os.kill)(process.pid, sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert err.splitlines()[-1] == "interrupted: everything is saved; the same command goes on"
    assert "Traceback" not in err
    ledger = slow.path / "pricing.db"
    assert holder(ledger) is None
    with Ledger.open(ledger) as before:
        before.verify()
        known = before.tells()
    file = slow.path / "campaign.yaml"
    file.write_text(file.read_text().replace("trials: 400", f"trials: {len(known) + 4}"))
    assert slow.call("run", "-q").code == 0
    with Ledger.open(ledger) as after:
        after.verify()
        assert after.tells()[: len(known)] == known
        assert sorted(tell.trial for tell in after.tells()) == list(range(len(known) + 5))


def on_a_terminal(
    folder: Any, *args: str, columns: int = 60, env: dict[str, str] | None = None
) -> tuple[int, str]:
    """What the command writes to stderr when that is a terminal."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [folder.command, *args], cwd=folder.path, env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while True:
        select.select([mine], [], [], 60)
        try:
            part = os.read(mine, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(mine)
    return process.wait(timeout=60), seen.decode()


def test_a_terminal_has_one_live_line_that_never_wraps(evaluation: Any) -> None:
    code, seen = on_a_terminal(evaluation, "run", columns=30)
    assert code == 0
    lines = [part for part in seen.split("\r\x1b[K") if part]
    assert any(line.startswith("told 7/7") for line in lines)
    assert all(len(line) < 30 for line in lines if line.startswith("told "))
    assert "\x1b[32mdone: " in seen
    assert seen.endswith("\r\x1b[K"), "the line is cleared at the end"


def test_no_color_is_obeyed(evaluation: Any) -> None:
    _, seen = on_a_terminal(evaluation, "run", env={"NO_COLOR": "1"})
    assert "done: " in seen
    assert "\x1b[3" not in seen


def test_verbose_has_a_line_an_event_on_a_terminal_too(evaluation: Any) -> None:
    _, seen = on_a_terminal(evaluation, "run", "-v")
    assert seen.count(" told ") == 7
    assert "\x1b" not in seen


def test_quiet_is_quiet_on_a_terminal(evaluation: Any) -> None:
    assert on_a_terminal(evaluation, "run", "-q") == (0, "")
