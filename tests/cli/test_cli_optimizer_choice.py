"""`use: auto` and `use: groups` from the command line: what `check` says, and a budget that grows."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

import pytest

AUTO = "optimizer: {use: auto, seed: 3}"
GROUPS = """\
optimizer:
  use: groups
  groups:
    - {blocks: [discount], use: auto, sigma: 0.1}
    - {blocks: ["remind*"], use: ga, population: 8}
"""


def with_optimizer(folder: Any, optimizer: str) -> None:
    text = (folder.path / "campaign.yaml").read_text()
    folder.write("campaign.yaml", re.sub(r"(?m)^optimizer: .*$", lambda _: optimizer.strip(), text))


def versions(folder: Any) -> set[str]:
    with sqlite3.connect(folder.path / "pricing.db") as db:
        return {row[0] for row in db.execute("SELECT optimizer_version FROM campaign")}


def test_check_says_what_was_chosen_and_why(evaluation: Any) -> None:
    with_optimizer(evaluation, AUTO)
    checked = evaluation.call("check", "-o", "json")
    [line] = [row for row in checked.data if row["section"] == "optimizer"]
    assert line["use"] == "auto"
    assert "asks in groups of 2; surrogate, for 2 coordinates (1 integer), " in line["result"]
    assert "6 trials, 2 in flight, some noise" in line["result"]


def test_check_says_it_of_a_group_too(evaluation: Any) -> None:
    with_optimizer(evaluation, GROUPS)
    checked = evaluation.call("check", "-o", "json")
    [line] = [row for row in checked.data if row["section"] == "optimizer"]
    assert "surrogate, for 1 coordinate, 6 trials" in line["result"]
    assert evaluation.call("run").code == 0
    [version] = versions(evaluation)
    assert re.fullmatch(r"groups/1 \(auto/1 surrogate surrogate/\S+, ga/\S+\)", version)


def test_blocks_that_no_group_has_stop_before_anything_exists(evaluation: Any) -> None:
    with_optimizer(evaluation, GROUPS.replace("discount", "discuont"))
    for verb in ("check", "run"):
        answer = evaluation.call(verb)
        assert answer.code == 2
        assert "groups[0].blocks[0]: no block is called 'discuont'; did you mean `discount`?" in answer.err
    assert not (evaluation.path / "pricing.db").exists()


@pytest.mark.parametrize("optimizer", [AUTO, GROUPS])
def test_a_larger_budget_does_not_change_the_choice(evaluation: Any, optimizer: str) -> None:
    """It is refused until the campaign says what the choice was made for; then it goes on with the same."""
    with_optimizer(evaluation, optimizer)
    assert evaluation.call("run").code == 0
    before = versions(evaluation)
    text = (evaluation.path / "campaign.yaml").read_text()
    longer = text.replace("trials: 6", "trials: 2500")
    evaluation.write("campaign.yaml", longer)
    refused = evaluation.call("run", "--once")
    assert refused.code == 2
    assert "`optimizer.trials` 6 -> 2500" in refused.err
    assert "write `trials: 6` under `optimizer`" in refused.err
    pinned = longer.replace("use: auto", "trials: 6, use: auto") if optimizer == AUTO else longer.replace(
        "use: groups", "use: groups\n  trials: 6")  # fmt: skip
    evaluation.write("campaign.yaml", pinned)
    assert "2500 trials" not in evaluation.call("check").out
    assert evaluation.call("run", "--once").code == 0
    assert versions(evaluation) == before
