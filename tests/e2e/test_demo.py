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
def test_the_demo_improves_retention_promotes_it_and_says_so_in_business_words(tmp_path: Path) -> None:
    command = [sys.executable, str(DEMO), "--directory", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout

    # A guardrail has taken at least one candidate out of traffic, with a reason that has numbers.
    assert re.search(
        r"t\d+ and its twin t\d+ withdrawn 2024-\S+ \S+: t\d+: mute_3h .* against at most", said
    ), said
    stopped = re.search(r"(\d+) of 384 candidates were stopped", said)
    assert stopped is not None
    assert int(stopped[1]) >= 2

    # Each state of the promotion, in order, with what was served in it.
    states = re.findall(r"^  (2024-\d\d-\d\d)  ([A-Z]+)", said, re.MULTILINE)
    assert [state for _, state in states] == ["TESTING", "RAMPING", "ADOPTING", "HOLDING", "DONE"]
    assert [date for date, _ in states] == sorted(date for date, _ in states)
    for share in (5, 20, 50):
        assert f"ramp: {share}% get the recommendation" in said
    assert "holdback: 5% get the former incumbent" in said

    effect = re.search(
        r"Day-7 retention on fresh users: (\S+) % against (\S+) % under control: \+\S+ %,"
        r" repeated 95 % confidence interval \+\S+ % to \+\S+ %",
        said,
    )
    assert effect is not None, said
    assert float(effect[1]) > float(effect[2])
    assert re.search(
        r"surrogate finished_d1: declared slope 0\.\d+, .*; from \d+ matured trials: slope", said
    )
    for name in ("CUPED", "twins"):
        less = re.search(rf"{name}: (-?\d+)% less variance", said)
        assert less is not None, said
        assert 0 < int(less[1]) < 60

    # What production serves by its own account is what the ledger adopted, and truly better.
    true = re.search(r"true effect on day 7: \+(\S+)%", said)
    assert true is not None
    assert float(true[1]) > 0
    closes = re.search(r"closes (-?\d+)% of the gap", said)
    assert closes is not None
    assert 30 <= int(closes[1]) <= 100
    served = re.search(r"served now, says the app: .* throttle (\S+)$", said, re.MULTILINE)
    assert served is not None
    assert float(served[1]) != 0.36
    for file in ("retention-demo.db", "retention-demo.html", "app.db"):
        assert (tmp_path / "run" / file).exists()
        assert file in said
