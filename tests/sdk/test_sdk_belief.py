"""What an optimizer thinks its recommendation is worth: from Python, and in the words of the results."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blackopt import Campaign, Optimizer
from blackopt.runner.wording import headline
from blackopt.types import Belief, Estimate

SPACE = {"x": {"float": [-5, 5], "start": 3.0}, "y": {"float": [-5, 5]}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bowl(params: dict[str, Any]) -> float:
    return float(params["x"] ** 2 + params["y"] ** 2)


def test_bare_optimizers_say_what_they_believe() -> None:
    optimizer, rng = Optimizer(SPACE, "surrogate"), np.random.default_rng(0)
    for _ in range(60):
        (one,) = optimizer.ask(1)
        optimizer.tell(one.number, bowl(one.params) + rng.normal())
    belief = optimizer.belief()
    assert belief is not None
    assert belief.improvement.se is not None
    assert abs(belief.improvement.value - 9.0) < 1.96 * belief.improvement.se
    assert Optimizer(SPACE, "random").belief() is None


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_results_of_evaluations_say_it_in_a_line(goal: str) -> None:
    sign = 1 if goal == "minimize" else -1
    made: dict[str, Any] = {"evaluate": lambda p: sign * bowl(p), "space": SPACE, goal: "cost", "trials": 60}
    campaign = Campaign(name="bowl", optimizer={"use": "surrogate"}, **made)
    words = headline(campaign.run())
    assert "by the optimizer's model better than the start by 9" in words
    assert words.endswith("measure it before you trust it")


def test_what_is_thought_to_be_no_better_is_said_to_be() -> None:
    campaign = Campaign(
        name="bowl", evaluate=bowl, space=SPACE, minimize="cost", trials=30, optimizer={"use": "surrogate"}
    )
    doubted = replace(campaign.run(), believed=Belief(Estimate(-0.5, 0.25, 30), 0.02))
    assert "by the optimizer's model no better than the start: by -0.5, 95 % CI -0.98" in headline(doubted)


def test_where_nothing_is_shown_the_start_is_recommended_and_said_to_be() -> None:
    flat = Campaign(
        name="flat", evaluate=lambda _: 1.0, space=SPACE, minimize="cost", trials=12,
        optimizer={"use": "surrogate"},
    )  # fmt: skip
    assert "nothing is shown to be better than the start" in headline(flat.run())


def test_after_a_fresh_measurement_the_model_is_silent() -> None:
    campaign = Campaign(
        name="fresh", evaluate=bowl, space=SPACE, minimize="cost", trials=30, confirm=1,
        optimizer={"use": "surrogate"},
    )  # fmt: skip
    found = campaign.run()
    assert found.believed is None
    assert "model" not in headline(found)
