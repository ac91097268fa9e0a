"""`rehearse` on the starter: what people and programs get, what is refused, and what is left alone."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

REHEARSE = ("rehearse", "--units", "2e10", "--baseline", "bought=8%", "--baseline", "complained=2%")


@pytest.fixture
def starter(folder: Any) -> Any:
    """A fresh campaign whose secret is not there, and whose module nobody has started."""
    assert folder.call("init").code == 0
    (folder.path / "secret.txt").unlink()
    return folder


def test_a_rehearsal_for_people(starter: Any) -> None:
    before = sorted(path.name for path in starter.path.rglob("*"))
    answer = starter.call(*REHEARSE, "--improve", "20%")
    assert answer.code == 0, answer.err
    assert "week by week, seed 1" in answer.out
    assert "in 1 of 1 rehearsals the campaign ended with a proven improvement" in answer.out
    assert "seed 1: 87.0 seconds" in answer.err
    assert sorted(path.name for path in starter.path.rglob("*")) == before


def test_a_rehearsal_for_programs(starter: Any) -> None:
    data = starter.call(*REHEARSE, "--seeds", "2", "--seed", "5", "-q", "-o", "json").data
    assert [one["seed"] for one in data["rehearsals"]] == [5, 6]
    assert data["possible"] == pytest.approx(0.03)
    first = data["rehearsals"][0]
    assert first["told"] == 98 == sum(week["told"] for week in first["weeks"])


def test_secrets_in_the_environment_need_not_be_set(starter: Any) -> None:
    file = starter.path / "campaign.yaml"
    file.write_text(file.read_text().replace("${file:secret.txt}", "${NOBODY_SET_THIS}"))
    assert starter.call(*REHEARSE, "-q").code == 0


def test_ledgers_are_kept_and_not_overwritten(starter: Any) -> None:
    assert starter.call(*REHEARSE, "--keep", "kept", "-q").code == 0
    assert (starter.path / "kept" / "seed-1" / "first-campaign.db").is_file()
    again = starter.call(*REHEARSE, "--keep", "kept")
    assert again.code == 2
    assert "kept exists" in again.err


def test_a_picture_in_a_real_browser(starter: Any) -> None:
    answer = starter.call(*REHEARSE, "--seeds", "2", "--plot", "rehearsal.html", "-q")
    assert answer.code == 0, answer.err
    page = (starter.path / "rehearsal.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium on this machine: `apt-get install chromium` brings one")
    command = [
        chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={starter.path / 'profile'}", "--dump-dom",
        (starter.path / "rehearsal.html").as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert dom.count('<path class="curve') == 3
    assert dom.count("<circle") == 14
    assert "a simulated fault" in dom


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["rehearse"], "--units"),
        (["rehearse", "--units", "9"], "--baseline bought=RATE --baseline complained=RATE"),
        ([*REHEARSE, "--improve", "300%"], "--improve"),
        ([*REHEARSE, "--faults", "often"], "--faults"),
        ([*REHEARSE, "--seeds", "0"], "--seeds"),
        ([*REHEARSE, "--since", "2026-01-01"], "--until"),
    ],
)
def test_impossible_options_are_refused(options: list[str], says: str, starter: Any) -> None:
    answer = starter.call(*options)
    assert answer.code == 2
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_a_campaign_without_production_is_refused(evaluation: Any) -> None:
    answer = evaluation.call("rehearse", "--units", "9")
    assert (answer.code, answer.out) == (2, "")
    assert "no production" in answer.err
