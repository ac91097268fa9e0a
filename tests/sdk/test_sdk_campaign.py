"""Campaigns from Python: run, resume, ask and tell."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from blackopt import BlackoptError, Campaign, Ledger, Notice
from blackopt.errors import ConfigurationError, DiagnosticsError, LedgerError, LockHeld, UsageError
from blackopt.ledger.rows import Mode, TrialState
from blackopt.runner.results import Evidence
from blackopt.types import Status

SPACE = {"x": {"float": [-5, 5], "start": 3.0}, "k": {"int": [0, 4]}}


def bowl(params: dict[str, Any]) -> float:
    return float(params["x"] ** 2 + (params["k"] - 1) ** 2)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def campaign(evaluate: Any = bowl, **changes: Any) -> Campaign:
    random = {"use": "random", "seed": 1}
    arguments = {"name": "bowl", "space": SPACE, "minimize": "cost", "trials": 12, "optimizer": random}
    return Campaign(evaluate=evaluate, **{**arguments, **changes})


def told(at: Campaign) -> list[Any]:
    with Ledger.open(at.ledger) as ledger:
        ledger.verify()
        return ledger.tells()


def test_a_run_ends_with_its_results(here: Path) -> None:
    notices: list[Notice] = []
    made = campaign(confirm=2)
    found = made.run(notify=notices.append)
    assert made.ledger == here / "bowl.db"
    assert found.mode is Mode.DONE
    assert found.evidence is Evidence.FRESH
    assert found.estimate is not None
    assert found.estimate.value == pytest.approx(bowl(dict(found.parameters)))
    assert not found.maximize
    assert dict(found.incumbent)["x"] == 3.0
    assert [notice.kind for notice in notices].count("told") == 14
    again = made.results()
    assert (again.parameters, again.estimate) == (found.parameters, found.estimate)


def test_maximize_is_the_mirror_of_minimize() -> None:
    down = campaign().run()
    up = campaign(lambda p: -bowl(p), name="hill", minimize=None, maximize="gain").run()
    assert up.parameters == down.parameters


def test_an_exception_in_evaluate_is_a_failed_trial_and_the_run_goes_on() -> None:
    def fragile(params: dict[str, Any]) -> float:
        if params["x"] > 0:
            raise ValueError("no stock left")
        return bowl(params)

    made = campaign(fragile)
    made.run()
    tells = told(made)
    assert len(tells) == 12
    assert {tell.status for tell in tells} == {Status.OK, Status.FAILED}
    with Ledger.open(made.ledger) as ledger:
        causes = [trial.cause for trial in ledger.trials() if trial.cause]
    assert any("no stock left" in cause for cause in causes)


@pytest.mark.parametrize("value", [math.nan, math.inf, "much", None, (1.0, -1.0)])
def test_a_value_that_is_no_number_is_a_failed_trial(value: Any) -> None:
    made = campaign(lambda _: value, trials=2)
    found = made.run()
    assert [tell.status for tell in told(made)] == [Status.FAILED] * 2
    assert found.evidence is Evidence.NONE


def test_f09_an_interrupt_in_evaluate_loses_nothing_and_the_run_is_the_same() -> None:
    calls = 0

    def interrupted(params: dict[str, Any]) -> float:
        nonlocal calls
        calls += 1
        if calls == 5:
            raise KeyboardInterrupt
        return bowl(params)

    whole = campaign(interrupted, name="whole", optimizer={"use": "cma-es", "seed": 2})
    with pytest.raises(KeyboardInterrupt):
        whole.run()
    assert len(told(whole)) < 12
    found = whole.run()
    assert len(told(whole)) == 12
    never = campaign(lambda p: bowl(p), name="never", optimizer={"use": "cma-es", "seed": 2})
    assert never.run().parameters == found.parameters
    assert [(t.trial, t.value) for t in told(never)] == [(t.trial, t.value) for t in told(whole)]


def test_turns_lead_to_the_same_end() -> None:
    made = campaign()
    turns = 0
    while not made.turn().done:
        turns += 1
        assert turns < 100
    assert turns > 1
    assert made.results().parameters == campaign(name="other").run().parameters


def test_a_longer_budget_goes_on() -> None:
    campaign(trials=4).run()
    campaign(trials=6).run()
    assert len(told(campaign())) == 6


def test_f59_another_space_under_the_same_name_is_refused() -> None:
    campaign().run()
    other = campaign(space={**SPACE, "x": {"float": [-5, 6], "start": 3.0}})
    with pytest.raises(ConfigurationError, match="edited after it started"):
        other.run()


def test_f61_the_other_direction_under_the_same_name_is_refused() -> None:
    campaign().run()
    with pytest.raises(ConfigurationError, match="edited after it started"):
        campaign(minimize=None, maximize="cost").run()


def test_f64_results_of_nothing_create_nothing(here: Path) -> None:
    with pytest.raises(LedgerError, match="There is no ledger here"):
        campaign().results()
    assert list(here.iterdir()) == []


def test_two_at_once_is_one_too_many() -> None:
    made = campaign()
    made.turn()
    with Ledger.open(made.ledger) as ledger, ledger.drive(at_us=1), pytest.raises(LockHeld):
        made.run()
    assert made.run().mode is Mode.DONE


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": "No Spaces"}, "name"),
        ({"trials": 0}, "trials"),
        ({"optimizer": "cmaes"}, "cma-es"),
        ({"optimizer": {"use": "random", "sed": 1}}, "seed"),
        ({"minimize": None}, "maximize"),
        ({"maximize": "cost"}, "exactly one"),
        ({"space": {"x": {"flot": [0, 1]}}}, "flot"),
        ({"space": {}}, "space"),
        ({"confirm": -1}, "confirm"),
    ],
)
def test_impossible_campaigns_are_said_before_anything(
    changes: dict[str, Any], says: str, here: Path
) -> None:
    with pytest.raises(DiagnosticsError) as caught:
        campaign(**changes).run()
    assert says in str(caught.value)
    assert isinstance(caught.value, BlackoptError)
    assert list(here.iterdir()) == []


def test_every_problem_is_in_one_error() -> None:
    with pytest.raises(DiagnosticsError) as caught:
        campaign(name="A", trials=0, confirm=-1)
    assert len(caught.value.problems) == 3


def test_a_campaign_from_its_file(here: Path) -> None:
    (here / "sub").mkdir()
    (here / "sub/shop.py").write_text("def cost(params):\n    return params['x'] ** 2\n")
    (here / "sub/campaign.yaml").write_text(
        "version: 1\nname: filed\npolicy: {use: parameters, space: {x: {float: [-1, 1]}}}\n"
        "optimizer: {use: random}\nevaluate: {use: python, call: 'shop:cost', workers: 1}\n"
        "objective: {minimize: cost}\nbudget: {trials: 3}\n"
    )
    loaded = Campaign.load("sub/campaign.yaml")
    assert loaded.run().mode is Mode.DONE
    assert loaded.ledger == here / "sub/filed.db"


# -- by hand --


def by_hand(**changes: Any) -> Campaign:
    return campaign(None, max_in_flight=3, **changes)


def test_ask_and_tell_by_hand() -> None:
    made = by_hand(trials=5)
    asked = made.ask(2) + made.ask()
    assert [one.number for one in asked] == [0, 1, 2]
    assert all(set(one.params) == {"x", "k"} for one in asked)
    made.tell(2, 1.5, se=0.1)
    made.tell(0, None, failed="spilled")
    made.tell(0, None, failed="spilled")
    found = made.results()
    assert found.evidence is Evidence.SEARCH
    assert found.estimate is not None
    assert found.estimate.value == 1.5
    with Ledger.open(made.ledger) as ledger:
        assert [t.status for t in ledger.tells()] == [Status.OK, Status.FAILED]
        assert ledger.trial(1).state is TrialState.ASKED
        assert ledger.trial(0).cause == "spilled"


def test_asked_candidates_do_not_depend_on_the_process() -> None:
    one = [asked.params for asked in by_hand(name="one").ask(3)]
    two = by_hand(name="two")
    assert [two.ask()[0].params for _ in range(3)] == one


@pytest.mark.parametrize(
    ("number", "value", "se"),
    [(7, 1.0, None), (-1, 1.0, None), (0, math.nan, None), (0, 1.0, -0.1), (0, 1.0, math.inf)],
)
def test_impossible_tells_change_nothing(number: int, value: float, se: float | None) -> None:
    made = by_hand()
    made.ask()
    with pytest.raises(UsageError):
        made.tell(number, value, se=se)
    assert told(made) == []


def test_a_second_different_result_is_refused() -> None:
    made = by_hand()
    made.ask()
    made.tell(0, 1.0)
    with pytest.raises(UsageError, match="already told"):
        made.tell(0, 2.0)


@pytest.mark.parametrize("n", [0, -1, 4])
def test_asking_for_what_there_is_no_room_for(n: int) -> None:
    with pytest.raises(UsageError):
        by_hand().ask(n)


def test_an_evaluated_campaign_is_not_asked_by_hand(here: Path) -> None:
    with pytest.raises(UsageError, match="by itself"):
        campaign().ask()
    with pytest.raises(UsageError, match="by itself"):
        campaign().tell(0, 1.0)
    assert list(here.iterdir()) == []


def test_a_campaign_by_hand_is_not_run(here: Path) -> None:
    with pytest.raises(ConfigurationError, match="by hand"):
        by_hand().run()
    assert list(here.iterdir()) == []
