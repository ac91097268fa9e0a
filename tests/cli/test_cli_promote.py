"""``blackopt promote`` and ``rollback`` where there is nothing to promote."""

from __future__ import annotations

from typing import Any

EVALUATION = """\
version: 1
name: pricing
policy: {use: parameters, space: {discount: {float: [0, 0.4], start: 0.3}}}
optimizer: {use: random, seed: 3}
evaluate: {use: python, call: "shop:profit", workers: 1}
objective: {maximize: profit}
budget: {trials: 2}
"""

PRODUCTION = """\
version: 1
name: offer
policy: {use: parameters, space: {price: {float: [1, 5], start: 4}}}
optimizer: {use: random, seed: 3}
push: {use: file, directory: arms}
measure:
  use: csv
  metrics: {bought: {kind: proportion, file: bought.csv, window: 1d}}
objective: {maximize: bought, relative_to: control}
traffic: {unit: visitor, share: 90%, control: 20%, arms: 2}
budget: {trials: 4, max_in_flight: 4}
schedule: {window: 1d, poll: 12h, deadline: 10d}
promotion: {looks: 2, ramp: [5%, 50%], holdback: 2%}
"""


def test_a_campaign_without_a_control_cannot_promote(folder: Any) -> None:
    folder.write("campaign.yaml", EVALUATION)
    folder.write("shop.py", "def profit(params):\n    return 1 - params['discount']\n")
    assert folder.run("run", "-q").code == 0
    answer = folder.run("promote")
    assert answer.code == 2
    assert "cannot promote its recommendation" in answer.err
    assert "not measured against a control" in answer.err


def test_a_search_that_goes_on_is_not_promoted_and_nothing_is_taken_back(folder: Any) -> None:
    folder.write("campaign.yaml", PRODUCTION)
    (folder.path / "arms").mkdir()
    folder.write("bought.csv", "arm,window,n,sum\n")
    assert folder.run("run", "--once", "-q").code == 0
    answer = folder.run("promote", "--once")
    assert answer.code == 1
    assert "the search has not ended: 2 trials are to ask, 2 trials are not told" in answer.err
    answer = folder.run("rollback")
    assert answer.code == 0
    assert "nothing to take back" in answer.err
    assert folder.run("status", "-o", "json").data["promotion"] is None


def test_without_a_ledger_both_say_so(folder: Any) -> None:
    folder.write("campaign.yaml", PRODUCTION)
    for verb in ("promote", "rollback"):
        answer = folder.run(verb)
        assert answer.code == 1
        assert "offer.db" in answer.err
        assert not (folder.path / "offer.db").exists()
