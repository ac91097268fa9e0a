"""Bare ask/tell."""

from __future__ import annotations

from typing import Any

import pytest

from blackopt import Optimizer
from blackopt.errors import AlreadyTold, ConfigurationError, UnknownCandidate, UsageError

SPACE: dict[str, Any] = {"x": {"float": [-5, 5]}, "mode": {"choice": ["slow", "fast"]}}


def loss(params: dict[str, Any]) -> float:
    return float((params["x"] - 2) ** 2 + (params["mode"] == "slow"))


@pytest.mark.parametrize("use", ["cma-es", "openai-es", "ga"])
def test_it_finds_the_minimum(use: str) -> None:
    optimizer = Optimizer(SPACE, use=use, seed=1)
    for _ in range(60):
        for proposal in reversed(optimizer.ask(8)):
            optimizer.tell(proposal.number, loss(proposal.params))
    found = optimizer.recommend()
    assert set(found) == {"x", "mode"}
    assert loss(found) < 0.5


def test_failures_and_missing_tells_are_no_problem() -> None:
    optimizer = Optimizer(SPACE, use="openai-es", seed=1)
    for _ in range(5):
        first, *rest = optimizer.ask(6)
        optimizer.tell(first.number, None)
        for proposal in rest[::2]:
            optimizer.tell(proposal.number, loss(proposal.params), se=0.1)
    x = optimizer.recommend()["x"]
    assert isinstance(x, float)
    assert -5 <= x <= 5


def test_the_same_seed_asks_the_same() -> None:
    first, second = (Optimizer(SPACE, use="random", seed=4) for _ in range(2))
    assert [p.params for p in first.ask(3)] == [second.ask(1)[0].params for _ in range(3)]
    assert first.ask(1)[0].params != Optimizer(SPACE, use="random", seed=5).ask(1)[0].params


def test_a_proposal_shows_itself() -> None:
    [proposal] = Optimizer(SPACE, seed=0).ask(1)
    assert repr(proposal).startswith("Proposal(number=0, params={'x': ")
    assert proposal.vector.shape == (Optimizer(SPACE).space.size,)


def test_unknown_and_repeated_numbers() -> None:
    optimizer = Optimizer(SPACE)
    [proposal] = optimizer.ask(1)
    with pytest.raises(UnknownCandidate):
        optimizer.tell(1, 0.0)
    optimizer.tell(proposal.number, 0.0)
    with pytest.raises(AlreadyTold):
        optimizer.tell(proposal.number, 0.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"space": {}}, "at least one"),
        ({"space": ["x"]}, "space: expected names and blocks"),
        ({"space": {"x": {"float": [1, 0]}}}, "x"),
        ({"use": "openai-es", "population": 0}, "options of openai-es: population"),
        ({"use": "openai-es", "populatoin": 4}, "populatoin"),
        ({"seed": "many"}, "seed"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Optimizer(**{"space": SPACE, **arguments})


def test_an_optimizer_that_is_not_installed() -> None:
    with pytest.raises(ConfigurationError, match="cmaes") as caught:
        Optimizer(SPACE, use="cmaes")
    assert "did you mean `cma-es`?" in str(caught.value)
