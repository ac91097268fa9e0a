"""The demo as `make demo` runs it: two processes, a whole campaign, and what it says at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "examples" / "retention" / "demo.py"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_improves_retention_and_says_so_in_business_words(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), "--directory", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-2000:]
    said = re.search(
        r"Day-7 retention on fresh users: (\S+) % against (\S+) % under control: .* interval", done.stdout
    )
    assert said is not None, done.stdout
    assert float(said[1]) > float(said[2])
    closes = re.search(r"closes (-?\d+)% of the gap", done.stdout)
    assert closes is not None
    assert 30 <= int(closes[1]) <= 100
    for name in ("retention-demo.db", "retention-demo.html", "app.db"):
        assert (tmp_path / "run" / name).exists()
        assert name in done.stdout
