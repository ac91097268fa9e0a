"""What a campaign says at its end: only fresh evidence proves, and a guardrail has the last word."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from blackopt.runner.assembly import Parts
from blackopt.runner.results import Evidence, Results, results
from blackopt.runner.wording import headline

UNSUBSCRIBE = {"kind": "proportion", "query": "unused.sql", "window": "1d"}
GUARDED = {
    "measure": {"metrics": {"unsubscribe": UNSUBSCRIBE}},
    "guardrails": [{"metric": "unsubscribe", "at_most": "1.05 * control", "min_units": 100}],
}


def found(world: Any) -> Results:
    with world.ledger() as ledger, Parts(world.spec, clock=world.clock) as parts:
        return results(parts, ledger)


def test_a_clear_improvement_is_proven_on_fresh_units(make_world: Callable[..., Any]) -> None:
    world = make_world(budget={"confirm": 2})
    world.production.rate = lambda body: 0.3
    world.finish()
    what = found(world)
    assert what.evidence is Evidence.FRESH
    assert what.proven
    assert headline(what).startswith("success ")
    assert " % against " in headline(what)
    assert headline(what).endswith("better than the incumbent")


def test_where_nothing_is_better_the_incumbent_is_kept(make_world: Callable[..., Any]) -> None:
    world = make_world()
    world.production.rate = lambda body: 0.2
    world.finish()
    what = found(world)
    assert not what.proven
    assert headline(what).endswith("no proven improvement, keep the incumbent")


def test_without_confirmation_nothing_is_proven(make_world: Callable[..., Any]) -> None:
    world = make_world(budget={"confirm": 0})
    world.production.rate = lambda body: 0.4
    world.finish()
    what = found(world)
    assert what.evidence is Evidence.SEARCH
    assert not what.proven
    assert "measure it before you trust it" in headline(what)


def test_a_recommendation_that_a_guardrail_stops_is_no_recommendation(make_world: Callable[..., Any]) -> None:
    world = make_world(**GUARDED)

    def unsubscribe(rate: float) -> float:
        with world.ledger() as ledger:
            confirming = any(trial.role == "confirm" for trial in ledger.trials())
        return 0.4 if confirming and rate != 0.2 else 0.02

    world.production.rate = lambda body: 0.3 + 1e-6 * json.loads(body)["x"]
    world.production.metrics = {"success": lambda rate: rate, "unsubscribe": unsubscribe}
    world.finish()
    what = found(world)
    assert what.stopped
    assert not what.proven
    assert "a guardrail stopped the recommendation itself" in headline(what)


def test_an_objective_that_is_not_relative_is_a_level_and_proves_nothing(
    make_world: Callable[..., Any],
) -> None:
    world = make_world(objective={"maximize": "success", "relative_to": None})
    del world.document["objective"]["relative_to"]
    world.finish()
    what = found(world)
    assert what.evidence is Evidence.FRESH
    assert not what.proven
    assert headline(what).endswith("the recommendation, measured again after the search")
    assert " % " in headline(what)
