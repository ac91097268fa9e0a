"""Optimizers within the optimizer: their options are judged at their lines, and they learn of the budget."""

from __future__ import annotations

import re

import pytest

from blackopt.campaign import changes, parse
from blackopt.campaign.specs import CampaignSpec
from blackopt.diagnostics import Problem
from blackopt.errors import DiagnosticsError

pytestmark = pytest.mark.usefixtures("throwaway")

GROUPS = """\
optimizer:
  use: groups
  seed: 7
  groups:
    - {blocks: ["ranker.*"], use: cma-es, sigma: 0.2}
    - blocks: [diversity, throttle]
      use: openai-es
      sigma: 0.1
    - {blocks: ["base.*"], frozen: true}
"""
FIRST = 4  # line of `optimizer:`


def with_optimizer(campaign: str, optimizer: str) -> str:
    return re.sub(r"^optimizer: .*\n", lambda _: optimizer, campaign, flags=re.MULTILINE)


def read(campaign: str, optimizer: str) -> CampaignSpec:
    return parse(with_optimizer(campaign, optimizer), env={})


def problems(campaign: str, optimizer: str) -> list[Problem]:
    with pytest.raises(DiagnosticsError) as caught:
        read(campaign, optimizer)
    found = caught.value.problems
    assert all(isinstance(problem, Problem) for problem in found)
    return [problem for problem in found if isinstance(problem, Problem)]


def test_groups_are_read_with_the_options_of_their_optimizers(campaign: str) -> None:
    options = read(campaign, GROUPS).optimizer.options
    first, second, third = options.groups  # type: ignore[attr-defined]
    assert first.part[1].sigma == 0.2
    assert second.part[1].population == 16
    assert third.part is None
    assert options.seed == 7


@pytest.mark.parametrize(
    ("old", "new", "path", "line", "says"),
    [
        ("sigma: 0.2", "sgima: 0.2", "optimizer.groups[0].sgima", 5, r"unknown key \(did you mean `sigma`"),
        ("sigma: 0.1", "sigma: -0.1", "optimizer.groups[1].sigma", 8, "greater than 0"),
        ("sigma: 0.1", 'sigma: "0.1"', "optimizer.groups[1].sigma", 8, "without quotes"),
        ("sigma: 0.1", "population: 15", "optimizer.groups[1].population", 8, "even.*try 16"),
        ("openai-es", "openai", "optimizer.groups[1].use", 7, "did you mean `openai-es`"),
        ("use: openai-es", "seed: 3", "optimizer.groups[1].use", 6, "is required"),
        ("frozen: true", "frozen: yes", "optimizer.groups[2].frozen", 9, "write true"),
        ("frozen: true", "frozen: true, use: ga", "optimizer.groups[2].use", 9, "frozen"),
    ],
)
def test_a_wrong_option_of_a_part_is_reported_at_its_line(
    campaign: str, old: str, new: str, path: str, line: int, says: str
) -> None:
    [found] = problems(campaign, GROUPS.replace(old, new))
    assert found.path == path
    assert found.line == FIRST + line - 1
    assert re.search(says, str(found))


def test_all_parts_are_judged_in_one_pass(campaign: str) -> None:
    wrong = GROUPS.replace("sigma: 0.2", "sigma: 0, active: maybe").replace("sigma: 0.1", "step: leap")
    assert {problem.path for problem in problems(campaign, wrong)} == {
        "optimizer.groups[0].sigma",
        "optimizer.groups[0].active",
        "optimizer.groups[1].step",
    }


def test_an_optimizer_that_asks_is_told_the_budget_and_keeps_it(campaign: str) -> None:
    """Else an edit of the budget, which is free, would make another optimizer of it."""
    spec = read(campaign, "optimizer: {use: auto}\n")
    assert spec.optimizer.options.model_dump() == {
        "seed": 0, "sigma": None, "noise": "some", "trials": 320, "parallel": 16,
    }  # fmt: skip
    assert spec.document["optimizer"] == {"use": "auto", "trials": 320, "parallel": 16}
    longer = campaign.replace("trials: 320", "trials: 640")
    edited = read(longer, "optimizer: {use: auto}\n")
    assert changes(spec.document, edited.document) == ["`optimizer.trials` 320 -> 640"]
    pinned = read(longer, "optimizer: {use: auto, trials: 320}\n")
    assert pinned.sha256 == spec.sha256
    assert pinned.budget.trials == 640


def test_an_optimizer_that_does_not_ask_is_told_nothing(campaign: str) -> None:
    spec = parse(campaign, env={})
    assert "trials" not in spec.document["optimizer"]
    assert parse(campaign.replace("trials: 320", "trials: 640"), env={}).sha256 == spec.sha256


def test_groups_that_ask_are_told_too_and_others_do_not_freeze_the_budget(campaign: str) -> None:
    asking = GROUPS.replace("use: cma-es, sigma: 0.2", "use: auto")
    assert read(campaign, asking).document["optimizer"]["trials"] == 320
    assert "trials" not in read(campaign, GROUPS).document["optimizer"]
