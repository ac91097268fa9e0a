"""Guardrails in a running campaign: crossed, silent, lasting, shared; and windows that are not told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from blackopt.errors import GuardrailStop
from blackopt.ledger.rows import Mode
from blackopt.testing.clock import DAY_US
from blackopt.types import Status

HOUR_US = DAY_US // 24
UNSUBSCRIBE = {"kind": "proportion", "query": "unused.sql", "window": "1d"}


def guarded(make_world: Callable[..., Any], guardrail: dict[str, Any], **changes: Any) -> Any:
    world = make_world(
        measure={"metrics": {"unsubscribe": UNSUBSCRIBE}},
        guardrails=[{"metric": "unsubscribe", "at_most": "1.05 * control", **guardrail}],
        **changes,
    )
    world.production.metrics = {"success": lambda rate: rate, "unsubscribe": lambda rate: 0.02}
    return world


def harm(world: Any, trial: int, rate: float) -> None:
    """From now on a trial that is live, and nobody else, has this rate of unsubscribing."""
    success = world.rate(world.production.bodies[1, f"t{trial}"])
    world.production.metrics["unsubscribe"] = lambda r: rate if r == success else 0.02


def told(world: Any) -> dict[int, tuple[Status, str]]:
    with world.ledger() as ledger:
        causes = {row["trial"]: row["cause"] for row in ledger.db.query("SELECT trial, cause FROM tell")}
        return {row.trial: (row.status, causes[row.trial]) for row in ledger.tells()}


def test_f74_both_twins_are_told_as_infeasible_with_the_one_that_did_it(
    make_world: Callable[..., Any],
) -> None:
    world = guarded(make_world, {"min_units": 100})
    with world.process() as runner:
        runner.turn()
        harm(world, 1, 0.3)
        world.clock.wait_until(runner.turn().next_us)
        runner.turn()
        assert sorted(world.production.live) == [2, 3]
        runner.run()
    outcomes = told(world)
    assert {n for n, (status, _) in outcomes.items() if status is Status.INFEASIBLE} == {0, 1}
    assert outcomes[0][1] == outcomes[1][1]
    assert outcomes[0][1].startswith("guardrail: t1: unsubscribe 28 % against at most 2.1 %")


def test_a_breach_that_only_the_matured_readings_prove_is_told_to_both_twins(
    make_world: Callable[..., Any],
) -> None:
    world = guarded(make_world, {"min_units": 1_500})
    with world.process() as runner:
        runner.turn()
        harm(world, 2, 0.3)
        while not (turn := runner.turn()).done:
            world.production.knows_until_us = world.clock.now_us() - 8 * HOUR_US  # late: too few when it ends
            world.clock.wait_until(turn.next_us)
    outcomes = told(world)
    assert {n for n, (status, _) in outcomes.items() if status is Status.INFEASIBLE} == {2, 3}
    with world.ledger() as ledger:
        assert {e.data["cause"] for e in ledger.events() if e.kind == "close"} == {"window ended"}


def test_f75_an_arm_that_nobody_sees_is_withdrawn(make_world: Callable[..., Any]) -> None:
    world = guarded(make_world, {"silent_after": "6h"})
    world.production.lost = {"t2": 1.0}
    with world.process() as runner:
        while runner.turn().now_us < world.clock.now_us() or world.production.live.keys() >= {2}:
            world.clock.wait_until(runner.turn().next_us)
        assert sorted(world.production.live) == [0, 1]
        runner.run()
    outcomes = told(world)
    assert outcomes[2] == outcomes[3]
    assert outcomes[2][0] is Status.INFEASIBLE
    assert outcomes[2][1] == "guardrail silent: t2: unsubscribe has had no unit for 6h"
    assert outcomes[0][0] is Status.OK


def test_f75_a_log_that_stands_still_withdraws_everything_and_pauses(make_world: Callable[..., Any]) -> None:
    world = guarded(make_world, {"silent_after": "6h"}, budget={"breaches": 4}, schedule={"poll": "3h"})
    world.production.knows_until_us = world.clock.now_us() + 4 * HOUR_US
    with pytest.raises(GuardrailStop):
        world.finish()
    # Reads at 3 and 6 hours, and the first poll that is 6 hours after what is known.
    assert world.clock.now_us() == world.production.knows_until_us + 8 * HOUR_US
    assert world.production.live == {}
    with world.ledger() as ledger:
        assert ledger.campaign.mode is Mode.PAUSED
    assert {cause.split(": ", 1)[0] for _, cause in told(world).values()} == {"guardrail silent"}


def test_f75_a_log_that_is_late_within_the_metrics_lag_is_not_silent(make_world: Callable[..., Any]) -> None:
    world = guarded(make_world, {})
    with world.process() as runner:
        while not (turn := runner.turn()).done:
            world.production.knows_until_us = max(0, world.clock.now_us() - 20 * HOUR_US)
            world.clock.wait_until(turn.next_us)
    assert {status for status, _ in told(world).values()} == {Status.OK}


def test_f75_a_guardrail_that_matures_without_a_unit_fails_the_pair(make_world: Callable[..., Any]) -> None:
    world = guarded(make_world, {})
    read = world.production.read

    def deaf(query: Any) -> Iterator[Any]:
        return (r for r in read(query) if (r.metric, r.arm) != ("unsubscribe", "t1"))

    world.production.read = deaf
    world.finish()
    outcomes = told(world)
    assert {n for n, (status, _) in outcomes.items() if status is Status.INFEASIBLE} == {0, 1}
    assert outcomes[0][1] == "guardrail silent: t1: unsubscribe has matured without a unit"


def operational(make_world: Callable[..., Any]) -> Any:
    return guarded(make_world, {"at_most": 0.1, "for": "6h"}, schedule={"poll": "3h"})


def test_an_operational_metric_that_is_beyond_for_a_moment_is_let_be(make_world: Callable[..., Any]) -> None:
    world = operational(make_world)
    with world.process() as runner:
        world.clock.wait_until(runner.turn().next_us)
        for rate in (0.5, 0.5, 0.02, 0.5, 0.5, 0.02):  # beyond for three hours, twice
            harm(world, 2, rate)
            turn = runner.turn()
            assert 2 in world.production.live
            world.clock.wait_until(turn.next_us)
        runner.run()
    assert {status for status, _ in told(world).values()} == {Status.OK}


def test_an_operational_metric_that_stays_beyond_withdraws(make_world: Callable[..., Any]) -> None:
    world = operational(make_world)
    with world.process() as runner:
        start_us = runner.turn().now_us
        world.clock.wait_until(start_us + 3 * HOUR_US)
        harm(world, 2, 0.5)
        left_us = None
        while left_us is None:
            turn = runner.turn()
            if 2 not in world.production.live:
                left_us = turn.now_us
            world.clock.wait_until(turn.next_us)
    assert left_us == start_us + 9 * HOUR_US  # read as beyond at 3, 6 and 9
    with world.ledger() as ledger:
        assert ledger.trial(2).cause.endswith("against at most 10 % for 6h")


def test_a_window_whose_arms_are_not_of_their_size_is_not_told(make_world: Callable[..., Any]) -> None:
    world = make_world()
    world.production.lost = {"t1": 0.2}
    world.finish()
    outcomes = told(world)
    assert [outcomes[n][0] for n in range(4)] == [Status.FAILED] * 4
    assert outcomes[3][1].startswith("sample ratio mismatch: t1 has 1600 units where its slice gives 1920")
    assert {outcomes[n][0] for n in range(4, 13)} == {Status.OK}


def test_an_arm_that_was_withdrawn_early_does_not_spoil_the_ratio_of_the_others(
    make_world: Callable[..., Any],
) -> None:
    world = guarded(make_world, {"min_units": 100})
    with world.process() as runner:
        runner.turn()
        harm(world, 2, 0.3)
        world.production.lost = {"t2": 0.6, "t3": 0.6}
        runner.run()
    outcomes = told(world)
    assert [outcomes[n][0] for n in range(4)] == [Status.OK, Status.OK, Status.INFEASIBLE, Status.INFEASIBLE]


def test_f54_a_metric_that_never_moves_is_pointed_out(make_world: Callable[..., Any]) -> None:
    world = guarded(make_world, {})
    world.production.metrics["unsubscribe"] = lambda rate: 0.0
    world.finish()
    alarms = [notice for notice in world.notices if notice.kind == "constant"]
    assert len(alarms) == 4  # once for each window
    assert alarms[0].text == (
        "unsubscribe is 0 in all 5 arms, without any spread: is its sensor alive? (look at unused.sql)"
    )
    assert {status for status, _ in told(world).values()} == {Status.OK}


def test_dying_after_every_second_step_decides_guardrails_and_ratios_alike(
    make_world: Callable[..., Any], fuse: Any, died: Any
) -> None:
    def eventful() -> Any:
        world = guarded(make_world, {"silent_after": "6h"}, budget={"breaches": 12})
        bad = {1: 0.2, 5: 0.4}

        def rates(rate: float) -> float:
            bodies = world.production.bodies
            return next(
                (
                    r
                    for t, r in bad.items()
                    if (1, f"t{t}") in bodies and rate == world.rate(bodies[1, f"t{t}"])
                ),
                0.02,
            )

        world.production.metrics["unsubscribe"] = rates
        world.production.lost = {"t3": 1.0, "t6": 0.3}
        return world

    whole, killed = eventful(), eventful()
    whole.finish()
    statuses = [status for status, _ in told(whole).values()]
    assert {Status.INFEASIBLE, Status.FAILED, Status.OK} <= set(statuses)
    deaths = 0
    while True:
        try:
            with killed.process(fuse(at=2, after=True)) as runner:
                runner.run()
        except died:
            deaths += 1
            continue
        break
    assert deaths > 30
    assert killed.facts() == whole.facts()
