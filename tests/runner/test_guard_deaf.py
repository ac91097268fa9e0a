"""A guardrail whose sums are impossible watches nobody: its candidates are withdrawn as silent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from blackopt.types import Reading, Status

SUCCESS = {"kind": "proportion", "query": "unused.sql", "window": "2d", "lag": "1h"}
SPEND = {"kind": "mean", "query": "unused.sql", "window": "1d"}
GUARDED = {
    "measure": {"metrics": {"success": SUCCESS, "spend": SPEND}},
    "guardrails": [{"metric": "spend", "at_most": "1.3 * control", "min_units": 100, "silent_after": "12h"}],
    "budget": {"trials": 4, "confirm": 0},
}


def spending(world: Any, stats: dict[str, float]) -> None:
    """The arms' readings of ``spend`` have these sums; the control's are sound."""
    inner = world.production.read
    world.production.metrics["spend"] = lambda rate: rate

    def read(query: Any) -> Any:
        for item in inner(query):
            if isinstance(item, Reading) and item.metric == "spend":
                sound = {"n": 500.0, "sum": 500.0, "sum_sq": 1000.0}
                yield replace(item, stats=sound if item.arm == "control" else stats)
            else:
                yield item

    world.production.read = read


@pytest.mark.parametrize(
    "stats",
    [{"n": 500.0, "sum": 500.0, "sum_sq": 1.0}, {"n": 500.0, "sum": 500.0}],
    ids=["negative-variance", "lacking"],
)
def test_impossible_sums_are_silence(make_world: Callable[..., Any], stats: dict[str, float]) -> None:
    world = make_world(**GUARDED)
    spending(world, stats)
    world.finish()
    with world.ledger() as ledger:
        trials, tells = ledger.trials(), ledger.tells()
    assert [t.status for t in tells] == [Status.INFEASIBLE] * 4
    assert all("guardrail silent: " in t.cause for t in trials)
    assert all("impossible sums" in t.cause or "no unit" in t.cause for t in trials)


def test_sound_sums_are_not(make_world: Callable[..., Any]) -> None:
    world = make_world(**GUARDED)
    spending(world, {"n": 500.0, "sum": 500.0, "sum_sq": 1000.0})
    world.finish()
    with world.ledger() as ledger:
        assert [t.status for t in ledger.tells()] == [Status.OK] * 4
