"""Campaigns whose candidates blackopt runs itself, and campaigns by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from blackopt import Campaign, Ledger
from blackopt.errors import ConfigurationError, UsageError
from blackopt.ledger.rows import Mode
from blackopt.types import Role, Status

SPACE = {"x": {"float": [0, 1]}, "y": {"float": [0, 1]}}


def bowl(params: dict[str, Any]) -> float:
    return float((params["x"] - 0.7) ** 2 + (params["y"] - 0.2) ** 2)


def make(folder: Path, evaluate: Any = bowl, **changes: Any) -> Campaign:
    options: dict[str, Any] = {
        "name": "bowl",
        "space": SPACE,
        "evaluate": evaluate,
        "minimize": "depth",
        "trials": 120,
        "optimizer": {"use": "cma-es", "seed": 2},
        "max_in_flight": 6,
        "ledger": folder / "bowl.db",
    }
    return Campaign(**(options | changes))


def tells(campaign: Campaign) -> list[Any]:
    with Ledger.open(campaign.ledger, read_only=True) as ledger:
        ledger.verify()
        return [(t.seq, t.trial, t.status, t.value, t.role) for t in ledger.tells()]


def test_it_finds_the_bottom_and_evaluates_its_recommendation_again(tmp_path: Path) -> None:
    found = make(tmp_path, confirm=3).run()
    assert found.parameters["x"] == pytest.approx(0.7, abs=0.02)
    assert found.parameters["y"] == pytest.approx(0.2, abs=0.02)
    assert found.mode is Mode.DONE
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(bowl(dict(found.parameters)))


class Interrupted(BaseException):
    """A death in the middle of an evaluation."""


def test_f08_a_run_that_died_in_an_evaluation_equals_one_that_did_not(tmp_path: Path) -> None:
    whole = make(tmp_path, ledger=tmp_path / "whole.db")
    whole.run()
    calls = 0

    def dying(params: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls % 17 == 0:
            raise Interrupted
        return bowl(params)

    campaign = make(tmp_path, evaluate=dying)
    deaths = 0
    while True:
        try:
            campaign.run()
        except Interrupted:
            deaths += 1
            continue
        break
    assert deaths > 3
    assert tells(campaign) == tells(whole)
    assert campaign.results().recommendation.tobytes() == whole.results().recommendation.tobytes()


def test_failures_and_nan_are_told_and_the_search_goes_on(tmp_path: Path) -> None:
    calls = 0

    def fragile(params: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls % 7 == 0:
            raise ArithmeticError("out of luck")
        return math.nan if calls % 11 == 0 else bowl(params)

    campaign = make(
        tmp_path, evaluate=fragile, optimizer={"use": "openai-es", "seed": 1, "population": 8, "sigma": 0.1}
    )
    found = campaign.run()
    statuses = [status for _, _, status, _, _ in tells(campaign)]
    assert statuses.count(Status.FAILED) == 120 // 7 + 120 // 11 - 120 // 77
    assert bowl(dict(found.parameters)) < 0.1 * bowl({"x": 0.5, "y": 0.5})


def test_an_evaluator_in_another_process_gives_the_same_campaign(tmp_path: Path) -> None:
    (tmp_path / "bowls.py").write_text(
        "def bowl(params):\n    return (params['x'] - 0.7) ** 2 + (params['y'] - 0.2) ** 2\n"
    )
    (tmp_path / "campaign.yaml").write_text(
        """\
version: 1
name: pooled
policy: {use: parameters, space: {x: {float: [0, 1]}, y: {float: [0, 1]}}}
optimizer: {use: cma-es, seed: 2}
evaluate: {use: python, call: "bowls:bowl", workers: 2}
objective: {minimize: depth}
budget: {trials: 60, max_in_flight: 6}
"""
    )
    found = Campaign.load(tmp_path / "campaign.yaml").run()
    assert found.parameters["x"] == pytest.approx(0.7, abs=0.1)
    assert len(tells(Campaign.load(tmp_path / "campaign.yaml"))) == 60


def test_asking_and_telling_by_hand_in_any_order(tmp_path: Path) -> None:
    campaign = make(tmp_path, evaluate=None, trials=8, max_in_flight=8)
    asked = campaign.ask(8)
    for one in reversed(asked):
        campaign.tell(one.number, bowl(dict(one.params)), se=0.01)
    assert [trial for _, trial, _, _, _ in tells(campaign)] == list(range(7, -1, -1))
    with pytest.raises(UsageError, match="0 of the budget's trials are left"):
        campaign.ask(1)


def test_f29_the_same_report_twice_is_one_and_another_is_refused(tmp_path: Path) -> None:
    campaign = make(tmp_path, evaluate=None, max_in_flight=4)
    [one] = campaign.ask(1)
    campaign.tell(one.number, 0.5)
    campaign.tell(one.number, 0.5)
    with pytest.raises(UsageError, match="already told"):
        campaign.tell(one.number, 0.6)
    with pytest.raises(UsageError, match="no trial 7"):
        campaign.tell(7, 0.5)
    with pytest.raises(UsageError, match="finite"):
        campaign.tell(one.number, math.nan)
    assert len(tells(campaign)) == 1


def test_a_campaign_by_hand_does_not_run_and_one_that_runs_takes_no_tells(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="by hand"):
        make(tmp_path, evaluate=None).run()
    running = make(tmp_path, ledger=tmp_path / "other.db")
    with pytest.raises(UsageError, match="by itself"):
        running.ask(1)


def test_confirmations_are_never_told_to_the_optimizer(tmp_path: Path) -> None:
    plain = make(tmp_path, ledger=tmp_path / "plain.db")
    plain.run()
    confirmed = make(tmp_path, confirm=5)
    confirmed.run()
    assert [r for *_, r in tells(confirmed)][-5:] == [Role.CONFIRM] * 5
    assert confirmed.results().recommendation.tobytes() == plain.results().recommendation.tobytes()
