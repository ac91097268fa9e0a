"""Experiments by hand."""

from __future__ import annotations

from typing import Any

import pytest


def test_ask_tell_and_best(manual: Any) -> None:
    asked = manual.call("ask", "-n", "2", "-o", "json").data
    assert [candidate["trial"] for candidate in asked] == [0, 1]
    assert set(asked[0]["params"]) == {"sugar", "salt"}
    assert manual.call("tell", "1", "--value", "7.5", "--se", "0.5").code == 0
    assert manual.call("tell", "0", "--failed", "spilled").code == 0
    table = manual.call("trials").out
    assert "spilled" in table
    assert "7.5" in table
    assert "score 7.5" in manual.call("best").out
    assert "2 of 4 trials asked" in manual.call("status").out
    assert manual.call("ask").out.splitlines()[0].split() == ["trial", "sugar", "salt"]


def test_the_same_report_twice_is_one(manual: Any) -> None:
    manual.call("ask")
    assert [manual.call("tell", "0", "--value", "3").code for _ in range(2)] == [0, 0]
    assert manual.call("status", "-o", "json").data["told"]["ok"] == 1
    other = manual.call("tell", "0", "--value", "4")
    assert other.code == 2
    assert "already told" in other.err


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["tell", "9", "--value", "1"], "no trial 9"),
        (["tell", "-1", "--value", "1"], ""),
        (["tell", "0"], "either --value"),
        (["tell", "0", "--value", "1", "--failed", "both"], "either --value"),
        (["tell", "0", "--value", "nan"], "finite"),
        (["tell", "0", "--value", "1", "--se", "-1"], "se"),
        (["ask", "-n", "9"], "cannot ask for 9"),
        (["run"], "by hand"),
    ],
)
def test_impossible_requests_change_nothing(manual: Any, args: list[str], says: str) -> None:
    manual.call("ask")
    answer = manual.call(*args)
    assert answer.code == 2
    assert answer.out == ""
    assert says in answer.err
    assert manual.call("status", "-o", "json").data["trials"]["told"] == 0


def test_tell_before_any_ask(manual: Any) -> None:
    answer = manual.call("tell", "0", "--value", "1")
    assert answer.code == 1
    assert "There is no ledger here" in answer.err
    assert not list(manual.path.glob("*.db"))


def test_a_campaign_that_runs_by_itself_is_not_asked_by_hand(evaluation: Any) -> None:
    for args in (["ask"], ["tell", "0", "--value", "1"]):
        answer = evaluation.call(*args)
        assert answer.code == 2
        assert "use `blackopt run`" in answer.err
        assert not list(evaluation.path.glob("*.db"))


def test_a_campaign_by_hand_is_not_run(manual: Any) -> None:
    answer = manual.call("run")
    assert answer.code == 2
    assert "use `blackopt ask` and `blackopt tell`" in answer.err
    assert not list(manual.path.glob("*.db"))
