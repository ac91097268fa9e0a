"""A window whose covariate a candidate moved is pointed out and not told; an honest one is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from blackopt.types import NoReading, Query, Reading, Status

SPEND = {"kind": "mean", "query": "unused.sql", "window": "2d", "lag": "1h", "cuped": True}


def spending(world: Any, moved: float, arm: str = "t1") -> None:
    """Units that spend about what they spent before; of one arm, the covariate holds more than that."""
    known = world.production.read

    def read(query: Query) -> Iterator[Reading | NoReading]:
        for item in known(query):
            if isinstance(item, NoReading) or item.metric != "success":
                yield item
                continue
            n = int(item.stats["n"])
            rng = np.random.default_rng([query.window, sum(item.arm.encode())])
            before = rng.gamma(2.0, size=n)
            spent = before + rng.gamma(1.0, size=n)
            given = before + (moved * rng.random(n) if item.arm == arm else 0.0)
            stats = {
                "n": float(n),
                "sum": float(spent.sum()),
                "sum_sq": float(spent @ spent),
                "cov_sum": float(given.sum()),
                "cov_sum_sq": float(given @ given),
                "num_cov": float(spent @ given),
            }
            yield Reading(item.metric, item.window, item.arm, item.cohort, item.as_of_us, stats)

    world.production.read = read


@pytest.fixture
def world(make_world: Callable[..., Any]) -> Any:
    return make_world(measure={"metrics": {"success": SPEND}}, budget={"trials": 8, "confirm": 0})


def test_a_covariate_that_was_moved_is_not_told(world: Any) -> None:
    spending(world, moved=1.0)
    world.finish()
    with world.ledger() as ledger:
        by_window: dict[int, set[Status]] = {}
        for tell in ledger.tells():
            by_window.setdefault(ledger.trial(tell.trial).window or 0, set()).add(tell.status)
        cause = ledger.trial(0).cause
        causes = [row["cause"] for row in ledger.db.query("SELECT cause FROM tell WHERE trial = 0")]
    assert by_window == {1: {Status.FAILED}, 2: {Status.OK}}
    assert cause == causes[0]
    assert causes[0].startswith("covariate: the covariate of success differs between t1 and control (z = ")
    assert causes[0].endswith("): is it measured before the exposure?")
    alarms = [n for n in world.notices if n.kind == "covariate"]
    assert len(alarms) == 1
    assert alarms[0].data == {"metric": "success", "window": 1}
    assert alarms[0].text == causes[0].removeprefix("covariate: ")


def test_an_honest_covariate_is_told(world: Any) -> None:
    spending(world, moved=0.0)
    world.finish()
    with world.ledger() as ledger:
        assert {tell.status for tell in ledger.tells()} == {Status.OK}
    assert [n for n in world.notices if n.kind == "covariate"] == []


def test_an_arm_that_was_withdrawn_early_does_not_spoil_the_others(make_world: Callable[..., Any]) -> None:
    errors = {"kind": "proportion", "query": "unused.sql", "window": "0s"}
    world = make_world(
        measure={"metrics": {"success": SPEND, "errors": errors}},
        guardrails=[{"metric": "errors", "at_most": 0.05, "min_units": 50}],
        budget={"trials": 4, "confirm": 0},
    )
    known = world.production.read

    def read(query: Query) -> Iterator[Reading | NoReading]:
        for item in known(query):
            if isinstance(item, Reading) and item.metric == "errors":
                rate = 0.5 if item.arm == "t1" else 0.01
                yield Reading(
                    "errors",
                    item.window,
                    item.arm,
                    "",
                    item.as_of_us,
                    {"n": item.stats["n"], "sum": round(item.stats["n"] * rate)},
                )
            else:
                yield item

    world.production.metrics = {"success": lambda rate: rate, "errors": lambda _rate: 0.01}
    world.production.read = read
    spending(world, moved=1.0)
    world.finish()
    with world.ledger() as ledger:
        assert {t.trial: t.status for t in ledger.tells()} == {
            0: Status.INFEASIBLE,  # the twin
            1: Status.INFEASIBLE,
            2: Status.OK,
            3: Status.OK,
        }
