"""`plan` on the starter: figures for people and programs, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

PLAN = ("plan", "--baseline", "bought=8%", "--units", "2e9")


@pytest.fixture
def starter(folder: Any) -> Any:
    assert folder.call("init").code == 0
    return folder


def test_a_plan_for_people_and_for_programs(starter: Any) -> None:
    answer = starter.call(*PLAN, "--improve", "5%", "--spread", "2%")
    assert answer.code == 0, answer.err
    assert "signal over noise" in answer.out
    assert "least variance at 26.1%" in answer.out
    data = starter.call(*PLAN, "--improve", "5%", "--spread", "0.02", "-o", "json").data
    assert data["hopeless"] == ""
    assert [row["arms"] for row in data["table"]] == [4, 8, 16, 32] * 3
    assert data["own"]["arm_units"] == pytest.approx(12_500)
    assert not list(starter.path.glob("*.db"))


def test_a_campaign_that_cannot_learn_is_refused_unless_forced(starter: Any) -> None:
    hopeless = ("plan", "--baseline", "bought=0.08", "--units", "1e7", "--improve", "1%")
    answer = starter.call(*hopeless)
    assert answer.code == 2
    assert "cannot learn" in answer.err
    assert "signal over noise" in answer.out
    assert starter.call(*hopeless, "-o", "json").data["hopeless"]
    forced = starter.call(*hopeless, "--force")
    assert forced.code == 0
    assert "warning" in forced.err


def test_the_spread_follows_from_sigma_and_the_hoped_for_improvement(starter: Any) -> None:
    data = starter.call(*PLAN, "--improve", "5%", "--force", "-o", "json").data
    assert 0 < data["spread"] < 0.15 * 0.05 / 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--units", "0"], "--units"),
        (["--units", "nan"], "--units"),
        (["--units", "9", "--baseline", "bought"], "no baseline"),
        (["--units", "9", "--baseline", "bought=high"], "no baseline"),
        (["--units", "9", "--baseline", "bought=3:-1"], "no baseline"),
        (["--units", "9", "--baseline", "clicked=3%"], "there is no metric clicked"),
        (["--units", "9"], "add --baseline bought=RATE"),
        (["--units", "9", "--baseline", "bought=3%", "--improve", "3"], "--improve 3%"),
        (["--units", "9", "--baseline", "bought=3%", "--spread", "-1%"], "--spread"),
        ([], "--units"),
    ],
)
def test_impossible_options_are_refused(options: list[str], says: str, starter: Any) -> None:
    answer = starter.call("plan", *options)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert "Traceback" not in answer.err


def test_weights_without_bounds_need_the_spread(starter: Any) -> None:
    file = starter.path / "campaign.yaml"
    text = file.read_text().replace("size:   {int: [1, 9], start: 2}", "size:   {weights: 3}")
    file.write_text(text)
    answer = starter.call(*PLAN, "--improve", "5%")
    assert answer.code == 0
    assert "--spread" in answer.err


def test_a_campaign_without_traffic_has_no_plan(evaluation: Any) -> None:
    answer = evaluation.call(*PLAN)
    assert (answer.code, answer.out) == (2, "")
    assert "no traffic" in answer.err
