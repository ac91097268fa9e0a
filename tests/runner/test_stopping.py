"""Taking everything out of traffic, and going on later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from blackopt.errors import GuardrailStop
from blackopt.ledger.rows import Mode, TrialState
from blackopt.types import Status


def stop(world: Any) -> None:
    with world.process() as runner:
        now_us = world.clock.now_us()
        runner.driver.set_mode(Mode.STOPPED, cause="stopped by a person", at_us=now_us)
        runner.lane.clear("stopped by a person", now_us)


def test_stopping_withdraws_everything_and_what_was_measured_still_counts(world: Any) -> None:
    with world.process() as runner:
        turn = runner.turn()
        world.clock.wait_until(turn.next_us)
        runner.turn()
    assert len(world.production.live) == 4
    stop(world)
    assert world.production.live == {}
    with world.ledger() as ledger:
        assert ledger.campaign.mode is Mode.STOPPED
        assert len(ledger.trials(states=[TrialState.AWAITING])) == 4
    with pytest.raises(GuardrailStop, match="stopped"):
        world.finish()
    with world.process(resume=True) as runner:
        runner.run()
    with world.ledger() as ledger:
        assert [row.status for row in ledger.tells()] == [Status.OK] * 13


def test_f41_a_module_that_cannot_be_reached_lets_go_by_its_lease(make_world: Callable[..., Any]) -> None:
    world = make_world(schedule={"lease": "1d"})
    world.production.faults["withdraw"] = ["down"] * 1000
    world.finish()
    with world.ledger() as ledger:
        assert [row.status for row in ledger.tells()] == [Status.OK] * 13
        assert {push.state.value for push in ledger.pushes() if push.kind.value == "withdraw"} == {"lapsed"}


def test_a_module_that_refuses_to_withdraw_is_asked_again(world: Any) -> None:
    with world.process() as runner:
        world.clock.wait_until(runner.turn().next_us)
    world.production.faults["withdraw"] = ["refused"] * 4
    stop(world)
    assert len(world.production.live) == 4
    with world.ledger() as ledger:
        assert len(ledger.trials(states=[TrialState.WITHDRAWING])) == 4
    with world.process(resume=True) as runner:
        runner.run()
    assert world.production.live == {}
    with world.ledger() as ledger:
        refused = [a for trial in range(4) for a in ledger.attempts(trial) if "refused" in a.detail]
    assert len(refused) == 4
